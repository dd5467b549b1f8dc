"""
What many uploads cost, in a process of its own.

`python -m benchmarks.many.costs` reads what to do from standard input, does a few to have everything imported and connected,
measures, and prints seconds, processor seconds and memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from meta_media import BulkRun, MediaApi, MediaLibrary, MemoryStore, RedisStore, Settings, SQLiteStore
from meta_media.library import Store

from ..contenders import NUMBER, PATIENCE, TOKEN, Job, check, load
from ..heartbeat import memory_peak, memory_reset
from ..servers import API_VERSION
from .client import asked_of_child
from .contents import content

_WARM = 2  # uploads for each connection

Sources = Callable[[range], Iterable[Any]]
Make = Callable[[Iterable[Any]], BulkRun[Any]]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """
    What to measure.

    Attributes:
        way: A module of `benchmarks.contenders`; or one of ours: `run`, `journal`, or a library on a store: `memory`, `sqlite`,
            `redis`.
        sources: `bytes`, the same again and again; `path`, likewise; `files`, each its own; `generator`, bytes of their own.
        items: How many.
        size: Bytes of each.
        concurrency: Items at a time.
        base_url: Of the server.
        folder: Where `photo.jpg` is, or the files; and where journals and libraries go.
        redis: URL, if it is needed.
        again: Whether to do it all a second time, when everything is known.
    """

    way: str
    sources: str
    items: int
    size: int
    concurrency: int
    base_url: str
    folder: str
    redis: str = ""
    again: bool = False


def measured(cost: Cost) -> dict[str, Any]:
    """Measure in a process of its own."""
    return asked_of_child(__name__, asdict(cost))


def named(folder: Path, number: int) -> Path:
    """Return where a file to be uploaded is."""
    return folder / "sources" / f"{number:07}.pdf"


async def _timed(work: Awaitable[object]) -> dict[str, float]:
    idle = memory_reset()
    began, spent = time.perf_counter(), time.process_time()
    await work
    seconds, cpu = time.perf_counter() - began, time.process_time() - spent
    return {"seconds": seconds, "cpu_seconds": cpu, "memory": max(memory_peak() - idle, 0)}


async def _theirs(cost: Cost) -> dict[str, Any]:
    """Let a contender upload the same thing many times."""
    photo = Path(cost.folder) / "photo.jpg"
    source = photo.read_bytes() if cost.sources == "bytes" else photo
    job = Job(
        contender=cost.way,
        library="httpx",
        work=f"upload_{cost.sources}",
        base_url=cost.base_url,
        media_id="",
        warm_id="",
        size=cost.size,
        sha256="",
        source=str(photo),
        warm_source=str(photo),
        folder=cost.folder,
        concurrency=cost.concurrency,
        limit=cost.items,
        seconds=0,
        mime_type="image/jpeg",
        verify=False,
        variant="",
        server_pid=0,
    )
    async with load(job) as contender:
        await contender.upload_all([source] * (_WARM * cost.concurrency))
        return {"new": await _timed(contender.upload_all([source] * cost.items))}


def _sources(cost: Cost) -> Sources:
    if cost.sources == "files":
        return lambda numbers: [named(Path(cost.folder), number) for number in numbers]

    def generated(numbers: range) -> Iterator[bytes]:
        for number in numbers:
            yield content(number, cost.size)

    return generated


@contextlib.asynccontextmanager
async def _making(cost: Cost, media: MediaApi) -> AsyncIterator[Make]:
    """Give what makes a run the way that is to be measured."""
    folder = Path(cost.folder)
    common: dict[str, Any] = {"concurrency": cost.concurrency, "mime_type": "application/pdf"}
    if cost.way in {"run", "journal"}:
        journal = folder / "journal.sqlite" if cost.way == "journal" else None
        yield lambda sources: media.upload_many(sources, journal=journal, **common)
        return
    stores: dict[str, Callable[[], Store]] = {
        "memory": MemoryStore,
        "sqlite": lambda: SQLiteStore(folder / "library.sqlite"),
        "redis": lambda: RedisStore(cost.redis),
    }
    store = stores[cost.way]()
    library = MediaLibrary(media, store)
    try:
        yield lambda sources: library.ensure_many(sources, **common)
    finally:
        await store.aclose()


async def _ours(cost: Cost) -> dict[str, Any]:
    """Upload many different things; and again, if asked."""
    settings = Settings(
        base_url=cost.base_url,
        api_version=API_VERSION,
        concurrency=cost.concurrency,
        connect_timeout=PATIENCE,
        read_timeout=PATIENCE,
        write_timeout=PATIENCE,
    )
    sources = _sources(cost)
    async with MediaApi(TOKEN, NUMBER, settings=settings) as media, _making(cost, media) as make:

        async def work(numbers: range) -> None:
            report = await make(sources(numbers)).report()
            check(len(numbers), report.succeeded + report.skipped)

        await work(range(cost.items, cost.items + _WARM * cost.concurrency))
        found = {"new": await _timed(work(range(cost.items)))}
        if cost.again:
            found["again"] = await _timed(work(range(cost.items)))
        return found


if __name__ == "__main__":
    chosen = Cost(**json.load(sys.stdin))
    ours = chosen.way in {"run", "journal", "memory", "sqlite", "redis"}
    print(json.dumps(asyncio.run(_ours(chosen) if ours else _theirs(chosen))))
