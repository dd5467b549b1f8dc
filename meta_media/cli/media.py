"""The commands that talk to Meta: upload, info, download, delete and send."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import Parameter

from ..errors import ConfigurationError, MediaError
from ..files import in_thread, storage_errors
from ..media_types import ACCEPTED, Kind, normalise
from ..models import DeletedMedia, MediaInfo, SentMessage, UploadedMedia, hide_query
from .options import STANDARD, Connection, FileNames, Report, source_of
from .output import printable

__all__ = ["delete", "download", "info", "send", "upload"]

_CONNECTION = Connection()
_REPORT = Report()


async def upload(
    files: FileNames,
    /,
    *,
    mime_type: str | None = None,
    filename: str | None = None,
    validate: Annotated[bool, Parameter(negative="--no-validate")] = True,
    verify: Annotated[bool, Parameter(negative=())] = False,
    ttl: timedelta | None = None,
    use_case: str | None = None,
    connection: Connection = _CONNECTION,
    report: Report = _REPORT,
) -> int:
    """
    Upload files, and print their media ids, one per line, in the order of the files.

    Args:
        files: Files to upload; "-" is standard input.
        mime_type: What they are. Default: told from their bytes, else from their names.
        filename: What to call the file, if there is only one.
        validate: Check type and size before sending; --no-validate sends whatever it is.
        verify: Ask Meta afterwards for the SHA-256 it stored, and compare.
        ttl: How long a "No Storage" number keeps it, such as 90m, 12h or 30d.
        use_case: Meta's field of that name, such as call_voicemail_announcement.
        connection: Whom to talk to.
        report: How to say it.
    """
    _check_files(files, filename)
    output = report.output(items=len(files))
    options: dict[str, Any] = {"mime_type": mime_type, "filename": filename, "validate": validate, "verify": verify}
    async with connection.client(needs_number=True) as media, output.bars as bars:

        async def work(file: Path) -> UploadedMedia:
            with bars.bar("standard input" if file == STANDARD else printable(file.name)) as bar:
                source = source_of(file, filename)
                return await media.upload(source, ttl=ttl, use_case=use_case, progress=bar, **options)

        def told(_: Path, uploaded: UploadedMedia) -> tuple[str, dict[str, Any]]:
            return printable(uploaded.id), _object(uploaded)

        uploaded = await output.each("file", files, work, told)
        if len(files) > 1:
            await output.remark(f"{uploaded} of {len(files)} files uploaded")
    return output.status


async def info(
    ids: Annotated[list[str], Parameter(name="ID", negative=())],
    /,
    *,
    connection: Connection = _CONNECTION,
    report: Report = _REPORT,
) -> int:
    """
    Show what Meta knows of media: type, size, SHA-256, and until when its URL lives.

    Args:
        ids: Media ids, from an upload or a webhook.
        connection: Whom to talk to.
        report: How to say it.
    """
    output = report.output()
    async with connection.client() as media:

        async def work(media_id: str) -> MediaInfo:
            return await media.get_info(media_id, phone_number_id=connection.phone_number_id)

        def told(_: str, found: MediaInfo) -> tuple[str, dict[str, Any]]:
            facts = {**_object(found), "url_expires_at": found.url_expires_at}
            lines = [f"{name:<18}{printable(str(value))}" for name, value in facts.items() if value is not None]
            return "\n".join(lines) + "\n" * (len(ids) > 1), facts

        await output.each("id", ids, work, told)
    return output.status


async def download(
    media_id: Annotated[str, Parameter(name="ID")],
    destination: Annotated[Path, Parameter(name="DESTINATION", allow_leading_hyphen=True)] = Path(),
    /,
    *,
    overwrite: Annotated[bool, Parameter(negative="--no-overwrite")] = True,
    connection: Connection = _CONNECTION,
    report: Report = _REPORT,
) -> int:
    """
    Download media, verified, and print the path of the file.

    Args:
        media_id: A media id, or the media URL from a webhook.
        destination: A file; a folder, where it gets a name that is still free; "-" is standard output.
        overwrite: Whether a file may be replaced.
        connection: Whom to talk to.
        report: How to say it.
    """
    output = report.output()
    target: Any = destination
    if destination == STANDARD:
        target, output.results = sys.stdout.buffer, sys.stderr
    shown = printable(hide_query(media_id))
    async with connection.client() as media, output.bars as bars:
        with bars.bar(shown, "↓") as bar:
            try:
                saved = await media.download(media_id, target, overwrite=overwrite, progress=bar)
                with storage_errors("write to standard output"):
                    await in_thread(sys.stdout.flush)
            except MediaError as error:
                await output.failure(error, id=shown)
                return output.status
        facts = {**_object(saved), "id": saved.media_id, "path": saved.path and os.fspath(saved.path)}
        if saved.path or output.json:
            await output.result(printable(str(saved.path)), facts)
    return output.status


async def delete(
    ids: Annotated[list[str], Parameter(name="ID", negative=())],
    /,
    *,
    missing_ok: Annotated[bool, Parameter(negative=())] = False,
    connection: Connection = _CONNECTION,
    report: Report = _REPORT,
) -> int:
    """
    Delete media, and print the ids that are gone.

    Args:
        ids: Media ids.
        missing_ok: Count media that Meta does not know as deleted.
        connection: Whom to talk to.
        report: How to say it.
    """
    output = report.output()
    async with connection.client() as media:

        async def work(media_id: str) -> DeletedMedia:
            number = connection.phone_number_id
            return await media.delete(media_id, missing_ok=missing_ok, phone_number_id=number)

        def told(media_id: str, deleted: DeletedMedia) -> tuple[str, dict[str, Any]]:
            return printable(media_id), _object(deleted)

        await output.each("id", ids, work, told)
    return output.status


async def send(
    to: Annotated[list[str], Parameter(name="TO", negative=())],
    /,
    *,
    media_id: Annotated[str, Parameter(name="--id")],
    kind: Kind | None = None,
    caption: str | None = None,
    filename: str | None = None,
    voice: Annotated[bool | None, Parameter(negative="--no-voice")] = None,
    reply_to: str | None = None,
    connection: Connection = _CONNECTION,
    report: Report = _REPORT,
) -> int:
    """
    Send uploaded media to people, and print the ids of the messages, in the order of the people.

    Args:
        to: Phone numbers with country code, such as +15550001111.
        media_id: The media id, from an upload on the same number.
        kind: The sort of message. Default: Meta is asked for the media's type, which decides.
        caption: The text below an image, video or document.
        filename: What a document is called.
        voice: Whether an audio is shown as a voice note.
        reply_to: The id of the message that this one answers.
        connection: Whom to talk to.
        report: How to say it.
    """
    output = report.output()
    extras: dict[str, Any] = {"caption": caption, "filename": filename, "voice": voice, "reply_to": reply_to}
    async with connection.client(needs_number=True) as media:
        decided = kind or _kind((await media.get_info(media_id)).mime_type)

        async def work(number: str) -> SentMessage:
            return await media.send(number, media_id, kind=decided, **extras)

        def told(_: str, sent: SentMessage) -> tuple[str, dict[str, Any]]:
            return printable(sent.id), _object(sent)

        await output.each("to", to, work, told)
    return output.status


def _check_files(files: list[Path], filename: str | None) -> None:
    if files.count(STANDARD) > 1:
        raise ConfigurationError("standard input can be uploaded only once")
    if filename is not None and len(files) > 1:
        raise ConfigurationError("--filename is for one file, and there are several")


def _kind(mime_type: str) -> Kind:
    """Return the sort of message that shows a type; whatever else customers sent goes as a document."""
    row = ACCEPTED.get(normalise(mime_type))
    return row.kind if row else "document"


def _object(result: attrs.AttrsInstance) -> dict[str, Any]:
    """Return a result as a JSON object: Meta's further fields beside the known ones, and no signed query."""
    fields = attrs.asdict(result)
    extra = fields.pop("extra", {})
    for name in ("media_id", "received_at"):
        fields.pop(name, None)
    if fields.get("url"):
        fields["url"] = hide_query(fields["url"])
    return {**extra, **fields}
