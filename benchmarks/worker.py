"""
One contender, one piece of work, in a process of its own: `python -m benchmarks.worker` reads a `Job` from standard input.

It opens the library, does one small transfer so that everything is imported, notes the memory held, warms up, measures, and
prints what it found as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil

from .contenders import Contender, Job, check, load
from .heartbeat import Heart, Used, memory_peak, memory_reset, percentile

_WARM_SECONDS = 0.3
Work = Callable[[int], Awaitable[float | None]]


class Lanes:
    """Several lanes that do the same work again and again, until enough has been begun or the time is over."""

    def __init__(self, work: Work, *, limit: int, seconds: float) -> None:
        self._work, self._limit = work, limit
        self._end = time.perf_counter() + seconds
        self.begun = 0
        self.done = 0
        self.own_seconds = 0.0  # by the contender's clock, where it has one

    async def run(self, lanes: int) -> None:
        """Run so many lanes to their end; the first error ends all."""
        async with asyncio.TaskGroup() as group:
            for _ in range(lanes):
                group.create_task(self._lane())

    async def _lane(self) -> None:
        first = True  # every lane works once, however slow the others are: each warms its own connection up
        while self.begun < self._limit and (first or time.perf_counter() < self._end):
            first, number = False, self.begun
            self.begun += 1
            self.own_seconds += await self._work(number) or 0.0
            self.done += 1


def works(contender: Contender, job: Job) -> tuple[Work, Work, Work]:
    """Return what to do once, small, to load everything; what to do to warm up; and what is measured."""
    folder, sha256 = Path(job.folder), job.sha256 if job.verify else None
    content = Path(job.source).read_bytes() if job.work == "upload_bytes" else b""
    warm_path = Path(job.warm_source)

    def saved(stem: str, media_id: str, digest: str | None) -> Work:
        return lambda number: contender.save(media_id, folder / f"{stem}-{number}.pdf", digest)

    def uploaded(path: Path) -> Work:
        return lambda _: contender.upload_file(path)

    def discarded(media_id: str, size: int, digest: str | None) -> Work:
        return lambda _: contender.discard(media_id, size, digest)

    if job.work == "upload_bytes":

        def upload(_: int) -> Awaitable[float | None]:
            return contender.upload_bytes(content)

        return upload, upload, upload
    if job.work == "upload_file":
        once, measured = uploaded(warm_path), uploaded(Path(job.source))
        warm_up = measured
    elif job.work == "save":
        once, measured = saved("once", job.warm_id, None), saved("measured", job.media_id, sha256)
        warm_up = saved("warm", job.media_id, sha256)
    else:
        once = discarded(job.warm_id, warm_path.stat().st_size, None)
        warm_up = measured = discarded(job.media_id, job.size, sha256)
    return once, once if job.concurrency > 1 else warm_up, measured


async def measure(job: Job) -> dict[str, Any]:
    """Load, warm up, measure."""
    server = psutil.Process(job.server_pid)
    async with load(job) as contender:
        load_all, warm_up, work = works(contender, job)
        await load_all(0)
        idle = memory_reset()
        warm_limit = job.limit if math.isfinite(job.seconds) else job.concurrency
        await Lanes(warm_up, limit=warm_limit, seconds=_WARM_SECONDS).run(job.concurrency)
        lanes = Lanes(work, limit=job.limit, seconds=job.seconds)
        async with Heart() as heart:
            await asyncio.sleep(0.02)
            heart.lateness.clear()
            before = Used.now(server)
            await lanes.run(job.concurrency)
            after = Used.now(server)
        peak = memory_peak()
    wall = after.at - before.at
    seconds = lanes.own_seconds or wall
    own, served = after.own - before.own, after.server - before.server
    return {
        "transfers": lanes.done,
        "seconds": seconds,
        "cpu_seconds": own,
        "memory": max(peak - idle, 0),
        "idle_memory": idle,
        "lateness_median": percentile(heart.lateness, 0.5),
        "lateness_p99": percentile(heart.lateness, 0.99),
        "lateness_worst": max(heart.lateness, default=0.0),
        "server_busy": served / wall,
        "others_busy": max(after.machine - before.machine - own - served, 0.0) / wall,
    }


def main() -> None:
    """Read, measure, print, and leave nothing in the folder."""
    job = Job(**json.load(sys.stdin))
    folder = Path(job.folder)
    try:
        found = asyncio.run(measure(job))
        if job.work == "save":
            check(job.size * found["transfers"], sum(path.stat().st_size for path in folder.glob("measured-*")))
    finally:
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                path.unlink()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
