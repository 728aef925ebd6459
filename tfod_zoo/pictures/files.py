"""Detections in files: images by the thousand and videos, drawn and recorded, in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from tfod_zoo.errors import ZooError
from tfod_zoo.pictures.detections import Detections
from tfod_zoo.pictures.draw import draw
from tfod_zoo.pictures.inputs import Input
from tfod_zoo.pictures.reading import PictureError
from tfod_zoo.pictures.results import Results
from tfod_zoo.pictures.stream import Found, Unreadable, ahead, batch_size_for, detect_stream, threads_here
from tfod_zoo.pictures.video import VideoReader, VideoWriter

_JPEG_QUALITY = 90

Item = TypeVar("Item")
Result = TypeVar("Result")
Seen = Generator[tuple[np.ndarray, Detections, bool], None, None]
Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]


@dataclass
class FileDetector:
    """Looks at files with a model; draws and records each as soon as it is done.

    Attributes:
      model: a `DetectionModel`.
      places: input file -> where its drawing goes.
      results: where its line goes.
      min_score: what is less sure is neither drawn nor recorded; 0..1.
      progress: (label, total) -> a context manager, called with the number done.
      batch_size: pictures a call of the network; default: `batch_size_for`, of a camera 1.
      on_record: hears every line that was written.
      on_unreadable: hears a sentence for each input that was left out.
      unreadable: how many those were.
    """

    model: Any
    places: Mapping[Path, Path]
    results: Results
    min_score: float
    progress: Progress
    batch_size: int | None = None
    on_record: Callable[[dict[str, Any]], None] = lambda record: None
    on_unreadable: Callable[[str], None] = lambda sentence: None
    unreadable: int = 0

    def look_at(self, inputs: Sequence[Input]) -> None:
        """Looks at images, then at videos and cameras; a camera until Ctrl-C.

        Raises:
          ZooError: results cannot be written, or OpenCV is missing for a video.
        """
        stills = [one.path for one in inputs if not one.moves]
        if stills:
            self._look_at_images(stills)
        for one in inputs:
            if one.moves:
                try:
                    self._look_at_video(one)
                except PictureError as error:
                    self._leave_out(error)

    def _leave_out(self, error: PictureError) -> None:
        self.unreadable += 1
        self.on_unreadable(str(error))

    def _look_at_images(self, paths: Sequence[Path]) -> None:
        def finish(one: Found | Unreadable) -> tuple[Path, dict[str, Any]] | Unreadable:
            if isinstance(one, Unreadable):
                return one
            found = one.detections.above(self.min_score)
            _save(self._drawn(one.pixels, found), self.places[one.source])
            return one.source, found.to_dict()

        batch_size = self.batch_size or batch_size_for(self.model, len(paths))
        with (
            self.progress("detect", len(paths)) as show,
            closing(detect_stream(self.model, paths, batch_size=batch_size)) as stream,
            _drawing(finish, stream) as finished,
        ):
            for number, one in enumerate(finished, start=1):
                if isinstance(one, Unreadable):
                    self._leave_out(one.error)
                else:
                    path, found = one
                    self.on_record(self.results.add(path, found, picture=str(self.places[path])))
                show(number)

    def _look_at_video(self, one: Input) -> None:
        def finish(seen: tuple[np.ndarray, Detections, bool]) -> tuple[np.ndarray, Detections, bool]:
            pixels, found, is_new = seen
            return np.asarray(self._drawn(pixels, found)), found, is_new

        with (
            VideoReader(one) as video,
            closing(video.frames()) as frames,
            closing(self._seen(one, frames)) as seen,
            _drawing(finish, seen) as finished,
            self.progress(one.path.name, video.total) as show,
        ):
            first = next(finished, None)
            if first is None:
                raise PictureError(f"{one.path} has no frame that OpenCV can read.")
            height, width = first[0].shape[:2]
            number = 0
            with VideoWriter(self.places[one.path], video.pace, (height, width)) as writer:
                try:
                    for number, (picture, found, is_new) in enumerate(chain([first], finished), start=1):
                        writer.add(picture)
                        if is_new:
                            when = {"frame": number - 1, "seconds": round((number - 1) / video.pace, 3)}
                            self.on_record(self.results.add(one.path, found.to_dict(), **when))
                        show(number)
                except KeyboardInterrupt:
                    if one.camera is None:
                        raise
        whole = {"width": width, "height": height, "frames": number}
        self.on_record(self.results.add(one.path, whole, picture=str(self.places[one.path])))

    def _seen(self, one: Input, frames: Iterator[np.ndarray]) -> Seen:
        """Pixels and detections of every frame, and whether they are new.

        Frames that an earlier run recorded must be drawn again, since a video cannot be appended to, but not looked at.
        """
        number = 0
        while record := self.results.recorded(one.path, number):
            pixels = next(frames, None)
            if pixels is None:
                return
            yield pixels, Detections.from_dict(record, self.model.labels), False
            number += 1
        # What a camera sees is shown as it happens.
        batch_size = self.batch_size or (batch_size_for(self.model) if one.camera is None else 1)
        stream = detect_stream(self.model, frames, batch_size=batch_size, read=lambda frame: frame)
        with closing(stream):
            for found in stream:
                assert isinstance(found, Found)  # a frame is read already
                yield found.pixels, found.detections.above(self.min_score), True

    def _drawn(self, pixels: np.ndarray, found: Detections) -> Image.Image:
        return draw(pixels, found, min_score=self.min_score)


@contextmanager
def _drawing(finish: Callable[[Item], Result], items: Iterator[Item]) -> Iterator[Iterator[Result]]:
    """`finish` of every item on threads, in order, a few at a time."""
    with (
        ThreadPoolExecutor(threads_here(), "tfod_zoo-draw") as pool,
        closing(ahead(pool, finish, items, threads_here() + 1)) as finished,
    ):
        yield finished


def _save(picture: Image.Image, path: Path) -> None:
    """Writes a JPEG file in one step."""
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(partial, format="JPEG", quality=_JPEG_QUALITY)
        os.replace(partial, path)
    except OSError as error:
        raise ZooError(f"{path} cannot be written ({error}); make room, or give another --out.") from error
    finally:
        partial.unlink(missing_ok=True)
