"""What goes in and comes out, in Meta's words: frozen values, and the one converter that decodes replies."""

from __future__ import annotations

import base64
import binascii
import functools
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

if TYPE_CHECKING:
    import cattrs

__all__ = [
    "DeletedMedia",
    "DownloadedMedia",
    "InboundMedia",
    "MediaInfo",
    "Progress",
    "SentMessage",
    "UploadedMedia",
    "converter",
    "hide_query",
    "structure",
]

T = TypeVar("T")
_EXTRA: Final = "extra"


def hide_query(url: str) -> str:
    """Show a URL without its query, which is a signature that grants access."""
    path, question_mark, _ = url.partition("?")
    return path + ("?…" if question_mark else "")


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


def structure(cls: type[T], data: object) -> T:
    """
    Decode a JSON value into one of the classes above.

    Raises:
        ValueError: In one sentence, with the path of what does not fit.
    """
    import cattrs

    try:
        return converter().structure(data, cls)
    except (cattrs.BaseValidationError, TypeError) as error:
        raise ValueError("; ".join(cattrs.transform_error(error, path="reply", format_exception=_sentence))) from error


def _sentence(error: BaseException, _: type | None) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


@functools.cache
def converter() -> cattrs.Converter:
    """
    Return the one converter: strict where cattrs would turn a null into the text 'None', lenient where Meta varies.

    Importing cattrs takes a moment: `http` has it done on a thread, before it is needed.
    """
    import cattrs
    from cattrs.gen import make_dict_structure_fn, override

    strict = cattrs.Converter()
    for kind in (str, bool):
        strict.register_structure_hook(kind, _exactly)
    strict.register_structure_hook(int, _size)
    strict.register_structure_hook(datetime, _timestamp)
    strict.register_structure_hook(SentMessage, _sent)
    for cls in (UploadedMedia, MediaInfo, DeletedMedia, InboundMedia):
        hook = make_dict_structure_fn(
            cls, strict, id=override(struct_hook=_id), sha256=override(struct_hook=_hex_digest)
        )
        strict.register_structure_hook(cls, functools.partial(_with_extra, hook))
    return strict


def _exactly(value: object, kind: type[T]) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"expected {kind.__name__}, got {value!r:.40}")
    return value


def _id(value: object, _: object) -> str:
    """Refuse what is no id: it becomes part of the next request's path."""
    text = _exactly(value, str)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", text):
        raise TypeError(f"expected an id, got {text!r:.40}")
    return text


def _size(value: object, _: type[int]) -> int:
    """Meta's guide shows `file_size` as a string, its live replies as a number."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise TypeError(f"expected a number of bytes, got {value!r:.40}")


def _timestamp(value: object, _: type[datetime]) -> datetime:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,11}", value):
        raise TypeError(f"expected unix seconds, got {value!r:.40}")
    return datetime.fromtimestamp(int(value), UTC)


def _hex_digest(value: object, _: object) -> str:
    """Meta writes SHA-256 as 64 hex digits in replies and as base64 in webhooks."""
    if isinstance(value, str) and re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        return value.lower()
    try:
        digest = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 32:
        raise TypeError(f"expected a SHA-256 in hex or base64, got {value!r:.80}")
    return digest.hex()


def _with_extra(hook: Any, data: object, cls: type[attrs.AttrsInstance]) -> object:
    if not isinstance(data, Mapping):
        raise TypeError(f"expected an object, got {data!r:.40}")
    known = {field.name for field in attrs.fields(cls)} - {_EXTRA}
    fitted: dict[str, Any] = {name: value for name, value in data.items() if name in known}
    return hook(fitted | {_EXTRA: {name: value for name, value in data.items() if name not in known}}, cls)


def _sent(data: object, _: type[SentMessage]) -> SentMessage:
    """Flatten Meta's reply to one recipient: `{"contacts": [{"wa_id"}], "messages": [{"id", "message_status"?}]}`."""
    lists = [data.get(key) if isinstance(data, Mapping) else None for key in ("messages", "contacts")]
    message, contact = (found[0] if isinstance(found, list) and found else {} for found in lists)
    if not isinstance(message, Mapping) or not isinstance(message.get("id"), str) or not message["id"]:
        raise TypeError("expected the id of one message")
    wa_id = contact.get("wa_id") if isinstance(contact, Mapping) else None
    status = message.get("message_status")
    return SentMessage(
        id=message["id"],
        wa_id=wa_id if isinstance(wa_id, str) else None,
        status=status if isinstance(status, str) else None,
    )
