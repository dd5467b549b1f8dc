"""
Messages: the checks of `POST /{version}/{phone_number_id}/messages`.

Media is checked wherever it stands, as a message of its own or in the header of a template. What has no media is looked at less
closely: the emulator knows no templates, and asks an interactive message only for what each of its kinds needs.
"""

from __future__ import annotations

import re
import secrets
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from meta_media.emulator.responses import GraphError
from meta_media.emulator.state import StoredMedia

__all__ = [
    "USER_ID",
    "accepted",
    "check_attachment",
    "check_object",
    "check_product",
    "digits",
    "mark_as_read",
    "parse_message",
]

_ANY_LENGTH: Final = 2**32
# The keys of each kind's object, by Meta's guides of the kinds: text with its greatest length in characters, or another type.
_MEDIA: Final = {"id": _ANY_LENGTH, "link": _ANY_LENGTH}
_KEYS: Final[Mapping[str, Mapping[str, int | type]]] = {
    "image": _MEDIA | {"caption": 1024},
    "video": _MEDIA | {"caption": 1024},
    "document": _MEDIA | {"caption": 1024, "filename": _ANY_LENGTH},
    "audio": _MEDIA | {"voice": bool},
    "sticker": _MEDIA,
    "text": {"body": 4096, "preview_url": bool},
    "reaction": {"message_id": _ANY_LENGTH, "emoji": _ANY_LENGTH},
    "location": {"latitude": object, "longitude": object, "name": _ANY_LENGTH, "address": _ANY_LENGTH},
}
_NAMES: Final[Mapping[type, str]] = {bool: "a boolean", list: "an array"}
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "text": ("body",),
    "reaction": ("message_id",),
    "location": ("latitude", "longitude"),
    "template": ("name", "language"),
    "interactive": ("type", "action"),
}
# The types of each kind of media; a document may have any.
_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "image": ("image/jpeg", "image/png"),
    "video": ("video/",),
    "document": ("",),
    "audio": ("audio/",),
    "sticker": ("image/webp",),
}
_KINDS: Final = (*_TYPES, *_NEEDED, "contacts")
_IN_GROUPS: Final = frozenset({*_TYPES, "text", "template"})  # Meta's page "Groups API"
_OF_FLOWS: Final = frozenset({"flow_action_payload", "flow_action_data"})  # a Flow's own data, with keys of any name
_REQUIRED: Final = (131008, "Required parameter is missing")
_INVALID: Final = (131009, "Parameter value is not valid")
_NOT_IN_GROUPS: Final = (130501, "Message type is not currently supported")
_NOT_TO_USER_IDS: Final = (131062, "Business-scoped User ID (BSUID) recipients are not supported for this message")
USER_ID: Final = re.compile(r"[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}")  # Meta's page "Business-scoped user IDs"


def parse_message(message: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return place, kind and id of all media in a message; a `GraphError` if Meta would not accept it."""
    check_product(message)
    _check_recipient(message)
    kind = message.get("type") or "text"
    if kind not in _KINDS:
        raise GraphError.message(131051, "Unsupported message type", f"The emulator sends {', '.join(_KINDS)} only.")
    _need(message, kind)
    content = message[kind]
    if kind in _NEEDED:
        check_object(kind, content, _NEEDED[kind], _KEYS.get(kind))
    if message.get("recipient_type") == "group" and kind not in _IN_GROUPS:
        raise GraphError.message(*_NOT_IN_GROUPS, "A group takes text, media and templates.")
    if kind == "template":
        _check_template(content, to_number=bool(message.get("to")))
    found = list(_media_objects({kind: content}))
    for place, kind_of_media, media in found:
        check_object(place, media, keys=_KEYS[kind_of_media])
        _check_media(place, media)
    return [(place, kind_of_media, media["id"]) for place, kind_of_media, media in found if media.get("id")]


def mark_as_read(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response to a read receipt, with or without a typing indicator. Any id is taken for a message's."""
    check_product(message)
    if message["status"] != "read":
        raise GraphError.of("invalid", problem="status must be one of {READ}.")
    _need(message, "message_id")
    if "typing_indicator" in message:
        check_object("typing_indicator", message["typing_indicator"], ("type",))
    return {"success": True}


def check_product(given: Mapping[str, Any]) -> None:
    """Check the parameter that each POST needs; a `GraphError` unless it is `whatsapp`."""
    _need(given, "messaging_product")
    if (product := given["messaging_product"]) != "whatsapp":
        raise GraphError.of("invalid", problem=f'messaging_product must be one of {{WHATSAPP}} - got "{product}".')


def check_attachment(place: str, kind: str, media: StoredMedia | None, phone_number_id: str) -> StoredMedia:
    """Return the media of an id that may be sent from this number, as this kind; a `GraphError` if it may not."""
    if media is None or media.phone_number_id != phone_number_id:
        raise GraphError.of("unknown_attachment", place=place)
    if not media.mime_type.lower().startswith(_TYPES[kind]):
        raise GraphError.message(*_INVALID, f"{place}['id'] is media of type {media.mime_type}.")
    return media


def check_object(
    place: str, value: Any, needed: Sequence[str] = (), keys: Mapping[str, int | type] | None = None
) -> None:
    """Check an object for the keys that it needs, and for those that it may have, None for any; a `GraphError` if not."""
    if not isinstance(value, dict):
        raise GraphError.of("invalid", problem=f"{place} must be a JSON object.")
    _need(value, *needed, place=place)
    for name, inner in value.items():
        kind = object if keys is None else keys.get(name)
        if kind is None:
            raise GraphError.of("unexpected", key=name, place=place)
        if isinstance(kind, int):
            _check_text(_within(place, name), inner, kind)
        elif not isinstance(inner, kind):
            raise GraphError.of("invalid", problem=f"{_within(place, name)} must be {_NAMES[kind]}.")


def accepted(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the documented response to an accepted message."""
    to = str(message.get("to") or message["recipient"])
    number = digits(to)
    raw = bytes((28, 24, len(number))) + number.encode() + b"\x15\x02\x00\x11\x18\x12" + secrets.token_hex(9).encode()
    sent, contact = {"id": "wamid." + b64encode(raw).decode()}, {"input": to}
    if message.get("type") == "template":
        sent["message_status"] = "accepted"
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
    to: Any = message.get("to")
    recipient, kind = message.get("recipient"), message.get("recipient_type") or "individual"
    if kind not in ("individual", "group"):
        raise GraphError.of("invalid", problem="recipient_type must be one of {INDIVIDUAL, GROUP}.")
    if not to and recipient and kind == "individual":
        _check_text("recipient", recipient)
        if not USER_ID.fullmatch(recipient):
            raise GraphError.message(*_INVALID, "recipient takes a business-scoped user id.")
        return
    _need(message, "to")
    _check_text("to", to)
    if kind == "individual" and (USER_ID.fullmatch(to) or not digits(to)):
        raise GraphError.message(*_INVALID, "to takes a phone number; a business-scoped user id goes into recipient.")


def _check_text(place: str, value: object, limit: int = _ANY_LENGTH) -> None:
    if not isinstance(value, str):
        raise GraphError.of("invalid", problem=f"{place} must be a string.")
    if len(value) > limit:
        raise GraphError.of("invalid", problem=f"{place} must be at most {limit} characters long.")


def _within(place: str, name: str | int) -> str:
    return f"{place}[{name!r}]" if place else str(name)


def _need(value: Mapping[str, Any], *names: str, place: str = "") -> None:
    for name in names:
        if value.get(name) in (None, ""):
            raise GraphError.of("required", parameter=_within(place, name))


def _check_template(template: Mapping[str, Any], *, to_number: bool) -> None:
    check_object("template['language']", template["language"], ("code",))
    components = template.get("components", [])
    for index, component in enumerate(components if isinstance(components, list) else [None]):
        check_object(f"template['components'][{index}]", component, ("type",))
    # An authentication template's button repeats the code of its body (Meta's page "Authentication templates").
    parameters = {str(component["type"]).lower(): component.get("parameters") for component in components}
    if not to_number and parameters.get("button") and parameters["button"] == parameters.get("body"):
        raise GraphError.message(*_NOT_TO_USER_IDS, "An authentication template goes to a phone number, in to.")


def _media_objects(message: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield the place of each media object, as Meta writes it (`template['components'][0]…['image']`), its kind and itself."""
    left: list[tuple[str, Any]] = [("", message)]
    while left:
        place, value = left.pop()
        items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            where = _within(place, key)
            if key in _TYPES:
                yield where, key, inner
            elif key not in _OF_FLOWS:
                left.append((where, inner))


def _check_media(place: str, media: Mapping[str, Any]) -> None:
    given = [name for name in ("id", "link") if media.get(name)]
    if not given:
        raise GraphError.message(*_REQUIRED, f"{place} needs one of id and link.")
    if len(given) == 2:
        raise GraphError.message(*_INVALID, f"{place} takes one of id and link, not both.")
    if given == ["link"] and not media["link"].lower().startswith(("https://", "http://")):
        raise GraphError.message(*_INVALID, f"{place}['link'] must be an http or https URL.")
