"""`tfod-zoo export`: a model as files that others run."""

from __future__ import annotations

import argparse

from tfod_zoo.cli.images import read_images
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.export.formats import PRECISIONS, SAVED_MODEL

HELP = "write a model as SavedModel, OpenVINO, LiteRT or ONNX, proved against the model itself"
EXAMPLE = """\
tfod-zoo export runs/cells --out cells-export --images photos/
  tfod-zoo export runs/cells --out cells-export --format openvino --precision bfloat16,int8 --images photos/"""

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
        "--weights", default="zoo", metavar="W", help="zoo (default; of a folder: its own), random, or a checkpoint"
    )
    parser.add_argument("--input-type", choices=_INPUT_TYPES, default=_INPUT_TYPES[0],
                        help="what the SavedModel's input_tensor is (default: %(default)s, one uint8 image)")
    parser.add_argument("--images", metavar="DIR",
                        help=f"jpg and png files to compare on, the first {_COMPARED_IMAGES} (default: generated), and "
                             f"to fit int8 to, the first {_CALIBRATION_IMAGES}")
    parser.add_argument("--store", metavar="DIR", help="folder of the zoo's archives")


def run(args: argparse.Namespace) -> int:
    wanted = _wanted(args.format, args.precision)
    given = read_images(args.images, _CALIBRATION_IMAGES) if args.images else []
    import tfod_zoo
    from tfod_zoo.certification.certificate import generated_images
    from tfod_zoo.export.exported import export_networks
    from tfod_zoo.export.saved_model import export_saved_model

    model = tfod_zoo.load(args.model, weights=args.weights, store=args.store)
    trained = args.weights != "random"
    made_of = f"{args.model}, weights {args.weights}"
    images = given[:_COMPARED_IMAGES] or generated_images()
    refused: list[str] = []
    for format, precision in wanted:
        print(f"{made_of}: converting to {format} {precision}".rstrip(), flush=True)
        try:
            if format == SAVED_MODEL:
                export_saved_model(model, args.out, images, input_type=args.input_type, made_of=made_of)
            elif precision == "int8" and trained and not given:
                raise UsageError(f"{format} int8 is fitted to your images; give --images.")
            else:
                export_networks(
                    model, args.out, images, format=format, precision=precision, made_of=made_of, trained=trained,
                    calibration=given,
                )  # fmt: skip
        except ZooError as error:
            if len(wanted) == 1:
                raise
            refused.append(f"{format} {precision}".rstrip())
            print(f"refused: {refused[-1]}: {error}", flush=True)
    if refused:
        print(f"{len(refused)} of {len(wanted)} exports were refused, reasons above: {', '.join(refused)}.")
        return 1
    format, precision = wanted[-1]
    if format == SAVED_MODEL:
        print(f"next: tf.saved_model.load('{args.out}/saved_model'), or tfod-zoo benchmark {args.out}")
    else:
        print(f"next: tfod_zoo.export.exported.load_exported('{args.out}/{format}_{precision}')(images)")
    return 0


def _wanted(format: str, precision: str | None) -> list[tuple[str, str]]:
    """Pairs of a format and a precision; a SavedModel has none."""
    asked = precision.split(",") if precision else []
    if format == SAVED_MODEL:
        if asked:
            raise UsageError("a SavedModel is float32; give --precision with another --format.")
        return [(SAVED_MODEL, "")]
    if format != _ALL:
        unknown = [name for name in asked if name not in PRECISIONS[format]]
        if unknown:
            raise UsageError(f'{format} has no precision "{unknown[0]}"; use {", ".join(PRECISIONS[format])}.')
        return [(format, name) for name in asked or PRECISIONS[format][:1]]
    pairs = [(name, each) for name, each_of in PRECISIONS.items() for each in each_of if not asked or each in asked]
    if not pairs:
        raise UsageError(f"no format has the precision {precision}; see --help.")
    return ([] if asked else [(SAVED_MODEL, "")]) + pairs
