"""`tfod-zoo export`: a model as files that others run."""

from __future__ import annotations

import argparse

from tfod_zoo.cli.images import read_images

HELP = "write a model as TFOD's SavedModel, proved against the model itself"
EXAMPLE = "tfod-zoo export runs/cells --out cells-export --images photos/"

# As export/saved_model.py has them, whose import takes TensorFlow.
_INPUT_TYPES = ("image_tensor", "float_image_tensor", "encoded_image_string_tensor", "tf_example")
_COMPARED_IMAGES = 16  # enough to show a difference, few enough for an hourglass on a CPU


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME|DIR", help="a zoo model, or a training folder")
    parser.add_argument("--out", metavar="DIR", required=True, help="gets saved_model/, checkpoint/, pipeline.config")
    parser.add_argument(
        "--weights", default="zoo", metavar="W", help="zoo (default; of a folder: its own), random, or a checkpoint"
    )
    parser.add_argument("--input-type", choices=_INPUT_TYPES, default=_INPUT_TYPES[0],
                        help="what the signature's input_tensor is (default: %(default)s, one uint8 image)")
    parser.add_argument("--images", metavar="DIR",
                        help=f"jpg and png files to compare on, the first {_COMPARED_IMAGES} (default: generated)")
    parser.add_argument("--store", metavar="DIR", help="folder of the zoo's archives")


def run(args: argparse.Namespace) -> int:
    images = read_images(args.images, _COMPARED_IMAGES) if args.images else []
    import tfod_zoo
    from tfod_zoo.certification.certificate import generated_images
    from tfod_zoo.export.saved_model import export_saved_model

    model = tfod_zoo.load(args.model, weights=args.weights, store=args.store)
    print(f"{args.model}, weights {args.weights}: tracing and saving", flush=True)
    export_saved_model(
        model, args.out, images or generated_images(), input_type=args.input_type,
        made_of=f"{args.model}, weights {args.weights}",
    )  # fmt: skip
    print(f"next: tf.saved_model.load('{args.out}/saved_model'), or tfod-zoo benchmark {args.out}")
    return 0
