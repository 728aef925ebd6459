"""The TPUs that the package knows: as the compiler calls them and as Google Cloud does."""

from __future__ import annotations

from dataclasses import dataclass

from tfod_zoo.errors import UsageError

_GIB = 2**30


@dataclass(frozen=True)
class Topology:
    """One accelerator.

    Attributes:
      name: what a user says.
      cores: TensorCores, each a replica with its share of the batch.
      hosts: machines they are in; more than one is a slice.
      memory_per_core: bytes of device memory (Cloud TPU documentation, system architecture). A chip of v2 and v3 has
        two cores and twice that; one of v5e has one core.
      compiler_name: the topology's name for libtpu.
      accelerator_type: for gcloud.
      image: TPU VM software version. Names follow no formula (2.18 is the last TensorFlow that has images, and they
        split by generation), so each was looked up.
    """

    name: str
    cores: int
    hosts: int
    memory_per_core: int
    compiler_name: str
    accelerator_type: str
    image: str


_IMAGE = "tpu-vm-tf-2.18.0-pjrt-v5p-and-below"
_POD_IMAGE = "tpu-vm-tf-2.18.0-pod-pjrt-v5p-and-below"

TOPOLOGIES: dict[str, Topology] = {
    topology.name: topology
    for topology in (
        Topology("v2-8", 8, 1, 8 * _GIB, "v2:2x2", "v2-8", _IMAGE),
        Topology("v3-8", 8, 1, 16 * _GIB, "v3:2x2", "v3-8", _IMAGE),
        Topology("v3-32", 32, 4, 16 * _GIB, "v3:4x4", "v3-32", _POD_IMAGE),
        # TensorFlow's own images leave v5e out.
        Topology("v5e-8", 8, 1, 16 * _GIB, "v5e:2x4", "v5litepod-8", "v2-alpha-tpuv5-lite"),
    )
}


def get_topology(name: str) -> Topology:
    """The topology of this name.

    Raises:
      UsageError: there is none.
    """
    if name not in TOPOLOGIES:
        raise UsageError(f"There is no topology {name!r} here; give one of {', '.join(TOPOLOGIES)}.")
    return TOPOLOGIES[name]
