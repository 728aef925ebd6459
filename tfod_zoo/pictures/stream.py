"""Pictures through a network as a stream: read ahead on threads, detected in batches, in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from math import ceil
from typing import Any, TypeVar

import numpy as np

from tfod_zoo.pictures.detections import Detections
from tfod_zoo.pictures.reading import Picture, PictureError, picture_name, read_pixels

_BATCH_ON_GPU = 8  # keeps a GPU busy
# On a CPU four pictures keep the threads busier than one (on two cores MobileNetV2-FPN does 1.16 times as many a
# second, ResNet-50 V1 FPN 1.15 times), and eight do little better; of larger ones fewer, since memory grows with them.
_BATCH_ON_CPU = 4
_BATCH_PIXELS_ON_CPU = _BATCH_ON_CPU * 512 * 512
_THREADS = 8  # more than this many reading and drawing would contend for Python's lock

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Found:
    """One picture of a stream: where it came from, its upright pixels `[H, W, 3]` uint8, and what is in it."""

    source: Any
    pixels: np.ndarray
    detections: Detections


@dataclass(frozen=True)
class Unreadable:
    """A picture of a stream that could not be read, and the sentence that says why."""

    source: Any
    error: PictureError


@dataclass(frozen=True)
class _Ready:
    source: Any
    pixels: np.ndarray


def is_batch(images: Any) -> bool:
    """Whether `images` are an array or tensor for the network itself; of rank 2 or 3 they are one picture.

    Ranks that are neither count as batches: the network's own check says what it takes.
    """
    return hasattr(images, "shape") and len(images.shape) not in (2, 3)


def detect_all(model: Any, pictures: Sequence[Picture]) -> list[Detections]:
    """Detections in every picture, in order.

    Raises:
      PictureError: one cannot be read; names it.
    """
    found = []
    with closing(detect_stream(model, pictures, batch_size=batch_size_for(model, len(pictures)))) as stream:
        for one in stream:
            if isinstance(one, Unreadable):
                raise one.error
            found.append(one.detections)
    return found


def detect_stream(
    model: Any,
    sources: Iterable[Any],
    *,
    batch_size: int,
    read: Callable[[Any], np.ndarray] = read_pixels,
) -> Generator[Found | Unreadable, None, None]:
    """Detections in one picture after the other, in order; the next ones are read while the network is at work.

    Holds some pictures at a time, however many there are.

    Args:
      model: a `DetectionModel`.
      sources: what `read` takes.
      batch_size: pictures a call of the network; see `batch_size_for`.
      read: source -> uint8 `[H, W, 3]`; may raise PictureError. Runs on several threads.
    """

    def prepare(source: Any) -> _Ready | Unreadable:
        try:
            return _Ready(source, read(source))
        except PictureError as error:
            return Unreadable(source, error)

    # The network works on one batch while the detections of the one before are taken away.
    with (
        ThreadPoolExecutor(threads_here(), "tfod_zoo-read") as readers,
        ThreadPoolExecutor(1, "tfod_zoo-network") as network,
        closing(ahead(readers, prepare, sources, batch_size + threads_here())) as prepared,
        closing(_batches(prepared, batch_size)) as batches,
        closing(ahead(network, lambda batch: _detected(model, batch, batch_size), batches, 2)) as detected,
    ):
        for batch in detected:
            yield from batch


def ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], limit: int
) -> Generator[Result, None, None]:
    """`map(work, items)` on a pool's threads, in order, never more than `limit` results ahead of who takes them."""
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= limit:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def threads_here() -> int:
    """How many threads read, and how many draw."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _THREADS)


def batch_size_for(model: Any, count: int | None = None) -> int:
    """Pictures a call of the network on this machine's devices; `count` of them are shared out evenly, if it is known.

    Args:
      model: a `DetectionModel`.
      count: pictures in all.
    """
    import tensorflow as tf

    height, width = model.input_shape_hw
    most = min(_BATCH_ON_CPU, max(1, _BATCH_PIXELS_ON_CPU // (height * width)))
    if tf.config.list_logical_devices("GPU"):
        most = _BATCH_ON_GPU
    if not count:
        return most
    return ceil(count / ceil(count / most))  # 5 are 3 and 2: what a batch lacks is looked at for nothing


def _batches(
    prepared: Iterable[_Ready | Unreadable], batch_size: int
) -> Generator[list[_Ready | Unreadable], None, None]:
    """Lists of `batch_size` in the order they came, the last one of what is left."""
    batch: list[_Ready | Unreadable] = []
    for one in prepared:
        batch.append(one)
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _detected(model: Any, batch: Sequence[_Ready | Unreadable], batch_size: int) -> list[Found | Unreadable]:
    pixels = [one.pixels for one in batch if isinstance(one, _Ready)]
    outputs = {}
    if pixels:
        # A batch that is not full is filled up with its first picture: another size would be traced anew.
        pixels += pixels[:1] * (batch_size - len(pixels))
        outputs = model.detect_batch(pixels[0][None]) if batch_size == 1 else model.detect_pictures(pixels)
        outputs = {key: value.numpy() for key, value in outputs.items()}
    found: list[Found | Unreadable] = []
    row = 0
    for one in batch:
        if isinstance(one, Unreadable):
            found.append(one)
            continue
        source = picture_name(one.source) if isinstance(one.source, (str, os.PathLike)) else None
        size = one.pixels.shape[:2]
        detections = Detections.from_outputs(outputs, size, row=row, labels=model.labels, source=source)
        found.append(Found(one.source, one.pixels, detections))
        row += 1
    return found
