"""The webhooks about inbound media, as Meta builds them."""

from __future__ import annotations

import hashlib
import secrets
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final, Literal

from meta_media.emulator.messages import USER_ID, digits
from meta_media.emulator.responses import BUSINESS_ACCOUNT_ID, graph_json
from meta_media.emulator.state import StoredMedia

__all__ = ["Kind", "default_kind", "webhook"]

Kind = Literal["audio", "document", "image", "sticker", "video"]
# The kind that WhatsApp shows a type as, by the first prefix that fits; else a document.
_SHOWN: Final[Mapping[str, Kind]] = {"image/webp": "sticker", "image/": "image", "audio/": "audio", "video/": "video"}
_CUSTOMER: Final = "15550001111"


def default_kind(mime_type: str) -> Kind:
    """Return the kind of message that WhatsApp shows a type as."""
    for prefix, kind in _SHOWN.items():
        if mime_type.startswith(prefix):
            return kind
    return "document"


def webhook(
    media: StoredMedia,
    kind: Kind,
    url: str,
    caption: str | None,
    *,
    animated: bool,
    now: int,
    sender: str | None = None,
    group_id: str | None = None,
) -> bytes:
    """Return the body of the webhook that Meta would post (its pages "Webhooks"), byte for byte as it is signed."""
    described: dict[str, Any] = {} if caption is None else {"caption": caption}
    if kind == "document":
        described["filename"] = media.filename or "file"
    sha256 = b64encode(bytes.fromhex(media.sha256)).decode()  # `GET /{media_id}` has it in hex
    described |= {"mime_type": media.mime_type, "sha256": sha256, "id": media.id, "url": url}
    if kind == "audio":
        described["voice"] = "codecs=opus" in media.mime_type
    if kind == "sticker":
        described["animated"] = animated
    message_id = "wamid." + b64encode(b"\x1c\x18\x0b" + secrets.token_bytes(24)).decode()
    person, contact = _person(sender or _CUSTOMER)
    group = {} if group_id is None else {"group_id": group_id}
    message = {**person, **group, "id": message_id, "timestamp": str(now), "type": kind, kind: described}
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550002222", "phone_number_id": media.phone_number_id},
        "contacts": [contact],
        "messages": [message],
    }
    entry = {"id": BUSINESS_ACCOUNT_ID, "changes": [{"value": value, "field": "messages"}]}
    return graph_json({"object": "whatsapp_business_account", "entry": [entry]})


def _person(sender: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the fields of a sender in a message, and in its contact. Who has a user id only has no phone number."""
    profile = {"name": "A customer"}
    if USER_ID.fullmatch(sender):
        return {"from_user_id": sender}, {"profile": profile | {"username": "@customer"}, "user_id": sender}
    number = digits(sender)
    user_id = f"US.{int.from_bytes(hashlib.sha256(number.encode()).digest()[:8])}"
    person = {"from": number, "from_user_id": user_id}
    return person, {"profile": profile, "wa_id": number, "user_id": user_id}
