"""Whether a pipeline trains and detects on a TPU, and how large a batch it could take there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from tfod_zoo.errors import UsageError
from tfod_zoo.tpu.compiler import Compilation, TpuCompiler
from tfod_zoo.tpu.lowering import LoweringError, Program, TrainStep, lower_detect
from tfod_zoo.tpu.topology import Topology

# Makes the context in which a step of the work is done; entering it gives what takes the seconds that passed.
Stage = Callable[[str], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Report:
    """What `check` found.

    Attributes:
      topology: it was compiled for.
      train_step, detect: as the compiler answered; `detect` is on one core and one photograph.
      largest_batch_per_core: largest power of two that fits; 0 = not even one image does, None = not looked for, or
        the train step does not compile for another reason.
      tried: the train steps compiled on the way to it.
      versions: of the compiler's packages and TensorFlow.
    """

    topology: Topology
    train_step: Compilation
    detect: Compilation
    largest_batch_per_core: int | None
    tried: tuple[Compilation, ...]
    versions: dict[str, str]

    @property
    def passes(self) -> bool:
        """Both compile, and fit."""
        return self.train_step.status == self.detect.status == "ok"

    def as_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"passes": self.passes, **dataclasses.asdict(self)}


def batch_per_core(pipeline: Any, topology: Topology) -> int:
    """The config's global batch shared among the topology's cores.

    Raises:
      UsageError: it does not divide.
    """
    batch = pipeline.train_config.batch_size
    if batch < 1 or batch % topology.cores:
        raise UsageError(
            f"train_config.batch_size is {batch}, which {topology.cores} cores cannot share; give --batch-per-core, or "
            f"a multiple such as --set train_config.batch_size={max(batch // topology.cores, 1) * topology.cores}."
        )
    return batch // topology.cores


def check(
    pipeline: Any,
    topology: Topology,
    compiler: TpuCompiler,
    *,
    batch: int | None = None,
    recompute: bool = False,
    find_largest: bool = True,
    stage: Stage = lambda title: nullcontext(lambda seconds: None),
) -> Report:
    """Compiles the train step and `detect` of a pipeline for a topology.

    Args:
      pipeline: TrainEvalPipelineConfig message.
      batch: images a core in training; None for the config's global batch shared among the cores.
      recompute: keep fewer activations and compute them again, as in training.
      find_largest: also look for the largest batch a core can take; some more compilations.
      stage: makes the context of each step of the work.

    Raises:
      UsageError: the batch cannot be shared among the cores.
      ZooError: the config's network or optimizer does not exist here.
    """
    batch = batch or batch_per_core(pipeline, topology)
    with stage("building the network"):
        train_step = TrainStep(pipeline, topology.cores, recompute)

    def compile_program(title: str, lower: Callable[[], Program], images: int) -> Compilation:
        try:
            with stage(f"{title}: lowering to StableHLO"):
                program = lower()
        except LoweringError as error:
            return Compilation("failed", images, reason=str(error))
        with stage(f"{title}: compiling for {topology.name}") as on_progress:
            return compiler.compile(program, topology, on_progress)

    def compile_train_step(images: int) -> Compilation:
        return compile_program(f"train step, {images} a core", lambda: train_step.lower(images), images)

    detect = compile_program("detect", lambda: lower_detect(pipeline), 1)
    published = compile_train_step(batch)
    largest: int | None = None
    tried: tuple[Compilation, ...] = (published,)
    if find_largest and published.status != "failed":
        largest, tried = largest_batch(published, compile_train_step, topology)
    import tensorflow as tf

    versions = {"tensorflow": tf.__version__, **compiler.versions}
    return Report(topology, published, detect, largest, tried, versions)


def largest_batch(
    first: Compilation, compile_batch: Callable[[int], Compilation], topology: Topology
) -> tuple[int | None, tuple[Compilation, ...]]:
    """The largest power of two that fits, by as few compilations as may be, and all of them.

    Memory grows about linearly with the batch, so what the first one needed says where to look; the compiler decides.
    None where a compilation failed for another reason than size.
    """
    known = {first.batch_per_core: first}

    def fits(batch: int) -> bool:
        if batch not in known:
            known[batch] = compile_batch(batch)
        return known[batch].status == "ok"

    limit = first.limit_bytes or topology.memory_per_core
    room = limit / (first.memory_bytes or limit)
    guess = _power_of_two(first.batch_per_core * room)
    if first.status == "ok":
        guess = max(guess, _power_of_two(first.batch_per_core))
    if fits(guess):
        while fits(guess * 2):
            guess *= 2
    else:
        while guess >= 1 and not fits(guess):
            guess //= 2
    tried = tuple(known.values())
    return (None if any(each.status == "failed" for each in tried) else guess), tried


def _power_of_two(batch: float) -> int:
    """The largest one that is not above `batch`, at least 1."""
    return 1 << max(int(batch).bit_length() - 1, 0)
