"""`tfod-zoo benchmark compare`: what changed between two sweeps, and a regression as exit code 1."""

from __future__ import annotations

import argparse
import re
import sys

from tfod_zoo.errors import UsageError

HELP = "say what changed between two sweeps beyond noise; exit code 1 on a regression beyond the tolerance"
EXAMPLE = """\
tfod-zoo benchmark compare before/ after/
  tfod-zoo benchmark compare before/results.jsonl after/ --tolerance 10% --map-tolerance 0.5 --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", metavar="A", help="a folder of `tfod-zoo benchmark --out`, or its results.jsonl")
    parser.add_argument("after", metavar="B", help="another, of the same models")
    parser.add_argument("--tolerance", default="5%", metavar="PERCENT",
                        help="more latency or memory than this is a regression, where it is beyond noise (default 5%%)")
    parser.add_argument("--map-tolerance", type=float, default=1.0, metavar="POINTS",
                        help="and so is a loss of more percentage points of mAP (default 1)")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")


def run(args: argparse.Namespace) -> int:
    from tfod_zoo.benchmark.compare import compare

    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%?", args.tolerance.strip())
    if not match:
        raise UsageError(f"--tolerance {args.tolerance!r} is not a percentage; write 5%.")
    if not args.map_tolerance >= 0:
        raise UsageError(f"--map-tolerance {args.map_tolerance:g} is below 0; give percentage points, such as 1.")
    comparison = compare(
        args.before, args.after, tolerance=float(match[1]) / 100, map_tolerance=args.map_tolerance,
        on_row=lambda title: print(f"comparing {title} ...", file=sys.stderr),
    )
    if args.json:
        print(comparison.to_json())
        return 1 if comparison.regressions else 0
    for row in comparison.rows:
        print(row.title)
        if row.failure:
            print(f"  REGRESSION  measured before, now {row.failure}")
        for change in row.changes:
            print("  " + _line(change))
    for titles, where in ((comparison.only_before, args.before), (comparison.only_after, args.after)):
        for title in titles:
            print(f"only in {where}: {title}")
    for warning in comparison.warnings:
        print(f"note: {warning}")
    print(
        f"{comparison.regressions} of {len(comparison.rows)} rows regressed by more than {match[1]} % of latency or "
        f"memory, or {args.map_tolerance:g} points of mAP."
    )
    return 1 if comparison.regressions else 0


def _line(change) -> str:
    in_points = change.figure.endswith("mAP %")
    scale, unit = (1, "points") if in_points else (100, "%")
    text = f"{change.figure:<15}{change.before:9.1f} -> {change.after:9.1f}  {scale * change.change:+.1f} {unit}"
    if change.low is not None:
        text += f" ({scale * change.low:+.1f} to {scale * change.high:+.1f})"
    verdict = change.verdict.upper() if change.verdict == "regression" else change.verdict
    return f"{verdict:<12}{text}"
