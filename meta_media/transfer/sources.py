"""Bytes in: whatever a caller may hand to `upload`, as one kind of thing, with a name, that can be opened."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs

from meta_media.errors import InvalidMediaError
from meta_media.http.exceptions import map_exception
from meta_media.transfer.bodies import Body, Buffer, Memory, buffers, open_handle, open_path, open_stream

__all__ = ["Source"]


@attrs.frozen(kw_only=True)
class Source:
    """
    Something to upload.

    `upload` makes one of whatever it is given; the constructors `path`, `bytes`, `handle` and `stream` say it outright.

    Attributes:
        name: The file's name, where there is one.
        mime_type: What came with it (a browser's word, a header); weaker than the bytes' own signature.
        sha256: 64 hex digits that its bytes are known to have; a request with other ones is not completed.
    """

    open: Callable[[], AbstractAsyncContextManager[Body]] = attrs.field(repr=False)
    name: str | None = None
    mime_type: str | None = None
    sha256: str | None = None

    @classmethod
    def of(cls, source: object, *, size: int | None = None) -> Source:
        """Make a source of anything that `upload` takes; a `str` is always a path."""
        if isinstance(source, Source):
            return source
        if isinstance(source, str | os.PathLike):
            return cls.path(source)
        if isinstance(source, Buffer):
            return cls.bytes(source)
        if hasattr(source, "aiter_bytes") and hasattr(source, "headers"):
            return _response(source, size)
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
        """Read a file, off the event loop."""
        return cls(open=lambda: open_path(path), name=PurePath(os.fsdecode(path)).name)

    @classmethod
    def bytes(cls, data: Buffer, *, name: str | None = None) -> Source:
        """Send bytes from memory, without copying them."""
        return cls(open=lambda: contextlib.nullcontext(Memory(data)), name=name)

    @classmethod
    def handle(cls, handle: Any, *, name: str | None = None, size: int | None = None) -> Source:
        """
        Read from where an open handle stands to its end, and put it back there afterwards.

        Args:
            handle: Anything with `async read(n)` (aiofiles, `anyio.AsyncFile`), a binary file object, or an upload as
                Starlette and FastAPI give it (`UploadFile`). Plain `read` is called off the event loop.
            name: The file's name; default the handle's own.
            size: Bytes, for a handle that cannot seek. Without it such a handle is spooled.
        """
        own = getattr(handle, "filename", None) or getattr(handle, "name", None)
        claimed = getattr(handle, "content_type", None)
        inner = getattr(handle, "file", None)  # UploadFile: its async face cannot tell where it stands
        return cls(
            open=lambda: open_handle(inner if hasattr(inner, "tell") else handle, size),
            name=name or (PurePath(own).name if isinstance(own, str) else None),
            mime_type=claimed if isinstance(claimed, str) else None,
        )

    @classmethod
    def stream(
        cls, chunks: AsyncIterable[Buffer] | Iterable[Buffer], *, name: str | None = None, size: int | None = None
    ) -> Source:
        """
        Send what an iterable yields, once.

        Args:
            chunks: Async, or plain, which is advanced off the event loop.
            name: The file's name.
            size: Bytes in all. Without it they are spooled: in memory, then in a private temporary file.
        """
        return cls(open=lambda: open_stream(buffers(chunks), size), name=name)


def _response(response: Any, size: int | None) -> Source:
    """Read what another server sends; its length counts only if it is the length of what we read."""
    length = response.headers.get("content-length", "")
    if size is None and length.isdecimal() and not response.headers.get("content-encoding"):
        size = int(length)
    return Source(
        open=lambda: open_stream(_received(response), size),
        name=unquote(PurePath(urlsplit(str(response.url)).path).name) or None,  # never its query: it may be a signature
        mime_type=response.headers.get("content-type"),
    )


async def _received(response: Any) -> AsyncIterator[bytes]:
    if not response.is_success:
        raise InvalidMediaError(f"the response to upload is an error itself: HTTP {response.status_code}")
    try:
        async for chunk in response.aiter_bytes():
            yield chunk
    except Exception as error:
        raise map_exception(error, "the source broke off", changes=False) from error
