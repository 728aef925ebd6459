"""`tfod-zoo data`: import and make data sets."""

from __future__ import annotations

import argparse

HELP = "import a Pascal VOC folder as TFRecords, or make the synthetic shapes data set"
EXAMPLE = """\
tfod-zoo data voc --root bccd --split train,val,test --out cells
  tfod-zoo data shapes --out shapes --image-size 192"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="voc | shapes")
    voc = kinds.add_parser("voc", help="Pascal VOC folder -> TFRecords and a label map")
    voc.add_argument("--root", required=True, metavar="DIR", help="has JPEGImages/, Annotations/ and ImageSets/Main/")
    voc.add_argument("--split", required=True, metavar="NAME[,NAME]", help="lists in ImageSets/Main, e.g. train,val")
    voc.add_argument("--out", required=True, metavar="DIR", help="where the records and label_map.pbtxt go")
    voc.add_argument("--label-map", metavar="FILE", help="use these ids; other classes are dropped and counted")
    voc.add_argument("--shards", type=int, metavar="N", help="files a split (default: one for every 2000 images)")
    shapes = kinds.add_parser("shapes", help="synthetic shapes, made on the spot")
    shapes.add_argument("--out", required=True, metavar="DIR", help="TFDS data folder, with shapes_label_map.pbtxt")
    shapes.add_argument("--train", type=int, default=2000, metavar="N", help="training images (default 2000)")
    shapes.add_argument("--validation", type=int, default=400, metavar="N", help="validation images (default 400)")
    shapes.add_argument("--image-size", type=int, metavar="PIXELS", help="largest side (default 320x240)")
    shapes.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed, the same images (default 0)")


def run(args: argparse.Namespace) -> int:
    return _voc(args) if args.kind == "voc" else _shapes(args)


def _voc(args: argparse.Namespace) -> int:
    from tfod_zoo.data.voc import import_voc

    print(f"importing {args.split} of {args.root} into {args.out}", flush=True)
    report = import_voc(args.root, args.split, args.out, label_map=args.label_map, shards=args.shards)
    for line in report.lines():
        print(line)
    for records in report.records.values():
        print(records)
    print(report.label_map)
    first = next(iter(report.records.values()))
    last = list(report.records.values())[-1]
    print(
        "next: tfod-zoo config centernet_mobilenetv2fpn_512x512_coco17_od "
        f"--label-map {report.label_map} --train-records '{first}' --eval-records '{last}' --out pipeline.config"
    )
    return 0


def _shapes(args: argparse.Namespace) -> int:
    from tfod_zoo.data.shapes import prepare_shapes

    print(f"making {args.train} + {args.validation} images of shapes in {args.out}", flush=True)
    size = args.image_size if args.image_size is not None else (240, 320)
    train, validation, label_map = prepare_shapes(
        args.out, train=args.train, validation=args.validation, image_size=size, seed=args.seed
    )
    print(train)
    print(validation)
    print(label_map)
    print(
        "next: tfod-zoo config centernet_mobilenetv2fpn_512x512_coco17_od "
        f"--label-map {label_map} --train-records '{train}' --eval-records '{validation}' --out pipeline.config"
    )
    return 0
