"""Installed packages against what the package declares that it needs."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

import tfod_zoo
from tfod_zoo.doctor.finding import BROKEN, MISSING, OK, WARNING, Finding

_PACKAGE = "tfod-zoo"
# Extra -> what it is for. The others are for developing the package itself.
_EXTRAS = {
    "train": "training and fine-tuning",
    "gpu": "NVIDIA GPUs",
    "openvino": "OpenVINO: export and benchmark",
    "onnx": "ONNX and ONNX Runtime: export and benchmark",
    "video": "videos and cameras",
    "serve": "the web page and HTTP API",
    "heic": "iPhone photographs",
    "notebook": "the notebook docs/tour.ipynb",
    "tpu-check": "what fits on a TPU",
}


def check_packages() -> Iterator[Finding]:
    """The package, Python, what it requires, and its extras."""
    yield Finding("tfod-zoo", OK, f"{tfod_zoo.__version__} in {list(tfod_zoo.__path__)[0]}")
    try:
        declared = metadata.metadata(_PACKAGE)
    except metadata.PackageNotFoundError:
        yield Finding(
            "packages", WARNING, "not known: tfod-zoo runs from a folder, it is not installed", "pip install -e FOLDER"
        )
        return
    yield _python(declared["Requires-Python"])
    requirements = [Requirement(text) for text in metadata.requires(_PACKAGE) or ()]
    for one in requirements:
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            yield _required(one)
    for extra, purpose in _EXTRAS.items():
        needed = [one for one in requirements if one.marker and not one.marker.evaluate({"extra": ""})
                  and one.marker.evaluate({"extra": extra})]  # fmt: skip
        if needed:
            yield _extra(extra, purpose, needed)


def _python(wanted: str | None) -> Finding:
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    if wanted and version not in SpecifierSet(wanted):
        return Finding("python", BROKEN, f"{version}, but tfod-zoo needs {wanted}", "make an environment with that one")
    return Finding("python", OK, version)


def _required(one: Requirement) -> Finding:
    version, advice = _version(one), f"pip install '{one.name}{one.specifier}'"
    if version is None:
        return Finding(one.name, BROKEN, "not installed", advice)
    if not one.specifier.contains(version, prereleases=True):
        return Finding(one.name, BROKEN, f"{version}, but tfod-zoo needs {one.specifier}", advice)
    return Finding(one.name, OK, version)


def _extra(extra: str, purpose: str, needed: list[Requirement]) -> Finding:
    if all(map(_fits, needed)):
        return Finding(f"[{extra}]", OK, f"for {purpose}: installed")
    return Finding(f"[{extra}]", MISSING, f"for {purpose}", f"pip install 'tfod-zoo[{extra}]'")


def _fits(one: Requirement) -> bool:
    """Whether it is installed in a fitting version, and what its own extras bring too."""
    version = _version(one)
    if version is None or not one.specifier.contains(version, prereleases=True):
        return False
    brought = [Requirement(text) for text in metadata.requires(one.name) or ()]
    return all(
        _version(each) is not None
        for extra in one.extras
        for each in brought
        if each.marker and not each.marker.evaluate({"extra": ""}) and each.marker.evaluate({"extra": extra})
    )


def _version(one: Requirement) -> str | None:
    try:
        return metadata.version(one.name)
    except metadata.PackageNotFoundError:
        return None

