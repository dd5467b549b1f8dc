"""Objects with `write` and paths of other file systems: awaited, drained, continued or refused, never lost."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import io
import sys
import tempfile
import threading
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import aiofiles
import anyio
import pytest

from meta_media import MediaApi
from meta_media.errors import ConfigurationError, IntegrityError, StorageError
from tests.support.servers import Listener, Server, page, wait_until
from tests.transfer.downloads import CONTENT, JPEG, client, known


@pytest.fixture
async def media(server: Server) -> AsyncIterator[MediaApi]:
    """A client whose server has `CONTENT`."""
    server.script = [page(CONTENT, content_type=JPEG)]
    async with client(server, max_retries=1, backoff=0.001) as api:
        yield api


def plainly(method: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a method as tracing and retrying libraries do: the result is a plain function."""

    @functools.wraps(method)
    def wrapper(*args: Any) -> Any:
        return method(*args)

    return wrapper


class Collector:
    """Keeps what it is given, and the threads that gave it."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.threads: set[int] = set()

    def take(self, data: bytes) -> int:
        """Keep some bytes."""
        self.got += data
        self.threads.add(threading.get_ident())
        return len(data)


class Decorated(Collector):
    """An async `write` that `inspect.iscoroutinefunction` does not know."""

    @plainly
    async def write(self, data: bytes) -> int:
        """Take a turn of the loop."""
        await asyncio.sleep(0)
        return self.take(data)


class Short(Decorated):
    """An async `write` that takes a part of what it is given."""

    @plainly
    async def write(self, data: bytes) -> int:
        """Take at most 999 bytes."""
        return self.take(data[:999])


class Future(Collector):
    """A `write` that needs the running event loop and returns its Future, as those of tornado and of Rust do."""

    def write(self, data: bytes) -> asyncio.Future[None]:
        """Be done a turn later."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self.take(data)
        loop.call_soon(done.set_result, None)
        return done


class Executed(Collector):
    """A `write` that returns the Future of a thread pool."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = concurrent.futures.ThreadPoolExecutor(1)

    def write(self, data: bytes) -> concurrent.futures.Future[int]:
        """Be done on another thread."""
        return self.pool.submit(self.take, data)


class Draining(Collector):
    """A buffer with `drain`, as an `asyncio.StreamWriter` has."""

    def __init__(self) -> None:
        super().__init__()
        self.pending = bytearray()
        self.most = 0

    def write(self, data: bytes) -> None:
        """Buffer the bytes."""
        self.pending += data
        self.most = max(self.most, len(self.pending))

    async def drain(self) -> None:
        """Empty the buffer."""
        await asyncio.sleep(0)
        self.take(bytes(self.pending))
        self.pending.clear()


class Plain(Collector):
    """A plain `write`, of nothing that is known: it may belong to the event loop."""

    def write(self, data: bytes) -> None:
        """Keep some bytes, and return nothing."""
        self.take(data)


@pytest.mark.parametrize("kind", [Decorated, Short, Future, Executed, Draining, Plain])
async def test_what_write_returns_decides(media: MediaApi, server: Server, kind: type[Any]) -> None:
    """What a `write` returns is awaited on the event loop, else its `drain` is; nothing counts that was not written."""
    destination = kind()
    saved = await media.download(known(server), destination)
    assert (saved.size, saved.path, bytes(destination.got)) == (len(CONTENT), None, CONTENT)
    if kind is not Executed:
        assert destination.threads == {threading.get_ident()}
    if kind is Draining:
        assert destination.most == 10_000


class Wrapper(Collector):
    """A file in an object that is none, as `NamedTemporaryFile` gives, with an awaitable `write`."""

    file = io.BytesIO()

    @plainly
    async def write(self, data: bytes) -> int:
        """Keep some bytes."""
        return self.take(data)


async def test_an_awaitable_of_a_file(media: MediaApi, server: Server) -> None:
    """An awaitable that comes from a thread is awaited on the event loop."""
    wrapper = Wrapper()
    await media.download(known(server), wrapper)
    assert (bytes(wrapper.got), wrapper.threads) == (CONTENT, {threading.get_ident()})


async def test_files_are_written_on_threads(media: MediaApi, server: Server) -> None:
    """A file of Python's, and one in a wrapper of its own, blocks, and is written on a thread."""
    threads = set()

    class File(io.BytesIO):
        def write(self, data: Any, /) -> int:
            threads.add(threading.get_ident())
            return super().write(data)

    with tempfile.NamedTemporaryFile() as temporary:
        for destination in (file := File(), temporary):
            assert (await media.download(known(server), destination)).size == len(CONTENT)
        temporary.seek(0)
        assert temporary.read() == CONTENT == file.getvalue()
    assert threading.get_ident() not in threads


# asyncio.StreamWriter


class Peer(Listener):
    """A peer that reads what comes once it is told to, or hangs up."""

    def __init__(self, *, hangs_up: bool = False) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.got = bytearray()
        self._hangs_up = hangs_up

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(self._read(reader, writer))

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self._hangs_up:
                await self.go_on.wait()
            while not self._hangs_up and (data := await reader.read(2**16)):
                self.got += data
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_a_stream_writer(media: MediaApi, server: Server) -> None:
    """A StreamWriter is drained: a slow peer slows the download down, and its buffer stays small."""
    content = CONTENT * 64
    server.script = [page(content)]
    async with Peer() as peer:
        _, writer = await asyncio.open_connection("127.0.0.1", peer.port)
        most = 0

        def look(_: object) -> None:
            nonlocal most
            most = max(most, writer.transport.get_write_buffer_size())
            peer.go_on.set()

        what = known(server, sha256=None, file_size=len(content))
        saved = await media.download(what, writer, progress=look)
        writer.close()
        await writer.wait_closed()
        await wait_until(lambda: len(peer.got) == len(content))
    assert (saved.size, bytes(peer.got)) == (len(content), content)
    assert most <= 2**17


async def test_a_stream_writer_whose_peer_is_gone(media: MediaApi, server: Server) -> None:
    """A peer that hangs up is a StorageError, not a success."""
    server.script = [page(CONTENT * 64)]
    async with Peer(hangs_up=True) as peer:
        _, writer = await asyncio.open_connection("127.0.0.1", peer.port)
        with pytest.raises(StorageError, match="could not write to the destination"):
            await media.download(f"{server.base_url}/old", writer)
        with pytest.raises(StorageError, match="it is closed"):
            await media.download(f"{server.base_url}/old", writer)
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_the_input_of_a_process(media: MediaApi, server: Server) -> None:
    """A process gets all bytes in order, and one that ends early is an error."""
    program = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=pipe, stdout=pipe)
    saved = await media.download(known(server), process.stdin)
    assert process.stdin is not None
    process.stdin.close()
    output, _ = await process.communicate()
    assert output.decode().strip() == saved.sha256
    early = await asyncio.create_subprocess_exec(sys.executable, "-c", "", stdin=pipe)
    await early.wait()
    with pytest.raises(StorageError):
        await media.download(known(server), early.stdin)


# What is refused


class Sender:
    """An object that sends whole messages, as a websocket, a queue or a client of an object store does."""

    async def send(self, message: bytes) -> None:
        """Send a message."""


class Positioned:
    """A `write` at an offset, which has no position: `AIOFile`'s."""

    encoding = "utf-8"  # in binary mode, too

    async def write(self, data: bytes, offset: int = 0) -> int:
        """Write at an offset."""
        raise AssertionError(data, offset)


class Wrong:
    """A `write` of something else than bytes."""

    def write(self) -> None:
        """Write nothing."""


def text_files(folder: Path) -> list[Any]:
    """Open files in text mode, in all ways."""
    path = folder / "text"
    return [path.open("w"), io.StringIO(), tempfile.NamedTemporaryFile("w"), anyio.wrap_file(io.StringIO()), sys.stdout]


async def test_text_mode(media: MediaApi, server: Server, tmp_path: Path) -> None:
    """What is open in text mode is refused before any request, with what to do."""
    files = text_files(tmp_path)
    async with aiofiles.open(tmp_path / "other", "w") as other:
        for file in (*files, other):
            with pytest.raises(ConfigurationError, match="open in text mode: open it with mode 'wb'"):
                await media.download(known(server), file)
    for file in files[:-2]:
        file.close()
    assert server.requests == []


async def test_handles_that_cannot_be_written(media: MediaApi, server: Server, tmp_path: Path) -> None:
    """A closed handle, or one that was opened to read, is refused before any request, with what to do."""
    (tmp_path / "a").write_bytes(b"mine")
    closed = io.BytesIO()
    closed.close()
    with (tmp_path / "a").open("rb") as reading, (tmp_path / "a").open("rb", buffering=0) as raw:
        async with aiofiles.open(tmp_path / "a", "rb") as other, await anyio.open_file(tmp_path / "a", "rb") as third:
            for handle in (closed, reading, raw, other, third):
                with pytest.raises(StorageError, match=r"it is (closed|not open for writing); open it with mode 'wb'"):
                    await media.download(known(server), handle)
    assert (server.requests, (tmp_path / "a").read_bytes()) == ([], b"mine")


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        (Sender(), r"cannot download to a Sender: .* give the chunks of media\.stream"),
        (asyncio.Queue, r"cannot download to a type: .*media\.stream"),
        (Positioned(), "cannot download to a Positioned, whose write takes a name or an offset"),
        (zipfile.ZipFile(io.BytesIO(), "w"), "cannot download to a ZipFile, whose write takes a name or an offset"),
    ],
)
async def test_objects_that_are_no_files(media: MediaApi, server: Server, destination: Any, words: str) -> None:
    """What cannot take bytes in order is refused before any request, with what to do."""
    with pytest.raises(ConfigurationError, match=words):
        await media.download(known(server), destination)
    assert server.requests == []


async def test_a_write_that_takes_no_bytes(media: MediaApi, server: Server) -> None:
    """A `write` that cannot be called with bytes is a sentence; a TypeError of its own code arrives as it is."""
    with pytest.raises(ConfigurationError, match="its write does not take bytes"):
        await media.download(known(server), Wrong())

    class Failing:
        def write(self, data: bytes) -> None:
            raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        await media.download(known(server), Failing())


async def test_a_file_that_does_not_block(media: MediaApi, server: Server) -> None:
    """A raw file that takes nothing just now says None, which is not success."""

    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any, /) -> None:
            return None

    with pytest.raises(StorageError, match="could not write to the destination"):
        await media.download(known(server), Full())


async def test_a_negative_count(media: MediaApi, server: Server) -> None:
    """A count that is none is an error, on the event loop, too."""

    class Odd:
        async def write(self, data: bytes) -> int:
            return -1

    with pytest.raises(StorageError, match="could not write to the destination"):
        await media.download(known(server), Odd())


# Paths of other file systems


class CloudPath:
    """A path of an object store: `open` uploads when it is closed, and `__fspath__` is a file of a cache."""

    objects: ClassVar[dict[str, bytes]] = {}

    def __init__(self, uri: str, error: Exception | None = None) -> None:
        self._uri = uri
        self._error = error
        self.fspath_count = 0

    def __str__(self) -> str:
        return self._uri

    def __fspath__(self) -> str:
        self.fspath_count += 1
        return "/nowhere/cache"

    def exists(self) -> bool:
        """Whether there is such an object."""
        return self._uri in self.objects

    def is_dir(self) -> bool:
        """Whether it is a prefix."""
        return self._uri.endswith("/")

    def open(self, mode: str = "r") -> Any:
        """Open a buffer that becomes the object."""
        assert mode == "wb"
        path = self

        class Object(io.BytesIO):
            def close(self) -> None:
                error, path._error = path._error, None  # once: the collector of garbage closes it again
                if error is not None:
                    raise error
                path.objects[path._uri] = self.getvalue()
                super().close()

        return Object()


@pytest.fixture
def objects() -> dict[str, bytes]:
    """The object store, empty."""
    CloudPath.objects.clear()
    return CloudPath.objects


async def test_a_path_of_an_object_store(media: MediaApi, server: Server, objects: dict[str, bytes]) -> None:
    """Such a path is opened by its own `open`, and its `__fspath__` is not used."""
    path = CloudPath("s3://bucket/photo.jpg")
    saved = await media.download(known(server), path)
    assert (saved.path, saved.size, objects) == (None, len(CONTENT), {"s3://bucket/photo.jpg": CONTENT})
    assert path.fspath_count == 0
    with pytest.raises(StorageError, match="exists already, and overwrite is off"):
        await media.download(known(server), path, overwrite=False)
    await media.download(known(server), CloudPath("s3://bucket/other.jpg"), overwrite=False)
    assert set(objects.values()) == {CONTENT}
    with pytest.raises(ConfigurationError, match="is a folder elsewhere: pass the path of a file"):
        await media.download(known(server), CloudPath("s3://bucket/folder/"))


async def test_wrong_bytes_for_an_object_store(media: MediaApi, server: Server, objects: dict[str, bytes]) -> None:
    """No object appears before its bytes are verified; wrong ones are fetched again."""
    wrong = page(CONTENT[:-1] + b"?", content_type=JPEG)
    server.script = [wrong, page(CONTENT, content_type=JPEG)]
    await media.download(known(server), CloudPath("s3://bucket/a"))
    assert objects == {"s3://bucket/a": CONTENT}
    server.script, server.requests = [wrong], []
    with pytest.raises(IntegrityError):
        await media.download(known(server), CloudPath("s3://bucket/b"))
    assert objects == {"s3://bucket/a": CONTENT}


@pytest.mark.parametrize("error", [LookupError("secret"), PermissionError(13, "no"), StorageError("mine")])
async def test_an_object_store_that_fails(
    media: MediaApi, server: Server, objects: dict[str, bytes], error: Exception
) -> None:
    """An exception of the path's library is a StorageError without its text."""
    with pytest.raises(StorageError) as caught:
        await media.download(known(server), CloudPath("s3://bucket/a?signature=x", error))
    assert ("secret" in str(caught.value), "signature" in str(caught.value), objects) == (False, False, {})


async def test_a_path_in_an_archive(media: MediaApi, server: Server) -> None:
    """A path that has no `__fspath__` at all is opened by its `open`, too."""
    archive = zipfile.ZipFile(io.BytesIO(), "w")
    await media.download(known(server), zipfile.Path(archive, "photo.jpg"))
    assert archive.read("photo.jpg") == CONTENT


async def test_paths_of_this_machine(media: MediaApi, server: Server, tmp_path: Path) -> None:
    """Paths of pathlib and anyio, and of any class that is only a path, are this machine's."""

    class Own(type(Path())):  # type: ignore[misc]  # the class of paths on this machine
        pass

    for number, kind in enumerate((Path, PurePosixPath, anyio.Path, Own)):
        saved = await media.download(known(server), kind(tmp_path / str(number)))
        assert saved.path == tmp_path / str(number)
        assert saved.path.read_bytes() == CONTENT


async def test_fspath_is_called_once_and_on_a_thread(media: MediaApi, server: Server, tmp_path: Path) -> None:
    """`__fspath__` may be slow: it is called once, and not on the event loop."""
    threads = []

    class Slow:
        def __fspath__(self) -> str:
            threads.append(threading.get_ident())
            return str(tmp_path / "a")

    await media.download(known(server), Slow())
    assert len(threads) == 1
    assert threading.get_ident() not in threads
