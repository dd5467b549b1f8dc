"""A file that its readers can read anywhere, what they read, and the verdict."""

from __future__ import annotations

from meta_media.errors import InvalidMediaError
from meta_media.protocol.formats import Signature
from meta_media.protocol.media_types import HEAD_SIZE, inspect_media
from meta_media.protocol.signatures import sniff_steps


def read(data: bytes) -> tuple[Signature | None, list[tuple[int, int]]]:
    """Return the signature of a file, and the offset and size of each read beyond the head."""
    reads: list[tuple[int, int]] = []
    steps = sniff_steps(data[:HEAD_SIZE], len(data) <= HEAD_SIZE)
    try:
        offset, size = next(steps)
        while True:
            reads.append((offset, size))
            start = offset if offset >= 0 else max(len(data) + offset, 0)
            offset, size = steps.send(data[start : start + size])
    except StopIteration as stop:
        return stop.value, reads


def verdict(data: bytes, **arguments: str) -> str:
    """Return the decided type of a file, or what is wrong with it and what to do. Fails if too much was read."""
    signature, reads = read(data)
    assert len(reads) <= 8
    assert sum(size for _, size in reads) <= 8192
    try:
        complete = len(data) <= HEAD_SIZE
        return inspect_media(data[:HEAD_SIZE], complete=complete, signature=signature, **arguments).mime_type  # type: ignore[arg-type]
    except InvalidMediaError as error:
        return f"{error.actual}: {str(error).rpartition(': ')[2]}"
