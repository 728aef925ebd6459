"""Compiles a StableHLO text for a TPU that is not there. Run by `tfod_zoo.tpu.compiler`, by whatever Python has JAX.

    python compile_worker.py TEXT_FILE TOPOLOGY ACCELERATOR_TYPE CORES

writes one line of JSON: what the program needs, or why it does not compile. It imports nothing of tfod_zoo, which that
interpreter need not have.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from importlib import metadata
from typing import Any

_PACKAGES = ("jax", "jaxlib", "libtpu")
# The compiler's words for a program that does not fit: "Used 24.53G of 15.48G hbm", or "memory required for HLO
# temporaries (32.00G) exceeds available HBM (15.48G)", where arguments and outputs are among the temporaries.
_TOO_LARGE = re.compile(r"([\d.]+)([KMGT]?)(?: of |\) exceeds available HBM \()([\d.]+)([KMGT]?)(?: hbm|\))")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def versions() -> dict[str, str]:
    """Of the compiler's packages that are installed."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def compile_text(text: str, topology: str, accelerator_type: str, cores: int) -> dict[str, Any]:
    """Compiles for the first `cores` cores of the topology; sizes in bytes are one core's."""
    # Without these libtpu asks the machine it runs on what kind of TPU it has.
    os.environ.update(
        TPU_SKIP_MDS_QUERY="1",
        JAX_PLATFORMS="cpu",
        TPU_ACCELERATOR_TYPE=accelerator_type,
        TPU_WORKER_HOSTNAMES="localhost",
        TPU_WORKER_ID="0",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",  # there is no TPU that two processes could fight over
    )
    import numpy as np
    from jax._src import compiler
    from jax._src.interpreters import mlir
    from jax._src.lib import _jax
    from jax.experimental import topologies
    from jaxlib.mlir import ir

    described = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    devices = described.devices[:cores]
    client = devices[0].client
    options = compiler.get_compile_options(
        num_replicas=cores, num_partitions=1, device_assignment=np.array(devices).reshape(cores, 1), backend=client
    )
    with mlir.make_ir_context():
        module = ir.Module.parse(text)
        started, cpu_started = time.monotonic(), time.process_time()

        def passed() -> dict[str, float]:
            return {"compile_seconds": time.monotonic() - started, "cpu_seconds": time.process_time() - cpu_started}

        try:
            compiled = client.compile(
                module, executable_devices=_jax.DeviceList(tuple(devices)), compile_options=options
            )
        except _jax.JaxRuntimeError as error:
            return {**_failure(str(error)), **passed()}
    memory, cost = compiled.get_compiled_memory_stats(), compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return {
        "status": "ok",
        **passed(),
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "flop": cost.get("flops"),
        "bytes_accessed": cost.get("bytes accessed"),
    }


def _failure(message: str) -> dict[str, Any]:
    if "RESOURCE_EXHAUSTED" not in message:
        return {"status": "failed", "reason": " ".join(message.split())[:500]}
    used = _TOO_LARGE.search(message)
    if not used:  # some other memory of a core
        return {"status": "too large", "reason": " ".join(message.split())[:500]}
    return {
        "status": "too large",
        "memory_bytes": round(float(used[1]) * _UNITS[used[2]]),
        "limit_bytes": round(float(used[3]) * _UNITS[used[4]]),
    }


def main(arguments: list[str]) -> int:
    """`--versions`, or compiles; the answer is the last line of standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the compiler prints must not mix with the answer
    if arguments == ["--versions"]:
        answer: dict[str, Any] = versions()
    else:
        path, topology, accelerator_type, cores = arguments
        with open(path, encoding="utf-8") as file:
            text = file.read()
        try:
            answer = compile_text(text, topology, accelerator_type, int(cores))
        except Exception as error:  # of a JAX that works otherwise, or a text that it cannot read
            reason = " ".join(str(error).split())
            answer = {"status": "failed", "reason": f"{type(error).__name__}: {reason[:500]}"}
    answers.write(json.dumps(answer) + "\n")
    answers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
