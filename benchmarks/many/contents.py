"""What is uploaded: bytes that both sides can make from a number."""

from __future__ import annotations

import functools
import random

_HEAD = "%PDF-1.7\n% {:012}\n"
_TAIL = b"\n%%EOF\n"
_SHIFTS = 4096


@functools.cache
def _pool(size: int) -> bytes:
    return random.Random(size).randbytes(size + _SHIFTS)


def content(number: int, size: int) -> bytes:
    """Return a PDF of so many bytes, which no other number has."""
    head = _HEAD.format(number).encode()
    start, room = number % _SHIFTS, size - len(head) - len(_TAIL)
    return head + _pool(2**17)[start : start + room].ljust(room, b".") + _TAIL
