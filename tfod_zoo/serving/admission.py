"""How many requests a server takes on at once, and the one thread that works them off."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tfod_zoo.serving.refusal import Refusal

_Result = TypeVar("_Result")


class Busy(Refusal):
    """All places are taken; `retry_after` is in how many seconds one may be free."""

    def __init__(self, retry_after: int):
        super().__init__(503, f"The server has as many requests as it takes on; try again in {retry_after} s.")
        self.retry_after = retry_after


class Admission:
    """Places for requests, and a worker. All methods belong to the event loop's thread.

    A request has its place from before its body is read until it is answered, so that places bound the memory too.
    Decoding, JSON and the network are the worker's, one request after the other: the network already uses every core,
    and only one image at a time is there decoded.

    Args:
      places: requests at once.
    """

    def __init__(self, places: int):
        self._places = places
        self._taken = 0
        self._seconds = 1.0  # that a request took of late
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="detector")

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """A place for the time of the block.

        Raises:
          Busy: there is none.
        """
        if self._taken >= self._places:
            raise Busy(max(1, math.ceil(self._taken * self._seconds)))
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """The result of `work` on the worker, after all that was asked for before."""

        def timed() -> tuple[_Result, float]:
            started = time.perf_counter()
            return work(), time.perf_counter() - started

        result, seconds = await asyncio.get_running_loop().run_in_executor(self._worker, timed)
        self._seconds += 0.1 * (seconds - self._seconds)
        return result

    def close(self) -> None:
        """Ends the worker after what it is at; what nobody waits for any more is dropped."""
        self._worker.shutdown(cancel_futures=True)
