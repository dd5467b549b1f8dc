"""
The table of what WhatsApp accepts, refuses and remarks on, for the guides: `python -m tests.support.rules` writes it.

It has no rule and no advice of its own. Examples are judged as `check` judges them, and the sentences are those of the verdicts.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from meta_media import samples
from meta_media.errors import InvalidMediaError, UnsupportedMediaTypeError
from meta_media.protocol import media_types
from meta_media.protocol.formats import Signature
from meta_media.protocol.media_types import ACCEPTED, HEAD_SIZE, Inspection, check_size, inspect_media, named_type
from meta_media.protocol.signatures import sniff_steps
from meta_media.transfer import upload
from tests.support.boxes import mp4, sound, video

__all__ = ["GUIDES", "tables", "with_tables"]

_ROOT: Final = Path(__file__).parents[2]
GUIDES: Final = tuple(_ROOT / "meta_media" / room / "README.md" for room in ("cli", "emulator"))
_BEGIN: Final = "<!-- The rules, which `python -m tests.support.rules` writes. -->\n"
_END: Final = "<!-- The end of the rules. -->\n"
_WIDTH: Final = 106  # characters of a line
_MANY: Final = 4 * HEAD_SIZE  # bytes


def _examples() -> Iterator[tuple[str, bytes]]:
    """Yield a file for each rule, with its name."""
    files = {
        path.name: path.read_bytes() for path in (*samples.paths(), *sorted((_ROOT / "tests" / "media").iterdir()))
    }
    yield from files.items()
    for codec in (b"hvc1", b"av01", b"vp08", b"vp09", b"s263"):
        yield "clip.mp4", mp4(video(codec), sound())
    yield "clip.3gp", mp4(video(b"s263"), sound(), brand=b"3gp6")
    yield "clip.mp4", mp4(video(b"mp4v", 0x20), sound())
    yield "clip.mp4", mp4(video(), sound(), sound())
    for codec in (b"Opus", b".mp3", b"ac-3", b"alac", b"fLaC", b"samr"):
        yield "clip.mp4", mp4(video(), sound(codec))
        yield "song.m4a", mp4(sound(codec))
    for size in (400, 512):
        chunk = (
            b"VP8L" + (10).to_bytes(4, "little") + b"\x2f" + (size - 1 | (511 << 14)).to_bytes(4, "little") + bytes(5)
        )
        yield "sticker.webp", b"RIFF" + (4 + len(chunk)).to_bytes(4, "little") + b"WEBP" + chunk
    yield "drawing.png", files["drawing.png"][:33] + b"\0\0\0\x08acTL" + bytes(12) + files["drawing.png"][33:]
    yield from (("notes.txt", "é\n".encode(codec)) for codec in ("utf-16", "latin-1"))
    yield from ((f"table{suffix}", b"<html><table>") for suffix in (".pdf", ".xls", ".docx", ".jpg"))


def _verdict(name: str, content: bytes) -> tuple[Signature | None, Inspection | InvalidMediaError]:
    """Return the signature of a file that can be read anywhere, and the decision or the refusal."""
    head, complete = content[:HEAD_SIZE], len(content) <= HEAD_SIZE
    steps = sniff_steps(head, complete)
    try:
        offset, size = next(steps)
        while True:
            offset, size = steps.send(content[offset : offset + size])
    except StopIteration as stop:
        signature: Signature | None = stop.value
    try:
        return signature, inspect_media(head, filename=name, complete=complete, signature=signature)
    except InvalidMediaError as error:
        return signature, error


def _advice(error: Exception) -> str:
    return str(error).split(": ", 1)[1]


def _maximum(mime_type: str, *, animated: bool) -> tuple[str, str]:
    """Return the maximum size of a type, and what to do about a larger file."""
    signature = Signature(candidates=(mime_type,), animated=animated)
    inspection = inspect_media(b"x", mime_type=mime_type, signature=signature)
    unit, name = (2**20, "MiB") if inspection.max_size >= 2**20 else (2**10, "KiB")
    try:
        check_size(inspection, inspection.max_size + 1)
    except InvalidMediaError as error:
        return f"{inspection.max_size // unit} {name}", _advice(error)
    raise AssertionError("no file is too large")


def _table(*rows: Iterable[str]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], re.sub(r"[^|]+", "---", lines[0]), *lines[1:], ""]


def _items(found: Iterable[tuple[str, ...]]) -> list[str]:
    """List what was found and what to do about it; what has the same advice is one item."""
    groups: dict[str, dict[str, None]] = {}
    for what, advice in found:
        groups.setdefault(re.sub(r"\((ffmpeg [^)]+)\)", r"(`\1`)", advice), {})[what] = None
    items = (f"- {'; '.join(names)}: {advice}." for advice, names in groups.items())
    return [*(textwrap.fill(item, _WIDTH, subsequent_indent="  ", break_on_hyphens=False) for item in items), ""]


def _code(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


def _sizes() -> Iterator[tuple[str, ...]]:
    """Yield each kind, its maximum, and what to do about a larger file."""
    types = {row.kind: mime_type for mime_type, row in ACCEPTED.items()}
    for kind, mime_type in sorted(types.items()):
        for animated in (False, True) if kind == "sticker" else (False,):
            yield f"{kind}{', animated' if animated else ''}", *_maximum(mime_type, animated=animated)


def _others() -> Iterator[tuple[str, str]]:
    """Yield the types that are not accepted, and what to do about them."""
    for mime_type in dict.fromkeys((*media_types._NAMES, *media_types._FIXES)):
        if mime_type not in ACCEPTED and "/" in mime_type:
            names = media_types._NAMES.get(mime_type, ())
            try:
                inspect_media(b"x", mime_type=mime_type)
            except UnsupportedMediaTypeError as error:
                yield _code([name for name in names if name.startswith(".")] or [mime_type]), _advice(error)


def tables() -> str:
    """Return the tables as Markdown."""
    inside: dict[str, dict[str, None]] = {mime_type: {} for mime_type in ACCEPTED}
    refused: dict[str, list[tuple[str, str]]] = {row.kind: [] for row in ACCEPTED.values()}
    remarks: list[str] = []
    for name, content in _examples():
        signature, verdict = _verdict(name, content)
        flaw = signature and signature.flaw
        if isinstance(verdict, Inspection):
            remarks += verdict.remarks
        elif signature is None or flaw:
            found = str(verdict.actual) if flaw else f"`{Path(name).suffix}` with {verdict.actual}"
            refused[str(verdict.kind)].append((found, _advice(verdict)))
            for mime_type in ACCEPTED.keys() & set(signature.candidates if signature else [named_type(name)]):
                if verdict.limit != mime_type:
                    inside[mime_type][str(verdict.limit)] = None
    types = (
        (row.kind, _code(row.extensions), f"`{name.replace('officedocument.', '…')}`", "; ".join(inside[name]))
        for name, row in ACCEPTED.items()
    )
    parts = (
        _table(("kind", "names", "type", "what must be inside"), *types),
        _table(("kind", "at most", "what to do about a larger file"), *_sizes()),
        *([f"Refused, of the kind {kind}:", "", *_items(found)] for kind, found in refused.items()),
        ["Refused, of other types:", ""],
        _items(_others()),
        ["Accepted, with a remark:", ""],
        _items(tuple(remark.split(": ", 1)) for remark in (*remarks, upload._UNSEEN)),
    )
    return "\n".join(line for part in parts for line in part)


def with_tables(guide: str) -> str:
    """Return the text of a guide, with the tables of today between its marks."""
    before, _, rest = guide.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{tables()}{_END}{after}"


if __name__ == "__main__":
    for path in GUIDES:
        path.write_text(with_tables(path.read_text("utf-8")), "utf-8")
