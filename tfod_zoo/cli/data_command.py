"""`tfod-zoo data`: import and make data sets."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfod_zoo.data.importing import ImportReport

HELP = "import Pascal VOC or COCO JSON as TFRecords, or make the synthetic shapes data set"
EXAMPLE = """\
tfod-zoo data voc --root bccd --split train,val,test --out cells
  tfod-zoo data coco --annotations annotations/person_keypoints_val2017.json --images val2017 --out coco
  tfod-zoo data shapes --out shapes --image-size 192"""

_BOX_MODEL = "centernet_mobilenetv2fpn_512x512_coco17_od"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="voc | coco | shapes")
    voc = kinds.add_parser("voc", help="Pascal VOC folder -> TFRecords and a label map")
    voc.add_argument("--root", required=True, metavar="DIR", help="has JPEGImages/, Annotations/ and ImageSets/Main/")
    voc.add_argument("--split", required=True, metavar="NAME[,NAME]", help="lists in ImageSets/Main, e.g. train,val")
    voc.add_argument("--out", required=True, metavar="DIR", help="where the records and label_map.pbtxt go")
    voc.add_argument("--label-map", metavar="FILE", help="use these ids; other classes are dropped and counted")
    voc.add_argument("--shards", type=int, metavar="N", help="files a split (default: one for every 2000 images)")
    coco = kinds.add_parser("coco", help="COCO JSON (instances, person_keypoints) -> TFRecords and a label map")
    coco.add_argument("--annotations", required=True, metavar="FILE", help="the JSON with boxes, perhaps keypoints")
    coco.add_argument("--keypoints", metavar="FILE",
                      help="a second JSON of the same images, whose keypoints are added: instances_val2017.json with "
                           "person_keypoints_val2017.json measures boxes of all classes and keypoints at once")
    coco.add_argument("--images", required=True, metavar="DIR", help="what the JSON's file names are relative to")
    coco.add_argument("--out", required=True, metavar="DIR", help="where the records and label_map.pbtxt go")
    coco.add_argument("--split", metavar="NAME", help="name of the records (default: from FILE's, such as val2017)")
    coco.add_argument("--shards", type=int, metavar="N", help="files (default: one for every 2000 images)")
    shapes = kinds.add_parser("shapes", help="synthetic shapes, made on the spot")
    shapes.add_argument("--out", required=True, metavar="DIR", help="TFDS data folder, with shapes_label_map.pbtxt")
    shapes.add_argument("--train", type=int, default=2000, metavar="N", help="training images (default 2000)")
    shapes.add_argument("--validation", type=int, default=400, metavar="N", help="validation images (default 400)")
    shapes.add_argument("--image-size", type=int, metavar="PIXELS", help="largest side (default 320x240)")
    shapes.add_argument(
        "--keypoints", metavar="NAME[,NAME]", help="shapes whose keypoints the label map names (default: all of them)"
    )
    shapes.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed, the same images (default 0)")


def run(args: argparse.Namespace) -> int:
    return {"voc": _voc, "coco": _coco, "shapes": _shapes}[args.kind](args)


def _voc(args: argparse.Namespace) -> int:
    from tfod_zoo.data.voc import import_voc, voc_images
    from tfod_zoo.evaluation.progress import ImageProgress

    images = sum(len(names) for names in voc_images(args.root, args.split).values())
    print(f"importing {args.split} of {args.root} into {args.out}", flush=True)
    with ImageProgress("import", images) as progress:
        report = import_voc(
            args.root, args.split, args.out, label_map=args.label_map, shards=args.shards, on_progress=progress
        )
    _print_import(report)
    return 0


def _coco(args: argparse.Namespace) -> int:
    from tfod_zoo.data.coco_json import import_coco, read_coco
    from tfod_zoo.evaluation.progress import ImageProgress

    print(f"reading {args.annotations}", flush=True)
    coco = read_coco(args.annotations, args.keypoints)
    split = args.split or coco.default_split
    print(f"importing {len(coco.images)} images from {args.images} into {args.out}, split {split}", flush=True)
    with ImageProgress("import", len(coco.images)) as progress:
        report = import_coco(
            coco, args.images, args.out, split=split, shards=args.shards, on_progress=progress
        )
    _print_import(report)
    return 0


def _print_import(report: ImportReport) -> None:
    for line in report.lines():
        print(line)
    for records in report.records.values():
        print(records)
    print(report.label_map)
    first = next(iter(report.records.values()))
    last = list(report.records.values())[-1]
    model = "centernet_mobilenetv2fpn_512x512_coco17_kpts" if report.keypoints else _BOX_MODEL
    print(
        f"next: tfod-zoo config {model} --label-map {report.label_map} --train-records '{first}' "
        f"--eval-records '{last}' --out pipeline.config"
    )


def _shapes(args: argparse.Namespace) -> int:
    from tfod_zoo.data.shapes import CLASSES, prepare_shapes

    print(f"making {args.train} + {args.validation} images of shapes in {args.out}", flush=True)
    size = args.image_size if args.image_size is not None else (240, 320)
    train, validation, label_map = prepare_shapes(
        args.out,
        train=args.train,
        validation=args.validation,
        image_size=size,
        seed=args.seed,
        keypoint_classes=args.keypoints.split(",") if args.keypoints else CLASSES,
    )
    print(train)
    print(validation)
    print(label_map)
    print(
        f"next: tfod-zoo config {_BOX_MODEL} "
        f"--label-map {label_map} --train-records '{train}' --eval-records '{validation}' --out pipeline.config"
    )
    return 0
