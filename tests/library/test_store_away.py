"""Stores that are away: a call waits as `max_retries` allows, a run ends early, and the next one finishes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from meta_media import BulkReport, LibraryEntry, MediaApi, MediaLibrary, Outcome, RedisStore, SQLiteStore
from meta_media.emulator import Emulator, Fault
from meta_media.errors import ConfigurationError, MediaError, StorageError
from tests.library.helpers import CONTENT, SMALL, HookedStore, list_entries, upload_count
from tests.support.redis_server import running_redis
from tests.support.system import executable

AWAY = 2.0  # seconds


class Flaky:
    """A hook of a store that is away for its next calls."""

    def __init__(self, count: int, *, retryable: bool = True) -> None:
        self.left = count
        self._retryable = retryable

    async def __call__(self) -> None:
        """Fail, while it is away."""
        self.left -= 1
        if self.left >= 0:
            raise StorageError("the store is away", retryable=self._retryable)


def quick(emulator: Emulator, max_retries: int = 2) -> MediaApi:
    """Make a client that retries without waits."""
    return emulator.api().with_options(max_retries=max_retries, backoff=0)


@pytest.mark.parametrize("method", ["get", "claim", "put", "touch"])
async def test_asked_again(emulator: Emulator, store: HookedStore, method: str) -> None:
    """A store that is away is asked again, `max_retries` times. Nothing is uploaded twice, and the claim ends."""
    async with quick(emulator) as media:
        library = MediaLibrary(media, store)
        store.before[method] = flaky = Flaky(2)
        entry = await library.ensure(SMALL)
        if method == "touch":
            (stored,) = await list_entries(library)
            object.__setattr__(stored, "used_at", stored.uploaded_at.replace(year=2020))
            await library.ensure(SMALL)
        assert flaky.left < 0
        flaky.left = 3
        if method == "put":
            with pytest.raises(StorageError, match="the store is away") as caught:
                await library.ensure(CONTENT)
            assert (caught.value.maybe_applied, caught.value.media_id is None) == (True, False)
            assert flaky.left == 0
        assert (entry.reused, upload_count(emulator)) == (False, 2 if method == "put" else 1)
        assert library._locks == {}


async def test_not_asked_again(emulator: Emulator, store: HookedStore) -> None:
    """A store that a retry cannot help, or a client without retries, fails at once."""
    for retryable, max_retries in ((False, 2), (True, 0)):
        async with quick(emulator, max_retries) as media:
            store.before["get"] = flaky = Flaky(5, retryable=retryable)
            with pytest.raises(StorageError, match="the store is away"):
                await MediaLibrary(media, store).ensure(SMALL)
            assert flaky.left == 4
    assert upload_count(emulator) == 0


async def test_an_upload_that_lost_its_claim_keeps_its_id(emulator: Emulator, store: HookedStore) -> None:
    """If the store fails when it is asked for the entry of the successor, the error has the id of the upload."""

    async def overtaken() -> None:
        store._claims.clear()
        store.before["get"] = Flaky(9, retryable=False)

    store.before["put"] = overtaken
    async with quick(emulator) as media:
        with pytest.raises(StorageError, match="the store is away") as caught:
            await MediaLibrary(media, store).ensure(SMALL)
        assert caught.value.maybe_applied
        assert await media.read(caught.value.media_id or "") == SMALL


def contents(count: int) -> list[bytes]:
    """Return different contents."""
    return [f"Content {number}.\n".encode() for number in range(count)]


async def test_a_broken_store_ends_a_run(emulator: Emulator, media: MediaApi, store: HookedStore) -> None:
    """The first failure of a store that a retry cannot help ends a run: every other item would meet it."""
    library, puts = MediaLibrary(media, store), Flaky(99, retryable=False)

    async def third() -> None:
        if store.calls.count("put") >= 3:
            await puts()

    store.before["put"] = third
    report = await library.ensure_many(contents(20), concurrency=1).report()
    assert (report.succeeded, report.failed, report.not_tried) == (2, 1, 17)
    assert isinstance(report.ended_by, StorageError)
    assert upload_count(emulator) == 3
    failure = report.failures[0].error
    assert isinstance(failure, StorageError)
    assert failure.media_id is not None
    store.before.clear()
    emulator.fail("upload", Fault.error(131053))
    report = await library.ensure_many(contents(20), concurrency=1).report()
    assert (report.failed, report.not_tried) == (1, 0), "an item's own failure ends nothing"


async def test_a_closed_store_ends_a_run(media: MediaApi, tmp_path: Path) -> None:
    """A store that is closed during a run ends it."""
    store = SQLiteStore(tmp_path / "library.sqlite")

    async def sources() -> AsyncIterator[bytes]:
        for number, content in enumerate(contents(10)):
            if number == 2:
                await store.aclose()
            yield content

    async with MediaLibrary(media, store).ensure_many(sources(), concurrency=1) as run:
        outcomes = [outcome async for outcome in run]
        assert isinstance((await run.report()).ended_by, ConfigurationError)
    assert sum(outcome.tried for outcome in outcomes) <= 4


async def test_a_store_that_is_away_ends_a_run(emulator: Emulator, store: HookedStore) -> None:
    """Failures of a store that is away end a run, as those of the network do: ten in a row, or two for each worker."""
    async with quick(emulator) as media:
        library = MediaLibrary(media, store)
        store.before["claim"] = Flaky(10_000)
        report = await library.ensure_many(contents(100), concurrency=2).report()
        assert 10 <= report.failed <= 12
        assert report.not_tried == 100 - report.failed
        assert isinstance(report.ended_by, StorageError)
        assert upload_count(emulator) == 0
        store.before.clear()
        assert (await library.ensure_many(contents(100)).report()).succeeded == 100


async def test_a_run_that_ends_does_not_wait_for_the_store(emulator: Emulator, store: HookedStore) -> None:
    """When a run ends, its waits for the store end."""
    waiting = asyncio.Event()

    async def away() -> None:
        waiting.set()
        raise StorageError("the store is away", retryable=True)

    async def sources() -> AsyncIterator[bytes]:
        yield SMALL
        await waiting.wait()
        yield b""  # which ends the run

    store.before["claim"] = away
    async with emulator.api().with_options(max_retries=99, backoff=1e6) as media:
        media.shared.limits.jitter = lambda: 1.0
        run = MediaLibrary(media, store).ensure_many(sources(), concurrency=2, stop_on_error=True)
        async with asyncio.timeout(60):
            report = await run.report()
    assert (report.succeeded, report.failed) == (0, 2)


# Redis


async def run_over_a_restart(emulator: Emulator, folder: Path, count: int, **options: Any) -> list[BulkReport]:
    """Ensure many contents, kill Redis in the middle for two seconds, and ensure them again. Return both reports."""
    reports: list[BulkReport] = []
    sources = contents(count)
    with running_redis(folder=folder) as server:
        async with emulator.api().with_options(**options) as media, RedisStore(server.url) as store:
            library = MediaLibrary(media, store, claim_seconds=AWAY + 1)  # no release reaches a Redis that is away
            outcomes: list[Outcome[LibraryEntry]] = []

            async def ensured() -> BulkReport:
                async with library.ensure_many(sources) as run:
                    async for outcome in run:
                        outcomes.append(outcome)
                        if len(outcomes) == count // 3:
                            server.kill()
                    return await run.report()

            first = asyncio.create_task(ensured())
            while server.process.poll() is None:  # noqa: ASYNC110 - it ends with the kill
                await asyncio.sleep(0.01)  # until the run has come that far
            await asyncio.sleep(AWAY)  # as long as Redis is away
            with running_redis(port=server.port, folder=folder):
                reports.append(await first)
                reports.append(await library.ensure_many(sources).report())
                entries = await list_entries(library)
                assert len(entries) == len({entry.key for entry in entries}) == count
    return reports


@pytest.mark.slow
async def test_redis_restarts_in_a_run(emulator: Emulator, tmp_path: Path) -> None:
    """A restart of Redis ends a run, with the rest not tried. The next run finishes it; what was stored is reused."""
    executable("redis-server")
    first, second = await run_over_a_restart(emulator, tmp_path, 300, max_retries=0)
    assert isinstance(first.ended_by, StorageError)
    assert first.ended_by.retryable
    assert first.succeeded + first.failed + first.not_tried == 300
    assert first.failed <= 3 * 16
    assert first.not_tried > 0
    assert (second.succeeded, second.failed) == (300, 0)
    assert all(isinstance(failure.error, MediaError) for failure in first.failures)
    flagged = sum(isinstance(failure.error, MediaError) and failure.error.maybe_applied for failure in first.failures)
    assert upload_count(emulator) <= 300 + flagged


@pytest.mark.slow
async def test_a_run_that_waits_for_redis(emulator: Emulator, tmp_path: Path) -> None:
    """With enough retries, the same run goes on after a restart of Redis, and uploads nothing twice."""
    first, second = await run_over_a_restart(emulator, tmp_path, 300, max_retries=20)
    assert (first.succeeded, first.failed, first.not_tried) == (300, 0, 0)
    assert second.succeeded == 300
    assert upload_count(emulator) == 300
