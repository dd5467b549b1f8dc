"""The command `check`: the rules of an upload, without sending anything."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from meta_media import MediaError, Source
from meta_media.cli.items import STANDARD, source_of
from meta_media.cli.options import REPORT, FileNames, Flag, Report
from meta_media.cli.output import Output, as_json, described, paragraph, printable, sentence, status_of
from meta_media.cli.reporter import in_order
from meta_media.cli.table import Columns, table
from meta_media.errors import ConfigurationError
from meta_media.protocol.filenames import typed_filename
from meta_media.protocol.media_types import Inspection, Kind, check_size
from meta_media.protocol.recipient import Recipient
from meta_media.protocol.requests import MediaMessage
from meta_media.transfer.repackaging import repackaged
from meta_media.transfer.threads import run_in_thread
from meta_media.transfer.upload import UploadOptions, inspect

__all__ = ["check", "check_message"]

_COLUMNS: Final[Columns] = {"file": "left", "type": "left", "size": "right", "limit": "right", "WhatsApp": "left"}


@attrs.define
class _Verdict:
    """The result for one file: what was found, the name that it is sent under, and what an upload would raise."""

    file: str
    inspection: Inspection | None = None
    size: int | None = None
    filename: str | None = None
    error: MediaError | None = None


async def check(
    files: FileNames,
    /,
    *,
    mime_type: str | None = None,
    filename: str | None = None,
    repackage: Flag = False,
    report: Report = REPORT,
) -> int:
    """
    Check whether WhatsApp would accept files. For a refused file, print the reason and what would help. Nothing is sent.

    A remark on standard error says what some phones may not play, and the command that mends it.

    Args:
        files: Files to check. "-" is standard input.
        mime_type: Type that they would be declared as. Default: detected from their bytes, else from their names.
        filename: Name that it would be uploaded under, for a single file.
        repackage: Check what upload --repackage would send.
        report: How to print.
    """
    if files.count(str(STANDARD)) > 1:
        raise ConfigurationError("standard input can be checked only once")
    if filename is not None and len(files) > 1:
        raise ConfigurationError("--filename is for a single file")
    options = UploadOptions(mime_type=mime_type, filename=filename, repackage=repackage)
    output = report.output()
    verdicts: list[_Verdict] = []

    async def work(file: str) -> _Verdict:
        return await _judge(file, source_of(file, filename), options)

    async with in_order(files, work) as run:
        async for outcome in run:
            if (verdict := outcome.value) is None:
                raise outcome.error or AssertionError("an outcome has a value or an error")
            verdicts.append(verdict)
            if verdict.error is not None:
                output.status = max(output.status, status_of(verdict.error))
            if output.json:
                await output.write(as_json(_object(verdict)))
            elif not sys.stdout.isatty():
                await output.write(_line(verdict))
                await _remark(output, verdict)
    if sys.stdout.isatty() and not output.json:
        await _print_table(output, verdicts)
    return output.status


async def _judge(file: str, source: Source, options: UploadOptions) -> _Verdict:
    """Judge a file as an upload does, by the name that the user knows it by."""
    verdict = _Verdict(file)
    try:
        origin = repackaged(source, options.mime_type, options.filename) if options.repackage else source
        async with origin.open() as body:
            verdict.size = body.size
            verdict.inspection, verdict.size = await inspect(origin, body, options)
            name = options.filename or origin.name or body.name
            check_size(verdict.inspection, verdict.size, filename=name)
            verdict.filename = typed_filename(name, verdict.inspection.mime_type, "media", sent=True)
    except MediaError as error:
        verdict.error = error
    return verdict


async def check_message(
    file: str, recipients: list[Any], kind: Kind | None, fields: Mapping[str, Any], *, repackage: bool
) -> None:
    """Raise before the upload what would fail each message: its fields, the file's kind, or that all recipients are wrong."""
    wrong: list[MediaError] = []
    for recipient in recipients:
        try:
            Recipient.of(recipient)
        except ConfigurationError as error:
            wrong.append(error)
    if wrong and len(wrong) == len(recipients):
        raise wrong[0]
    message, mime_type = MediaMessage(to=Recipient.phone("15550001111"), media_id="", **fields), None
    if await run_in_thread(os.path.isfile, file):  # a pipe can be read only once
        verdict = await _judge(file, source_of(file), UploadOptions(repackage=repackage))
        if (found := verdict.inspection) is None or verdict.error is not None:
            raise verdict.error or AssertionError("a verdict has an inspection or an error")
        if kind not in {None, "document", found.kind}:
            cure = f"pass --kind {found.kind}, or leave it out"
            raise ConfigurationError(f"--kind {kind} is not for {found.mime_type}: {cure}")
        kind, mime_type = kind or found.kind, found.mime_type
    if kind is not None:
        message.body(kind, mime_type)


def _object(verdict: _Verdict) -> Mapping[str, Any]:
    facts: dict[str, Any] = {"file": verdict.file, "accepted": verdict.error is None, "size": verdict.size}
    if (found := verdict.inspection) is not None:
        facts |= {"mime_type": found.mime_type, "kind": found.kind, "limit": found.max_size}
        facts |= {"filename": verdict.filename, "remarks": found.remarks if verdict.error is None else ()}
    return facts | ({"error": described(verdict.error)} if verdict.error else {})


def _line(verdict: _Verdict) -> str:
    name, found = printable(verdict.file), verdict.inspection
    if verdict.error is not None or found is None:
        return f"{name}: refused: {sentence(verdict.error) if verdict.error else ''}"
    return f"{name}: accepted: {found.mime_type} ({found.kind}), {verdict.size:,} of at most {found.max_size:,} bytes"


async def _print_table(output: Output, verdicts: list[_Verdict]) -> None:
    rows = [_cells(verdict, "{:,}".format, with_type=True) for verdict in verdicts]
    narrow = [_cells(verdict, _binary_size, with_type=False) for verdict in verdicts]
    styles = ["bold red" if verdict.error else "green" for verdict in verdicts]
    await output.write(await run_in_thread(table, _COLUMNS, rows, narrow, styles))
    for verdict in verdicts:
        if verdict.error is not None:
            await output.write(paragraph(f"✗ {sentence(verdict.error, Path(verdict.file).name)}", sys.stdout))
        await _remark(output, verdict)


async def _remark(output: Output, verdict: _Verdict) -> None:
    """Write what may keep an accepted file from playing, and under which name it is sent, if it is another one."""
    if verdict.inspection is None or verdict.error is not None:
        return
    renamed = verdict.filename != Path(verdict.file).name
    sent = (f"it is sent as {verdict.filename}, which is {verdict.inspection.mime_type}",) if renamed else ()
    for remark in (*sent, *verdict.inspection.remarks):
        await output.remark(paragraph(f"{printable(verdict.file)}: remark: {remark}", sys.stderr))


def _cells(verdict: _Verdict, write: Callable[[int], str], *, with_type: bool) -> tuple[str, ...]:
    found = verdict.inspection
    kind = str(getattr(found or verdict.error, "kind", None) or "")
    if with_type and found:
        kind += f" ({found.mime_type})"
    size = "" if verdict.size is None else write(verdict.size)
    limit = write(found.max_size) if found else ""
    return verdict.file, kind, size, limit, "refuses it" if verdict.error else "takes it"


def _binary_size(size: int) -> str:
    """Write a size in the units of WhatsApp's limits."""
    if size < 2**10:
        return f"{size} B"
    unit, name = (2**20, "MiB") if size >= 2**20 else (2**10, "KiB")
    return f"{size / unit:.1f}".removesuffix(".0") + f" {name}"
