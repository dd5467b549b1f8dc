"""
A client's process: `python -m benchmarks.many.client` reads an order from standard input, works, and prints what it found.

What became of each item goes into a file, line by line, so that the process holds nothing of it while its memory is watched.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from meta_media import BulkRun, MediaApi, MediaError, Settings

from ..heartbeat import memory_peak, memory_reset
from ..servers import API_VERSION, HOUSE
from .contents import content

SILENCE = 5.0  # seconds without a byte, after which a request is given up; only a stall takes as long
_LOOKS = 400  # at the memory, in a run
_RARELY = 10  # looks to one at Python's objects, which takes longer
_CLEARED = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
_OURS = ("CLOUD_API_ACCESS_TOKEN", "CLOUD_API_VERSION", "WA_APP_SECRET", "WA_BASE_URL", "WA_PHONE_NUMBER_ID")


@dataclass(frozen=True, kw_only=True)
class Run:
    """
    A run that is watched.

    Attributes:
        work: `deletes` or `uploads`.
        base_url: Of the emulator; so are the next two.
        access_token: A token.
        phone_number_id: A number.
        folder: Where the file `ids` is, and where `outcomes` goes.
        items: How many.
        size: Bytes of an upload; see `sizes`.
        concurrency: Items at a time.
    """

    work: str
    base_url: str
    access_token: str
    phone_number_id: str
    folder: str
    items: int
    size: int
    concurrency: int


def sizes(items: int, size: int) -> range:
    """Give each upload a length of its own, by which a server's record tells them apart: on average what was asked for."""
    least = size - items // 2
    if least < 100:
        raise ValueError(f"{items} uploads of {size} bytes cannot all have a length of their own")
    return range(least, least + items)


def filename(number: int) -> str:
    """Name the file of an upload; all names are equally long."""
    return f"{number:07}.pdf"


def asked_of_child(module: str, order: object) -> dict[str, Any]:
    """Let a process do what an order says, and return what it found."""
    environment = {name: value for name, value in os.environ.items() if name.upper() not in {*_CLEARED, *_OURS}}
    command = [sys.executable, "-m", module]
    ended = subprocess.run(
        command, input=json.dumps(order), cwd=HOUSE, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(ended.stdout))


def watched(run: Run) -> dict[str, Any]:
    """Make a run in a process of its own."""
    return asked_of_child(__name__, asdict(run))


class Watch:
    """Looks at the memory and the objects of this process now and then, from when everything is imported."""

    def __init__(self, items: int) -> None:
        self._process = psutil.Process()
        self._every = max(items // _LOOKS, 1)
        self._seen = 0
        self.looks: list[tuple[int, int]] = []
        self.objects: list[tuple[int, int]] = []
        self.idle = memory_reset()

    def count(self) -> None:
        """Count an outcome."""
        self._seen += 1
        if self._seen % self._every == 0:
            self.looks.append((self._seen, self._process.memory_info().rss))
        if self._seen % (self._every * _RARELY) == 0:
            gc.collect()
            self.objects.append((self._seen, sys.getallocatedblocks()))


async def _drained(run: BulkRun[Any], watch: Watch, file: IO[str], line: Callable[[Any], str]) -> dict[str, Any]:
    began, spent = time.perf_counter(), time.process_time()
    async with run:
        async for outcome in run:
            file.write(line(outcome) + "\n")
            watch.count()
        report = run.so_far
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - spent,
        "idle": watch.idle,
        "peak": max(memory_peak(), max((held for _, held in watch.looks), default=0)),
        "looks": watch.looks,
        "objects": watch.objects,
        "ended_by": None if report.ended_by is None else repr(report.ended_by),
    }


def _ids(path: Path) -> Iterator[str]:
    """Read ids one by one, as a caller with a long list in a file would."""
    with path.open() as lines:
        for line in lines:
            yield line.strip()


async def _deletes(run: Run, media: MediaApi, file: IO[str]) -> dict[str, Any]:
    ids = Path(run.folder) / "ids"
    await media.get_info(next(_ids(ids)))  # everything is imported now
    work = media.delete_many(_ids(ids), concurrency=run.concurrency)

    def line(outcome: Any) -> str:
        return f"{outcome.index} {outcome.source} {outcome.attempts} {type(outcome.error).__name__}"

    return await _drained(work, Watch(run.items), file, line)


async def _sources(run: Run) -> AsyncIterator[tuple[bytes, dict[str, str]]]:
    for number, size in enumerate(sizes(run.items, run.size)):
        yield content(number, size), {"filename": filename(number)}


async def _uploads(run: Run, media: MediaApi, file: IO[str]) -> dict[str, Any]:
    await media.get_info(next(_ids(Path(run.folder) / "ids")))
    content(0, run.size)  # what they are cut out of is made now
    work = media.upload_many(_sources(run), concurrency=run.concurrency, mime_type="application/pdf")

    def line(outcome: Any) -> str:
        error, value = outcome.error, outcome.value
        told = {"index": outcome.index, "attempts": outcome.attempts, "tried": outcome.tried}
        if error is None:
            return json.dumps(told | {"id": value.id, "size": value.file_size, "doubtful": value.maybe_duplicate})
        doubtful = isinstance(error, MediaError) and error.maybe_applied
        return json.dumps(told | {"error": type(error).__name__, "doubtful": doubtful, "told": str(error)})

    return await _drained(work, Watch(run.items), file, line)


_WORKS: dict[str, Callable[[Run, MediaApi, IO[str]], Coroutine[Any, Any, dict[str, Any]]]] = {
    "deletes": _deletes,
    "uploads": _uploads,
}


async def main(run: Run) -> dict[str, Any]:
    """Make the run."""
    settings = Settings(
        base_url=run.base_url,
        api_version=API_VERSION,
        concurrency=run.concurrency,
        read_timeout=SILENCE,
        minimum_rate=0,
        backoff=0.2,
    )
    with (Path(run.folder) / "outcomes").open("w") as file:
        async with MediaApi(run.access_token, run.phone_number_id, settings=settings) as media:
            return await _WORKS[run.work](run, media, file)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(Run(**json.load(sys.stdin))))))
