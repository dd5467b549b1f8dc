"""
The chunks of an iterable, of a handle that cannot seek, and of the response of any HTTP client.

What blocks is called on a thread, and what is awaitable is awaited on the event loop.
"""

from __future__ import annotations

import errno
import inspect
import io
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from pathlib import PurePath
from typing import Any, Final

from meta_media.errors import InvalidMediaError, MediaError, StorageError
from meta_media.http.exceptions import map_exception
from meta_media.transfer.adapters import Buffer, as_buffer, attribute, is_mock, parameters, takes
from meta_media.transfer.threads import FileWork, call

__all__ = ["BATCH_SIZE", "as_bytes", "buffers", "called", "check_handle", "handle_chunks", "response_chunks"]

BATCH_SIZE: Final = 2**16  # bytes of a stream that are joined to one chunk
_CHUNK_METHODS: Final = ("chunks", "stream", "iter_chunks")  # of a reader whose `read` takes no size
_OF_SEVERAL: Final = (["filenames"], ["key"], ["name"], ["path"])  # what `read` of an archive begins with
_RESPONSE_METHODS: Final = {"aiter_bytes": (), "iter_content": (BATCH_SIZE,), "stream": (BATCH_SIZE,)}
_MISUSES: Final = {  # exceptions of the HTTP clients, by the name of their class
    "ClientConnectionError": "its connection was closed: upload it inside its block",
    "RuntimeError": "it is from a sync client: pass response.iter_bytes()",  # of httpx
    "StreamClosed": "it is closed: upload it inside its block",
    "StreamConsumed": "it was read already: pass what was read",
    "StreamConsumedError": "it was read already: pass what was read",
}
_WRONG_CHUNKS: Final[dict[type, str]] = {
    str: "open a file with mode 'rb', encode the text, or pass several paths to upload_many",
    PurePath: "pass several paths to upload_many",
    int: "pass bytes(numbers)",
    tuple: "yield only the bytes of each tuple",
}


def as_bytes(chunk: object) -> bytes:
    """Return a chunk as bytes; raise `InvalidMediaError` if it is of another kind."""
    if isinstance(chunk, bytes):
        return chunk
    buffer = as_buffer(chunk)
    if buffer is None:
        advice = "await each of them first" if inspect.isawaitable(chunk) else "yield bytes"
        advice = next((words for kind, words in _WRONG_CHUNKS.items() if isinstance(chunk, kind)), advice)
        raise InvalidMediaError(f"the source yields {type(chunk).__name__}, not bytes: {advice}")
    return bytes(buffer)


async def buffers(chunks: AsyncIterable[Buffer] | Iterable[Buffer]) -> AsyncIterator[Buffer]:
    """Iterate over an async iterable, or over a plain one on a thread."""
    if isinstance(chunks, AsyncIterable):
        async for chunk in chunks:
            yield chunk
        return
    iterator, work = iter(chunks), FileWork(chunks, limit=None, grace=0)
    while batch := await work.run(_next_batch, iterator):
        yield batch


async def called(method: Callable[..., Any], *args: Any) -> AsyncIterator[Buffer]:
    """Call a method that returns an iterable, or an awaitable of one, and iterate over it."""
    chunks = method(*args)
    async for chunk in buffers(await chunks if inspect.isawaitable(chunks) else chunks):
        yield chunk


def _next_batch(iterator: Iterator[Buffer]) -> bytes:
    batch = bytearray()
    for chunk in iterator:
        batch += as_bytes(chunk)
        if len(batch) >= BATCH_SIZE:
            break
    return bytes(batch)


def check_handle(handle: Any) -> bool:
    """Return whether the `read` of a handle takes a size. A handle that cannot be read in sequence is refused."""
    names, kind = parameters(handle.read), type(handle).__name__
    if "offset" in names and not hasattr(handle, "tell"):
        raise InvalidMediaError(f"a {kind} has no position to read from: open the file with aiofile.async_open")
    if isinstance(attribute(handle, "encoding"), str) or isinstance(handle, io.TextIOBase):
        raise InvalidMediaError("the handle gives str, not bytes: open the file with mode 'rb', or encode the text")
    if names[:1] in _OF_SEVERAL:
        raise InvalidMediaError(f"a {kind} reads one of several files: open one of them, and pass its handle")
    return takes(handle.read, BATCH_SIZE)


async def handle_chunks(handle: Any) -> AsyncIterator[Buffer]:
    """Yield the bytes of an object with `read`, in whichever way it can be read in pieces."""
    read = handle.read if is_mock(handle) else attribute(handle, "read_chunk") or handle.read
    if takes(read, BATCH_SIZE):
        chunks = _read(handle, read, BATCH_SIZE)
    elif (method := _first_method(handle, _CHUNK_METHODS)) is not None:
        chunks = called(method)
    elif isinstance(handle, AsyncIterable):
        chunks = buffers(handle)
    elif hasattr(content := attribute(handle, "content"), "read"):
        chunks = handle_chunks(content)
    else:
        chunks = _read(handle, read)
    async for chunk in chunks:
        yield chunk


def _first_method(thing: object, names: Iterable[str]) -> Callable[[], Any] | None:
    methods = (attribute(thing, name) for name in names)
    return next((method for method in methods if callable(method) and takes(method)), None)


async def _read(handle: Any, read: Callable[..., Any], *size: int) -> AsyncIterator[Buffer]:
    previous = None
    while chunk := await call(read, *size):
        if is_mock(handle) and chunk is previous:
            advice = "give it side_effect=[data, b''], or pass a real UploadFile(io.BytesIO(data))"
            raise InvalidMediaError(f"the read of this mock returns the same bytes for ever: {advice}")
        yield chunk
        previous = chunk
    if chunk is None and isinstance(handle, io.IOBase):  # its end is b""
        why = "the handle is non-blocking and has no bytes yet: make it blocking, or read it with asyncio"
        raise StorageError(f"could not read the source: {why}", errno=errno.EAGAIN)


async def response_chunks(response: Any) -> AsyncIterator[Buffer]:
    """Yield the decoded bytes of a response. What its client raises becomes `InvalidMediaError` or `NetworkError`."""
    try:
        async for chunk in _received(response):
            yield chunk
    except MediaError:
        raise
    except Exception as error:  # each HTTP client has its own
        why = _MISUSES.get(type(error).__name__)
        if why is not None:
            raise InvalidMediaError(f"the response to upload cannot be read: {why}") from error
        raise map_exception(error, "reading the response to upload failed", changes=False) from error


def _received(response: Any) -> AsyncIterator[Buffer]:
    for name, args in _RESPONSE_METHODS.items():
        if callable(method := attribute(response, name)):
            return called(method, *args)
    contents = (attribute(response, name) for name in ("content", "body"))
    content = next((content for content in contents if content is not None), None)
    if (whole := as_buffer(content)) is not None:
        return buffers([whole])
    return handle_chunks(content if hasattr(content, "read") else response)
