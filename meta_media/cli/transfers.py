"""The commands for many files or media: upload, download and delete."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import Parameter

from meta_media.bulk.jobs import split_item
from meta_media.bulk.run import BulkRun
from meta_media.cli.lists import Items, files_below, is_folder
from meta_media.cli.many import Reporter
from meta_media.cli.options import STANDARD, Connection, FileNames, Ids, Many, ManyFiles, Report, source_of
from meta_media.cli.output import printable, result_object, shown
from meta_media.cli.progress import Bar, Bars
from meta_media.cli.summaries import Labels
from meta_media.errors import ConfigurationError, MediaError, StorageError
from meta_media.library import MediaLibrary, SQLiteStore
from meta_media.protocol.secrets import hide_query
from meta_media.transfer.bodies import Body
from meta_media.transfer.sources import Source
from meta_media.transfer.threads import run_in_thread, storage_errors

__all__ = ["delete", "download", "upload"]

_CONNECTION = Connection()
_MANY = Many()
_REPORT = Report()
_MANY_FILES = ManyFiles()


@attrs.frozen(kw_only=True)
class _File(Source):
    """
    A file to upload.

    Attributes:
        source: Opens the file.
        label: Name of the file as the user gave it.
        showing: Shows a progress bar while the file is open.
    """

    source: Source
    label: str
    showing: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Body]:
        """See `Source`."""
        with self.showing():
            async with self.source.open() as body:
                yield body


async def upload(
    files: FileNames | None = None,
    /,
    *,
    mime_type: str | None = None,
    filename: str | None = None,
    validate: Annotated[bool, Parameter(negative="--no-validate")] = True,
    verify: Annotated[bool, Parameter(negative=())] = False,
    ttl: timedelta | None = None,
    use_case: str | None = None,
    many: ManyFiles = _MANY_FILES,
    connection: Connection = _CONNECTION,
    report: Report = _REPORT,
) -> int:
    """
    Upload files, and print their media ids, one per line, in the order of the files.

    Args:
        files: Files to upload, or folders with --recursive; "-" is standard input.
        mime_type: What they are. Default: told from their bytes, else from their names.
        filename: What to call the file, if there is only one.
        validate: Check type and size before sending; --no-validate sends whatever it is.
        verify: Ask Meta afterwards for the SHA-256 it stored, and compare.
        ttl: How long a "No Storage" number keeps it, such as 90m, 12h or 30d.
        use_case: Meta's field of that name, such as call_voicemail_announcement.
        many: What to do when they are many.
        connection: Whom to talk to.
        report: How to say it.
    """
    names, listing = list(files or ()), many.listing()
    single = len(names) == 1 and listing is None and not many.recursive
    _check_upload(names, filename, many, single=single)
    if many.reuses and use_case is not None:
        raise ConfigurationError("--reuse does not go with --use-case: such media has a life of its own")
    output = report.output()
    items = Items(names, listing, _Found(output.bars, filename, recursive=many.recursive), deep=many.recursive)
    options: dict[str, Any] = {"mime_type": mime_type, "filename": filename, "validate": validate, "verify": verify}
    options |= {"ttl": ttl, "use_case": use_case, "in_order": True}
    words = Labels(key="file", items="files", done="uploaded", again="" if single else many.again)
    told = _told_upload if single or not sys.stdout.isatty() else _told_with_name
    teller: Reporter[Any] = Reporter(output=output, words=words, told=told, name=_label, items=items)
    settings = {"concurrency": many.concurrency, "uploads_per_second": many.rate}
    async with connection.client(needs_number=True, **settings) as media, AsyncExitStack() as stack:
        feed = await items.feed()
        if many.reuses:
            store = SQLiteStore(many.library)
            stack.push_async_callback(store.aclose)
            run: BulkRun[Any] = MediaLibrary(media, store).ensure_many(feed, **options)
        else:
            run = media.upload_many(feed, journal=many.journal, **options)
        await teller.tell(run)
    return output.status


def _check_upload(names: list[str], filename: str | None, many: ManyFiles, *, single: bool) -> None:
    _check_any(names, many, "files")
    if names.count(str(STANDARD)) + (many.listed == STANDARD) > 1:
        raise ConfigurationError("standard input can be uploaded only once, or be the list")
    if filename is not None and not single:
        raise ConfigurationError("--filename is for one file, and there are several")
    if many.reuses and many.journal is not None:
        raise ConfigurationError("--reuse needs no --journal: the library knows what has been uploaded")


def _check_any(names: list[str], many: Many, what: str) -> None:
    if not names and many.listed is None:
        raise ConfigurationError(f"there is nothing to do: pass {what}, or a list of them with --from")


@attrs.frozen
class _Found:
    """The sources that a name stands for, each with a bar of its own while it is open."""

    bars: Bars
    filename: str | None
    recursive: bool = attrs.field(kw_only=True)

    def __call__(self, name: str) -> Iterator[tuple[_File, Mapping[str, Any]]]:
        """Find them; it reads folders."""
        if not is_folder(name):
            yield self._file(name)
        elif not self.recursive:
            yield _refused(name, StorageError(f"{name!r} is a folder: pass --recursive to upload the files in it"))
        else:
            for file in files_below(name):
                yield self._file(file) if isinstance(file, str) else _refused(name, file)

    def _file(self, name: str) -> tuple[_File, Mapping[str, Any]]:
        source = source_of(name, self.filename)
        made = _File(source=source, name=source.name, mime_type=source.mime_type, label=name)
        if not self.bars.shown:
            return made, {}
        bar = Bar("standard input" if name == str(STANDARD) else printable(Path(name).name))
        return attrs.evolve(made, showing=functools.partial(self.bars.showing, bar)), {"progress": bar}


@attrs.frozen(kw_only=True)
class _RefusedSource(Source):
    """A source that cannot be opened."""

    error: StorageError

    def open(self) -> AbstractAsyncContextManager[Body]:
        """Raise the error."""
        raise self.error


def _refused(name: str, error: StorageError) -> tuple[_File, Mapping[str, Any]]:
    return _File(source=_RefusedSource(error=error), label=name), {}


def _label(item: tuple[_File, Mapping[str, Any]]) -> str:
    return item[0].label


def _told_upload(_: str, uploaded: Any) -> tuple[str, Mapping[str, Any]]:
    return printable(uploaded.id), result_object(uploaded)


def _told_with_name(file: str, uploaded: Any) -> tuple[str, Mapping[str, Any]]:
    """Say whose id it is, to people: where an id is missing, the lines are not those of the files."""
    return printable(f"{uploaded.id}  {file}"), result_object(uploaded)


async def download(
    ids: Annotated[list[str] | None, Parameter(name="ID", negative=(), allow_leading_hyphen=True)] = None,
    /,
    *,
    to: Path | None = None,
    overwrite: Annotated[bool, Parameter(negative="--no-overwrite")] = True,
    many: Many = _MANY,
    connection: Connection = _CONNECTION,
    report: Report = _REPORT,
) -> int:
    """
    Download media, verified, and print the paths of the files.

    With --to or --from, every argument is an id, and each file gets a name in the folder that is still free. Without them, there
    is one id, and the second argument is where it goes: a file; a folder; "-" is standard output. Default: this folder.

    Args:
        ids: A media id, or the media URL from a webhook; with --to or --from, any number of them.
        to: The folder for many; it is made where there is none. Default with --from: this folder.
        overwrite: Whether a file may be replaced; in a folder, none is.
        many: What to do when they are many.
        connection: Whom to talk to.
        report: How to say it.
    """
    names, listing = list(ids or ()), many.listing()
    _check_any(names, many, "ids")
    if to is None and listing is None:
        if many.journal is not None:
            raise ConfigurationError("--journal is for downloads to a folder: pass --to, too")
        media_id, destination = _one_download(names)
        return await _download(media_id, destination, connection, report, overwrite=overwrite)
    folder = to or Path()
    with storage_errors(f"make the folder {os.fspath(folder)!r}"):
        await run_in_thread(lambda: folder.mkdir(parents=True, exist_ok=True))
    output = report.output()
    found: Items[Any] = Items(names, listing, lambda name: (_with_bar(name.strip(), output.bars),))
    words = Labels(key="id", items="files", done="downloaded", again=many.again)
    teller: Reporter[Any] = Reporter(output=output, words=words, told=_told_download, name=_what, items=found)
    async with connection.client(concurrency=many.concurrency) as media:
        await teller.tell(media.download_many(await found.feed(), folder, journal=many.journal, in_order=True))
    return output.status


def _with_bar(name: str, bars: Bars) -> Any:
    return (name, {"progress": bars.following(shown(name))}) if bars.shown else name


def _what(item: Any) -> str:
    what, _ = split_item(item)
    return hide_query(what)


def _one_download(arguments: list[str]) -> tuple[str, Path]:
    """Take the arguments as one id, and where it goes."""
    media_id, *rest = arguments
    destination = Path(rest[0]) if rest else Path()
    if len(rest) > 1:
        raise ConfigurationError("several ids go to a folder: pass --to FOLDER")
    if rest and re.fullmatch(r"\d{10,}", rest[0]) and not destination.exists():
        raise ConfigurationError(
            f"{rest[0]} looks like another id: several go to a folder, with --to FOLDER; a file would be ./{rest[0]}"
        )
    return media_id, destination


async def _download(
    media_id: str, destination: Path, connection: Connection, report: Report, *, overwrite: bool
) -> int:
    output = report.output()
    target: Any = destination
    if destination == STANDARD:
        target, output.results = sys.stdout.buffer, sys.stderr
    name = shown(hide_query(media_id))
    async with connection.client() as media, output.bars as bars:
        with bars.bar(name, "↓") as bar:
            try:
                saved = await media.download(media_id, target, overwrite=overwrite, progress=bar)
                with storage_errors("write to standard output"):
                    await run_in_thread(sys.stdout.flush)
            except MediaError as error:
                await output.failure(error, id=name)
                return output.status
        plain, facts = _told_download(name, saved)
        if saved.path or output.json:
            await output.result(plain, facts)
    return output.status


def _told_download(_: str, saved: Any) -> tuple[str, Mapping[str, Any]]:
    path = saved.path and os.fspath(saved.path)
    return printable(str(path)), {**result_object(saved), "id": saved.media_id, "path": path}


async def delete(
    ids: Ids | None = None,
    /,
    *,
    missing_ok: Annotated[bool, Parameter(negative=())] = False,
    many: Many = _MANY,
    connection: Connection = _CONNECTION,
    report: Report = _REPORT,
) -> int:
    """
    Delete media, and print the ids that are gone.

    Args:
        ids: Media ids.
        missing_ok: Count media that Meta does not know as deleted.
        many: What to do when they are many.
        connection: Whom to talk to.
        report: How to say it.
    """
    names, listing = list(ids or ()), many.listing()
    _check_any(names, many, "ids")
    output = report.output()
    found = Items(names, listing, lambda name: (name.strip(),))
    words = Labels(key="id", items="ids", done="deleted", again=many.again)
    teller: Reporter[Any] = Reporter(output=output, words=words, told=_told_delete, items=found)
    async with connection.client(concurrency=many.concurrency) as media:
        run = media.delete_many(
            await found.feed(),
            missing_ok=missing_ok,
            phone_number_id=connection.phone_number_id,
            journal=many.journal,
            in_order=True,
        )
        await teller.tell(run)
    return output.status


def _told_delete(media_id: str, deleted: Any) -> tuple[str, Mapping[str, Any]]:
    return printable(media_id), result_object(deleted)
