"""`LibraryEntry`: what a library stores of an upload, and how long its media id is valid."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

import attrs

from meta_media.bulk.journal import usable_for
from meta_media.bulk.sqlite_file import checksum
from meta_media.errors import StorageError
from meta_media.protocol.convert import from_plain, to_plain
from meta_media.protocol.models import HasMediaId, UploadedMedia
from meta_media.protocol.validators import is_id

__all__ = ["LibraryEntry", "UnreadableEntryError", "entry_key", "readable_entries", "stored_entry"]

_log: Final = logging.getLogger("meta_media")
_USE_PRECISION: Final = timedelta(hours=1)  # of `used_at`
_CHECKSUM: Final = "checksum"  # its name in the JSON; the first version had none


class UnreadableEntryError(StorageError):
    """A stored entry is damaged. A library treats it as missing: it uploads the content again, as a possible duplicate."""


@attrs.frozen(kw_only=True)
class LibraryEntry(HasMediaId):
    """
    A media id for these bytes, of this type, on this phone number.

    Attributes:
        id: The media id.
        sha256: 64 hex digits of the bytes.
        mime_type: The type that was sent.
        phone_number_id: The phone number on which the media was uploaded.
        uploaded_at: When the upload began, in UTC.
        expires_at: The library returns the id until this time. It is a day before Meta forgets the media (after 30 days or
            the upload's `ttl`), or a tenth of a `ttl` shorter than 10 days.
        used_at: When the id was last returned, to the hour.
        filename: Name of the source, made safe; that of the call which returned the entry, if it has one.
        maybe_duplicate: As in `UploadedMedia`. It is also set if an earlier entry was damaged, whose media may still exist.
        reused: Whether the entry existed before this call.
    """

    sha256: str
    mime_type: str
    phone_number_id: str
    uploaded_at: datetime
    expires_at: datetime
    used_at: datetime
    filename: str | None = attrs.field(default=None, eq=False)
    maybe_duplicate: bool = False
    reused: bool = attrs.field(default=False, eq=False)

    @classmethod
    def of(
        cls,
        uploaded: UploadedMedia,
        sha256: str,
        phone_number_id: str,
        began: datetime,
        ttl: timedelta | None,
        filename: str | None = None,
        *,
        damaged: bool = False,
    ) -> Self:
        """Make the entry of an upload that began at a given time, perhaps in place of a `damaged` one."""
        return cls(
            id=uploaded.id,
            sha256=sha256,
            mime_type=uploaded.mime_type or "",
            phone_number_id=phone_number_id,
            uploaded_at=began,
            expires_at=began + usable_for(ttl),
            used_at=began,
            filename=filename,
            maybe_duplicate=uploaded.maybe_duplicate or damaged,
        )

    @property
    def key(self) -> str:
        """The entry's key in a store."""
        return entry_key(self.phone_number_id, self.sha256, self.mime_type)

    @property
    def alive(self) -> bool:
        """Whether the entry has not expired."""
        return datetime.now(UTC) < self.expires_at

    @property
    def stale_use(self) -> bool:
        """Whether `used_at` is old enough to be updated."""
        return datetime.now(UTC) - self.used_at > _USE_PRECISION

    def to_json(self) -> str:
        """Return the entry as JSON text with a checksum, for a store. `reused` is not stored."""
        plain = to_plain(self, omit=("reused",))
        return json.dumps({**plain, _CHECKSUM: _checksum(plain)})

    @classmethod
    def from_json(cls, text: str | bytes) -> LibraryEntry:
        """
        Make an entry from the text that `to_json` returned, in this version or another one.

        Raises:
            StorageError: The text is any other, or is damaged.
        """
        try:
            plain = json.loads(text)
            entry = from_plain(cls, plain)
            _check(entry, plain)
        except (ValueError, TypeError, RecursionError) as error:
            raise UnreadableEntryError(f"the library has an entry that cannot be read: {error!s:.100}") from error
        return entry


def _checksum(plain: dict[str, Any]) -> str:
    """Return the checksum of all names and values, in an order that a store may not keep."""
    return checksum(*itertools.chain.from_iterable(sorted(item for item in plain.items() if item[0] != _CHECKSUM)))


def _check(entry: LibraryEntry, plain: dict[str, Any]) -> None:
    """Raise a `ValueError` if an entry is not as it was stored."""
    if _CHECKSUM in plain:
        intact = plain[_CHECKSUM] == _checksum(plain)
    else:  # of the first version, which had these fields alone
        intact = plain.keys() <= {field.name for field in attrs.fields(LibraryEntry)}
    ids = is_id(entry.id) and is_id(entry.phone_number_id)
    if not (intact and ids and re.fullmatch("[0-9a-f]{64}", entry.sha256)):
        raise ValueError("it is damaged")


def stored_entry(place: object, text: Any, key: object, media_id: str | None = None) -> LibraryEntry:
    """Return the entry that a place has under a key, and an id where it keeps that apart. The error names both."""
    cause: UnreadableEntryError | None = None
    try:
        entry = LibraryEntry.from_json(text)
        if entry.key == key and media_id in (None, entry.id):
            return entry
    except UnreadableEntryError as error:
        cause = error
    raise UnreadableEntryError(f"{place} has a damaged entry, {key!r:.250}: ensure its source again") from cause


def readable_entries(place: object, rows: Iterable[tuple[Any, ...]]) -> list[LibraryEntry]:
    """Return the entries of rows as `stored_entry` takes them. The log names those that are damaged."""
    entries = []
    for row in rows:
        try:
            entries.append(stored_entry(place, *row))
        except UnreadableEntryError as error:
            _log.warning("%s", error)
    return entries


def entry_key(phone_number_id: str, sha256: str, mime_type: str) -> str:
    """Return the key of an entry: the same for the same bytes, type and phone number."""
    return f"{phone_number_id}/{sha256}/{mime_type}"
