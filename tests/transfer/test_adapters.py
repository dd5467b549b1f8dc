"""Objects of other libraries as sources: each is read as what it is, with the name, type and size that it brings."""

from __future__ import annotations

import array
import asyncio
import collections
import contextlib
import ctypes
import functools
import gzip
import inspect
import io
import mmap
import os
import pickle
import re
import sqlite3
import tarfile
import tempfile
import threading
import traceback
import types
import urllib.request
import warnings
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from unittest.mock import AsyncMock, MagicMock

import aiohttp
import aiohttp.web
import anyio
import httpx
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from python_multipart.multipart import File
from starlette.datastructures import UploadFile
from werkzeug.datastructures import FileStorage

from meta_media import MediaApi, Source
from meta_media.emulator import Emulator
from meta_media.errors import ConfigurationError, CorruptedMediaError, InvalidMediaError, NetworkError, StorageError
from meta_media.transfer import sources
from tests.support.servers import Server, page
from tests.transfer.uploads import LONG, TEXT, arrived, refused, slowly

pytestmark = pytest.mark.usefixtures("nothing_stays_open")


async def body_of(source: object, **options: Any) -> bytes:
    """Read a source to its end, without an upload."""
    async with Source.of(source, **options).open() as body:
        await body.measure(2**30, 2**20)
        return b"".join([bytes(chunk) async for chunk in body.chunks(lambda: 2**16)])


async def name_of(source: object) -> str | None:
    """Return the name that a source is sent under."""
    origin = Source.of(source)
    async with origin.open() as body:
        return origin.name or body.name


class Thing:
    """An object with the given attributes."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


# What says itself what it is


class _Photo:
    def __media_source__(self) -> Source:
        return Source.stream(slowly(TEXT), name="own.txt", mime_type="text/plain", size=len(TEXT))


async def test_media_source(media: MediaApi, emulator: Emulator) -> None:
    """A class that has `__media_source__` decides itself what is read, with name, type and size."""
    source = Source.of(_Photo())
    assert (source.name, source.mime_type) == ("own.txt", "text/plain")
    assert await arrived(media, emulator, _Photo()) == TEXT


async def test_media_source_is_asked_of_the_class() -> None:
    """An attribute of that name is no declaration, and one that returns something else is refused."""
    assert await body_of(MagicMock(read=MagicMock(side_effect=[TEXT, b""]))) == TEXT
    wrong = type("Wrong", (), {"__media_source__": lambda self: b"bytes"})
    with pytest.raises(InvalidMediaError, match="__media_source__ must return a Source, not a bytes"):
        Source.of(wrong())


# Memory

BUFFERS: dict[str, tuple[Any, bytes]] = {
    "array": (array.array("H", [0x6161, 0x6262]), b"aabb"),
    "empty": (array.array("H"), b""),
    "ctypes": ((ctypes.c_uint8 * 3)(97, 98, 99), b"abc"),
    "foreign format": ((ctypes.c_uint16.__ctype_be__ * 2)(0x6162, 0x6364), b"abcd"),
    "pickle": (pickle.PickleBuffer(b"abc"), b"abc"),
}


@pytest.mark.parametrize("kind", BUFFERS)
async def test_buffers(kind: str) -> None:
    """Whatever has the buffer protocol is bytes, as a whole and as a chunk of a stream."""
    given, expected = BUFFERS[kind]
    assert await body_of(given) == expected
    assert await body_of([given, given]) == expected * 2


@pytest.mark.parametrize("wrong", [ctypes.c_int(5), (ctypes.py_object * 2)()], ids=["number", "objects"])
async def test_buffers_that_are_not_bytes(media: MediaApi, emulator: Emulator, wrong: Any) -> None:
    """A number and an array of objects have no bytes to send, although they have memory."""
    await refused(media, emulator, wrong, InvalidMediaError)


async def test_released_memory(media: MediaApi, emulator: Emulator) -> None:
    """A released memoryview is refused."""
    view = memoryview(TEXT)
    view.release()
    assert "was released" in str(await refused(media, emulator, view, InvalidMediaError))


async def test_memory_map(text: Path) -> None:
    """A memory map is a handle: its pages may have to be fetched from the disk."""
    with text.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        mapped.seek(5)
        assert await body_of(mapped) == TEXT[5:]
        assert mapped.tell() == 5


# Paths


class _Remote:
    """A path of another file system: `open` may fetch the file, `__fspath__` must not be called."""

    name = "remote.txt"

    def __init__(self, data: bytes) -> None:
        self.handle = io.BytesIO(data)
        self.threads: list[str] = []

    def open(self, mode: str = "r", **_: Any) -> io.BytesIO:
        """Open it, as cloud paths do."""
        assert mode == "rb"
        self.threads.append(threading.current_thread().name)
        return self.handle

    def __fspath__(self) -> str:
        raise AssertionError("it is not of this machine")


class _RemoteUnderlying(PurePosixPath):
    """A path of a store, as a subclass of pathlib's."""

    def open(self, mode: str = "r") -> io.BytesIO:
        """Open it."""
        assert mode == "rb"
        return io.BytesIO(TEXT)


class _RemoteText(str):
    """A path of another machine, as a subclass of str."""

    def open(self, mode: str = "r") -> io.BytesIO:
        """Open it."""
        assert mode == "rb"
        return io.BytesIO(TEXT)

    def read(self) -> str:
        """Read it as text."""
        raise AssertionError("it is a path")


async def test_path_of_another_file_system(media: MediaApi, emulator: Emulator) -> None:
    """A path that is not of this machine is opened by its own `open`, on a thread, and closed afterwards."""
    remote = _Remote(TEXT)
    assert Source.of(remote).name == Source.path(remote).name == "remote.txt"
    assert await arrived(media, emulator, remote) == TEXT
    assert remote.handle.closed
    assert [name.startswith("meta_media") for name in remote.threads] == [True]


async def test_paths_that_have_an_own_open(tmp_path: Path) -> None:
    """A subclass of pathlib's or of str with an `open` of its own, a zip member and fsspec's OpenFile are opened by it."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inner.txt", TEXT)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert await body_of(zipfile.Path(archive, "inner.txt")) == TEXT
        assert await name_of(zipfile.Path(archive, "inner.txt")) == "inner.txt"
    assert await body_of(_RemoteUnderlying("/bucket/a.txt")) == TEXT
    assert await body_of(_RemoteText("/bucket/a.txt")) == TEXT
    assert await body_of(Thing(mode="rb", path="bucket/a.txt", open=lambda: io.BytesIO(TEXT))) == TEXT


async def test_path_of_another_file_system_that_fails(media: MediaApi, emulator: Emulator) -> None:
    """What the library of a cloud path raises when it opens the file, at once or late, is a StorageError, shortened."""

    class Failing(_Remote):
        def open(self, mode: str = "r", **_: Any) -> io.BytesIO:
            raise LookupError("no such key: " + "x" * 500)

    class FailingLate(_Remote):
        def open(self, mode: str = "r", **_: Any) -> Any:
            return Thing(tell=int, close=int, read=functools.partial(_raise, ArithmeticError("no such key: xxx")))

    for failing, kind in ((Failing, "LookupError"), (FailingLate, "ArithmeticError")):
        error = await refused(media, emulator, failing(b""), StorageError)
        assert str(error).startswith(f"could not open 'remote.txt': {kind}: 'no such key: xxx")
        assert len(str(error)) < 200


async def test_path_of_another_file_system_that_is_text(media: MediaApi, emulator: Emulator) -> None:
    """What its `open` returns is judged like any handle, and closed."""
    opened = io.StringIO("text")
    wrong = Thing(mode="r", open=lambda: opened)
    assert "str, not bytes" in str(await refused(media, emulator, wrong, InvalidMediaError))
    assert opened.closed


async def test_paths_that_cannot_be_opened(media: MediaApi, emulator: Emulator, tmp_path: Path) -> None:
    """The name of an object in a store, an archive, a module and a class are no paths, although one has an `open`."""
    pure = type("PureStorePath", (PurePosixPath,), {})
    with tarfile.open(tmp_path / "a.tar", "w") as writing:
        writing.addfile(tarfile.TarInfo("empty"))
    with tarfile.open(tmp_path / "a.tar") as archive, zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        for wrong in (pure("/bucket/key"), archive, zipped, gzip, zipfile.Path):
            await refused(media, emulator, wrong, InvalidMediaError)
    with pytest.raises(InvalidMediaError, match=r"a path is a str or an os\.PathLike, not a int"):
        Source.path(3)  # type: ignore[arg-type]  # that is the mistake


async def test_fspath_is_called_once_on_a_thread(media: MediaApi, emulator: Emulator, text: Path) -> None:
    """`__fspath__`, which may fetch the file, is called once, and never on the event loop. The name is its result's."""
    called: list[str] = []

    class Fetched:
        def __fspath__(self) -> str:
            called.append(threading.current_thread().name)
            return str(text)

    assert await arrived(media, emulator, Fetched()) == TEXT
    assert [name.startswith("meta_media") for name in called] == [True]
    assert await name_of(Fetched()) == "note.txt"


async def test_local_paths(media: MediaApi, emulator: Emulator, text: Path) -> None:
    """The paths of anyio and of a folder's listing are local."""
    [entry] = os.scandir(text.parent)
    for path in (anyio.Path(text), entry):
        assert Source.of(path).name == "note.txt"
        assert await arrived(media, emulator, path) == TEXT


# Text

TEXTS = {
    "URL": ("https://bucket.example/a.jpg?X-Amz-Signature=SECRET", "not a path: pass Source.url(url)"),
    "URL with a password": ("s3://key:SECRET@bucket/a.jpg#SECRET", "not a path: open it by its own library"),
    "URL as a Path": (Path("https://bucket.example/a.jpg?X-Amz-Signature=SECRET"), "pass Source.url(url)"),
    "data URI": ("data:image/jpeg;base64,SECRET" + "QUFB" * 4000, "decode it and pass the bytes"),
    "lines": ("first line\nSECRET", "pass text.encode() and a filename"),
    "long": ("SECRET" * 1000, "pass text.encode() and a filename"),
    "long Path": (Path("SECRET" * 1000), "pass text.encode() and a filename"),
    "words": ("hello world", "a str is a path: for text, pass text.encode()"),
    "empty": ("", "pass the path of a file"),
    "folder": ("/tmp", "upload_many(Path(folder).iterdir())"),
    "home": ("~/photo.jpg", "pass Path(path).expanduser()"),
}


@pytest.mark.parametrize("kind", TEXTS)
async def test_text_that_is_no_path(media: MediaApi, emulator: Emulator, kind: str) -> None:
    """A str that is a URL, a data URI or content is told so. Queries, passwords and content are not shown."""
    given, advice = TEXTS[kind]
    error = await refused(media, emulator, given, StorageError)
    assert advice in str(error)
    assert "SECRET" not in "".join(traceback.format_exception(error))
    assert len(str(error)) < 200


async def test_missing_file_is_told_without_advice(media: MediaApi, emulator: Emulator) -> None:
    """A path that looks like one is only told to be missing, with its end."""
    error = await refused(media, emulator, "/no" + "/such" * 30 + "/photo.jpg", StorageError)
    assert str(error).startswith("could not open '/no/such/such")
    assert str(error).endswith("/such/photo.jpg': No such file or directory")


async def test_str_paths(emulator: Emulator, text: Path) -> None:
    """With `str_paths=False` a str is no path, neither of a source nor of a destination, and a Path still is."""
    async with emulator.api(str_paths=False) as media:
        error = await refused(media, emulator, str(text), InvalidMediaError)
        assert "Settings.str_paths is False" in str(error)
        for source in (text, Source.path(str(text)), TEXT):
            uploaded = await media.upload(source)
            assert uploaded.file_size == len(TEXT)
        with pytest.raises(ConfigurationError, match=r"Settings\.str_paths is False"):
            await media.download(uploaded.id, str(text.parent / "copy.txt"))
        assert (await media.download(uploaded.id, text.parent / "copy.txt")).size == len(TEXT)


# Responses


def _sized(pieces: list[bytes]) -> Callable[..., Iterator[bytes]]:
    def iterate(size: int = 1, **_: Any) -> Iterator[bytes]:
        assert size > 1
        yield from pieces

    return iterate


async def _async_iter_content(size: int = 1) -> AsyncIterator[bytes]:
    assert size > 1
    return slowly(TEXT)


RESPONSES: dict[str, Callable[[], dict[str, Any]]] = {
    "requests": lambda: {"status_code": 200, "iter_content": _sized([TEXT]), "content": b"", "raw": None},
    "urllib3": lambda: {"status": 200, "stream": _sized([TEXT]), "read": None},
    "niquests": lambda: {"status_code": 200, "iter_content": _async_iter_content},
    "aiohttp": lambda: {"status": 200, "content": _AsyncReader(TEXT), "read": _no_size},
    "urlopen": lambda: {"status": 200, "code": 200, "read": io.BytesIO(TEXT).read},
    "tornado": lambda: {"code": 200, "body": TEXT},
}


class _AsyncReader:
    """What is read asynchronously, and cannot seek."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    async def read(self, n: int = -1) -> bytes:
        return self._file.read(n)


async def _no_size() -> bytes:
    raise AssertionError("it would be read into memory")


def response(kind: str, **changes: Any) -> Thing:
    """Make a response of one of the HTTP clients."""
    headers = {"Content-Type": "text/plain", "Content-Length": str(len(TEXT))} | changes.pop("more", {})
    facts = {"headers": CIMultiDict(headers), "url": "https://bucket.example/files/a%20b.txt?sig=SECRET"}
    return Thing(**(RESPONSES[kind]() | facts | changes))


@pytest.mark.parametrize("kind", RESPONSES)
async def test_responses(media: MediaApi, emulator: Emulator, kind: str) -> None:
    """The response of any HTTP client is sent with its name, its type and its size, whether it is plain or async."""
    source = Source.of(response(kind))
    assert (source.name, source.mime_type) == ("a b.txt", "text/plain")
    async with source.open() as body:
        assert body.size == len(TEXT)
    assert await arrived(media, emulator, response(kind)) == TEXT


@pytest.mark.parametrize("kind", RESPONSES)
async def test_responses_that_are_errors(media: MediaApi, emulator: Emulator, kind: str) -> None:
    """A response whose status is no success is not taken for the file."""
    status = {name: 404 for name in ("status", "status_code", "code") if name in RESPONSES[kind]()}
    error = await refused(media, emulator, response(kind, **status), InvalidMediaError)
    assert str(error) == "the response to upload is an error: HTTP 404; pass a successful response"


async def test_facts_of_responses() -> None:
    """Content-Disposition names the file before the URL does, and a compressed body has another size than it says."""
    named = response("requests", more={"Content-Disposition": 'attachment; filename="x.txt"'})
    assert Source.of(named).name == "x.txt"
    zipped = Source.of(response("requests", more={"Content-Encoding": "gzip"}, url=None))
    assert zipped.name is None
    async with zipped.open() as body:
        assert body.size is None
    assert Source.of(response("requests", headers={"Content-Type": "text/plain"})).mime_type == "text/plain"


async def test_response_of_urllib(media: MediaApi, emulator: Emulator) -> None:
    """What urlopen returns is a response."""
    async with Server(page(TEXT, content_type="text/plain")) as server:
        with await asyncio.to_thread(urllib.request.urlopen, f"{server.base_url}/files/note.txt?sig=SECRET") as opened:
            assert Source.of(opened).name == "note.txt"
            assert await arrived(media, emulator, opened) == TEXT


async def test_responses_of_aiohttp(media: MediaApi, emulator: Emulator) -> None:
    """A response of aiohttp is read in its block; a 404 and one after its block are refused."""
    async with (
        Server(page(LONG, content_type="text/plain"), page("no", 404), page(LONG)) as server,
        aiohttp.ClientSession() as session,
    ):
        async with session.get(server.base_url + "/a.txt") as received:
            assert await arrived(media, emulator, received) == LONG
        async with session.get(server.base_url + "/a.txt") as received:
            with pytest.raises(InvalidMediaError, match="HTTP 404"):
                await media.upload(received)
        async with session.get(server.base_url + "/a.txt") as received:
            pass
        with pytest.raises(InvalidMediaError, match="upload it inside its block"):
            await media.upload(received)


async def test_responses_of_httpx_that_cannot_be_read(media: MediaApi, emulator: Emulator) -> None:
    """A response that was read already, is closed or is of a sync client says so, and is not worth another try."""
    async with Server(page(TEXT), page(LONG)) as server, httpx.AsyncClient() as client:
        async with client.stream("GET", server.base_url) as consumed:
            async for _ in consumed.aiter_raw():
                pass
            error = await refused(media, emulator, consumed, InvalidMediaError)
            assert "it was read already: pass what was read" in str(error)
        async with client.stream("GET", server.base_url) as closed:
            pass
        error = await refused(media, emulator, closed, InvalidMediaError)
        assert "it is closed: upload it inside its block" in str(error)
        assert not error.retryable
    sync = httpx.Response(200, stream=httpx.ByteStream(b""))
    sync.stream = type("SyncOnly", (httpx.SyncByteStream,), {"__iter__": lambda self: iter([TEXT])})()
    error = await refused(media, emulator, sync, InvalidMediaError)
    assert "pass response.iter_bytes()" in str(error)
    assert await arrived(media, emulator, sync.iter_bytes(), mime_type="text/plain") == TEXT


async def test_response_that_was_read_already(media: MediaApi, emulator: Emulator) -> None:
    """A response that has nothing left is not told to be an empty file."""
    error = await refused(media, emulator, response("requests", iter_content=_sized([])), CorruptedMediaError)
    assert "has nothing left to read: it is empty, or was read already" in str(error)


async def test_response_whose_client_fails(media: MediaApi, emulator: Emulator) -> None:
    """What another client raises while a response is read is a NetworkError, and so is its OSError."""
    texts = response("requests", iter_content=lambda size: ["text"])
    assert "yields str, not bytes" in str(await refused(media, emulator, texts, InvalidMediaError))
    for failure in (LookupError("broken"), ConnectionResetError(104, "reset")):
        broken = _AsyncReader(b"")
        broken.read = AsyncMock(side_effect=failure)  # type: ignore[method-assign]  # it is the one that fails
        error = await refused(media, emulator, response("aiohttp", content=broken), NetworkError)
        assert error.__cause__ is failure


# Files of forms


class _HttpFile(dict[str, Any]):
    """Tornado's HTTPFile: a dict with attributes."""

    __getattr__ = dict.__getitem__


class _SanicFile(NamedTuple):
    type: str
    body: bytes
    name: str


class _StreamedPart:
    """BlackSheep's: names and types are bytes, and `read` takes no size."""

    file_name = b"a.txt"
    content_type = b"text/plain"
    name = b"field"

    async def read(self) -> bytes:
        raise AssertionError("it would be read into memory")

    async def stream(self) -> AsyncIterator[bytes]:
        async for chunk in slowly(TEXT[:1000], TEXT[1000:]):
            yield chunk


def _multipart_file() -> File:
    file = File(b"a.txt", b"field")
    file.write(TEXT)
    return file


def _half_read() -> io.BytesIO:
    handle = io.BytesIO(TEXT)
    handle.seek(512)
    return handle


def _field() -> aiohttp.web.FileField:
    headers = CIMultiDictProxy(CIMultiDict[str]())
    return aiohttp.web.FileField("field", "a.txt", io.BufferedReader(io.BytesIO(TEXT)), "text/plain", headers)


PARTS: dict[str, Callable[[], Any]] = {
    "Starlette": lambda: UploadFile(_half_read(), filename="a.txt"),
    "werkzeug": lambda: FileStorage(_half_read(), filename="a.txt", name="field", content_type="text/plain"),
    "Django": lambda: Thing(file=_half_read(), name="a.txt", content_type="text/plain", chunks=None, read=None),
    "aiohttp": _field,
    "Falcon": lambda: Thing(stream=_AsyncReader(TEXT), filename="a.txt", content_type="text/plain", name="field"),
    "Tornado": lambda: _HttpFile(filename="a.txt", body=TEXT, content_type="text/plain"),
    "Sanic": lambda: _SanicFile("text/plain", TEXT, "a.txt"),
    "BlackSheep": lambda: Thing(file=_half_read(), file_name=b"a.txt", content_type=b"text/plain", name=b"field"),
    "BlackSheep, streamed": _StreamedPart,
    "python-multipart": _multipart_file,
}


@pytest.mark.parametrize("kind", PARTS)
async def test_files_of_forms(media: MediaApi, emulator: Emulator, kind: str) -> None:
    """The file of a form is uploaded whole, wherever it stands, under its file name and not its field's."""
    part = PARTS[kind]()
    source = Source.of(part)
    assert source.name == "a.txt"
    assert source.mime_type == (None if kind in {"Starlette", "python-multipart"} else "text/plain")
    assert await arrived(media, emulator, part) == TEXT


@pytest.mark.parametrize("kind", ["Starlette", "werkzeug", "Django", "BlackSheep"])
async def test_half_read_file_of_a_form(kind: str) -> None:
    """The position of a form's file is restored, also if it stands at its end, and a second upload is whole as well."""
    part = PARTS[kind]()
    handle = getattr(part, "file", None) or part.stream
    for position in (512, len(TEXT)):
        handle.seek(position)
        for upload in (Source.of(part), Source.handle(part)):
            assert await body_of(upload) == TEXT
            assert handle.tell() == position


async def test_file_without_a_file_name() -> None:
    """A form's file without a file name is not called like its field."""
    assert Source.of(FileStorage(io.BytesIO(TEXT), name="field")).name is None


# Handles


class _Decorated:
    """A reader whose `read` is a plain function that returns a coroutine."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    async def _read(self, size: int) -> bytes:
        await asyncio.sleep(0)
        return self._file.read(size)

    def read(self, size: int = -1) -> Awaitable[bytes]:
        return self._read(size)


class _Future(_Decorated):
    """A reader that returns futures, which only the event loop's thread can make, as extensions written in Rust do."""

    def read(self, size: int = -1) -> Awaitable[bytes]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(self._file.read(size))
        return future


class _HalfAsync(_Decorated):
    """A reader that is async, beside a position that is not."""

    read = _Decorated._read  # type: ignore[assignment]

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


class _Relative(_HalfAsync):
    """A reader that can go to a position, but not to its end, as aiofile's."""

    def seek(self, offset: int) -> None:  # type: ignore[override]  # that is what is odd about it
        self._file.seek(offset)


class _Endless(_HalfAsync):
    """A reader that does not know its end, as that of s3fs' open_async."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset + (None if whence == os.SEEK_END else 0))  # type: ignore[operator]  # that is its fault


class _Chunked(_Decorated):
    """A form's part that is read by `read_chunk`."""

    async def read(self) -> bytes:  # type: ignore[override]  # that is what is odd about it
        raise AssertionError("it would be read into memory")

    async def read_chunk(self, size: int = 8192) -> bytes:
        return await self._read(size)


class _Iterated(_Decorated):
    """A call that is read by iteration, because its `read` returns the next message."""

    async def read(self) -> bytes:  # type: ignore[override]  # that is what is odd about it
        raise AssertionError("it is iterable")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return slowly(TEXT[:9], TEXT[9:])


class _Messages(_Decorated):
    """A stream whose `read` returns the next piece, and None at the end."""

    async def read(self) -> bytes | None:  # type: ignore[override]  # that is what is odd about it
        return await self._read(100_000) or None


class _Request:
    """The request of a web framework: it streams its body, and is no form's file."""

    async def stream(self) -> AsyncIterator[bytes]:
        async for chunk in slowly(TEXT[:1000], TEXT[1000:]):
            yield chunk


READERS: dict[str, Callable[[], Any]] = {
    "decorated": lambda: _Decorated(TEXT),
    "future": lambda: _Future(TEXT),
    "half async": lambda: _HalfAsync(TEXT),
    "no way to its end": lambda: _Relative(TEXT),
    "no end": lambda: _Endless(TEXT),
    "read_chunk": lambda: _Chunked(TEXT),
    "iterated": lambda: _Iterated(TEXT),
    "messages": lambda: _Messages(TEXT),
    "chunks": lambda: Thing(read=_no_size, chunks=lambda: [TEXT]),
    "content": lambda: Thing(read=_no_size, content=_AsyncReader(TEXT)),
    "request": _Request,
}


@pytest.mark.parametrize("kind", READERS)
async def test_readers(media: MediaApi, emulator: Emulator, kind: str) -> None:
    """What `read` returns is awaited where it can be; a `read` without a size is replaced by what gives pieces."""
    assert await arrived(media, emulator, READERS[kind](), mime_type="text/plain") == TEXT


async def test_blocking_read_runs_on_a_thread() -> None:
    """A `read` that is no coroutine function is called on a thread, and one that refuses that, on the event loop."""
    threads: list[str] = []

    class Blocking(_AsyncReader):
        def read(self, n: int = -1) -> bytes:  # type: ignore[override]  # it blocks
            threads.append(threading.current_thread().name)
            return self._file.read(n)

    assert await body_of(Blocking(TEXT)) == TEXT
    assert {name.startswith("meta_media") for name in threads} == {True}
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("create table files (data blob)")
        database.execute("insert into files values (?)", (TEXT,))
        with database.blobopen("files", "data", 1) as blob:
            assert await body_of(blob) == TEXT


async def test_error_of_a_read_is_the_callers() -> None:
    """What `read` raises arrives as it is, also a RuntimeError."""
    for failure in (RuntimeError("mine"), LookupError("mine")):
        with pytest.raises(type(failure), match="mine"):
            await body_of(Thing(read=functools.partial(_raise, failure)))


def _raise(error: Exception, _: int) -> bytes:
    raise error


async def test_half_async_handle_can_be_measured() -> None:
    """A handle with an async `read` and a plain `tell` is seekable, and is restored."""
    handle = _HalfAsync(LONG)
    handle.seek(7)
    async with Source.of(handle).open() as body:
        assert (body.size, body.replayable) == (len(LONG) - 7, True)
    assert handle.tell() == 7


async def test_declared_sizes_of_readers() -> None:
    """A reader that says its size is not spooled, unless its bytes are compressed, and a cut one is noticed."""
    for name in ("size", "content_length"):
        reader = _AsyncReader(LONG)
        setattr(reader, name, len(LONG))
        async with Source.of(reader).open() as body:
            assert (body.size, body.replayable) == (len(LONG), True)
            assert sum([len(chunk) async for chunk in body.chunks(lambda: 2**16)]) == len(LONG)
            assert not body.replayable
    cut = Thing(read=_AsyncReader(TEXT).read, size=len(TEXT) + 1)
    with pytest.raises(CorruptedMediaError, match="ended after"):
        await body_of(cut)
    zipped = Thing(read=_AsyncReader(TEXT).read, size=7, headers=CIMultiDict({"Content-Encoding": "gzip"}))
    assert await body_of(zipped) == TEXT


@pytest.mark.parametrize("how", ["written", "read"])
async def test_handle_at_its_end(media: MediaApi, emulator: Emulator, how: str) -> None:
    """A handle that stands at its end is told so, with what to do, and stays there."""
    handle = io.BytesIO(TEXT if how == "read" else b"")
    handle.read() if how == "read" else handle.write(TEXT)
    for validate in (True, False):
        error = await refused(media, emulator, handle, CorruptedMediaError, filename="p.txt", validate=validate)
        advice = "it stands at its end: call seek(0), or pass getvalue()"
        assert str(error) == f"'p.txt' has nothing left to read: {advice}"
    assert "the file has nothing left" in str(await refused(media, emulator, handle, CorruptedMediaError))
    assert handle.tell() == len(TEXT)
    assert "is empty" in str(await refused(media, emulator, io.BytesIO(), CorruptedMediaError))


async def test_handle_without_a_position(media: MediaApi, emulator: Emulator) -> None:
    """A handle whose `read` wants an offset, and that has no position, would be read from its start for ever."""

    class AIOFile:
        async def read(self, size: int = -1, offset: int = 0) -> bytes:
            raise AssertionError("it is not read")

    error = await refused(media, emulator, AIOFile(), InvalidMediaError)
    assert str(error) == "a AIOFile has no position to read from: open the file with aiofile.async_open"


async def test_handle_without_read() -> None:
    """Source.handle takes only what has `read`."""
    with pytest.raises(InvalidMediaError, match="cannot upload a int"):
        Source.handle(5)


async def test_handle_that_is_not_blocking(media: MediaApi, emulator: Emulator) -> None:
    """A pipe that has no bytes yet and does not wait for them has not ended: nothing shorter is sent."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.write(write, TEXT[:1000])
    with os.fdopen(read, "rb", buffering=0) as handle:
        error = await refused(media, emulator, handle, StorageError)
    os.close(write)
    assert "the handle is non-blocking and has no bytes yet" in str(error)


async def test_handle_that_never_ends() -> None:
    """A handle that gives bytes also when none are asked for is read no further than its size."""

    class Endless(io.BytesIO):
        def read(self, _: int | None = -1, /) -> bytes:
            return super().read(100_000) or TEXT

    with pytest.raises(CorruptedMediaError, match="became longer"):
        await body_of(Endless(LONG))


async def test_handles_open_for_writing_or_text(media: MediaApi, emulator: Emulator, text: Path) -> None:
    """A handle that is open for writing or in text mode is told how to open it."""
    with (text.parent / "out").open("wb") as handle:
        error = await refused(media, emulator, handle, StorageError)
    assert "the handle is not open for that: use mode 'rb' to upload" in str(error)
    for wrong in (io.StringIO("text"), Thing(read=lambda size: "text")):
        error = await refused(media, emulator, wrong, InvalidMediaError)
        assert "not bytes: open" in str(error)


async def test_mocks(media: MediaApi, emulator: Emulator) -> None:
    """A mock is a handle that ends when its `read` does, although it has every attribute."""
    mock = AsyncMock(spec=UploadFile, filename="mock.txt")
    mock.read.side_effect = [TEXT, b""]
    assert await arrived(media, emulator, mock, mime_type="text/plain") == TEXT


async def test_mocks_that_never_end(media: MediaApi, emulator: Emulator) -> None:
    """A mock whose `read` returns the same bytes for ever is refused, and so is one whose `read` returns a mock."""
    for endless in (AsyncMock(), MagicMock(), AsyncMock(spec=UploadFile)):
        endless.read.return_value = b"the same"
        error = await refused(media, emulator, endless, InvalidMediaError)
        assert "side_effect=[data, b'']" in str(error)
    assert "MagicMock, not bytes" in str(await refused(media, emulator, MagicMock(), InvalidMediaError))


# Names


async def test_names_in_archives(tmp_path: Path) -> None:
    """A reader of an archive does not lend its name to the file inside, unless the bytes are an archive."""
    packed, path = io.BytesIO(gzip.compress(b"inner")), tmp_path / "n.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, data in (("note.txt", TEXT), ("inner.gz", packed.getvalue())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with tarfile.open(path) as archive:
        # The name of a member's reader is the archive's in Python 3.11, and since 3.12 the member's.
        assert await name_of(archive.extractfile("note.txt")) in {None, "note.txt"}
        assert await name_of(archive.extractfile("inner.gz")) in {"n.tar.gz", "inner.gz"}
    with gzip.open(tmp_path / "note.txt.gz", "wb") as writing:
        writing.write(TEXT)
    with gzip.open(tmp_path / "note.txt.gz") as reading:
        assert await name_of(reading) == "note.txt"
    with tarfile.open(tmp_path / "n.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    with path.open("rb") as raw, (tmp_path / "n.tar").open("rb") as plain:
        assert await name_of(raw) == "n.tar.gz"
        assert await name_of(plain) == "n.tar"
        assert await name_of(Source.handle(raw, name="other.gz")) == "other.gz"


async def test_member_of_an_archive_is_text(media: MediaApi, emulator: Emulator, tmp_path: Path) -> None:
    """A text file in a compressed archive is uploaded as text."""
    with gzip.open(tmp_path / "note.txt.gz", "wb") as writing:
        writing.write(TEXT)
    with gzip.open(tmp_path / "note.txt.gz") as reading, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert await arrived(media, emulator, reading) == TEXT
    assert warned == []  # GzipFile.filename is deprecated


async def test_names_of_readers() -> None:
    """A name is the last part of what says one; numbers, places, routes and names of temporary files are none."""
    read = _AsyncReader(b"").read
    named = {
        "a.txt": Thing(read=read, file_name=b"a.txt"),
        "b.txt": Thing(read=read, path="bucket/b.txt"),
        "c d.txt": Thing(read=read, url="https://bucket.example/c%20d.txt?sig=SECRET"),
    }
    assert {Source.of(thing).name: thing for thing in named.values()} == named
    nameless = [Thing(read=read, name=3), Thing(read=read, name="<stdin>"), Thing(read=read, headers={}, path="/route")]
    assert [Source.of(thing).name for thing in nameless] == [None] * 3
    for suffix, expected in ((".part", None), (".mp3", "media.mp3"), ("", None)):
        with tempfile.NamedTemporaryFile(suffix=suffix) as file:
            assert Source.of(file).name == expected
    assert Source.of(Thing(read=read, type="audio/mpeg")).mime_type == "audio/mpeg"


def test_attribute_that_raises() -> None:
    """A property that raises, whatever it is, counts as absent, and so do headers whose names are not text."""
    headers = Thing(get=lambda name: name.decode())
    assert Source.of(Thing(read=_AsyncReader(b"").read, headers=headers)).mime_type is None

    class Odd(_AsyncReader):
        @property
        def filename(self) -> str:
            raise LookupError("not parsed yet")

    assert Source.of(Odd(b"")).name is None


# What is no source


async def _coroutine() -> bytes:
    return b""


Row = collections.namedtuple("Row", ["one", "two"])
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "None": (lambda: None, "cannot upload a NoneType: pass a path, bytes"),
    "number": (lambda: 5, "cannot upload a int: pass os.fdopen(number, 'rb')"),
    "dict": (lambda: {"Body": b"x"}, "cannot upload a dict: pass the one value in it that has the bytes"),
    "dict of bytes": (lambda: {b"k": b"v"}, "cannot upload a dict"),
    "dict of one, by number": (lambda: {0: b"v"}, "cannot upload a dict"),
    "mapping": (lambda: types.MappingProxyType({"Body": b"x"}), "cannot upload a mappingproxy"),
    "headers": (lambda: httpx.Headers({"a": "b"}), "cannot upload a Headers"),
    "tuple": (lambda: (b"one", b"two"), "cannot upload a tuple: pass the one value in it"),
    "row": (lambda: Row(b"one", b"two"), "cannot upload a Row"),
    "row of text": (lambda: ("photo.jpg",), "cannot upload a tuple"),
    "set": (lambda: {b"one", b"two"}, "cannot upload a set: pass one of its values"),
    "values": ({"a": b"x"}.values, "cannot upload a dict_values: pass one of its values"),
    "function": (lambda: _coroutine, "cannot upload a function: call it, and pass its result"),
    "method": (lambda: io.BytesIO(b"x").read, "call it, and pass its result"),
    "partial": (lambda: functools.partial(int), "call it, and pass its result"),
    "future": (lambda: asyncio.get_running_loop().create_future(), "await it first, and pass its result"),
    "context manager": (lambda: contextlib.nullcontext(b"x"), "enter it by `async with` or `with`"),
    "class": (lambda: UploadFile, "cannot upload the class UploadFile: pass an instance of it"),
    "object": (object, "cannot upload a object: pass a path, bytes, a binary file or async handle"),
    "text pieces": (lambda: ["text"], "the source yields str, not bytes: open a file with mode 'rb', encode the"),
    "paths": (lambda: [Path("a.jpg")], "the source yields PosixPath, not bytes: pass several paths to upload_many"),
    "numbers": (lambda: [1, 2], "the source yields int, not bytes: pass bytes(numbers)"),
    "tuples": (lambda: slowly((b"x", True)), "the source yields tuple, not bytes: yield only the bytes of each"),
    "other pieces": (lambda: [object()], "the source yields object, not bytes: yield bytes"),
}


@pytest.mark.parametrize("kind", WRONG)
async def test_refusals(media: MediaApi, emulator: Emulator, kind: str) -> None:
    """What is no source is refused with a sentence that says what to pass."""
    make, sentence = WRONG[kind]
    error = await refused(media, emulator, make(), InvalidMediaError)
    assert str(error).startswith(sentence) or sentence in str(error)


async def test_coroutines(media: MediaApi, emulator: Emulator) -> None:
    """A coroutine is to be awaited, alone and in a list."""
    waiting = _coroutine()
    assert "await it first" in str(await refused(media, emulator, waiting, InvalidMediaError))
    assert "await each of them" in str(await refused(media, emulator, [waiting], InvalidMediaError))
    waiting.close()


async def test_row_of_one_column() -> None:
    """A row of one column is its bytes."""
    assert await body_of((TEXT,)) == TEXT
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    with contextlib.closing(connection):
        row = connection.execute("select ? as data", (TEXT,)).fetchone()
        assert await body_of(row) == TEXT
        two = connection.execute("select ? as data, 1 as id", (TEXT,)).fetchone()
        with pytest.raises(InvalidMediaError, match="cannot upload a Row"):
            Source.of(two)


def test_the_rule_is_documented() -> None:
    """The docstring of Source has as many steps as are tried."""
    steps = re.findall(r"^    (\d)\. ", inspect.cleandoc(Source.__doc__ or "").replace("\n", "\n    "), re.MULTILINE)
    assert steps == [str(number + 1) for number in range(len(sources._RECOGNISERS))]
