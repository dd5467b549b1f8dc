"""What a library keeps of an upload, and for how long it may be handed out again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import attrs

from meta_media.protocol.models import UploadedMedia

__all__ = ["LibraryEntry", "entry_key"]

_LIFE: Final = timedelta(days=30)  # Meta's Media guide: uploaded media and their ids
_MARGIN: Final = timedelta(days=1)  # before the end, or a tenth of a shorter life: what is sent now is fetched later
_GRAIN: Final = timedelta(hours=1)  # how exactly it is noted when an entry was used


@attrs.frozen(kw_only=True)
class LibraryEntry:
    """
    A media id that is good for these bytes, as this type, on this number.

    Attributes:
        id: The media id.
        sha256: 64 hex digits of the bytes.
        mime_type: As they were sent.
        phone_number_id: The number on which they were uploaded.
        uploaded_at: When, in UTC.
        expires_at: Until when it is handed out: a day before Meta forgets it after thirty, or a tenth of a `ttl` before.
        used_at: When it was handed out last, to the hour.
        maybe_duplicate: As of `UploadedMedia`.
        reused: Whether it was there already.
    """

    id: str
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
    ) -> LibraryEntry:
        """Make an entry of an upload that began then."""
        life = ttl or _LIFE
        return cls(
            id=uploaded.id,
            sha256=sha256,
            mime_type=uploaded.mime_type or "",
            phone_number_id=phone_number_id,
            uploaded_at=began,
            expires_at=began + life - min(_MARGIN, life / 10),
            used_at=began,
            maybe_duplicate=uploaded.maybe_duplicate,
        )

    @property
    def key(self) -> str:
        """What a store knows it by."""
        return entry_key(self.phone_number_id, self.sha256, self.mime_type)

    @property
    def alive(self) -> bool:
        """Whether it may still be handed out."""
        return datetime.now(UTC) < self.expires_at

    @property
    def stale_use(self) -> bool:
        """Whether it is time to note that it is used again."""
        return datetime.now(UTC) - self.used_at > _GRAIN

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON's types, for a store."""
        fields = attrs.asdict(self, filter=lambda field, _: field.name != "reused")
        return {name: value.timestamp() if isinstance(value, datetime) else value for name, value in fields.items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> LibraryEntry:
        """Make an entry again of what `as_json` gave."""
        times = {name: datetime.fromtimestamp(fields[name], UTC) for name in ("uploaded_at", "expires_at", "used_at")}
        return cls(**{**fields, **times})


def entry_key(phone_number_id: str, sha256: str, mime_type: str) -> str:
    """Name what has the same bytes, the same type and the same number."""
    return f"{phone_number_id}/{sha256}/{mime_type}"
