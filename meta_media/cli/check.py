"""The command `check`: the same rules that an upload applies, without sending anything."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs

from meta_media.cli.many import in_order
from meta_media.cli.options import STANDARD, FileNames, Report, source_of
from meta_media.cli.output import (
    Column,
    Output,
    as_json,
    binary_size,
    described,
    paragraph,
    printable,
    sentence,
    status_of,
    table,
)
from meta_media.errors import ConfigurationError, MediaError
from meta_media.protocol.media_types import Inspection, check_size, inspect_media

__all__ = ["check"]

_COLUMNS: Final = (
    Column("file"),
    Column("type"),
    Column("size", number=True),
    Column("limit", number=True),
    Column("WhatsApp"),
)
_REPORT = Report()


@attrs.frozen(kw_only=True)
class _Verdict:
    """What is known of a file, and why it would be refused, if it would."""

    inspection: Inspection | None = None
    size: int | None = None
    error: MediaError | None = None

    @property
    def kind(self) -> str:
        """How WhatsApp would show it, or would have."""
        return str(((self.inspection or self.error) and getattr(self.inspection or self.error, "kind", None)) or "")

    @property
    def mime_type(self) -> str:
        """What it is, where that was found out."""
        return self.inspection.mime_type if self.inspection else ""


async def check(
    files: FileNames,
    /,
    *,
    mime_type: str | None = None,
    filename: str | None = None,
    report: Report = _REPORT,
) -> int:
    """
    Say for each file whether WhatsApp would accept it, and if not, why and what would help. Nothing is sent.

    Args:
        files: Files to look at; "-" is standard input.
        mime_type: What they will be declared as. Default: told from their bytes, else from their names.
        filename: What standard input will be called.
        report: How to say it.
    """
    if files.count(str(STANDARD)) > 1:
        raise ConfigurationError("standard input can be checked only once")
    output = report.output()
    verdicts: dict[int, tuple[str, _Verdict]] = {}

    async def work(file: str) -> _Verdict:
        return await _verdict(file, filename if file == str(STANDARD) else None, mime_type)

    async def show(file: str, verdict: _Verdict) -> None:
        if verdict.error is not None:
            output.status = max(output.status, status_of(verdict.error))
        verdicts[len(verdicts)] = (file, verdict)
        if output.json:
            await output.write(as_json(_object(file, verdict)))
        elif not sys.stdout.isatty():
            await output.write(_line(file, verdict))

    async with in_order(files, work) as run:
        async for outcome in run:
            if outcome.value is None:
                raise outcome.error or AssertionError("an outcome has a value or an error")
            await show(outcome.source, outcome.value)
    if sys.stdout.isatty() and not output.json:
        await _show_table(output, list(verdicts.values()))
    return output.status


async def _verdict(file: str, filename: str | None, mime_type: str | None) -> _Verdict:
    source = source_of(file, filename)
    inspection = size = None
    try:
        async with source.open() as body:
            size = body.size
            inspection = inspect_media(
                body.head,
                filename=source.name,
                mime_type=mime_type,
                hint=source.mime_type,
                complete=body.size == len(body.head),
            )
            size = await body.measure(inspection.max_size)
            check_size(inspection, size, filename=source.name)
    except MediaError as error:
        return _Verdict(inspection=inspection, size=size, error=error)
    return _Verdict(inspection=inspection, size=size)


def _object(file: str, verdict: _Verdict) -> dict[str, Any]:
    found: dict[str, Any] = {"file": file, "accepted": verdict.error is None, "size": verdict.size}
    if verdict.inspection:
        found |= {"mime_type": verdict.inspection.mime_type, "kind": verdict.inspection.kind}
        found |= {"limit": verdict.inspection.max_size}
    return found | ({"error": described(verdict.error)} if verdict.error else {})


def _line(file: str, verdict: _Verdict) -> str:
    name = printable(file)
    if verdict.error is not None:
        return f"{name}: refused: {sentence(verdict.error)}"
    found = verdict.inspection
    limit = f"{verdict.size:,} of at most {found.max_size:,} bytes" if found else ""
    return f"{name}: accepted: {found.mime_type} ({found.kind}), {limit}" if found else name


async def _show_table(output: Output, verdicts: list[tuple[str, _Verdict]]) -> None:
    rows = [_cells(file, verdict, f"{verdict.kind} ({verdict.mime_type})", "{:,}".format) for file, verdict in verdicts]
    narrow = [_cells(file, verdict, verdict.kind, binary_size) for file, verdict in verdicts]
    await output.write(
        table(_COLUMNS, rows, narrow, ["bold red" if verdict.error else "green" for _, verdict in verdicts])
    )
    for file, verdict in verdicts:
        if verdict.error is not None:
            await output.write(paragraph(f"✗ {sentence(verdict.error, Path(file).name)}"))


def _cells(file: str, verdict: _Verdict, kind: str, shown: Callable[[int], str]) -> tuple[str, ...]:
    size = "" if verdict.size is None else shown(verdict.size)
    limit = shown(verdict.inspection.max_size) if verdict.inspection else ""
    return file, kind.replace(" ()", ""), size, limit, "refuses it" if verdict.error else "takes it"
