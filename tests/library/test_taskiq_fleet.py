"""Real workers, started by taskiq's command line, on a real Redis; some of them are killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs
import psutil
import pytest

from meta_media import RedisStore
from tests.library.fleet import RESULT_TIMEOUT, TASK_COUNT, Fleet, files, fleet, worker
from tests.support.redis_server import RedisServer
from tests.support.servers import wait_until

pytest_plugins = ["tests.support.redis_server"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "killpg"), reason="this system has no process groups to kill"),
]

FILES: Final = 500


async def stopped(group: int) -> None:
    """Stop all processes of a group, and wait until they are stopped."""
    os.killpg(group, signal.SIGSTOP)
    members = [psutil.Process(group), *psutil.Process(group).children(recursive=True)]
    await wait_until(lambda: all(member.status() == psutil.STATUS_STOPPED for member in members))


async def test_a_killed_worker_loses_nothing(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one of two workers is killed, every task is done. Only its own uploads are repeated, and they are flagged."""
    paths = files(tmp_path, FILES)
    async with fleet(tmp_path, redis_server, monkeypatch) as run, worker(run, tmp_path / "a") as doomed:
        tasks = {sha256: await run.tasks.ensure.kiq(str(path)) for sha256, path in paths.items()}
        await wait_until(lambda: bool(run.stored()))  # the doomed worker has tasks: a late one might find none
        async with worker(run, tmp_path / "b") as survivor:
            await wait_until(lambda: len(run.stored()) >= FILES / 10)
            lost, orphans = await _killed(run, doomed, tasks)
            entries = {sha256: await run.tasks.result(task, within=RESULT_TIMEOUT) for sha256, task in tasks.items()}
            survivor.send_signal(signal.SIGTERM)
            assert await survivor.wait() == 0
        uploads = run.uploads()

    flagged = {sha256 for sha256, entry in entries.items() if entry.maybe_duplicate}
    repeated = {sha256 for sha256, count in uploads.items() if count > 1}
    sys.stdout.write(
        f"\n{len(entries)} tasks done by two workers, one of which was killed: {uploads.total()} uploads of {len(uploads)} "
        f"contents; in progress at the kill {len(orphans)}, uploaded again {len(repeated)}, flagged {len(flagged)}\n"
    )
    assert {sha256: entry.sha256 for sha256, entry in entries.items()} == {sha256: sha256 for sha256 in paths}
    assert set(uploads) == set(paths)
    assert set(uploads.values()) <= {1, 2}
    assert lost <= repeated <= flagged <= orphans
    assert len(orphans) <= TASK_COUNT
    assert len({entry.id for entry in entries.values()} & {file.name for file in run.stored()}) == FILES


async def _killed(
    run: Fleet, doomed: asyncio.subprocess.Process, tasks: Mapping[str, Any]
) -> tuple[set[str], set[str]]:
    """Kill a worker with an upload whose entry is not stored; return such uploads, and those of all tasks in progress."""
    store = RedisStore(run.url, prefix=run.name)
    members = {child.pid for child in psutil.Process(doomed.pid).children(recursive=True)}
    left = dict(tasks)
    lost: set[str] = set()
    while not lost:
        assert left, "every task was done before a moment with such an upload was found"
        await stopped(doomed.pid)
        orphans = await _in_progress(left, members)
        kept = {entry.sha256 async for entry in store.entries()}
        uploads = run.uploads()  # the emulator has had time to finish its uploads
        lost = {sha256 for sha256 in orphans - kept if uploads[sha256]}
        if not lost:
            os.killpg(doomed.pid, signal.SIGCONT)
            await asyncio.sleep(0.02)  # time to get to another point
    os.killpg(doomed.pid, signal.SIGKILL)
    await doomed.wait()
    await store.aclose()
    return lost, orphans


async def _in_progress(tasks: dict[str, Any], workers: set[int]) -> set[str]:
    """Return the tasks that these processes have started and not finished. Finished tasks are removed from `tasks`."""
    found = set()
    for sha256, task in list(tasks.items()):
        progress = await task.get_progress()
        if progress and await task.is_ready():
            del tasks[sha256]
        elif progress and int(progress.meta["worker"].rpartition(":")[2]) in workers:
            found.add(sha256)
    return found


async def test_a_killed_worker_on_a_quiet_queue(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tasks of a killed worker are repeated even if no new task arrives, and a repeated upload is flagged."""
    (path,) = files(tmp_path, 1).values()
    # The emulator stores the upload, and does not respond before the worker is killed.
    async with fleet(tmp_path, redis_server, monkeypatch, idle=1_000, answer=3) as run:
        async with worker(run, tmp_path / "a") as doomed:
            task = await run.tasks.upload.kiq(path)
            await wait_until(lambda: bool(run.stored()))
            os.killpg(doomed.pid, signal.SIGKILL)
        async with worker(run, tmp_path / "b"):
            uploaded = await run.tasks.result(task, within=RESULT_TIMEOUT)
            own = await run.client["size"].kiq(uploaded.id)
            assert (await own.wait_result(timeout=RESULT_TIMEOUT)).return_value == path.stat().st_size
    assert uploaded.maybe_duplicate
    assert run.uploads().total() == 2


async def test_sigterm(tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """On SIGTERM, a worker finishes its tasks and leaves the rest to others. Nothing is done twice."""
    paths = files(tmp_path, 24)
    async with fleet(tmp_path, redis_server, monkeypatch, idle=2_000, answer=0.2) as run:
        tasks = [await run.tasks.upload.kiq(str(path)) for path in paths.values()]
        async with worker(run, tmp_path / "a") as first:
            await wait_until(lambda: bool(run.stored()))
            first.send_signal(signal.SIGTERM)
            assert await first.wait() == 0
        halfway = run.uploads()
        async with worker(run, tmp_path / "b"):
            uploaded = [await run.tasks.result(task, within=RESULT_TIMEOUT) for task in tasks]
    assert len(halfway) < len(paths)
    assert run.uploads() == Counter(list(paths))
    assert not any(media.maybe_duplicate for media in uploaded)


async def test_a_worker_without_a_token_does_not_start(
    tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker without a token exits with a sentence, and leaves the tasks alone."""
    async with fleet(tmp_path, redis_server, monkeypatch) as run:
        poor = attrs.evolve(run, environment={**run.environment, "CLOUD_API_ACCESS_TOKEN": ""})
        task = await run.tasks.delete.kiq("1")
        async with worker(poor, tmp_path / "log", "--max-fails", "1") as process:
            assert await process.wait() != 0
        assert not await task.is_ready()
    log = (tmp_path / "log").read_text()
    assert "there is no access token: pass access_token or set CLOUD_API_ACCESS_TOKEN" in log
