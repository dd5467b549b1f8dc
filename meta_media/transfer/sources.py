"""Sources of an upload: one small class for each kind of object that `upload` takes."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs

from meta_media.errors import InvalidMediaError
from meta_media.http.exceptions import map_exception
from meta_media.transfer.bodies import Body, Buffer, MemoryBody, buffers, open_handle, open_path, open_stream

__all__ = ["OpenedSource", "Source"]


@attrs.frozen(kw_only=True)
class Source(abc.ABC):
    """
    Something to upload.

    `upload` chooses the kind by the object's type. `path`, `bytes`, `handle` and `stream` choose it explicitly.

    Attributes:
        name: Name of the file, where there is one.
        mime_type: Type that came with the source, from a browser or a header. The bytes' own signature wins over it.
        sha256: SHA-256 that the bytes must have, as 64 hex digits. A request with other bytes is not completed.
    """

    name: str | None = None
    mime_type: str | None = None
    sha256: str | None = None

    @abc.abstractmethod
    def open(self) -> AbstractAsyncContextManager[Body]:
        """Open the source to read it: `async with source.open() as body`."""

    @classmethod
    def of(cls, source: object, *, size: int | None = None) -> Source:
        """Make a source of any object that `upload` takes. A `str` is a path. `size` is for one that cannot say its own."""
        if isinstance(source, Source):
            return source
        if isinstance(source, str | os.PathLike):
            return cls.path(source)
        if isinstance(source, Buffer):
            return cls.bytes(source)
        if hasattr(source, "aiter_bytes") and hasattr(source, "headers"):
            return ResponseSource.of_response(source, size)
        if hasattr(source, "read"):
            return cls.handle(source, size=size)
        if isinstance(source, AsyncIterable | Iterable):
            return cls.stream(source, size=size)
        raise InvalidMediaError(
            f"cannot upload a {type(source).__name__}: pass a path, bytes, an async file handle, a binary file object,"
            " an iterable of bytes, or an httpx.Response being streamed"
        )

    @classmethod
    def path(cls, path: str | os.PathLike[str]) -> Source:
        """Read a file, on a thread."""
        return PathSource(file=path, name=PurePath(os.fsdecode(path)).name)

    @classmethod
    def bytes(cls, data: Buffer, *, name: str | None = None) -> Source:
        """Send bytes from memory, without copying them."""
        return BytesSource(data=data, name=name)

    @classmethod
    def handle(cls, handle: Any, *, name: str | None = None, size: int | None = None) -> Source:
        """
        Read an open handle from its position to its end, and restore the position afterwards.

        Args:
            handle: Anything with `async read(n)` (aiofiles, `anyio.AsyncFile`), a binary file object, or Starlette's and
                FastAPI's `UploadFile`. A plain `read` is called on a thread.
            name: Name of the file. Default: the handle's own.
            size: Size in bytes, for a handle that cannot seek. Without it such a handle is spooled.
        """
        own_name = getattr(handle, "filename", None) or getattr(handle, "name", None)
        mime_type = getattr(handle, "content_type", None)
        inner = getattr(handle, "file", None)  # UploadFile has an async `read`, but no `tell`; its file has both
        return HandleSource(
            handle=inner if hasattr(inner, "tell") else handle,
            size=size,
            name=name or (PurePath(own_name).name if isinstance(own_name, str) else None),
            mime_type=mime_type if isinstance(mime_type, str) else None,
        )

    @classmethod
    def stream(
        cls, chunks: AsyncIterable[Buffer] | Iterable[Buffer], *, name: str | None = None, size: int | None = None
    ) -> Source:
        """
        Send the bytes that an iterable yields, once.

        Args:
            chunks: An async iterable, or a plain one, which is advanced on a thread.
            name: Name of the file.
            size: Size in bytes. Without it the bytes are spooled: in memory, then in a private temporary file.
        """
        return StreamSource(chunks=chunks, size=size, name=name)


@attrs.frozen(kw_only=True)
class PathSource(Source):
    """A file on the disk, by its path."""

    file: str | os.PathLike[str] = attrs.field(repr=False)

    def open(self) -> AbstractAsyncContextManager[Body]:
        return open_path(self.file)


@attrs.frozen(kw_only=True)
class BytesSource(Source):
    """Bytes in memory."""

    data: Buffer = attrs.field(repr=False)

    def open(self) -> AbstractAsyncContextManager[Body]:
        return contextlib.nullcontext(MemoryBody(self.data))


@attrs.frozen(kw_only=True)
class HandleSource(Source):
    """An open handle, async or plain. The size counts only for a handle that cannot seek."""

    handle: Any = attrs.field(repr=False)
    size: int | None = attrs.field(default=None, repr=False)

    def open(self) -> AbstractAsyncContextManager[Body]:
        return open_handle(self.handle, self.size)


@attrs.frozen(kw_only=True)
class StreamSource(Source):
    """An iterable of buffers, async or plain."""

    chunks: AsyncIterable[Buffer] | Iterable[Buffer] = attrs.field(repr=False)
    size: int | None = attrs.field(default=None, repr=False)

    def open(self) -> AbstractAsyncContextManager[Body]:
        return open_stream(buffers(self.chunks), self.size)


@attrs.frozen(kw_only=True)
class ResponseSource(Source):
    """The body of an `httpx.Response` that is being streamed from another server."""

    response: Any = attrs.field(repr=False)
    size: int | None = attrs.field(default=None, repr=False)

    @classmethod
    def of_response(cls, response: Any, size: int | None) -> ResponseSource:
        """Take name, type and size from the response. The query is no part of the name: it may be a signature."""
        length = response.headers.get("content-length", "")
        if size is None and length.isdecimal() and not response.headers.get("content-encoding"):
            size = int(length)  # of a compressed body it would not be the number of bytes that are read
        return cls(
            response=response,
            size=size,
            name=unquote(PurePath(urlsplit(str(response.url)).path).name) or None,
            mime_type=response.headers.get("content-type"),
        )

    def open(self) -> AbstractAsyncContextManager[Body]:
        return open_stream(self._received(), self.size)

    async def _received(self) -> AsyncIterator[Buffer]:
        if not self.response.is_success:
            raise InvalidMediaError(
                f"the response to upload is an error: HTTP {self.response.status_code}; pass a successful response"
            )
        try:
            async for chunk in self.response.aiter_bytes():
                yield chunk
        except Exception as error:
            raise map_exception(error, "reading the response to upload failed", changes=False) from error


@attrs.frozen(kw_only=True)
class OpenedSource(Source):
    """A source that is open already; the block that opened it closes it."""

    body: Body = attrs.field(repr=False)

    def open(self) -> AbstractAsyncContextManager[Body]:
        """See `Source`."""
        return contextlib.nullcontext(self.body)
