"""Sources that can be read once: iterables, spooled or not, and responses of other servers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from meta_media import MediaApi, Source
from meta_media.emulator import Emulator
from meta_media.errors import CorruptedMediaError, FileTooLargeError, InvalidMediaError, NetworkError, StorageError
from tests.support.servers import Server, cut, page
from tests.support.system import files_no_larger_than
from tests.transfer.uploads import LONG, TEXT, arrived, joined, refused, slowly

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


# Iterables


@pytest.mark.parametrize("size", [1000, 300_000, len(LONG)])
@pytest.mark.parametrize("declared", [None, len(LONG)])
async def test_generators(media: MediaApi, emulator: Emulator, size: int, declared: int | None) -> None:
    """Async and plain generators are sent, in pieces of any size, spooled or of declared size."""
    options: dict[str, Any] = {"mime_type": "text/plain", "size": declared}
    assert await arrived(media, emulator, slowly(*joined(LONG, size)), **options) == LONG
    assert await arrived(media, emulator, joined(LONG, size), **options) == LONG
    assert await arrived(media, emulator, Source.stream(joined(LONG, size), name="a.txt", size=declared)) == LONG


@pytest.mark.parametrize(
    "pieces", [[b"one ", bytearray(b"two "), memoryview(b"three")], [b"one ", b"", b"two ", b"three"]]
)
async def test_sequences(media: MediaApi, emulator: Emulator, pieces: Any) -> None:
    """A list of bytes-like pieces is sent, empty ones included."""
    assert await arrived(media, emulator, pieces, mime_type="text/plain") == b"one two three"
    assert await arrived(media, emulator, slowly(*pieces), mime_type="text/plain") == b"one two three"


@pytest.mark.slow
@pytest.mark.timeout(60)  # one piece after the other, it takes a second; squared, hours
async def test_very_small_pieces(media: MediaApi, emulator: Emulator) -> None:
    """A stream of single bytes costs time in proportion to its length."""
    assert await arrived(media, emulator, slowly(*joined(TEXT, 1)), mime_type="text/plain") == TEXT


async def test_very_large_piece(media: MediaApi, emulator: Emulator) -> None:
    """One huge piece is spooled, or passed on in chunks."""
    huge = TEXT * 60
    assert await arrived(media, emulator, [huge], mime_type="text/plain") == huge
    told_of: list[int] = []
    await media.with_options(chunk_size=2**20).upload(
        [huge], mime_type="text/plain", size=len(huge), progress=lambda progress: told_of.append(progress.transferred)
    )
    assert told_of == [*range(2**20, len(huge), 2**20), len(huge)]


@pytest.mark.parametrize("nothing", [[], [b""], iter(())], ids=["no piece", "empty piece", "no iteration"])
async def test_empty_iterable(media: MediaApi, emulator: Emulator, nothing: Any) -> None:
    """A stream without any bytes is refused before any request."""
    await refused(media, emulator, nothing, CorruptedMediaError)


async def test_endless_stream_is_read_no_further_than_needed(media: MediaApi, emulator: Emulator) -> None:
    """A stream of unknown size is read only until it is over the limit of its kind."""
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x06\0\0\0"
        while True:
            given += 2**16
            yield head + bytes(2**16)
            head = b""

    error = await refused(media, emulator, endless(), FileTooLargeError)
    assert isinstance(error, FileTooLargeError)
    assert error.limit == 5 * 2**20
    assert 5 * 2**20 <= given < 5.6 * 2**20


async def test_unchecked_stream_is_still_bounded(media: MediaApi, emulator: Emulator) -> None:
    """Without validation a stream may be of any type, but never over the service's 100 MiB."""
    block = bytes(2**20)

    def endless() -> Iterator[bytes]:
        while True:
            yield block

    error = await refused(media, emulator, endless(), FileTooLargeError, validate=False)
    assert isinstance(error, FileTooLargeError)
    assert error.limit == 100 * 2**20


@pytest.mark.parametrize("off_by", [-10, -1, 1, 10])
async def test_wrong_declared_size(media: MediaApi, emulator: Emulator, off_by: int) -> None:
    """A stream that is not as long as declared is a CorruptedMediaError; nothing is stored, and the client works on."""
    words = "ended after" if off_by > 0 else "yields more than"
    with pytest.raises(CorruptedMediaError, match=words):
        await media.upload(joined(LONG, 1000), mime_type="text/plain", size=len(LONG) + off_by)
    assert await arrived(media, emulator, TEXT) == TEXT


@pytest.mark.parametrize("by", [Path, bytes, io.BytesIO, Source])
async def test_wrong_declared_size_of_known(media: MediaApi, emulator: Emulator, text: Path, by: Any) -> None:
    """A declared size that a file or memory does not have is refused before any request."""
    sources = {Path: text, bytes: TEXT, io.BytesIO: io.BytesIO(TEXT), Source: Source.stream([TEXT])}
    error = await refused(media, emulator, sources[by], CorruptedMediaError, size=7, mime_type="text/plain")
    assert isinstance(error, CorruptedMediaError)
    assert (error.limit, error.actual) == (None, len(TEXT))


@pytest.mark.parametrize(
    "wrong",
    [3, None, object(), ["text"], slowly("text"), {"a": 1}, range(3), [b"good" * 200_000, 5]],
    ids=["int", "None", "object", "list of text", "stream of text", "mapping", "range", "not only bytes"],
)
async def test_what_is_no_source(media: MediaApi, emulator: Emulator, wrong: Any) -> None:
    """Whatever is no source, or yields something other than bytes, is refused before any request."""
    error = await refused(media, emulator, wrong, InvalidMediaError)
    assert type(wrong).__name__ in str(error) or "not bytes" in str(error)


class _OwnError(Exception):
    """What a user's code raises."""


@pytest.mark.parametrize("after", [0, 1000, len(LONG)])
@pytest.mark.parametrize("declared", [None, len(LONG)])
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_generator_that_raises(
    media: MediaApi, emulator: Emulator, after: int, declared: int | None, asynchronous: bool
) -> None:
    """What the user's generator raises arrives unchanged, and the connection is not used again in a broken state."""
    failure = _OwnError("mine")

    def failing() -> Iterator[bytes]:
        yield from joined(LONG[:after], 1000)
        raise failure

    async def failing_too() -> AsyncIterator[bytes]:
        for piece in joined(LONG[:after], 1000):
            yield piece
        raise failure

    source = failing_too() if asynchronous else failing()
    with pytest.raises(_OwnError) as caught:
        await media.upload(source, mime_type="text/plain", size=declared)
    assert caught.value is failure
    assert await arrived(media, emulator, TEXT) == TEXT


@pytest.mark.parametrize(
    "failure", [OSError(5, "mine"), ValueError("mine"), httpx.ReadError("mine"), StorageError("mine")]
)
@pytest.mark.parametrize("declared", [None, len(LONG)])
async def test_generator_that_raises_what_others_raise(
    media: MediaApi, failure: Exception, declared: int | None
) -> None:
    """An exception of the user's generator is not taken for one of ours or of the HTTP stack."""

    async def failing() -> AsyncIterator[bytes]:
        yield LONG[:500_000]
        raise failure

    with pytest.raises(type(failure)) as caught:
        await media.upload(failing(), mime_type="text/plain", size=declared)
    assert caught.value is failure


async def test_cancelled_while_a_generator_is_awaited(media: MediaApi, emulator: Emulator) -> None:
    """A cancelled upload cancels the generator it is waiting for."""
    seen: list[str] = []
    waiting = asyncio.Event()

    async def hesitating() -> AsyncIterator[bytes]:
        try:
            yield LONG
            waiting.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    upload = asyncio.ensure_future(media.upload(hesitating(), mime_type="text/plain"))
    await waiting.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert seen == ["cancelled"]
    assert emulator.requests == []


# Spooling


@pytest.mark.parametrize("room", [0, 2**20, len(LONG) - 1])
async def test_no_room_to_spool(media: MediaApi, emulator: Emulator, room: int) -> None:
    """A disk that is too full to spool on is a StorageError, at whichever write it shows, and nothing stays behind."""
    with files_no_larger_than(room):
        error = await refused(media, emulator, joined(LONG, 50_000), StorageError, mime_type="text/plain")
    assert isinstance(error, StorageError)
    assert error.errno == 27


async def test_no_place_to_spool(
    media: MediaApi, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary folder that is gone is a StorageError, and only for what needs it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    await refused(media, emulator, joined(LONG, 50_000), StorageError, mime_type="text/plain")
    assert await arrived(media, emulator, [TEXT], mime_type="text/plain") == TEXT


# Responses


@contextlib.asynccontextmanager
async def streaming(*script: Any, path: str = "/files/note.txt?X-Signature=SECRET") -> AsyncIterator[httpx.Response]:
    """Stream a reply of a scripted server."""
    async with (
        Server(*script) as server,
        httpx.AsyncClient() as client,
        client.stream("GET", server.base_url + path) as response,
    ):
        yield response


async def test_response(media: MediaApi, emulator: Emulator) -> None:
    """A response being streamed is passed on, at its declared length, under its URL's name without the query."""
    async with streaming(page(LONG, content_type="text/plain; charset=utf-8")) as response:
        source = Source.of(response)
        assert (source.name, source.mime_type) == ("note.txt", "text/plain; charset=utf-8")
        assert await arrived(media, emulator, response) == LONG


async def test_response_of_unknown_length(media: MediaApi, emulator: Emulator) -> None:
    """A response that does not say its length is spooled."""
    async with streaming(page(LONG, length=None)) as response:
        assert await arrived(media, emulator, response) == LONG


async def test_response_encoded(media: MediaApi, emulator: Emulator) -> None:
    """A compressed response is passed on as it was before, at the length it had before."""
    async with streaming(page(gzip.compress(LONG), content_encoding="gzip")) as response:
        assert await arrived(media, emulator, response) == LONG


async def test_response_without_a_name(media: MediaApi, emulator: Emulator) -> None:
    """A response from the root of a host has no name, and a size that was given counts."""
    async with streaming(page(TEXT, length=None), path="/") as response:
        assert Source.of(response).name is None
        assert await arrived(media, emulator, response, size=len(TEXT), mime_type="text/plain") == TEXT


async def test_response_that_is_an_error(media: MediaApi, emulator: Emulator) -> None:
    """A response that is an error is not uploaded."""
    async with streaming(page("<h1>Not found</h1>", 404)) as response:
        error = await refused(media, emulator, response, InvalidMediaError)
    assert str(error) == "the response to upload is an error: HTTP 404; pass a successful response"


@pytest.mark.parametrize("length", [len(LONG), None], ids=["declared", "chunked"])
async def test_response_that_breaks_off(media: MediaApi, emulator: Emulator, length: int | None) -> None:
    """A response that breaks off is a NetworkError that says it was the source; nothing is stored."""
    body = LONG[:1_500_000]
    if length is None:
        said = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b" % (len(LONG), body)
    else:
        said = page(body, length=length)
    async with streaming(cut(said)) as response:
        with pytest.raises(NetworkError, match="reading the response to upload failed") as caught:
            await media.upload(response)
    assert isinstance(caught.value.__cause__, httpx.RemoteProtocolError)
    assert await arrived(media, emulator, TEXT) == TEXT


async def test_response_that_was_read(media: MediaApi, emulator: Emulator) -> None:
    """A response already in memory is uploaded, again and again; one already streamed away is an error."""
    async with streaming(page(TEXT)) as response:
        await response.aread()
        for _ in range(2):
            assert await arrived(media, emulator, response) == TEXT
    async with streaming(page(TEXT)) as response:
        assert hashlib.sha256(b"".join([piece async for piece in response.aiter_raw()])).digest()
        with pytest.raises(InvalidMediaError, match="it was read already: pass what was read"):
            await media.upload(response)
