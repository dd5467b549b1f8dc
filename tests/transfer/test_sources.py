"""Everything that can be uploaded: what arrives is what was given, and what was given is left as it was found."""

from __future__ import annotations

import array
import asyncio
import contextlib
import inspect
import io
import os
import socket
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import aiofiles
import aiofiles.tempfile
import anyio
import pytest
from starlette.datastructures import Headers, UploadFile

from meta_media import MediaApi, Settings, Source
from meta_media.emulator import Emulator
from meta_media.errors import (
    CorruptedMediaError,
    InvalidMediaError,
    MediaError,
    NetworkError,
    ServerError,
    StorageError,
)
from tests.support.servers import Server, cut, json_response, open_files, page, reset, stalled, wait_until
from tests.transfer.uploads import LONG, TEXT, Fspath, arrived, refused

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


# Paths


@pytest.mark.parametrize("as_given", [str, Path, Fspath], ids=["str", "Path", "PathLike"])
async def test_path(media: MediaApi, emulator: Emulator, text: Path, as_given: Callable[[Path], Any]) -> None:
    """A path of any sort sends its file."""
    assert await arrived(media, emulator, as_given(text)) == TEXT


async def test_named_by_path(media: MediaApi, emulator: Emulator, text: Path) -> None:
    """Source.path sends a file under its own name."""
    source = Source.path(text)
    assert source.name == "note.txt"
    assert await arrived(media, emulator, source) == TEXT


@pytest.mark.parametrize(
    ("name", "number"),
    [("missing.txt", 2), ("note.txt/below", 20), ("a\0b", None), ("n" * 300, 36), (".", 21)],
    ids=["missing", "below a file", "NUL", "long", "folder"],
)
async def test_path_that_cannot_be_read(
    media: MediaApi, emulator: Emulator, text: Path, name: str, number: int | None
) -> None:
    """A path that cannot be read is a StorageError with the system's number, before any request."""
    error = await refused(media, emulator, f"{text.parent}/{name}", StorageError)
    assert isinstance(error, StorageError)
    assert error.errno == number


async def test_path_without_permission(media: MediaApi, emulator: Emulator) -> None:
    """A file that the system does not let anybody read, root included, is a StorageError before any request."""
    path = "/proc/self/mem"  # opens, but there is nothing to read at its beginning
    error = await refused(media, emulator, path, StorageError)
    assert "could not read the source" in str(error)


async def test_str_is_always_a_path(media: MediaApi, emulator: Emulator) -> None:
    """A str that looks like a URL is a path that does not exist: nothing is fetched."""
    async with Server(page(TEXT)) as server:
        await refused(media, emulator, f"{server.base_url}/note.txt", StorageError)
        assert server.connections == 0


async def test_empty_file(media: MediaApi, emulator: Emulator, tmp_path: Path) -> None:
    """An empty file is refused before any request."""
    (tmp_path / "empty.txt").touch()
    await refused(media, emulator, tmp_path / "empty.txt", CorruptedMediaError)


async def test_fifo_by_path(media: MediaApi, emulator: Emulator, tmp_path: Path) -> None:
    """A named pipe is read to its end and spooled."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(LONG,))
    writer.start()
    assert await arrived(media, emulator, fifo, mime_type="text/plain") == LONG
    writer.join()


async def test_cancelled_at_a_silent_fifo(media: MediaApi, tmp_path: Path) -> None:
    """A cancellation does not wait for a pipe that stays silent."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    silent = os.open(fifo, os.O_RDWR)
    upload = asyncio.ensure_future(media.upload(fifo))
    await wait_until(lambda: open_files(fifo).count(str(fifo)) == 2)
    await asyncio.sleep(0.1)  # by now it is being read, which nothing shows
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    os.write(silent, b"x")  # so that the thread ends
    os.close(silent)


# Memory


VIEWS: dict[str, tuple[Any, bytes]] = {
    "bytes": (TEXT, TEXT),
    "bytearray": (bytearray(TEXT), TEXT),
    "memoryview": (memoryview(TEXT), TEXT),
    "every second byte": (memoryview(b"".join(bytes((byte, 0)) for byte in TEXT))[::2], TEXT),
    "backwards": (memoryview(TEXT[::-1])[::-1], TEXT),
    "four bytes an item": (memoryview(TEXT).cast("I"), TEXT),
    "every second item": (memoryview(array.array("H", b"abXXcdXX" * 50))[::2], b"abcd" * 50),
    "two dimensions": (memoryview(TEXT).cast("B", (20, len(TEXT) // 20)), TEXT),
}


@pytest.mark.parametrize("view", VIEWS)
async def test_memory(media: MediaApi, emulator: Emulator, view: str) -> None:
    """Bytes in memory are sent as bytes, however they are laid out."""
    given, expected = VIEWS[view]
    assert await arrived(media, emulator, given, mime_type="text/plain") == expected


async def test_bytearray_is_free_afterwards(media: MediaApi) -> None:
    """A bytearray can be resized again after its upload."""
    data = bytearray(TEXT)
    await media.upload(data)
    data.append(0)


@pytest.mark.parametrize(
    "empty", [b"", bytearray(), memoryview(b""), memoryview(array.array("I")), memoryview(b"ab")[2:]]
)
async def test_empty_memory(media: MediaApi, emulator: Emulator, empty: Any) -> None:
    """No bytes at all are refused before any request."""
    await refused(media, emulator, empty, CorruptedMediaError)


async def test_named_bytes(media: MediaApi, emulator: Emulator) -> None:
    """Source.bytes gives memory a name, which decides the type where the bytes do not."""
    source = Source.bytes(TEXT, name="note.txt")
    assert await arrived(media, emulator, source) == TEXT


# Handles


class _Half:
    """A reader that is async, beside a position that is told at once, as some object stores have it."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    async def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    async def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


@contextlib.asynccontextmanager
async def _aiofiles_handle(path: Path) -> AsyncIterator[Any]:
    async with aiofiles.open(path, "rb") as handle:
        yield handle


@contextlib.asynccontextmanager
async def _aiofiles_unbuffered(path: Path) -> AsyncIterator[Any]:
    async with aiofiles.open(path, "rb", buffering=0) as handle:
        yield handle


@contextlib.asynccontextmanager
async def _aiofiles_spool(_: Path) -> AsyncIterator[Any]:
    async with aiofiles.tempfile.SpooledTemporaryFile() as handle:
        await handle.write(TEXT)
        yield handle


@contextlib.asynccontextmanager
async def _anyio_file(path: Path) -> AsyncIterator[Any]:
    async with await anyio.open_file(path, "rb") as handle:
        yield handle


@contextlib.asynccontextmanager
async def _sync_file(path: Path) -> AsyncIterator[Any]:
    with path.open("rb") as handle:
        yield handle


@contextlib.asynccontextmanager
async def _unbuffered_file(path: Path) -> AsyncIterator[Any]:
    with path.open("rb", buffering=0) as handle:
        yield handle


@contextlib.asynccontextmanager
async def _bytes_io(_: Path) -> AsyncIterator[Any]:
    yield io.BytesIO(TEXT)


@contextlib.asynccontextmanager
async def _spooled_in_memory(_: Path) -> AsyncIterator[Any]:
    with tempfile.SpooledTemporaryFile() as handle:
        handle.write(TEXT)
        yield handle


@contextlib.asynccontextmanager
async def _spooled_on_disk(_: Path) -> AsyncIterator[Any]:
    with tempfile.SpooledTemporaryFile(max_size=1) as handle:
        handle.write(TEXT)
        yield handle


@contextlib.asynccontextmanager
async def _named_temporary(_: Path) -> AsyncIterator[Any]:
    with tempfile.NamedTemporaryFile() as handle:
        handle.write(TEXT)
        yield handle


@contextlib.asynccontextmanager
async def _upload_file(path: Path) -> AsyncIterator[Any]:
    async with _spooled_in_memory(path) as spool:
        yield UploadFile(spool, filename="note.txt")


@contextlib.asynccontextmanager
async def _upload_file_on_disk(path: Path) -> AsyncIterator[Any]:
    async with _spooled_on_disk(path) as spool:
        yield UploadFile(spool, filename="note.txt")


HANDLES = [
    _aiofiles_handle,
    _aiofiles_unbuffered,
    _aiofiles_spool,
    _anyio_file,
    _sync_file,
    _unbuffered_file,
    _bytes_io,
    _spooled_in_memory,
    _spooled_on_disk,
    _named_temporary,
    _upload_file,
    _upload_file_on_disk,
]


def underlying(handle: Any) -> Any:
    """Return what can tell its position: an UploadFile cannot."""
    return handle.file if isinstance(handle, UploadFile) else handle


async def at(handle: Any) -> int:
    """Tell where a handle stands."""
    position = underlying(handle).tell()
    return int(await position if inspect.isawaitable(position) else position)


async def put(handle: Any, position: int) -> None:
    """Move a handle."""
    moved = underlying(handle).seek(position)
    if inspect.isawaitable(moved):
        await moved


@pytest.mark.parametrize("kind", HANDLES)
@pytest.mark.parametrize("start", [0, 120_000])
async def test_handle(media: MediaApi, emulator: Emulator, text: Path, kind: Any, start: int) -> None:
    """
    A handle is read from where it stands to its end, put back there, and left open; a second upload sends the same.

    A form's file is read whole.
    """
    async with kind(text) as handle:
        await put(handle, start)
        expected = 0 if isinstance(handle, UploadFile) else start
        for _ in range(2):
            assert await arrived(media, emulator, handle, mime_type="text/plain") == TEXT[expected:]
            assert await at(handle) == start


@pytest.mark.parametrize("kind", HANDLES)
async def test_handle_after_failures(text: Path, kind: Any) -> None:
    """A handle stands where it stood, and is open, also after a refusal, a reset and a cancellation."""
    hold = asyncio.Event()
    async with (
        Server(json_response({"error": {"code": 190, "message": "no"}}, 401), reset(), stalled(b"", hold)) as server,
        MediaApi("token", "1", settings=Settings(base_url=server.base_url, max_retries=0)) as api,
        kind(text) as handle,
    ):
        await put(handle, 12)
        for _ in range(2):
            with pytest.raises(MediaError):
                await api.upload(handle, mime_type="text/plain")
            assert await at(handle) == 12
        upload = asyncio.ensure_future(api.upload(handle, mime_type="text/plain"))
        await wait_until(lambda: len(server.requests) == 3)
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert await at(handle) == 12
        assert [len(request.body) > len(TEXT) - 12 for request in server.requests] == [True] * 3


async def test_half_async_handle(media: MediaApi, emulator: Emulator) -> None:
    """A handle whose `read` is async and whose `tell` is not is read like any other."""
    assert await arrived(media, emulator, _Half(LONG), mime_type="text/plain") == LONG


async def test_half_async_handle_of_declared_size(media: MediaApi, emulator: Emulator) -> None:
    """A handle that cannot say its size may be given one, and is then not spooled."""
    assert await arrived(media, emulator, Source.handle(_Half(LONG), name="a.txt", size=len(LONG))) == LONG


async def test_upload_file_says_name_and_type(media: MediaApi, emulator: Emulator) -> None:
    """A form's file brings its name, and its type where the bytes have none."""
    upload = UploadFile(io.BytesIO(TEXT), filename="C:\\fake\\x.bin", headers=Headers({"content-type": "text/plain"}))
    source = Source.of(upload)
    assert (source.name, source.mime_type) == ("C:\\fake\\x.bin", "text/plain")
    assert await arrived(media, emulator, upload, validate=False) == TEXT


def test_names_of_handles(text: Path) -> None:
    """A handle's name is the last part of its own, unless it is a number, or said otherwise."""
    with text.open("rb") as file, tempfile.TemporaryFile() as nameless:
        assert Source.handle(file).name == "note.txt"
        assert Source.handle(file, name="other.txt").name == "other.txt"
        assert Source.handle(nameless).name is None
        assert Source.handle(io.BytesIO()).name is None


@contextlib.contextmanager
def _pipe_end() -> Iterator[tuple[BinaryIO, Callable[[bytes], None]]]:
    read, write = os.pipe()

    def fill(data: bytes) -> None:
        with os.fdopen(write, "wb") as end:
            end.write(data)

    with os.fdopen(read, "rb") as handle:
        yield handle, fill


@contextlib.contextmanager
def _socket_end() -> Iterator[tuple[BinaryIO, Callable[[bytes], None]]]:
    ours, theirs = socket.socketpair()

    def fill(data: bytes) -> None:
        with theirs:
            theirs.sendall(data)

    with ours, ours.makefile("rb") as handle:
        yield handle, fill


@pytest.mark.parametrize("kind", [_pipe_end, _socket_end])
@pytest.mark.parametrize("size", [None, len(LONG)])
async def test_handle_that_cannot_seek(media: MediaApi, emulator: Emulator, kind: Any, size: int | None) -> None:
    """A pipe or a socket is read to its end, once, and stays open."""
    with kind() as (handle, fill):
        filling = threading.Thread(target=fill, args=(LONG,))
        filling.start()
        assert await arrived(media, emulator, handle, mime_type="text/plain", size=size) == LONG
        filling.join()
        assert not handle.closed


async def test_cancelled_at_a_silent_pipe(media: MediaApi) -> None:
    """A cancellation does not wait for a handle that stays silent."""
    with _pipe_end() as (handle, fill):
        upload = asyncio.ensure_future(media.upload(handle))
        await asyncio.sleep(0.3)  # by now it is being read, which nothing shows
        upload.cancel()
        with pytest.raises(asyncio.CancelledError):
            await upload
        fill(b"x")  # so that the thread ends


async def test_stream_reader(media: MediaApi, emulator: Emulator) -> None:
    """An asyncio.StreamReader is read to its end."""
    async with Server(cut(LONG)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert await arrived(media, emulator, reader, mime_type="text/plain") == LONG
        writer.close()
        await writer.wait_closed()


class _Gated(io.RawIOBase):
    """A seekable file whose reads after the first wait for a sign."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self.reading = threading.Event()
        self.go = threading.Event()
        self.seen = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1, /) -> bytes:
        self.seen += 1
        if self.seen > 2:
            self.reading.set()
            self.go.wait()
        return self._file.read(size)


async def test_cancelled_while_a_file_is_read(media: MediaApi) -> None:
    """A cancelled read of a file is waited for, so that it cannot move the position after it was restored."""
    with _Gated(LONG) as handle:
        handle.seek(7)
        upload = asyncio.ensure_future(media.upload(handle, mime_type="text/plain"))
        await wait_until(handle.reading.is_set)
        upload.cancel()
        asyncio.get_running_loop().call_later(0.2, handle.go.set)
        with pytest.raises(asyncio.CancelledError):
            await upload
        assert handle.go.is_set()
        assert handle.tell() == 7


@pytest.mark.parametrize(("change", "words"), [(1, "became longer"), (-1, "became shorter")])
async def test_file_that_changes_while_it_is_read(tmp_path: Path, change: int, words: str) -> None:
    """A file that is no longer of its size at its end is refused there."""
    path = tmp_path / "a.txt"
    path.write_bytes(LONG)
    seen: list[bytes] = []

    async def read() -> None:
        async with Source.path(path).open() as body, contextlib.aclosing(body.chunks(lambda: 1000)) as chunks:
            async for chunk in chunks:
                if not seen:
                    os.truncate(path, len(LONG) + change)
                seen.append(bytes(chunk))

    with pytest.raises(CorruptedMediaError, match=words):
        await read()
    assert b"".join(seen) == LONG[: len(LONG) + min(change, 0)]


async def test_file_that_is_read_no_further(tmp_path: Path) -> None:
    """A file is closed when its reader stops, although a chunk was read ahead."""
    path = tmp_path / "a.txt"
    path.write_bytes(LONG)
    async with Source.path(path).open() as body, contextlib.aclosing(body.chunks(lambda: 1000)) as chunks:
        assert bytes(await anext(chunks)) == LONG[:1000]


class _Generous(io.BytesIO):
    """A file object that adds something of its own to the last piece."""

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        return piece + b"..." if piece and self.tell() == len(self.getvalue()) else piece


async def test_handle_that_gives_more_than_asked(media: MediaApi, emulator: Emulator) -> None:
    """A handle that gives more than it is asked for is told of as one that grew."""
    with pytest.raises(CorruptedMediaError, match="became longer"):
        await media.upload(_Generous(LONG), mime_type="text/plain")
    assert await arrived(media, emulator, b"still works", mime_type="text/plain") == b"still works"


class _Falling(io.BytesIO):
    """A file object on a medium that fails after some reads."""

    def __init__(self, data: bytes, reads: int, error: Exception) -> None:
        super().__init__(data)
        self._left = reads
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return super().read(size)


@pytest.mark.parametrize("reads", [0, 1, 3])
async def test_medium_fails(media: MediaApi, reads: int) -> None:
    """A read that fails, early or late, is a StorageError, and the client works on."""
    handle = _Falling(LONG, reads, OSError(5, "Input/output error"))
    with pytest.raises(StorageError, match="could not read the source: Input/output error") as caught:
        await media.with_options(chunk_size=4096).upload(handle, mime_type="text/plain")
    assert caught.value.errno == 5
    await media.upload(TEXT)


async def test_text_mode_handle(media: MediaApi, emulator: Emulator, text: Path) -> None:
    """A handle in text mode is refused before any request, and left where it stood."""
    with text.open(encoding="utf-8") as handle:
        handle.readline()
        position = handle.tell()
        error = await refused(media, emulator, handle, InvalidMediaError)
        assert "str, not bytes" in str(error)
        assert handle.tell() == position
    async with aiofiles.open(text) as async_handle:
        await refused(media, emulator, async_handle, InvalidMediaError)


async def test_closed_handle(media: MediaApi, emulator: Emulator, text: Path) -> None:
    """A closed handle is a StorageError before any request."""
    with text.open("rb") as handle:
        pass
    async with aiofiles.open(text, "rb") as async_handle:
        pass
    for closed in (handle, async_handle, UploadFile(handle)):
        error = await refused(media, emulator, closed, StorageError)
        assert "closed file" in str(error)


@pytest.mark.parametrize("change", ["shorter", "longer"])
@pytest.mark.parametrize("by_path", [True, False])
async def test_file_changes_while_it_is_sent(
    media: MediaApi, emulator: Emulator, tmp_path: Path, change: str, by_path: bool
) -> None:
    """A file that shrinks or grows while it is sent is a CorruptedMediaError; nothing is stored, and the client works on."""
    path = tmp_path / "changing.txt"
    path.write_bytes(LONG)

    def meddle(_: object) -> None:
        if change == "shorter":
            os.truncate(path, 100_000)
        else:
            os.truncate(path, len(LONG) + 4)

    api = media.with_options(chunk_size=65536)
    with path.open("rb") as handle, pytest.raises(CorruptedMediaError, match=f"became {change}") as caught:
        await api.upload(path if by_path else handle, mime_type="text/plain", progress=meddle)
    assert caught.value.operation == "upload"
    assert await arrived(media, emulator, TEXT) == TEXT


# The constructors


def test_source_stays_itself() -> None:
    """A Source is taken as it is, and shows its name only."""
    source = Source.bytes(b"secret", name="a.txt")
    assert Source.of(source) is source
    assert repr(source) == "OpenableSource(name='a.txt', mime_type=None, sha256=None)"


async def test_source_can_be_used_again(media: MediaApi, emulator: Emulator, text: Path) -> None:
    """A Source of a path, of bytes or of a handle can be uploaded any number of times."""
    with text.open("rb") as handle:
        for source in (Source.path(text), Source.bytes(TEXT), Source.handle(handle)):
            for _ in range(2):
                assert await arrived(media, emulator, source, mime_type="text/plain") == TEXT


async def test_early_answer_stops_reading() -> None:
    """A server that refuses and hangs up before it has the body gives one of our errors, and the source is closed."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(json_response({"error": {"code": 100, "message": "too large"}}, 413))
        writer.close()

    server = await asyncio.start_server(early, "127.0.0.1", 0)
    async with server:
        settings = Settings(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with MediaApi("token", "1", settings=settings) as api:
            with pytest.raises((ServerError, NetworkError, MediaError)) as caught:
                await api.upload(LONG * 5, mime_type="text/plain")
    assert caught.value.operation == "upload"
    assert caught.value.attempts == 1
