"""The command `demo`: every verb on real files, against an emulator that it starts and ends, checked by itself."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import attrs
from cyclopts import Parameter
from rich.filesize import decimal

from meta_media.api import MediaApi
from meta_media.cli.emulator_process import emulator_process
from meta_media.cli.options import Report
from meta_media.cli.output import Column, Output, as_json, described, paragraph, printable, sentence, table
from meta_media.cli.progress import Bar
from meta_media.cli.running import FAILED
from meta_media.errors import IntegrityError, MediaError, MediaNotFoundError
from meta_media.protocol.media_types import ACCEPTED, Kind
from meta_media.samples import paths
from meta_media.transfer.threads import run_in_thread, storage_errors

__all__ = ["demo"]

_COLUMNS: Final = (
    Column("file"),
    Column("type"),
    Column("size", number=True),
    Column("id", number=True),
    Column("up\nMB/s", number=True),
    Column("down\nMB/s", number=True),
    Column("verified"),
)
_LARGE: Final = 32 * 2**20  # bytes of a file that is large enough to show a rate
_LINE: Final = b"A line of a large text file, which shows how fast bytes go through.\n"
_RECIPIENTS: Final = ("+15550001111", "+15550002222")  # 555: nobody's
_REPORT: Final = Report()


@attrs.define(kw_only=True)
class _Row:
    """One file's way through the demonstration; rates are in bytes per second."""

    name: str
    path: Path
    size: int | None = None
    mime_type: str | None = None
    id: str | None = None
    up: float | None = None
    down: float | None = None
    verified: bool = False
    deleted: bool = False
    error: MediaError | None = None

    @property
    def verdict(self) -> str:
        """What the table says of it."""
        if self.error is None:
            return "yes"
        if isinstance(self.error, IntegrityError):
            return "MISMATCH"
        return "FAILED" if self.id else "refused"


async def demo(
    files: Annotated[list[Path] | None, Parameter(name="FILE", negative=())] = None,
    /,
    *,
    report: Report = _REPORT,
) -> int:
    """
    Try everything without an account: files go to an emulator and back, and are compared.

    Each file is uploaded, looked up, downloaded, and compared by its SHA-256; one is sent by its id to two people; all are
    deleted, and looked up once more to see that they are gone. Nothing leaves this machine, and nothing stays on it.

    Args:
        files: Your own files. Default: a small sample of every type WhatsApp accepts, and a large text.
        report: How to say it.
    """
    started = time.perf_counter()
    async with _temporary_folder() as folder:
        rows = [_Row(name=os.fspath(path), path=path) for path in files] if files else await _samples(folder)
        output = report.output(items=len(rows))
        async with emulator_process(folder / "emulator") as media:
            async with output.bars as bars:
                await media.delete("1", missing_ok=True)  # so that the first rate is not that of connecting
                for row in rows:
                    with _noting(row), bars.bar(printable(row.path.name)) as bar:
                        await _round_trip(media, row, folder / "copy", bar)
            sent = await _send_one(media, [row for row in rows if row.verified])
            for row in rows:
                with _noting(row):
                    await _delete(media, row)
    await _tell(output, rows, sent, time.perf_counter() - started)
    return output.status


@asynccontextmanager
async def _temporary_folder() -> AsyncIterator[Path]:
    with storage_errors("make a temporary folder"):
        folder = await run_in_thread(tempfile.mkdtemp, "", "meta-media-demo-")
    try:
        yield Path(folder)
    finally:
        with anyio.CancelScope(shield=True):
            await run_in_thread(shutil.rmtree, folder, True)


async def _samples(folder: Path) -> list[_Row]:
    large = folder / "large.txt"
    with storage_errors("write a large sample"):
        await run_in_thread(large.write_bytes, _LINE * (_LARGE // len(_LINE)))
    return [_Row(name=path.name, path=path) for path in [*await run_in_thread(paths), large]]


@contextlib.contextmanager
def _noting(row: _Row) -> Iterator[None]:
    """Keep the first error of a file, which is no reason to stop for the others."""
    try:
        yield
    except MediaError as error:
        row.error = row.error or error


async def _round_trip(media: MediaApi, row: _Row, copy: Path, bar: Bar) -> None:
    size, original = await run_in_thread(_measured, row.path)
    row.size = size
    bar.action = "↑"
    started = time.perf_counter()
    uploaded = await media.upload(row.path, progress=bar)
    row.up = size / (time.perf_counter() - started)
    row.id = uploaded.id
    info = await media.get_info(uploaded.id)
    row.mime_type = info.mime_type
    bar.action = "↓"
    started = time.perf_counter()
    await media.download(info, copy, progress=bar)
    row.down = size / (time.perf_counter() - started)
    _, copied = await run_in_thread(_measured, copy)
    for what, digest in (("the copy", copied), ("what Meta says it is", info.sha256)):
        if digest != original:
            raise IntegrityError(f"{what} differs from the original", expected=original, actual=digest)
    row.verified = True


def _measured(path: Path) -> tuple[int, str]:
    """Read a file independently of the SDK: its size, and its SHA-256 in hex."""
    with storage_errors(f"read {os.fspath(path)!r}"), path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


async def _delete(media: MediaApi, row: _Row) -> None:
    if row.id is None:
        return
    await media.delete(row.id)
    try:
        await media.get_info(row.id)
    except MediaNotFoundError:
        row.deleted = True
    else:
        raise IntegrityError(f"media {row.id} is still there after it was deleted")


async def _send_one(media: MediaApi, rows: Sequence[_Row]) -> str | MediaError | None:
    """Send one file, a picture if there is one, to everybody by its id; say so, or why not."""
    row = next((row for row in rows if _kind(row) == "image"), next(iter(rows), None))
    if row is None or row.id is None:
        return None
    try:
        for number in _RECIPIENTS:
            await media.send(number, row.id, kind=_kind(row))
    except MediaError as error:
        return error
    return f"{row.name}: uploaded once, sent by id to {' and '.join(_RECIPIENTS)}"


def _kind(row: _Row) -> Kind:
    return ACCEPTED[row.mime_type or "text/plain"].kind


async def _tell(output: Output, rows: Sequence[_Row], sent: str | MediaError | None, seconds: float) -> None:
    if any(row.error for row in rows) or isinstance(sent, MediaError):
        output.status = FAILED
    if output.json:
        for row in rows:
            await output.write(as_json(_object(row)))
        return
    if isinstance(sent, MediaError):
        sent = f"✗ sending failed: {sentence(sent)}"
    verified, deleted = sum(row.verified for row in rows), sum(row.deleted for row in rows)
    lines = [
        _table(rows),
        "",
        *(paragraph(f"✗ {sentence(row.error, row.name)}") for row in rows if row.error),
        *([paragraph(printable(sent))] if sent else []),
        f"{verified} of {len(rows)} files came back as they were; {deleted} deleted and seen to be gone; {seconds:.1f} s",
        "All on this machine, not WhatsApp. Small files show latency, large ones rates.",
    ]
    await output.write("\n".join(lines))


def _table(rows: Sequence[_Row]) -> str:
    wide = [_cells(row, row.mime_type or "", "{:,}".format) for row in rows]
    narrow = [_cells(row, _kind(row) if row.mime_type else "", decimal) for row in rows]
    return table(_COLUMNS, wide, narrow, ["bold red" if row.error else "green" for row in rows])


def _cells(row: _Row, kind: str, shown: Callable[[int], str]) -> tuple[str, ...]:
    size = "" if row.size is None else shown(row.size)
    return row.name, kind, size, row.id or "", _rate(row.up), _rate(row.down), row.verdict


def _rate(bytes_per_second: float | None) -> str:
    if bytes_per_second is None:
        return ""
    megabytes = bytes_per_second / 1e6
    return f"{megabytes:,.0f}" if megabytes >= 100 else f"{megabytes:.1f}" if megabytes >= 10 else f"{megabytes:.2f}"


def _object(row: _Row) -> dict[str, Any]:
    fields = attrs.asdict(row, recurse=False)
    fields |= {"path": None, "error": row.error and described(row.error)}
    return {"file": fields.pop("name"), **fields}
