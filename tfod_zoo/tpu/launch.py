"""The gcloud commands that make a TPU VM or a slice, install the package there and train."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tfod_zoo
from tfod_zoo.config.generate import PLACEHOLDER
from tfod_zoo.config.pipeline import read_pipeline
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.tpu.topology import Topology

# What Google Cloud takes for a resource and for a zone.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_ZONE = re.compile(r"[a-z]+-[a-z]+[0-9]+-[a-z]")
# On the TPU VM, in the home folder.
_CONFIG = "tfod_zoo_pipeline.config"
_PYTHON = "python3"
# The wheel with TPU kernels takes the place of tensorflow, under another name; libtpu is the one it was built with.
_TPU_WHEELS = "tensorflow-tpu==2.20.0 libtpu==0.0.14"


@dataclass(frozen=True)
class Launch:
    """One training run on a TPU.

    Attributes:
      name: of the TPU VM or slice, in `zone` of `project` (None: gcloud's own default).
      pipeline: the config file here; it is copied there.
      model_dir: where checkpoints go: gs://, or on one host a folder of the TPU VM.
      image: TPU VM software version; None for the topology's.
      package: what pip installs there: a requirement, or a wheel here, which is copied.
      train_flags: more flags of `tfod-zoo train`.
      existing: the TPU is there already.
    """

    name: str
    zone: str
    topology: Topology
    pipeline: str
    model_dir: str
    project: str | None = None
    image: str | None = None
    package: str = f"tfod-zoo[train]=={tfod_zoo.__version__}"
    train_flags: str = ""
    existing: bool = False

    def commands(self) -> list[list[str]]:
        """What is run, in order: looks at the paths in gs://, creates, copies, installs, trains.

        Raises:
          UsageError: something in it cannot work.
          ZooError: the config cannot be read.
        """
        self._check_names()
        pipeline = read_pipeline(self.pipeline)
        _check_batch(pipeline, self.topology)
        paths = {"--model-dir": self.model_dir, **_data_paths(pipeline)}
        for field, path in paths.items():
            _check_path(field, path, self.topology)
        commands = [["gcloud", "storage", "ls", path] for path in _remote(paths)]
        if not self.existing:
            commands.append(
                self._tpu(
                    "create",
                    f"--accelerator-type={self.topology.accelerator_type}",
                    f"--version={self.image or self.topology.image}",
                )
            )
        commands.append(self._copy(self.pipeline, _CONFIG))
        package = self.package
        if package.endswith(".whl"):
            commands.append(self._copy(package, Path(package).name))
            package = f"./{Path(package).name}[train]"
        return [*commands, self._ssh(_install(package)), self._ssh(self._train())]

    def delete_command(self) -> list[str]:
        """What ends the TPU, and its cost."""
        return self._tpu("delete")

    def local_paths(self) -> list[str]:
        """Paths of the config that are the TPU VM's own, so that nobody here can look whether they exist."""
        paths = _data_paths(read_pipeline(self.pipeline)).values()
        return [path for path in dict.fromkeys(paths) if not _remote({"": path})]

    def run(self, say: Callable[[str], None] = print) -> None:
        """Runs the commands one by one; theirs are standard output and error.

        Raises:
          UsageError: as `commands`.
          ZooError: gcloud is not installed, or a command failed; those after it were not run.
        """
        commands = self.commands()
        if shutil.which("gcloud") is None:
            raise ZooError(
                "gcloud is not on the PATH; install the Google Cloud CLI and run `gcloud auth login`, or give --dry-run"
                ", which runs nothing."
            )
        created = self.existing
        for number, command in enumerate(commands, start=1):
            say(f"[{number}/{len(commands)}] {shlex.join(command)}")
            code = subprocess.run(command).returncode
            if code:
                left = f"; {self.name} is left as it is, end it with: {shlex.join(self.delete_command())}"
                if command[:3] == ["gcloud", "storage", "ls"]:
                    raise ZooError(f"{command[3]} cannot be listed; correct the path, or gcloud's rights to read it.")
                raise ZooError(f"`{' '.join(command[:5])}` ended with code {code}{left if created else ''}.")
            created = created or command[4:5] == ["create"]

    def _check_names(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} cannot be a TPU's name; use up to 63 lower-case letters, digits and -, a letter first."
            )
        if not _ZONE.fullmatch(self.zone):
            raise UsageError(f"--zone {self.zone} is no zone; they look like europe-west4-a.")
        if Path(self.package).is_dir():
            raise UsageError(
                f"--package {self.package} is a folder; make a wheel of it (pip wheel --no-deps --wheel-dir dist "
                f"{self.package}) and give that."
            )
        if self.package.endswith(".whl") and not Path(self.package).is_file():
            raise UsageError(f"--package {self.package} is not there; give a wheel, or a requirement as pip takes it.")

    def _train(self) -> str:
        flags = shlex.split(self.train_flags)
        train = ["train", "--pipeline", _CONFIG, "--model-dir", self.model_dir, "--device", "tpu", *flags]
        return f"TPU_NAME=local {_PYTHON} -m tfod_zoo.cli.main {shlex.join(train)}"

    def _copy(self, source: str, target: str) -> list[str]:
        return self._on_every_host("scp", source, f"{self.name}:{target}")

    def _ssh(self, command: str) -> list[str]:
        return self._on_every_host("ssh", self.name, f"--command={command}")

    def _tpu(self, verb: str, *flags: str) -> list[str]:
        return ["gcloud", "compute", "tpus", "tpu-vm", verb, self.name, *self._place(), *flags]

    def _on_every_host(self, verb: str, *arguments: str) -> list[str]:
        everywhere = ["--worker=all"] if self.topology.hosts > 1 else []
        return ["gcloud", "compute", "tpus", "tpu-vm", verb, *arguments, *self._place(), *everywhere]

    def _place(self) -> list[str]:
        return [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else [])]


def _install(package: str) -> str:
    pip = f"{_PYTHON} -m pip"
    return " && ".join(
        (
            f"{pip} install --quiet {shlex.quote(package)}",
            f"{pip} uninstall --quiet --yes tensorflow",
            f"{pip} install --quiet --force-reinstall --no-deps {_TPU_WHEELS}",
        )
    )


def _check_batch(pipeline: Any, topology: Topology) -> None:
    batch = pipeline.train_config.batch_size
    if batch < 1 or batch % topology.cores:
        raise UsageError(
            f"train_config.batch_size is {batch}, which {topology.cores} cores cannot share; make it a multiple of "
            f"{topology.cores}, with a learning rate to match."
        )


def _data_paths(pipeline: Any) -> dict[str, str]:
    """Every path that training and evaluation read, by its field."""
    paths = {"train_config.fine_tune_checkpoint": pipeline.train_config.fine_tune_checkpoint}
    readers = {"train_input_reader": pipeline.train_input_reader}
    readers |= {f"eval_input_reader[{index}]": reader for index, reader in enumerate(pipeline.eval_input_reader)}
    for name, reader in readers.items():
        paths[f"{name}.label_map_path"] = reader.label_map_path
        for index, path in enumerate(reader.tf_record_input_reader.input_path):
            paths[f"{name}.tf_record_input_reader.input_path[{index}]"] = path
    return {field: path for field, path in paths.items() if path}


def _check_path(field: str, path: str, topology: Topology) -> None:
    if PLACEHOLDER in path:
        raise UsageError(f'{field} is still "{path}"; fill it in first, as `tfod-zoo config` does.')
    # tfds:NAME:SPLIT@DIR prepares and reads its data in DIR.
    place = path.partition("@")[2] if path.startswith("tfds:") else path
    if topology.hosts > 1 and not place.startswith("gs://"):
        hint = "tfds:NAME:SPLIT@gs://BUCKET/FOLDER" if path.startswith("tfds:") else "a path in gs://"
        raise UsageError(
            f"{field} is {path}, which the {topology.hosts} hosts of a {topology.name} do not share; give {hint}."
        )


def _remote(paths: dict[str, str]) -> list[str]:
    """What `gcloud storage ls` can look at, each once."""
    return list(dict.fromkeys(_listed(paths)))


def _listed(paths: dict[str, str]) -> Iterator[str]:
    for field, path in paths.items():
        place = path.partition("@")[2] if path.startswith("tfds:") else path
        if not place.startswith("gs://"):
            continue
        if field == "--model-dir" or path.startswith("tfds:"):
            yield "/".join(place.split("/")[:3])  # the bucket; the folder may be new
        elif field == "train_config.fine_tune_checkpoint":
            yield f"{place}.index"
        else:
            yield place
