"""What `tfod-zoo data check` is pointed at: a pipeline config, a folder, or records with their label map."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfod_zoo.config.label_map import LabelMap, read_label_map
from tfod_zoo.config.pipeline import read_pipeline
from tfod_zoo.data.check import ERROR, NOTE, Finding, Part
from tfod_zoo.data.folder import find_data
from tfod_zoo.data.importing import ImportReport
from tfod_zoo.errors import UsageError


@dataclass(frozen=True)
class CheckTarget:
    """The parts to check, the model's ImageResizer where there is one, and what an import found already."""

    parts: list[Part]
    resizer: Any = None
    findings: list[Finding] = field(default_factory=list)


@contextmanager
def open_target(
    path: str | Path | None = None,
    records: Sequence[str] = (),
    label_map: str | Path | None = None,
    on_import: Callable[[str, int], Callable[[int], None]] = lambda kind, images: lambda done: None,
) -> Iterator[CheckTarget]:
    """Finds the parts of a data set; annotations are imported to a folder that goes when the context ends.

    Args:
      path: a pipeline config, or a folder of anything that `find_data` knows.
      records: record globs or tfds: paths, each a part of its own, instead of `path`.
      label_map: of the records.
      on_import: takes the kind of data and the number of images before an import; returns what takes its progress.

    Raises:
      UsageError: neither a path nor records, or both.
      ZooError: what is there cannot be read.
    """
    if bool(path) == bool(records):
        raise UsageError("Name a pipeline config or a folder to check, or --records with --label-map.")
    if records:
        classes = read_label_map(label_map) if label_map else None
        yield CheckTarget([Part(text, (text,), classes) for text in records])
    elif path and Path(path).is_dir():
        with tempfile.TemporaryDirectory(prefix="tfod_zoo_check_") as temporary:
            found = find_data(path)
            data = found.import_to(temporary, on_import(found.kind, found.num_images))
            classes = read_label_map(data.label_map)
            parts = [Part(split, (globs,), classes) for split, globs in data.report.records.items()]
            yield CheckTarget(parts, findings=_findings(data.report))
    elif path:
        pipeline = read_pipeline(path)
        network = getattr(pipeline.model, pipeline.model.WhichOneof("model") or "center_net")
        readers = {"train": pipeline.train_input_reader}
        readers |= {reader.name or "eval": reader for reader in pipeline.eval_input_reader}
        yield CheckTarget([_part(name, reader) for name, reader in readers.items()], network.image_resizer)


def _part(name: str, reader: Any) -> Part:
    classes: LabelMap | None = read_label_map(reader.label_map_path) if reader.label_map_path else None
    paths = tuple(reader.tf_record_input_reader.input_path)
    return Part(name, paths, classes, reader.max_number_of_boxes, reader.num_keypoints)


def _findings(report: ImportReport) -> list[Finding]:
    """What the import left out is not in the records any more."""
    found = [
        Finding(ERROR, f"boxes {reason}", count, [("", -1, report.first_dropped.get(reason, ""))])
        for reason, count in report.dropped.most_common()
    ]
    found += [
        Finding(ERROR, f"keypoint lists {reason}", count) for reason, count in report.keypoints_dropped.most_common()
    ]
    if report.skipped:
        images = [("", -1, f"{name} ({reason})") for name, reason in report.skipped]
        found.append(Finding(ERROR, "images that cannot be used", len(images), images))
    if report.clipped:
        found.append(Finding(NOTE, "boxes partly outside the image, which are clipped", report.clipped))
    return found
