"""`POST /{version}/{phone_number_id}/messages`: what Meta checks before it accepts a media message."""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from meta_media.emulator.replies import GraphError
from meta_media.emulator.store import StoredMedia

__all__ = ["accepted", "check_attachment", "parse_message"]

_MAX_CAPTION: Final = 1024  # characters; Meta's guides "Image messages", "Video messages" and "Document messages"
# What the object of each kind may hold (the same guides, and "Audio messages" and "Sticker messages").
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "image": frozenset({"id", "link", "caption"}),
    "video": frozenset({"id", "link", "caption"}),
    "document": frozenset({"id", "link", "caption", "filename"}),
    "audio": frozenset({"id", "link", "voice"}),
    "sticker": frozenset({"id", "link"}),
}
# Which types may be sent as which kind; anything as a document.
_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "image": ("image/jpeg", "image/png"),
    "video": ("video/",),
    "document": ("",),
    "audio": ("audio/",),
    "sticker": ("image/webp",),
}
_REQUIRED: Final = (131008, "Required parameter is missing")
_INVALID: Final = (131009, "Parameter value is not valid")


def parse_message(body: bytes) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """
    Read a message as its kind, its media object and the whole of it.

    Raises:
        GraphError: It is not one that Meta would accept.
    """
    message = _json_object(body)
    product = message.get("messaging_product")
    if not product:
        raise GraphError.required("messaging_product")
    if product != "whatsapp":
        raise GraphError.invalid(f'messaging_product must be one of {{WHATSAPP}} - got "{product}".')
    if not isinstance(message.get("to"), str) or not _digits(message["to"]):
        raise GraphError.required("to")
    kind = message.get("type", "text")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise GraphError.message(131051, "Unsupported message type", f"The emulator sends {', '.join(_KEYS)} only.")
    media = message.get(kind)
    if not isinstance(media, dict):
        raise GraphError.required(kind)
    _check_media(kind, media)
    return kind, media, message


def check_attachment(kind: str, media: StoredMedia | None, phone_number_id: str) -> None:
    """
    Check that an id may be sent from this number, as this kind.

    Raises:
        GraphError: It may not.
    """
    if media is None or media.phone_number_id != phone_number_id:
        raise GraphError.unknown_attachment(kind)
    if not media.mime_type.lower().startswith(_TYPES[kind]):
        raise GraphError.message(*_INVALID, f"{kind}['id'] is media of type {media.mime_type}.")


def accepted(message: Mapping[str, Any]) -> dict[str, Any]:
    """Make the documented reply to a message that is on its way."""
    to = str(message["to"])
    number = _digits(to)
    raw = bytes((28, 24, len(number))) + number.encode() + b"\x15\x02\x00\x11\x18\x12" + secrets.token_hex(9).encode()
    return {
        "messaging_product": "whatsapp",
        "contacts": [{"input": to, "wa_id": number}],
        "messages": [{"id": "wamid." + b64encode(raw).decode()}],
    }


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        message = None
    return message if isinstance(message, dict) else {}


def _digits(number: str) -> str:
    return "".join(character for character in number if character in "0123456789")[:32]


def _check_media(kind: str, media: Mapping[str, Any]) -> None:
    unknown = sorted(set(media) - _KEYS[kind])
    if unknown:
        raise GraphError.message(*_INVALID, f"{kind} has no parameter {unknown[0]!r}.")
    given = [name for name in ("id", "link") if media.get(name)]
    if not given:
        raise GraphError.message(*_REQUIRED, f"{kind} needs one of id and link.")
    if len(given) == 2:
        raise GraphError.message(*_INVALID, f"{kind} takes one of id and link, not both.")
    if not isinstance(media[given[0]], str):
        raise GraphError.invalid(f"{kind}['{given[0]}'] must be a string.")
    if given == ["link"] and not media["link"].lower().startswith(("https://", "http://")):
        raise GraphError.message(*_INVALID, f"{kind}['link'] must be an http or https URL.")
    _check_options(kind, media)


def _check_options(kind: str, media: Mapping[str, Any]) -> None:
    for name in ("caption", "filename"):
        if not isinstance(media.get(name, ""), str):
            raise GraphError.invalid(f"{kind}['{name}'] must be a string.")
    if len(media.get("caption", "")) > _MAX_CAPTION:
        raise GraphError.invalid(f"{kind}['caption'] must be at most {_MAX_CAPTION} characters long.")
    if not isinstance(media.get("voice", False), bool):
        raise GraphError.invalid(f"{kind}['voice'] must be a boolean.")
