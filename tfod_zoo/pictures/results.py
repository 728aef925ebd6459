"""The results of `tfod-zoo detect` as files: one JSON line a picture while it goes on, COCO's format at the end.

    detections.jsonl       {"file": ..., "width": ..., "height": ..., "detections": [...], "model": ..., ...}
    detections.coco.json   [{"image_id": ..., "category_id": ..., "bbox": ..., "score": ..., "file_name": ...}, ...]

A later line for a file takes the place of an earlier one, so a run that was stopped is gone on with by appending.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from tfod_zoo.errors import ZooError
from tfod_zoo.pictures.detections import coco_results

LINES = "detections.jsonl"
COCO = "detections.coco.json"

Key = tuple[str, int | None]  # file, and of a video the frame


class Results:
    """The results in a folder; context manager.

    Args:
      folder: created.
      settings: what makes results differ: model, weights, min_score. Lines with others are not taken for done.

    Raises:
      ZooError: the folder cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.path = folder / LINES
        self.coco_path = folder / COCO
        self._settings = dict(settings)
        self._places: dict[Key, int] = {}  # of the last line of each, where it is of these settings
        self._stamps: dict[Key, list[int] | None] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._read()
            self._file: BinaryIO = self.path.open("ab")
        except OSError as error:
            raise ZooError(f"{self.path} cannot be written ({error.strerror}); give another --out.") from error

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self.path.stat().st_size:
            self.path.unlink()

    def is_done(self, file: Path) -> bool:
        """Whether there is a line for the file as it is now."""
        key = (str(file), None)
        return key in self._places and self._stamps[key] == _stamp(file)

    def recorded(self, file: Path, frame: int) -> dict[str, Any] | None:
        """The line of a video's frame, where there is one for the file as it is now."""
        key = (str(file), frame)
        if key not in self._places or self._stamps[key] != _stamp(file):
            return None
        with self.path.open("rb") as lines:
            lines.seek(self._places[key])
            return json.loads(lines.readline())

    def add(self, file: Path, found: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Appends one picture's line.

        Args:
          file: the image or video.
          found: of `Detections.to_dict()`; of a whole video its size and number of frames.
          more: further fields: `picture`, or of a video's frame `frame` and `seconds`.

        Returns:
          The line, as a dict.

        Raises:
          ZooError: the disk is full, or so.
        """
        record = {"file": str(file), **more, **found, **self._settings, "stamp": _stamp(file)}
        try:
            place = self._file.tell()
            self._file.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
            self._file.flush()
        except OSError as error:
            raise ZooError(
                f"{self.path} cannot be written ({error.strerror}); make room and run the same command again."
            ) from error
        key = (record["file"], record.get("frame"))
        self._places[key], self._stamps[key] = place, record["stamp"]
        return record

    def write_coco(self, files: Sequence[Path]) -> int:
        """Writes COCO's results of these files from their lines, one at a time; returns how many pictures it holds.

        An image's id is the number that it is called by, as COCO's are (`000000397133.jpg`), where all are; else its
        place among `files`, from 1. Frames of a video are counted on. `file_name` says which is which.
        """
        stems = [file.stem for file in files]
        numbered = len(set(stems)) == len(stems) and all(stem.isascii() and stem.isdigit() for stem in stems)
        partial = self.coco_path.with_name(f".{self.coco_path.name}.{os.getpid()}")
        pictures, first = 0, True
        try:
            with partial.open("w", encoding="utf-8") as coco:
                coco.write("[")
                for place, record in self._lines(files):
                    image_id = int(Path(record["file"]).stem) if numbered and "frame" not in record else place
                    pictures += 1
                    for result in coco_results(record["detections"], image_id):
                        result["file_name"] = record["file"]
                        if "frame" in record:
                            result["frame"] = record["frame"]
                        coco.write(("\n" if first else ",\n") + json.dumps(result, ensure_ascii=False))
                        first = False
                coco.write("\n]\n")
            os.replace(partial, self.coco_path)
        except OSError as error:
            raise ZooError(
                f"{self.coco_path} cannot be written ({error.strerror}); make room and run the same command again."
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        return pictures

    def records(self, files: Iterable[Path]) -> Iterator[dict[str, Any]]:
        """The last line of each picture of these files as they are now, of a video those of its frames."""
        return (record for _, record in self._lines(files))

    def _lines(self, files: Iterable[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
        """`records`, each with its place among all pictures of the files, from 1."""
        frames: dict[str, list[int]] = {}
        for name, frame in self._places:
            if frame is not None:
                frames.setdefault(name, []).append(frame)
        counted = 0
        with self.path.open("rb") as lines:
            for file in files:
                name, stamp = str(file), _stamp(file)
                for frame in sorted(frames[name]) if name in frames else [None]:
                    counted += 1
                    place = self._places.get((name, frame))
                    if place is not None and self._stamps[name, frame] == stamp:
                        lines.seek(place)
                        yield counted, json.loads(lines.readline())

    def _read(self) -> None:
        """Finds the lines of an earlier run; one that was cut off by a crash is removed."""
        if not self.path.exists():
            return
        place = 0
        with self.path.open("rb+") as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    lines.truncate(place)
                    return
                try:
                    record = json.loads(line)
                    key: Key = (record["file"], record.get("frame"))
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    raise ZooError(
                        f"{self.path} has a line that is none of ours; move the file, or give another --out."
                    ) from error
                self._places.pop(key, None)
                if all(record.get(name) == value for name, value in self._settings.items()):
                    self._places[key], self._stamps[key] = place, record.get("stamp")
                place += len(line)


def _stamp(file: Path) -> list[int] | None:
    """Size in bytes and time of the last change in nanoseconds; None for a camera."""
    try:
        status = file.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
