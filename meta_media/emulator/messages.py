"""Media messages: the checks of `POST /{version}/{phone_number_id}/messages`."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from meta_media.emulator.responses import GraphError
from meta_media.emulator.state import StoredMedia

__all__ = ["USER_ID", "accepted", "check_attachment", "check_product", "digits", "parse_message"]

_MAX_CAPTION: Final = 1024  # characters; Meta's guides "Image messages", "Video messages" and "Document messages"
# The keys of each kind's object (the same guides, and "Audio messages" and "Sticker messages").
_KEYS: Final[Mapping[str, frozenset[str]]] = {
    "image": frozenset({"id", "link", "caption"}),
    "video": frozenset({"id", "link", "caption"}),
    "document": frozenset({"id", "link", "caption", "filename"}),
    "audio": frozenset({"id", "link", "voice"}),
    "sticker": frozenset({"id", "link"}),
}
# The types of each kind; a document may have any.
_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "image": ("image/jpeg", "image/png"),
    "video": ("video/",),
    "document": ("",),
    "audio": ("audio/",),
    "sticker": ("image/webp",),
}
_REQUIRED: Final = (131008, "Required parameter is missing")
_INVALID: Final = (131009, "Parameter value is not valid")
USER_ID: Final = re.compile(r"[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}")  # Meta's page "Business-scoped user IDs"


def parse_message(body: bytes) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Return a message's kind, its media object and the whole message; a `GraphError` if Meta would not accept it."""
    message: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        message = json.loads(body)
    check_product(message.get("messaging_product") if isinstance(message, dict) else None)
    _check_recipient(message)
    kind = message.get("type", "text")
    if not isinstance(kind, str) or kind not in _KEYS:
        raise GraphError.message(131051, "Unsupported message type", f"The emulator sends {', '.join(_KEYS)} only.")
    media = message.get(kind)
    if not isinstance(media, dict):
        raise GraphError.of("required", parameter=kind)
    _check_media(kind, media)
    return kind, media, message


def check_product(product: object) -> None:
    """Check the field that each POST needs; a `GraphError` unless it is `whatsapp`."""
    if not product:
        raise GraphError.of("required", parameter="messaging_product")
    if product != "whatsapp":
        raise GraphError.of("invalid", problem=f'messaging_product must be one of {{WHATSAPP}} - got "{product}".')


def check_attachment(kind: str, media: StoredMedia | None, phone_number_id: str) -> None:
    """Check that an id may be sent from this number, as this kind; a `GraphError` if not."""
    if media is None or media.phone_number_id != phone_number_id:
        raise GraphError.of("unknown_attachment", kind=kind)
    if not media.mime_type.lower().startswith(_TYPES[kind]):
        raise GraphError.message(*_INVALID, f"{kind}['id'] is media of type {media.mime_type}.")


def accepted(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the documented response to an accepted message."""
    to = str(message.get("to") or message["recipient"])
    number = digits(to)
    raw = bytes((28, 24, len(number))) + number.encode() + b"\x15\x02\x00\x11\x18\x12" + secrets.token_hex(9).encode()
    sent, contact = {"id": "wamid." + b64encode(raw).decode()}, {"input": to}
    if message.get("recipient_type") == "group":
        sent["group_id"] = to
    else:
        contact |= {"wa_id": number} if message.get("to") else {"user_id": to}
    return {"messaging_product": "whatsapp", "contacts": [contact], "messages": [sent]}


def digits(number: str) -> str:
    """Return the digits of a phone number, as WhatsApp writes it: at most 32."""
    return "".join(character for character in number if character in "0123456789")[:32]


def _check_recipient(message: Mapping[str, Any]) -> None:
    """Check the addresses: `to` is a number or a group's id, `recipient` a user id. Of both, Meta takes `to`."""
    to, recipient, kind = message.get("to"), message.get("recipient"), message.get("recipient_type") or "individual"
    if kind not in ("individual", "group"):
        raise GraphError.of("invalid", problem="recipient_type must be one of {INDIVIDUAL, GROUP}.")
    if to is None and recipient is not None and kind == "individual":
        if not isinstance(recipient, str) or not USER_ID.fullmatch(recipient):
            raise GraphError.message(*_INVALID, "recipient takes a business-scoped user id.")
    elif not isinstance(to, str) or not (to if kind == "group" else digits(to)):
        raise GraphError.of("required", parameter="to")
    elif kind == "individual" and USER_ID.fullmatch(to):
        raise GraphError.message(*_INVALID, "to takes a phone number; a business-scoped user id goes into recipient.")


def _check_media(kind: str, media: Mapping[str, Any]) -> None:
    if unknown := sorted(set(media) - _KEYS[kind]):
        raise GraphError.message(*_INVALID, f"{kind} has no parameter {unknown[0]!r}.")
    given = [name for name in ("id", "link") if media.get(name)]
    if not given:
        raise GraphError.message(*_REQUIRED, f"{kind} needs one of id and link.")
    if len(given) == 2:
        raise GraphError.message(*_INVALID, f"{kind} takes one of id and link, not both.")
    if not isinstance(media[given[0]], str):
        raise GraphError.of("invalid", problem=f"{kind}['{given[0]}'] must be a string.")
    if given == ["link"] and not media["link"].lower().startswith(("https://", "http://")):
        raise GraphError.message(*_INVALID, f"{kind}['link'] must be an http or https URL.")
    _check_options(kind, media)


def _check_options(kind: str, media: Mapping[str, Any]) -> None:
    for name in ("caption", "filename"):
        if not isinstance(media.get(name, ""), str):
            raise GraphError.of("invalid", problem=f"{kind}['{name}'] must be a string.")
    if len(media.get("caption", "")) > _MAX_CAPTION:
        raise GraphError.of("invalid", problem=f"{kind}['caption'] must be at most {_MAX_CAPTION} characters long.")
    if not isinstance(media.get("voice", False), bool):
        raise GraphError.of("invalid", problem=f"{kind}['voice'] must be a boolean.")
