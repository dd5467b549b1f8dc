"""
The fault matrix, cell by cell: every operation, whatever it meets, ends as it must, and leaves nothing behind.

Each cell is played twice. First to its end: the outcome, the requests that the server saw, what error or result say of
themselves. Then again, cancelled at one of its awaits: cancelled it must be. After both, the invariants hold: nothing half
done under the final name, and an old file intact (a); no temporary file (b); the only place, and the only connection, given
back (c); descriptors and tasks, too (d); an error that says all it knows (e), nothing told that is secret (f), and an error
that bears handling (g); a cancellation that stays one (h).

A cell about a run over many items, of which one or all meet the faults, says what becomes of those; the others must not notice.
The server's record and the outcomes must tell the same: no item is lost, and none is there twice unless it is said to be.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import zlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import trustme

from meta_media import MediaApi, Settings
from tests.faults.cells import CELLS, Cell
from tests.faults.invariants import check_error, check_files, check_outcome_error, check_requests, check_secrets
from tests.faults.many import ManyGraph, Ran, aim, check_ran, prepare
from tests.faults.many_setups import SETUPS
from tests.faults.scenes import APP_SECRET, CONTENT, OLD, OPERATIONS, Scene, check_value, lines
from tests.faults.server import FaultServer, Graph
from tests.support.stepping import Stepper, descriptors, none_added, settled_at
from tests.transfer.disks import left_over

# Every row there must be, and the operations that it must have cells for, one by one and many at a time: "a" for all four.
ROWS: Final = {
    "DNS fails": "a",
    "DNS hangs": "a",
    "connection refused, no route": "a",
    "connect timeout": "a",
    "limiter wait": "a",
    "TLS: certificate refused": "a",
    "TLS handshake reset, ended, bit flipped": "a",
    "TLS greeting not answered, answered in plain HTTP": "a",
    "RST or FIN on a reused connection": "a",
    "RST while sending the body": "upload",
    "early 4xx, then hangs up": "upload",
    "early 4xx, then takes nothing": "upload",
    "early 429 or 5xx": "upload",
    "dies without a reply": "a",
    "RST or FIN in the reply's head": "a",
    "RST or FIN in the reply's body": "a",
    "chunked without its end": "a",
    "close-delimited body cut": "a",
    "stall before the reply": "a",
    "stall in the reply's body": "get_info download",
    "trickle": "a",
    "trickle beside the body": "a",
    "flood": "a",
    "server reads slowly but steadily": "upload",
    "body too long": "get_info download delete",
    "one bit wrong": "upload get_info download",
    "TLS record with a flipped bit": "a",
    "surplus after the body": "a",
    "200 that is no answer": "a",
    "3xx to a trusted host": "a",
    "3xx to an untrusted place": "a",
    "400 and 403": "a",
    "401": "a",
    "404 and 100/33": "a",
    "expired URL": "download",
    "413 and 415": "upload",
    "throttled with Retry-After": "a",
    "throttled without Retry-After": "a",
    "absurd Retry-After": "a",
    "5xx and is_transient": "a",
    "502, 503 and 504 with HTML": "a",
    "error that is none of Graph's": "a",
    "redirect loop": "a",
    "source file changed": "upload",
    "source that cannot be read again": "upload",
    "disk full": "upload download",
    "permission denied, read-only, no folder, name too long": "upload download",
    "target exists": "download",
    "symlink or FIFO at the target": "download",
    "blocked path": "upload download",
    "damaged state": "",
    "cancelled": "a",
    "deadline while backing off": "a",
    "kill -9": "upload download",
    "clock jumps": "a",
    "event loop closes": "a",
    "second event loop": "a",
    "closed, closed twice, forked": "a",
    "callback raises or blocks": "upload download",
    "thread pool full": "a",
    "an answer that is not the media, where the id is known": "",
}
_ALL: Final = "upload get_info download delete"


@pytest.fixture(scope="session")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What servers may identify themselves with, and the file that names the one authority that is trusted."""
    trusted, unknown = trustme.CA(), trustme.CA()
    here = ("127.0.0.1", "localhost")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    certificates = {
        "good": trusted.issue_cert(*here),
        "of an unknown authority": unknown.issue_cert(*here),
        "of another host": trusted.issue_cert("elsewhere.example"),
        "expired": trusted.issue_cert(*here, not_before=yesterday - timedelta(days=9), not_after=yesterday),
    }
    file = tmp_path_factory.mktemp("authority") / "authority.pem"
    trusted.cert_pem.write_to_path(str(file))
    contexts: dict[str, Any] = {"file": str(file)}
    for name, certificate in certificates.items():
        contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(contexts[name])
    return contexts


def _quick() -> set[str]:
    """Choose a cell of each row, other operations for other rows: the sample that is not marked `slow`."""
    rows: dict[str, list[Cell]] = {}
    for cell in CELLS:
        if cell.setup not in _SLOW_SETUPS:
            rows.setdefault(cell.row, []).append(cell)
    return {str(cells[zlib.crc32(row.encode()) % len(cells)]) for row, cells in rows.items()}


_SLOW_SETUPS: Final = {setup for setup in SETUPS if "cancelled at every" in setup or "killed" in setup}
_QUICK: Final = _quick()


def _marked(cell: Cell) -> Any:
    """Make a cell a parameter; where a loop dies with its connections, asyncio's warnings about it are expected."""
    marks = [] if str(cell) in _QUICK else [pytest.mark.slow]
    if cell.setup == "a client that was used in another loop" or (cell.items and "loop" in cell.setup):
        ignored = ("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
        marks.append(pytest.mark.filterwarnings(*ignored))
    return pytest.param(cell, id=str(cell), marks=marks)


class Stage:
    """Where a cell is played, as often as one likes."""

    def __init__(self, cell: Cell, authorities: dict[str, Any], folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        self.cell = cell
        self.seen = 0  # awaits of the last call
        self._authorities = authorities if cell.scheme == "https" else {}
        self._root = folder
        self._caplog = caplog
        self._plays = 0

    async def play(self, stepper: Stepper, judge: Callable[[Scene, asyncio.Task[Any]], Awaitable[None]]) -> None:
        """Set up, call, have the outcome judged, and check that nothing is left."""
        self._caplog.clear()
        tasks, files = asyncio.all_tasks(), descriptors()
        async with AsyncExitStack() as stack:
            scene = await self._set_up(stack)
            task = await stepper.run(lambda: _as_coroutine(scene))
            self.seen = stepper.count
            await settled_at([], lambda: left_over(scene.folder))  # a thread of a slow disk may be left behind
            await judge(scene, task)
            await self._look_around(scene, stepper)
            for check in scene.checks:
                assert check(), check
        await none_added(tasks, asyncio.all_tasks)
        await none_added(files, descriptors)

    async def _set_up(self, stack: AsyncExitStack) -> Scene:
        cell = self.cell
        self._plays += 1
        folder = self._root / str(self._plays) / "folder"
        folder.mkdir(parents=True)
        (folder / "photo.jpg").write_bytes(OLD)
        single = cell.operation.startswith("upload") and not cell.items
        (folder.parent / "source.txt").write_bytes(lines(cell.size if single else 0))
        graph = ManyGraph(cell) if cell.items else Graph(CONTENT)
        server = await stack.enter_async_context(FaultServer(graph, self._authorities.get(cell.certificate)))
        server.graph.promises = set(cell.promises)
        waits = {"connect_timeout": 30.0, "read_timeout": 30.0, "write_timeout": 30.0, "backoff": 0.001}
        scene = Scene(
            cell=cell,
            server=server,
            stack=stack,
            patch=stack.enter_context(pytest.MonkeyPatch.context()),
            source=folder.parent / "source.txt",
            folder=folder,
            target=folder / "photo.jpg",
            handle=stack.enter_context((folder.parent / "handle").open("wb", buffering=0)),
            settings={"concurrency": 3 if cell.items else 1, "chunk_size": 2**14, "app_secret": APP_SECRET}
            | waits
            | dict(cell.settings),
            call=OPERATIONS[cell.operation],
        )
        if cell.items:
            prepare(scene)
        await stack.enter_async_context(SETUPS[cell.setup](scene))
        scene.settings.setdefault("base_url", server.base_url)
        given = None
        if cell.client == "httpx":
            given = await stack.enter_async_context(httpx.AsyncClient())
        scene.api = MediaApi(scene.token, "1", settings=Settings(**scene.settings), http_client=given)
        stack.push_async_callback(scene.api.aclose)  # not entered: its first call decides on the event loop
        scene.what = scene.known()
        if cell.before is not None:
            await self._precede(scene, cell.before)
        if cell.items:
            aim(scene)
        else:
            server.arm(cell.faults)
        return scene

    async def _precede(self, scene: Scene, faults: Any) -> None:
        """Make a call to the same host, so that there is a connection to be reused."""
        server = scene.server
        server.arm(faults)
        if scene.cell.verb == "download":
            await scene.api.read(scene.known("8"))
        else:
            await scene.api.get_info("8")
        if faults:
            await settled_at(0, lambda: server.open)
        server.requests.clear()
        server.connections = 0

    async def _look_around(self, scene: Scene, stepper: Stepper) -> None:
        """Look for what is still running, and make calls that need the only place and the only connection."""
        await settled_at([], lambda: stepper.alive)
        server = scene.server
        server.faults.clear()
        server.lasting = None
        server.judge = lambda _: None
        server.struck.clear()
        server.tls = self._authorities.get("good")
        scene.patch.undo()
        if not scene.open_after:
            return
        # another number: this one may be throttled, and have to wait; and patience, even where the cell has none
        waits = {"connect_timeout": 30.0, "read_timeout": 30.0, "write_timeout": 30.0, "minimum_rate": 1024.0}
        changes: dict[str, Any] = {**waits, "deadline": None, "max_retries": 0}
        after = scene.api.with_options(phone_number_id="2", **changes)
        async with asyncio.timeout(60):
            await after.send("+15550001111", "8", kind="image")
            assert await after.read(scene.known("8")) == CONTENT
        most = 2 * scene.settings["concurrency"] if scene.cell.items else 1  # to Graph, and to the host of the media
        await settled_at(True, lambda: server.open - server.deaf <= most)  # what was given up was closed


async def _as_coroutine(scene: Scene) -> Any:
    return await scene.call(scene)


@pytest.mark.parametrize("cell", [_marked(cell) for cell in CELLS])
async def test_cell(
    cell: Cell,
    tmp_path: Path,
    authorities: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An operation that meets these faults ends as the matrix says; cancelled on the way, it is; the invariants hold."""
    monkeypatch.setenv("SSL_CERT_FILE", authorities["file"])
    caplog.set_level(logging.DEBUG)
    stage = Stage(cell, authorities, tmp_path, caplog)

    async def ends_as_it_must(scene: Scene, task: asyncio.Task[Any]) -> None:
        error: BaseException | None = asyncio.CancelledError() if task.cancelled() else task.exception()
        outcome = "ok" if error is None else type(error).__name__
        assert outcome == cell.expect, repr(error)
        check_requests(scene)
        value = task.result() if error is None else None
        ran = value if isinstance(value, Ran) else None
        check_files(scene, done=error is None, ran=ran)
        if ran is not None:
            _check_run(scene, ran, caplog)
        elif error is None:
            check_value(scene, value)
        elif not task.cancelled():
            check_error(scene, error)
        check_secrets(scene, None if task.cancelled() else error, caplog.records, scene.api, scene.api.settings, value)

    await stage.play(Stepper(), ends_as_it_must)
    if cell.cancels:
        await _play_cancelled(stage, caplog)


def _check_run(scene: Scene, ran: Ran, caplog: pytest.LogCaptureFixture) -> None:
    check_ran(scene, ran)
    for outcome in ran.outcomes:
        if outcome.tried and outcome.error is not None:
            check_outcome_error(scene, outcome)
            check_secrets(scene, outcome.error, [])
    check_secrets(scene, None, caplog.records, ran)


async def _play_cancelled(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Play again, and cancel at one of the awaits that the first time had: which one, the cell's name decides."""
    cell = stage.cell
    stepper = Stepper(1 + zlib.crc32(str(cell).encode()) % stage.seen)

    async def is_cancelled(scene: Scene, task: asyncio.Task[Any]) -> None:
        assert task.cancelled() is stepper.reached, "a cancellation was swallowed, or became something else"
        assert not (cell.items and stepper.alive), "work went on after the run had ended"
        check_files(scene, done=None)
        check_secrets(scene, None, caplog.records)

    await stage.play(stepper, is_cancelled)


def test_no_row_is_missing() -> None:
    """Every row of the matrix is there, for each operation that it is about, and no cell is there twice."""
    found: dict[str, set[str]] = {}
    for cell in CELLS:
        found.setdefault(cell.row, set()).add(cell.operation.partition(" ")[0])
    assert set(found) == set(ROWS)
    for row, operations in ROWS.items():
        wanted = set((_ALL if operations == "a" else operations).split())
        runs = {f"{operation}_many" for operation in wanted - {"get_info"}}
        assert wanted | runs <= found[row], row
    assert len({str(cell) for cell in CELLS}) == len(CELLS)


def test_no_scheme_is_missing() -> None:
    """What is below TLS is there over https; everything else over both, but for what runs as another user or process."""
    schemes: dict[str, set[str]] = {}
    for cell in CELLS:
        schemes.setdefault(cell.row, set()).add(cell.scheme)
    secured = {row for row, found in schemes.items() if found == {"https"}}
    assert secured == {row for row in ROWS if row.startswith("TLS")}
    assert {row for row, found in schemes.items() if found == {"http"}} == {"kill -9", "throttled with Retry-After"}
