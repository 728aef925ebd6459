"""`tfod-zoo benchmark`: latency, memory, operations and mAP of a sweep of models."""

from __future__ import annotations

import argparse
from pathlib import Path

from tfod_zoo.errors import UsageError

HELP = "measure speed, memory and mAP of models, each in a process of its own; `benchmark compare` two sweeps"
SUBCOMMANDS = ("compare",)
EXAMPLE = """\
tfod-zoo benchmark centernet_mobilenetv2fpn_512x512_coco17_od --weights random
  tfod-zoo benchmark 'centernet_*' --dataset tfds:coco/2017:validation --batch-sizes 1,8 --out bench/
  tfod-zoo benchmark '*' --weights random --time-budget 2h --report sweep/
  tfod-zoo benchmark runs/cells --dataset config
  tfod-zoo benchmark runs/cells --runtimes tensorflow,openvino --precisions all --dataset config
  tfod-zoo benchmark exported/ --runtimes tensorflow,saved_model
  tfod-zoo benchmark compare before/ after/ --tolerance 5%"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from tfod_zoo.benchmark.entry import MIN_CALLS, MIN_SECONDS
    from tfod_zoo.benchmark.runtimes import PRECISIONS

    parser.add_argument("models", metavar="MODEL", nargs="+",
                        help="a zoo name, a pattern over them ('centernet_*'), or a training folder")
    parser.add_argument("--weights", default="zoo", metavar="zoo|random|DIR",
                        help="zoo: the published ones, or a training folder's own (default); random; a folder of "
                             "checkpoints")
    parser.add_argument("--dataset", metavar="RECORDS",
                        help="also measure mAP on records (a glob), tfds:NAME:SPLIT, or `config`: the evaluation data "
                             "of the model's own config")
    parser.add_argument("--label-map", metavar="FILE", help="the data's label map, in place of the config's")
    parser.add_argument("--limit", type=int, metavar="N", help="mAP on the first N images only")
    parser.add_argument("--batch-sizes", default="1", metavar="N,N", help="images a call (default 1)")
    parser.add_argument("--input-sizes", metavar="N,HxW", help="canvas sizes in place of the config's")
    parser.add_argument("--runtimes", default="tensorflow", metavar="R,R",
                        help=f"what runs the models: {', '.join(PRECISIONS)}, or all, which leaves out saved_model: "
                             "the one in the model's folder, whoever wrote it (default tensorflow)")
    parser.add_argument("--precisions", metavar="P,P",
                        help="all, or names such as float32,bfloat16,int8, of those that a runtime has (default: "
                             "float32)")
    parser.add_argument("--threads", type=int, default=0, metavar="N",
                        help="threads of the runtime (default: its own choice)")
    parser.add_argument("--min-calls", type=int, default=MIN_CALLS, metavar="N",
                        help=f"timed calls, at least (default {MIN_CALLS})")
    parser.add_argument("--min-seconds", type=float, default=MIN_SECONDS, metavar="S",
                        help=f"and seconds of them, at least (default {MIN_SECONDS:g})")
    parser.add_argument("--time-budget", metavar="TIME",
                        help="stop measuring after so long, such as 90s, 30m or 2h; what did not fit is a row that "
                             "says so, measured when the same command runs again")
    parser.add_argument("--out", metavar="DIR",
                        help="folder of the results; finished rows in it are kept and not measured again (default: "
                             "that of --report, or benchmark/)")
    parser.add_argument("--report", metavar="DIR",
                        help="folder of the reports: report.html, report.md, results.csv (default: that of --out)")
    parser.add_argument("--store", help="folder of the zoo's archives")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    from tfod_zoo.benchmark.duration import format_duration, parse_duration
    from tfod_zoo.benchmark.entry import Entry
    from tfod_zoo.benchmark.input_size import parse_input_size
    from tfod_zoo.benchmark.report import markdown_table, share_metrics, write_reports
    from tfod_zoo.benchmark.roofline import measure_peaks
    from tfod_zoo.benchmark.runtimes import SAVED_MODEL, choose
    from tfod_zoo.benchmark.sweep import (
        RESULTS_FILE,
        TimeBudget,
        expand_models,
        matches_file,
        plan,
        run_sweep,
        run_worker,
    )
    from tfod_zoo.benchmark.timing import timing_doubts
    from tfod_zoo.evaluation.progress import ImageProgress

    batch_sizes = _positive_integers("--batch-sizes", args.batch_sizes)
    input_sizes = [parse_input_size(text) for text in args.input_sizes.split(",")] if args.input_sizes else [None]
    if args.min_calls < 1 or args.min_seconds < 0:
        raise UsageError("--min-calls is 1 or more, --min-seconds 0 or more.")
    if args.threads < 0:
        raise UsageError(f"--threads {args.threads} is not a number of threads; give 1 or more.")
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit {args.limit} is not a number of images; give 1 or more.")
    if args.weights not in ("zoo", "random") and not _holds_checkpoint(args.weights):
        raise UsageError(f"--weights {args.weights} is neither zoo, random, nor a folder or prefix of checkpoints.")
    budget = TimeBudget(parse_duration(args.time_budget) if args.time_budget else None)
    out = args.out or args.report or "benchmark"
    reports = args.report or out
    runtimes = choose(args.runtimes, args.precisions)
    models = expand_models(args.models, saved_models={runtime for runtime, _ in runtimes} == {SAVED_MODEL})
    entries = plan(
        models, runtimes=runtimes, batch_sizes=batch_sizes,
        input_sizes=input_sizes, dataset=args.dataset,
        weights=args.weights, label_map=args.label_map, limit=args.limit, min_calls=args.min_calls,
        min_seconds=args.min_seconds, store=args.store, threads=args.threads,
    )
    print(f"{len(entries)} entries, results in {Path(out)}/; stop with Ctrl-C and run again to go on.", flush=True)

    def measure(entry: Entry) -> dict:
        if not entry.dataset:
            return run_worker(entry, budget=budget)
        with ImageProgress(f"{entry.title}: mAP", entry.limit) as progress:
            return run_worker(entry, progress, matches=matches_file(out, entry), budget=budget)

    def peaks() -> dict[str, float]:
        print("measuring the machine's peak rates, a few seconds ...", flush=True)
        return measure_peaks()

    def on_start(index: int, entry: Entry, seconds: float | None) -> None:
        left = "" if seconds is None else f"; about {format_duration(seconds)} left"
        print(f"[{index + 1}/{len(entries)}] {entry.title}, {entry.weights_name} weights{left}", flush=True)

    def on_row(index: int, row: dict, resumed: bool) -> None:
        if row["status"] == "ok":
            speed = f"p50 {row['p50_ms']:.1f} ms, {row['images_per_second']:.1f} images/s"
            line = f"{speed}, {row['peak_memory_mib']:.0f} MiB"
        else:
            line = f"{row['status']}: {row['reason']}"
        print(f"[{index + 1}/{len(entries)}] {'(kept) ' if resumed else ''}{line}", flush=True)
        for doubt in timing_doubts(row):
            print(f"    {doubt}", flush=True)

    rows = run_sweep(
        entries, out, on_row=on_row, on_start=on_start, measure=measure, peaks=peaks, budget=budget,
        command=args.command_line,
    )
    args.result = rows
    written = write_reports(rows, reports)
    print("\n" + markdown_table(share_metrics(rows)) + "\n")
    print("written: " + ", ".join(str(path) for path in [Path(out) / RESULTS_FILE, *written]))
    skipped = sum(row["status"] == "skipped" for row in rows)
    failed = sum(row["status"] not in ("ok", "skipped") for row in rows)
    if skipped:
        print(f"{skipped} of {len(rows)} entries did not fit in --time-budget; run the same command again to go on.")
    if failed:
        print(f"{failed} of {len(rows)} entries failed, reasons above; run the same command again to retry them.")
        return 1
    then = "" if args.dataset else "; add --dataset to measure mAP as well"
    print(f"next: open {Path(reports) / 'report.html'}{then}")
    return 0


def _positive_integers(flag: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"{flag} {text!r} is not a list of numbers from 1; write 1,8.")
    return [int(part) for part in parts]


def _holds_checkpoint(weights: str) -> bool:
    from tfod_zoo.benchmark.entry import checkpoint_version

    return Path(weights + ".index").is_file() or (Path(weights).is_dir() and checkpoint_version(weights) is not None)
