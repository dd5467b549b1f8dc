"""The commands that call Meta: upload, info, download, delete and send."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from meta_media import BulkRun, MediaApi, MediaError, MediaInfo, MediaLibrary, SQLiteStore, UploadedMedia
from meta_media.bulk.ending import split_item
from meta_media.cli.check import check_message
from meta_media.cli.items import STANDARD, Files, Items, Recipients, label_of
from meta_media.cli.options import REPORT, Connection, FileNames, Flag, Ids, Many, ManyFiles, ManyRecipients, Report
from meta_media.cli.output import Bars, printable, result_object, shown
from meta_media.cli.reporter import Labels, Reporter, in_order
from meta_media.errors import ConfigurationError
from meta_media.protocol.media_types import Kind
from meta_media.protocol.secrets import hide_query
from meta_media.protocol.validators import is_id
from meta_media.transfer.threads import run_in_thread, storage_errors

__all__ = ["delete", "download", "info", "send", "upload"]

_CONNECTION = Connection()
_MANY = Many()
_MANY_FILES = ManyFiles()
_MANY_RECIPIENTS = ManyRecipients()


async def upload(
    files: FileNames | None = None,
    /,
    *,
    mime_type: str | None = None,
    filename: str | None = None,
    validate: Annotated[bool, Parameter(negative="--no-validate")] = True,
    verify: Flag = False,
    ttl: timedelta | None = None,
    use_case: str | None = None,
    repackage: Flag = False,
    many: ManyFiles = _MANY_FILES,
    connection: Connection = _CONNECTION,
    report: Report = REPORT,
) -> int:
    """
    Upload files, and print their media ids, one per line, in the order of the files.

    Where one of several files fails, its line is empty.

    Args:
        files: Files to upload, or folders with --recursive. "-" is standard input.
        mime_type: Type of the files. Default: detected from their bytes, else from their names.
        filename: Name to upload under, for a single file.
        validate: Check type and size before sending. --no-validate sends any file.
        verify: Ask Meta afterwards for the SHA-256 it stored, and compare.
        ttl: Lifetime on a "No Storage" number, such as 90m, 12h or 30d.
        use_case: Meta's field of that name, such as call_voicemail_announcement.
        repackage: Send Opus in WebM, Matroska or MP4, and stereo Opus, as mono Opus in Ogg. No packet is touched.
        many: Options for many uploads.
        connection: How to reach Meta.
        report: How to print.
    """
    names, listing = many.inputs(files, "files")
    single = len(names) == 1 and listing is None and not many.recursive
    _check_upload(names, filename, use_case, many, single=single)
    output = report.output()
    own = (many.journal, many.library, many.listed)
    items = Files(names, listing, output.bars, recursive=many.recursive, filename=filename, own=own)
    labels = Labels(key="file", items="files", done="uploaded", again="" if single else many.again)
    aligned = not single and not sys.stdout.isatty()
    render = _render_upload if single or aligned else _render_upload_with_name
    reporter: Reporter[Any] = Reporter(output, labels, render, name=label_of, items=items, aligned=aligned)
    options: dict[str, Any] = {"mime_type": mime_type, "filename": filename, "validate": validate, "verify": verify}
    options |= {"ttl": ttl, "use_case": use_case, "repackage": repackage, "in_order": True}
    settings = {"concurrency": many.concurrency, "uploads_per_second": many.rate}
    async with connection.client(needs_number=True, **settings) as media, AsyncExitStack() as stack:
        sources = await items.read()
        if many.reuses:
            store = SQLiteStore(many.library)
            stack.push_async_callback(store.aclose)
            run: BulkRun[Any] = MediaLibrary(media, store).ensure_many(sources, **options)
        else:
            run = media.upload_many(sources, journal=many.journal, **options)
        return await reporter.print(run)


def _check_upload(
    names: list[str], filename: str | None, use_case: str | None, many: ManyFiles, *, single: bool
) -> None:
    if names.count(str(STANDARD)) + (many.listed == STANDARD) > 1:
        raise ConfigurationError("standard input can be read only once: as one file, or as the list")
    if filename is not None and not single:
        raise ConfigurationError("--filename is for a single file")
    if many.reuses and many.journal is not None:
        raise ConfigurationError("--reuse needs no --journal: the library records what is uploaded")
    if many.reuses and use_case is not None:
        raise ConfigurationError("--reuse does not work with --use-case: such media is used only once")


def _render_upload(_: str, uploaded: Any) -> tuple[str, Mapping[str, Any]]:
    return printable(uploaded.id), result_object(uploaded)


def _render_upload_with_name(file: str, uploaded: Any) -> tuple[str, Mapping[str, Any]]:
    """Name the file on a terminal, where a failed upload leaves no line."""
    return printable(f"{uploaded.id}  {file}"), result_object(uploaded)


async def info(ids: Ids, /, *, connection: Connection = _CONNECTION, report: Report = REPORT) -> int:
    """
    Show what Meta stores about media: type, size, SHA-256, and when the URL expires.

    Args:
        ids: Media ids, from an upload or a webhook.
        connection: How to reach Meta.
        report: How to print.
    """
    async with connection.client() as media:

        async def work(media_id: str) -> MediaInfo:
            return await media.get_info(media_id, phone_number_id=connection.phone_number_id)

        def render(_: str, found: MediaInfo) -> tuple[str, Mapping[str, Any]]:
            facts = {**result_object(found), "url_expires_at": found.url_expires_at}
            lines = [f"{name:<18}{printable(str(value))}" for name, value in facts.items() if value is not None]
            return "\n".join(lines) + "\n" * (len(ids) > 1), facts

        return await Reporter(report.output(), Labels(key="id"), render).print(in_order(ids, work))


async def download(
    ids: Annotated[list[str] | None, Parameter(name="ID", negative=(), allow_leading_hyphen=True)] = None,
    /,
    *,
    to: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="--no-overwrite")] = True,
    many: Many = _MANY,
    connection: Connection = _CONNECTION,
    report: Report = REPORT,
) -> int:
    """
    Download media, check its SHA-256, and print the paths of the files.

    With --to or --from, every argument is an id, and each file gets a free name in the folder. Without them, the first
    argument is the id and the second one the destination: a file, a folder, or "-" for standard output. A name that
    ends in a separator is a folder, and is made. Default: the current folder.

    Args:
        ids: A media id, or the media URL from a webhook. With --to or --from, any number of them.
        to: Folder for many files. It is made if it is missing. Default with --from: the current folder.
        overwrite: Replace an existing file. In a folder, no file is ever replaced.
        many: Options for many downloads.
        connection: How to reach Meta.
        report: How to print.
    """
    names, listing = many.inputs(ids, "ids")
    if to is None and listing is None:
        if many.journal is not None:
            raise ConfigurationError("--journal is for downloads to a folder: pass --to, too")
        return await _download_one(names, connection, report, overwrite=overwrite)
    output = report.output()
    items = Items(names, listing, output.bars)
    labels = Labels(key="id", items="files", done="downloaded", again=many.again)
    aligned = not sys.stdout.isatty()
    reporter: Reporter[Any] = Reporter(output, labels, _render_download, name=_id_of, items=items, aligned=aligned)
    async with connection.client(concurrency=many.concurrency) as media:
        run = media.download_many(await items.read(), to or Path(), journal=many.journal, in_order=True)
        return await reporter.print(run)


def _id_of(item: Any) -> str:
    what, _ = split_item(item)
    return hide_query(what)


async def _download_one(arguments: list[str], connection: Connection, report: Report, *, overwrite: bool) -> int:
    """Download media to a destination: the arguments are its id, and a file, a folder or "-"."""
    media_id, *rest = arguments
    if len(rest) > 1:
        raise ConfigurationError("several ids go to a folder: pass --to FOLDER")
    destination: Any = rest[0] if rest else "."  # as it was written: a separator at its end makes it a folder
    if rest and re.fullmatch(r"\d{10,}", rest[0]) and not await run_in_thread(os.path.exists, rest[0]):
        why = f"{rest[0]} looks like another id"
        raise ConfigurationError(f"{why}: pass --to FOLDER for several ids, or ./{rest[0]} for a file of that name")
    output = report.output()
    if destination == str(STANDARD):
        destination, output.results = sys.stdout.buffer, sys.stderr
    name = shown(hide_query(media_id))
    async with connection.client() as media, output.bars as bars:
        try:
            saved = await media.download(media_id, destination, overwrite=overwrite, progress=bars.bar(name, "↓"))
            with storage_errors("write to standard output"):
                await run_in_thread(sys.stdout.flush)
        except MediaError as error:
            await output.failure(error, id=name)
            return output.status
        text, facts = _render_download(name, saved)
        if saved.path or output.json:
            await output.result(text, facts)
    return output.status


def _render_download(_: str, saved: Any) -> tuple[str, Mapping[str, Any]]:
    path = saved.path and os.fspath(saved.path)
    return printable(str(path)), {**result_object(saved), "id": saved.media_id, "path": path}


async def delete(
    ids: Ids | None = None,
    /,
    *,
    missing_ok: Flag = False,
    library: Path | None = None,
    many: Many = _MANY,
    connection: Connection = _CONNECTION,
    report: Report = REPORT,
) -> int:
    """
    Delete media, and print the deleted ids.

    The library of "upload --reuse" forgets the ids. So does the journal of an upload, if it is passed as --journal.

    Args:
        ids: Media ids.
        missing_ok: Count media that Meta does not know as deleted.
        library: The file that was passed to "upload --library". Default: the one in your cache folder.
        many: Options for many deletions.
        connection: How to reach Meta.
        report: How to print.
    """
    names, listing = many.inputs(ids, "ids")
    items = Items(names, listing)
    labels = Labels(key="id", items="ids", done="deleted", again=many.again)
    reporter: Reporter[Any] = Reporter(report.output(), labels, _render_delete, items=items)
    async with connection.client(concurrency=many.concurrency) as media, AsyncExitStack() as stack:
        store = SQLiteStore(library)
        if await run_in_thread(store.path.is_file):
            await stack.enter_async_context(store)
            await stack.enter_async_context(MediaLibrary(media, store))  # it strikes out what `media` deletes
        options: dict[str, Any] = {"missing_ok": missing_ok, "phone_number_id": connection.phone_number_id}
        run = media.delete_many(await items.read(), journal=many.journal, in_order=True, **options)
        return await reporter.print(run)


def _render_delete(media_id: str, deleted: Any) -> tuple[str, Mapping[str, Any]]:
    return printable(media_id), result_object(deleted)


async def send(
    what: Annotated[str, Parameter(name="ID|FILE", allow_leading_hyphen=True)],
    /,
    *,
    to: Annotated[list[str] | None, Parameter(negative=())] = None,
    group: Annotated[list[str] | None, Parameter(negative=())] = None,
    kind: Kind | None = None,
    caption: str | None = None,
    filename: str | None = None,
    voice: Annotated[bool | None, Parameter(negative="--no-voice")] = None,
    reply_to: str | None = None,
    repackage: Flag = False,
    many: ManyRecipients = _MANY_RECIPIENTS,
    connection: Connection = _CONNECTION,
    report: Report = REPORT,
) -> int:
    """
    Send media, and print the message ids, one per line, in the order of the recipients.

    Where one of several messages fails, its line is empty. With --journal, each recipient gets one message for each journal,
    and a file is uploaded once. A recipient who may have got it when an earlier run ended is an error.

    Args:
        what: Media id, from an upload on the same phone number; or a file, which is uploaded first.
        to: Phone number with country code, such as +15550001111, or user id, such as US.13491208655302741918. Repeat it
            for several recipients.
        group: Id of a group. Repeat it for several groups, which come after the people.
        kind: Kind of message. Default: the one that fits the media's type.
        caption: Text below an image, video or document.
        filename: Name under which a document is shown.
        voice: Whether audio is shown as a voice message.
        reply_to: Id of the message that this one answers.
        repackage: For a file: as for upload.
        many: Options for many messages.
        connection: How to reach Meta.
        report: How to print.
    """
    named, listing = many.inputs([*(to or ()), *(f"group:{one}" for one in group or ())], "--to")
    fields: dict[str, Any] = {"caption": caption, "filename": filename, "voice": voice, "reply_to": reply_to}
    if what == str(STANDARD):
        raise ConfigurationError('send takes an id or a file: upload standard input first, by "meta-media upload -"')
    output, items = report.output(), Recipients(named, listing)
    labels = Labels(key="to", items="messages", done="sent", again=many.again)
    aligned = (len(named) > 1 or listing is not None) and not sys.stdout.isatty()
    reporter: Reporter[Any] = Reporter(output, labels, _render_upload, name=_to_of, items=items, aligned=aligned)
    async with connection.client(needs_number=True, concurrency=many.concurrency) as media:
        read = await items.read()
        rest = iter(read)
        first: list[Any] = await run_in_thread(list, islice(rest, 1))
        if not first:
            await output.remark("there was nothing to do: no recipients")
            return output.status
        uploaded: Any = what
        if not is_id(what) or await run_in_thread(os.path.exists, what):
            await check_message(what, read if isinstance(read, list) else [], kind, fields, repackage=repackage)
            uploaded = await _uploaded(media, what, many.journal, output.bars, repackage=repackage)
        options = {**fields, "kind": kind, "journal": many.journal, "in_order": True}
        return await reporter.print(media.send_many(chain(first, rest), uploaded, **options))


async def _uploaded(media: MediaApi, what: str, journal: Path | None, bars: Bars, *, repackage: bool) -> UploadedMedia:
    """Upload a file, once for each journal."""
    item = what, {"progress": bars.bar(shown(what)), "repackage": repackage}
    async with bars, media.upload_many([item], journal=journal) as run:
        [outcome] = [outcome async for outcome in run]
    return outcome.result()


def _to_of(recipient: Any) -> str:
    return recipient if isinstance(recipient, str) else f"{recipient.kind}:{recipient.id}"
