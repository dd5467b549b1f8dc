"""
One contender and one piece of work, in a process of its own: `python -m benchmarks.worker` reads a `Job` from standard input.

It opens the library, does one small transfer so that everything is imported, warms up, measures, and prints JSON.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from .contenders import Contender, Job, Source, check, load
from .measure import Heart, Used, memory_peak, memory_reset, percentile, run_on

_WARM_SECONDS = 0.3
_WARM_ITEMS = 2  # for each connection of a run
Work = Callable[[int], Awaitable[float | None]]


class Lanes:
    """Lanes that repeat the same work until the limit is reached or the time is over."""

    def __init__(self, work: Work, *, limit: int, seconds: float) -> None:
        self._work, self._limit = work, limit
        self._end = time.perf_counter() + seconds
        self.begun = 0
        self.done = 0
        self.own_seconds = 0.0  # by the contender's clock, where it has one

    async def run(self, lanes: int) -> None:
        """Run that many lanes to their end; the first error ends all."""
        async with asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(self._lane())

    async def _lane(self) -> None:
        first = True  # every lane works at least once, so that each opens its own connection
        while self.begun < self._limit and (first or time.perf_counter() < self._end):
            first, number = False, self.begun
            self.begun += 1
            self.own_seconds += await self._work(number) or 0.0
            self.done += 1


def works(contender: Contender, job: Job) -> tuple[Work, Work, Work]:
    """Return three functions: a small transfer that loads everything, the warm-up, and the measured work."""
    folder, sha256 = Path(job.folder), job.sha256 if job.verify else None
    content = Path(job.source).read_bytes() if job.work == "upload_bytes" else b""

    def call(method: str, *arguments: Any, name: str = "") -> Work:
        function: Callable[..., Awaitable[float | None]] = getattr(contender, method)
        if not name:
            return lambda _: function(*arguments)
        return lambda number: function(arguments[0], folder / f"{name}-{number}.pdf", *arguments[1:])

    if job.work in {"upload_bytes", "get_info"}:
        work = call(job.work, content or job.media_id)
        return work, work, work
    if job.work == "upload_file":
        once, measured = call(job.work, Path(job.warm_source)), call(job.work, Path(job.source))
        warm_up = measured
    elif job.work == "save":
        once = call(job.work, job.warm_id, None, name="once")
        warm_up, measured = (call(job.work, job.media_id, sha256, name=name) for name in ("warm", "measured"))
    else:
        once = call(job.work, job.warm_id, Path(job.warm_source).stat().st_size, None)
        warm_up = measured = call(job.work, job.media_id, job.size, sha256)
    return once, once if job.concurrency > 1 else warm_up, measured


def file_of(folder: Path, number: int) -> Path:
    """Return the path of one of the files of `upload_all`."""
    return folder / f"{number:07}.pdf"


def content_of(number: int, size: int) -> bytes:
    """Return a PDF of that many bytes which differs from that of every other number."""
    return b"%%PDF-1.7\n%% %012d\n" % number + b"." * (size - 31) + b"%EOF\n"


class _Generated(Sequence[Source]):
    """Contents of a run, made one by one when they are read."""

    def __init__(self, numbers: range, size: int) -> None:
        self._numbers, self._size = numbers, size

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        return content_of(self._numbers[index], self._size)

    def __iter__(self) -> Iterator[Source]:
        return (content_of(number, self._size) for number in self._numbers)


def _sources(job: Job, numbers: range) -> Sequence[Source]:
    if job.sources == "files":
        return [file_of(Path(job.files), number) for number in numbers]
    if job.sources == "generator":
        return _Generated(numbers, job.size)
    source = Path(job.source)
    return [source.read_bytes() if job.sources == "bytes" else source] * len(numbers)


async def _run_lanes(contender: Contender, job: Job) -> dict[str, Any]:
    load_all, warm_up, work = works(contender, job)
    await load_all(0)
    idle = memory_reset()
    warm_limit = job.limit if math.isfinite(job.seconds) else job.concurrency
    await Lanes(warm_up, limit=warm_limit, seconds=_WARM_SECONDS).run(job.concurrency)
    lanes = Lanes(work, limit=job.limit, seconds=job.seconds)
    found = await _measured(job, idle, lambda: lanes.run(job.concurrency))
    return found | {"transfers": lanes.done} | ({"seconds": lanes.own_seconds} if lanes.own_seconds else {})


async def _run_many(contender: Contender, job: Job) -> dict[str, Any]:
    warm = _WARM_ITEMS * job.concurrency
    await contender.upload_all(_sources(job, range(job.limit, job.limit + warm)))
    if job.again:
        await contender.upload_all(_sources(job, range(job.limit)))
    idle = memory_reset()
    sources = _sources(job, range(job.limit))
    found = await _measured(job, idle, lambda: contender.upload_all(sources))
    return found | {"transfers": job.limit}


async def _measured(job: Job, idle: int, work: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """Await the work, and return what it took."""
    server = psutil.Process(job.server_pid)
    async with Heart() as heart:
        await asyncio.sleep(0.02)
        heart.lateness.clear()
        before = Used.now(server)
        await work()
        after = Used.now(server)
    wall, own, served = after.at - before.at, after.own - before.own, after.server - before.server
    return {
        "seconds": wall,
        "cpu_seconds": own,
        "memory": max(memory_peak() - idle, 0),
        "lateness_p99": percentile(heart.lateness, 0.99),
        "lateness_worst": max(heart.lateness, default=0.0),
        "server_busy": served / wall,
        "others_busy": max(after.machine - before.machine - own - served, 0.0) / wall,
    }


async def measure(job: Job) -> dict[str, Any]:
    """Open the contender and measure it."""
    async with load(job) as contender:
        return await (_run_many if job.work == "upload_all" else _run_lanes)(contender, job)


def main() -> None:
    """Read a job, measure, check what was saved, and print the measurement."""
    job = Job(**json.load(sys.stdin))
    found = run_on(job.loop, measure(job))
    if job.work == "save":
        check(job.size * found["transfers"], sum(path.stat().st_size for path in Path(job.folder).glob("measured-*")))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
