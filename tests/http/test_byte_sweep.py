"""
Replies that are cut after any byte, or have any bit flipped: the right result or an error of ours, and nothing left behind.

What is right differs by verb, for not everything that Meta says can be checked by anybody:

- A download is verified: its bytes are the promised ones, whatever happened to any byte of the reply.
- `get_info` must be about the media that was asked for; of everything else it tells what arrived. A bit flipped inside the
  JSON's strings and numbers can be noticed only by the download that follows, and is.
- An upload's id is whatever arrived, unless `verify` has asked Meta about it. Then it is the right one.
- A delete says success, and an unharmed body is the only one that can.
- A message's id is whatever arrived: nothing can be asked about it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import ssl
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import attrs
import pytest

from meta_media import DeletedMedia, DownloadedMedia, MediaApi, MediaInfo, SentMessage, Settings, UploadedMedia
from meta_media.errors import IntegrityError, MediaError, NetworkError, ServerError
from tests.support.marks import slow_except
from tests.support.servers import Received, Server, Step, cut, page, reset
from tests.support.stepping import LeanServer, descriptors, none_added, settled_at

MEDIA = "1234567890"
CONTENT = bytes(range(256))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OLD = b"what was there before"
JPEG = "image/jpeg"
GONE = b'{"error":{"message":"Unsupported get request","code":100,"error_subcode":33}}'
PATIENCE = 0.05  # seconds after which a server hangs up on a client that waits for more
BOUND = 20  # seconds that no call may take
SPARSE = 7  # offsets from one to the next where not every one is tried

FRAMINGS = ("length", "chunked", "close")
ENDINGS = ("close", "reset")
TLS_CUTS = (("length", "close"), ("length", "reset"), ("close", "close"))
Segments = list[tuple[bytes, bool]]  # of a reply, and whether each is of its body


# The verbs


def info_body(base_url: str) -> bytes:
    """Write Meta's answer about the media."""
    told = {"messaging_product": "whatsapp", "url": f"{base_url}/media?hash=s", "mime_type": JPEG}
    return json.dumps(told | {"sha256": SHA256, "file_size": len(CONTENT), "id": MEDIA}).encode()


def known(api: MediaApi) -> MediaInfo:
    """Make what Meta said of the media a moment ago."""
    url = f"{api.settings.base_url}/media?hash=s"
    return MediaInfo(id=MEDIA, url=url, mime_type=JPEG, sha256=SHA256, file_size=len(CONTENT))


async def streamed(api: MediaApi) -> bytes:
    """Stream the media to its end."""
    async with api.stream(known(api)) as stream:
        return b"".join([chunk async for chunk in stream])


def info_is_as_told(result: MediaInfo, body: bytes) -> bool:
    """Whether it is about the media that was asked for, and says what arrived."""
    told = json.loads(body)
    sha256, size = told.get("sha256"), told.get("file_size")
    facts = (result.url, result.mime_type, result.sha256, result.file_size)
    said = (told["url"], told["mime_type"], sha256 and sha256.lower(), size)
    return result.id == MEDIA and facts == said


def upload_is_as_told(result: UploadedMedia, body: bytes) -> bool:
    """Whether the id is the one that arrived."""
    return bool(result.id == json.loads(body)["id"])


def message_is_as_told(result: SentMessage, body: bytes) -> bool:
    """Whether the message's id is the one that arrived."""
    return bool(result.id == json.loads(body)["messages"][0]["id"])


def download_is_verified(result: DownloadedMedia, _: bytes) -> bool:
    """Whether it says what was promised; the file itself is looked at after every call."""
    return (result.sha256, result.size, result.media_id) == (SHA256, len(CONTENT), MEDIA)


@attrs.frozen(kw_only=True)
class Verb:
    """A call whose first reply is harmed."""

    call: Callable[[MediaApi, Path], Coroutine[Any, Any, Any]]  # files go to `copy.jpg` in the folder
    right: Callable[[Any, bytes], bool]  # whether a result is right, given the body as it arrived
    body: Callable[[str], bytes]  # of the harmed reply, given the server's address
    operation: str  # that its errors name
    mime_type: str = "application/json"  # of the harmed reply

    @property
    def changes(self) -> bool:
        """Whether Meta may have done something although its reply was lost."""
        return self.operation in {"upload", "delete", "send"}


UPLOADED = b'{"id":"1234567890"}'
DELETED = b'{"success":true}'
SENT = (
    b'{"messaging_product":"whatsapp","contacts":[{"input":"15550001111","wa_id":"15550001111"}],'
    b'"messages":[{"id":"wamid.HBgL"}]}'
)
VERBS = {
    "upload": Verb(
        call=lambda api, _: api.upload(CONTENT, filename="a.txt", validate=False),
        right=upload_is_as_told,
        body=lambda _: UPLOADED,
        operation="upload",
    ),
    "upload, verified": Verb(
        call=lambda api, _: api.upload(CONTENT, filename="a.txt", validate=False, verify=True),
        right=lambda result, _: result.id == MEDIA,
        body=lambda _: UPLOADED,
        operation="upload",
    ),
    "get_info": Verb(
        call=lambda api, _: api.get_info(MEDIA), right=info_is_as_told, body=info_body, operation="get_info"
    ),
    "download": Verb(
        call=lambda api, folder: api.download(known(api), folder / "copy.jpg"),
        right=download_is_verified,
        body=lambda _: CONTENT,
        operation="download",
        mime_type=JPEG,
    ),
    "read": Verb(
        call=lambda api, _: api.read(known(api)),
        right=lambda result, _: result == CONTENT,
        body=lambda _: CONTENT,
        operation="download",
        mime_type=JPEG,
    ),
    "stream": Verb(
        call=lambda api, _: streamed(api),
        right=lambda result, _: result == CONTENT,
        body=lambda _: CONTENT,
        operation="download",
        mime_type=JPEG,
    ),
    "delete": Verb(
        call=lambda api, _: api.delete(MEDIA),
        right=lambda result, _: result == DeletedMedia(success=True),
        body=lambda _: DELETED,
        operation="delete",
    ),
    "send": Verb(
        call=lambda api, _: api.send("+15550001111", MEDIA, kind="image"),
        right=message_is_as_told,
        body=lambda _: SENT,
        operation="send",
    ),
}
EXTRA = ("upload, verified", "read", "stream")  # beside the five operations: swept in one framing
SWEPT = [(name, framing) for name in VERBS for framing in (FRAMINGS[:1] if name in EXTRA else FRAMINGS)]
BY_ID = Verb(  # the harmed reply is the one about the media
    call=lambda api, folder: api.download(MEDIA, folder / "copy.jpg"),
    right=lambda result, _: result.size == len(CONTENT) and result.media_id == MEDIA,
    body=info_body,
    operation="download",
)


# What the server says


def reply(body: bytes, mime_type: str, framing: str = "length", status: int = 200, **more: str) -> Segments:
    """Write a reply as Meta's servers do, in segments, so that its body can be found again."""
    date = "Mon, 23 Nov 2026 15:18:01 GMT"
    head, _, _ = page(
        body,
        status,
        length=None if framing == "close" else -1,
        content_type=mime_type,
        x_fb_trace_id="FyMJ1mQeNyY",
        date=date,
        **more,
    ).partition(b"\r\n\r\n")
    if framing != "chunked":
        return [(head + b"\r\n\r\n", False), (body, True)]
    head = head.replace(b"content-length: %d" % len(body), b"transfer-encoding: chunked")
    half = len(body) // 2
    sizes = [b"%x\r\n" % len(piece) for piece in (body[:half], body[half:])]
    return [
        (head + b"\r\n\r\n" + sizes[0], False),
        (body[:half], True),
        (b"\r\n" + sizes[1], False),
        (body[half:], True),
        (b"\r\n0\r\n\r\n", False),
    ]


def joined(segments: Segments) -> bytes:
    """Put a reply together."""
    return b"".join(segment for segment, _ in segments)


def flips(segments: Segments) -> Iterator[tuple[bytes, bytes]]:
    """Flip one bit of each byte in turn; give the reply, and the body that is left in it."""
    whole = joined(segments)
    for offset in range(len(whole)):
        harmed = bytearray(whole)
        harmed[offset] ^= 1 << offset % 8
        body, start = b"", 0
        for segment, is_body in segments:
            body += harmed[start : start + len(segment)] if is_body else b""
            start += len(segment)
        yield bytes(harmed), body


def healthy(base_url: str, method: str, target: str, wanted: str | None = None) -> bytes:
    """Say what Meta says, of this one media and of no other."""
    path = target.partition("?")[0]
    if method == "GET" and path == "/media":
        if wanted is None:
            return joined(reply(CONTENT, JPEG))
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        return joined(reply(CONTENT[start:], JPEG, status=206, content_range=span))
    answers = {
        ("GET", f"/v25.0/{MEDIA}"): info_body(base_url),
        ("DELETE", f"/v25.0/{MEDIA}"): DELETED,
        ("POST", "/v25.0/1/media"): UPLOADED,
        ("POST", "/v25.0/1/messages"): SENT,
    }
    answer = answers.get((method, path))
    return joined(reply(answer or GONE, "application/json", status=200 if answer else 400))


class Harmful:
    """Answers one request with a harmed reply, and all others well."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.server = LeanServer(self._answer, tls)
        self.said: bytes | None = None  # the harmed reply, until it has been sent
        self.ending = ""  # of the connection then: "close", "reset", or "" for none

    async def __aenter__(self) -> Self:
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.server.__aexit__(*error)

    def _answer(self, method: str, target: str) -> bytes:
        said, self.said = self.said, None
        if said is None:
            return healthy(self.server.base_url, method, target)
        if self.ending:
            asyncio.get_running_loop().call_soon(self.hang_up)  # by then it has been said
        return said

    def hang_up(self) -> None:
        """End all connections, once the harmed reply has been said."""
        if self.said is None:
            for connection in tuple(self.server.open):
                end(connection.transport, self.ending)


def end(transport: asyncio.WriteTransport, how: str) -> None:
    """Close a connection, or break it with RST."""
    if how != "reset":
        transport.close()
        return
    connection: socket.socket | None = transport.get_extra_info("socket")
    if connection is not None:  # else it has gone already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


# The sweep


async def outcome(call: Coroutine[Any, Any, Any], hang_up: Callable[[], None]) -> Any:
    """Return the result or our error; anything else is raised, and so is a hang. A client that waits is hung up on."""
    task = asyncio.create_task(call)
    async with asyncio.timeout(BOUND):
        await asyncio.wait((task,), timeout=PATIENCE)
        while not task.done():
            hang_up()
            await asyncio.wait((task,), timeout=PATIENCE)
    try:
        return await task
    except MediaError as error:
        return error


def files_are_whole(folder: Path, saved: bool) -> bool:
    """Whether there is the one file, with the new bytes if they were saved and the old ones if not; then restore it."""
    (name,) = os.listdir(folder)  # noqa: PTH208 - thousands of times
    path = folder / name
    content = path.read_bytes()
    if content != OLD:
        path.write_bytes(OLD)
    return name == "copy.jpg" and content == (CONTENT if saved else OLD)


def client(base_url: str, **settings: Any) -> MediaApi:
    """Make a client, which by default does not try again."""
    chosen = Settings(base_url=base_url, **{"max_retries": 0, "backoff": 0.001} | settings)
    return MediaApi("EAAGscripted", "1", settings=chosen)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one file, which downloads are to replace."""
    path = tmp_path / "folder"
    path.mkdir()
    (path / "copy.jpg").write_bytes(OLD)
    return path


@asynccontextmanager
async def swept(harmful: Harmful) -> AsyncIterator[MediaApi]:
    """Give a client for a sweep, and make sure that it leaves nothing open."""
    async with client(harmful.server.base_url) as warm:
        await warm.get_info(MEDIA)
    await settled_at(set(), lambda: harmful.server.open)
    before, tasks = descriptors(), asyncio.all_tasks()
    async with client(harmful.server.base_url) as api:
        yield api
    await settled_at(set(), lambda: harmful.server.open)
    await none_added(before, descriptors)
    await none_added(tasks, asyncio.all_tasks)


async def harmed(
    harmful: Harmful, verb: Verb, api: MediaApi, folder: Path, said: bytes, body: bytes, *, again: bool = True
) -> MediaError | None:
    """
    Call once, receive the harmed reply `said`, and look around; return the error, or None if the result was right.

    `body` is what is left of the reply's body. With `again`, another call is made, which goes well.
    """
    harmful.said = said
    result = await outcome(verb.call(api, folder), harmful.hang_up)
    failed = isinstance(result, MediaError)
    assert files_are_whole(folder, saved=not failed and isinstance(result, DownloadedMedia)), said
    if failed:
        assert result.operation == verb.operation, said
    else:
        assert verb.right(result, body), (said, result)
    assert not again or await api.get_info(MEDIA) == known(api), (
        said
    )  # what is left of a reply is not taken for the next one
    return result if failed else None


def report(name: str, found: Counter[str]) -> None:
    """Say how many offsets were tried."""
    sys.stdout.write(f"{name}: {found.total()} offsets, {dict(found)}\n")


async def cut_everywhere(harmful: Harmful, verb: Verb, folder: Path, framing: str) -> Counter[str]:
    """Cut a reply after each of its bytes; only one with its whole body may be believed."""
    found: Counter[str] = Counter()
    body = verb.body(harmful.server.base_url)
    segments = reply(body, verb.mime_type, framing)
    whole = joined(segments)
    enough = len(whole)  # bytes from which on the result may be right
    if verb.operation == "download" and not segments[-1][1]:
        enough -= len(segments[-1][0])  # what was verified can do without the end of its framing
    certain = harmful.ending == "close" or framing != "close"  # whether the end of the whole reply can be told
    async with swept(harmful) as api:
        for offset in range(len(whole) + 1):
            again = offset % SPARSE == 0
            error = await harmed(harmful, verb, api, folder, whole[:offset], body, again=again)
            found[type(error).__name__ if error else "right"] += 1
            if offset == len(whole) and certain:
                assert error is None
            if error is None:
                assert offset >= enough, whole[:offset]
                continue
            assert isinstance(error, NetworkError | ServerError | IntegrityError), whole[:offset]
            assert (error.attempts, error.maybe_applied) == (1, verb.changes), whole[:offset]
    return found


@pytest.mark.parametrize("ending", slow_except(["reset"], ENDINGS))
@pytest.mark.parametrize(("name", "framing"), slow_except([("get_info", "length")], SWEPT))
async def test_a_reply_cut_after_every_byte(name: str, framing: str, ending: str, folder: Path) -> None:
    """A reply that is cut short is an error of ours, which says whether Meta may have acted; the whole one is right."""
    async with Harmful() as harmful:
        harmful.ending = ending
        report(f"{name}, {framing}, {ending}", await cut_everywhere(harmful, VERBS[name], folder, framing))


@pytest.mark.slow
@pytest.mark.parametrize(("framing", "ending"), TLS_CUTS)
async def test_a_reply_over_tls_cut_after_every_byte(
    framing: str, ending: str, folder: Path, tls: ssl.SSLContext
) -> None:
    """Over TLS, too, a download that is cut short is an error of ours, also if the connection is closed in good order."""
    async with Harmful(tls) as harmful:
        harmful.ending = ending
        report(f"TLS, {framing}, {ending}", await cut_everywhere(harmful, VERBS["download"], folder, framing))


async def flipped_everywhere(harmful: Harmful, verb: Verb, folder: Path, framing: str) -> Counter[str]:
    """Flip a bit of each byte of a reply."""
    found: Counter[str] = Counter()
    async with swept(harmful) as api:
        for said, body in flips(reply(verb.body(harmful.server.base_url), verb.mime_type, framing)):
            error = await harmed(harmful, verb, api, folder, said, body)
            found[type(error).__name__ if error else "right"] += 1
    return found


@pytest.mark.parametrize(("name", "framing"), slow_except([("get_info", "length")], SWEPT))
async def test_a_bit_flipped_in_every_byte(name: str, framing: str, folder: Path) -> None:
    """A flipped bit is an error of ours, or does no harm that anybody could see; and the next call is as good as ever."""
    async with Harmful() as harmful:
        found = await flipped_everywhere(harmful, VERBS[name], folder, framing)
    report(f"{name}, {framing}, flipped", found)
    assert found["right"] > 20  # in headers that nobody needs
    assert found.total() - found["right"] > 20


@pytest.mark.slow
async def test_a_bit_flipped_in_every_byte_of_an_info(folder: Path) -> None:
    """A download by id whose info was harmed brings the promised bytes, or none."""
    async with Harmful() as harmful:
        found = await flipped_everywhere(harmful, BY_ID, folder, "length")
    report("download by id, flipped info", found)
    assert min(found["right"], found["IntegrityError"], found["UntrustedUrlError"], found["ServerError"]) > 5


@pytest.mark.parametrize("name", VERBS)
async def test_surplus_bytes_are_nobodys_reply(name: str, folder: Path) -> None:
    """What follows a reply, be it a byte or another whole reply, harms nobody and is not taken for the next one."""
    verb = VERBS[name]
    async with Harmful() as harmful, swept(harmful) as api:
        body = verb.body(harmful.server.base_url)
        poison = reply(info_body("https://evil.example"), "application/json")
        for framing in ("length", "chunked"):
            for surplus in (b"\n", b"x", joined(poison)):
                said = joined(reply(body, verb.mime_type, framing)) + surplus
                assert await harmed(harmful, verb, api, folder, said, body) is None


# Below TLS


class Wire:
    """Passes bytes on between a client and a server, but harms one of the server's."""

    def __init__(self, port: int) -> None:
        self.at = -1  # the number of the harmed byte; -1 for none
        self.how = "flip"  # a bit of it, or "close" or "reset" there
        self.passed = 0  # bytes that the server has sent over the latest connection
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.base_url = f"https://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()

    def hang_up(self) -> None:
        """End all connections, once the harm has been done."""
        if self.passed > self.at:
            for writer in self._writers:
                writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks = {task for task in self._tasks if not task.done()} | {
            asyncio.create_task(self._joined(reader, writer))
        }

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.passed = 0
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self._port)
        both = {writer, downstream}
        self._writers |= both
        try:
            await asyncio.gather(
                self._passed_on(reader, downstream, lambda data: data), self._passed_on(upstream, writer, self._harmed)
            )
        finally:
            self._writers -= both

    async def _passed_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Callable[[bytes], bytes | None]
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(2**16):
                changed = change(data)
                if changed is None:
                    writer.write(data[: self.at - self.passed])
                    end(writer.transport, self.how)
                    break
                writer.write(changed)
                self.passed += len(data) if change == self._harmed else 0
        writer.close()

    def _harmed(self, data: bytes) -> bytes | None:
        """Harm what the server says, if it is its turn; None where it is to be cut."""
        if not 0 <= self.at - self.passed < len(data):
            return data
        if self.how != "flip":
            return None
        harmed = bytearray(data)
        harmed[self.at - self.passed] ^= 1 << self.at % 8
        return bytes(harmed)


@pytest.mark.slow
@pytest.mark.parametrize("how", slow_except(["reset"], ["close", "reset", "flip"]))
async def test_tls_itself_harmed(how: str, folder: Path, tls: ssl.SSLContext) -> None:
    """What is done to the encrypted bytes, those of the handshake included, is a NetworkError or does no harm."""
    verb, found = VERBS["download"], Counter[str]()
    async with Harmful(tls) as harmful, Wire(harmful.server.port) as wire:
        async with client(wire.base_url) as warm:
            await verb.call(warm, folder)
        assert files_are_whole(folder, saved=True)
        wire.how = how
        for at in range(0, wire.passed, SPARSE):
            wire.at = at
            async with client(wire.base_url) as api:
                result = await outcome(verb.call(api, folder), wire.hang_up)
            found[type(result).__name__] += 1
            assert isinstance(result, NetworkError | DownloadedMedia), at
            assert files_are_whole(folder, saved=isinstance(result, DownloadedMedia)), at
    report(f"below TLS, {how}", found)
    assert found["NetworkError"] > found.total() * 0.8


# Tried again


def once(fault: Callable[[Received, asyncio.StreamWriter], Awaitable[None]], base_url: str, *, ranges: bool) -> Step:
    """Do harm to the first request, and answer all others well, with or without `ranges`; what was deleted is gone."""
    count = 0

    async def step(request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        if count == 1:
            await fault(request, writer)
        elif request.method == "DELETE":
            writer.write(joined(reply(GONE, "application/json", status=400)))
        else:
            wanted = request.header("range") if ranges else None
            writer.write(healthy(base_url, request.method, request.target, wanted))

    return step


async def tried_again(server: Server, verb: Verb, folder: Path, fault: Any, *, ranges: bool = True) -> Any:
    """Call once, with a fault that happens once and a client that tries again; return the result or our error."""
    server.requests.clear()
    server.script[:] = [once(fault, server.base_url, ranges=ranges)]
    async with client(server.base_url, max_retries=2, chunk_size=50) as api, asyncio.timeout(BOUND):
        try:
            result = await verb.call(api, folder)
        except MediaError as error:
            result = error
    assert files_are_whole(folder, saved=isinstance(result, DownloadedMedia))
    return result


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", slow_except(["upload"], sorted(VERBS.keys() - {"send"})))
async def test_a_cut_reply_is_asked_for_again(name: str, ending: str, folder: Path) -> None:
    """A reply that is cut short once is asked for again, and the result is right; an upload tells that there may be two."""
    verb, hang_up, tried = VERBS[name], {"close": cut, "reset": reset}[ending], 0
    async with Server() as server:
        body = verb.body(server.base_url)
        whole = joined(reply(body, verb.mime_type))
        for offset in range(0, len(whole), SPARSE):
            result = await tried_again(server, verb, folder, hang_up(whole[:offset]))
            assert not isinstance(result, MediaError), (offset, result)
            assert verb.right(result, body), (offset, result)
            assert len(server.requests) == 2 + ("verified" in name)
            assert getattr(result, "maybe_duplicate", None) is (True if verb.operation == "upload" else None)
            tried += 1
    sys.stdout.write(f"{name}, {ending}: {tried} cuts, all right at the second attempt\n")


@pytest.mark.parametrize(
    ("name", "ranges"),
    slow_except([("download", True)], [("download", True), ("download", False), ("read", True), ("stream", True)]),
)
async def test_a_cut_body_is_continued(name: str, ranges: bool, folder: Path) -> None:
    """A body that is cut somewhere is continued where it broke off, or from its start if the server knows no ranges."""
    verb, starts, tried = VERBS[name], set[str | None](), 0
    async with Server() as server:
        (head, _), (body, _) = reply(CONTENT, JPEG)
        for offset in range(0, len(body), 3):
            result = await tried_again(server, verb, folder, cut(head + body[:offset]), ranges=ranges)
            assert not isinstance(result, MediaError), (offset, result)
            assert verb.right(result, body), (offset, result)
            starts.add(server.requests[1].header("range"))
            assert len(server.requests) == 2
            tried += 1
    assert len(starts) > 3
    sys.stdout.write(f"{name}, ranges {ranges}: {tried} cuts, continued from {len(starts)} places\n")


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_message_is_never_sent_twice(ending: str, folder: Path) -> None:
    """A message whose receipt is cut short is not sent again: it may have been delivered, and the error says so."""
    hang_up, tried = {"close": cut, "reset": reset}[ending], 0
    async with Server() as server:
        whole = joined(reply(SENT, "application/json"))
        for offset in range(0, len(whole), SPARSE):
            result = await tried_again(server, VERBS["send"], folder, hang_up(whole[:offset]))
            assert isinstance(result, NetworkError), (offset, result)
            assert (result.maybe_applied, result.attempts, len(server.requests)) == (True, 1, 1)
            tried += 1
    sys.stdout.write(f"send, {ending}: {tried} cuts, none sent twice\n")


@pytest.mark.parametrize("framing", slow_except(["length"], FRAMINGS))
@pytest.mark.parametrize("name", slow_except(["download"], ["get_info", "download", "read"]))
async def test_a_harmed_reply_is_asked_for_again(name: str, framing: str, folder: Path) -> None:
    """A reply with a flipped bit is asked for again wherever that can be noticed, and the result is right."""
    verb, tried, again = VERBS[name], 0, 0
    async with Server() as server:
        body = verb.body(server.base_url)
        for said, left in list(flips(reply(body, verb.mime_type, framing)))[::SPARSE]:
            result = await tried_again(server, verb, folder, cut(said))
            assert not isinstance(result, MediaError), (said, result)
            assert verb.right(result, body) or verb.right(result, left), (said, result)
            tried += 1
            again += len(server.requests) > 1
    assert again > 0
    sys.stdout.write(f"{name}, {framing}: {tried} flips, {again} asked for again, all right\n")
