"""The TPU compiler of jax[tpu], in a process of its own and, where that is asked for, in another Python."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfod_zoo.errors import UsageError
from tfod_zoo.tpu.topology import Topology

if TYPE_CHECKING:
    from tfod_zoo.tpu.lowering import Program

_WORKER = Path(__file__).with_name("compile_worker.py")
_INSTALL = "pip install 'tfod-zoo[tpu-check]', or give --python an interpreter that has jax[tpu]"


@dataclass(frozen=True)
class Compilation:
    """What the compiler said of one program for one topology.

    Attributes:
      status: "ok", "too large" (it compiles, but one core's memory does not hold it) or "failed".
      batch_per_core: images a core.
      memory_bytes: what a core needs: arguments, outputs that are not arguments too, temporaries and code.
      limit_bytes: what the compiler has to give of a core's memory, where it said so ("too large").
      temporary_bytes: the part of memory_bytes that grows with the batch, next to the images themselves.
      flop, bytes_accessed: of one step on one core, as the compiler counts.
      compile_seconds, cpu_seconds: how long compiling took here, and how much of that on a processor.
      reason: why it failed, in one line; of "too large" only where the compiler gave no figures.
    """

    status: str
    batch_per_core: int
    memory_bytes: int | None = None
    limit_bytes: int | None = None
    temporary_bytes: int | None = None
    flop: float | None = None
    bytes_accessed: float | None = None
    compile_seconds: float | None = None
    cpu_seconds: float | None = None
    reason: str | None = None


class TpuCompiler:
    """The compiler of one Python interpreter.

    Args:
      python: interpreter that has jax[tpu]; None for this one.

    Attributes:
      versions: of jax, jaxlib and libtpu.

    Raises:
      UsageError: there is no such interpreter, or it lacks the compiler.
    """

    def __init__(self, python: str | None = None):
        self._python = python or sys.executable
        try:
            answer = subprocess.run([self._python, str(_WORKER), "--versions"], capture_output=True, text=True)
        except OSError as error:
            raise UsageError(f"--python {self._python} cannot be run ({error.strerror}).") from error
        if answer.returncode:
            raise UsageError(f"--python {self._python} is not a Python interpreter of 3.11 or newer.")
        self.versions: dict[str, str] = json.loads(answer.stdout)
        missing = [package for package in ("jax", "libtpu") if package not in self.versions]
        if missing:
            raise UsageError(
                f"{self._python} has no {' and no '.join(missing)}, which hold the TPU compiler; {_INSTALL}."
            )

    def compile(
        self, program: Program, topology: Topology, on_progress: Callable[[int], None] = lambda seconds: None
    ) -> Compilation:
        """Compiles; takes one to ten minutes for a train step, and calls `on_progress` with the seconds meanwhile."""
        with tempfile.TemporaryDirectory(prefix="tfod_zoo_tpu_") as folder:
            text, log = Path(folder) / "program.mlir", Path(folder) / "log"
            text.write_text(program.text, encoding="utf-8")
            command = [self._python, str(_WORKER), str(text), topology.compiler_name, topology.accelerator_type]
            with log.open("w") as errors:
                worker = subprocess.Popen(
                    [*command, str(program.cores)], stdout=subprocess.PIPE, stderr=errors, text=True,
                    # libtpu would leave its logs in /tmp, for every user of the machine.
                    env={**os.environ, "TPU_LOG_DIR": folder, "TMPDIR": folder},
                )
                answer = _wait(worker, on_progress)
            if worker.returncode or not answer:
                lines = log.read_text(errors="replace").strip().splitlines()
                return Compilation("failed", program.batch_per_core, reason=_death(worker.returncode, lines))
        return _compilation(json.loads(answer), program.batch_per_core)


def _wait(worker: subprocess.Popen[str], on_progress: Callable[[int], None]) -> str:
    seconds = 0
    try:
        while True:
            try:
                return worker.communicate(timeout=1)[0]
            except subprocess.TimeoutExpired:
                seconds += 1
                on_progress(seconds)
    except BaseException:
        worker.kill()
        worker.wait()
        raise


def _compilation(answer: dict[str, Any], batch: int) -> Compilation:
    fields = {field.name for field in dataclasses.fields(Compilation)} - {"status", "batch_per_core"}
    kept = {key: value for key, value in answer.items() if key in fields}
    if answer["status"] == "ok":
        used = ("argument_bytes", "output_bytes", "temporary_bytes", "code_bytes")
        kept["memory_bytes"] = sum(answer[key] for key in used) - answer["alias_bytes"]
    return Compilation(answer["status"], batch, **kept)


def _death(code: int, log: list[str]) -> str:
    if code < 0:
        return f"the compiler was ended by signal {-code}; this machine may have too little memory for it"
    return f"the compiler's process failed: {log[-1] if log else f'exit code {code}'}"
