"""The values that the public methods return, in Meta's words. All are frozen; `convert` decodes them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from meta_media.protocol.secrets import hide_query

__all__ = ["DeletedMedia", "DownloadedMedia", "InboundMedia", "MediaInfo", "Progress", "SentMessage", "UploadedMedia"]


def _repr_url(url: str | None) -> str:
    return repr(None if url is None else hide_query(url))


def _expiry(url: str | None) -> datetime | None:
    match = re.search(r"[?&]ext=([0-9]{10})(?:[0-9]{3})?(?:&|$)", url or "")
    return datetime.fromtimestamp(int(match[1]), UTC) if match else None


@attrs.frozen(kw_only=True)
class UploadedMedia:
    """
    The result of an upload.

    Attributes:
        id: Media id, valid for 30 days and for the phone number that uploaded it.
        mime_type: MIME type that was sent.
        file_size: Bytes sent.
        sha256: SHA-256 of the bytes sent, 64 hex digits; only with `verify=True`.
        maybe_duplicate: Whether the file was sent again because a response was lost. Meta may then hold it under a second,
            unknown id until that expires.
        attempts: Requests sent.
        extra: Other keys of Meta's response.
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
    What Meta returns for a media id.

    Attributes:
        id: Media id.
        url: URL of the bytes, valid for five minutes and only with the token. `repr` hides its query.
        mime_type: MIME type of the upload, with its parameters.
        sha256: SHA-256 of the bytes, 64 hex digits.
        file_size: Bytes.
        extra: Other keys of Meta's response.
        received_at: Time of the response, in seconds of the monotonic clock, which no change of the wall clock affects.
    """

    id: str
    url: str = attrs.field(repr=_repr_url)
    mime_type: str
    sha256: str | None = None
    file_size: int | None = None
    messaging_product: str = "whatsapp"
    extra: Mapping[str, Any] = attrs.field(factory=dict, eq=False)
    received_at: float = attrs.field(factory=time.monotonic, init=False, eq=False, repr=False)

    @property
    def url_expires_at(self) -> datetime | None:
        """Expiry of `url` in UTC, from its parameter `ext`; None without one."""
        return _expiry(self.url)


@attrs.frozen(kw_only=True)
class DownloadedMedia:
    """
    The result of a verified download.

    Attributes:
        path: Path of the file; None when the destination was a handle.
        size: Bytes written.
        sha256: SHA-256 of the bytes written, 64 hex digits.
        mime_type: MIME type that Meta states.
        media_id: Media id; None when only a URL was given.
        attempts: Requests sent.
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
    The result of a delete.

    Attributes:
        success: True when Meta deleted the media; False when it was already gone and `missing_ok` was given.
        attempts: Requests sent.
        extra: Other keys of Meta's response.
    """

    success: bool
    attempts: int = attrs.field(default=1, eq=False)
    extra: Mapping[str, Any] = attrs.field(factory=dict, eq=False)


@attrs.frozen(kw_only=True)
class SentMessage:
    """
    The result of a send: Meta accepted the message. Webhooks report the delivery.

    Attributes:
        id: Message id (`wamid.…`).
        wa_id: WhatsApp id of the recipient, where Meta returns one.
        status: Meta's `message_status`, where Meta returns one.
    """

    id: str
    wa_id: str | None = None
    status: str | None = None


@attrs.frozen(kw_only=True)
class InboundMedia:
    """
    A media message from a webhook.

    Attributes:
        id: Media id, valid for 7 days.
        kind: `"audio"`, `"document"`, `"image"`, `"sticker"` or `"video"`.
        mime_type: MIME type that the sender's phone states, with its parameters.
        sha256: SHA-256 of the bytes, 64 hex digits, converted from the webhook's base64.
        url: URL of the bytes, valid for five minutes, where the webhook has one. `repr` hides its query.
        filename: The sender's name of a document. It is not safe as a path.
        caption: Text below the media.
        voice: Whether an audio is a voice note.
        animated: Whether a sticker is animated.
        sender: WhatsApp id of the sender.
        message_id: Message id (`wamid.…`).
        timestamp: Time of the message in UTC.
        phone_number_id: Business phone number that received the message.
        extra: Other keys of the media object.
        received_at: Time at which this value was made, in seconds of the monotonic clock.
    """

    id: str
    kind: str
    mime_type: str
    sha256: str | None = None
    url: str | None = attrs.field(default=None, repr=_repr_url)
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
        """Expiry of `url` in UTC, from its parameter `ext`; None without one."""
        return _expiry(self.url)


@attrs.frozen(kw_only=True)
class Progress:
    """
    The progress of a transfer.

    Attributes:
        transferred: Bytes so far.
        total: Bytes in all, where known.
    """

    transferred: int
    total: int | None = None
