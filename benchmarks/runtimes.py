"""Other runtimes beside our own float32 TensorFlow, call by call in the same run, each in a process of its own.

    python benchmarks/runtimes.py [MODEL] [--weights DIR]

Batch 1, from a uint8 900x1352 photograph to detections in host memory. The processes take turns: some calls of one, of
the next, and a unit (`units.py`) between; a ratio is of two turns that follow each other. Exits 1 where a runtime is
slower than its bound, or too far from the model (`tfod_zoo/export/agreement.py`).

Weights are random by default, whose detections cost as much as trained ones but lie too close together to be matched:
the networks' outputs alone are judged then. DIR/MODEL/checkpoint/ holds others, whose detections are. int8 is fitted to
random weights in any case; what it costs in mAP, `tfod-zoo export --precision int8 --dataset SET` tells of a trained
model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from units import make_unit, seconds_of

from tfod_zoo.benchmark.entry import Entry
from tfod_zoo.benchmark.loading import export_apart, load_model
from tfod_zoo.benchmark.machine import describe_machine, machine_line, usable_cores
from tfod_zoo.benchmark.picture import photograph_like
from tfod_zoo.benchmark.timing import timing_doubts
from tfod_zoo.errors import ZooError
from tfod_zoo.export.formats import REPORT

# Each precision at least so many times as fast as our own float32 TensorFlow.
MODELS = {
    "centernet_mobilenetv2fpn_512x512_coco17_od": {"bfloat16": 2.2, "int8": 3.0},
    "centernet_resnet50_v1_fpn_512x512_coco17_tpu-8": {"bfloat16": 2.2, "int8": 3.0},
    "centernet_resnet50_v2_512x512_kpts_coco17_tpu-8": {"bfloat16": 2.2, "int8": 3.0},
    "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8": {"bfloat16": 2.2, "int8": 2.2},
    "centernet_hg104_512x512_coco17_tpu-8": {"bfloat16": 2.2, "int8": 2.2},
}
RUNTIME = "openvino"
PHOTOGRAPH = (1352, 900)  # width, height
ROUNDS = 11
TURN_SECONDS = 0.3  # a turn has as many calls as fit, and at least one
WARM_UP = 5


class Turn(NamedTuple):
    """Seconds: the median of a turn's calls, all of them, and the processor's during them."""

    median: float
    wall: float
    cpu: float


class Runner:
    """A process that runs a model when it is asked to."""

    def __init__(self, *arguments: str):
        command = [sys.executable, __file__, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.turns: list[Turn] = []
        self._answer()

    def turn(self) -> Turn:
        """The first call of a turn finds the other's data in the caches, and does not count."""
        self.turns.append(Turn(*self._ask("turn")))
        return self.turns[-1]

    def unit(self) -> float:
        """Seconds of one."""
        return self._ask("unit")

    def cores_used(self) -> float:
        return sum(turn.cpu for turn in self.turns) / sum(turn.wall for turn in self.turns)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _ask(self, what: str) -> Any:
        assert self._process.stdin
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"a process that measures ended by itself with exit code {self._process.wait()}, see above.")
        return json.loads(line)


def serve(detect: Callable[[np.ndarray], Any]) -> None:
    """Answers a `Runner`, a line of JSON to each of its lines."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not mix with the answers
    images = np.asarray(Image.fromarray(photograph_like()).resize(PHOTOGRAPH))[None]
    for _ in range(WARM_UP):
        detect(images)
    calls = max(1, int(TURN_SECONDS / seconds_of(lambda: detect(images))))
    unit = None

    def answer(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    answer("ready")
    for line in sys.stdin:
        if line.strip() == "unit":
            unit = unit or make_unit()
            unit()
            answer(seconds_of(unit))
            continue
        detect(images)
        cpu, wall = time.process_time(), time.perf_counter()
        seconds = [seconds_of(lambda: detect(images)) for _ in range(calls)]
        answer([float(np.median(seconds)), time.perf_counter() - wall, time.process_time() - cpu])


def serve_tensorflow(model: str, weights: str) -> None:
    from tfod_zoo.benchmark.runtimes import tensorflow

    serve(tensorflow.load(load_model(Entry(model, weights=weights)), "tensorflow", "float32").detect)


def serve_export(folder: str) -> None:
    from tfod_zoo.export.exported import load_exported

    serve(load_exported(folder))


def measure(model: str, weights: str) -> int:
    """Prints a line for each precision; how many are not within their bounds."""
    with tempfile.TemporaryDirectory() as folder:
        commands, reports = {"tensorflow": ["--tensorflow", model, "--weights", weights]}, {}
        for precision in MODELS[model]:
            fitted = "random" if precision == "int8" else weights
            entry = Entry(model, weights=fitted, runtime=RUNTIME, precision=precision)
            try:
                place = export_apart(entry, Path(folder) / precision)
            except ZooError as error:
                print(f"{model}: {error}", flush=True)
                continue
            commands[precision] = ["--exported", str(place)]
            reports[precision] = json.loads((place / REPORT).read_text())
        with contextlib.ExitStack() as stack:
            started = {}
            for name, arguments in commands.items():
                started[name] = Runner(*arguments)
                stack.callback(started[name].end)
            units: dict[str, list[float]] = {name: [] for name in started}
            for round_ in range(ROUNDS):
                before = started["tensorflow"].unit()
                # Who follows whom changes from round to round.
                for name in (list(started) if round_ % 2 else list(started)[::-1]):
                    median = started[name].turn().median
                    after = started["tensorflow"].unit()
                    units[name].append(2 * median / (before + after))
                    before = after
    of_tensorflow = [turn.median for turn in started["tensorflow"].turns]
    print(f"{model}, {weights} weights: tensorflow float32 {_cost(units['tensorflow'], started['tensorflow'])}")
    missed = 0
    for precision, least in MODELS[model].items():
        if precision not in started:
            missed += 1
            continue
        ratios = [ours / turn.median for ours, turn in zip(of_tensorflow, started[precision].turns, strict=True)]
        low, ratio, high = np.percentile(ratios, [25, 50, 75])
        missed += int(ratio < least)
        print(
            f"  {RUNTIME} {precision} {_cost(units[precision], started[precision])}: {ratio:.2f} times as fast "
            f"(quartiles {low:.2f} to {high:.2f}; at least {least:g})\n    {_agreement(reports[precision])}",
            flush=True,
        )
    for name, runner in started.items():
        row = {"device": "CPU", "cores_used": runner.cores_used(), "cores_allowed": usable_cores()}
        for doubt in timing_doubts(row):
            print(f"  {name}: {doubt}", flush=True)
    return missed


def _cost(units: list[float], runner: Runner) -> str:
    milliseconds = 1e3 * float(np.median([turn.median for turn in runner.turns]))
    return f"{np.median(units):.2f} units ({milliseconds:.1f} ms, {runner.cores_used():.1f} cores)"


def _agreement(report: dict[str, Any]) -> str:
    agreement = report["agreement"]
    said = (
        f"{agreement['matched']} of {agreement['detections']} detections over 0.3 found again on "
        f"{agreement['images']} images, scores within {agreement['score_difference']:.1e}, outputs within "
        f"{agreement['network_difference']:.1e} of their size"
    )
    return said + (" (not judged by detections)" if report["beyond_bounds"] else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", choices=MODELS, metavar="MODEL")
    parser.add_argument("--weights", metavar="DIR", default="random")
    parser.add_argument("--tensorflow", help=argparse.SUPPRESS)
    parser.add_argument("--exported", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tensorflow:
        serve_tensorflow(args.tensorflow, args.weights)
        return 0
    if args.exported:
        serve_export(args.exported)
        return 0
    print(machine_line(describe_machine()), flush=True)
    missed = 0
    for model in [args.model] if args.model else MODELS:
        weights = args.weights if args.weights == "random" else str(Path(args.weights) / model / "checkpoint")
        missed += measure(model, weights)
    print(f"{missed} bounds missed." if missed else "All within their bounds.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
