"""The values that the public methods return, in Meta's words. All are frozen; `convert` decodes them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from meta_media.errors import ApiError, ConfigurationError
from meta_media.protocol.recipient import Kind, Recipient, address
from meta_media.protocol.secrets import hide_query
from meta_media.protocol.validators import checked_id, is_id

__all__ = [
    "DeletedMedia",
    "DownloadedMedia",
    "HasMediaId",
    "InboundFailure",
    "InboundMedia",
    "MediaInfo",
    "MessageStatus",
    "Progress",
    "SentMessage",
    "UploadedMedia",
    "Webhook",
    "media_id_of",
]


def _repr_url(url: str | None) -> str:
    return repr(None if url is None else hide_query(url))


def _expiry(url: str | None) -> datetime | None:
    match = re.search(r"[?&]ext=([0-9]{10})(?:[0-9]{3})?(?:&|$)", url or "")
    return datetime.fromtimestamp(int(match[1]), UTC) if match else None


def _repr_keys(mapping: Mapping[str, Any]) -> str:
    return repr(list(mapping))


@attrs.frozen(kw_only=True)
class HasMediaId:
    """
    A value that may be passed wherever a media id may.

    Attributes:
        id: Media id.
    """

    id: str


def media_id_of(value: object) -> str:
    """
    Return the media id of an id, or of a value that has one.

    Raises:
        ConfigurationError: It is neither. The sentence names the attribute that has an id, if there is one.
    """
    if isinstance(value, HasMediaId):
        value = value.id
    if value is None or isinstance(value, str | bytes | int | float):
        return checked_id(value, "the media id")
    names = ("media_id", "id")
    hint = next((f": pass its {name}" for name in names if is_id(getattr(value, name, None))), "")
    accepted = "a str, or a value that has one such as UploadedMedia"
    raise ConfigurationError(f"the media id must be {accepted}, not {type(value).__name__}{hint}")


@attrs.frozen(kw_only=True)
class UploadedMedia(HasMediaId):
    """
    The result of an upload.

    Attributes:
        id: Media id, valid for 30 days and for the phone number that uploaded it.
        mime_type: MIME type that was sent.
        file_size: Bytes sent.
        filename: Name that was sent.
        sha256: SHA-256 of the bytes sent, 64 hex digits; with `verify=True`, and in a run with a journal.
        maybe_duplicate: Whether the file was sent again because a response was lost. Meta may then hold it under a second,
            unknown id until that expires.
        attempts: Requests sent.
        extra: Other keys of Meta's response.
    """

    mime_type: str | None = None
    file_size: int | None = None
    filename: str | None = attrs.field(default=None, eq=False)
    sha256: str | None = None
    maybe_duplicate: bool = False
    attempts: int = attrs.field(default=1, eq=False)
    extra: Mapping[str, Any] = attrs.field(factory=dict, eq=False)


@attrs.frozen(kw_only=True)
class MediaInfo(HasMediaId):
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
        path: Path of the file; None when the destination was a handle or an object.
        key: Key of the object; None when the destination was no `ObjectDestination`.
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
    key: str | None = None
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
        user_id: Business-scoped user id of the recipient, where Meta returns one.
        input: The recipient as it was given, where Meta returns it.
        status: Meta's `message_status`, where Meta returns one.
    """

    id: str
    wa_id: str | None = None
    user_id: str | None = None
    input: str | None = None
    status: str | None = None


@attrs.frozen(kw_only=True)
class InboundMedia(HasMediaId):
    """
    Media in a webhook. A field that Meta left out, or sent in an unknown form, is None, or False for a flag.

    Attributes:
        id: Media id, valid for 7 days.
        kind: `"audio"`, `"document"`, `"image"`, `"sticker"` or `"video"`; or a later kind of Meta's.
        mime_type: MIME type that the sender's phone states, with its parameters.
        sha256: SHA-256 of the bytes, 64 hex digits, converted from the webhook's base64.
        url: URL of the bytes, valid for five minutes, where the webhook has one. `repr` hides its query.
        filename: The sender's name of a document. It is not safe as a path.
        caption: Text below the media.
        voice: Whether an audio is a voice note.
        animated: Whether a sticker is animated.
        sender: WhatsApp id of the sender, which is a phone number. People with a username may have none.
        user_id: Business-scoped user id of the person (of an echo: who it was sent to), such as `US.13491208655302741918`.
        parent_user_id: The same for the parent portfolio, such as `US.ENT.11815799212886844830`.
        username: The person's username, where there is one.
        profile_name: The person's name, as they chose it.
        group_id: The group that the message was sent to.
        message_id: Message id (`wamid.…`). Meta repeats webhooks, so the same message may come again.
        timestamp: Time of the message in UTC.
        phone_number_id: Business phone number that received the message.
        carrier: Where the media stood: `"message"`, `"edit"`, `"echo"` (the business itself sent it), `"history"`,
            `"standby"`, `"call_recording"`, `"call_transcript"` or `"flow"` (picked in a form).
        message: The message, or the call, as it came. `repr` leaves it out.
        extra: Other keys of the media object, and values in an unknown form under Meta's names. `repr` shows its keys.
        received_at: Time at which this value was made, in seconds of the monotonic clock.
    """

    kind: str
    mime_type: str | None = None
    sha256: str | None = None
    url: str | None = attrs.field(default=None, repr=_repr_url)
    filename: str | None = None
    caption: str | None = None
    voice: bool = False
    animated: bool = False
    sender: str | None = None
    user_id: str | None = None
    parent_user_id: str | None = None
    username: str | None = None
    profile_name: str | None = None
    group_id: str | None = None
    message_id: str | None = None
    timestamp: datetime | None = None
    phone_number_id: str | None = None
    carrier: str = "message"
    message: Mapping[str, Any] = attrs.field(factory=dict, eq=False, repr=False)
    extra: Mapping[str, Any] = attrs.field(factory=dict, eq=False, repr=_repr_keys)
    received_at: float = attrs.field(factory=time.monotonic, init=False, eq=False, repr=False)

    @property
    def url_expires_at(self) -> datetime | None:
        """Expiry of `url` in UTC, from its parameter `ext`; None without one."""
        return _expiry(self.url)

    @property
    def reply_address(self) -> Recipient | None:
        """Where to reply: the group, else the person's phone number, else their user id; None if there is none of them."""
        return _reply_address(self, self.carrier == "echo", self.user_id, self.parent_user_id)


@attrs.frozen(kw_only=True)
class InboundFailure:
    """
    A message that could not be received: of a type that Meta does not pass on (131051, 131060), or with media over 100 MB (131052).

    Attributes:
        errors: Meta's reasons. Each `code` is the one of Meta's table.
        sender: As in `InboundMedia`, and so are the other fields.
    """

    errors: tuple[ApiError, ...] = attrs.field(eq=False)
    sender: str | None = None
    user_id: str | None = None
    group_id: str | None = None
    message_id: str | None = None
    timestamp: datetime | None = None
    phone_number_id: str | None = None
    message: Mapping[str, Any] = attrs.field(factory=dict, eq=False, repr=False)

    @property
    def reply_address(self) -> Recipient | None:
        """As in `InboundMedia`: where to ask for the message again."""
        return _reply_address(self, False, self.user_id)


@attrs.frozen(kw_only=True)
class MessageStatus:
    """
    What became of a message that was sent.

    Attributes:
        message_id: Message id, as in `SentMessage.id`.
        status: `"sent"`, `"delivered"`, `"read"`, `"played"` or `"failed"`.
        recipient: The person or group that it was sent to.
        timestamp: Time of the status in UTC.
        errors: Why it failed. Media that Meta refuses after the upload is an `UploadRejectedError` with Meta's `details`.
        phone_number_id: Business phone number that sent the message.
        extra: Other keys of the status, such as `biz_opaque_callback_data` and `pricing`.
    """

    message_id: str
    status: str
    recipient: Recipient | None = None
    timestamp: datetime | None = None
    errors: tuple[ApiError, ...] = attrs.field(default=(), eq=False)
    phone_number_id: str | None = None
    extra: Mapping[str, Any] = attrs.field(factory=dict, eq=False, repr=_repr_keys)


@attrs.frozen(kw_only=True)
class Webhook:
    """
    What a webhook reports.

    Attributes:
        media: All media, in the order of the webhook.
        statuses: What became of messages that were sent.
        failures: Messages that could not be received.
        unread: Number of parts that are none of these and no message without media either: media without an id, unknown
            types of messages, and changes of other fields. Their number is logged, and what the first one is.
    """

    media: tuple[InboundMedia, ...] = ()
    statuses: tuple[MessageStatus, ...] = ()
    failures: tuple[InboundFailure, ...] = ()
    unread: int = 0


def _reply_address(about: InboundMedia | InboundFailure, own: bool, *user_ids: str | None) -> Recipient | None:
    """Return where a message came from, or where it went if it, or the call, is the business's `own`."""
    message, direction = about.message, about.message.get("direction")  # only calls have a direction
    own = own or direction == "BUSINESS_INITIATED" or (direction is None and "to" in message)
    people = (message.get("to"), message.get("recipient")) if own else (about.sender,)
    kinds: tuple[Kind, ...] = ("group",) if message.get("recipient_type") == "group" else ("phone", "user")
    found = (address(about.group_id, "group"), *(address(person, *kinds) for person in people))
    return next(filter(None, (*found, *(address(person, "user") for person in user_ids))), None)


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
