"""
What a soak holds from minute to minute: memory, descriptors, tasks and objects of its process.

They are looked at while no call is under way and no connection is idle. Memory is what the system counts once the garbage is
collected and malloc has returned its free pages, of the one arena that it has here: with an arena for each of several threads,
it depends on which of them happened to do what. Objects are the blocks that Python's allocator has handed out.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import linecache
import math
import statistics
import sys
import time
from typing import Any, Final, NamedTuple

import psutil

from tests.support.stepping import descriptors

EVERY: Final = 30.0  # seconds between two looks
_WARM: Final = 2.0  # minutes at the beginning that are not counted, or a third of a shorter soak
_LONG: Final = 5.0  # minutes from which on growth is judged; in less time it is noise
_ARENA_MAX: Final = -8  # of `mallopt`, see malloc.h
_ENOUGH: Final = 3  # looks
BOUNDS: Final = {"MiB of memory": 0.2, "descriptors": 0.2, "tasks": 0.1, "objects": 500.0}  # at most, in a minute


class Slope(NamedTuple):
    """What something grows by in a minute, and the standard error of that."""

    slope: float
    error: float

    def exceeds(self, bound: float) -> bool:
        """Whether it is above a bound by more than chance explains: twice its error."""
        return self.slope - 2 * self.error > bound

    def __str__(self) -> str:
        return f"{self.slope:+.2f} ± {self.error:.2f}"


class Growth:
    """Looks at this process from time to time."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._looks: list[tuple[float, ...]] = []
        system = ctypes.CDLL(None)
        self._trim: Any = getattr(system, "malloc_trim", lambda _: None)  # only glibc has both
        getattr(system, "mallopt", lambda *_: None)(_ARENA_MAX, 1)  # before there are threads

    def now(self) -> tuple[int, int]:
        """Return the numbers of descriptors and tasks."""
        return len(descriptors()), len(asyncio.all_tasks())

    def look(self) -> None:
        """Take a look."""
        gc.collect()
        linecache.clearcache()  # the soak formats tracebacks, to search them for secrets
        self._trim(0)
        memory = self._process.memory_info().rss / 2**20
        self._looks.append((time.monotonic() / 60, memory, *self.now(), sys.getallocatedblocks()))

    def slopes(self) -> dict[str, Slope]:
        """Return the least-squares slope of each."""
        if not self._looks:
            return {}
        started, ended = self._looks[0][0], self._looks[-1][0]
        looks = [look for look in self._looks if look[0] - started >= min(_WARM, (ended - started) / 3)]
        if len(looks) < _ENOUGH:
            return {}
        minutes, *columns = zip(*looks, strict=True)
        return {name: _slope(minutes, column) for name, column in zip(BOUNDS, columns, strict=True)}

    def too_steep(self) -> dict[str, str]:
        """Return what grows, if there were enough minutes to tell."""
        if not self._looks or self._looks[-1][0] - self._looks[0][0] < _LONG - EVERY / 60:
            return {}
        return {name: str(it) for name, it in self.slopes().items() if it.exceeds(BOUNDS[name])}


def _slope(minutes: tuple[float, ...], values: tuple[float, ...]) -> Slope:
    line = statistics.linear_regression(minutes, values)
    left = sum((value - line.intercept - line.slope * at) ** 2 for at, value in zip(minutes, values, strict=True))
    spread = statistics.pvariance(minutes) * len(minutes)
    return Slope(line.slope, math.sqrt(left / (len(minutes) - 2) / spread))
