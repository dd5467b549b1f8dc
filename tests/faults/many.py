"""Runs over many items on stage: items that can be told apart, and what must be true of each of them, whatever one meets."""

from __future__ import annotations

import functools
from collections import Counter, deque
from typing import Any, Final

import attrs

from meta_media import BulkReport, BulkRun, Outcome
from tests.faults.cells import Cell
from tests.faults.scenes import CONTENT, OLD, OPERATIONS, Scene, lines, pieces
from tests.faults.server import Fault, Graph, Seen

_FRAME: Final = 1_000  # bytes that a form is longer than the file in it, at most; sizes differ by more
_SMALL: Final = 20_000  # bytes of the first item; each has a thousand more than the one before


@attrs.frozen(kw_only=True)
class Ran:
    """What came of a run."""

    outcomes: list[Outcome[Any]]  # as they came
    report: BulkReport  # at the end


def media_id(index: int) -> str:
    """Return the media id of an item."""
    return f"7{index:02d}"


def _size(cell: Cell, index: int) -> int:
    return cell.size if index == cell.struck else _SMALL + index * _FRAME


@functools.cache
def _content(media: str) -> bytes:
    return CONTENT if len(media) != 3 else f"media {media}\n".encode() + CONTENT


class ManyGraph(Graph):
    """A Graph whose media all differ, and which knows an upload by its bytes."""

    def __init__(self, cell: Cell) -> None:
        super().__init__(CONTENT)
        self.wanted = [lines(_size(cell, index)) for index in range(cell.items)]

    def content_of(self, media_id: str) -> bytes:
        """See `Graph`."""
        stored = [content for content in self.stored if self.id_of(content) == media_id]
        return stored[-1] if stored else self.served(media_id)

    def served(self, media_id: str) -> bytes:
        """See `Graph`."""
        return _content(media_id)

    def id_of(self, stored: bytes) -> str:
        """See `Graph`."""
        return media_id(self.wanted.index(stored)) if stored in self.wanted else "9"

    def index_of(self, request: Seen) -> int | None:
        """Tell which item a request is about, if any."""
        if request.method == "POST" and request.media_id == "media":
            (index,) = (number for number, sent in enumerate(self.wanted) if 0 < request.length - len(sent) < _FRAME)
            return index
        known = [media_id(index) for index in range(len(self.wanted))]
        return known.index(request.media_id) if request.media_id in known else None


def prepare(scene: Scene) -> None:
    """Write the sources."""
    cell, graph = scene.cell, scene.server.graph
    assert isinstance(graph, ManyGraph)
    for index, content in enumerate(graph.wanted if cell.verb == "upload" else ()):
        (scene.folder.parent / f"source-{index:02d}.txt").write_bytes(content)
    if cell.verb == "upload" and isinstance(cell.struck, int):
        scene.source = scene.folder.parent / f"source-{cell.struck:02d}.txt"


def aim(scene: Scene) -> None:
    """Let the faults strike whom they are to strike."""
    cell, server = scene.cell, scene.server
    graph = server.graph
    assert isinstance(graph, ManyGraph)
    if cell.struck == "always":
        (server.lasting,) = cell.faults or (None,)
    elif cell.struck == "first":
        server.arm(cell.faults)
    elif cell.faults:
        struck = range(cell.items) if cell.struck == "each" else (cell.struck,)
        aimed = {index: deque(cell.faults) for index in struck}
        server.judge = functools.partial(_judged, cell, graph, aimed)
        scene.proofs.append(lambda: not any(aimed.values()))


def _judged(cell: Cell, graph: ManyGraph, aimed: dict[int, deque[Fault]], request: Seen) -> Fault | None:
    index = graph.index_of(request)
    info = cell.verb == "download" and not request.target.startswith("/media/")
    if index is None or not aimed.get(index) or info is not (cell.verb == "download" and cell.at == "info"):
        return None
    return aimed[index].popleft()


# What is run


def sources(scene: Scene) -> list[Any]:
    """List the sources of a run, or its media; the one that meets the faults may be another, or have a callback."""
    cell = scene.cell
    if cell.verb != "upload":
        ids: list[Any] = [media_id(index) for index in range(cell.items)]
        if cell.operation.endswith("known"):
            return [scene.known(media) for media in ids]
        if scene.progress is not None and isinstance(cell.struck, int):
            ids[cell.struck] = (ids[cell.struck], {"progress": scene.progress})
        return ids
    paths: list[Any] = [scene.folder.parent / f"source-{index:02d}.txt" for index in range(cell.items)]
    if isinstance(cell.struck, int):
        paths[cell.struck] = (scene.source, {"progress": scene.progress})
    if cell.operation.endswith(("once", "spooled")):
        declared = cell.operation.endswith("once")
        contents = [lines(_size(cell, index)) for index in range(cell.items)]
        named: dict[str, Any] = {"filename": "a.txt"}
        return [(pieces(it), named | ({"size": len(it)} if declared else {})) for it in contents]
    return paths


async def ended(scene: Scene, run: BulkRun[Any]) -> Ran:
    """Take all outcomes of a run."""
    outcomes = []
    async with run:
        async for outcome in run:
            outcomes.append(outcome)
            for hear in scene.heard:
                await hear(outcome)
    return Ran(outcomes=outcomes, report=run.so_far)


async def _run(scene: Scene) -> Ran:
    cell, items = scene.cell, sources(scene)
    options: dict[str, Any] = {"progress": scene.run_progress, **cell.options}
    if cell.verb == "upload":
        return await ended(scene, scene.api.upload_many(items, verify="verified" in cell.operation, **options))
    if cell.verb == "download":
        return await ended(scene, scene.api.download_many(items, scene.target.parent, **options))
    return await ended(scene, scene.api.delete_many(items, **options))


_UPLOADS: Final = ("upload_many", "upload_many once", "upload_many spooled", "upload_many verified")
OPERATIONS.update(dict.fromkeys((*_UPLOADS, "download_many", "download_many known", "delete_many"), _run))


# What must be true


def check_many_files(scene: Scene, ran: Ran | None) -> None:
    """Check that nothing is half done, and that all downloads are reported. A cancelled run has no `Ran`."""
    graph = scene.server.graph
    assert isinstance(graph, ManyGraph)
    assert scene.server.errors == []
    assert all(stored in graph.wanted for stored in graph.stored)
    old = scene.folder / "photo.jpg"
    assert not old.is_file() or old.read_bytes() == OLD
    paths = [entry for entry in scene.folder.iterdir() if entry != old]
    whole = {_content(media_id(index)): index for index in range(scene.cell.items)}
    found = {path: whole[path.read_bytes()] for path in paths}  # a KeyError is half a file
    if ran is not None and scene.cell.verb == "download":
        done = [outcome for outcome in ran.outcomes if outcome.value is not None]
        saved = {outcome.value.path: outcome.index for outcome in done if outcome.value is not None}
        assert len(saved) == len(done)
        assert saved == found


def check_ran(scene: Scene, ran: Ran) -> None:
    """Check that each item came to the end that it had to, once, and that the server's record and the report say the same."""
    cell = scene.cell
    assert sorted(outcome.index for outcome in ran.outcomes) == list(range(cell.items))
    for outcome in ran.outcomes:
        _check_outcome(scene, outcome, ran.report)
    _check_counts(cell, ran)
    _check_record(scene, ran)


def _end_of(outcome: Outcome[Any]) -> str:
    if not outcome.tried:
        return "not tried"
    return "ok" if outcome.error is None else type(outcome.error).__name__


def _check_outcome(scene: Scene, outcome: Outcome[Any], report: BulkReport) -> None:
    cell = scene.cell
    if not outcome.tried:
        assert outcome.error is report.ended_by is not None
        assert (outcome.value, outcome.attempts, outcome.seconds) == (None, 0, 0.0)
        return
    assert (outcome.error is None) is (outcome.value is not None)
    assert outcome.seconds > 0
    if not cell.outcomes:
        hit = cell.struck in {"each", "first", "always", outcome.index}
        assert _end_of(outcome) == (cell.item if hit else "ok"), outcome
    if outcome.value is None:
        return
    assert outcome.value.attempts == outcome.attempts
    if cell.verb == "upload":
        assert outcome.value.id == media_id(outcome.index)
        assert outcome.value.file_size == _size(cell, outcome.index)
        if isinstance(cell.struck, int):
            assert outcome.value.maybe_duplicate is (cell.maybe_duplicate and outcome.index == cell.struck)
    elif cell.verb == "download":
        assert outcome.value.media_id == media_id(outcome.index)
    else:
        assert outcome.value.success or cell.options.get("missing_ok") or cell.struck == outcome.index


def _check_counts(cell: Cell, ran: Ran) -> None:
    """Check how many ended how, and that the report counts them so."""
    counts, report = Counter(map(_end_of, ran.outcomes)), ran.report
    for end, wanted in cell.outcomes.items():
        least, most = wanted if isinstance(wanted, list) else (wanted, wanted)
        assert least <= counts[end] <= most, counts
    assert not cell.outcomes or set(counts) <= set(cell.outcomes), counts
    failed = cell.items - counts["ok"] - counts["not tried"]
    told = (report.succeeded, report.failed, report.not_tried, report.skipped, report.total)
    assert told == (counts["ok"], failed, counts["not tried"], 0, cell.items)
    assert type(report.ended_by).__name__ == (cell.ended or "NoneType")
    assert report.ok is (counts["ok"] == cell.items)
    assert len(report.failures) == failed + counts["not tried"]


def _check_record(scene: Scene, ran: Ran) -> None:
    """Check that the server saw what the outcomes tell of: no item is lost, none is there twice unless it is said to be."""
    cell, graph = scene.cell, scene.server.graph
    assert isinstance(graph, ManyGraph)
    seen = Counter(map(graph.index_of, scene.server.requests))
    stored = Counter(map(graph.id_of, graph.stored))
    for outcome in ran.outcomes:
        done = stored[media_id(outcome.index)] + (media_id(outcome.index) in graph.deleted)
        unsure = getattr(outcome.value or outcome.error, "maybe_duplicate", False) or cell.verb == "delete"
        if cell.verb == "download" or not outcome.tried:
            assert done == 0
        elif outcome.error is not None:
            assert not done or getattr(outcome.error, "maybe_applied", True), outcome
        elif getattr(outcome.value, "success", True):
            assert done == 1 or (unsure and done > 1), outcome
        _check_requests(cell, outcome, seen[outcome.index])
    if cell.verb == "download":
        _check_order(scene, graph)


def _check_order(scene: Scene, graph: ManyGraph) -> None:
    """Check that a URL is asked for just before its download: never more of them than are being worked on."""
    waiting: set[int | None] = set()
    for request in scene.server.requests:
        if request.target.startswith("/media/"):
            waiting.discard(graph.index_of(request))
        else:
            waiting.add(graph.index_of(request))
        failed = {scene.cell.struck} if isinstance(scene.cell.struck, int) else set()
        assert len(waiting - failed) <= scene.settings["concurrency"] or scene.cell.outcomes


def _check_requests(cell: Cell, outcome: Outcome[Any], seen: int) -> None:
    usual = 2 if cell.operation in {"download_many", "upload_many verified"} else 1
    assert seen <= outcome.attempts
    if cell.struck in {"first", "always"} or cell.outcomes:
        return  # what a connection met is in nobody's record
    if cell.struck in {"each", outcome.index}:
        assert seen == cell.requests + usual - 1, outcome
        assert outcome.attempts == cell.attempts + usual - 1, outcome
    else:
        assert seen == outcome.attempts == usual, outcome
