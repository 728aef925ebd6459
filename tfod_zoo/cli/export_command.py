"""`tfod-zoo export`: a model as files that others run."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from tfod_zoo.cli.images import read_images
from tfod_zoo.cli.model_title import model_title
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.export.formats import PRECISIONS, SAVED_MODEL, check

HELP = "write a model as SavedModel, OpenVINO, LiteRT or ONNX, proved against the model itself"
EXAMPLE = """\
tfod-zoo export runs/cells --out cells-export --images photos/
  tfod-zoo export runs/cells --out cells-export --format openvino --precision bfloat16,int8 --dataset config"""

# As export/saved_model.py has them, whose import takes TensorFlow.
_INPUT_TYPES = ("image_tensor", "float_image_tensor", "encoded_image_string_tensor", "tf_example")
_COMPARED_IMAGES = 16  # enough to show a difference, few enough for an hourglass on a CPU
_CALIBRATION_IMAGES = 64  # ranges of activations hardly move any more
_ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    every = "; ".join(f"{name}: {', '.join(precisions)}" for name, precisions in PRECISIONS.items())
    parser.add_argument("model", metavar="NAME|DIR", help="a zoo model, or a training folder")
    parser.add_argument("--out", metavar="DIR", required=True,
                        help="gets saved_model/, checkpoint/, pipeline.config; other formats FORMAT_PRECISION/")
    parser.add_argument("--format", choices=(SAVED_MODEL, *PRECISIONS, _ALL), default=SAVED_MODEL,
                        help="what runs it (default: %(default)s, TFOD's)")
    parser.add_argument("--precision", metavar="P,P",
                        help=f"of the other formats (default: float32, with --format all every one). {every}")
    parser.add_argument(
        "--weights", default="zoo", metavar="zoo|random|PREFIX",
        help="zoo (default; of a folder: its own), random, or a checkpoint",
    )
    parser.add_argument("--input-type", choices=_INPUT_TYPES, default=_INPUT_TYPES[0],
                        help="what the SavedModel's input_tensor is (default: %(default)s, one uint8 image)")
    parser.add_argument("--images", metavar="DIR",
                        help=f"jpg and png files to compare on, the first {_COMPARED_IMAGES} (default: those of "
                             f"--dataset, or generated), and to fit int8 to, the first {_CALIBRATION_IMAGES}")
    parser.add_argument("--dataset", metavar="RECORDS",
                        help="labelled data (records, tfds:NAME[/CONFIG]:SPLIT, or config for the model's own): int8 "
                             "and dynamic are judged by the mAP that they cost on it")
    parser.add_argument("--label-map", metavar="FILE", help="the data's label map, in place of the config's")
    parser.add_argument("--limit", type=int, metavar="N", help="measure mAP on the first N images only")
    parser.add_argument("--store", metavar="DIR", help="folder of the zoo's archives")
    parser.add_argument("--json", action="store_true", help="print what was written and refused as JSON")


def run(args: argparse.Namespace) -> int:
    wanted = _wanted(args.format, args.precision)
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit {args.limit} is not a number of images; give 1 or more.")
    trained = args.weights != "random"
    if trained and not args.images and not args.dataset:
        wanted = _without_int8(wanted, asked=bool(args.precision))
    given = read_images(args.images, _CALIBRATION_IMAGES) if args.images else []
    # Converters warn of each table that reads the data set; what goes wrong is raised.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    import tfod_zoo
    from tfod_zoo.certification.certificate import generated_images
    from tfod_zoo.evaluation.pipeline_data import first_images
    from tfod_zoo.export.exported import export_networks
    from tfod_zoo.export.saved_model import export_saved_model

    model = tfod_zoo.load(args.model, weights=args.weights, store=args.store)
    made_of = model_title(args.model, args.weights)
    labelled = _labelled(args, model) if args.dataset else None
    if labelled:
        given = given or first_images(labelled.pipeline, _CALIBRATION_IMAGES)
    images = given[:_COMPARED_IMAGES] or generated_images()
    written: list[dict[str, str]] = []
    refused: list[dict[str, str]] = []
    args.result = {"written": written, "refused": refused}
    for format, precision in wanted:
        print(f"{made_of}: converting to {_title(format, precision)}", flush=True)
        try:
            if format == SAVED_MODEL:
                export_saved_model(model, args.out, images, input_type=args.input_type, made_of=made_of)
                folder = Path(args.out) / SAVED_MODEL
            else:
                folder = export_networks(
                    model, args.out, images, format=format, precision=precision, made_of=made_of, calibration=given,
                    labelled=labelled, lenient=not trained,
                )  # fmt: skip
        except ZooError as error:
            refused.append({"format": format, "precision": precision, "reason": str(error)})
            if len(wanted) == 1:
                raise
            print(f"refused: {_title(format, precision)}: {error}", flush=True)
        else:
            written.append({"format": format, "precision": precision, "folder": str(folder)})
    if refused:
        names = ", ".join(_title(each["format"], each["precision"]) for each in refused)
        print(f"{len(refused)} of {len(wanted)} exports were refused, reasons above: {names}.")
        return 1
    if wanted[-1][0] == SAVED_MODEL:
        print(f"next: tf.saved_model.load('{folder}'), or tfod-zoo benchmark {args.out}")
    else:
        print(f"next: tfod_zoo.export.exported.load_exported('{folder}')(images)")
    return 0


def _title(format: str, precision: str) -> str:
    return f"{format} {precision}".rstrip()


def _labelled(args: argparse.Namespace, model: Any) -> Any:
    from tfod_zoo.data.input_pipeline import count_examples
    from tfod_zoo.evaluation.pipeline_data import with_eval_data
    from tfod_zoo.evaluation.progress import ImageProgress
    from tfod_zoo.export.accuracy import LabelledData

    dataset = None if args.dataset == "config" else args.dataset
    pipeline = with_eval_data(model.pipeline, dataset, args.label_map)
    images = count_examples(pipeline, training=False)
    total = args.limit if images is None else min(images, args.limit or images)
    return LabelledData(model, pipeline, args.limit, lambda what: ImageProgress(what, total))


def _wanted(format: str, precision: str | None) -> list[tuple[str, str]]:
    """Pairs of a format and a precision; a SavedModel has none."""
    asked = precision.split(",") if precision else []
    if format == SAVED_MODEL:
        if asked:
            raise UsageError("a SavedModel is float32; give --precision with another --format.")
        return [(SAVED_MODEL, "")]
    if format != _ALL:
        for each in asked:
            check(format, each)
        return [(format, name) for name in asked or PRECISIONS[format][:1]]
    known = list(dict.fromkeys(each for precisions in PRECISIONS.values() for each in precisions))
    for each in asked:
        if each not in known:
            raise UsageError(f'no format has the precision "{each}"; use {", ".join(known)}.')
    pairs = [(name, each) for name, precisions in PRECISIONS.items() for each in asked or precisions]
    return ([] if asked else [(SAVED_MODEL, "")]) + [pair for pair in pairs if pair[1] in PRECISIONS[pair[0]]]


def _without_int8(wanted: list[tuple[str, str]], asked: bool) -> list[tuple[str, str]]:
    """What can be made of a trained model without images of its users.

    Raises:
      UsageError: int8 was asked for by its name.
    """
    left = [pair for pair in wanted if pair[1] != "int8"]
    out = [f"{format} {precision}" for format, precision in wanted if precision == "int8"]
    if out and asked:
        raise UsageError(f"{out[0]} is fitted to your images; give --images or --dataset.")
    for name in out:
        print(f"left out: {name}, which is fitted to your images (--images or --dataset)")
    return left
