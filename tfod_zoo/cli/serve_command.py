"""`tfod-zoo serve`: a detector as a web page and an HTTP API."""

from __future__ import annotations

import argparse
import math
import os

from tfod_zoo.cli.model_title import model_title
from tfod_zoo.errors import UsageError

HELP = "a web page that shows detections on dropped images, and TensorFlow Serving's REST API"
EXAMPLE = """\
tfod-zoo serve centernet_resnet50_v1_fpn_512x512_coco17_tpu-8
  tfod-zoo serve runs/cells --port 8080
  curl --data-binary @street.jpg 'http://127.0.0.1:8501/detect?min_score=0.3'"""

# As export/saved_model.py has them, whose import takes TensorFlow.
_INPUT_TYPES = ("image_tensor", "float_image_tensor", "encoded_image_string_tensor", "tf_example")
_MIB = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME|DIR", help="a zoo model, or a training folder")
    parser.add_argument(
        "--weights", default="zoo", metavar="zoo|random|PREFIX",
        help="zoo (default; of a folder: its own), random, or a checkpoint",
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="H",
                        help="address to listen on (default: %(default)s, this machine alone; 0.0.0.0: everybody)")
    parser.add_argument("--port", type=int, default=8501, metavar="N", help="(default: %(default)s; 0: a free one)")
    parser.add_argument("--name", metavar="NAME", help="the model's in /v1/models/NAME (default: NAME, or DIR's)")
    parser.add_argument("--input-type", choices=_INPUT_TYPES, default=_INPUT_TYPES[0],
                        help="what :predict takes (default: %(default)s, one uint8 image)")
    parser.add_argument("--max-requests", type=int, default=128, metavar="N",
                        help="in flight at once; more are answered with 503 (default: %(default)s)")
    parser.add_argument("--max-mib", type=float, default=32, metavar="N", help="of a request (default: %(default)s)")
    parser.add_argument("--max-megapixels", type=float, default=32, metavar="N",
                        help="of a request's images (default: %(default)s)")
    parser.add_argument("--store", metavar="DIR", help="folder of the zoo's archives")


def run(args: argparse.Namespace) -> int:
    if not 0 <= args.port <= 65535:
        raise UsageError(f"--port {args.port} is no port; give one in 0..65535.")
    for flag, value in (("--max-requests", args.max_requests), ("--max-mib", args.max_mib),
                        ("--max-megapixels", args.max_megapixels)):
        if not 0 < value < math.inf:
            raise UsageError(f"{flag} {value} is no limit; give a number above 0.")
    name = args.name or os.path.basename(os.path.abspath(args.model))
    if not name or set(name) & set("/:?#"):
        raise UsageError(f"{name!r} cannot be a part of an address; give another --name.")
    print(f"{model_title(args.model, args.weights)}: loading and tracing", flush=True)
    import tfod_zoo
    from tfod_zoo.serving.served_model import ServedModel

    try:
        from tfod_zoo.serving.server import bind, serve
    except ModuleNotFoundError as error:
        raise UsageError(f"serve needs {error.name}: pip install 'tfod-zoo[serve]'.") from error

    with bind(args.host, args.port) as bound:  # a port that is taken is found out before the weights are read
        detector = tfod_zoo.load(args.model, weights=args.weights, store=args.store)
        model = ServedModel(detector, name, args.input_type, round(args.max_megapixels * 1e6))
        model.warm_up()
        bound.listen()  # from here on nobody is refused: who comes before the server runs waits that moment
        host, port = bound.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"the page:            {address}/")
        print(f"an image file:       curl --data-binary @photo.jpg {address}/detect")
        print(f"TensorFlow Serving:  {address}/v1/models/{name}:predict")
        print("Ctrl-C stops it.", flush=True)
        serve(model, bound, max_requests=args.max_requests, max_body=round(args.max_mib * _MIB))
    print("stopped.")
    return 0
