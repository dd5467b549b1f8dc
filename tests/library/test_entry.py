"""`LibraryEntry`: its expiry, its key and its JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from meta_media import LibraryEntry, UploadedMedia
from meta_media.library.entry import entry_key

BEGAN = datetime(2026, 1, 1, 12, 0, 0, 123_457, UTC)


def entry_of(
    ttl: timedelta | None = None, *, began: datetime = BEGAN, mime_type: str | None = "text/plain"
) -> LibraryEntry:
    """Make an entry of an upload."""
    uploaded = UploadedMedia(id="7", mime_type=mime_type, maybe_duplicate=True, file_size=5)
    return LibraryEntry.of(uploaded, "ab" * 32, "1", began, ttl)


@pytest.mark.parametrize(
    ("ttl", "life"),
    [
        (None, timedelta(days=29)),
        (timedelta(days=30), timedelta(days=29)),
        (timedelta(days=20), timedelta(days=19)),
        (timedelta(days=10), timedelta(days=9)),
        (timedelta(days=1), timedelta(hours=21, minutes=36)),
        (timedelta(hours=1), timedelta(minutes=54)),
    ],
)
def test_margin(ttl: timedelta | None, life: timedelta) -> None:
    """An entry expires a day before its media, or a tenth of a short lifetime before. Both count from the start of the upload."""
    entry = entry_of(ttl)
    assert (entry.uploaded_at, entry.expires_at, entry.used_at) == (BEGAN, BEGAN + life, BEGAN)


def test_fields() -> None:
    """An entry has the fields of its upload, and is not reused."""
    entry = entry_of()
    assert (entry.id, entry.sha256, entry.phone_number_id, entry.mime_type) == ("7", "ab" * 32, "1", "text/plain")
    assert (entry.maybe_duplicate, entry.reused) == (True, False)
    assert entry_of(mime_type=None).mime_type == ""


def test_key() -> None:
    """The key depends on bytes, type and phone number, and on nothing else."""
    entry = entry_of()
    assert entry.key == entry_key("1", "ab" * 32, "text/plain")
    others: list[dict[str, Any]] = [{"sha256": "cd" * 32}, {"mime_type": "text/csv"}, {"phone_number_id": "2"}]
    assert len({entry.key, *(attrs.evolve(entry, **other).key for other in others)}) == 4
    assert attrs.evolve(entry, id="8", used_at=datetime.now(UTC), reused=True).key == entry.key


@pytest.mark.parametrize("moment", [BEGAN, BEGAN.replace(microsecond=0), BEGAN.replace(microsecond=999_999)])
def test_written_and_read(moment: datetime) -> None:
    """An entry comes back from its JSON, to the microsecond. `reused` is not stored."""
    entry = attrs.evolve(entry_of(began=moment), reused=True)
    text = entry.to_json()
    assert "reused" not in json.loads(text)
    again = LibraryEntry.from_json(text)
    assert again == entry
    assert not again.reused
    assert again.uploaded_at.tzinfo is UTC
