"""`LibraryEntry`: what a library stores of an upload, and how long its media id is valid."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Final, Self

import attrs

from meta_media.bulk.journal import usable_for
from meta_media.errors import StorageError
from meta_media.protocol.convert import from_plain, to_plain
from meta_media.protocol.models import HasMediaId, UploadedMedia

__all__ = ["LibraryEntry", "entry_key"]

_USE_PRECISION: Final = timedelta(hours=1)  # of `used_at`


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
        maybe_duplicate: As in `UploadedMedia`.
        reused: Whether the entry existed before this call.
    """

    sha256: str
    mime_type: str
    phone_number_id: str
    uploaded_at: datetime
    expires_at: datetime
    used_at: datetime
    maybe_duplicate: bool = False
    reused: bool = attrs.field(default=False, eq=False)

    @classmethod
    def of(
        cls, uploaded: UploadedMedia, sha256: str, phone_number_id: str, began: datetime, ttl: timedelta | None
    ) -> Self:
        """Make the entry of an upload that began at a given time."""
        return cls(
            id=uploaded.id,
            sha256=sha256,
            mime_type=uploaded.mime_type or "",
            phone_number_id=phone_number_id,
            uploaded_at=began,
            expires_at=began + usable_for(ttl),
            used_at=began,
            maybe_duplicate=uploaded.maybe_duplicate,
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
        """Return the entry as JSON text, for a store. `reused` is not stored."""
        return json.dumps(to_plain(self, omit=("reused",)))

    @classmethod
    def from_json(cls, text: str | bytes) -> LibraryEntry:
        """Make an entry from the text that `to_json` returned. Any other text is a `StorageError`."""
        try:
            return from_plain(cls, json.loads(text))
        except ValueError as error:
            raise StorageError(f"the library has an entry that cannot be read: {error}") from error


def entry_key(phone_number_id: str, sha256: str, mime_type: str) -> str:
    """Return the key of an entry: the same for the same bytes, type and phone number."""
    return f"{phone_number_id}/{sha256}/{mime_type}"
