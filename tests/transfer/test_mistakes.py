"""
Mistakes that widely used clients of the same API have made. One test for each shows that it is not made here.

They are short on purpose: what lies around each mistake is tested where the behaviour lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import gzip
import hashlib
import io
import json
import logging
import multiprocessing
import os
import pickle
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest

from meta_media import (
    InboundMedia,
    MediaApi,
    MediaInfo,
    Settings,
    Source,
    inbound_media,
    verify_signature,
    verify_subscription,
)
from meta_media.emulator import Emulator
from meta_media.errors import (
    ApiError,
    ConfigurationError,
    IntegrityError,
    InvalidMediaError,
    MediaError,
    NetworkError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    StorageError,
    UntrustedUrlError,
    UploadRejectedError,
)
from tests.support.servers import Received, Server, Step, hasty, info, json_response, page, silence, wait_until
from tests.support.stepping import settled_at
from tests.transfer.disks import left_over

TOKEN = "EAAGcanaryTOKENcanary"
SECRET = "canarySECRETcanary"
CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OLD = b"what was there before"
JPEG = "image/jpeg"
Connect = Callable[..., Any]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Start scripted servers, each with a client that takes it for Meta."""
    async with AsyncExitStack() as stack:

        async def connected(*script: Step, client: Any = None, **settings: Any) -> tuple[Server, MediaApi]:
            server = await stack.enter_async_context(Server(*script))
            configured = Settings(base_url=server.base_url, **{"backoff": 0.001} | settings)
            api = MediaApi(TOKEN, "1", settings=configured, http_client=client)
            return server, await stack.enter_async_context(api)

        yield connected


@pytest.fixture
async def sink() -> AsyncIterator[Server]:
    """A server that is not Meta's, and would answer whoever asks."""
    async with Server(page(CONTENT, content_type=JPEG)) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one file, inside another folder."""
    path = tmp_path / "outside" / "folder"
    path.mkdir(parents=True)
    (path / "photo.jpg").write_bytes(OLD)
    return path


def known(server: Server, **changes: Any) -> MediaInfo:
    """Make what Meta said of `CONTENT` a moment ago."""
    facts: dict[str, Any] = {"id": "7", "url": f"{server.base_url}/media", "mime_type": JPEG, "file_size": len(CONTENT)}
    return MediaInfo(**(facts | {"sha256": SHA256} | changes))


def files(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder, hidden ones too."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def form(request: Received) -> dict[str, Message]:
    """Read the form of an upload by the standard library's email parser."""
    head = f"Content-Type: {request.header('content-type')}\r\n\r\n".encode()
    parts: Any = BytesParser().parsebytes(head + request.body).get_payload()
    return {part.get_param("name", header="content-disposition"): part for part in parts}


async def pieces(count: int, size: int) -> AsyncIterator[bytes]:
    """Yield text, a piece at a time."""
    for _ in range(count):
        yield b"all work and no play\n" * (size // 21)


# P1 to P25


async def test_p01_token_to_any_url(connect: Connect, sink: Server, tmp_path: Path) -> None:
    """No verb opens a URL of a host that is not Meta's, and a trusted media host never sees the token."""
    url = f"{sink.base_url}/media"
    _, api = await connect(info(url, media_id="7"))
    for what in (url, InboundMedia(id="7", kind="image", mime_type=JPEG, url=url), known(sink)):
        with pytest.raises(UntrustedUrlError):
            await api.read(what)
        with pytest.raises(UntrustedUrlError):
            await api.download(what, tmp_path / "copy.jpg")
        with pytest.raises(UntrustedUrlError):
            async with api.stream(what):
                pass
    assert (sink.requests, sink.connections) == ([], 0)


async def test_p01_token_to_a_media_host(connect: Connect, tls: Any) -> None:
    """A host that may serve media gets no token, neither for a URL of its own nor behind a redirect from Meta's."""
    async with Server(page(CONTENT), tls=tls) as cdn:
        server, api = await connect(page("", 302, location=f"{cdn.base_url}/b"), media_hosts=(f"127.0.0.1:{cdn.port}",))
        assert await api.read(f"{cdn.base_url}/a") == CONTENT
        assert await api.read(f"{server.base_url}/media") == CONTENT
        assert server.requests[0].header("authorization") == f"Bearer {TOKEN}"
        assert [request.header("authorization") for request in cdn.requests] == [None, None]
        assert TOKEN not in repr(cdn.requests)


@pytest.mark.parametrize("name", ["../escaped.jpg", "..\\escaped.jpg", "/{abs}/escaped.jpg", "..", "a/../../b.jpg"])
async def test_p02_path_traversal(connect: Connect, folder: Path, name: str) -> None:
    """A name in Content-Disposition never leads out of the folder."""
    said = name.format(abs=str(folder.parent).strip("/")).replace("\\", "\\\\")
    server, api = await connect(page(CONTENT, content_disposition=f'attachment; filename="{said}"'))
    saved = await api.download(known(server), folder)
    assert saved.path is not None
    assert saved.path.parent == folder
    assert files(folder.parent) == {"folder/photo.jpg": OLD, f"folder/{saved.path.name}": CONTENT}


async def test_p03_header_split_at_filename(connect: Connect, folder: Path) -> None:
    """A Content-Disposition of several parameters gives one name, and `filename*` wins."""
    disposition = "attachment; filename=a.jpg; filename*=UTF-8''b%20c.jpg; size=3"
    server, api = await connect(page(CONTENT, content_disposition=disposition))
    saved = await api.download(known(server), folder)
    assert saved.path == folder / "b c.jpg"


async def test_p04_same_name_overwrites(connect: Connect, folder: Path) -> None:
    """Of many downloads of one name into one folder each gets a file of its own, and the old file stays."""
    contents = [f"invoice of customer {number}".encode() for number in range(20)]

    async def serve(request: Received, writer: asyncio.StreamWriter) -> None:
        body = contents[int(request.target.removeprefix("/"))]
        writer.write(page(body, content_disposition='attachment; filename="photo.jpg"'))

    server, api = await connect(serve)
    urls = [f"{server.base_url}/{number}" for number in range(20)]
    saved = await asyncio.gather(*(api.download(url, folder) for url in urls))
    assert [done.path and done.path.read_bytes() for done in saved] == contents
    assert sorted(files(folder).values()) == sorted([OLD, *contents])


async def test_p05_half_a_file_under_the_final_name(connect: Connect, folder: Path) -> None:
    """A reply that breaks off, and a cancellation half way, leave the old file whole and nothing beside it."""
    half = page(CONTENT, content_type=JPEG)[:100_000]
    server, api = await connect(cut_then_close(half), max_retries=0)
    with pytest.raises(NetworkError):
        await api.download(known(server), folder / "photo.jpg")
    assert files(folder) == {"photo.jpg": OLD}
    server, api = await connect(hanging(half), chunk_size=10_000)
    task = asyncio.create_task(api.download(known(server), folder / "photo.jpg"))
    await wait_until(lambda: any(path.stat().st_size for path in folder.iterdir() if path.name != "photo.jpg"))
    assert (folder / "photo.jpg").read_bytes() == OLD
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled_at([], lambda: left_over(folder))  # a thread of a slow disk may be left behind
    assert files(folder) == {"photo.jpg": OLD}


def cut_then_close(said: bytes) -> Step:
    """Say something, then hang up."""

    async def step(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    return step


def hanging(said: bytes) -> Step:
    """Say something, and nothing more."""

    async def step(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await silence(request, writer)

    return step


HARMED = CONTENT[:5000] + b"!" + CONTENT[5001:]
LOGIN = "<!DOCTYPE html><title>Log in to continue</title>"


@pytest.mark.parametrize(
    ("reply", "kind", "promised"),
    [
        (page(HARMED, content_type=JPEG), IntegrityError, {}),
        (page(CONTENT[:-1], content_type=JPEG, length=None), IntegrityError, {"sha256": None}),
        (page(CONTENT[:-1], content_type=JPEG, length=None), IntegrityError, {"file_size": None}),
        (page(LOGIN, content_type="text/html; charset=utf-8"), ServerError, {"sha256": None, "file_size": None}),
    ],
    ids=["corrupted", "cut, by size", "cut, by hash", "login page"],
)
async def test_p06_unverified_bytes(
    connect: Connect, folder: Path, reply: bytes, kind: type[MediaError], promised: dict[str, Any]
) -> None:
    """Bytes that are not the promised ones, and pages of HTML, are errors, and nothing is saved."""
    server, api = await connect(reply)
    with pytest.raises(kind):
        await api.download(known(server, **promised), folder / "photo.jpg")
    with pytest.raises(kind):
        await api.read(known(server, **promised))
    assert files(folder) == {"photo.jpg": OLD}


async def test_p07_transparent_decompression(connect: Connect, folder: Path) -> None:
    """Compression is declined, and what is compressed all the same is refused rather than inflated."""
    bomb = gzip.compress(bytes(50 * 2**20))
    server, api = await connect(page(bomb, content_type=JPEG, content_encoding="gzip"))
    bare = known(server, sha256=None, file_size=None)
    tracemalloc.start()
    try:
        with pytest.raises(ServerError):
            await api.download(bare, folder / "photo.jpg")
        with pytest.raises(ServerError):
            await api.read(bare)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20
    assert files(folder) == {"photo.jpg": OLD}
    assert {request.header("accept-encoding") for request in server.requests} == {"identity"}


async def test_p08_errors_that_cannot_travel(connect: Connect) -> None:
    """An error of Meta's passes context managers, takes notes, and is the same after copy and pickle."""
    _, api = await connect(
        json_response({"error": {"message": "(#100) Param to", "code": 100, "fbtrace_id": "A1"}}, 400)
    )

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        yield

    async def inside() -> None:
        async with AsyncExitStack() as stack:
            stack.enter_context(around())
            await api.get_info("7")

    with pytest.raises(ApiError) as caught:
        await inside()
    error = caught.value
    error.add_note("while testing")
    for twin in (copy.copy(error), copy.deepcopy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is type(error)
        assert (str(twin), vars(twin)) == (str(error), vars(error))
        assert (twin.code, twin.fbtrace_id, twin.operation, twin.media_id) == (100, "A1", "get_info", "7")


def test_p08_errors_that_break_process_pools() -> None:
    """An error raised in a worker process arrives as itself, and the pool goes on working."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        raised = pool.submit(verify_subscription, {"hub.mode": "subscribe"}, "secret").exception()
        assert isinstance(raised, PermissionDeniedError)
        assert raised.status == 403
        assert pool.submit(int, "7").result() == 7


ODD = {
    "html": page(LOGIN, content_type="text/html"),
    "empty": page(),
    "empty object": json_response({}),
    "list": json_response([]),
    "list, refused": json_response(["x"], 400),
    "null": json_response(None),
    "id null": json_response({"id": None, "url": None, "success": None, "messages": [None]}),
    "error text": json_response({"error": "x"}, 400),
    "error in a success": json_response({"error": "x"}),
    "error null": json_response({"error": None}, 500),
    "no code": json_response({"error": {"message": "x"}}, 400),
    "code abc": json_response({"error": {"message": "x", "code": "abc"}}, 400),
    "code list": json_response({"error": {"message": ["x"], "code": [1], "error_data": 5}}, 400),
    "deep": page(b"[" * 200_000, 400),
    "long number": page(b'{"error":{"code":' + b"9" * 5000 + b"}}", 400),
    "not UTF-8": page(b"\xff\xfe\xff", 400),
}


@pytest.mark.parametrize("name", ODD)
async def test_p09_odd_replies(connect: Connect, name: str) -> None:
    """A reply that is none is an ApiError of the verb, whatever it is."""
    _, api = await connect(ODD[name], max_retries=0)
    calls: dict[str, Callable[[], Any]] = {
        "upload": lambda: api.upload(b"text"),
        "get_info": lambda: api.get_info("7"),
        "delete": lambda: api.delete("7"),
        "send": lambda: api.send("+15550001111", "7", kind="image"),
    }
    for verb, call in calls.items():
        with pytest.raises(ApiError) as caught:
            await call()
        assert caught.value.operation == verb
        assert str(caught.value)
        assert caught.value.code is None


async def test_p10_no_retry(connect: Connect) -> None:
    """A throttled request is tried again, a wait that is too long is left to the caller, who is told how long it is."""
    throttled = {"error": {"message": "Rate limit hit", "code": 80007}}
    known_media = info("https://lookaside.fbsbx.com/x", media_id="7")
    server, api = await connect(json_response(throttled, 429, retry_after="0"), known_media)
    assert (await api.get_info("7")).id == "7"
    assert len(server.requests) == 2
    server, api = await connect(json_response(throttled, 429, retry_after="3600"), known_media)
    with pytest.raises(RateLimitError) as caught:
        await api.get_info("7")
    assert (caught.value.retry_after, caught.value.attempts, len(server.requests)) == (3600, 1, 1)


async def test_p11_blocking_files(connect: Connect, tmp_path: Path) -> None:
    """While the opening and the reading of a source take for ever, the event loop goes on."""
    server, api = await connect(json_response({"id": "42", "url": "https://lookaside.fbsbx.com/x", "mime_type": JPEG}))
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    rescued = threading.Event()

    def rescue() -> None:
        """Give whoever is blocked what it waits for, so that the test fails instead of hanging."""
        rescued.set()
        both_ends = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
        os.write(both_ends, b"rescued")
        os.close(both_ends)

    watchdog = threading.Timer(20, rescue)
    watchdog.start()
    try:
        upload = asyncio.create_task(api.upload(pipe))
        assert (await api.get_info("42")).id == "42"  # while it is being opened, and nobody writes
        assert not rescued.is_set()
        with await anyio.to_thread.run_sync(pipe.open, "wb", 0) as writer:
            assert (await api.get_info("42")).id == "42"  # while it is being read, and nothing comes
            assert not rescued.is_set()
            writer.write(b"text")
        assert (await upload).id == "42"
    finally:
        watchdog.cancel()
    assert form(server.requests[-1])["file"].get_payload() == "text"


async def test_p12_iterator_joined_in_memory() -> None:
    """Sixty megabytes from an async iterator cost a few megabytes of memory, with and without a declared size."""
    size, count = 21 * 10_000, 300

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        left = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        while left:
            left -= len(await reader.read(min(left, 2**16)))
        writer.write(json_response({"id": "42"}))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(swallow, "127.0.0.1", 0) as server:
        settings = Settings(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with MediaApi(TOKEN, "1", settings=settings) as api:
            await api.upload(b"warm up")
            for declared in (None, size * count):
                gc.collect()
                tracemalloc.start()
                try:
                    uploaded = await api.upload(pieces(count, size), filename="a.txt", size=declared)
                    _, peak = tracemalloc.get_traced_memory()
                finally:
                    tracemalloc.stop()
                assert uploaded.file_size == size * count
                assert peak < 16 * 2**20


async def test_p13_parallel_calls_time_out(connect: Connect) -> None:
    """Four hundred calls at once on a slow server wait for their turns, and each gets its own answer."""

    async def slow(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)  # so that they queue
        writer.write(info("https://lookaside.fbsbx.com/x", media_id=request.target.rpartition("/")[2]))

    server, api = await connect(slow, backoff=0.5)
    ids = [str(number) for number in range(400)]
    found = await asyncio.gather(*map(api.get_info, ids))
    assert [one.id for one in found] == ids
    assert server.most_at_once <= Settings().concurrency
    assert len(server.requests) == 400


@pytest.mark.parametrize("given", [False, True], ids=["ours", "httpx"])
async def test_p14_cancellation_leak(given: bool) -> None:
    """After hundreds of calls that were cancelled at every moment, over few connections, the next one works."""
    few = httpx.Limits(max_connections=2)
    client = httpx.AsyncClient(limits=few, timeout=httpx.Timeout(10)) if given else None
    async with Server(info("https://lookaside.fbsbx.com/x", media_id="7")) as server, AsyncExitStack() as stack:
        if client:
            await stack.enter_async_context(client)
        settings = Settings(base_url=server.base_url, concurrency=2)
        api = await stack.enter_async_context(MediaApi(TOKEN, "1", settings=settings, http_client=client))
        await api.get_info("7")
        ended = 0
        for turns in [*range(60)] * 5:
            task = asyncio.create_task(api.get_info("7"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            ended += task.cancelled()
        assert ended > 0
        async with asyncio.timeout(20):
            assert [one.id for one in await asyncio.gather(*[api.get_info("7") for _ in range(4)])] == ["7"] * 4


async def test_p15_early_refusal_hidden() -> None:
    """A server that refuses a body before it has read it is heard: its 413 is the error, not a broken connection."""
    refusal = page("Payload Too Large", 413, content_type="text/plain")
    async with hasty(refusal) as url, MediaApi(TOKEN, "1", settings=Settings(base_url=url, validate=False)) as api:
        for _ in range(5):
            with pytest.raises(UploadRejectedError) as caught:
                await api.upload(bytes(30 * 10**6))
            assert (caught.value.status, caught.value.message) == (413, "Payload Too Large")


@pytest.mark.parametrize("text", ["abcd", "aGVsbG8gd29ybGQh", "data:text/plain;base64,aGVsbG8="])
async def test_p16_text_sniffed_as_content(connect: Connect, text: str, monkeypatch: Any, tmp_path: Path) -> None:
    """A `str` is a path and nothing else: one that does not exist is a StorageError, and nothing is sent."""
    monkeypatch.chdir(tmp_path)
    server, api = await connect(json_response({"id": "42"}))
    with pytest.raises(StorageError):
        await api.upload(text)
    assert server.requests == []


async def test_p17_uploads_fetch_urls(connect: Connect, sink: Server, monkeypatch: Any, tmp_path: Path) -> None:
    """A URL is not a source: nothing is fetched from anywhere, and nothing is sent."""
    monkeypatch.chdir(tmp_path)
    server, api = await connect(json_response({"id": "42"}))
    for url in (f"{sink.base_url}/internal", f"file://{tmp_path}/secret", "http://169.254.169.254/latest/meta-data/"):
        with pytest.raises(StorageError):
            await api.upload(url)
    assert (server.connections, sink.connections) == (0, 0)


async def test_p18_query_becomes_the_file_name(connect: Connect, sink: Server) -> None:
    """The query of a source's URL, which may be a signature, is sent nowhere."""
    server, api = await connect(json_response({"id": "42"}))
    url = f"{sink.base_url}/some/a%20b.jpg?X-Amz-Signature=SECRETSIG"
    async with httpx.AsyncClient() as client, client.stream("GET", url) as response:
        await api.upload(response, validate=False)
    assert form(server.requests[0])["file"].get_filename() == "a b.jpg"
    assert b"SECRETSIG" not in server.requests[0].body
    assert "SECRETSIG" not in repr(server.requests[0])


async def test_p19_compressed_length_declared(connect: Connect) -> None:
    """A source that another server sends compressed is uploaded as what it is, with its own length."""
    text = b"some text\n" * 10_000
    server, api = await connect(json_response({"id": "42"}))
    zipped = page(gzip.compress(text), content_type="text/plain", content_encoding="gzip")
    async with (
        Server(zipped) as source,
        httpx.AsyncClient() as client,
        client.stream("GET", f"{source.base_url}/a.txt") as response,
    ):
        uploaded = await api.upload(response)
    assert uploaded.file_size == len(text)
    assert form(server.requests[0])["file"].get_payload(decode=True) == text


async def test_p20_chunked_upload(connect: Connect) -> None:
    """Every upload says how long it is, also from sources that cannot know; none is chunked."""
    server, api = await connect(json_response({"id": "42"}))
    for source in (pieces(20, 210_000), (b"text" for _ in range(5)), io.BytesIO(b"text"), b"text"):
        await api.upload(source, filename="a.txt")
    for request in server.requests:
        assert request.header("transfer-encoding") is None
        assert int(request.header("content-length") or 0) == len(request.body)


HOSTILE = ["123/../../v22.0/4567", "../4567", "7?fields=id", "7#", "7%2f..%2f8", "", " 7", "7\r\nX-Evil: 1", "7\n", "é"]


@pytest.mark.parametrize("media_id", HOSTILE)
async def test_p21_ids_pasted_into_the_path(connect: Connect, media_id: str) -> None:
    """An id that is not one never becomes part of a URL."""
    server, api = await connect(json_response({"success": True}))
    calls: list[Callable[[], Any]] = [
        lambda: api.delete(media_id),
        lambda: api.get_info(media_id),
        lambda: api.read(media_id),
        lambda: api.send("+15550001111", media_id, kind="image"),
        lambda: api.delete("7", phone_number_id=media_id),
        lambda: api.upload(b"text", phone_number_id=media_id),
        lambda: api.read(MediaInfo(id=media_id, url=f"{server.base_url}/media", mime_type=JPEG)),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError):
            await call()
    assert server.connections == 0


@pytest.mark.parametrize(
    "media_id", ["12/../../v1.0/me?fields=name&x=", "7\r\nX-Evil: 1", "https://evil.example/x", ""]
)
async def test_p21_ids_of_replies_pasted_into_the_path(connect: Connect, media_id: str) -> None:
    """An upload's reply whose id is not one is not a success, and its id does not become part of a URL either."""
    server, api = await connect(json_response({"id": media_id}))
    for verify in (False, True):
        with pytest.raises(ServerError) as caught:
            await api.upload(b"text", verify=verify)
        assert (caught.value.maybe_applied, len(server.requests)) == (True, 1)
        server.requests.clear()


@pytest.mark.parametrize("given", [False, True], ids=["ours", "httpx"])
async def test_p22_secrets_in_the_log(connect: Connect, caplog: pytest.LogCaptureFixture, given: bool) -> None:
    """With every logger at DEBUG, neither the token, the app's secret, a proof nor a signed URL is logged or shown."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection", "meta_media", "asyncio"):
        caplog.set_level(logging.DEBUG, name)
    async with httpx.AsyncClient() as client:
        server, api = await connect(page(), client=client if given else None, app_secret=SECRET)
        url = f"{server.base_url}/media?hash=canarySIGNATUREcanary"
        server.script[:] = [
            json_response({"id": "7"}),
            info(url, CONTENT, media_id="7", sha256=SHA256),
            page("", 302, location=f"{url}&again"),
            page(CONTENT, content_type=JPEG),
            json_response({"error": {"message": f"Malformed access token {TOKEN}", "code": 190}}, 401),
        ]
        logging.getLogger("test").debug("heard")
        await api.upload(b"text")
        assert await api.read("7") == CONTENT
        with pytest.raises(ApiError) as caught:
            await api.delete("7")
        proofs = {part for request in server.requests for part in request.target.split("appsecret_proof=")[1:]}
    logged = "\n".join(f"{record.getMessage()} {record.args!r} {vars(record)!r}" for record in caplog.records)
    assert "heard" in logged
    assert ("send_request_headers" in logged) is given
    shown = (logged, repr(api), repr(api.settings), str(caught.value), repr(caught.value), repr(vars(caught.value)))
    for secret in (TOKEN, SECRET, "canarySIGNATUREcanary", *(proof.partition("&")[0] for proof in proofs)):
        assert not any(secret in text for text in shown)


@pytest.mark.parametrize("header", ["sha256=é", "é" * 64, "sha256=\udcff", "sha256=\N{FULLWIDTH DIGIT ZERO}", b"\xff"])
def test_p23_signature_that_is_not_ascii(header: str | bytes) -> None:
    """A signature of any characters is simply a wrong one."""
    assert verify_signature(SECRET, b"body", header) is False


@pytest.mark.parametrize("validate", [True, False])
async def test_p24_header_injected_into_the_form(connect: Connect, validate: bool) -> None:
    """Line breaks in a type are refused, and in a name they are not line breaks on the wire."""
    server, api = await connect(json_response({"id": "42"}))
    for mime_type in ("text/plain\r\nX-Evil: 1", "text/plain\nX-Evil: 1", "text/plain; a=b\r\n\r\nevil"):
        with pytest.raises(MediaError):
            await api.upload(b"text", mime_type=mime_type, validate=validate)
    assert server.connections == 0
    await api.upload(b"text", filename='a"\r\nX-Evil: 1\r\n\r\n.txt', validate=validate)
    sent = form(server.requests[0])
    assert sent.keys() == {"messaging_product", "type", "file"}
    assert {name.lower() for part in sent.values() for name in part} <= {"content-disposition", "content-type"}
    assert sent["file"].get_payload() == "text"


async def test_p25_urls_kept_by_the_wall_clock(connect: Connect) -> None:
    """What a URL says of its end is compared with no clock of this machine: Meta's answer decides."""
    server, api = await connect(page(CONTENT, content_type=JPEG))
    long_dead = known(server, url=f"{server.base_url}/media?ext=1000000000&hash=s")  # in 2001
    assert await api.read(long_dead) == CONTENT
    assert [request.target for request in server.requests] == ["/media?ext=1000000000&hash=s"]
    fresh = info(f"{server.base_url}/fresh", CONTENT, media_id="7", sha256=SHA256)
    server, api = await connect(page("", 404), fresh, page(CONTENT, content_type=JPEG))
    server.script[1] = info(f"{server.base_url}/fresh", CONTENT, media_id="7", sha256=SHA256)
    long_lived = known(server, url=f"{server.base_url}/media?ext=9999999999&hash=s")  # until 2286
    assert await api.read(long_lived) == CONTENT
    assert [request.target.partition("?")[0] for request in server.requests] == ["/media", "/v25.0/7", "/fresh"]


# Also seen


@pytest.mark.parametrize("content", [b'{"error": {"message": "x", "code": 190}}', b"[1, 2", b"null", b"\x00{}"])
async def test_downloads_put_through_a_json_parser(connect: Connect, content: bytes) -> None:
    """Bytes that look like JSON, or say that they are, come as they are: also those that look like an error."""
    server, api = await connect(page(content, content_type="application/json"))
    sha256 = hashlib.sha256(content).hexdigest()
    assert await api.read(known(server, sha256=sha256, file_size=len(content))) == content
    assert await api.read(f"{server.base_url}/media") == content


async def test_webhooks_never_checked(emulator: Emulator) -> None:
    """What was signed passes, and nothing else: no other body, no other secret, no missing signature, no empty secret."""
    body, signature = await emulator.receive(CONTENT, JPEG)
    assert verify_signature(emulator.app_secret, body, signature) is True
    assert [media.kind for media in inbound_media(json.loads(body))] == ["image"]
    assert verify_signature(emulator.app_secret, body + b" ", signature) is False
    assert verify_signature("another", body, signature) is False
    assert verify_signature(emulator.app_secret, body, None) is False
    assert verify_signature(emulator.app_secret, body, "") is False
    with pytest.raises(ConfigurationError):
        verify_signature("", body, signature)


@pytest.mark.parametrize("reply", [page(), page("", 204), page("   "), page("", 201)])
async def test_an_empty_success_taken_for_an_upload(connect: Connect, reply: bytes) -> None:
    """A success without an id is no upload, but may have been one."""
    _, api = await connect(reply, max_retries=0)
    with pytest.raises(ServerError) as caught:
        await api.upload(b"text")
    assert caught.value.maybe_applied is True


@pytest.mark.parametrize("status", [400, 403, 404, 500, 502, 503])
async def test_an_error_page_returned_as_media(connect: Connect, folder: Path, status: int) -> None:
    """The body of a reply that is an error is never the media, whatever type it says it has."""
    server, api = await connect(page(LOGIN, status, content_type=JPEG))
    url = f"{server.base_url}/media"
    with pytest.raises(ApiError) as caught:
        await api.read(url)
    assert caught.value.status == status
    with pytest.raises(ApiError):
        await api.download(url, folder / "photo.jpg")
    with pytest.raises(ApiError):
        async with api.stream(url):
            pass
    assert files(folder) == {"photo.jpg": OLD}


@pytest.mark.parametrize(
    "host",
    [
        "evillookaside.fbsbx.com",
        "lookaside.fbsbx.com.evil.example",
        "lookaside.fbsbx.com.",
        "evilfbcdn.net",
        "fbcdn.net.evil.example",
        "lookaside.fbsbx.com@evil.example",
        "evil.example#lookaside.fbsbx.com",
        "graph.facebook.com.evil.example",
        "evilkapso.ai",
    ],
)
async def test_hosts_trusted_by_their_ending(connect: Connect, host: str) -> None:
    """A host that only ends, or begins, like a trusted one is not trusted, and is not even looked up."""
    server, api = await connect(page(CONTENT), token_hosts=("lookaside.fbsbx.com", "kapso.ai"))
    with pytest.raises(UntrustedUrlError) as caught:
        await api.read(f"https://{host}/media")
    assert (caught.value.attempts, server.connections) == (0, 0)


async def test_an_id_that_is_a_url(connect: Connect, sink: Server) -> None:
    """An id that begins with `http` is no id: nobody is asked, neither Meta nor the URL's host."""
    server, api = await connect(json_response({"success": True}))
    for media_id in (f"{sink.base_url}/x", "https:", "http:/127.0.0.1", "https://lookaside.fbsbx.com/x"):
        for call in (api.get_info, api.delete):
            with pytest.raises(ConfigurationError):
                await call(media_id)
    assert (server.connections, sink.connections) == (0, 0)


async def test_a_token_in_the_place_of_an_id(connect: Connect, tmp_path: Path) -> None:
    """A token that is passed as a media id is not sent in a URL, nor shown."""
    token = "EAAG" + "canary" * 5
    server, media = await connect()
    works = (media.get_info(token), media.delete(token), media.read(token), media.send("+15550001111", token))
    for work in (*works, media.download(token, tmp_path / "a.jpg")):
        with pytest.raises(ConfigurationError, match="the media id is an access token: pass the id") as caught:
            await work
        assert "canary" not in f"{caught.value!r} {vars(caught.value)}"
    assert server.requests == []


async def test_urls_that_name_things(connect: Connect, tmp_path: Path) -> None:
    """The query of a URL, which may be a signature, is in no name that is sent, and in the `repr` of no outcome."""
    url = "https://media.test/a/photo.txt?hash=canary"
    server, media = await connect(json_response({"id": "1"}))
    await media.upload(b"text", filename=url)
    assert b'filename="photo.txt"' in server.requests[0].body
    report = await media.download_many([url], tmp_path).report()
    assert "canary" not in repr(report)
    assert report.failures[0].source == url


@pytest.mark.parametrize("wrong", ["10MB", -1, True, 1.5])
async def test_sizes_that_are_none(connect: Connect, wrong: Any) -> None:
    """A size that is no number of bytes is refused before any request."""
    server, media = await connect()
    with pytest.raises(ConfigurationError, match="max_size must be a number of bytes, a whole number from 0, not"):
        await media.read("7", max_size=wrong)
    assert server.requests == []


async def test_a_progress_that_is_no_function(connect: Connect) -> None:
    """What cannot be called is refused, also by a run, before any request."""
    server, media = await connect()
    with pytest.raises(ConfigurationError, match="progress must be a function, not int"):
        await media.upload(b"text", progress=5)
    with pytest.raises(ConfigurationError, match="progress must be a function, not int"):
        media.upload_many([b"text"], progress=5)
    assert server.requests == []


@pytest.mark.parametrize(
    ("make", "what", "sentence"),
    [
        (Source.bytes, "text", "Source.bytes takes bytes or a buffer, not a str: encode text first"),
        (Source.bytes, None, "Source.bytes takes bytes or a buffer, not a NoneType: encode text first"),
        (Source.stream, None, "cannot upload a NoneType: pass a path, bytes, "),
    ],
)
async def test_what_the_constructors_of_a_source_refuse(
    connect: Connect, make: Callable[[Any], Source], what: Any, sentence: str
) -> None:
    """What is not of the kind that was chosen is refused before any request."""
    server, media = await connect()
    with pytest.raises(InvalidMediaError) as caught:
        await media.upload(make(what))
    assert str(caught.value).startswith(sentence)
    assert server.requests == []
