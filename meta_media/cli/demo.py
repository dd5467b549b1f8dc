"""
The command `demo`: every verb on real files, against an emulator that it starts and ends. And `samples`: the files alone.

The emulator is a process of its own. It shares no interpreter with the client, which would distort the rates.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
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

from meta_media import MediaApi, MediaError, Settings
from meta_media.cli.options import REPORT, Report
from meta_media.cli.output import FAILED, Output, as_json, described, paragraph, printable, sentence
from meta_media.cli.table import Columns, table
from meta_media.errors import IntegrityError, MediaNotFoundError, NetworkError, StorageError
from meta_media.protocol.media_types import ACCEPTED, Kind
from meta_media.samples import paths
from meta_media.transfer.threads import run_in_thread, storage_errors

__all__ = ["demo", "samples"]

_COLUMNS: Final[Columns] = {
    "file": "left",
    "type": "left",
    "size": "right",
    "id": "right",
    "up\nMB/s": "right",
    "down\nMB/s": "right",
    "verified": "left",
}
_LARGE_SIZE: Final = 32 * 2**20  # bytes of a file that is large enough to show a rate
_LARGE_LINE: Final = b"A line of a large text file, which shows how fast bytes go through.\n"
_RECIPIENTS: Final = ("+15550001111", "+15550002222")  # numbers with 555 belong to no person
_API_VERSION: Final = "v25.0"  # whatever the environment says: the demonstration needs no settings
_EXIT_TIMEOUT: Final = 10.0  # seconds for the emulator's process to end by itself


@attrs.define(kw_only=True)
class _Row:
    """The result for one file; rates are in bytes per second."""

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
        """The last column of the table."""
        if self.error is None:
            return "yes"
        if isinstance(self.error, IntegrityError):
            return "MISMATCH"
        return "FAILED" if self.id else "refused"

    @property
    def kind(self) -> Kind:
        """The kind of message that shows the file."""
        return ACCEPTED[self.mime_type or "text/plain"].kind

    @contextlib.contextmanager
    def keep_error(self) -> Iterator[None]:
        """Keep the first error of the block instead of raising it: the other files go on."""
        try:
            yield
        except MediaError as error:
            self.error = self.error or error


async def demo(
    files: Annotated[list[Path] | None, Parameter(name="FILE", negative=())] = None, /, *, report: Report = REPORT
) -> int:
    """
    Try everything without an account: files go to an emulator and back, and are compared.

    Each file is uploaded, looked up, downloaded, and compared by its SHA-256. One is sent by its id to two people. All
    are deleted, and looked up again to see that they are gone. Nothing leaves this machine, and nothing stays on it.

    Args:
        files: Your own files. Default: a small sample of every type WhatsApp accepts, and a large text.
        report: How to print.
    """
    started = time.perf_counter()
    output = report.output()
    async with _temporary_folder() as folder:
        rows = [_Row(name=os.fspath(path), path=path) for path in files] if files else await _samples(folder)
        async with _emulator_process(folder / "emulator") as media:
            async with output.bars:
                await media.delete("1", missing_ok=True)  # connects, so that the first rate is not that of connecting
                for done, row in enumerate(rows):
                    output.bars.count(done, len(rows))
                    with row.keep_error():
                        await _round_trip(media, row, folder / "copy", output)
            sent = await _send_one(media, [row for row in rows if row.verified])
            for row in rows:
                with row.keep_error():
                    await _delete(media, row)
    await _print(output, rows, sent, time.perf_counter() - started)
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
        await run_in_thread(large.write_bytes, _LARGE_LINE * (_LARGE_SIZE // len(_LARGE_LINE)))
    return [_Row(name=path.name, path=path) for path in [*await run_in_thread(paths), large]]


async def _round_trip(media: MediaApi, row: _Row, copy: Path, output: Output) -> None:
    name = printable(row.path.name)
    size, original = await run_in_thread(_measure, row.path)
    row.size = size
    started = time.perf_counter()
    uploaded = await media.upload(row.path, progress=output.bars.bar(name))
    row.up = size / (time.perf_counter() - started)
    row.id = uploaded.id
    info = await media.get_info(uploaded.id)
    row.mime_type = info.mime_type
    started = time.perf_counter()
    await media.download(info, copy, progress=output.bars.bar(name, "↓"))
    row.down = size / (time.perf_counter() - started)
    _, copied = await run_in_thread(_measure, copy)
    for what, digest in (("the copy", copied), ("the SHA-256 that Meta reports", info.sha256)):
        if digest != original:
            raise IntegrityError(f"{what} differs from the original", expected=original, actual=digest)
    row.verified = True


def _measure(path: Path) -> tuple[int, str]:
    """Read a file without the SDK: its size in bytes, and its SHA-256 in hex."""
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
    """Send one file, if possible a picture, to all recipients by its id. Return a sentence about it, or the error."""
    row = next((row for row in rows if row.kind == "image"), next(iter(rows), None))
    if row is None or row.id is None:
        return None
    try:
        for number in _RECIPIENTS:
            await media.send(number, row.id, kind=row.kind)
    except MediaError as error:
        return error
    return f"{row.name}: uploaded once, sent by id to {' and '.join(_RECIPIENTS)}"


async def _print(output: Output, rows: Sequence[_Row], sent: str | MediaError | None, seconds: float) -> None:
    if any(row.error for row in rows) or isinstance(sent, MediaError):
        output.status = FAILED
    if output.json:
        for row in rows:
            await output.write(as_json(_object(row)))
        return
    if isinstance(sent, MediaError):
        sent = f"✗ sending failed: {sentence(sent)}"
    verified, deleted = sum(row.verified for row in rows), sum(row.deleted for row in rows)
    wide = [_cells(row, row.mime_type or "", "{:,}".format) for row in rows]
    narrow = [_cells(row, row.kind if row.mime_type else "", decimal) for row in rows]
    styles = ["bold red" if row.error else "green" for row in rows]
    end = (
        f"{verified} of {len(rows)} files came back as they were; {deleted} deleted and seen to be gone; {seconds:.1f} s",
        "All on this machine, not WhatsApp. Small files show latency, large ones rates.",
    )
    lines = [
        await run_in_thread(table, _COLUMNS, wide, narrow, styles),
        "",
        *(paragraph(f"✗ {sentence(row.error, row.name)}", sys.stdout) for row in rows if row.error),
        *([paragraph(printable(sent), sys.stdout)] if sent else []),
        *(paragraph(line, sys.stdout) for line in end),
    ]
    await output.write("\n".join(lines))


def _cells(row: _Row, kind: str, write: Callable[[int], str]) -> tuple[str, ...]:
    size = "" if row.size is None else write(row.size)
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


async def samples(folder: Path, /, *, report: Report = REPORT) -> int:
    """
    Write a small sample of every type that WhatsApp accepts into a folder, and print the paths.

    Args:
        folder: Folder for the files. It is made if it is missing. A file of another content is never replaced.
        report: How to print.
    """
    output = report.output()
    with storage_errors(f"make the folder {os.fspath(folder)!r}"):
        await run_in_thread(functools.partial(folder.mkdir, parents=True, exist_ok=True))
    for sample in await run_in_thread(paths):
        target = folder / sample.name
        try:
            await run_in_thread(_write_new, target, sample)
        except StorageError as error:
            await output.failure(error, file=os.fspath(target))
        else:
            await output.result(printable(os.fspath(target)), {"file": os.fspath(target)})
    return output.status


def _write_new(target: Path, sample: Path) -> Any:
    content = sample.read_bytes()
    with storage_errors(f"write {os.fspath(target)!r}"):
        try:
            with target.open("xb") as file:
                file.write(content)
        except FileExistsError:
            if not target.is_file() or target.read_bytes() != content:
                raise


# The emulator's process. It ends when its standard input does, which is when this process ends, by whatever cause.


@asynccontextmanager
async def _emulator_process(folder: Path) -> AsyncIterator[MediaApi]:
    starting = asyncio.ensure_future(_start(folder))  # asyncio would report a child twice whose start is cancelled
    try:
        process = await asyncio.shield(starting)
        line = await process.stdout.readline() if process.stdout else b""
        if not line:
            raise NetworkError("the emulator did not start")
        base_url, phone_number_id, access_token = json.loads(line)
        settings = Settings(base_url=base_url, api_version=_API_VERSION, appsecret_proof=None)
        async with MediaApi(access_token, phone_number_id, settings=settings) as media:
            yield media
    finally:
        with anyio.CancelScope(shield=True):
            await _end(await starting)


async def _start(folder: Path) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", __name__, str(folder)),  # -P: no imports from the current folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is not for the emulator; the next line says so on Windows
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    except OSError as error:
        raise NetworkError("the emulator did not start") from error


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin:
        process.stdin.close()
    with anyio.move_on_after(_EXIT_TIMEOUT):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


async def _serve(folder: str) -> None:
    from meta_media.emulator import Emulator

    async with Emulator(folder) as emulator:
        facts = [emulator.base_url, emulator.phone_number_id, emulator.access_token]
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()
        await run_in_thread(sys.stdin.buffer.read)


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
