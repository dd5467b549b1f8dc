"""What ends runs of uploads, downloads and deletes, and how they are left, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from meta_media import BulkRun, MediaApi, MediaLibrary, MemoryStore, Settings, Source, UploadedMedia
from meta_media.bulk.ending import is_shared
from meta_media.errors import (
    AccountRestrictedError,
    AuthenticationError,
    ConfigurationError,
    CorruptedMediaError,
    MediaError,
    NetworkError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    StorageError,
    UnsupportedMediaTypeError,
)
from meta_media.transfer.progress import ItemProgress
from meta_media.transfer.threads import file_deadline
from tests.bulk.helpers import client, listing, outcomes, refusal
from tests.support.servers import Received, Server, Step, cut, info, json_response, page, silence, wait_until
from tests.support.stepping import LeanServer, Stepper, descriptors, none_added, settled_at

WAYS = [(late, times) for late in (False, True) for times in (1, 2, 3)]


# What ends a run, and what does not


HOPELESS: dict[str, tuple[bytes, type[MediaError]]] = {
    "dead token": (refusal(190, 401, "Error validating access token"), AuthenticationError),
    "locked account": (refusal(368, message="temporarily blocked for policies violations"), AccountRestrictedError),
    "unpaid account": (refusal(131042, message="Business eligibility payment issue"), AccountRestrictedError),
    "an hour's wait": (refusal(130429, 429, retry_after="3600"), RateLimitError),
}
HARMLESS: dict[str, tuple[bytes, type[MediaError]]] = {
    "forbidden": (refusal(200, 403), PermissionDeniedError),
    "unknown": (refusal(100, 404, "(#100) gone"), MediaError),
    "broken": (page("<html>", 500, content_type="text/html"), ServerError),
    "a short wait": (refusal(130429, 429, retry_after="0"), RateLimitError),
}


@pytest.mark.parametrize("name", HOPELESS)
async def test_what_all_others_would_meet(server: Server, api: MediaApi, name: str) -> None:
    """A dead token, a locked account, a long wait: the run ends, the rest of a list was not tried, and says why."""
    reply, kind = HOPELESS[name]
    server.script = [*[json_response({"success": True, "id": "7"})] * 3, reply]
    found = await outcomes(api.delete_many([str(number) for number in range(30)], concurrency=1))
    assert [outcome.tried for outcome in found] == [True] * 4 + [False] * 26
    assert [type(outcome.error) for outcome in found] == [type(None)] * 3 + [kind] * 27
    assert len({id(outcome.error) for outcome in found[3:]}) == 1
    assert len(server.requests) == 4


@pytest.mark.parametrize("name", HOPELESS)
async def test_an_iterator_is_not_read_on(server: Server, api: MediaApi, name: str) -> None:
    """Likewise, an endless iterator is not read any further."""
    reply, kind = HOPELESS[name]
    server.script = [*[json_response({"success": True})] * 3, reply]
    ids = itertools.count()
    report = await api.delete_many(map(str, ids)).report()
    assert type(report.ended_by) is kind
    assert (report.succeeded, report.ok) == (3, False)
    assert next(ids) == report.succeeded + report.failed + report.not_tried <= 3 + 2 + 4


Run = Callable[[MediaApi, list[int]], BulkRun[Any]]


def texts_of(numbers: list[int]) -> list[bytes]:
    """Make a text for each number."""
    return [b"text %d" % number for number in numbers]


@pytest.fixture(params=["upload", "journal", "ensure", "download", "delete", "send"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Run one of the verbs over items made of numbers."""
    runs: dict[str, Run] = {
        "upload": lambda api, numbers: api.upload_many(texts_of(numbers)),
        "journal": lambda api, numbers: api.upload_many(texts_of(numbers), journal=tmp_path / "run.sqlite"),
        "ensure": lambda api, numbers: MediaLibrary(api, MemoryStore()).ensure_many(texts_of(numbers)),
        "download": lambda api, numbers: api.download_many(
            [f"{api.settings.base_url}/media/{number}" for number in numbers], tmp_path
        ),
        "delete": lambda api, numbers: api.delete_many([*map(str, numbers)]),
        "send": lambda api, numbers: api.send_many([f"+15550001{number:03}" for number in numbers], "7", kind="image"),
    }
    return runs[request.param]


def answered_when(condition: Callable[[], bool], reply: bytes) -> Step:
    """Answer as soon as something is true."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        await wait_until(condition)
        writer.write(reply)

    return step


async def test_nothing_waits_when_a_run_has_ended(server: Server, run: Run) -> None:
    """What waits at a shut gate when the run ends is not tried; what waits for another try keeps its own error."""
    done = json_response({"id": "7", "success": True, "messages": [{"id": "wamid.1"}]})
    async with client(server, concurrency=3, max_retries=2) as api:
        gate = api.shared.limits.throttle("1")
        server.script = [
            answered_when(lambda: len(server.requests) == 3, refusal(130429, 429, retry_after="50")),
            answered_when(lambda: gate.left > 0, done),
            answered_when(gate._queue.locked, refusal(190, 401)),
        ]
        async with asyncio.timeout(25):
            found = await outcomes(run(api, [*range(10)]))
        first = {type(outcome.error): outcome for outcome in found[:3]}
        assert set(first) == {type(None), RateLimitError, AuthenticationError}
        assert [(outcome.tried, outcome.attempts) for outcome in found[:3]] == [(True, 1)] * 3
        dead = first[AuthenticationError]
        assert [(outcome.error, outcome.tried, outcome.attempts) for outcome in found[3:]] == [
            (dead.error, False, 0)
        ] * 7
        assert (len(server.requests), server.most_at_once) == (3, 3)


async def test_an_item_that_is_read_when_its_run_ends(server: Server, api: MediaApi, tmp_path: Path) -> None:
    """What had still to be read and hashed when the run ended is not sent any more."""
    run: BulkRun[UploadedMedia]

    async def late() -> AsyncIterator[bytes]:
        await wait_until(lambda: run.so_far.ended_by is not None)
        yield b"a stream"

    server.script = [refusal(190, 401)]
    run = api.upload_many([b"text", late()], journal=tmp_path / "run.sqlite")
    dead, unsent = await outcomes(run)
    assert (dead.tried, unsent.tried, unsent.error) == (True, False, dead.error)
    assert len(server.requests) == 1


async def test_what_was_not_tried_is_no_duplicate(server: Server, tmp_path: Path) -> None:
    """What waited when its run ended was not begun: the next run with the same journal suspects nothing."""
    async with client(server, concurrency=2) as api:
        gate = api.shared.limits.throttle("1")
        server.script = [
            answered_when(lambda: len(server.requests) == 2, refusal(130429, 429, retry_after="50")),
            answered_when(gate._queue.locked, refusal(190, 401)),
            json_response({"id": "7"}),
        ]
        keywords: dict[str, Any] = {"journal": tmp_path / "run.sqlite"}
        report = await api.upload_many(texts_of([*range(10)]), **keywords).report()
        assert (report.failed, report.not_tried) == (2, 8)
    async with client(server) as api:
        found = await outcomes(api.upload_many(texts_of([*range(10)]), **keywords))
        assert [outcome.value.maybe_duplicate for outcome in found] == [False] * 10


async def test_between_two_requests_of_an_item(server: Server, tmp_path: Path) -> None:
    """A download that would have to wait after its lookup, when the run has ended, says so and may be tried again."""
    async with client(server, concurrency=2) as api:
        gate = api.shared.limits.throttle("1")
        server.script = [
            answered_when(lambda: len(server.requests) == 2, refusal(130429, 429, retry_after="3600")),
            answered_when(lambda: gate.left > 0, info(f"{server.base_url}/media")),
        ]
        async with asyncio.timeout(25):
            found = await outcomes(api.download_many(["1", "1", "1"], tmp_path))
    (waited,) = [outcome for outcome in found if outcome.tried and not isinstance(outcome.error, RateLimitError)]
    assert isinstance(waited.error, MediaError)
    assert (str(waited.error), waited.error.retryable, waited.attempts) == (
        *("the run ended while this item waited for a connection: try it again", True, 1),
    )
    assert (len(server.requests), found[2].tried) == (2, False)


# What the caller's own things do, item after item


@pytest.mark.parametrize(("left", "tried"), [("nothing", 10), ("an empty folder", 10), ("another file", 30)])
@pytest.mark.parametrize("kind", [str, Path, Source.path, lambda path: (path, {"filename": "a.txt"})])
async def test_a_folder_that_is_gone(
    server: Server, api: MediaApi, tmp_path: Path, left: str, tried: int, kind: Callable[[Path], Any]
) -> None:
    """A folder of sources that is gone, or empty as after an unmount, ends a run. Files that are missing in it do not."""
    folder = tmp_path / "mount"
    if left != "nothing":
        folder.mkdir()
    if left == "another file":
        (folder / "another").touch()
    found = await outcomes(api.upload_many([kind(folder / f"{number}.txt") for number in range(30)], concurrency=1))
    assert [outcome.tried for outcome in found] == [True] * tried + [False] * (30 - tried)
    assert {type(outcome.error) for outcome in found} == {StorageError}
    assert server.requests == []


async def test_a_folder_that_does_not_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that does not respond when it is looked at, after one of its files was missing, is away as well."""
    over = threading.Event()
    monkeypatch.setattr(os, "scandir", lambda _: over.wait())
    try:
        async with file_deadline(0.05):
            missing = StorageError("could not open 'a.txt'", errno=errno.ENOENT)
            assert await is_shared(missing, "mount/a.txt", ItemProgress(anyio.sleep))
    finally:
        over.set()


async def test_a_folder_that_comes_back(server: Server, api: MediaApi, tmp_path: Path) -> None:
    """A folder that is gone for some items in a row is theirs."""
    server.script = [json_response({"id": "7"})]
    sources = [b"text" if number % 9 == 8 else tmp_path / "gone" / f"{number}.txt" for number in range(30)]
    report = await api.upload_many(sources, concurrency=1).report()
    assert (report.succeeded, report.failed, report.ended_by) == (3, 27, None)


async def test_a_token_callable_that_fails(server: Server) -> None:
    """A token callable that fails every time, once Meta has refused its first token, ends a run after ten items."""
    server.script = [json_response({"success": True}), refusal(190, 401)]
    given = itertools.count()

    async def token() -> str:
        if next(given):
            raise LookupError("the vault is closed")
        return "a-token"

    async with MediaApi(token, "1", settings=Settings(base_url=server.base_url)) as api:
        report = await api.delete_many([str(number) for number in range(30)], concurrency=1).report()
    assert (report.succeeded, report.failed, report.not_tried) == (1, 10, 19)
    assert isinstance(report.ended_by, LookupError)
    assert len(server.requests) == 2


async def test_a_token_callable_that_fails_once(server: Server) -> None:
    """A token callable that fails now and then costs the items that met it, and counts no more once it gives a token."""
    server.script = [json_response({"success": True}), refusal(190, 401), refusal(100)]
    given = itertools.count()

    async def token() -> str:
        if 0 < next(given) < 6:
            raise LookupError("the vault is busy")
        return "a-token"

    async with MediaApi(token, "1", settings=Settings(base_url=server.base_url)) as api:
        report = await api.delete_many([str(number) for number in range(30)], concurrency=1).report()
    assert (report.succeeded, report.failed, report.ended_by) == (1, 29, None)


@pytest.mark.parametrize("verb", ["upload", "ensure", "download"])
async def test_a_progress_callback_that_fails(server: Server, api: MediaApi, tmp_path: Path, verb: str) -> None:
    """A progress callback of the items that fails every time ends a run after ten; one that fails for a few does not."""
    server.script = [page(b"text", content_type="text/plain") if verb == "download" else json_response({"id": "7"})]

    def fails(_: object) -> None:
        raise LookupError("no terminal")

    def run(bad: Callable[[int], bool]) -> BulkRun[Any]:
        own = [{"progress": fails} if bad(number) else {} for number in range(30)]
        if verb == "download":
            return api.download_many(
                [*zip([f"{server.base_url}/file"] * 30, own, strict=True)], tmp_path, concurrency=1
            )
        sources = [(b"text %d" % number, keywords) for number, keywords in enumerate(own)]
        if verb == "upload":
            return api.upload_many(sources, concurrency=1)
        return MediaLibrary(api, MemoryStore()).ensure_many(sources, concurrency=1)

    report = await run(lambda _: True).report()
    assert (report.succeeded, report.failed, report.not_tried) == (0, 10, 20)
    assert isinstance(report.ended_by, LookupError)
    report = await run(lambda number: number % 5 > 0).report()
    assert (report.succeeded, report.failed, report.ended_by) == (6, 24, None)


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_is_an_items_own(server: Server, api: MediaApi, name: str) -> None:
    """Other errors are the item's own: all others are tried."""
    reply, kind = HARMLESS[name]
    server.script = [*[reply] * 29, json_response({"id": "7"})]
    found = await outcomes(api.upload_many([f"text {number}".encode() for number in range(30)], concurrency=1))
    assert len(server.requests) == 30
    assert all(isinstance(outcome.error, kind) and outcome.tried for outcome in found[:29])
    assert found[29].error is None


async def test_files_that_whatsapp_refuses(server: Server, api: MediaApi, tmp_path: Path) -> None:
    """Files that are none, or not there, are their own business."""
    server.script = [json_response({"id": "7"})]
    found = await outcomes(api.upload_many([b"", b"\x7fELF" + bytes(100), tmp_path / "missing", tmp_path, b"text"]))
    assert [type(outcome.error) for outcome in found] == [
        *(CorruptedMediaError, UnsupportedMediaTypeError, StorageError, StorageError, type(None))
    ]
    assert len(server.requests) == 1


async def test_a_new_token_in_time(server: Server) -> None:
    """A token that can be asked for anew does not end a run when it dies."""
    server.script = [json_response({"success": True}), refusal(190, 401), json_response({"success": True})]
    given = itertools.count()

    async def token() -> str:
        return f"token-{next(given)}"

    async with MediaApi(token, "1", settings=Settings(base_url=server.base_url)) as api:
        report = await api.delete_many(["1", "2", "3"], concurrency=1).report()
    assert (report.succeeded, len(server.requests), next(given)) == (3, 4, 2)


async def test_an_untrusted_certificate(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrusted certificate would meet all items, so the first one ends the run."""
    monkeypatch.delenv("SSL_CERT_FILE")
    async with Server(silence, tls=tls) as server, client(server) as api:
        report = await api.delete_many([str(number) for number in range(30)], concurrency=1).report()
    assert (report.failed, report.not_tried) == (1, 29)
    assert isinstance(report.ended_by, NetworkError)
    assert "certificate" in str(report.ended_by)


async def test_no_server(server: Server) -> None:
    """Without a server the run ends after ten items, or after two for each worker."""
    server.script = [cut(b"")]
    async with client(server, concurrency=8) as api:
        few = await api.delete_many([str(number) for number in range(50)], concurrency=1).report()
        many = await api.delete_many([str(number) for number in range(50)], concurrency=8).report()
    assert (few.failed, few.not_tried) == (10, 40)
    assert 16 <= many.failed < 16 + 8
    assert isinstance(few.ended_by, NetworkError)


async def test_stop_on_error(server: Server, api: MediaApi, tmp_path: Path) -> None:
    """With `stop_on_error`, each verb's first error ends the run."""
    server.script = [refusal(100)]
    for run in (
        api.upload_many([b"1", b"2", b"3"], concurrency=1, stop_on_error=True),
        api.download_many(["1", "2", "3"], tmp_path, concurrency=1, stop_on_error=True),
        api.delete_many(["1", "2", "3"], concurrency=1, stop_on_error=True),
    ):
        report = await run.report()
        assert (report.failed, report.not_tried) == (1, 2)


async def test_in_order(server: Server, api: MediaApi, tmp_path: Path) -> None:
    """With `in_order`, each verb's outcomes come in the order of the input."""
    held = asyncio.Event()

    async def slow_first(request: Any, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) % 2:
            await held.wait()
        writer.write(json_response({"success": True, "id": "7"}))

    server.script = [slow_first]
    async with api.delete_many(["1", "2"], in_order=True) as run:
        first = asyncio.ensure_future(anext(run))
        await wait_until(lambda: len(server.requests) == 2)
        assert not first.done()
        held.set()
        assert [(await first).index, *[outcome.index async for outcome in run]] == [0, 1]
    for other in (api.upload_many([b"1", b"2"], in_order=True), api.download_many(["1", "2"], tmp_path, in_order=True)):
        async with other:
            assert [outcome.index async for outcome in other] == [0, 1]


async def test_without_a_token(server: Server, tmp_path: Path) -> None:
    """Without a token a run does not start and reads no item; an error of the token's callable is raised."""

    async def no_token() -> str:
        raise LookupError("the vault is closed")

    settings = Settings(base_url=server.base_url)
    ids = itertools.count()
    async with MediaApi(None, "1", settings=settings) as api:
        for run in (api.upload_many(ids), api.delete_many(map(str, ids)), api.download_many(map(str, ids), tmp_path)):
            with pytest.raises(ConfigurationError, match="CLOUD_API_ACCESS_TOKEN"):
                await run.report()
    async with MediaApi(no_token, "1", settings=settings) as api:
        with pytest.raises(LookupError, match="the vault is closed"):
            await api.delete_many(map(str, ids), journal=tmp_path / "run.sqlite").report()
    assert (next(ids), server.requests, listing(tmp_path)) == (0, [], [])


async def test_a_client_that_is_closed(server: Server, api: MediaApi) -> None:
    """A client that is closed, before or in the middle, ends a run: no other item would fare better."""
    server.script = [json_response({"success": True})]
    ids = itertools.count()
    async with asyncio.timeout(20):
        async with api.delete_many(map(str, ids)) as run:
            for _ in range(5):
                await anext(run)
            await api.aclose()
            report = await run.report()
        again = await api.delete_many(["1", "2", "3"], concurrency=1).report()
    assert type(report.ended_by) in {ConfigurationError, NetworkError}
    assert (again.failed + again.not_tried, type(again.ended_by)) == (3, ConfigurationError)


# Leaving


async def texts() -> AsyncIterator[bytes]:
    """Yield texts for ever, slowly."""
    for number in itertools.count():
        await asyncio.sleep(0)  # a turn of the loop
        yield f"text {number}".encode()


def answer(_: str, target: str) -> bytes:
    """Take whatever comes; about media 8, give an answer and hang up."""
    about = {"id": "8", "url": "https://lookaside.fbsbx.com/8", "mime_type": "text/plain", "success": True}
    said = json_response(about)
    return said.replace(b"content-length", b"connection: close\r\ncontent-length", 1) if target.endswith("/8") else said


async def left(api: MediaApi, journal: Path | None) -> bool:
    """Leave an endless run after a few outcomes."""
    async with api.upload_many(texts(), journal=journal) as run:
        async for outcome in run:
            if outcome.index == 3:
                break
    return True


async def cancelled_at(api: MediaApi, stepper: Stepper, journal: Path | None) -> bool:
    """Cancel once, and look around; False when the run was over before."""
    task = await stepper.run(lambda: left(api, journal))
    await settled_at([], lambda: stepper.alive)
    assert task.cancelled() or (task.result() and (stepper._late or not stepper.reached))
    async with asyncio.timeout(20):
        assert (await api.get_info("8")).id == "8"
    return stepper.reached


@pytest.mark.parametrize("journaled", [False, True])
@pytest.mark.parametrize("late", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_cancelled_at_every_await(tmp_path: Path, journaled: bool, late: bool) -> None:
    """Cancelled at any await, an endless run leaves no task, file or descriptor, and the next call works."""
    counts = []
    async with LeanServer(answer) as server:
        async with client(server) as api:
            await left(api, tmp_path / "warm.sqlite")
        await settled_at(set(), lambda: server.open)
        before, tasks = descriptors(), asyncio.all_tasks()
        for times in (1, 2, 3):
            at, going = 0, True
            while going:
                at += 1 if at < 30 else 7
                journal = tmp_path / f"{times}-{at}.sqlite" if journaled else None
                async with client(server) as api:
                    going = await cancelled_at(api, Stepper(at, times=times, late=late), journal)
            counts.append(at - 1)
        await settled_at(set(), lambda: server.open)
        await none_added(before, descriptors)
        await none_added(tasks, asyncio.all_tasks)
    assert min(counts) > 30
    sys.stdout.write(f"cancelled at each of {counts} awaits\n")


class LeftError(Exception):
    """What a block is left by."""


@pytest.mark.parametrize("how", ["break", "exception", "cancellation"])
@pytest.mark.parametrize("http_client", ["ours", "httpx"])
async def test_leaving_an_endless_run(server: Server, tmp_path: Path, how: str, http_client: str) -> None:
    """However an endless run with unanswered requests is left, all work ends, and the client goes on working."""
    server.script = [json_response({"id": "7"})] * 10 + [silence]

    async def leaving(api: MediaApi) -> None:
        with contextlib.suppress(LeftError):
            async with api.upload_many(texts(), journal=tmp_path / "run.sqlite") as run:
                async for _ in run:
                    if run.so_far.succeeded == 10:
                        await wait_until(lambda: len(server.requests) == 12)
                        if how == "break":
                            break
                        if how == "exception":
                            raise LeftError
                        await asyncio.Event().wait()

    async with contextlib.AsyncExitStack() as stack:
        given = None if http_client == "ours" else await stack.enter_async_context(httpx.AsyncClient())
        settings = Settings(base_url=server.base_url, concurrency=2)
        api = await stack.enter_async_context(MediaApi("a-token", "1", settings=settings, http_client=given))
        before = asyncio.all_tasks()
        task = asyncio.ensure_future(leaving(api))
        await wait_until(lambda: len(server.requests) == 12)
        if how == "cancellation":
            task.cancel()
        async with asyncio.timeout(20):
            await asyncio.wait((task,))
        assert task.cancelled() == (how == "cancellation")
        await none_added(before | mine(server), asyncio.all_tasks)
        server.script = [json_response({"success": True})]
        assert (await api.delete("1")).success
        assert (await api.upload_many([b"text"]).report()).failed == 1, "the script has no id for it"


def mine(server: Server) -> set[asyncio.Task[Any]]:
    """List the tasks that belong to the server."""
    return {task for task in asyncio.all_tasks() if "servers.py" in repr(task.get_coro())} | set(server._tasks)
