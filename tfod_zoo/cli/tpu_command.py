"""tfod-zoo tpu: what fits on a Cloud TPU, and the commands that train on one."""

from __future__ import annotations

import argparse
import json
import shlex
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from tfod_zoo.cli.train_command import quiet_tensorflow
from tfod_zoo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tfod_zoo.tpu.check import Report
    from tfod_zoo.tpu.compiler import Compilation

HELP = "check without a TPU what fits on one, or launch training there"
EXAMPLE = """\
tfod-zoo tpu check centernet_mobilenetv2fpn_512x512_coco17_od --topology v3-8
  tfod-zoo tpu check --pipeline cells.config --topology v2-8 --json
  tfod-zoo tpu launch cells-1 --zone europe-west4-a --topology v3-8 --pipeline cells.config \\
      --model-dir gs://BUCKET/cells --dry-run"""

_GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `tfod-zoo tpu`."""
    from tfod_zoo.tpu.launch import Launch
    from tfod_zoo.tpu.topology import TOPOLOGIES

    verbs = parser.add_subparsers(dest="verb", required=True, metavar="check | launch")
    check = verbs.add_parser("check", help="compile the train step and detect with the TPU compiler, on any machine")
    check.add_argument("model", nargs="?", metavar="NAME", help="a zoo model, with its published recipe")
    check.add_argument("--pipeline", metavar="FILE", help="a pipeline.config, in place of NAME")
    check.add_argument("--topology", required=True, choices=TOPOLOGIES, help="the TPU")
    check.add_argument("--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE",
                       help="change one field of the config; may be repeated")
    check.add_argument("--batch-per-core", type=int, metavar="N",
                       help="images a core in training (default: train_config.batch_size shared among the cores)")
    check.add_argument("--recompute", action="store_true", help="as in `tfod-zoo train` (hourglass networks)")
    check.add_argument("--no-largest-batch", action="store_true",
                       help="do not look for the largest batch that fits: two or three compilations fewer")
    check.add_argument("--python", metavar="INTERPRETER", help="that has jax[tpu] (default: this one)")
    check.add_argument("--json", action="store_true", help="the report as JSON")
    launch = verbs.add_parser("launch", help="create a TPU VM or a slice with gcloud, install there, and train")
    launch.add_argument("name", metavar="TPU", help="a name for it")
    launch.add_argument("--topology", required=True, choices=TOPOLOGIES, help="which TPU; v3-32 is a slice of 4 hosts")
    launch.add_argument("--zone", required=True, metavar="ZONE", help="such as europe-west4-a")
    launch.add_argument("--project", metavar="ID", help="Google Cloud project (default: gcloud's)")
    launch.add_argument("--pipeline", required=True, metavar="FILE", help="the config here; it is copied there")
    launch.add_argument("--model-dir", required=True, metavar="DIR",
                        help="gs://BUCKET/FOLDER, or on one host a folder of the TPU VM")
    launch.add_argument("--image", metavar="VERSION", help="TPU VM software version (default: one that suits)")
    launch.add_argument("--package", default=Launch.package, metavar="WHAT",
                        help="what pip installs there: a requirement (default %(default)s), or a wheel here, which is "
                             "copied")
    launch.add_argument("--train-flags", default="", metavar="'FLAGS'", help="more flags of `tfod-zoo train`")
    launch.add_argument("--existing", action="store_true", help="the TPU is there already: do not create it")
    launch.add_argument("--dry-run", action="store_true", help="check what can be checked here, print, run nothing")


def run(args: argparse.Namespace) -> int:
    """Checks or launches; returns 0, or 1 when the check does not pass."""
    return _check(args) if args.verb == "check" else _launch(args)


def _check(args: argparse.Namespace) -> int:
    from tfod_zoo.config.generate import generate_pipeline
    from tfod_zoo.config.pipeline import apply_override, read_pipeline
    from tfod_zoo.tpu.compiler import TpuCompiler
    from tfod_zoo.tpu.progress import StageProgress
    from tfod_zoo.tpu.topology import get_topology

    if (args.model is None) == (args.pipeline is None):
        raise UsageError("give either the NAME of a zoo model or --pipeline FILE.")
    if args.batch_per_core is not None and args.batch_per_core < 1:
        raise UsageError(f"--batch-per-core {args.batch_per_core} is no batch; give 1 or more.")
    pipeline = generate_pipeline(args.model) if args.model else read_pipeline(args.pipeline)
    for override in args.overrides:
        apply_override(pipeline, override)
    topology = get_topology(args.topology)
    compiler = TpuCompiler(args.python)

    quiet_tensorflow()
    from tfod_zoo.tpu.check import batch_per_core, check

    batch = args.batch_per_core or batch_per_core(pipeline, topology)
    if not args.json:
        print(
            f"{args.model or args.pipeline} for {topology.name}: {topology.cores} cores with "
            f"{topology.memory_per_core / _GIB:.0f} GiB each; batch {batch * topology.cores}, {batch} a core. "
            "A train step compiles in one to ten minutes.",
            flush=True,
        )

    def stage(title: str) -> AbstractContextManager[Callable[[int], None]]:
        return StageProgress(title)

    report = check(
        pipeline, topology, compiler, batch=batch, recompute=args.recompute, find_largest=not args.no_largest_batch,
        stage=stage,
    )
    if args.json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        print("\n".join(_described(report)))
    return 0 if report.passes else 1


def _described(report: Report) -> list[str]:
    lines = [
        _line("train step", f"{report.train_step.batch_per_core} a core", report.train_step, report),
        _line("detect", "1 image of 480x640 on one core", report.detect, report),
    ]
    if report.largest_batch_per_core is not None:
        beyond = [each for each in report.tried if each.batch_per_core == max(2 * report.largest_batch_per_core, 1)]
        needs = f"; {beyond[0].batch_per_core} needs {_gib(beyond[0].memory_bytes)}" if beyond else ""
        total = report.largest_batch_per_core * report.topology.cores
        lines.append(
            f"largest batch per core that fits: {report.largest_batch_per_core} (global {total}){needs}"
            if total else f"not even one image a core fits{needs}; try --recompute, or a smaller image"
        )
    lines += [
        "covered: forward, losses, gradients and the optimizer's update with the sums over all cores, as training runs "
        "them; memory with the variables updated in place",
        "not covered: the input pipeline on the host, speed, and TensorFlow's own runtime on the TPU, which is another "
        "build of the same compiler",
        "compiled with " + ", ".join(f"{package} {version}" for package, version in report.versions.items()),
    ]
    return lines


def _line(name: str, batch: str, compiled: Compilation, report: Report) -> str:
    memory = _gib(report.topology.memory_per_core)
    if compiled.status == "failed":
        return f"{name} ({batch}): does not compile: {compiled.reason}"
    if compiled.status == "too large" and compiled.reason:
        return f"{name} ({batch}): too large: {compiled.reason}"
    if compiled.status == "too large":
        limit = f"; the compiler has {_gib(compiled.limit_bytes)} of {memory} to give"
        return f"{name} ({batch}): too large: needs {_gib(compiled.memory_bytes)} a core{limit}"
    figures = f"{_gib(compiled.memory_bytes)} of {memory} a core"
    if compiled.flop and compiled.bytes_accessed:
        figures += f", {compiled.flop / 1e9:.1f} GFLOP, {compiled.bytes_accessed / 1e9:.1f} GB moved"
    return f"{name} ({batch}): compiles: {figures} (in {compiled.compile_seconds:.0f} s)"


def _gib(size: int | None) -> str:
    return f"{(size or 0) / _GIB:.2f} GiB"


def _launch(args: argparse.Namespace) -> int:
    from tfod_zoo.tpu.launch import Launch
    from tfod_zoo.tpu.topology import get_topology

    launch = Launch(
        name=args.name, zone=args.zone, topology=get_topology(args.topology), pipeline=args.pipeline,
        model_dir=args.model_dir, project=args.project, image=args.image, package=args.package,
        train_flags=args.train_flags, existing=args.existing,
    )
    commands = launch.commands()
    if local := launch.local_paths():
        print(f"these must be on the TPU VM, under the same paths: {', '.join(local)}")
    if args.dry_run:
        print("\n".join(shlex.join(command) for command in commands))
        print(f"next: the same without --dry-run; afterwards {shlex.join(launch.delete_command())}")
        return 0
    launch.run(say=lambda line: print(line, flush=True))
    print(f"next: {shlex.join(launch.delete_command())}, when nothing is left to do there: it costs until then")
    return 0
