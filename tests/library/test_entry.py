"""`LibraryEntry`: its expiry, its key and its JSON."""

from __future__ import annotations

import contextlib
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from meta_media import LibraryEntry, UploadedMedia
from meta_media.bulk.sqlite_file import checksum
from meta_media.errors import StorageError
from meta_media.library.entry import entry_key
from tests.library.helpers import OLD_ENTRY

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


def stored_as(**changes: Any) -> str:
    """Return the JSON of an entry whose fields were changed by another version, which knows how to make the checksum."""
    plain = {**json.loads(entry_of().to_json()), **changes}
    del plain["checksum"]
    return json.dumps({**plain, "checksum": checksum(*itertools.chain(*sorted(plain.items())))})


def test_an_entry_of_another_version() -> None:
    """An entry of the first version, which had no checksum, can be read. An unknown field of a later one is ignored."""
    assert LibraryEntry.from_json(OLD_ENTRY).id == "7"
    assert LibraryEntry.from_json(stored_as(colour="red", nested={"a": [1]})) == entry_of()
    plain = json.loads(entry_of().to_json())
    assert LibraryEntry.from_json(json.dumps(dict(reversed(plain.items())))) == entry_of(), "JSON has no order"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": 7},
        {"id": None},
        {"id": ""},
        {"id": "../me"},
        {"phone_number_id": "1/2"},
        {"sha256": "ab" * 31},
        {"sha256": "AB" * 32},
        {"sha256": "\u0660" * 64},
        {"mime_type": None},
        {"expires_at": "2026-01-01"},
        {"expires_at": None},
        {"expires_at": 1e300},
        {"expires_at": float("nan")},
        {"expires_at": float("inf")},
        {"used_at": True},
        {"uploaded_at": 10**400},
        {"maybe_duplicate": 1},
        {"maybe_duplicate": "false"},
    ],
    ids=str,
)
def test_fields_that_do_not_fit(changes: dict[str, Any]) -> None:
    """An entry is read strictly: each field has its type, its form and its range, whatever the checksum says."""
    with pytest.raises(StorageError, match="the library has an entry that cannot be read: ") as caught:
        LibraryEntry.from_json(stored_as(**changes))
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize("text", ["", "null", "7", "[]", '"text"', "{}", "[" * 100_000, b"\xff\xfe", None, 5])
def test_what_is_no_entry(text: Any) -> None:
    """What is no entry at all is a StorageError."""
    with pytest.raises(StorageError, match="the library has an entry that cannot be read: "):
        LibraryEntry.from_json(text)


def test_every_flipped_byte() -> None:
    """Whatever byte of an entry is changed, it is refused."""
    text = entry_of().to_json().encode()
    for place in range(len(text)):
        for flip in (1, 2, 0x20, 0x80, 0xFF):
            damaged = bytearray(text)
            damaged[place] ^= flip
            with contextlib.suppress(StorageError):
                assert LibraryEntry.from_json(bytes(damaged)) == entry_of(), "white space, or an escape"
