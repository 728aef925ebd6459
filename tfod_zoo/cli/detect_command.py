"""`tfod-zoo detect`: what a model finds in images and videos, drawn and as files for programs."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfod_zoo.cli.model_title import model_title
from tfod_zoo.errors import UsageError, ZooError

if TYPE_CHECKING:
    from tfod_zoo.pictures.inputs import Input

HELP = "find objects in images and videos: drawn, as JSON lines, and as COCO results"
EXAMPLE = """\
tfod-zoo detect centernet_resnet50_v1_fpn_512x512_coco17_tpu-8 street.jpg
  tfod-zoo detect runs/cells more/ --out found/ --min-score 0.5
  tfod-zoo detect centernet_mobilenetv2fpn_512x512_coco17_kpts 'clips/*.mp4' webcam"""

_MIN_SCORE = 0.3  # as `tfod_zoo.draw` has it
_SAID_ONE_BY_ONE = 20  # images; of more only the progress is shown
_NAMED = 5  # detections on an image's line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME|DIR", help="a zoo model, fetched where it is missing, or a folder "
                                                          "with a trained or exported one")
    parser.add_argument("inputs", nargs="+", metavar="INPUT",
                        help="images, folders of them, videos, patterns ('shots/**/*.jpg'), or webcam (webcam:1, ...)")
    parser.add_argument("--out", metavar="DIR",
                        help="gets drawings, detections.jsonl and detections.coco.json (default: beside the images)")
    parser.add_argument("--min-score", type=float, default=_MIN_SCORE, metavar="X",
                        help="leave out what is less sure, 0 to 1 (default %(default)s; 0 for COCO's evaluation)")
    parser.add_argument(
        "--weights", default="zoo", metavar="zoo|random|PREFIX",
        help="zoo (default; of a folder: its own), random, or a checkpoint",
    )
    parser.add_argument("--batch-size", type=int, metavar="N",
                        help="images a call of the network (default: 4 of 512x512 on a CPU and fewer of larger "
                             "ones, 8 on a GPU)")
    parser.add_argument("--store", metavar="DIR", help="folder of the zoo's archives")
    parser.add_argument("--json", action="store_true", help="print the JSON lines, and nothing else")


def run(args: argparse.Namespace) -> int:
    if not 0 <= args.min_score <= 1:
        raise UsageError(f"--min-score {args.min_score} is not between 0 and 1.")
    if args.batch_size is not None and args.batch_size < 1:
        raise UsageError(f"--batch-size {args.batch_size} is not a number of images; give 1 or more.")

    from tfod_zoo.pictures.inputs import find_inputs, picture_paths, results_folder
    from tfod_zoo.pictures.results import Results
    from tfod_zoo.pictures.video import opencv
    from tfod_zoo.zoo.registry import get_model

    # What can be known to fail is said before anything is written or TensorFlow imported.
    if not Path(args.model).is_dir():
        get_model(args.model)
    inputs = [_named_by_time(one) for one in find_inputs(args.inputs)]
    if any(one.moves for one in inputs):
        opencv()
    out = Path(args.out) if args.out else None
    places = picture_paths(inputs, out)
    say = (lambda text: None) if args.json else (lambda text: print(text, flush=True))
    settings = {"model": str(Path(args.model)), "weights": _weights_version(args), "min_score": args.min_score}
    with Results(results_folder(inputs, out), settings) as results:
        done = [one.path for one in inputs if results.is_done(one.path) and places[one.path].exists()]
        finished = set(done)
        todo = [one for one in inputs if one.path not in finished]
        if done:
            say(f"{len(done)} of {len(inputs)} are done already, see {results.path}; remove that to look again")
            for record in results.records(done):
                _tell(args, record, len(inputs))
        unreadable = _detect(args, todo, places, results, say) if todo else 0
        pictures = results.write_coco([one.path for one in inputs])
    say(f"written: {results.path}, {results.coco_path} ({pictures} image{'' if pictures == 1 else 's'})")
    if unreadable:
        raise ZooError(f"{unreadable} of {len(inputs)} could not be read and were left out: they are named above.")
    after = "`tfod-zoo finetune NAME --data FOLDER` teaches classes of your own"
    if Path(args.model).is_dir():
        after = f"`tfod-zoo serve {shlex.quote(args.model)}` shows what it finds in images that are dropped on a page"
    say(f"next: look at {places[inputs[0].path]}; {after}")
    return 0


def _detect(args: argparse.Namespace, todo: list[Input], places: dict, results: Any, say: Any) -> int:
    """Looks at what is to do; returns how many could not be read."""
    from tfod_zoo.evaluation.progress import ImageProgress
    from tfod_zoo.pictures.files import FileDetector

    say(f"{len(todo)} to look at with {model_title(args.model, args.weights)}")
    import tf_keras

    import tfod_zoo

    if args.weights == "random":
        tf_keras.utils.set_random_seed(0)  # the same ones when the same command goes on
        say("random weights: what is found means nothing")
    model = tfod_zoo.load(args.model, weights=args.weights, store=args.store)

    detector = FileDetector(
        model, places, results, args.min_score, ImageProgress, args.batch_size,
        on_record=lambda record: _tell(args, record, len(places)),
        on_unreadable=lambda sentence: print(f"tfod-zoo: {sentence}", file=sys.stderr, flush=True),
    )  # fmt: skip
    try:
        detector.look_at(todo)
    except KeyboardInterrupt:
        results.write_coco([*places])
        print(f"\n{results.path} has what is done; the same command goes on from there", file=sys.stderr)
        raise
    return detector.unreadable


def _tell(args: argparse.Namespace, record: dict[str, Any], inputs: int) -> None:
    """A record for a program, or of a few inputs a line of each for people."""
    if args.json:
        print(json.dumps(record, ensure_ascii=False), flush=True)
    elif "picture" in record and inputs <= _SAID_ONE_BY_ONE:
        print(_line(record), flush=True)


def _line(record: dict[str, Any]) -> str:
    if "frames" in record:
        return f"{record['file']}: {record['frames']} frames -> {record['picture']}"
    found = [f"{entry['class']} {entry['score']:.0%}" for entry in record["detections"]]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return f"{record['file']}: {', '.join(found[:_NAMED]) or 'nothing'}{more} -> {record['picture']}"


def _named_by_time(one: Input) -> Input:
    """A camera's pictures are of now, and overwrite none of earlier."""
    from dataclasses import replace

    if one.camera is None:
        return one
    return replace(one, path=one.path.with_name(f"{one.path.name}-{datetime.now():%Y%m%d-%H%M%S}"))


def _weights_version(args: argparse.Namespace) -> str:
    """Names the weights, so that results of others are not taken for theirs; a folder's change while it is trained."""
    from tfod_zoo.benchmark.entry import checkpoint_version

    if args.weights == "zoo" and Path(args.model).is_dir():
        return checkpoint_version(args.model) or "zoo"
    index = Path(f"{args.weights}.index")
    return f"{args.weights} {int(index.stat().st_mtime)}" if index.is_file() else args.weights
