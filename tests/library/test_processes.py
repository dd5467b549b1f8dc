"""A library that several processes share uploads each content once, even if one of them is killed."""

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

from meta_media.emulator import Emulator
from tests.support.redis_server import RedisServer
from tests.support.servers import wait_until

pytest_plugins = ["tests.support.redis_server"]
pytestmark = pytest.mark.slow

WORKER: Final = Path(__file__).parents[1] / "scripts" / "library_worker.py"
CONTENTS: Final = 10
CALLS: Final = 200
PROCESSES: Final = 4
_prefixes = (f"processes{number}" for number in itertools.count())

StoreArguments = list[str]  # the kind of a store, and its place


@attrs.frozen
class Worker:
    """A process that runs `scripts/library_worker.py`."""

    process: asyncio.subprocess.Process

    async def read_line(self) -> str:
        """Return its next line."""
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().rstrip("\n")

    async def start(self) -> None:
        """Start its work."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        await self.process.stdin.drain()

    async def result(self) -> list[Any]:
        """Wait for its end and return its result."""
        line = await self.read_line()
        assert (await self.process.wait(), line[:1]) == (0, "[")
        return list(json.loads(line))


@contextlib.asynccontextmanager
async def workers(count: int, **order: Any) -> AsyncIterator[list[Worker]]:
    """Start some processes, and kill those that still run at the end."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pipe, started = asyncio.subprocess.PIPE, []
    try:
        for number in range(count):
            order_text = json.dumps({"doomed": False, "work": "ensure", "name": f"process-{number}", **order})
            command = (sys.executable, "-W", "error", str(WORKER), order_text)
            process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)
            started.append(Worker(process))
        for worker in started:
            assert await worker.read_line() == "ready"
        yield started
    finally:
        for worker in started:
            if worker.process.returncode is None:
                worker.process.kill()
            await worker.process.communicate()


@pytest.fixture
async def shared_emulator(tmp_path: Path) -> AsyncIterator[Emulator]:
    """An emulator whose folder is known."""
    async with Emulator(tmp_path / "emulator") as emulator:
        yield emulator


@pytest.fixture(params=["sqlite", "redis"])
def store_arguments(request: pytest.FixtureRequest, tmp_path: Path) -> StoreArguments:
    """The store that the processes share."""
    if request.param == "sqlite":
        return ["sqlite", str(tmp_path / "library.sqlite")]
    server: RedisServer = request.getfixturevalue("redis_server")
    return ["redis", server.url, next(_prefixes)]


def order_for(emulator: Emulator, store: StoreArguments, **more: Any) -> dict[str, Any]:
    """Return the order of a process: its account, its store and its work."""
    account = {"base_url": emulator.base_url, "token": emulator.access_token, "number": emulator.phone_number_id}
    return {**account, "store": store, "contents": CONTENTS, "calls": CALLS // PROCESSES, "claim_seconds": 30} | more


def upload_count(emulator: Emulator) -> int:
    """Count the requests to upload."""
    return sum(request.method == "POST" for request in emulator.requests)


def media_of(folder: Path) -> set[str]:
    """Return the ids of the media that an emulator has stored: the complete uploads."""
    return {path.name for path in (folder / "emulator" / "media").iterdir() if path.name.isdigit()}


def check_results(results: list[Any], ids: set[str]) -> None:
    """Check that each content has one id, and one call that uploaded it."""
    assert len(results) == CALLS
    assert Counter(number for number, _, _ in results) == dict.fromkeys(range(CONTENTS), CALLS // CONTENTS)
    assert len({(number, media_id) for number, media_id, _ in results}) == CONTENTS
    assert {media_id for _, media_id, _ in results} == ids
    assert len(ids) == CONTENTS
    assert sum(not reused for _, _, reused in results) == CONTENTS


async def test_four_processes(shared_emulator: Emulator, store_arguments: StoreArguments, tmp_path: Path) -> None:
    """200 concurrent calls for 10 contents in four processes make exactly 10 uploads."""
    async with workers(PROCESSES, **order_for(shared_emulator, store_arguments)) as started:
        for worker in started:
            await worker.start()
        results = [result for worker in started for result in await worker.result()]
    check_results(results, media_of(tmp_path))
    assert upload_count(shared_emulator) == CONTENTS


async def test_killed_while_it_holds_a_claim(
    shared_emulator: Emulator, store_arguments: StoreArguments, tmp_path: Path
) -> None:
    """If a process is killed while it uploads, the others wait until its claim runs out, and one of them uploads."""
    order = order_for(shared_emulator, store_arguments, claim_seconds=2)
    async with workers(1, **{**order, "doomed": True}) as (doomed,), workers(PROCESSES, **order) as started:
        await doomed.start()
        assert await doomed.read_line() == "held"
        for worker in started:
            await worker.start()
        async with asyncio.timeout(60):
            await wait_until(lambda: upload_count(shared_emulator) == CONTENTS)
            await wait_until(lambda: len(media_of(tmp_path)) == CONTENTS - 1)  # all but that of the doomed process
        doomed.process.kill()
        results = [result for worker in started for result in await worker.result()]
    check_results(results, media_of(tmp_path))
    assert upload_count(shared_emulator) == CONTENTS + 1  # one was not complete


async def test_eight_processes_on_one_file(tmp_path: Path) -> None:
    """Eight processes that use one file as fast as they can lose nothing, and SQLite never refuses them."""
    calls, store = 60, ["sqlite", str(tmp_path / "library.sqlite")]
    async with workers(8, work="hammer", store=store, calls=calls) as started:
        for worker in started:
            await worker.start()
        won = [await worker.result() for worker in started]
    assert len({name for names in won for name in names}) == sum(map(len, won)) == 8 * calls // 2 + calls // 2
