"""Compiles the train step and `detect` of every zoo model with the TPU compiler, and writes the table of them.

    python benchmarks/tpu_check.py [PATTERN] [--python INTERPRETER] [--again]

Each model at its published batch a core: on v3-8, and on v3-32 too where its recipe says TPU-32. Rows go to
benchmarks/tpu_check.json as they are found, with the versions that found them, and benchmarks/tpu_check.md is made
from it; rows that are there are kept, so that an interrupted run goes on (--again measures them anew). Small models
come first. A train step that is too large is tried with --recompute where the network can, and its row says so. A row
takes two to twenty minutes; needs the extra [tpu-check]. Exits 1 where a row does not pass.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import tfod_zoo
from tfod_zoo.config.recipes import RECIPES
from tfod_zoo.tpu.topology import TOPOLOGIES

HERE = Path(__file__).resolve().parent
ROWS, TABLE = HERE / "tpu_check.json", HERE / "tpu_check.md"
GIB = 2**30
# By the length of their programs, which is what compiling takes time over.
SIZES = ("mobilenet", "resnet50", "resnet101", "hg104_512", "hg104_1024")
CAN_RECOMPUTE = "hg104"


def wanted(pattern: str) -> list[tuple[str, str]]:
    """(model, topology), the small ones first."""
    def size(name: str) -> tuple[int, bool]:
        return next(index for index, part in enumerate(SIZES) if part in name), name.startswith("faster_rcnn")

    names = sorted(tfod_zoo.list_models(pattern), key=size)
    return [
        (name, topology)
        for name in names
        for topology in ("v3-8", "v3-32")
        if topology == "v3-8" or RECIPES[name].cores == TOPOLOGIES[topology].cores
    ]


def measure(name: str, topology: str, python: str | None) -> dict[str, Any]:
    """One row, in a process of its own."""
    recipe = RECIPES[name]
    batch = recipe.batch_size // recipe.cores
    command = [sys.executable, "-m", "tfod_zoo.cli.main", "tpu", "check", name, "--topology", topology, "--json",
               "--no-largest-batch", "--batch-per-core", str(batch)]
    if python:
        command += ["--python", python]
    for recompute in (False, True):
        flags = ["--recompute"] if recompute else []
        answer = subprocess.run([*command, *flags], stdout=subprocess.PIPE, text=True, cwd=HERE.parent, env=os.environ)
        if not answer.stdout.strip():
            sys.exit(f"{name} on {topology}: the check itself failed, as said above; nothing was written for it.")
        report = json.loads(answer.stdout)
        if report["train_step"]["status"] != "too large" or CAN_RECOMPUTE not in name:
            break
    return {
        "model": name,
        "topology": topology,
        "batch_per_core": batch,
        "recompute": recompute,
        "date": datetime.date.today().isoformat(),
        **{key: report[key] for key in ("passes", "train_step", "detect", "versions")},
    }


def table(rows: list[dict[str, Any]], missing: list[tuple[str, str]]) -> str:
    """The rows as Markdown."""
    lines = [
        "# Every model through the TPU compiler",
        "",
        "Made by `python benchmarks/tpu_check.py` without a TPU; `tfod-zoo tpu check` says what is covered.",
        "",
        "| model | TPU | batch a core | train step | memory a core | GFLOP | detect | memory | compiling | with |",
        "| --- | --- | ---: | --- | ---: | ---: | --- | ---: | ---: | --- |",
    ]
    for row in rows:
        step, detect = row["train_step"], row["detect"]
        versions = row["versions"]
        seconds = [step["cpu_seconds"], detect["cpu_seconds"]]
        cells = (
            row["model"], row["topology"], row["batch_per_core"],
            f"{verdict(step)}{' with --recompute' if row.get('recompute') else ''}",
            f"{memory(step)} of {TOPOLOGIES[row['topology']].memory_per_core / GIB:.0f} GiB",
            f"{step['flop'] / 1e9:.0f}" if step["flop"] else "", verdict(detect), f"{memory(detect)} GiB",
            f"{sum(seconds):.0f} CPU s" if all(seconds) else "?",
            f"TensorFlow {versions['tensorflow']}, libtpu {versions['libtpu']}, {row['date']}",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    if missing:
        lines += ["", "Not run yet: " + ", ".join(f"{name} ({topology})" for name, topology in missing) + "."]
    return "\n".join(lines) + "\n"


def verdict(compiled: dict[str, Any]) -> str:
    """What the compiler said, in a cell."""
    return {"ok": "compiles", "too large": "too large"}.get(compiled["status"], f"fails: {compiled['reason']}")


def memory(compiled: dict[str, Any]) -> str:
    """GiB, without the unit."""
    return f"{compiled['memory_bytes'] / GIB:.2f}" if compiled["memory_bytes"] else "?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pattern", nargs="?", default="*", help="models, such as 'faster_rcnn_*' (default: all)")
    parser.add_argument("--python", help="interpreter that has jax[tpu], if this one has not")
    parser.add_argument("--again", action="store_true", help="measure rows that are there once more")
    args = parser.parse_args()
    rows = {(row["model"], row["topology"]): row for row in (json.loads(ROWS.read_text()) if ROWS.exists() else [])}
    todo = [key for key in wanted(args.pattern) if args.again or key not in rows]
    for number, (name, topology) in enumerate(todo, start=1):
        print(f"[{number}/{len(todo)}] {name} on {topology}", flush=True)
        row = rows[name, topology] = measure(name, topology, args.python)
        every = wanted("*")
        ROWS.write_text(json.dumps([rows[key] for key in every if key in rows], indent=1) + "\n")
        TABLE.write_text(table([rows[key] for key in every if key in rows], [key for key in every if key not in rows]))
        print(f"  train step {verdict(row['train_step'])}, {memory(row['train_step'])} GiB", flush=True)
    print(f"written: {TABLE}, {ROWS}")
    failed = [f"{name} ({topology})" for (name, topology), row in rows.items() if not row["passes"]]
    if failed:
        sys.exit(f"does not compile, or not fit: {', '.join(failed)}")


if __name__ == "__main__":
    main()
