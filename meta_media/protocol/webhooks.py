"""Webhooks (Meta's page "Webhooks"): their media, their signature, and the verification of a subscription."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import Any, Final

from meta_media.errors import ConfigurationError, PermissionDeniedError
from meta_media.protocol.convert import structure
from meta_media.protocol.models import InboundMedia

__all__ = ["inbound_media", "verify_signature", "verify_subscription"]

_KINDS: Final = ("audio", "document", "image", "sticker", "video")


def inbound_media(payload: object) -> list[InboundMedia]:
    """
    List the media of a webhook's messages, in their order.

    Args:
        payload: The decoded JSON. Other messages, and messages without the documented shape, are skipped.
    """
    return [
        media for value in _values(payload) for message in _items(value, "messages") for media in _media(message, value)
    ]


def verify_signature(app_secret: str, body: bytes, header: str | bytes | None) -> bool:
    """
    Return whether Meta signed this body with your app's secret.

    Args:
        app_secret: The app secret of your app's dashboard.
        body: The raw bytes of the request. Decoded and encoded again, the JSON would have other bytes.
        header: Value of `X-Hub-Signature-256`. A missing or malformed one gives False.

    Raises:
        ConfigurationError: The secret is empty, so that anyone could sign.
    """
    if not app_secret:
        raise ConfigurationError("there is no app secret: pass app_secret or set WA_APP_SECRET")
    expected = b"sha256=" + hmac.new(app_secret.encode(), body, hashlib.sha256).hexdigest().encode()
    given = header.encode(errors="surrogatepass") if isinstance(header, str) else header or b""
    return hmac.compare_digest(expected, given)


def verify_subscription(params: Mapping[str, str], verify_token: str) -> str:
    """
    Verify Meta's subscription request, and return its challenge. Respond with status 200 and the bare challenge.

    Args:
        params: Query of Meta's GET: `hub.mode`, `hub.verify_token`, `hub.challenge`.
        verify_token: The verify token of your app's dashboard.

    Raises:
        ConfigurationError: `verify_token` is empty, so that anyone could subscribe.
        PermissionDeniedError: The request does not have the verify token. Respond with status 403.
    """
    if not verify_token:
        raise ConfigurationError("there is no verify token: pass the one of your app's dashboard")
    given = params.get("hub.verify_token") or ""
    challenge = params.get("hub.challenge")
    same = hmac.compare_digest(given.encode(errors="surrogatepass"), verify_token.encode(errors="surrogatepass"))
    if not same or params.get("hub.mode") != "subscribe" or not challenge:
        message = "the subscription request does not have the verify token: respond with status 403"
        raise PermissionDeniedError(message, status=403)
    return challenge


def _values(payload: object) -> Iterator[Mapping[str, Any]]:
    for entry in _items(payload, "entry"):
        for change in _items(entry, "changes"):
            if isinstance(value := change.get("value"), Mapping):
                yield value


def _items(container: object, key: str) -> Iterator[Mapping[str, Any]]:
    items = container.get(key) if isinstance(container, Mapping) else None
    yield from (item for item in (items if isinstance(items, list) else []) if isinstance(item, Mapping))


def _media(message: Mapping[str, Any], value: Mapping[str, Any]) -> Iterator[InboundMedia]:
    kind = message.get("type")
    if kind not in _KINDS or not isinstance(media := message.get(kind), Mapping):
        return
    metadata = value.get("metadata")
    number = metadata.get("phone_number_id") if isinstance(metadata, Mapping) else None
    names = {"sender": "from", "message_id": "id", "timestamp": "timestamp"}
    fields = {ours: message[theirs] for ours, theirs in names.items() if theirs in message}
    try:
        yield structure(InboundMedia, {**media, **fields, "kind": kind, "phone_number_id": number})
    except ValueError:
        return
