"""Handles: a file that is sent once, however often the connection is cut, and the handle that Meta gives for it."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import attrs
import httpx
import pytest

from meta_media import MediaApi, Progress, Settings, Source, UploadHandle
from meta_media.emulator import Emulator, Fault
from meta_media.errors import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    CorruptedMediaError,
    FileTooLargeError,
    InvalidMediaError,
    InvalidRequestError,
    MediaError,
    NetworkError,
    ServerError,
    UnsupportedMediaTypeError,
)
from tests.support.marks import slow_except
from tests.support.servers import Listener, Server, cut, json_response
from tests.support.stepping import Stepper, descriptors, none_added, settled_at
from tests.transfer.downloads import PHOTO

MEDIA = Path(__file__).parents[1] / "media"
TOKEN = "EAAGcanaryTOKENcanary"
SESSION = "upload:MTphdHRh/Y2+tZW50==?sig=ARa~SIGNATURE.-_%2B"  # goes into the URL as it is
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 2
PDF = b"%PDF-1.4\n" + b"x" * 1000
CHUNK = 100
FILE = JPEG[: 3 * CHUNK]


class Sessions(Listener):
    """
    Meta's side: it keeps what has arrived, and cuts the connection each time that the file has reached one of the sizes `cuts`.

    A byte of the file that arrives twice, or in a wrong place, fails the test.
    """

    def __init__(self, *cuts: int, tls: Any = None) -> None:
        super().__init__(tls)
        self.cuts = list(cuts)
        self.stored = bytearray()
        self.received = 0  # bytes of the file, repeated ones included
        self.heads: list[tuple[str, str, dict[str, str]]] = []  # method, target and headers of each request
        self.open = 0  # connections

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self.tls)
        return self

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(self._converse(reader, writer))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            with suppress(asyncio.IncompleteReadError, OSError):
                while await self._respond(reader, writer):
                    pass
        finally:
            self.open -= 1
            writer.transport.abort()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Respond to one request; False if the connection is to be cut."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        self.heads.append((method, target, headers))
        found: dict[str, Any] = {"id": SESSION}
        if method == "GET":
            found["file_offset"] = str(len(self.stored))
        elif "upload:" in target:
            assert int(headers["file_offset"]) == len(self.stored)
            left = int(headers["content-length"])
            while True:
                most = min([left, *(self.cuts and [self.cuts[0] - len(self.stored)])])
                piece = await reader.read(most) if most else b""
                left -= len(piece)
                self.received += len(piece)
                self.stored += piece
                if self.cuts and self.cuts[0] == len(self.stored):
                    del self.cuts[0]
                    return False
                if not left:
                    break
            found = {"h": f"4::{hashlib.sha256(self.stored).hexdigest()}"}
        writer.write(json_response(found))
        return True

    @property
    def offsets(self) -> list[str]:
        """The offsets at which the client began to send the file."""
        return [headers["file_offset"] for _, _, headers in self.heads if "file_offset" in headers]


def client(server: Listener, **settings: Any) -> MediaApi:
    """Make a client that takes a server for the Graph API."""
    given: dict[str, Any] = {"backoff": 0.0, "chunk_size": CHUNK, "app_id": "9", "deadline": 20.0, **settings}
    return MediaApi(TOKEN, "1", settings=Settings(base_url=server.base_url, **given))


def is_of(handle: UploadHandle, content: bytes) -> bool:
    """Return whether a handle of `Sessions` stands for exactly these bytes."""
    return handle.handle == f"4::{hashlib.sha256(content).hexdigest()}"


# Resumed


async def resumed(content: bytes, source: object, *cuts: int, chunk_size: int = CHUNK) -> None:
    """Upload with cuts, and check that every byte was received once."""
    async with Sessions(*cuts) as server, client(server, chunk_size=chunk_size, max_retries=len(cuts)) as media:
        handle = await media.upload_handle(source, filename="a.jpg")
    assert is_of(handle, content)
    assert (server.received, bytes(server.stored)) == (len(content), content)
    assert server.offsets == ["0", *map(str, cuts)]
    assert handle.attempts == 2 + 2 * len(cuts)
    assert (handle.mime_type, handle.file_size, handle.filename) == ("image/jpeg", len(content), "a.jpg")


@pytest.mark.parametrize(
    "offset", slow_except([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, len(FILE) - 1, len(FILE)], range(len(FILE) + 1))
)
async def test_cut_at_every_offset(offset: int) -> None:
    """Cut at any offset of a file of three chunks, the handle is right, and no byte that Meta had is sent again."""
    await resumed(FILE, FILE, offset)


async def test_cut_several_times() -> None:
    """Each cut is one retry; two in one place are resumed, too."""
    await resumed(FILE, FILE, 0, 1, 100, 100, 250, 300)


@pytest.mark.slow
async def test_cut_anywhere_in_a_large_file(tmp_path: Path) -> None:
    """Over several writes, from a path, a handle and a spooled stream alike."""
    jitter, size = random.Random(13), 3 * 2**17
    content = FILE[:4] + jitter.randbytes(size - 4)
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for around in (0, 2**15, 2**17, 2**18, size):
        for offset in {around - 1, around, around + 1, *(jitter.randrange(size) for _ in range(8))}:
            if 0 <= offset <= size:
                await resumed(content, path, offset, chunk_size=2**17)
                await resumed(content, Source.stream([content]), offset, chunk_size=2**17)
                with path.open("rb") as file:
                    await resumed(content, file, offset, chunk_size=2**17)


@pytest.mark.parametrize("kind", ["bytes", "path", "handle", "stream", "sized stream", "async"])
async def test_every_kind_of_source(kind: str, tmp_path: Path) -> None:
    """What can be read once is spooled first, also if it has declared its size."""
    path = tmp_path / "a.jpg"
    path.write_bytes(FILE)

    async def pieces() -> AsyncIterator[bytes]:
        yield FILE[:7]
        yield FILE[7:]

    with path.open("rb") as file:
        sources = {
            "bytes": bytearray(FILE),
            "path": path,
            "handle": file,
            "stream": Source.stream([FILE]),
            "sized stream": Source.stream([FILE[:9], FILE[9:]], size=len(FILE)),
            "async": pieces(),
        }
        await resumed(FILE, sources[kind], 150)


async def test_long_stream_of_declared_size() -> None:
    """A stream that has declared its size is spooled, because it cannot be read again."""
    content = FILE * 3000
    pieces = (content[start : start + 50_000] for start in range(0, len(content), 50_000))
    await resumed(content, Source.stream(pieces, size=len(content)), 500_000, chunk_size=2**16)


async def test_progress_begins_at_the_offset() -> None:
    """Progress goes on with the bytes that Meta has, and ends with all of them."""
    seen: list[Progress] = []
    async with Sessions(150) as server, client(server) as media:
        await media.upload_handle(FILE, progress=seen.append)
    assert [progress.transferred for progress in seen][-3:] == [150, 200, 300]
    assert {progress.total for progress in seen} == {300}


async def test_source_with_a_sha256() -> None:
    """The SHA-256 that a source declares is that of the whole file, also where only its rest is sent."""
    right = attrs.evolve(Source.bytes(FILE), sha256=hashlib.sha256(FILE).hexdigest())
    await resumed(FILE, right, 150)
    async with Sessions(150) as server, client(server) as media:
        with pytest.raises(CorruptedMediaError):
            await media.upload_handle(attrs.evolve(right, sha256="0" * 64))


async def test_source_that_changes_between_attempts(tmp_path: Path) -> None:
    """A file that became shorter is not completed."""
    path = tmp_path / "a.jpg"
    path.write_bytes(FILE * 700)

    async def shorten(_: Progress) -> None:
        await asyncio.to_thread(path.write_bytes, FILE)

    async with Sessions(100_000) as server, client(server, chunk_size=2**16) as media:
        with pytest.raises(CorruptedMediaError, match="shorter"):
            await media.upload_handle(path, progress=shorten)


@pytest.mark.parametrize("status", [400, 404, 412])
async def test_session_that_is_gone(status: int) -> None:
    """A session that Meta refuses to go on with is replaced by a new one, which gets the whole file."""
    gone = json_response({"error": {"message": "no", "code": 100, "error_subcode": 33}}, status)
    begun, done = json_response({"id": SESSION}), json_response({"h": "4::x"})
    async with Server(begun, cut(b""), gone, begun, done) as server, client(server) as media:
        assert (await media.upload_handle(FILE)).handle == "4::x"
    assert server.requests[-1].body == FILE
    assert server.requests[-1].header("file_offset") == "0"
    offset = json_response({"id": SESSION, "file_offset": 7})
    async with Server(begun, cut(b""), offset, gone, begun, done) as server, client(server) as media:
        assert (await media.upload_handle(FILE)).attempts == 6


async def test_retries_are_used_up() -> None:
    """After the last retry the error of the connection is raised; Meta may have the file."""
    async with Sessions(1, 2, 3) as server, client(server, max_retries=2) as media:
        with pytest.raises(NetworkError) as caught:
            await media.upload_handle(FILE)
    assert (caught.value.operation, caught.value.attempts, caught.value.maybe_applied) == ("upload_handle", 6, True)
    assert server.received == 3


async def test_token_is_renewed() -> None:
    """A token that is refused in the middle is asked for again, and the same session is gone on with."""
    tokens = iter(["old", "new"])

    async def token() -> str:
        return next(tokens)

    begun, done = json_response({"id": SESSION}), json_response({"h": "4::x"})
    refused = json_response({"error": {"message": "expired", "code": 190}}, 401)
    offset = json_response({"id": SESSION, "file_offset": 100})
    async with Server(begun, refused, offset, done) as server:
        settings = Settings(base_url=server.base_url)
        async with MediaApi(token, settings=settings) as media:
            await media.upload_handle(FILE, app_id="9")
    assert [request.header("authorization") for request in server.requests] == [
        *("Bearer old", "OAuth old", "OAuth new", "OAuth new")
    ]
    assert server.requests[-1].body == FILE[100:]


@pytest.mark.parametrize("late", [False, True])
async def test_cancelled_at_every_await(late: bool) -> None:
    """Cancelled at any await, also while it resumes, nothing stays open, and the next call works."""
    before, at, going = descriptors(), 0, True
    while going:
        at += 1
        async with Sessions(150) as server:
            async with client(server, concurrency=1) as media:
                stepper = Stepper(at, late=late)
                task = await stepper.run(lambda media=media: media.upload_handle(FILE))  # type: ignore[misc]
                going = stepper.reached
                assert task.cancelled() is going
                await settled_at([], lambda stepper=stepper: stepper.alive)  # type: ignore[misc]
                server.cuts.clear()
                server.stored.clear()
                assert is_of(await media.upload_handle(FILE), FILE)
            await settled_at(0, lambda server=server: server.open)  # type: ignore[misc]
    assert at > 8
    await none_added(before, descriptors)


# What is sent


async def test_requests() -> None:
    """The requests are those of Meta's page; the token stands in no URL, and the session's id is sent as it is."""
    async with Sessions(10) as server, client(server) as media:
        await media.upload_handle(FILE, filename="a b&c.jpg")
    (begin, created, first), (post, to, data), (get, asked, headers), (_, again, rest) = server.heads
    assert (begin, post, get) == ("POST", "POST", "GET")
    assert urlsplit(created).path == "/v25.0/9/uploads"
    about = {"file_name": ["a b&c.jpg"], "file_length": ["300"], "file_type": ["image/jpeg"]}
    assert parse_qs(urlsplit(created).query) == about
    assert (first["content-length"], first["authorization"]) == ("0", f"Bearer {TOKEN}")
    assert to == asked == again == f"/v25.0/{SESSION}"
    assert {sent["authorization"] for sent in (data, headers, rest)} == {f"OAuth {TOKEN}"}
    assert (data["file_offset"], data["content-length"]) == ("0", "300")
    assert (rest["file_offset"], rest["content-length"]) == ("10", "290")
    assert not any(TOKEN in target for _, target, _ in server.heads)


async def test_proof_joins_the_signature() -> None:
    """With an app secret, its proof follows the session's own query."""
    async with Sessions() as server, client(server, app_secret="s", appsecret_proof="classic") as media:
        await media.upload_handle(FILE)
    assert server.heads[1][1].startswith(f"/v25.0/{SESSION}&appsecret_proof=")


@pytest.mark.parametrize("content", [PHOTO, PDF, FILE * 1000])
async def test_against_the_emulator(content: bytes, media: MediaApi, emulator: Emulator) -> None:
    """The emulator has the whole file, and gives the same handle as the client returns."""
    emulator.fail("upload_handle", Fault(status=503))
    handle = await media.upload_handle(content)
    (stored,) = emulator.handles
    assert (stored.handle, stored.mime_type, stored.file_length) == (handle.handle, handle.mime_type, len(content))
    assert stored.digest.hexdigest() == hashlib.sha256(content).hexdigest()


async def test_download_is_uploaded(media: MediaApi, emulator: Emulator) -> None:
    """A download becomes a handle over one connection: an upload does not wait for a download that waits for it."""
    photo = await media.upload(PHOTO)
    async with emulator.api(concurrency=1) as narrow:
        handle = await narrow.upload_handle(narrow.stream(photo.id))
    assert (handle.mime_type, handle.file_size) == ("image/jpeg", photo.file_size)


# Refused


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"text", UnsupportedMediaTypeError),
        (b"RIFF\x24\0\0\0WEBPVP8 ", UnsupportedMediaTypeError),
        (b"GIF89a", UnsupportedMediaTypeError),
        (b"", CorruptedMediaError),
        (JPEG[:4] + bytes(5 * 2**20), FileTooLargeError),
        (7, InvalidMediaError),
    ],
    ids=["text", "sticker", "gif", "empty", "large", "number"],
)
async def test_files_that_cannot_work(content: Any, kind: type[MediaError]) -> None:
    """A file of another type, or too large, is refused before any request, in a sentence that says what is accepted."""
    async with Sessions() as server, client(server) as media:
        with pytest.raises(kind) as caught:
            await media.upload_handle(content)
    assert type(caught.value) is kind
    assert server.heads == []
    assert (caught.value.operation, caught.value.attempts) == ("upload_handle", 0)


async def test_the_accepted_types_are_named() -> None:
    """The sentence names them."""
    media = MediaApi(TOKEN, settings=Settings(app_id="9"))
    with pytest.raises(UnsupportedMediaTypeError, match="text/plain, but a handle is made of JPEG, PNG, MP4 or PDF"):
        await media.upload_handle(b"text")


@pytest.mark.parametrize(
    ("file", "declared", "cure"),
    [
        ("recording.webm", None, "convert it to MP4 with H.264 and AAC"),
        ("recording.webm", "video/webm", "convert it to MP4 with H.264 and AAC"),
        ("clip.mkv", None, "convert it to MP4 with H.264 and AAC"),
        ("picture.avif", None, "convert it to JPEG or PNG"),
        ("stereo.ogg", None, "pass a picture, a video or a PDF, because no header and no profile has sound"),
        ("opus.m4a", None, "pass a picture, a video or a PDF, because no header and no profile has sound"),
        ("sound.wav", None, "pass a picture, a video or a PDF, because no header and no profile has sound"),
        ("letter.odt", None, "export it as PDF"),
    ],
)
async def test_what_helps(file: str, declared: str | None, cure: str) -> None:
    """The advice is one for a handle, and not for a message, which takes other types; the sentence names the file."""
    media = MediaApi(TOKEN, settings=Settings(app_id="9"))
    with pytest.raises(UnsupportedMediaTypeError) as caught:
        await media.upload_handle(MEDIA / file, mime_type=declared)
    accepted = "but a handle is made of JPEG, PNG, MP4 or PDF only"
    assert re.fullmatch(f"'{re.escape(file)}' is [a-z0-9./-]+, {accepted}: {cure}", str(caught.value))


async def test_a_variant_that_does_not_play() -> None:
    """Of the types that have a handle, what does not play in a message is refused with the same advice."""
    media = MediaApi(TOKEN, settings=Settings(app_id="9"))
    with pytest.raises(UnsupportedMediaTypeError, match=r"'hevc\.mp4' is MP4 with H.265 .*: re-encode it"):
        await media.upload_handle(MEDIA / "hevc.mp4")
    with pytest.raises(UnsupportedMediaTypeError, match=r"'photo\.webm' was declared .*, but the bytes are image/jpeg"):
        await media.upload_handle(JPEG, filename="photo.webm", mime_type="application/pdf")


async def test_without_validation(emulator: Emulator) -> None:
    """With `validate=False`, Meta decides about the type."""
    async with emulator.api(validate=False) as media:
        with pytest.raises(InvalidRequestError, match="file_type"):
            await media.upload_handle(b"text")
        assert (await media.upload_handle(b"text", mime_type="image/jpg")).mime_type == "image/jpeg"


async def test_app_id(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app is the argument, the setting, or the environment's; without one nothing is sent."""
    async with Sessions() as server:
        async with client(server, app_id=None) as media:
            with pytest.raises(ConfigurationError, match="pass app_id or set WA_APP_ID"):
                await media.upload_handle(FILE)
            with pytest.raises(ConfigurationError, match="app_id must be digits, not '1/2'"):
                await media.upload_handle(FILE, app_id="1/2")
            assert server.heads == []
            await media.upload_handle(FILE, app_id="5")
        server.stored.clear()
        monkeypatch.setenv("WA_APP_ID", "6")
        async with MediaApi(TOKEN, settings=Settings(base_url=server.base_url)) as media:
            await media.upload_handle(FILE)
    assert [target.split("/")[2] for _, target, _ in server.heads if "uploads" in target] == ["5", "6"]


async def test_app_of_another_business(media: MediaApi) -> None:
    """An app that the token may not use is told with the variable to check."""
    with pytest.raises(
        InvalidRequestError, match="the app id is not one that the access token may use: check WA_APP_ID"
    ):
        await media.upload_handle(FILE, app_id="1")


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ([{"id": "7"}], "expected the id of an upload session"),
        ([{"id": "upload:a/../b"}], "expected the id of an upload session"),
        ([{"id": "upload:a?sig=SIGNATURE b"}], "expected the id of an upload session"),
        ([{"id": 7}], "expected str"),
        ([{}], "'id' is missing"),
        ([{"id": SESSION}, {"h": ""}], "h"),
        ([{"id": SESSION}, {"h": 7}], "expected str"),
        ([{"id": SESSION}, {"id": SESSION, "file_offset": "7"}], "'h' is missing"),
        ([{"id": SESSION}, None, {"id": SESSION}], "Meta has None bytes of a file of 300"),
        ([{"id": SESSION}, None, {"id": SESSION, "file_offset": "301"}], "Meta has 301 bytes of a file of 300"),
        ([{"id": SESSION}, None, {"id": SESSION, "file_offset": -1}], "expected a number of bytes"),
    ],
)
async def test_responses_that_are_none(script: list[Any], sentence: str) -> None:
    """A response that is not what the page describes is a ServerError; it shows no signature."""
    steps = [cut(b"") if value is None else json_response(value) for value in script]
    async with Server(*steps) as server, client(server, max_retries=1) as media:
        with pytest.raises(ServerError, match=sentence) as caught:
            await media.upload_handle(FILE)
    assert "SIGNATURE" not in str(caught.value)


async def test_signature_is_not_shown() -> None:
    """Where Meta quotes the session, its error is told without the signature."""
    quoted = {"error": {"message": f"Object with ID '{SESSION}' does not exist", "code": 190}}
    async with Server(json_response({"id": SESSION}), json_response(quoted, 400)) as server, client(server) as media:
        with pytest.raises(AuthenticationError) as caught:
            await media.upload_handle(FILE)
    assert "SIGNATURE" not in str(caught.value) + repr(caught.value)
    assert "upload:MTphdHRh" in str(caught.value)


async def test_token_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A caller's client logs every header: an echo of the token that was sent as `OAuth` is masked there, too."""
    caplog.set_level(logging.DEBUG)
    echo = json_response({"id": SESSION, "h": "4::x"}, x_echo=TOKEN)
    async with Server(echo) as server, httpx.AsyncClient() as given:
        settings = Settings(base_url=server.base_url, app_id="9")
        await MediaApi(TOKEN, settings=settings, http_client=given).upload_handle(FILE)
    assert "x-echo" in caplog.text
    assert TOKEN not in caplog.text
    assert "SIGNATURE" not in caplog.text.replace(SESSION, "")


async def test_server_that_fails_after_the_file() -> None:
    """A 5xx after the whole file is resumed at its end, with no byte; what then fails for good may have been applied."""
    broken = json_response({"error": {"message": "no", "code": 2}}, 500)
    end = json_response({"id": SESSION, "file_offset": "300"})
    begun, done = json_response({"id": SESSION}), json_response({"h": "4::x"})
    async with Server(begun, broken, end, done) as server, client(server) as media:
        assert (await media.upload_handle(FILE)).handle == "4::x"
        assert (server.requests[-1].header("content-length"), server.requests[-1].body) == ("0", b"")
    async with Server(begun, broken) as server, client(server, max_retries=0) as media:
        with pytest.raises(ApiError) as caught:
            await media.upload_handle(FILE)
    assert caught.value.maybe_applied
