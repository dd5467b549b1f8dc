"""Cancelled at any await, a run over many items ends all its work first, and the next run does what is left to be done."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from meta_media import BulkRun, MediaApi, MediaLibrary, MemoryStore, Outcome, Settings, SQLiteStore
from meta_media.library import Store
from tests.support.servers import info, json_response, page
from tests.support.stepping import LeanServer, Stepper, descriptors, none_added, settled_at
from tests.transfer.disks import left_over

CHUNK = 16_384
CONTENTS = {"11": b"small", "12": b"All work and no play. " * 3_000, "13": b"a file of its own " * 9_000}
WAYS = [(late, times) for late in (False, True) for times in (1, 2, 3)]  # before what is awaited has come, and after
DENSE = 6  # awaits up to which each is swept in every way; beyond, the ways take turns


@attrs.frozen
class Stage:
    """What a run works with: made anew for each, but for what lasts."""

    api: MediaApi
    folder: Path
    store: Store
    library: MediaLibrary


Begin = Callable[[Stage], BulkRun[Any]]


async def _pieces() -> AsyncIterator[bytes]:
    yield CONTENTS["11"]


async def _sources(stage: Stage) -> AsyncIterator[Any]:
    """Give one source of each sort: a stream, bytes in memory, a file; each for a number of its own."""
    yield _pieces(), {"phone_number_id": "11", "filename": "a.txt"}
    yield CONTENTS["12"], {"phone_number_id": "12", "filename": "b.txt"}
    yield stage.folder / "source.txt", {"phone_number_id": "13"}


def _ids() -> Iterator[str]:
    yield from CONTENTS


RUNS: dict[str, Begin] = {
    "upload_many": lambda stage: stage.api.upload_many(_sources(stage)),
    "upload_many with a journal": lambda stage: stage.api.upload_many(
        _sources(stage), journal=stage.folder / "run.sqlite", in_order=True
    ),
    "download_many": lambda stage: stage.api.download_many(_ids(), stage.folder / "copies"),
    "download_many with a journal": lambda stage: stage.api.download_many(
        list(CONTENTS), stage.folder / "copies", journal=stage.folder / "run.sqlite"
    ),
    "delete_many": lambda stage: stage.api.delete_many(list(CONTENTS), missing_ok=True),
    "delete_many with a journal": lambda stage: stage.api.delete_many(_ids(), journal=stage.folder / "run.sqlite"),
    "ensure_many, MemoryStore": lambda stage: stage.library.ensure_many(_sources(stage)),
    "ensure_many, SQLiteStore": lambda stage: stage.library.ensure_many(_sources(stage)),
}


class Graph:
    """What the server has done: uploads are told apart by their number, all else by the media id."""

    def __init__(self, server: LeanServer) -> None:
        self.done: Counter[str] = Counter()  # how often each was uploaded or deleted
        self._server = server
        server.answer = self._answer

    def _answer(self, method: str, target: str) -> bytes:
        key = target.partition("?")[0].removesuffix("/media").rpartition("/")[2]
        if method == "GET" and target.startswith("/media/"):
            return page(CONTENTS[key], content_type="text/plain")
        if method == "GET":
            content = CONTENTS.get(key, b"another")
            sha256 = hashlib.sha256(content).hexdigest()
            url = f"{self._server.base_url}/media/{key}"
            return info(url, content, media_id=key, sha256=sha256, mime_type="text/plain")
        gone = method == "DELETE" and key in self.done
        self.done[key] += 1
        if gone:
            return json_response({"error": {"message": "gone", "code": 100, "error_subcode": 33, "type": "x"}}, 400)
        return json_response({"id": f"7{key}", "success": True})


async def outcomes_of(run: BulkRun[Any]) -> list[Outcome[Any]]:
    """Take all outcomes of a run, in the order of its input."""
    async with run:
        return sorted([outcome async for outcome in run], key=lambda outcome: outcome.index)


class Sweep:
    """Cancels runs of one kind, and looks around after each."""

    def __init__(self, name: str, server: LeanServer, folder: Path) -> None:
        self.awaits = 0
        self.kept = 0  # what a second run had not to do again
        self._name = name
        self._begin = RUNS[name]
        self._server = server
        self._folder = folder
        self._settings = Settings(base_url=server.base_url, chunk_size=CHUNK, concurrency=2)

    @asynccontextmanager
    async def stage(self, store: Store) -> AsyncIterator[Stage]:
        """Open a client, and a library on a store that was there before."""
        async with MediaApi("token", "1", settings=self._settings) as api, MediaLibrary(api, store) as library:
            yield Stage(api, self._folder, store, library)

    async def cancelled_at(self, stepper: Stepper) -> bool:
        """Cancel a run, look around, and run again; False when the first was done before."""
        graph = Graph(self._server)
        store = SQLiteStore(self._folder / "library.sqlite") if "SQLite" in self._name else MemoryStore()
        try:
            async with self.stage(store) as stage:
                task = await stepper.run(lambda: outcomes_of(self._begin(stage)))
                assert stepper.alive == [], "work went on after the run had ended"
                assert task.cancelled() is stepper.reached, f"at await {stepper.count}: {task}"
                await settled_at([], lambda: left_over(self._folder))  # a thread of a slow disk may be left behind
                self._check_files()
                async with asyncio.timeout(20):
                    assert (await stage.api.get_info("8")).id == "8"
            if stepper.reached:
                await settled_at(set(), lambda: self._server.open)
                await self._again(graph, store)
            else:
                self._check_done(graph, task.result(), Counter())
        finally:
            await store.aclose()
            self._clear()
        return stepper.reached

    async def _again(self, graph: Graph, store: Store) -> None:
        before = graph.done.copy()
        async with self.stage(store) as stage, asyncio.timeout(20):
            outcomes = await outcomes_of(self._begin(stage))
        self._check_done(graph, outcomes, before)

    def _check_files(self) -> None:
        """Nothing is there but what was, what is whole, and what lasts."""
        allowed = {"source.txt", "copies", "run.sqlite", "library.sqlite", "library.sqlite-wal", "library.sqlite-shm"}
        assert {entry.name for entry in self._folder.iterdir()} <= allowed
        for copy in (self._folder / "copies").iterdir():
            assert copy.read_bytes() == CONTENTS[copy.stem.partition(" ")[0]]

    def _check_done(self, graph: Graph, outcomes: list[Outcome[Any]], before: Counter[str]) -> None:
        """Everything is done, what had been acknowledged only once, and what may have been done twice is flagged."""
        assert [outcome.error for outcome in outcomes] == [None] * len(CONTENTS)
        self._check_files()
        for key, outcome in zip(CONTENTS, outcomes, strict=True):
            if self._name.startswith("download"):
                assert self._path(outcome).read_bytes() == CONTENTS[key]
            else:
                self._check_changed(key, outcome, before[key], graph.done[key])
        if self._name.startswith("download"):
            assert len({self._path(outcome) for outcome in outcomes}) == len(CONTENTS)

    def _check_changed(self, key: str, outcome: Outcome[Any], before: int, done: int) -> None:
        """An item that an earlier run had done is not done again; one that it may have done is marked as a duplicate."""
        value: Any = outcome.value
        kept = outcome.skipped or getattr(value, "reused", False)
        self.kept += kept
        assert done == before + (not kept), outcome
        assert before == 1 if kept else before < 2, outcome
        assert not outcome.skipped or ("journal" in self._name and outcome.attempts == 0)
        if "upload" in self._name or "ensure" in self._name:
            assert value.id == f"7{key}"
        if self._name == "upload_many with a journal":
            assert kept or value.maybe_duplicate >= (before > 0), outcome
        if self._name == "delete_many with a journal":
            assert value.success

    @staticmethod
    def _path(outcome: Outcome[Any]) -> Path:
        assert outcome.value is not None
        return Path(outcome.value.path)

    def _clear(self) -> None:
        for entry in (*self._folder.glob("*.sqlite*"), *(self._folder / "copies").iterdir()):
            entry.unlink()

    async def sweep(self) -> None:
        """Cancel at each await in turn, in one of the ways; at the first ones in each."""
        for number, (late, times) in enumerate(WAYS):
            at, going = 1, True
            while going:
                going = await self.cancelled_at(Stepper(at, times=times, late=late))
                self.awaits = max(self.awaits, at)
                at += 1 + (number if at == DENSE else 0) if at <= DENSE else len(WAYS)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
async def test_run_cancelled_at_every_await(name: str, tls: ssl.SSLContext, tmp_path: Path) -> None:
    """Cancelled at any await, a run leaves no work, file or descriptor, and the next one completes what is left."""
    (tmp_path / "copies").mkdir()
    (tmp_path / "source.txt").write_bytes(CONTENTS["13"])
    os.utime(tmp_path / "source.txt", (1_700_000_000, 1_700_000_000))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(LeanServer(lambda *_: b"", tls if "delete" in name else None))
        sweep = Sweep(name, server, tmp_path)
        assert not await sweep.cancelled_at(Stepper())
        await settled_at(set(), lambda: server.open)
        before = descriptors()
        await sweep.sweep()
        await settled_at(set(), lambda: server.open)
        await none_added(before, descriptors)
    assert sweep.awaits >= 30
    assert bool(sweep.kept) is (name in {*list(RUNS)[-2:], "upload_many with a journal", "delete_many with a journal"})
    sys.stdout.write(f"{name}: cancelled at each of {sweep.awaits} awaits\n")


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_endless_run_cancelled(times: int) -> None:
    """Cancelled at any await, a run over an endless input ends: what is left of the input is not worked on."""
    async with LeanServer(lambda *_: json_response({"success": True})) as server:
        settings = Settings(base_url=server.base_url, concurrency=2)
        async with MediaApi("token", "1", settings=settings) as api:
            for at in range(times, 90, 3):
                stepper = Stepper(at, times=times)
                async with asyncio.timeout(20):
                    task = await stepper.run(lambda: outcomes_of(api.delete_many(map(str, itertools.count(1)))))
                assert task.cancelled()
                assert stepper.alive == [], "work went on after the run had ended"
