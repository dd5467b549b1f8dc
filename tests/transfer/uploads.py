"""What the tests of sources share: content, and the two outcomes of an upload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from meta_media import MediaApi
from meta_media.emulator import Emulator
from meta_media.errors import MediaError

TEXT = b"".join(b"line %06d\n" % number for number in range(20_000))  # 240 KB: more than a head, less than a batch
LONG = TEXT * 12  # more than is spooled in memory


class Fspath:
    """A path that is nothing but one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return str(self._path)


async def arrived(media: MediaApi, emulator: Emulator, source: object, **options: Any) -> bytes:
    """Upload, check that the length was told exactly and nothing was chunked, and return what Meta has now."""
    uploaded = await media.upload(source, **options)
    request = [request for request in emulator.requests if request.method == "POST"][-1]
    stored = await media.read(uploaded.id)
    assert request.transfer_encoding is None
    assert request.content_length is not None
    assert 0 < request.content_length - len(stored) < 1000
    assert uploaded.file_size == len(stored)
    return stored


async def refused(
    media: MediaApi, emulator: Emulator, source: object, kind: type[MediaError], **options: Any
) -> MediaError:
    """Upload what cannot be, and return the error, which came before any request."""
    with pytest.raises(kind) as caught:
        await media.upload(source, **options)
    assert type(caught.value) is kind
    assert emulator.requests == []
    assert caught.value.operation == "upload"
    assert caught.value.attempts == 0
    return caught.value


async def slowly(*chunks: Any) -> AsyncIterator[Any]:
    """Yield from an async generator."""
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


def joined(data: bytes, size: int) -> Iterator[bytes]:
    """Cut bytes into pieces."""
    return (data[start : start + size] for start in range(0, len(data), size))
