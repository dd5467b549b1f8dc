"""The bodies of webhooks, as Meta's pages show them: a customer's media in each place, and the statuses of sent messages."""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import attrs

from meta_media.emulator.messages import USER_ID, digits
from meta_media.emulator.responses import BUSINESS_ACCOUNT_ID, graph_json
from meta_media.emulator.state import StoredMedia

__all__ = ["INBOUND_FAILURES", "Carrier", "Customer", "Failure", "Kind", "default_kind", "inbound_webhook", "statuses"]

Kind = Literal["audio", "document", "image", "sticker", "video"]
Carrier = Literal["message", "edit", "echo", "history", "standby", "call_recording", "call_transcript", "flow"]
# The kind that WhatsApp shows a type as, by the first prefix that fits; else a document.
_SHOWN: Final[Mapping[str, Kind]] = {"image/webp": "sticker", "image/": "image", "audio/": "audio", "video/": "video"}
_CUSTOMER: Final = "15550001111"
_BUSINESS: Final = "15550002222"
# The field of a change, and the list in its value, for each carrier that has others than `messages`.
_PLACES: Final[Mapping[str, tuple[str, str]]] = {
    "echo": ("smb_message_echoes", "message_echoes"),
    "history": ("history", "messages"),
    "standby": ("standby", "messages"),
    "call_recording": ("calls", "calls"),
    "call_transcript": ("calls", "calls"),
}
_WITHOUT_TEXT: Final = ("call_recording", "call_transcript", "flow")
_TOO_LARGE: Final = "Media file size too big. Max file size we currently support: 100MB."
# Titles and details of Meta's table of error codes, and of its page "Unsupported messages".
_ERRORS: Final[Mapping[int, tuple[str, str]]] = {
    131026: ("Message undeliverable", "Message undeliverable."),
    131047: ("Re-engagement message", "More than 24 hours have passed since the customer last replied to this number."),
    131051: ("Message type unknown", "Message type is currently not supported."),
    131052: (
        f"{_TOO_LARGE} Please communicate with your customer to send a media file that is smaller than 100MB",
        _TOO_LARGE,
    ),
    131053: ("Media upload error", "Media file could not be processed."),
    131060: ("Message unavailable", "This message is currently unavailable."),
}
INBOUND_FAILURES: Final = (131051, 131052, 131060)
_HELP: Final = "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/"


@attrs.frozen(kw_only=True)
class Customer:
    """A customer: a phone number, or the user id of one without a number; a username, where there is one; and a group."""

    sender: str | None = None
    username: str | None = None
    group_id: str | None = None

    @property
    def number(self) -> str | None:
        """The phone number, if there is one."""
        sender = self.sender or _CUSTOMER
        return None if USER_ID.fullmatch(sender) else digits(sender)

    @property
    def user_id(self) -> str:
        """The business-scoped user id: the same each time."""
        if self.number is None:
            return str(self.sender)
        return f"US.{int.from_bytes(hashlib.sha256(self.number.encode()).digest()[:8])}"

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a message from this customer."""
        return _present({"from": self.number, "from_user_id": self.user_id, "group_id": self.group_id})

    @property
    def contact(self) -> dict[str, Any]:
        """The customer's contact. A customer without a phone number has a username."""
        username = self.username or ("customer" if self.number is None else None)
        profile = _present({"name": "A customer", "username": username and "@" + username.removeprefix("@")})
        return {"profile": profile, **_present({"wa_id": self.number, "user_id": self.user_id})}


@attrs.frozen
class Failure:
    """Why a message failed: a code of Meta's, and its details; None for those of Meta's table."""

    code: int
    details: str | None = None

    @property
    def error(self) -> dict[str, Any]:
        """The error in the form of webhooks."""
        title, details = _ERRORS.get(self.code, ("Message failed", "The message could not be delivered."))
        data = {"details": self.details or details}
        return {"code": self.code, "title": title, "message": title, "error_data": data, "href": _HELP}


def default_kind(mime_type: str) -> Kind:
    """Return the kind of message that WhatsApp shows a type as."""
    for prefix, kind in _SHOWN.items():
        if mime_type.startswith(prefix):
            return kind
    return "document"


def inbound_webhook(
    what: StoredMedia | Failure, url: str, customer: Customer, number: str, now: int, **described: Any
) -> bytes:
    """
    Return the body about a customer's media, or about a message that Meta could not pass on.

    `described` are the carrier, the kind of message, the caption, and whether a sticker is animated.
    """
    kind, carrier = described["kind"], described["carrier"]
    people = customer.fields
    if isinstance(what, Failure):
        carrier = "message"
        content = {"type": "unsupported", "unsupported": {"type": "media_placeholder"}, "errors": [what.error]}
    else:
        content = _content(carrier, kind, _media_object(what, url, **described), what.filename)
    if carrier == "echo":
        people = _present({"from": _BUSINESS, "to": customer.number, "to_user_id": customer.user_id})
    field, parts = _PLACES.get(carrier, ("messages", "messages"))
    message = {**people, "id": _new_id("wacid." if field == "calls" else "wamid."), "timestamp": str(now), **content}
    value = {"contacts": [customer.contact], parts: [message]}
    return _body(field, number, **({"standby": value} if carrier == "standby" else value))


def statuses(message: Mapping[str, Any], failure: Failure | None, now: int) -> Iterator[tuple[str, bytes]]:
    """List the statuses of an accepted message, each with the body of its webhook. A message that fails has no other."""
    to, group = str(message.get("to") or message["recipient"]), message.get("recipient_type") == "group"
    customer = Customer(sender=None if group else to)
    about: dict[str, Any]
    if group:
        about = {"recipient_id": to, "recipient_type": "group", "recipient_participant_id": customer.number}
        about["recipient_participant_user_id"] = customer.user_id
    else:  # Meta's page "Business-scoped user IDs": a failure by number has no user id
        user_id = None if failure and customer.number else customer.user_id
        about = _present({"recipient_id": customer.number, "recipient_user_id": user_id})
    about |= _present({"biz_opaque_callback_data": message.get("biz_opaque_callback_data")})
    audio = message.get("audio")
    played = ("played",) if isinstance(audio, Mapping) and audio.get("voice") else ()
    contacts = {} if failure else {"contacts": [customer.contact]}
    for status in ("failed",) if failure else ("sent", "delivered", "read", *played):
        errors = {"errors": [failure.error]} if failure else {}
        step = {"id": message["message_id"], "status": status, "timestamp": str(now), **about, **errors}
        yield status, _body("messages", message["phone_number_id"], **contacts, statuses=[step])


def _content(carrier: str, kind: str, media: dict[str, Any], filename: str | None) -> dict[str, Any]:
    """Return the part of a message, or of a call, that has the media."""
    message = {"type": kind, kind: media}
    match carrier:
        case "edit":
            return {"type": "edit", "edit": {"original_message_id": _new_id(), "message": message}}
        case "flow":
            picked = {"file_name": filename or "file", **{name: media[name] for name in ("mime_type", "sha256", "id")}}
            answers = {"flow_token": "unused", f"{'photo' if kind == 'image' else 'document'}_picker": [picked]}
            reply = {"name": "flow", "body": "Sent", "response_json": json.dumps(answers)}
            context = {"from": _BUSINESS, "id": _new_id()}
            return {"type": "interactive", "context": context, "interactive": {"type": "nfm_reply", "nfm_reply": reply}}
        case "call_recording":
            return {"event": "call_recording_available", "call_recording": {"type": "audio", "audio": media}}
        case "call_transcript":
            return {"event": "call_transcription_available", "call_transcript": {"document": media}}
    return message


def _media_object(
    media: StoredMedia, url: str, *, kind: str, carrier: str, caption: str | None, animated: bool
) -> dict[str, Any]:
    sha256 = b64encode(bytes.fromhex(media.sha256)).decode()  # `GET /{media_id}` has it in hex
    described: dict[str, Any] = {"mime_type": media.mime_type, "sha256": sha256, "id": media.id, "url": url}
    if carrier in _WITHOUT_TEXT:
        return described
    described |= _present({"caption": caption, "filename": (media.filename or "file") if kind == "document" else None})
    if kind == "audio":
        described["voice"] = "codecs=opus" in media.mime_type
    if kind == "sticker":
        described["animated"] = animated
    return described


def _body(field: str, number: str, **parts: Any) -> bytes:
    metadata = {"display_phone_number": _BUSINESS, "phone_number_id": number}
    value = {"messaging_product": "whatsapp", "metadata": metadata, **parts}
    entry = {"id": BUSINESS_ACCOUNT_ID, "changes": [{"value": value, "field": field}]}
    return graph_json({"object": "whatsapp_business_account", "entry": [entry]})


def _new_id(prefix: str = "wamid.") -> str:
    return prefix + b64encode(b"\x1c\x18\x0b" + secrets.token_bytes(24)).decode()


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
