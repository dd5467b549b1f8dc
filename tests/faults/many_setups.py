"""What goes wrong with runs over many items without a server's doing: other runs, tokens, names, callbacks, cancellations."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

from meta_media import MediaApi, Outcome, Settings
from tests.faults.caller_setups import SETUPS, Operation, calling, kill_when, named
from tests.faults.many import ManyGraph, Ran, ended, media_id, sources
from tests.faults.scenes import ELSEWHERE, OPERATIONS, TOKEN, Scene
from tests.faults.server import Fault, Seen

__all__ = ["SETUPS"]

_REFUSED: Final = Fault(status=401, error={"code": 190})


@calling("another run at the same time")
async def _two_runs(scene: Scene, operation: Operation) -> Any:
    (folder := scene.folder.parent / "others").mkdir()
    ids = [f"8{number:02d}" for number in range(12)]
    async with asyncio.TaskGroup() as group:
        deletes = group.create_task(scene.api.delete_many(ids).report())
        downloads = group.create_task(scene.api.download_many(ids, folder).report())
        ran = await operation()
    for task in (deletes, downloads):
        assert (task.result().ok, task.result().succeeded) == (True, 12)
    return ran


@named("an item that is not answered before all others are done")
async def _held(scene: Scene) -> AsyncIterator[None]:
    graph, others = scene.server.graph, asyncio.Event()
    assert isinstance(graph, ManyGraph)
    done: list[int] = []

    async def hear(outcome: Outcome[Any]) -> None:
        assert (outcome.index == scene.cell.struck) is others.is_set()
        done.append(outcome.index)
        if len(done) == scene.cell.items - 1:
            others.set()

    scene.server.holds = lambda request: others if graph.index_of(request) == scene.cell.struck else None
    scene.heard.append(hear)
    try:
        yield
    finally:
        others.set()


@named("a token that has expired")
def _expired(scene: Scene) -> None:
    given: list[str] = []

    async def ask() -> str:
        given.append(f"{TOKEN}{len(given)}")
        await asyncio.sleep(0)  # so that whoever else wants one comes meanwhile
        return given[-1]

    def judge(request: Seen) -> Fault | None:
        return _REFUSED if request.headers.get("authorization") == f"Bearer {TOKEN}0" else None

    async def call(_: Scene) -> Any:
        scene.server.judge = judge
        return await OPERATIONS[scene.cell.operation](scene)

    scene.token, scene.call = ask, call
    scene.checks.append(lambda: len(given) <= 3)  # a renewal that was cancelled is asked for again
    scene.proofs.append(lambda: len(given) == 2)


@named("a pause that all keep")
def _pause(scene: Scene) -> None:
    def kept() -> bool:
        requests = scene.server.requests
        pauses = [after.came_at - before.came_at for before, after in itertools.pairwise(requests)]
        return max(pauses) > 0.5  # of one second: those on their way may still arrive in it

    scene.proofs.append(kept)


# Files


@named(*(f"files of one name, which {has}" for has in ("is taken", "a symlink has", "a FIFO has")))
async def _one_name(scene: Scene, name: str) -> AsyncIterator[None]:
    scene.server.graph.headers["content-disposition"] = f'attachment; filename="{scene.target.name}"'
    there = {"taken": "nothing else", "symlink has": "a symlink at the target", "FIFO has": "a FIFO at the target"}
    (setup,) = (there[end] for end in there if name.endswith(end))
    async with SETUPS[setup](scene):
        yield


# The caller's own


@named("a callback that raises as bytes move", "a callback that raises at an outcome")
def _raising(scene: Scene, name: str) -> None:
    raised: list[object] = []

    def progress(report: Any) -> None:
        told = report.bytes if name.endswith("move") else report.succeeded > 1
        if told and not raised:
            raised.append(report)
            raise ZeroDivisionError("mine")

    scene.run_progress = progress
    scene.proofs.append(lambda: bool(raised))


# Cancelled, closed and killed


@named("a client that is closed after the first outcome")
def _closed(scene: Scene) -> None:
    scene.heard.append(lambda _: scene.api.aclose())
    scene.open_after = False


_CHILD: Final = """
import asyncio, sys
from meta_media import BulkRun, MediaApi, Settings

verb, base_url, folder, journal, *items = sys.argv[1:]

async def main():
    settings = Settings(base_url=base_url, chunk_size=4096, max_retries=0, concurrency=3)
    async with MediaApi("EAAGcanaryTOKENcanary", "1", settings=settings) as api:
        more = (folder,) if verb == "download" else ()
        await getattr(api, f"{verb}_many")(items, *more, journal=journal).report()

asyncio.run(main())
"""


@calling("a run that is killed in the middle, and run again")
async def _killed(scene: Scene, _: Operation) -> Any:
    cell, journal, folder = scene.cell, str(scene.folder.parent / "run.sqlite"), scene.folder.parent
    uploads = cell.verb == "upload"
    items = [str(folder / f"source-{index:02d}.txt") if uploads else media_id(index) for index in range(cell.items)]
    settings = Settings(base_url=scene.server.base_url, chunk_size=4096, concurrency=3)
    struck = asyncio.Event()
    scene.server.struck.append(struck.set)
    asked = (2 if cell.verb == "download" else 1) * cell.items
    command = [sys.executable, "-c", _CHILD, cell.verb, scene.server.base_url, str(scene.folder), journal, *items]
    await kill_when(command, lambda: struck.is_set() and len(scene.server.requests) == asked)
    async with MediaApi(TOKEN, "1", settings=settings) as api:
        more = (scene.folder,) if cell.verb == "download" else ()
        run = getattr(api, f"{cell.verb}_many")(items, *more, journal=journal)
        _check_resumed(scene, await ended(scene, run))
    return ELSEWHERE


@calling("a journal of which a result is damaged, and run again")
async def _damaged(scene: Scene, _: Operation) -> Any:
    cell, journal = scene.cell, scene.folder.parent / "run.sqlite"
    more = (scene.folder,) if cell.verb == "download" else ()
    async with MediaApi(TOKEN, "1", settings=Settings(base_url=scene.server.base_url, concurrency=3)) as api:
        verb = getattr(api, f"{cell.verb}_many")
        await verb(sources(scene), *more, journal=journal).report()
        with contextlib.closing(sqlite3.connect(journal)) as connection, connection:
            first = "(SELECT min(key) FROM items WHERE value IS NOT NULL)"
            damaged = """replace(value, 'id": "70', 'id": "71') || ' '"""  # a deletion's result has no id
            connection.execute(f"UPDATE items SET value = {damaged} WHERE key = {first}")
        ran = await ended(scene, verb(sources(scene), *more, journal=journal))
    assert (ran.report.ok, ran.report.skipped, ran.report.succeeded) == (True, cell.items - 1, 1)
    for outcome in ran.outcomes:
        assert outcome.value is not None
        told = {"upload": "id", "download": "media_id"}.get(cell.verb)
        assert told is None or getattr(outcome.value, told) == media_id(outcome.index)
        assert outcome.skipped or cell.verb != "upload" or outcome.value.maybe_duplicate
    return ELSEWHERE


def _check_resumed(scene: Scene, ran: Ran) -> None:
    """Check that all is done, and that what was done by the run that was killed was skipped, or said to be doubtful."""
    graph = scene.server.graph
    assert isinstance(graph, ManyGraph)
    assert ran.report.ok
    assert ran.report.skipped + ran.report.succeeded == scene.cell.items
    assert ran.report.skipped >= 1
    for outcome in ran.outcomes:
        assert outcome.value is not None
        if scene.cell.verb == "upload":
            stored = graph.stored.count(graph.wanted[outcome.index])
            assert stored == 1 or (stored == 2 and outcome.value.maybe_duplicate)
            assert outcome.value.maybe_duplicate or outcome.index != scene.cell.struck
        elif scene.cell.verb == "delete":
            assert outcome.value.success
            assert media_id(outcome.index) in graph.deleted
        else:
            assert outcome.value.path is not None
            assert outcome.value.path.read_bytes() == graph.served(media_id(outcome.index))
    for leftover in scene.folder.glob("*.part"):
        leftover.unlink()
