"""Videos and cameras through OpenCV, the extra `[video]`."""

from __future__ import annotations

import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tfod_zoo.errors import ZooError
from tfod_zoo.pictures.inputs import Input
from tfod_zoo.pictures.reading import PictureError
from tfod_zoo.pictures.stream import ahead

_CODEC = "mp4v"  # MPEG-4 part 2: every build of OpenCV can write it
_USUAL_PACE = 25.0  # frames a second, of cameras and files that do not say
_READ_AHEAD = 4  # frames


def opencv() -> Any:
    """OpenCV's module.

    Raises:
      ZooError: it is not installed; names the extra.
    """
    try:
        import cv2
    except ImportError as error:
        raise ZooError(
            "Videos and cameras need OpenCV, which is not installed; pip install 'tfod-zoo[video]'."
        ) from error
    return cv2


class VideoReader:
    """The frames of a video file or a camera; context manager.

    Attributes:
      pace: frames a second.
      total: number of frames as the file says it, which may be a little off; None where it does not.

    Raises:
      PictureError: it cannot be opened as a video.
      ZooError: OpenCV is not installed.
    """

    def __init__(self, one: Input):
        self._cv2 = opencv()
        self._capture = self._cv2.VideoCapture(str(one.path) if one.camera is None else one.camera)
        if not self._capture.isOpened():
            what = f"camera {one.camera} cannot be opened" if one.camera is not None else f"{one.path} is not a video"
            raise PictureError(f"{what} that OpenCV can read.")
        total = int(self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT))
        self.pace = float(self._capture.get(self._cv2.CAP_PROP_FPS)) or _USUAL_PACE
        self.total = total if total > 0 else None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._capture.release()

    def frames(self) -> Generator[np.ndarray, None, None]:
        """Frame after frame, uint8 RGB `[H, W, 3]`, the next ones read on a thread."""
        with (
            ThreadPoolExecutor(1, "tfod_zoo-video") as reader,
            closing(ahead(reader, lambda _: self._read(), count(), _READ_AHEAD)) as frames,
        ):
            for frame in frames:
                if frame is None:
                    return
                yield frame

    def _read(self) -> np.ndarray | None:
        there, frame = self._capture.read()
        return self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB) if there else None


class VideoWriter:
    """Writes an MP4 file, which takes its place when it is closed; context manager.

    Args:
      path: its name ends in .mp4.
      pace: frames a second.
      size: (height, width) of every frame.

    Raises:
      ZooError: it cannot be written.
    """

    def __init__(self, path: Path, pace: float, size: tuple[int, int]):
        cv2 = opencv()
        self._cv2, self._path = cv2, path
        self._partial = path.with_name(f".{os.getpid()}.{path.name}")
        height, width = size
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ZooError(f"{path} cannot be written ({error.strerror}); give another --out.") from error
        self._writer = cv2.VideoWriter(str(self._partial), cv2.VideoWriter.fourcc(*_CODEC), pace, (width, height))
        if not self._writer.isOpened():
            raise ZooError(f"{path} cannot be written; give another --out.")

    def add(self, frame: np.ndarray) -> None:
        """Appends a frame, uint8 RGB `[H, W, 3]`."""
        self._writer.write(self._cv2.cvtColor(frame, self._cv2.COLOR_RGB2BGR))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What there is can be played, also where the work was stopped.
        self._writer.release()
        os.replace(self._partial, self._path)
