"""Pictures through a network as a stream: read ahead on threads, detected in batches, in bounded memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tfod_zoo.pictures.detections import Detections
from tfod_zoo.pictures.reading import Picture, PictureError, picture_name, read_pixels

_BATCH_ON_GPU = 8  # keeps a GPU busy; on a CPU one image does, and more only cost memory
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
    canvas: Any = None  # float32 [H', W', 3] and
    true_shape: Any = None  # int32 [3], where pictures of different sizes share a batch


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
    with closing(detect_stream(model, pictures, batch_size=min(batch_size_here(), max(len(pictures), 1)))) as stream:
        for one in stream:
            if isinstance(one, Unreadable):
                raise one.error
            found.append(one.detections)
    return found


def detect_stream(
    model: Any,
    sources: Iterable[Any],
    *,
    read: Callable[[Any], np.ndarray] = read_pixels,
    batch_size: int | None = None,
) -> Generator[Found | Unreadable, None, None]:
    """Detections in one picture after the other, in order; the next ones are read while the network is at work.

    Holds some pictures at a time, however many there are.

    Args:
      model: a `DetectionModel`.
      sources: what `read` takes.
      read: source -> uint8 `[H, W, 3]`; may raise PictureError. Runs on several threads.
      batch_size: pictures a call of the network; default 1 on a CPU, 8 on a GPU.
    """
    batch_size = batch_size or batch_size_here()

    # One picture at a time is resized within the network's own graph, which is cheapest.
    def prepare(source: Any) -> _Ready | Unreadable:
        try:
            pixels = read(source)
        except PictureError as error:
            return Unreadable(source, error)
        if batch_size == 1:
            return _Ready(source, pixels)
        (canvas,), (true_shape,) = model.to_canvas(pixels[None])
        return _Ready(source, pixels, canvas, true_shape)

    waiting: list[_Ready] = []
    with (
        ThreadPoolExecutor(threads_here(), "tfod_zoo-read") as pool,
        closing(ahead(pool, prepare, sources, batch_size + threads_here())) as prepared,
    ):
        for one in prepared:
            if isinstance(one, Unreadable):
                yield from _detected(model, waiting, batch_size)
                waiting = []
                yield one
                continue
            waiting.append(one)
            if len(waiting) == batch_size:
                yield from _detected(model, waiting, batch_size)
                waiting = []
        yield from _detected(model, waiting, batch_size)


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


def batch_size_here() -> int:
    """Pictures a call of the network on this machine's devices."""
    import tensorflow as tf

    return _BATCH_ON_GPU if tf.config.list_logical_devices("GPU") else 1


def _detected(model: Any, ready: Sequence[_Ready], batch_size: int) -> Iterator[Found]:
    if not ready:
        return
    if batch_size == 1:
        outputs = model.detect_batch(ready[0].pixels[None])
    else:
        import tensorflow as tf

        # A batch that is not full is filled up with its first picture: another size would be traced anew.
        rows = [*ready, *[ready[0]] * (batch_size - len(ready))]
        canvases, shapes = tf.stack([one.canvas for one in rows]), tf.stack([one.true_shape for one in rows])
        outputs = model.detect_canvases(canvases, shapes)
    outputs = {key: value.numpy() for key, value in outputs.items()}
    for row, one in enumerate(ready):
        source = picture_name(one.source) if isinstance(one.source, (str, os.PathLike)) else None
        found = Detections.from_outputs(outputs, one.pixels.shape[:2], row=row, labels=model.labels, source=source)
        yield Found(one.source, one.pixels, found)
