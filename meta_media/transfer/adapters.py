"""
What an object of another library is, by the attributes that it has: bytes, a response, a form's file, a handle, a path.

Nothing here reads or opens anything. `sources` makes a `Source` of what is found, and `readers` reads it.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, MappingView, Set
from numbers import Number
from pathlib import Path, PurePath
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from meta_media.protocol.media_types import ACCEPTED
from meta_media.protocol.responses import disposition_filename
from meta_media.protocol.secrets import excerpt
from meta_media.protocol.validators import is_token

__all__ = [
    "LOCAL_TYPES",
    "NO_STR_PATHS",
    "Buffer",
    "as_buffer",
    "attribute",
    "is_archive_name",
    "is_local_path",
    "is_mock",
    "is_row",
    "name_in_archive",
    "opener",
    "own_name",
    "own_size",
    "own_type",
    "parameters",
    "part_content",
    "path_in_words",
    "refusal",
    "response_status",
    "row_value",
    "takes",
]

Buffer = bytes | bytearray | memoryview
_LOCAL_LIBRARIES: Final = frozenset({"_pytest", "aiopath", "anyio", "py", "trio"})  # their paths are of this machine
LOCAL_TYPES: Final = frozenset({str, type(Path())})  # the most frequent ones of them
_FILENAMES: Final = ("filename", "file_name")
_CONTENTS: Final = ("file_object", "file", "stream", "content", "body")  # where a form's file has its bytes
_TEMPORARY: Final = re.compile(r"tmp[a-z0-9_]{8}(?![a-z0-9_]).*?(\.\w+)?")  # a name that `tempfile` has made
_KNOWN_EXTENSIONS: Final = frozenset(extension for row in ACCEPTED.values() for extension in row.extensions)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_COMPRESSED: Final = re.compile(r"\.(?:gz|bz2|xz|lzma|zst)$", re.IGNORECASE)
_ARCHIVE: Final = re.compile(r"\.(?:tar|tgz|tbz2?|txz)$", re.IGNORECASE)
_COMPRESSED_HEADS: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x5d\0\0", b"\x28\xb5\x2f\xfd")
_MAX_PATH_SIZE: Final = 4096  # characters; PATH_MAX of Linux in bytes
NO_STR_PATHS: Final = "Settings.str_paths is False, so a str is not taken for a path: pass pathlib.Path"
_ANYTHING: Final = "pass a path, bytes, a binary file or async handle, a response, or an iterable of bytes"


def attribute(thing: object, name: str, default: Any = None) -> Any:
    """Return an attribute. A property may raise anything, for example because nothing was read yet."""
    try:
        return getattr(thing, name, default)
    except Exception:  # noqa: BLE001 - a property of another library may raise anything
        return default


def _has(thing: object, *names: str) -> bool:
    return any(attribute(thing, name, ...) is not ... for name in names)


def is_mock(thing: object) -> bool:
    """Return whether it is of `unittest.mock`. Such an object has every attribute that is asked for."""
    return type(thing).__module__ == "unittest.mock"


def takes(method: Callable[..., Any], *args: object) -> bool:
    """Return whether a method can be called with these arguments. One that does not tell its parameters takes all."""
    try:
        inspect.signature(method).bind(*args)
    except (TypeError, ValueError) as error:
        return isinstance(error, ValueError)
    return True


def parameters(method: Callable[..., Any]) -> list[str]:
    """Return the names of a method's parameters; none of a method that does not tell them."""
    try:
        return list(inspect.signature(method).parameters)
    except (TypeError, ValueError):
        return []


# What it is


def as_buffer(thing: object) -> Buffer | None:
    """Return the memory of an object of the buffer protocol, such as an array; None for numbers, objects and handles."""
    if isinstance(thing, Buffer):
        return thing
    try:
        view = memoryview(thing)  # type: ignore[arg-type]  # whether it is a buffer is the question
    except (TypeError, ValueError, BufferError):
        return None
    is_handle = _has(thing, "read")  # mmap: memory that may have to be fetched from the disk
    return None if is_handle or view.ndim == 0 or "O" in view.format else view


def is_local_path(thing: object) -> bool:
    """Return whether a path is one of this machine's file system. Cloud paths have an `open` of their own."""
    if type(thing) in LOCAL_TYPES:
        return True
    if isinstance(thing, str):
        return opener(thing) is None
    if {kind.__module__.partition(".")[0] for kind in type(thing).__mro__} & _LOCAL_LIBRARIES:
        return isinstance(thing, os.PathLike)
    if isinstance(thing, PurePath):
        return getattr(type(thing), "open", None) is Path.open or type(thing).__module__.startswith("pathlib")
    return isinstance(thing, os.PathLike) and not _has(thing, "read", "open")


def opener(thing: object) -> Callable[[], Any] | None:
    """
    Return what opens a path of another file system to read bytes, such as a `zipfile.Path`; None for any other object.

    The first parameter of its `open` is the mode. The `open` of an archive or of a file system takes a name instead.
    """
    method = attribute(thing, "open")
    try:
        first = next(iter(inspect.signature(method).parameters), None)
    except (TypeError, ValueError):  # no function
        return None
    if first is None and isinstance(attribute(thing, "mode"), str):  # fsspec's OpenFile has its mode already
        return functools.partial(method)
    return functools.partial(method, "rb") if first == "mode" else None


def response_status(thing: object) -> int | None:
    """Return the status of an HTTP response of any client; None for an object without a status and headers."""
    statuses = (attribute(thing, name) for name in ("status_code", "status", "code"))
    status = next((int(status) for status in statuses if isinstance(status, int)), None)
    return status if callable(attribute(attribute(thing, "headers"), "get")) else None


def part_content(thing: object) -> Any:
    """Return what has the bytes of a form's file, such as Starlette's `UploadFile`; None for any other object."""
    if is_mock(thing) or isinstance(thing, io.IOBase):
        return None
    if not (_has(thing, *_FILENAMES) or (_has(thing, "name") and _has(thing, "content_type", "type"))):
        return None
    contents = (attribute(thing, name) for name in _CONTENTS)
    return next((c for c in contents if _has(c, "read") or callable(c) or as_buffer(c) is not None), None)


def row_value(thing: object) -> Buffer | None:
    """Return the bytes in a row of one column; None for a row of several, and for a mapping."""
    if isinstance(thing, Mapping) or not (is_row(thing) and isinstance(thing, Iterable)):
        return None
    values = tuple(thing)
    return as_buffer(values[0]) if len(values) == 1 else None


def is_row(thing: object) -> bool:
    """Return whether it is a mapping, or a tuple or row of a database: each of its values has a meaning of its own."""
    return isinstance(thing, tuple) or _has(thing, "_fields", "keys")


# Its name, type and size


def own_name(thing: object) -> str | None:
    """Return the file name that an object has, which is the last part of its path or URL, without the query."""
    disposition = _header(thing, "content-disposition")
    if disposition and (name := disposition_filename({"content-disposition": disposition})):
        return name
    if response_status(thing) is not None:
        return _last_part(str(attribute(thing, "url") or ""), url=True)
    if not isinstance(thing, io.IOBase) and _has(thing, *_FILENAMES):  # GzipFile.filename is deprecated
        return _last_part(attribute(thing, "filename") or attribute(thing, "file_name"))  # `name` is the form's field
    names = ["name"] if _has(thing, "headers") else ["name", "path", "url"]  # of a request it is the route
    name = next(filter(None, (_last_part(attribute(thing, name)) for name in names)), "")
    if temporary := _TEMPORARY.fullmatch(name):
        name = f"media{temporary[1]}" if temporary[1] in _KNOWN_EXTENSIONS else ""
    return name or None


def own_type(thing: object) -> str | None:
    """Return the type that came with an object, in an attribute or a header."""
    types = (attribute(thing, "content_type"), attribute(thing, "type"), _header(thing, "content-type"))
    return next(filter(None, map(_text, types)), None)


def own_size(thing: object) -> int | None:
    """Return the number of bytes that an object says it has, unless they are compressed: then others are read."""
    length = _header(thing, "content-length") or ""
    sizes = (
        attribute(thing, "size"),
        attribute(thing, "content_length"),
        int(length) if length.isdecimal() and len(length) < 19 else 0,
    )
    size = next((size for size in sizes if type(size) is int and size > 0), None)
    return None if _header(thing, "content-encoding") else size


def is_archive_name(name: str | None) -> bool:
    """Return whether a name ends like that of an archive or of a compressed file."""
    return name is not None and bool(_COMPRESSED.search(name) or _ARCHIVE.search(name))


def name_in_archive(name: str | None, head: bytes) -> str | None:
    """
    Return the name of a reader whose bytes begin with `head`.

    `gzip.open` and `tarfile` give the name of the archive, although the bytes are those of the file inside.
    """
    if name is None or head.startswith(_COMPRESSED_HEADS) or head[257:262] == b"ustar":
        return name
    name = _COMPRESSED.sub("", name)
    return None if _ARCHIVE.search(name) else name


def _last_part(value: object, *, url: bool = False) -> str | None:
    text = _text(value) or ""
    text = unquote(urlsplit(text).path) if url or "://" in text else text
    return None if text.startswith("<") else PurePath(text).name or None  # <stdin>


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else None


def _header(thing: object, name: str) -> str | None:
    headers = attribute(thing, "headers")
    get = None if is_mock(headers) else attribute(headers, "get")
    with contextlib.suppress(Exception):  # the names of some headers are bytes
        return _text(get(name) or get(name.title())) if callable(get) else None
    return None


# Why it cannot be uploaded


def is_url(text: str) -> bool:
    """Return whether a text is a URL in the place of a path."""
    return _URL.match(text) is not None


def path_in_words(path: object, text: str, error: Exception) -> tuple[str, str]:
    """Return what a path that could not be opened is called in a message, and what to do if it is something else."""
    if not text:
        return "an empty path", "; pass the path of a file"
    if is_token(text):
        return "a path that is an access token", "; pass the path of a file"
    if isinstance(error, IsADirectoryError):
        return excerpt(text), "; pass a file, or all files of the folder: upload_many(Path(folder).iterdir())"
    if text[0] == "~":
        return excerpt(text), "; only a shell replaces ~: pass Path(path).expanduser()"
    if text[:5].lower() == "data:":
        return excerpt(text), "; that is a data URI, not a path: decode it and pass the bytes"
    if is_url(text):
        advice = (
            "pass Source.url(url)" if text[:4].lower() == "http" else "open it by its own library, and pass the handle"
        )
        return excerpt(text), f"; that is a URL, not a path: {advice}"
    content = "; a str is a path: for text, pass text.encode() and a filename"
    if len(text) > _MAX_PATH_SIZE or "\n" in text or "\r" in text:
        return f"a path of {len(text):,} characters", content
    is_text = isinstance(path, str) and not PurePath(text).suffix and os.sep not in text
    return excerpt(text), content if is_text else ""


def refusal(thing: object) -> str:
    """Return the sentence that says what to pass instead."""
    kind = f"a {type(thing).__name__}"
    if inspect.isclass(thing):
        kind, advice = f"the class {thing.__name__}", "pass an instance of it"
    elif _has(thing, "__aenter__", "__enter__"):
        advice = "enter it by `async with` or `with`, and pass what that gives"
    elif inspect.isawaitable(thing):
        advice = "await it first, and pass its result"
    elif inspect.isroutine(thing) or isinstance(thing, functools.partial):
        advice = "call it, and pass its result"
    elif is_row(thing):
        advice = "pass the one value in it that has the bytes"
    elif isinstance(thing, Set | MappingView):
        advice = "pass one of its values, or a list of bytes, which has an order"
    elif isinstance(thing, Number):
        advice = "pass os.fdopen(number, 'rb') if it is a file descriptor, else bytes"
    else:
        advice = _ANYTHING
    return f"cannot upload {kind}: {advice}"
