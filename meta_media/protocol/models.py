"""What goes in and comes out, in Meta's words: frozen values, and the one converter that decodes replies."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from meta_media.protocol.secrets import hide_query

if TYPE_CHECKING:
    pass

__all__ = ["DeletedMedia", "DownloadedMedia", "InboundMedia", "MediaInfo", "Progress", "SentMessage", "UploadedMedia"]

T = TypeVar("T")


def _shown(url: str | None) -> str:
    return repr(None if url is None else hide_query(url))


def _expiry(url: str | None) -> datetime | None:
    match = re.search(r"[?&]ext=([0-9]{10})(?:[0-9]{3})?(?:&|$)", url or "")
    return datetime.fromtimestamp(int(match[1]), UTC) if match else None


@attrs.frozen(kw_only=True)
class UploadedMedia:
    """
    The reply to an upload, with what was sent.

    Attributes:
        id: The media id, good for 30 days on the number that uploaded it.
        mime_type: As sent.
        file_size: Bytes sent.
        sha256: 64 hex digits of the bytes sent; only with `verify=True`.
        maybe_duplicate: Whether it was sent more than once, because a reply was lost: then Meta may hold it under another
            id, too, until that expires.
        attempts: Requests that it took.
        extra: Whatever else the reply held.
    """

    id: str
    mime_type: str | None = None
    file_size: int | None = None
    sha256: str | None = None
    maybe_duplicate: bool = False
    attempts: int = attrs.field(default=1, eq=False)
    extra: Mapping[str, Any] = attrs.field(factory=dict, eq=False)


@attrs.frozen(kw_only=True)
class MediaInfo:
    """
    What Meta knows of a media id.

    Attributes:
        id: The media id.
        url: Where the bytes are, for five minutes and with the token; its query is never shown.
        mime_type: As uploaded, parameters included.
        sha256: 64 hex digits.
        file_size: Bytes.
        extra: Whatever else the reply held.
        received_at: When that was, in seconds of the monotonic clock: how old `url` is must not depend on the wall clock.
    """

    id: str
    url: str = attrs.field(repr=_shown)
    mime_type: str
    sha256: str | None = None
    file_size: int | None = None
    messaging_product: str = "whatsapp"
    extra: Mapping[str, Any] = attrs.field(factory=dict, eq=False)
    received_at: float = attrs.field(factory=time.monotonic, init=False, eq=False, repr=False)

    @property
    def url_expires_at(self) -> datetime | None:
        """When `url` dies, in UTC, as its `ext` parameter says; None when it does not say."""
        return _expiry(self.url)


@attrs.frozen(kw_only=True)
class DownloadedMedia:
    """
    A verified download.

    Attributes:
        path: The file, or None when the destination was a handle.
        size: Bytes written.
        sha256: 64 hex digits of the bytes written.
        mime_type: As Meta says.
        media_id: None when only a URL was known.
        attempts: Requests that it took.
    """

    path: Path | None
    size: int
    sha256: str
    mime_type: str
    media_id: str | None = None
    attempts: int = attrs.field(default=1, eq=False)


@attrs.frozen(kw_only=True)
class DeletedMedia:
    """
    The reply to a delete.

    Attributes:
        success: True when Meta deleted it; False when it was already gone and `missing_ok` was given.
        attempts: Requests that it took.
        extra: Whatever else the reply held.
    """

    success: bool
    attempts: int = attrs.field(default=1, eq=False)
    extra: Mapping[str, Any] = attrs.field(factory=dict, eq=False)


@attrs.frozen(kw_only=True)
class SentMessage:
    """
    The reply to a send: Meta took the message. Delivery is told by webhook.

    Attributes:
        id: The message's id (`wamid.…`).
        wa_id: The recipient's WhatsApp id, where Meta gave one.
        status: Meta's `message_status`, where it gave one.
    """

    id: str
    wa_id: str | None = None
    status: str | None = None


@attrs.frozen(kw_only=True)
class InboundMedia:
    """
    A media message that a webhook told of.

    Attributes:
        id: The media id, good for 7 days.
        kind: `"audio"`, `"document"`, `"image"`, `"sticker"` or `"video"`.
        mime_type: As the sender's phone said, parameters included.
        sha256: 64 hex digits (webhooks carry base64; it is converted).
        url: Where the bytes are for five minutes, where Meta said so; its query is never shown.
        filename: As the sender named a document. Not safe as a path.
        caption: The text below it.
        voice: Whether an audio is a voice note.
        animated: Whether a sticker moves.
        sender: The WhatsApp id of who sent it.
        message_id: The message's id (`wamid.…`).
        timestamp: When it was sent, in UTC.
        phone_number_id: The business number that received it.
        extra: Whatever else the media object held.
        received_at: When that was, in seconds of the monotonic clock.
    """

    id: str
    kind: str
    mime_type: str
    sha256: str | None = None
    url: str | None = attrs.field(default=None, repr=_shown)
    filename: str | None = None
    caption: str | None = None
    voice: bool = False
    animated: bool = False
    sender: str | None = None
    message_id: str | None = None
    timestamp: datetime | None = None
    phone_number_id: str | None = None
    extra: Mapping[str, Any] = attrs.field(factory=dict, eq=False)
    received_at: float = attrs.field(factory=time.monotonic, init=False, eq=False, repr=False)

    @property
    def url_expires_at(self) -> datetime | None:
        """When `url` dies, in UTC, as its `ext` parameter says; None when it does not say."""
        return _expiry(self.url)


@attrs.frozen(kw_only=True)
class Progress:
    """
    How far a transfer is.

    Attributes:
        transferred: Bytes so far.
        total: Bytes in all, where known.
    """

    transferred: int
    total: int | None = None
