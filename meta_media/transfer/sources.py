"""
Sources of an upload: one small class for each way in which bytes are read, and the rule that chooses it for an object.

`adapters` tells what an object is; `bodies` and `readers` read it.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import inspect
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Mapping, MappingView, Set
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import PurePath, PurePosixPath
from typing import Any, Final

import attrs
from attrs.validators import optional

from meta_media.errors import ConfigurationError, InvalidMediaError, MediaError, StorageError
from meta_media.protocol.public_urls import checked_headers
from meta_media.protocol.secrets import Secret, excerpt
from meta_media.protocol.settings import Settings
from meta_media.protocol.validators import count
from meta_media.transfer import adapters
from meta_media.transfer.adapters import Buffer
from meta_media.transfer.bodies import Body, MemoryBody
from meta_media.transfer.objects import ObjectStore, checked_store, open_object
from meta_media.transfer.opening import PathOpening, open_handle, open_response, open_stream
from meta_media.transfer.readers import buffers, called
from meta_media.transfer.remote import open_url
from meta_media.transfer.threads import FileWork, storage_errors

__all__ = ["OpenableSource", "Source", "source_for"]


@attrs.frozen(kw_only=True)
class Source(abc.ABC):
    """
    Something to upload.

    `path`, `bytes`, `handle`, `stream`, `object` and `url` choose the kind explicitly. `upload` chooses it by what the object is
    or has; the first that fits decides:

    1. A `Source`, or `__media_source__(self) -> Source` in its class.
    2. The buffer protocol: bytes, and arrays of any library.
    3. A path of this machine: `str`, `pathlib`, `anyio`, `os.DirEntry`, any `__fspath__`. It is called once, on a thread.
    4. A status and headers: the response of any HTTP client. Any status but a success is refused.
    5. A file name with a file: a form's file of any web framework. It is read whole, from its start.
    6. `read`: an open handle, from its position. It may be plain or async, and may take no size.
    7. `open("rb")`: a path of another file system, such as a `zipfile.Path` or a cloud path.
    8. An iterable or async iterable of bytes, or a `stream()` that is one.

    Text, numbers, mappings, rows of several columns, sets, functions and coroutines are refused.

    Attributes:
        name: Name of the file, where it is known before the source is opened.
        mime_type: Type that came with the source, from a browser or a header. The bytes' own signature wins over it.
        sha256: SHA-256 that the bytes must have, as 64 hex digits. A request with other bytes is not completed. With
            `repackage` it is compared only if the file is sent as it is.
    """

    name: str | None = None
    mime_type: str | None = None
    sha256: str | None = None

    @abc.abstractmethod
    def open(self) -> AbstractAsyncContextManager[Body]:
        """Open the source to read it: `async with source.open() as body`."""

    @property
    def again(self) -> Callable[[int], Awaitable[Source]] | None:
        """
        What ends a download of the same client that this reads from, and returns another one of as many bytes.

        None for all other sources: what they open says whether it can be read again.
        """
        return None

    @classmethod
    def of(cls, source: object, *, size: int | None = None, str_paths: bool = True) -> Source:
        """
        Make a source of any object that `upload` takes.

        Args:
            source: The object.
            size: Size in bytes, for an object that cannot tell its own.
            str_paths: Whether a `str` is a path; otherwise it is refused, see `Settings.str_paths`.

        Raises:
            InvalidMediaError: It is no source.
        """
        if isinstance(source, str) and not str_paths:
            raise InvalidMediaError(f"{adapters.NO_STR_PATHS}, or text.encode() and a filename for text")
        # What most sources are needs no further look.
        if isinstance(source, str | PurePath) and type(source) in adapters.LOCAL_TYPES:
            return cls.path(source)
        is_definition = inspect.isclass(source) or inspect.ismodule(source)  # whose functions are meant for others
        for recognise in () if is_definition else _RECOGNISERS:
            if (found := recognise(source, size)) is not None:
                return found
        raise InvalidMediaError(adapters.refusal(source))

    @classmethod
    def path(cls, path: str | os.PathLike[str]) -> Source:
        """
        Read a file, on a thread. `__fspath__` is called there, once. A path of another file system is opened by its `open`.

        Raises:
            InvalidMediaError: It is no path.
        """
        opener = None if adapters.is_local_path(path) else adapters.opener(path)
        if opener is not None:
            name = adapters.attribute(path, "name")
            name = name if isinstance(name, str) else None
            return OpenableSource(opening=functools.partial(_open_elsewhere, opener, name), name=name)
        if not isinstance(path, str | os.PathLike):
            raise InvalidMediaError(
                f"a path is a str or an os.PathLike, not a {type(path).__name__}: pass pathlib.Path"
            )
        name = path if isinstance(path, str) else adapters.attribute(path, "name")
        if not isinstance(path, PurePath):
            name = PurePath(os.fsdecode(name)).name if isinstance(name, str | bytes) else None
        return OpenableSource(opening=functools.partial(PathOpening, path), file=path, name=name)

    @classmethod
    def bytes(cls, data: Buffer, *, name: str | None = None, mime_type: str | None = None) -> Source:
        """Send bytes from memory, without copying them."""
        return OpenableSource(opening=lambda: contextlib.nullcontext(MemoryBody(data)), name=name, mime_type=mime_type)

    @classmethod
    def handle(
        cls, handle: Any, *, name: str | None = None, mime_type: str | None = None, size: int | None = None
    ) -> Source:
        """
        Read an open handle from its position to its end, and restore the position afterwards.

        Args:
            handle: Anything with `read`, plain (called on a thread) or async: a binary file object, `aiofiles`,
                `anyio.AsyncFile`. A form's file, such as Starlette's `UploadFile`, is read whole, wherever it stands.
            name: Name of the file. Default: the handle's own.
            mime_type: Type that came with it. Default: the handle's own.
            size: Size in bytes, for a handle that cannot seek. Default: the handle's own; without one it is spooled.

        Raises:
            InvalidMediaError: It has no `read`.
        """
        content = adapters.part_content(handle)
        whole = hasattr(content, "read")
        if not (whole or hasattr(handle, "read")):
            raise InvalidMediaError(adapters.refusal(handle))
        own_name, opened = adapters.own_name(handle), content if whole else handle
        opened_name = None if name else own_name  # of the handle, or of the archive that it reads from
        size = size or adapters.own_size(handle)
        return OpenableSource(
            opening=functools.partial(open_handle, opened, size, whole=whole, name=opened_name),
            name=name or (None if adapters.is_archive_name(own_name) else own_name),
            mime_type=mime_type or adapters.own_type(handle),
        )

    @classmethod
    def stream(
        cls,
        chunks: AsyncIterable[Buffer] | Iterable[Buffer],
        *,
        name: str | None = None,
        mime_type: str | None = None,
        size: int | None = None,
    ) -> Source:
        """
        Send the bytes that an iterable yields, once.

        Args:
            chunks: An async iterable, or a plain one, which is advanced on a thread.
            name: Name of the file.
            mime_type: Type that came with it.
            size: Size in bytes. Without it the bytes are spooled: in memory, then in a private temporary file.

        Raises:
            InvalidMediaError: It cannot be iterated over.
        """
        if not any(hasattr(chunks, name) for name in ("__aiter__", "__iter__", "__getitem__")):
            raise InvalidMediaError(adapters.refusal(chunks))
        return OpenableSource(opening=lambda: open_stream(buffers(chunks), size), name=name, mime_type=mime_type)

    @classmethod
    def object(cls, store: ObjectStore, key: str, *, name: str | None = None, mime_type: str | None = None) -> Source:
        """
        Read an object of a bucket, 1 MiB at a time, or `Settings.chunk_size`. Nothing is asked before it is uploaded.

        An object that changes while it is read is an error. Timeouts and retries of the bucket are those of the store.

        Args:
            store: A store of obstore's, such as `obstore.store.S3Store`: extra `storage`.
            key: Key of the object in the store.
            name: Name of the file. Default: the last part of the key.
            mime_type: Type that came with it. Default: the Content-Type that the store has.

        Raises:
            ConfigurationError: The store is none.
        """
        opening = functools.partial(open_object, checked_store(store), key)
        return OpenableSource(opening=opening, name=name or PurePosixPath(key).name, mime_type=mime_type)

    @classmethod
    def url(cls, url: str, *, max_size: int | None = None, headers: Mapping[str, str] | None = None) -> Source:
        """
        Fetch a file from the public internet, and send it while it is fetched. The token is never sent there.

        The URL may be a stranger's. The addresses of its host are looked up once, and judged: each must be public, as IANA's
        registries have it (RFC 6890). The connection is made to an address that was judged. Up to five redirects are
        followed, each of which is judged likewise; from https to http there is none. Name and type are those of the response,
        else the name is that of the path. Timeouts, retries, `deadline` and `proxy` are those of the `Settings`.

        Args:
            url: An http or https URL. Its port is 80, 443 or above 1023.
            max_size: Bytes at most. Default: what WhatsApp takes of the file's type, at most 100 MB.
            headers: Further headers, such as Authorization. Only the origin of `url` receives them.

        Raises:
            ConfigurationError: An argument is of the wrong type. All other errors are raised when the source is opened:
                `UntrustedUrlError`, if the URL or a redirect must not be followed, `DownloadError`, if the server responds
                with something else than the file, `DownloadTooLargeError` and `NetworkError`.
        """
        if not isinstance(url, str):
            raise ConfigurationError(f"url must be a str, not {type(url).__name__}: pass str(url)")
        return UrlSource(location=Secret(url), max_size=max_size, headers=headers or {})


@attrs.frozen(kw_only=True)
class UrlSource(Source):
    """A file at a public URL."""

    location: Secret
    max_size: int | None = attrs.field(default=None, validator=optional(count))
    headers: Mapping[str, str] = attrs.field(converter=checked_headers, repr=False)
    settings: Settings | None = attrs.field(default=None, repr=False)  # of the client that opens it

    def open(self) -> AbstractAsyncContextManager[Body]:
        """See `Source`."""
        return open_url(self.location, self.settings or Settings(), max_size=self.max_size, headers=self.headers)


def source_for(settings: Settings, thing: object, size: int | None = None) -> Source:
    """Make a source of an object that a client with these settings uploads; see `Source.of`."""
    source = Source.of(thing, size=size, str_paths=settings.str_paths)
    return attrs.evolve(source, settings=settings) if isinstance(source, UrlSource) else source


@attrs.frozen(kw_only=True)
class OpenableSource(Source):
    """A source by the function that opens it."""

    opening: Callable[[], AbstractAsyncContextManager[Body]] = attrs.field(repr=False)
    file: str | os.PathLike[str] | None = attrs.field(default=None, repr=False)  # the path of a file on the disk
    opened: Body | None = attrs.field(default=None, repr=False)  # what `opening` returns, if it is open already

    def open(self) -> AbstractAsyncContextManager[Body]:
        """See `Source`."""
        return self.opening()


@asynccontextmanager
async def _open_elsewhere(opener: Callable[[], Any], given: str | None) -> AsyncIterator[Body]:
    """Open a file of another file system, and read it by its handle."""
    async with AsyncExitStack() as stack:
        name = excerpt(given or "the source")
        work = FileWork(given or "the source", limit=None)  # it may download the file
        try:
            with storage_errors(f"open {name}"):
                handle = await work.call(opener, undo=lambda undone: undone.close())
            stack.push_async_callback(_closed, work, handle)
            body = await stack.enter_async_context(Source.handle(handle, name=given).open())
        except MediaError:
            raise
        except Exception as error:  # a library of cloud storage has exceptions of its own, and may open late
            why = f"{type(error).__name__}: {excerpt(str(error))}"
            raise StorageError(f"could not open {name}: {why}") from error
        yield body


async def _closed(work: FileWork, handle: Any) -> None:
    with contextlib.suppress(OSError, ValueError):  # nothing is lost: it was only read
        await work.finish(handle.close)


def _declared(thing: object, _: int | None) -> Source | None:
    declare = getattr(type(thing), "__media_source__", None)
    source = declare(thing) if declare else thing
    if declare and not isinstance(source, Source):
        kind = type(thing).__name__
        raise InvalidMediaError(f"{kind}.__media_source__ must return a Source, not a {type(source).__name__}")
    return source if isinstance(source, Source) else None


def _buffer(thing: object, _: int | None) -> Source | None:
    buffer = adapters.as_buffer(thing)
    return None if buffer is None else Source.bytes(buffer)


def _local_path(thing: Any, _: int | None) -> Source | None:
    return Source.path(thing) if isinstance(thing, str) or adapters.is_local_path(thing) else None


def _response(thing: Any, size: int | None) -> Source | None:
    status = adapters.response_status(thing)
    if status is None:
        return None
    if not 200 <= status < 300:
        raise InvalidMediaError(f"the response to upload is an error: HTTP {status}; pass a successful response")
    return OpenableSource(
        opening=functools.partial(open_response, thing, size or adapters.own_size(thing)),
        name=adapters.own_name(thing),
        mime_type=adapters.own_type(thing),
    )


def _part(thing: Any, size: int | None) -> Source | None:
    content = adapters.part_content(thing)
    if content is None or hasattr(content, "read"):
        return None if content is None else Source.handle(thing, size=size)
    buffer = adapters.as_buffer(content)
    source = Source.stream(called(content), size=size) if buffer is None else Source.bytes(buffer)
    return attrs.evolve(source, name=adapters.own_name(thing), mime_type=adapters.own_type(thing))


def _handle(thing: Any, size: int | None) -> Source | None:
    return Source.handle(thing, size=size) if hasattr(thing, "read") else None


def _openable(thing: Any, _: int | None) -> Source | None:
    return None if adapters.opener(thing) is None else Source.path(thing)


def _iterable(thing: Any, size: int | None) -> Source | None:
    if (value := adapters.row_value(thing)) is not None:
        return Source.bytes(value)
    if inspect.isasyncgenfunction(getattr(type(thing), "stream", None)):  # the request of a web framework
        return Source.stream(called(thing.stream), size=size)
    is_iterable = isinstance(thing, AsyncIterable) or (isinstance(thing, Iterable) and not inspect.isawaitable(thing))
    is_set = isinstance(thing, Set | MappingView)
    return Source.stream(thing, size=size) if is_iterable and not (is_set or adapters.is_row(thing)) else None


_RECOGNISERS: Final = (_declared, _buffer, _local_path, _response, _part, _handle, _openable, _iterable)
