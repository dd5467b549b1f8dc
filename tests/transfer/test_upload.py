"""Uploads: examined first, framed exactly, streamed once, and told of truthfully."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from email.message import Message
from email.parser import BytesParser
from typing import Any

import anyio
import anyio.to_thread
import pytest

from meta_media import MediaApi, Progress, Settings, Source, UploadedMedia, samples
from meta_media.emulator import Emulator, EmulatorSettings
from meta_media.errors import (
    AccountRestrictedError,
    ApiError,
    ConfigurationError,
    CorruptedMediaError,
    FileTooLargeError,
    IntegrityError,
    InvalidMediaError,
    InvalidRequestError,
    MediaError,
    NetworkError,
    RateLimitError,
    ServerError,
    TransferTimeoutError,
    UnsupportedMediaTypeError,
    UploadRejectedError,
)
from tests.support.servers import Server, cut, json_response, page, reset, silence, stalled, wait_until

TEXT = b"some text\n" * 50_000
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x06\0\0\0"
Connect = Callable[..., Any]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Start scripted servers, each with a client that takes it for the Graph API."""
    async with AsyncExitStack() as stack:

        async def connected(*script: Any, **settings: Any) -> tuple[Server, MediaApi]:
            server = await stack.enter_async_context(Server(*script))
            configured = Settings(base_url=server.base_url, **{"max_retries": 0} | settings)
            return server, await stack.enter_async_context(MediaApi("token", "1", settings=configured))

        yield connected


def form(server: Server) -> dict[str, Message]:
    """Read the newest form by the standard library's email parser."""
    request = server.requests[-1]
    head = f"Content-Type: {request.header('content-type')}\r\n\r\n".encode()
    parts: Any = BytesParser().parsebytes(head + request.body).get_payload()
    return {part.get_param("name", header="content-disposition"): part for part in parts}


def text_of(part: Message) -> str:
    """Return the content of a field."""
    content: Any = part.get_payload(decode=True)
    return str(content.decode())


# What is sent


async def test_the_whole_request(connect: Connect) -> None:
    """One request goes out: the fields, then the file in a part of its own type and name, of exactly the told length."""
    server, api = await connect(json_response({"id": "42"}))
    uploaded = await api.upload(TEXT, filename="note.txt")
    assert uploaded == UploadedMedia(id="42", mime_type="text/plain", file_size=len(TEXT))
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/v25.0/1/media")
    assert request.header("content-length") == str(len(request.body))
    assert {name for name, _ in request.headers} == {
        "host",
        "authorization",
        "user-agent",
        "accept",
        "accept-encoding",
        "content-type",
        "content-length",
    }
    fields = form(server)
    assert list(fields) == ["messaging_product", "type", "file"]
    assert [text_of(fields[name]) for name in ("messaging_product", "type")] == ["whatsapp", "text/plain"]
    assert (fields["file"].get_filename(), fields["file"].get_content_type()) == ("note.txt", "text/plain")
    assert fields["file"].get_payload(decode=True) == TEXT


@pytest.mark.parametrize("content", [TEXT[:10], TEXT[: 2**17], TEXT[: 2**17 + 10]], ids=["short", "small", "large"])
@pytest.mark.parametrize("options", [{}, {"filename": "a b.txt", "verify": True, "ttl": timedelta(hours=1)}], ids=str)
async def test_every_way_sends_the_same(connect: Connect, content: bytes, options: dict[str, Any]) -> None:
    """Bytes, which need no opening, are sent as any other source of the same content is."""
    sha256 = hashlib.sha256(content).hexdigest()
    info = json_response({"id": "42", "url": "https://x", "mime_type": "text/plain", "sha256": sha256})
    script = [json_response({"id": "42", "extra": 1}), *([info] if "verify" in options else [])]
    sources = (content, bytearray(content), memoryview(content), io.BytesIO(content), Source.stream([content]))
    server, api = await connect(*script * len(sources))
    results, sent = [], []
    for source in sources:
        uploaded = await api.upload(source, **options)
        results.append((uploaded, uploaded.filename, uploaded.attempts, uploaded.extra, uploaded.file_size))
        request = [request for request in server.requests if request.method == "POST"][-1]
        boundary = request.header("content-type").partition("boundary=")[2]
        head = [(name, value.replace(boundary, "…")) for name, value in request.headers]
        sent.append((request.target, head, request.body.replace(boundary.encode(), b"\xe2\x80\xa6")))
    assert all(each == results[0] for each in results)
    assert all(each == sent[0] for each in sent)


async def test_memory_that_changes_meanwhile(connect: Connect) -> None:
    """What is sent of a small buffer was read before the request: each attempt sends the same."""
    server, api = await connect(page(b"busy", status=503), json_response({"id": "42"}), max_retries=1, backoff=0)
    content = bytearray(b"words")

    def change(_: Progress) -> None:
        content[:1] = b"n"

    await api.upload(content, progress=change)
    assert [b"words" in request.body for request in server.requests] == [True, True]


@pytest.mark.parametrize(
    ("ttl", "minutes"),
    [(timedelta(hours=1), "60"), (timedelta(days=30), "43200"), (timedelta(minutes=90, seconds=59), "90")],
)
async def test_ttl_and_use_case(connect: Connect, ttl: timedelta, minutes: str) -> None:
    """Time to live and use case are sent in Meta's words, the time in whole minutes."""
    server, api = await connect(json_response({"id": "42"}))
    await api.upload(TEXT, ttl=ttl, use_case="call_voicemail_announcement")
    fields = form(server)
    assert text_of(fields["ttl_minutes"]) == minutes
    assert text_of(fields["use_case"]) == "call_voicemail_announcement"


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl": timedelta(minutes=59)},
        {"ttl": timedelta(days=30, seconds=1)},
        {"ttl": timedelta(days=-1)},
        {"ttl": 60},
        {"use_case": ""},
        {"use_case": "a b"},
        {"use_case": 'x"\r\n'},
        {"use_case": 5},
        {"filename": 5},
        {"mime_type": b"image/jpeg"},
        {"size": -1},
        {"size": True},
        {"size": "7"},
        {"phone_number_id": "../me"},
        {"phone_number_id": ""},
    ],
    ids=repr,
)
async def test_wrong_options(emulator: Emulator, media: MediaApi, wrong: dict[str, Any]) -> None:
    """An option that cannot work is a ConfigurationError that names it, before any request."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))) as caught:
        await media.upload(TEXT, **wrong)
    assert (caught.value.operation, caught.value.attempts) == ("upload", 0)
    assert emulator.requests == []


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("../../etc/passwd.txt", "passwd.txt"),
        ("C:\\temp\\con.txt", "_con.txt"),
        ('a"\r\nX-Evil: 1\r\n.txt', "a_X-Evil_ 1.txt"),
        ("\u202etxt.exe", "txt.exe.txt"),
        ("%0d%0a%22.txt", "_0d_0a_22.txt"),
        ("résumé.txt", "résumé.txt"),
        ("", "media.txt"),
        ("..", "media.txt"),
        ("\udcff.txt", "txt.txt"),
    ],
)
async def test_hostile_names(connect: Connect, name: str, sent: str) -> None:
    """A name is made harmless before it is put into a header."""
    server, api = await connect(json_response({"id": "42"}))
    await api.upload(TEXT, filename=name, mime_type="text/plain")
    head = server.requests[0].body.partition(TEXT)[0].decode()
    assert f'name="file"; filename="{sent}"\r\nContent-Type: text/plain\r\n\r\n' in head
    assert "\r\nX-Evil" not in head


@pytest.mark.parametrize("mime_type", ["image/png\r\nX-Evil: 1", "image", "", "image/", 'a/b"', "imäge/png"])
async def test_hostile_mime_type(emulator: Emulator, media: MediaApi, mime_type: str) -> None:
    """A MIME type that is none never gets into a header, validation or not."""
    for validate in (True, False):
        with pytest.raises(UnsupportedMediaTypeError):
            await media.upload(TEXT, mime_type=mime_type, validate=validate)
    assert emulator.requests == []


async def test_every_sample(emulator: Emulator, media: MediaApi) -> None:
    """Every sample file is accepted by our checks and by Meta's."""
    for path in await anyio.to_thread.run_sync(samples.paths):
        uploaded = await media.upload(path, verify=True)
        assert uploaded.mime_type == (await media.get_info(uploaded.id)).mime_type


@pytest.mark.parametrize(
    ("content", "options", "kind"),
    [
        (b"GIF89a" + bytes(50), {}, UnsupportedMediaTypeError),
        (PNG, {"mime_type": "image/jpeg"}, UnsupportedMediaTypeError),
        (bytes(50), {"mime_type": "image/jpeg"}, CorruptedMediaError),
        (PNG + bytes(5 * 2**20), {}, FileTooLargeError),
        (b"", {}, CorruptedMediaError),
        (b"", {"mime_type": "image/jpeg"}, CorruptedMediaError),
    ],
)
async def test_what_whatsapp_does_not_take(
    emulator: Emulator, media: MediaApi, content: bytes, options: dict[str, Any], kind: type[MediaError]
) -> None:
    """What WhatsApp does not take is refused before any request."""
    with pytest.raises(kind):
        await media.upload(content, **options)
    assert emulator.requests == []


@pytest.mark.parametrize("how", ["of the call", "of the settings"])
async def test_validation_off(emulator: Emulator, media: MediaApi, how: str) -> None:
    """Without validation it is Meta who refuses, and her answer arrives."""
    api = media if how == "of the call" else media.with_options(validate=False)
    with pytest.raises(UploadRejectedError, match="Received file of type 'image/gif'") as caught:
        await api.upload(b"GIF89a" + bytes(50), validate=how == "of the settings")
    assert (caught.value.status, caught.value.code, caught.value.attempts) == (400, 100, 1)


async def test_empty_file_unchecked(connect: Connect) -> None:
    """Without validation even an empty file is sent, with its exact length."""
    server, api = await connect(json_response({"id": "42"}))
    assert (await api.upload(b"", mime_type="text/plain", validate=False)).file_size == 0
    assert server.requests[0].header("content-length") == str(len(server.requests[0].body))


# What comes back


@pytest.mark.parametrize("code", [131031, 131042, 131051])
@pytest.mark.parametrize("contrary", [False, True])
async def test_verdicts(connect: Connect, code: int, contrary: bool) -> None:
    """The codes of a verdict on the file are told as such, unless the reply's own words say otherwise."""
    verdicts: dict[int, tuple[type[MediaError], type[MediaError], str]] = {
        131031: (FileTooLargeError, AccountRestrictedError, "Account has been locked"),
        131042: (UnsupportedMediaTypeError, AccountRestrictedError, "Business eligibility payment issue"),
        131051: (CorruptedMediaError, InvalidRequestError, "Unsupported message type"),
    }
    verdict, other, words = verdicts[code]
    message = f"(#{code}) {words}" if contrary else f"(#{code}) Not this file"
    _, api = await connect(json_response({"error": {"message": message, "code": code, "fbtrace_id": "A1"}}, 400))
    with pytest.raises(other if contrary else verdict) as caught:
        await api.upload(TEXT)
    assert (caught.value.operation, caught.value.attempts) == ("upload", 1)
    if isinstance(caught.value, InvalidMediaError):
        assert caught.value.answer is not None
        assert (caught.value.answer.code, caught.value.answer.fbtrace_id) == (code, "A1")


REPLIES: dict[str, tuple[Any, type[MediaError], bool, bool]] = {
    # reply: class, retryable, maybe applied
    "empty": (page(), ServerError, True, True),
    "list": (json_response([]), ServerError, False, True),
    "no id": (json_response({}), ServerError, False, True),
    "null": (json_response(None), ServerError, False, True),
    "id is null": (json_response({"id": None}), ServerError, False, True),
    "id is a number": (json_response({"id": 5}), ServerError, False, True),
    "HTML": (page("<html>", content_type="text/html"), ServerError, False, True),
    "compressed": (page(b"x", content_encoding="gzip"), ServerError, False, True),
    "2 MiB": (page(b'{"id":"1"}' + b" " * 2**21), ServerError, False, True),
    "nested": (page("[" * 200_000), ServerError, False, True),
    "500": (page("", 500), ServerError, True, True),
    "502 HTML": (page("<html>", 502, content_type="text/html"), ServerError, True, True),
    "429": (page("", 429), RateLimitError, True, False),
    "413": (page("", 413), UploadRejectedError, False, False),
    "302": (page("", 302, location="/elsewhere"), ServerError, False, False),
    "nothing": (cut(b""), NetworkError, True, True),
    "half a head": (cut(b"HTTP/1.1 200 OK\r\nContent-"), NetworkError, True, True),
    "half a body": (cut(page(b'{"id":', length=20)), NetworkError, True, True),
    "garbage": (cut(b"SSH-2.0-OpenSSH_9.6\r\n"), NetworkError, True, True),
    "reset": (reset(), NetworkError, True, True),
}


@pytest.mark.parametrize("reply", REPLIES)
async def test_odd_replies(connect: Connect, reply: str) -> None:
    """An odd reply is one of our errors, which says whether to try again and whether the upload may be there anyway."""
    script, kind, retryable, maybe_applied = REPLIES[reply]
    server, api = await connect(script, json_response({"id": "42"}))
    with pytest.raises(kind) as caught:
        await api.upload(TEXT)
    assert type(caught.value) is kind
    assert (caught.value.retryable, caught.value.maybe_applied) == (retryable, maybe_applied)
    assert (caught.value.operation, caught.value.attempts, caught.value.media_id) == ("upload", 1, None)
    assert caught.value.elapsed > 0
    assert len(server.requests) == 1
    assert (await api.upload(TEXT)).id == "42"


async def test_no_reply(connect: Connect) -> None:
    """A reply that does not come is a TransferTimeoutError of an upload that may have been applied."""
    _, api = await connect(silence, read_timeout=0.3)
    with pytest.raises(TransferTimeoutError) as caught:
        await api.upload(TEXT)
    assert (caught.value.phase, caught.value.maybe_applied, caught.value.retryable) == ("read", True, True)


async def test_server_that_does_not_read() -> None:
    """A server that takes nothing any more is a TransferTimeoutError of the write phase."""
    blocked = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await blocked.wait()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0, limit=2**10)
    settings = Settings(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", write_timeout=0.5)
    async with server, MediaApi("token", "1", settings=settings) as api:
        with pytest.raises(TransferTimeoutError) as caught:
            await api.upload(b"text " * 10**7)
        assert (caught.value.phase, caught.value.maybe_applied) == ("write", True)
        blocked.set()


@pytest.mark.parametrize("oversize", ["graph", "proxy"])
async def test_too_large_for_meta(oversize: Any) -> None:
    """A file that only Meta finds too large is an UploadRejectedError, or the early hang-up that it came with."""
    settings = EmulatorSettings(oversize_reply=oversize, megabyte=10**6)
    async with Emulator(settings=settings) as emulator, emulator.api() as media:
        with pytest.raises((UploadRejectedError, NetworkError)) as caught:
            await media.upload(PNG + bytes(5 * 10**6 + 1000))
        assert isinstance(caught.value, NetworkError | ApiError)
        assert (await media.upload(b"text")).file_size == 4


# Verification


async def test_verify(media: MediaApi) -> None:
    """With verify the hash of what was sent is compared with what Meta has, and returned."""
    uploaded = await media.upload(TEXT, verify=True)
    assert uploaded.sha256 == hashlib.sha256(TEXT).hexdigest()
    assert (await media.upload(TEXT)).sha256 is None


async def test_verify_finds_other_bytes(connect: Connect) -> None:
    """With verify a wrong hash is an IntegrityError that names the media, so that it can be deleted."""
    facts = {"id": "42", "url": "https://x/", "mime_type": "text/plain"}
    server, api = await connect(
        json_response({"id": "42"}),
        json_response(facts | {"sha256": "0" * 64}),
        json_response({"id": "42"}),
        json_response(facts),
    )
    with pytest.raises(IntegrityError, match="Meta stored other bytes than were sent, as media 42") as caught:
        await api.upload(TEXT, verify=True)
    assert (caught.value.expected, caught.value.actual) == (hashlib.sha256(TEXT).hexdigest(), "0" * 64)
    assert (caught.value.media_id, caught.value.maybe_applied, caught.value.operation) == ("42", True, "upload")
    with pytest.raises(IntegrityError) as missing:
        await api.upload(TEXT, verify=True)
    assert missing.value.actual is None
    assert [request.method for request in server.requests] == ["POST", "GET"] * 2


async def test_verify_that_fails(connect: Connect) -> None:
    """An upload that went well and could not be verified says so: the id, and that it is there."""
    _, api = await connect(json_response({"id": "42"}), reset())
    with pytest.raises(NetworkError) as caught:
        await api.upload(TEXT, verify=True)
    assert (caught.value.media_id, caught.value.maybe_applied, caught.value.operation) == ("42", True, "upload")


# Progress and the user's own errors


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_progress(media: MediaApi, asynchronous: bool) -> None:
    """Progress is told after each chunk, to plain and async callbacks."""
    seen: list[Progress] = []

    async def callback(progress: Progress) -> None:
        await asyncio.sleep(0)
        seen.append(progress)

    await media.with_options(chunk_size=200_000).upload(TEXT, progress=callback if asynchronous else seen.append)
    assert seen == [Progress(transferred=sent, total=500_000) for sent in (200_000, 400_000, 500_000)]


class _OwnError(Exception):
    pass


@pytest.mark.parametrize("with_cause", [True, False])
@pytest.mark.parametrize("kind", [_OwnError, OSError, TimeoutError, NetworkError])
async def test_callback_that_raises(
    emulator: Emulator, media: MediaApi, kind: type[Exception], with_cause: bool
) -> None:
    """What a callback raises arrives unchanged, cause and all, and the connection is not used again in a broken state."""
    own = kind("mine")
    cause = KeyError("the cause") if with_cause else None

    def callback(_: Progress) -> None:
        raise own from cause

    for _ in range(3):
        with pytest.raises(kind) as caught:
            await media.upload(TEXT, progress=callback)
        assert caught.value is own
        assert caught.value.__cause__ is cause
    uploaded = await media.upload(TEXT)
    assert await media.read(uploaded.id) == TEXT


async def test_implicit_cause_is_kept(media: MediaApi) -> None:
    """An exception that was raised while another was handled still says so."""

    def callback(_: Progress) -> None:
        try:
            raise KeyError("first")
        except KeyError:
            raise _OwnError("second")  # noqa: B904 - the implicit cause is what is tested

    with pytest.raises(_OwnError) as caught:
        await media.upload(TEXT, progress=callback)
    assert isinstance(caught.value.__context__, KeyError)
    assert caught.value.__suppress_context__ is False


# Cancellation


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("moment", ["reply", "progress", "source", "verify"])
async def test_cancelled(connect: Connect, moment: str, times: int) -> None:
    """An upload that is cancelled while it waits for anything is cancelled, and the client works on."""
    here = asyncio.Event()

    async def wait(_: Progress) -> None:
        here.set()
        await asyncio.Event().wait()

    async def source() -> AsyncIterator[bytes]:
        yield TEXT[:300_000]
        here.set()
        await asyncio.Event().wait()

    scripts: dict[str, list[Any]] = {"reply": [silence], "verify": [json_response({"id": "42"}), silence]}
    script = scripts.get(moment, [])
    server, api = await connect(*script, json_response({"id": "42"}))
    given: Any = source() if moment == "source" else TEXT
    options: dict[str, Any] = {"size": len(TEXT), "mime_type": "text/plain"} if moment == "source" else {}
    if moment == "progress":
        options["progress"] = wait
    task = asyncio.ensure_future(api.upload(given, verify=moment == "verify", **options))
    await wait_until(lambda: here.is_set() or (bool(script) and len(server.requests) == len(script)))
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)  # so that the second one arrives during the clean-up
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await api.upload(TEXT)).id == "42"


async def test_uploaded_in_a_scope_that_is_cancelled(emulator: Emulator, media: MediaApi) -> None:
    """Media of a block is deleted also when an anyio scope around it is cancelled, which cancels again and again."""
    with anyio.CancelScope() as scope:
        async with media.uploaded(TEXT) as uploaded:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert (emulator.requests[-1].method, emulator.requests[-1].path) == ("DELETE", f"/v25.0/{uploaded.id}")


async def test_cancelled_all_day(connect: Connect) -> None:
    """Hundreds of cancelled uploads do not use connections up."""
    _, api = await connect(json_response({"id": "42"}), concurrency=4)
    for turns in range(200):
        task = asyncio.ensure_future(api.upload(TEXT))
        for _ in range(turns % 50):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert [one.id for one in await asyncio.gather(*(api.upload(TEXT) for _ in range(20)))] == ["42"] * 20


async def test_uploads_wait_with_nothing_open(connect: Connect) -> None:
    """A call that waits for its turn has not touched its source yet."""
    hold = asyncio.Event()
    server, api = await connect(
        stalled(b"", hold, json_response({"id": "42"})), json_response({"id": "42"}), concurrency=1
    )
    touched: list[int] = []

    async def source() -> AsyncIterator[bytes]:
        touched.append(len(touched))
        yield b"text"

    tasks = [asyncio.ensure_future(api.upload(source(), mime_type="text/plain")) for _ in range(5)]
    await wait_until(lambda: len(server.requests) == 1)
    await asyncio.sleep(0.05)  # time enough for the others, were they not waiting
    assert touched == [0]
    hold.set()
    assert len(await asyncio.gather(*tasks)) == 5


async def test_extra_facts_of_the_reply(connect: Connect) -> None:
    """What Meta says beyond the id is kept."""
    _, api = await connect(json_response({"id": "42", "expires": json.loads("5")}))
    assert (await api.upload(TEXT)).extra == {"expires": 5}
