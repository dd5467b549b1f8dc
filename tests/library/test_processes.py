"""A library shared by several processes, also when one of them is killed: each content is uploaded exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from meta_media import MediaLibrary, MemoryStore
from meta_media.emulator import Emulator
from tests.support.redis_server import RedisServer
from tests.support.servers import until

pytest_plugins = ["tests.support.redis_server"]

WORKER: Final = Path(__file__).parents[1] / "scripts" / "library_worker.py"
CONTENTS: Final = 10
CALLS: Final = 200
PROCESSES: Final = 4
_prefixes = (f"processes{number}" for number in itertools.count())

Place = list[str]  # which store, as the workers are told


@attrs.frozen
class Worker:
    """A process that waits for its word; see `scripts/library_worker.py`."""

    process: asyncio.subprocess.Process

    async def says(self) -> str:
        """Return what it says next."""
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def go(self) -> None:
        """Let it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()

    async def result(self) -> list[Any]:
        """Wait for its end, and return what came of it."""
        said = await self.says()
        assert (await self.process.wait(), said[:1]) == (0, "[")
        return list(json.loads(said))


@contextlib.asynccontextmanager
async def workers(count: int, **order: Any) -> AsyncIterator[list[Worker]]:
    """Start so many processes, and kill those that are left at the end."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe, started = asyncio.subprocess.PIPE, []
    try:
        for number in range(count):
            told = json.dumps({"doomed": False, "work": "ensure", "name": f"process {number}", **order})
            command = (sys.executable, "-W", "error", str(WORKER), told)
            process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)
            started.append(Worker(process))
        for worker in started:
            assert await worker.says() == "ready"
        yield started
    finally:
        for worker in started:
            if worker.process.returncode is None:
                worker.process.kill()
            await worker.process.communicate()


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Emulator]:
    """An emulator whose folder of media can be looked into."""
    async with Emulator(tmp_path / "emulator") as emulator:
        yield emulator


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the processes' entries are."""
    if request.param == "sqlite":
        return ["sqlite", str(tmp_path / "library.sqlite")]
    server: RedisServer = request.getfixturevalue("redis_server")
    return ["redis", server.url, next(_prefixes)]


def ordered(emulator: Emulator, place: Place, **more: Any) -> dict[str, Any]:
    """Tell processes whom to upload to, and which store to share."""
    account = {"base_url": emulator.base_url, "token": emulator.access_token, "number": emulator.phone_number_id}
    return {**account, "store": place, "contents": CONTENTS, "calls": CALLS // PROCESSES, "claim_seconds": 30} | more


def uploads(emulator: Emulator) -> int:
    """Count the uploads that were begun."""
    return sum(request.method == "POST" for request in emulator.requests)


def media_of(folder: Path) -> set[str]:
    """List the ids of what an emulator has kept, which is what was uploaded to the end."""
    return {path.name for path in (folder / "emulator" / "media").iterdir() if path.name.isdigit()}


def check_results(results: list[Any], ids: set[str]) -> None:
    """Make sure that each content has one id of its own, and that who uploaded it knows."""
    assert len(results) == CALLS
    assert Counter(number for number, _, _ in results) == dict.fromkeys(range(CONTENTS), CALLS // CONTENTS)
    assert len({(number, media_id) for number, media_id, _ in results}) == CONTENTS
    assert {media_id for _, media_id, _ in results} == ids
    assert len(ids) == CONTENTS
    assert sum(not reused for _, _, reused in results) == CONTENTS


async def test_one_process(kept: Emulator, tmp_path: Path) -> None:
    """200 calls at once in one process, for 10 contents, make exactly 10 uploads."""
    async with kept.api() as media:
        library = MediaLibrary(media, MemoryStore())
        contents = [f"Content number {number % CONTENTS}.".encode() * 9_000 for number in range(CALLS)]
        entries = await asyncio.gather(*(library.ensure(content) for content in contents))
    results = [[number % CONTENTS, entry.id, entry.reused] for number, entry in enumerate(entries)]
    check_results(results, media_of(tmp_path))
    assert uploads(kept) == CONTENTS


async def test_four_processes(kept: Emulator, place: Place, tmp_path: Path) -> None:
    """200 calls at once in four processes, for 10 contents, make exactly 10 uploads."""
    async with workers(PROCESSES, **ordered(kept, place)) as started:
        for worker in started:
            await worker.go()
        results = [result for worker in started for result in await worker.result()]
    check_results(results, media_of(tmp_path))
    assert uploads(kept) == CONTENTS


async def test_killed_while_it_holds_a_claim(kept: Emulator, place: Place, tmp_path: Path) -> None:
    """When a fifth process is killed in the middle of an upload, the others wait for its claim to run out, and do it."""
    order = ordered(kept, place, claim_seconds=2)
    async with workers(1, **{**order, "doomed": True}) as (doomed,), workers(PROCESSES, **order) as started:
        await doomed.go()
        assert await doomed.says() == "held"
        for worker in started:
            await worker.go()
        async with asyncio.timeout(60):
            await until(lambda: uploads(kept) == CONTENTS)
            await until(lambda: len(media_of(tmp_path)) == CONTENTS - 1)  # all but what the doomed one holds
        doomed.process.kill()
        results = [result for worker in started for result in await worker.result()]
    check_results(results, media_of(tmp_path))
    assert uploads(kept) == CONTENTS + 1  # of which one never reached its end


async def test_eight_processes_on_one_file(tmp_path: Path) -> None:
    """Eight processes that use one file as fast as they can are never told that it is locked, and lose nothing."""
    calls, place = 60, ["sqlite", str(tmp_path / "library.sqlite")]
    async with workers(8, work="hammer", store=place, calls=calls) as started:
        for worker in started:
            await worker.go()
        won = [await worker.result() for worker in started]
    assert len({name for names in won for name in names}) == sum(map(len, won)) == 8 * calls // 2 + calls // 2
