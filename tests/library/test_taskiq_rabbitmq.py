"""A fleet on a real RabbitMQ, with its results and its store in a Redis that is killed, as workers are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.library.fleet import RESULT_TIMEOUT, Fleet, files, fleet, worker
from tests.support.rabbitmq_server import running_rabbitmq
from tests.support.redis_server import RedisServer, running_redis
from tests.support.servers import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="this system has no process groups to kill"),
]

FILES = int(os.environ.get("FLEET_FILES", "80"))
OUTAGE = 2.0  # seconds


@attrs.define
class LastingRedis:
    """A server that keeps its data when it is killed."""

    _folder: Path
    _stack: contextlib.ExitStack
    server: RedisServer

    def outage(self, seconds: float) -> None:
        """Kill the server, and start it again on the same port."""
        self.server.kill()
        time.sleep(seconds)  # its clients meet a closed port
        self.server = self._stack.enter_context(running_redis(port=self.server.port, folder=self._folder))


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[LastingRedis]:
    """A server that keeps its data when it is killed."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        yield LastingRedis(folder, stack, stack.enter_context(running_redis(folder=folder)))


@pytest.fixture
def rabbitmq() -> Iterator[str]:
    """The URL of a server."""
    with running_rabbitmq() as url:
        yield url


async def test_nothing_is_lost_while_redis_is_away(
    tmp_path: Path, rabbitmq: str, redis: LastingRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are killed, and Redis is away for two seconds: every task has its result, and each second upload is flagged."""
    paths = files(tmp_path, FILES)
    async with fleet(tmp_path, redis.server, monkeypatch, rabbitmq=rabbitmq) as run:
        tasks = {sha256: await run.tasks.ensure.kiq(str(path)) for sha256, path in paths.items()}
        waiting = [asyncio.create_task(run.tasks.result(task, within=RESULT_TIMEOUT)) for task in tasks.values()]
        await _two_workers(run, "first", until=FILES // 4)
        await _two_workers(run, "second", until=FILES // 2)
        async with worker(run, tmp_path / "a") as one, worker(run, tmp_path / "b") as other:
            await wait_until(lambda: len(run.stored()) >= FILES // 2 + 4)
            await asyncio.to_thread(redis.outage, OUTAGE)
            entries = dict(zip(tasks, await asyncio.gather(*waiting), strict=True))
            for process in (one, other):
                process.send_signal(signal.SIGTERM)
            assert [await one.wait(), await other.wait()] == [0, 0]
        uploads = run.uploads()

    flagged = {sha256 for sha256, entry in entries.items() if entry.maybe_duplicate}
    repeated = {sha256 for sha256, count in uploads.items() if count > 1}
    sys.stdout.write(
        f"\n{len(entries)} tasks: {uploads.total()} uploads, {len(repeated)} repeated, {len(flagged)} flagged\n"
    )
    assert {sha256: entry.sha256 for sha256, entry in entries.items()} == {sha256: sha256 for sha256 in paths}
    assert set(uploads) == set(paths)
    assert repeated <= flagged


async def _two_workers(run: Fleet, name: str, *, until: int) -> None:
    """Run two workers until this many uploads are stored, and kill them."""
    folder = run.folder.parent
    async with worker(run, folder / f"{name}-a"), worker(run, folder / f"{name}-b"):
        await wait_until(lambda: len(run.stored()) >= until)
