"""A file that its readers can read anywhere, and what they read."""

from __future__ import annotations

from meta_media.protocol.formats import Signature
from meta_media.protocol.media_types import HEAD_SIZE
from meta_media.protocol.signatures import sniff_steps


def read(data: bytes) -> tuple[Signature | None, list[tuple[int, int]]]:
    """Return the signature of a file, and the offset and size of each read beyond the head."""
    reads: list[tuple[int, int]] = []
    steps = sniff_steps(data[:HEAD_SIZE], len(data) <= HEAD_SIZE)
    try:
        offset, size = next(steps)
        while True:
            reads.append((offset, size))
            offset, size = steps.send(data[offset : offset + size])
    except StopIteration as stop:
        return stop.value, reads
