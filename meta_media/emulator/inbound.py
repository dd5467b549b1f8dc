"""Media that "a customer sent": the webhook Meta would post about it, and its signature (Meta's pages "Webhooks")."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64encode
from typing import Any, Final, Literal

from meta_media.emulator.replies import graph_json
from meta_media.emulator.store import StoredMedia

__all__ = ["Kind", "default_kind", "media_object", "sign", "webhook"]

Kind = Literal["audio", "document", "image", "sticker", "video"]
_SENDER: Final = "15550001111"


def default_kind(mime_type: str) -> Kind:
    """Tell what WhatsApp shows a type as."""
    if mime_type.startswith("image/webp"):
        return "sticker"
    if mime_type.startswith("image/"):
        return "image"
    if mime_type.startswith("audio/"):
        return "audio"
    return "video" if mime_type.startswith("video/") else "document"


def media_object(media: StoredMedia, kind: Kind, url: str, caption: str | None, *, animated: bool) -> dict[str, Any]:
    """Describe media as webhooks do: with a Base64 hash, where `GET /{media_id}` has hex."""
    described: dict[str, Any] = {} if caption is None else {"caption": caption}
    if kind == "document":
        described["filename"] = media.filename or "file"
    sha256 = b64encode(bytes.fromhex(media.sha256)).decode()
    described |= {"mime_type": media.mime_type, "sha256": sha256, "id": media.id, "url": url}
    if kind == "audio":
        described["voice"] = "codecs=opus" in media.mime_type
    if kind == "sticker":
        described["animated"] = animated
    return described


def webhook(phone_number_id: str, kind: Kind, described: dict[str, Any], now: int) -> bytes:
    """Write the whole body, byte for byte as it is signed."""
    message = {
        "from": _SENDER,
        "id": "wamid." + b64encode(b"\x1c\x18\x0b" + secrets.token_bytes(24)).decode(),
        "timestamp": str(now),
        "type": kind,
        kind: described,
    }
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550002222", "phone_number_id": phone_number_id},
        "contacts": [{"profile": {"name": "A customer"}, "wa_id": _SENDER}],
        "messages": [message],
    }
    change = {"value": value, "field": "messages"}
    return graph_json({"object": "whatsapp_business_account", "entry": [{"id": "1020304050607", "changes": [change]}]})


def sign(app_secret: str, body: bytes) -> str:
    """Make the value of `X-Hub-Signature-256`."""
    return "sha256=" + hmac.new(app_secret.encode(), body, hashlib.sha256).hexdigest()
