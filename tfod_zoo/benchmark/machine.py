"""What a figure was measured on: processor, memory, versions, threads. Without it a latency means nothing."""

from __future__ import annotations

import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("tensorflow", "tf-keras", "numpy")


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, memory in GiB, system, versions and the thread limits in force. No TensorFlow needed."""
    return {
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "memory_gib": round(memory_bytes() / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{package: _version(package) for package in _PACKAGES},
        # 0 is TensorFlow's own default: as many threads as there are cores.
        "intra_op_threads": int(os.environ.get("TF_NUM_INTRAOP_THREADS", "0")),
        "inter_op_threads": int(os.environ.get("TF_NUM_INTEROP_THREADS", "0")),
    }


def machine_line(machine: dict[str, Any]) -> str:
    """The machine in one line, for reports."""
    threads = machine["intra_op_threads"] or "default"
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; "
        f"Python {machine['python']}, TensorFlow {machine['tensorflow']}, tf-keras {machine['tf-keras']}, "
        f"NumPy {machine['numpy']}; {threads} intra-op threads"
    )


def machine_facts(row: dict[str, Any]) -> dict[str, str]:
    """What a row of a benchmark was measured on, name -> text: machine, device, versions, threads, peak rates."""
    machine, peaks = row["machine"], row.get("peaks")
    facts = {"processor": f"{machine['cpu']}, {machine['cores']} cores allowed, {machine['memory_gib']} GiB of memory"}
    if "device" in row:
        facts["device"] = row["device"]
    facts["system"] = machine["system"]
    facts["versions"] = f"Python {machine['python']}, " + ", ".join(
        f"{package} {machine[package]}" for package in _PACKAGES if package in machine
    )
    facts["threads"] = ", ".join(
        f"{machine[f'{kind}_op_threads'] or 'default'} {kind}-op" for kind in ("intra", "inter")
    )
    if peaks:
        facts["peak rates, measured"] = (
            f"matrix product {peaks['matmul_gflops']:.0f} GFLOP/s (float32, {peaks['cores_used']:.1f} cores used), "
            f"memory copy {peaks['copy_gbs']:.1f} GB/s read plus written"
        )
    return facts


def cpu_model() -> str:
    """The processor's own name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown processor"


def usable_cores() -> int:
    """Cores that this process may use, which in a container can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def busy_core_seconds() -> float | None:
    """Seconds that the cores of this process have worked so far, for whatever process; None where Linux does not tell.

    Without the time that they waited for disks or, on a virtual machine, for the host.
    """
    stat = Path("/proc/stat")
    if not stat.is_file() or not hasattr(os, "sched_getaffinity"):
        return None
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = 0
    for line in stat.read_text().splitlines():
        name, *fields = line.split()
        if name in ours:
            user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, fields)
            ticks += user + nice + system + irq + softirq
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_bytes() -> int:
    """Physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory_bytes() -> int:
    """The largest resident set this process has had so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands ru_maxrss on from the process that started this one; this line is of this program alone.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB, macOS bytes


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
