"""`tfod-zoo data`: import and make data sets."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tfod_zoo.errors import UsageError

if TYPE_CHECKING:
    from tfod_zoo.data.boxed_images import Annotations
    from tfod_zoo.data.folder import DataSet
    from tfod_zoo.data.importing import ImportReport

HELP = "import Pascal VOC, COCO JSON, CSV or YOLO as TFRecords, check a data set, or make the synthetic shapes"
EXAMPLE = """\
tfod-zoo data import bccd --out cells
  tfod-zoo data voc --root bccd --split train,val,test --out cells
  tfod-zoo data csv --annotations train=train_labels.csv --annotations val=test_labels.csv --images images --out cells
  tfod-zoo data yolo --root cells-yolo --out cells
  tfod-zoo data coco --annotations annotations/person_keypoints_val2017.json --images val2017 --out coco
  tfod-zoo data check cells --sheet cells.png
  tfod-zoo data shapes --out shapes --image-size 192"""

_BOX_MODEL = "centernet_mobilenetv2fpn_512x512_coco17_od"
_KEYPOINT_MODEL = "centernet_mobilenetv2fpn_512x512_coco17_kpts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    names = "import | check | voc | coco | csv | yolo | shapes"
    kinds = parser.add_subparsers(dest="kind", required=True, metavar=names)
    found = kinds.add_parser("import", help="a folder of any of these kinds -> train and val TFRecords and a label map")
    found.add_argument("folder", metavar="DIR", help="images and annotations, at any depth")
    found.add_argument("--out", required=True, metavar="DIR", help="where the records and label_map.pbtxt go")
    found.add_argument("--val-share", type=float, metavar="SHARE",
                       help="of the images to evaluate on, where DIR has no split of its own (default 0.2)")
    found.add_argument("--json", action="store_true", help="print what was written and left out as JSON")
    check = kinds.add_parser("check", help="what is wrong with a data set, and a picture of it; exits with 1 on errors")
    check.add_argument("path", nargs="?", metavar="CONFIG|DIR", help="a pipeline config, or a folder as for import")
    check.add_argument("--records", action="append", default=[], metavar="RECORDS",
                       help="instead of CONFIG or DIR: a record glob or tfds:NAME:SPLIT; may be given again")
    check.add_argument("--label-map", metavar="FILE", help="the label map of --records")
    check.add_argument("--sheet", metavar="FILE.png", help="draw images with their boxes and class names")
    check.add_argument("--images", type=int, default=24, metavar="N", help="of the sheet (default 24)")
    check.add_argument("--json", action="store_true", help="print the findings as JSON")
    voc = kinds.add_parser("voc", help="Pascal VOC folder -> TFRecords and a label map")
    voc.add_argument("--root", required=True, metavar="DIR", help="has JPEGImages/, Annotations/ and ImageSets/Main/")
    voc.add_argument("--split", required=True, metavar="NAME[,NAME]", help="lists in ImageSets/Main, e.g. train,val")
    voc.add_argument("--out", required=True, metavar="DIR", help="where the records and label_map.pbtxt go")
    coco = kinds.add_parser("coco", help="COCO JSON (instances, person_keypoints) -> TFRecords and a label map")
    coco.add_argument("--annotations", required=True, metavar="FILE", help="the JSON with boxes, perhaps keypoints")
    coco.add_argument("--keypoints", metavar="FILE",
                      help="a second JSON of the same images, whose keypoints are added: instances_val2017.json with "
                           "person_keypoints_val2017.json measures boxes of all classes and keypoints at once")
    coco.add_argument("--images", required=True, metavar="DIR", help="what the JSON's file names are relative to")
    coco.add_argument("--out", required=True, metavar="DIR", help="where the records and label_map.pbtxt go")
    coco.add_argument("--split", metavar="NAME", help="name of the records (default: from FILE's, such as val2017)")
    coco.add_argument("--shards", type=int, metavar="N", help="files (default: one for every 2000 images)")
    csv = kinds.add_parser("csv", help="CSV with one box a line -> TFRecords and a label map")
    csv.add_argument("--annotations", required=True, action="append", metavar="[SPLIT=]FILE",
                     help="columns filename, width, height, class, xmin, ymin, xmax, ymax; once for every split (SPLIT "
                          "defaults to what the file's name speaks of, or train)")
    csv.add_argument("--images", required=True, metavar="DIR", help="the images, at any depth")
    csv.add_argument("--out", required=True, metavar="DIR", help="where the records and label_map.pbtxt go")
    yolo = kinds.add_parser("yolo", help="YOLO text (images/, labels/, data.yaml or classes.txt) -> the same")
    yolo.add_argument("--root", required=True, metavar="DIR", help="the data set's folder, or its data.yaml")
    yolo.add_argument("--out", required=True, metavar="DIR", help="where the records and label_map.pbtxt go")
    for one in (voc, csv, yolo):
        one.add_argument("--label-map", metavar="FILE", help="use these ids; other classes are dropped and counted")
        one.add_argument("--shards", type=int, metavar="N", help="files a split (default: one for every 2000 images)")
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
    commands = {
        "import": _import, "check": _check, "voc": _voc, "coco": _coco, "csv": _csv, "yolo": _yolo, "shapes": _shapes
    }
    return commands[args.kind](args)


def _import(args: argparse.Namespace) -> int:
    from tfod_zoo.data.folder import find_data
    from tfod_zoo.data.splits import VAL_SHARE
    from tfod_zoo.evaluation.progress import ImageProgress

    def say(line: str) -> None:
        if not args.json:
            print(line, flush=True)

    say(f"reading {args.folder}")
    val_share = VAL_SHARE if args.val_share is None else args.val_share
    found = find_data(args.folder, val_share, besides=args.out)
    say(f"importing {found.num_images} images ({found.kind}) into {args.out}")
    with ImageProgress("import", found.num_images) as progress:
        data = found.import_to(args.out, progress)
    if args.json:
        print(json.dumps(data.as_dict(), indent=2))
    else:
        _print_import(data.report, data)
    return 0


def _check(args: argparse.Namespace) -> int:
    from tfod_zoo.data.check import check_data, count_images
    from tfod_zoo.data.check_target import open_target
    from tfod_zoo.data.contact_sheet import draw_sheet
    from tfod_zoo.evaluation.progress import ImageProgress

    def say(line: str) -> None:
        if not args.json:
            print(line, flush=True)

    opened = contextlib.ExitStack()
    with contextlib.ExitStack() as reading:

        def on_import(kind: str, images: int) -> ImageProgress:
            say(f"{args.path} holds {images} images ({kind})")
            return reading.enter_context(ImageProgress("read", images))

        target = opened.enter_context(open_target(args.path, args.records, args.label_map, on_import))
    with opened:
        images = count_images(target.parts)
        say(f"checking {images} images")
        with ImageProgress("check", images) as progress:
            report = check_data(target.parts, target.resizer, target.findings, progress)
        if args.sheet:
            draw_sheet(target.parts, report, args.sheet, args.images)
    if args.json:
        print(json.dumps(report.as_dict(), indent=2))
    for line in report.lines():
        say(line)
    if args.sheet:
        say(args.sheet)
    return 0 if report.ok else 1


def _voc(args: argparse.Namespace) -> int:
    from tfod_zoo.data.voc import read_voc

    return _write(args, read_voc(args.root, args.split), f"{args.split} of {args.root}")


def _csv(args: argparse.Namespace) -> int:
    from tfod_zoo.data.csv_boxes import read_csv
    from tfod_zoo.data.splits import split_of_name

    files: dict[str, str] = {}
    for text in args.annotations:
        split, equals, file = text.partition("=")
        split, file = (split, file) if equals else (split_of_name(Path(text).stem) or "train", text)
        if split in files:
            raise UsageError(f"{files[split]} and {file} are both for split {split}; write --annotations SPLIT=FILE.")
        files[split] = file
    return _write(args, read_csv(files, args.images), ", ".join(files.values()))


def _yolo(args: argparse.Namespace) -> int:
    from tfod_zoo.data.yolo import read_yolo

    return _write(args, read_yolo(args.root), args.root)


def _write(args: argparse.Namespace, annotations: Annotations, what: str) -> int:
    from tfod_zoo.data.boxed_images import write_annotations
    from tfod_zoo.evaluation.progress import ImageProgress

    print(f"importing {what} into {args.out}", flush=True)
    with ImageProgress("import", annotations.num_images) as progress:
        report = write_annotations(annotations, args.out, args.label_map, args.shards, progress)
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


def _print_import(report: ImportReport, data: DataSet | None = None) -> None:
    found, *rest = report.lines()
    for line in (data.description if data else found, *rest):
        print(line)
    for written in report.records.values():
        print(written)
    print(report.label_map)
    records = list(report.records.values())
    model = _KEYPOINT_MODEL if report.keypoints else _BOX_MODEL
    flags = [f"--train-records '{one}'" for one in (data.train_records if data else records[:1])]
    flags += [f"--eval-records '{one}'" for one in (data.eval_records if data else records[-1:])]
    print(f"next: tfod-zoo config {model} --label-map {report.label_map} {' '.join(flags)} --out pipeline.config")


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
        f"next: tfod-zoo config {_KEYPOINT_MODEL if args.keypoints else _BOX_MODEL} "
        f"--label-map {label_map} --train-records '{train}' --eval-records '{validation}' --out pipeline.config"
    )
    return 0
