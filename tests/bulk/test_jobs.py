"""`upload_many`, `download_many` and `delete_many`, as their users call them, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import re
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from meta_media import (
    BulkReport,
    BulkRun,
    DeletedMedia,
    DownloadedMedia,
    MediaApi,
    MediaLibrary,
    MemoryStore,
    Settings,
    Source,
    UploadedMedia,
)
from meta_media.emulator import Emulator, Fault
from meta_media.errors import (
    AccountRestrictedError,
    AuthenticationError,
    ConfigurationError,
    CorruptedMediaError,
    MediaError,
    MediaNotFoundError,
    NetworkError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    StorageError,
    UnsupportedMediaTypeError,
)
from tests.support.servers import Received, Server, Step, cut, info, page, silence, told, until
from tests.support.stepping import LeanServer, Stepper, descriptors, none_added, settled_at

WAYS = [(late, times) for late in (False, True) for times in (1, 2, 3)]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A scripted server, whose script a test gives."""
    async with Server() as running:
        yield running


@pytest.fixture
async def api(server: Server) -> AsyncIterator[MediaApi]:
    """A client for it, that tries once."""
    async with client(server) as made:
        yield made


def client(server: Server | LeanServer, **settings: Any) -> MediaApi:
    """Make a client that tries once."""
    settings = {"max_retries": 0, "concurrency": 2} | settings
    return MediaApi("a-token", "1", settings=Settings(base_url=server.base_url, **settings))


def refusal(code: int, status: int = 400, message: str = "no", **more: str) -> bytes:
    """Write one of Meta's refusals."""
    return told({"error": {"message": message, "code": code}}, status, **more)


async def outcomes(run: BulkRun[Any]) -> list[Any]:
    """Carry out a run, and return its outcomes in the order of the input."""
    async with run:
        return sorted([outcome async for outcome in run], key=lambda outcome: outcome.index)


# Uploads


async def test_uploads_of_every_kind(media: MediaApi, tmp_path: Path) -> None:
    """Whatever a single upload takes can be one of many, with or without keywords of its own."""
    path = tmp_path / "a.txt"
    path.write_text("a file")

    async def stream() -> AsyncIterator[bytes]:
        yield b"a stream"

    with path.open("rb") as handle:
        sources: list[Any] = [
            *(path, str(path), b"bytes", bytearray(b"bytearray"), memoryview(b"view"), handle, stream()),
            *([b"an ", b"iterable"], Source.bytes(b"a source", name="b.txt")),
            (b"<p>", {"filename": "c.txt", "mime_type": "text/plain"}),
            (path, {}),
        ]
        found = await outcomes(media.upload_many(sources))
    assert [outcome.error for outcome in found] == [None] * len(sources)
    assert [outcome.source for outcome in found] == sources
    assert all(isinstance(outcome.value, UploadedMedia) for outcome in found)
    assert {(outcome.attempts, outcome.value.attempts, outcome.skipped) for outcome in found} == {(1, 1, False)}
    stored = [await media.read(outcome.value.id) for outcome in found]
    assert stored[:3] == [b"a file", b"a file", b"bytes"]
    assert stored[6:] == [b"a stream", b"an iterable", b"a source", b"<p>", b"a file"]


async def test_keywords_for_all_and_for_one(server: Server, api: MediaApi) -> None:
    """Keywords of the run are every item's; an item's own win."""
    server.script = [told({"id": "7"})]
    sources = [b"one", (b"two", {"filename": "two.txt", "phone_number_id": "22"}), (b"three", {"mime_type": None})]
    run = api.upload_many(sources, concurrency=1, filename="all.txt", phone_number_id="11", mime_type="text/plain")
    report = await run.report()
    assert report.ok
    assert [request.target for request in server.requests] == [
        *("/v25.0/11/media", "/v25.0/22/media", "/v25.0/11/media")
    ]
    names = [re.findall(rb'filename="(.*?)"', request.body) for request in server.requests]
    assert names == [[b"all.txt"], [b"two.txt"], [b"all.txt"]]


async def test_numbers_of_their_own_will_do(server: Server) -> None:
    """A client without a number can upload many as it can upload one: if each item says for which number."""
    server.script = [told({"id": "7"})]
    async with MediaApi("a-token", settings=Settings(base_url=server.base_url)) as api:
        found = await outcomes(api.upload_many([(b"one", {"phone_number_id": "11"}), b"two"]))
        assert [type(outcome.error) for outcome in found] == [type(None), ConfigurationError]
        assert "WA_PHONE_NUMBER_ID" in str(found[1].error)
        assert (await api.upload_many([b"two"], phone_number_id="22").report()).ok


async def test_keywords_that_do_not_exist(server: Server, api: MediaApi) -> None:
    """A keyword that `upload` does not have is refused at once; an item's own fails that item, and no other."""
    with pytest.raises(ConfigurationError, match=r"^upload takes no keyword named caption, file_name$"):
        api.upload_many([b"one"], file_name="a.txt", caption="hello")
    with pytest.raises(ConfigurationError, match=r"^ttl must be a timedelta"):
        api.upload_many([b"one"], ttl=7)
    server.script = [told({"id": "7"})]
    found = await outcomes(
        api.upload_many([(b"one", {"file_name": "a.txt"}), (b"two", {"ttl": 7}), (b"three", {7: 7}), b"four"])
    )
    assert [str(outcome.error)[:40] for outcome in found] == [
        "upload takes no keyword named file_name",
        "ttl must be a timedelta from one hour to"[:40],
        "upload takes no keyword named 7",
        "None",
    ]
    assert len(server.requests) == 1


async def test_attempts_and_seconds(emulator: Emulator) -> None:
    """An outcome counts its requests, also those in vain, and the time of all of them."""
    async with emulator.api(backoff=0.02, max_retries=2) as api:
        emulator.fail("upload", Fault(status=503), times=2)
        (done,) = await outcomes(api.upload_many([b"text"]))
        emulator.fail("upload", Fault(status=503), times=3)
        (failed,) = await outcomes(api.upload_many([b"text"]))
    assert [(outcome.attempts, outcome.seconds > 0) for outcome in (done, failed)] == [(3, True)] * 2
    assert isinstance(failed.error, ServerError)


async def test_progress_of_the_run_and_of_an_item(emulator: Emulator, tmp_path: Path) -> None:
    """The run's callback sees all bytes of all items; an item's own sees its own; those of a failed item are taken back."""
    content = b"some text " * 30_000
    whole: list[int] = []
    own: list[int] = []

    async def of_one(progress: Any) -> None:
        await asyncio.sleep(0)  # a turn of the loop
        own.append(progress.transferred)

    def of_all(report: BulkReport) -> None:
        whole.append(report.bytes)

    async with emulator.api(chunk_size=65_536, max_retries=1, backoff=0.001) as api:
        emulator.fail("upload", Fault(status=503))
        run = api.upload_many([(content, {"progress": of_one}), b"other"], concurrency=1, progress=of_all)
        assert (await run.report()).bytes == len(content) + 5
        assert own[-1] == len(content)
        assert own.count(65_536) == 2, "there were two tries"
        assert whole[-1] == len(content) + 5
        assert max(whole) == len(content) + 5
        emulator.fail("upload", Fault(status=403))
        report = await api.upload_many([content, b"other"], concurrency=1, progress=of_all).report()
        ids = [outcome.value.id for outcome in await outcomes(api.upload_many([content, b"other"]))]
        downloads = api.download_many(ids, tmp_path, progress=of_all)
        assert (await downloads.report()).bytes == len(content) + 5
    assert (report.bytes, report.failed, report.succeeded) == (5, 1, 1)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_progress_that_raises(server: Server, api: MediaApi, asynchronous: bool) -> None:
    """What a run's progress callback raises comes out of the iteration as it is; an item's own is that item's failure."""
    server.script = [told({"id": "7"})]

    def raising(_: Any) -> None:
        raise LookupError("nobody is listening")

    async def raising_later(_: Any) -> None:
        await asyncio.sleep(0)  # a turn of the loop
        raise LookupError("nobody is listening")

    progress = raising_later if asynchronous else raising
    with pytest.raises(LookupError, match="nobody is listening"):
        await api.upload_many([b"one", b"two"], progress=progress).report()
    own, other = await outcomes(api.upload_many([(b"one", {"progress": progress}), b"two"]))
    assert isinstance(own.error, LookupError)
    assert other.error is None


# Downloads and deletes


async def test_downloads(media: MediaApi, emulator: Emulator, tmp_path: Path) -> None:
    """Ids, infos and URLs are downloaded into one folder, each under a name that is free, and nothing is replaced."""
    ids = [(await media.upload(f"text {number}".encode(), filename="a.txt")).id for number in range(4)]
    about = await media.get_info(ids[1])
    url = (await media.get_info(ids[2])).url
    items: list[Any] = [ids[0], about, url, ids[3], "999", "no/id", 7.5]
    found = await outcomes(media.download_many(items, tmp_path))
    assert all(isinstance(outcome.value, DownloadedMedia) for outcome in found[:4])
    assert [outcome.value.path.read_bytes() for outcome in found[:4]] == [b"text %d" % number for number in range(4)]
    assert len({outcome.value.path for outcome in found[:4]}) == 4
    assert {outcome.value.path.parent for outcome in found[:4]} == {tmp_path}
    assert isinstance(found[4].error, MediaNotFoundError)
    assert [outcome.attempts for outcome in found] == [2, 1, 1, 2, 1, 0, 0]
    assert all(isinstance(outcome.error, MediaError) for outcome in found[5:])
    again = await media.download_many(ids[:1], tmp_path).report()
    assert again.ok
    assert len(listing(tmp_path)) == 5


async def test_keywords_of_a_download(media: MediaApi, tmp_path: Path) -> None:
    """A download may have a progress callback of its own, and no other keyword."""
    media_id = (await media.upload(b"some text")).id
    told: list[Any] = []
    items = [(media_id, {"progress": told.append}), (media_id, {"overwrite": False, "max_size": 7})]
    done, failed = await outcomes(media.download_many(items, tmp_path))
    assert told[-1].transferred == done.value.size == 9
    assert isinstance(failed.error, ConfigurationError)
    assert "not max_size, overwrite" in str(failed.error)


def listing(folder: Path) -> list[str]:
    """List a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("what", ["missing", "file"])
async def test_a_folder_to_download_to(server: Server, api: MediaApi, tmp_path: Path, what: str) -> None:
    """Without a folder, a run of downloads does not begin: a StorageError, and nothing is read or asked."""
    (tmp_path / "file").touch()
    ids = itertools.count()
    with pytest.raises(StorageError, match=f"could not download to .*{what}'") as caught:
        await api.download_many(map(str, ids), tmp_path / what).report()
    assert caught.value.errno is not None
    assert (next(ids), server.requests, listing(tmp_path)) == (0, [], ["file"])


async def test_deletes(media: MediaApi, emulator: Emulator) -> None:
    """Ids are deleted; one that is not there is an error, or with `missing_ok` a result."""
    ids = [(await media.upload(f"text {number}".encode())).id for number in range(5)]
    found = await outcomes(media.delete_many([*ids, "999", "no/id"]))
    assert all(isinstance(outcome.value, DeletedMedia) for outcome in found[:5])
    assert {(outcome.value.success, outcome.attempts) for outcome in found[:5]} == {(True, 1)}
    assert [type(outcome.error) for outcome in found[5:]] == [MediaNotFoundError, ConfigurationError]
    again = await outcomes(media.delete_many(ids, missing_ok=True, phone_number_id=emulator.phone_number_id))
    assert [(outcome.value.success, outcome.error) for outcome in again] == [(False, None)] * 5
    asked = [request.query for request in emulator.requests if request.method == "DELETE"]
    assert [query.get("phone_number_id") for query in asked] == [None] * 6 + [emulator.phone_number_id] * 5


async def test_deletes_for_a_number_that_cannot_be(api: MediaApi) -> None:
    """A number that is none is refused at once."""
    with pytest.raises(ConfigurationError, match="phone_number_id must be digits"):
        api.delete_many(["1"], phone_number_id="../1")


def together(server: Server, count: int) -> Step:
    """Make a step that answers nobody before so many requests have been under way at the same time."""
    met = asyncio.Event()

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        if server.most_at_once >= count:
            met.set()
        await met.wait()
        writer.write(told({"success": True}))

    return step


async def test_many_deletes_from_a_generator(server: Server) -> None:
    """A long run from a generator over few connections loses nothing, does nothing twice, and never waits in a queue."""
    server.script = [together(server, 8)]
    async with client(server, concurrency=8) as api:
        report = await api.delete_many(str(number) for number in range(1000)).report()
    assert (report.succeeded, report.ok, report.total) == (1000, True, None)
    asked = sorted(int(request.target.rpartition("/")[2]) for request in server.requests)
    assert asked == list(range(1000))
    assert (server.connections, server.most_at_once) == (8, 8)


# How many at a time


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, "2", 3, 10**9])
async def test_concurrency_that_cannot_be(api: MediaApi, tmp_path: Path, concurrency: Any) -> None:
    """As many at a time as there are connections, at most: anything else is refused at once, with what to do."""
    sentence = (
        "concurrency .* is more than the 2 connections" if concurrency in {3, 10**9} else "must be a whole number"
    )
    for verb in (api.upload_many, api.delete_many, functools.partial(api.download_many, directory=tmp_path)):
        with pytest.raises(ConfigurationError, match=sentence):
            verb([], concurrency=concurrency)


@pytest.mark.parametrize(("given", "expected"), [(None, 2), (1, 1), (2, 2)])
async def test_concurrency(server: Server, api: MediaApi, given: int | None, expected: int) -> None:
    """So many requests are under way at a time."""
    server.script = [together(server, expected)]
    assert (await api.delete_many(map(str, range(50)), concurrency=given).report()).ok
    assert server.most_at_once == expected


@pytest.mark.parametrize("one", ["photo.jpg", b"bytes", Path("photo.jpg"), 7, None])
async def test_one_by_mistake(api: MediaApi, tmp_path: Path, one: Any) -> None:
    """One item where many belong is refused at once."""
    for verb in (api.upload_many, api.delete_many, functools.partial(api.download_many, directory=tmp_path)):
        with pytest.raises(ConfigurationError, match="pass a list or an iterator"):
            verb(one)


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
    server.script = [*[told({"success": True, "id": "7"})] * 3, reply]
    found = await outcomes(api.delete_many([str(number) for number in range(30)], concurrency=1))
    assert [outcome.tried for outcome in found] == [True] * 4 + [False] * 26
    assert [type(outcome.error) for outcome in found] == [type(None)] * 3 + [kind] * 27
    assert len({id(outcome.error) for outcome in found[3:]}) == 1
    assert len(server.requests) == 4


@pytest.mark.parametrize("name", HOPELESS)
async def test_an_iterator_is_not_read_on(server: Server, api: MediaApi, name: str) -> None:
    """Likewise, an endless iterator is not read any further."""
    reply, kind = HOPELESS[name]
    server.script = [*[told({"success": True})] * 3, reply]
    ids = itertools.count()
    report = await api.delete_many(map(str, ids)).report()
    assert type(report.ended_by) is kind
    assert (report.succeeded, report.ok) == (3, False)
    assert next(ids) == report.succeeded + report.failed + report.not_tried <= 3 + 2 + 4


Run = Callable[[MediaApi, list[int]], BulkRun[Any]]


def texts_of(numbers: list[int]) -> list[bytes]:
    """Make a text for each number."""
    return [b"text %d" % number for number in numbers]


@pytest.fixture(params=["upload", "journal", "ensure", "download", "delete"])
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
    }
    return runs[request.param]


def answered_when(condition: Callable[[], bool], reply: bytes) -> Step:
    """Answer as soon as something is true."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        await until(condition)
        writer.write(reply)

    return step


async def test_nothing_waits_when_a_run_has_ended(server: Server, run: Run) -> None:
    """What waits at a shut gate when the run ends is not tried; what waits for another try keeps its own error."""
    done = told({"id": "7", "success": True})
    async with client(server, concurrency=3, max_retries=2) as api:
        gate = api.shared.limits.gate("1")
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
        await until(lambda: run.so_far.ended_by is not None)
        yield b"a stream"

    server.script = [refusal(190, 401)]
    run = api.upload_many([b"text", late()], journal=tmp_path / "run.sqlite")
    dead, unsent = await outcomes(run)
    assert (dead.tried, unsent.tried, unsent.error) == (True, False, dead.error)
    assert len(server.requests) == 1


async def test_what_was_not_tried_is_no_duplicate(server: Server, tmp_path: Path) -> None:
    """What waited when its run ended was not begun: the next run with the same journal suspects nothing."""
    async with client(server, concurrency=2) as api:
        gate = api.shared.limits.gate("1")
        server.script = [
            answered_when(lambda: len(server.requests) == 2, refusal(130429, 429, retry_after="50")),
            answered_when(gate._queue.locked, refusal(190, 401)),
            told({"id": "7"}),
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
        gate = api.shared.limits.gate("1")
        server.script = [
            answered_when(lambda: len(server.requests) == 2, refusal(130429, 429, retry_after="3600")),
            answered_when(lambda: gate.left > 0, info(f"{server.base_url}/media")),
        ]
        async with asyncio.timeout(25):
            found = await outcomes(api.download_many(["1", "1", "1"], tmp_path))
    (waited,) = [outcome for outcome in found if outcome.tried and not isinstance(outcome.error, RateLimitError)]
    assert isinstance(waited.error, MediaError)
    assert (str(waited.error), waited.error.retryable, waited.attempts) == (
        *("it waited for its turn when the run ended", True, 1),
    )
    assert (len(server.requests), found[2].tried) == (2, False)


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_is_an_items_own(server: Server, api: MediaApi, name: str) -> None:
    """Other errors are the item's own: all others are tried."""
    reply, kind = HARMLESS[name]
    server.script = [*[reply] * 29, told({"id": "7"})]
    found = await outcomes(api.upload_many([f"text {number}".encode() for number in range(30)], concurrency=1))
    assert len(server.requests) == 30
    assert all(isinstance(outcome.error, kind) and outcome.tried for outcome in found[:29])
    assert found[29].error is None


async def test_files_that_whatsapp_refuses(server: Server, api: MediaApi, tmp_path: Path) -> None:
    """Files that are none, or not there, are their own business."""
    server.script = [told({"id": "7"})]
    found = await outcomes(api.upload_many([b"", b"\x7fELF" + bytes(100), tmp_path / "missing", tmp_path, b"text"]))
    assert [type(outcome.error) for outcome in found] == [
        *(CorruptedMediaError, UnsupportedMediaTypeError, StorageError, StorageError, type(None))
    ]
    assert len(server.requests) == 1


async def test_a_new_token_in_time(server: Server) -> None:
    """A token that can be asked for anew does not end a run when it dies."""
    server.script = [told({"success": True}), refusal(190, 401), told({"success": True})]
    given = itertools.count()

    async def token() -> str:
        return f"token-{next(given)}"

    async with MediaApi(token, "1", settings=Settings(base_url=server.base_url)) as api:
        report = await api.delete_many(["1", "2", "3"], concurrency=1).report()
    assert (report.succeeded, len(server.requests), next(given)) == (3, 4, 2)


async def test_a_certificate_that_nobody_trusts(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that is not to be trusted would meet all: the first ends the run."""
    monkeypatch.delenv("SSL_CERT_FILE")
    async with Server(silence, tls=tls) as server, client(server) as api:
        report = await api.delete_many([str(number) for number in range(30)], concurrency=1).report()
    assert (report.failed, report.not_tried) == (1, 29)
    assert isinstance(report.ended_by, NetworkError)
    assert "certificate" in str(report.ended_by)


async def test_nobody_there(server: Server) -> None:
    """Where nobody answers, ten items find out, or twice as many as are worked on."""
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
        writer.write(told({"success": True, "id": "7"}))

    server.script = [slow_first]
    async with api.delete_many(["1", "2"], in_order=True) as run:
        first = asyncio.ensure_future(anext(run))
        await until(lambda: len(server.requests) == 2)
        assert not first.done()
        held.set()
        assert [(await first).index, *[outcome.index async for outcome in run]] == [0, 1]
    for other in (api.upload_many([b"1", b"2"], in_order=True), api.download_many(["1", "2"], tmp_path, in_order=True)):
        async with other:
            assert [outcome.index async for outcome in other] == [0, 1]


async def test_without_a_token(server: Server, tmp_path: Path) -> None:
    """Without a token or a number, a run does not begin, and its input is not read; what a token's callable raises is told."""

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
    server.script = [told({"success": True})]
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
    said = told(about)
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
@pytest.mark.parametrize("late", [False, True])
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
    """However an endless run is left, with requests that nobody answers, all work ends, and the client works on."""
    server.script = [told({"id": "7"})] * 10 + [silence]

    async def leaving(api: MediaApi) -> None:
        with contextlib.suppress(LeftError):
            async with api.upload_many(texts(), journal=tmp_path / "run.sqlite") as run:
                async for _ in run:
                    if run.so_far.succeeded == 10:
                        await until(lambda: len(server.requests) == 12)
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
        await until(lambda: len(server.requests) == 12)
        if how == "cancellation":
            task.cancel()
        async with asyncio.timeout(20):
            await asyncio.wait((task,))
        assert task.cancelled() == (how == "cancellation")
        await none_added(before | mine(server), asyncio.all_tasks)
        server.script = [told({"success": True})]
        assert (await api.delete("1")).success
        assert (await api.upload_many([b"text"]).report()).failed == 1, "the script has no id for it"


def mine(server: Server) -> set[asyncio.Task[Any]]:
    """List the tasks that belong to the server."""
    return {task for task in asyncio.all_tasks() if "servers.py" in repr(task.get_coro())} | set(server._tasks)
