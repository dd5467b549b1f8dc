"""Archives and OLE files, as programs write them or not."""

from __future__ import annotations

import io
import struct
import zipfile

__all__ = ["archive", "ole", "ole_entry", "streamed"]


def archive(
    *entries: str | tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED, content: bytes = b"<x/>" * 20
) -> bytes:
    """Zip entries, of the given content unless they bring their own."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as opened:
        for entry in entries:
            opened.writestr(*((entry, content) if isinstance(entry, str) else entry))
    return target.getvalue()


def streamed(*names: str) -> bytes:
    """Zip to a stream without seek: sizes stand after the data."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.written = b""

        def write(self, data: object) -> int:
            self.written += bytes(data)  # type: ignore[call-overload]
            return len(bytes(data))  # type: ignore[call-overload]

    target = Pipe()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as opened:
        for name in names:
            opened.writestr(name, b"<x/>" * 20)
    return target.written


NO_ENTRY = 0xFFFFFFFF


def ole_entry(name: str, left: int = NO_ENTRY, right: int = NO_ENTRY, child: int = NO_ENTRY) -> bytes:
    """Build one entry of an OLE directory."""
    encoded = name.encode("utf-16-le") + b"\0\0"
    return struct.pack("<64sHBBIII", encoded, len(encoded), 2, 1, left, right, child) + bytes(48)


def ole(*entries: bytes, shift: int = 9, chain: tuple[int, ...] = (2, 1)) -> bytes:
    """
    Build an OLE file: a header, the directory in the sectors of `chain`, and the allocation table.

    The table is in sector 0 and behind the directory. The header lists its first 109 sectors.
    """
    size, last = 1 << shift, max(chain)
    rows = size // 4
    table = [NO_ENTRY] * (last // rows + 1) * rows
    for sector, following in zip(chain, (*chain[1:], 0xFFFFFFFE), strict=True):
        table[sector] = following
    places = [0, *range(last + 1, last + len(table) // rows)]
    header = bytearray(size)
    header[:8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    struct.pack_into("<H", header, 30, shift)
    struct.pack_into("<I", header, 48, chain[0])
    struct.pack_into(f"<{len(places[:109])}I", header, 76, *places[:109])
    sectors = {
        place: struct.pack(f"<{rows}I", *table[index * rows : (index + 1) * rows]) for index, place in enumerate(places)
    }
    for index, sector in enumerate(chain):
        sectors[sector] = b"".join(entries[index * size // 128 : (index + 1) * size // 128]).ljust(size, b"\0")
    return bytes(header) + b"".join(sectors.get(number, bytes(size)) for number in range(max(sectors) + 1))
