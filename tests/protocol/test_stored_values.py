"""Values of ours as plain JSON types, for journals, stores and queues."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from meta_media.protocol.convert import from_plain, to_plain
from meta_media.protocol.models import DeletedMedia, DownloadedMedia, InboundMedia, UploadedMedia

SENT_AT = datetime(2026, 11, 28, 12, 0, 0, 250_000, tzinfo=UTC)
UPLOADED = UploadedMedia(id="7", file_size=3, attempts=2, extra={"new": [{"of": None}]})


@pytest.mark.parametrize(
    "value",
    [
        UPLOADED,
        DownloadedMedia(path=Path("inbox/a.jpg"), size=3, sha256="00", mime_type="image/jpeg"),
        DownloadedMedia(path=None, size=3, sha256="00", mime_type="image/jpeg", media_id="7"),
        DeletedMedia(success=True),
        InboundMedia(id="7", kind="image", mime_type="image/jpeg", timestamp=SENT_AT),
    ],
)
def test_a_value_comes_back_from_json(value: Any) -> None:
    """JSON can hold the plain form of every result, and the same object is made of it again."""
    plain = json.loads(json.dumps(to_plain(value)))
    assert repr(from_plain(type(value), plain)) == repr(value)


def test_plain_forms() -> None:
    """A path is stored as a string, a time as unix seconds, and an omitted field not at all."""
    download = DownloadedMedia(path=Path("inbox/a.jpg"), size=3, sha256="00", mime_type="image/jpeg")
    inbound = InboundMedia(id="7", kind="image", mime_type="image/jpeg", timestamp=SENT_AT)
    assert to_plain(download)["path"] == str(Path("inbox/a.jpg"))
    assert to_plain(inbound)["timestamp"] == SENT_AT.timestamp()
    assert "extra" not in to_plain(UPLOADED, omit=("extra",))


def test_other_versions() -> None:
    """A field that only a newer version knows is ignored, and one that an older version did not know has its default."""
    assert from_plain(UploadedMedia, {"id": "7", "of_tomorrow": 1}) == UploadedMedia(id="7")


@pytest.mark.parametrize(
    ("plain", "sentence"),
    [
        (None, "expected an object, got None"),
        ({}, "'id' is missing @ UploadedMedia.id"),
        ({"id": None}, "expected str, got None @ UploadedMedia.id"),
        ({"id": "7", "attempts": True}, "expected int, got True @ UploadedMedia.attempts"),
        ({"id": "7", "maybe_duplicate": 0}, "expected bool, got 0 @ UploadedMedia.maybe_duplicate"),
    ],
)
def test_what_does_not_fit(plain: object, sentence: str) -> None:
    """A value of another type is an error with its path, never converted."""
    with pytest.raises(ValueError, match="^" + sentence):
        from_plain(UploadedMedia, plain)
