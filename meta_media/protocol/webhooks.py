"""Webhooks (Meta's page "Webhooks"): what they report, their signature, and the verification of a subscription."""

from __future__ import annotations

import functools
import hashlib
import hmac
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from meta_media.errors import ConfigurationError, InvalidWebhookError, PermissionDeniedError
from meta_media.protocol.convert import hex_digest, media_id, of_type, timestamp
from meta_media.protocol.media_types import kind_of
from meta_media.protocol.models import InboundFailure, InboundMedia, MessageStatus, Webhook
from meta_media.protocol.recipient import Kind, address
from meta_media.protocol.responses import from_json, message_error
from meta_media.protocol.secrets import shown

__all__ = ["inbound_media", "parse_webhook", "verify_signature", "verify_subscription"]

_log: Final = logging.getLogger("meta_media")
_KINDS: Final = ("audio", "document", "image", "sticker", "video")
# The types of messages that have no media, on Meta's pages "Messages webhook reference" and "History webhook".
_WITHOUT_MEDIA: Final = (
    *("button", "contacts", "interactive", "location", "media_placeholder", "order", "reaction", "request_welcome"),
    *("revoke", "system", "template", "text"),
)
_PARTS: Final = ("messages", "message_echoes", "history", "calls", "statuses", "errors", "standby")
_CALLS: Final = ("call_recording", "call_transcript")
# A file that was picked in a WhatsApp Flow has these. It stands under a name that the author of the Flow chose.
_OF_PICKED: Final = frozenset({"file_name", "mime_type", "sha256"})

_text: Final = functools.partial(of_type, kind=str)
_flag: Final = functools.partial(of_type, kind=bool)
# By their names in the JSON: our names, and what makes their values.
_Rules = Mapping[str, tuple[str, Callable[[Any], object]]]
_OF_MEDIA: Final[_Rules] = {
    **{name: (name, _text) for name in ("mime_type", "url", "filename", "caption")},
    **{name: (name, _flag) for name in ("voice", "animated")},
    "sha256": ("sha256", hex_digest),
}
_OF_MESSAGE: Final[_Rules] = {
    "from": ("sender", _text),
    # An echo, and a call by the business, name the person as `to`.
    **{f"{way}_user_id": ("user_id", _text) for way in ("from", "to")},
    **{f"{way}_parent_user_id": ("parent_user_id", _text) for way in ("from", "to")},
    "group_id": ("group_id", _text),
    "id": ("message_id", _text),
    "timestamp": ("timestamp", timestamp),
}
_OF_CONTACT: Final[_Rules] = {name: (name, _text) for name in ("user_id", "parent_user_id", "username")}
_OF_PROFILE: Final[_Rules] = {"name": ("profile_name", _text), "username": ("username", _text)}
_OF_METADATA: Final[_Rules] = {"phone_number_id": ("phone_number_id", _text)}
_OF_STATUS: Final[_Rules] = {**{name: _OF_MESSAGE[name] for name in ("id", "timestamp")}, "status": ("status", _text)}
_OF_FAILURE: Final = ("sender", "user_id", "group_id", "message_id", "timestamp", "phone_number_id")
_Json = Mapping[str, Any]


def parse_webhook(payload: bytes | str | Mapping[str, Any]) -> Webhook:
    """
    Read a webhook: its media, the statuses of sent messages, and messages that could not be received.

    Only a media id is needed to make an `InboundMedia`. Values in an unknown form are logged, and kept in `extra`.

    Args:
        payload: The body of Meta's POST, or the JSON object decoded from it. Verify its signature first.

    Raises:
        InvalidWebhookError: The payload is not a webhook about WhatsApp.
    """
    values = list(_values(_decoded(payload)))
    if not values:
        sentence = "the payload is not a webhook of a WhatsApp account: pass the whole body of Meta's POST"
        raise InvalidWebhookError(sentence)
    reader = _Reader()
    for value, carrier in values:
        reader.read(value, carrier)
    if reader.unread:
        _log.warning("a webhook has %s, which is not read; unread parts: %d", reader.first_unread, reader.unread)
    return Webhook(
        media=tuple(reader.media),
        statuses=tuple(reader.statuses),
        failures=tuple(reader.failures),
        unread=reader.unread,
    )


def inbound_media(payload: bytes | str | Mapping[str, Any]) -> list[InboundMedia]:
    """
    List the media of a webhook, in its order: the `media` of `parse_webhook`.

    Args:
        payload: As for `parse_webhook`.

    Raises:
        InvalidWebhookError: The payload is not a webhook about WhatsApp.
    """
    return list(parse_webhook(payload).media)


def verify_signature(
    app_secret: str | bytes | Collection[str | bytes], body: bytes | str, header: str | bytes | None
) -> bool:
    """
    Return whether Meta signed this body with your app's secret.

    Args:
        app_secret: The app secret of your app's dashboard; or several, while you change it.
        body: The raw body of the request. Decoded and encoded again, the JSON would have other bytes.
        header: Value of `X-Hub-Signature-256`. A missing or malformed one gives False.

    Raises:
        ConfigurationError: A secret is empty, so that anyone could sign; or the body is not raw.
    """
    secrets: Collection[Any] = app_secret if isinstance(app_secret, list | tuple | set | frozenset) else [app_secret]
    if not secrets or not all(isinstance(secret, str | bytes) and secret for secret in secrets):
        raise ConfigurationError("there is no app secret: pass app_secret or set WA_APP_SECRET")
    if not isinstance(body, str | bytes | bytearray | memoryview):
        raise ConfigurationError(f"the body must be the raw bytes of the request, not {type(body).__name__}")
    given = _bytes(header) if isinstance(header, str | bytes) else b""
    digests = (hmac.new(_bytes(secret), _bytes(body), hashlib.sha256).hexdigest() for secret in secrets)
    return any(hmac.compare_digest(f"sha256={digest}".encode(), given) for digest in digests)


def verify_subscription(params: Mapping[str, Any], verify_token: str | bytes) -> str:
    """
    Verify Meta's subscription request, and return its challenge. Respond with status 200 and the bare challenge.

    Args:
        params: Query of Meta's GET: `hub.mode`, `hub.verify_token`, `hub.challenge`. Values are text or bytes, or lists of one.
        verify_token: The verify token of your app's dashboard.

    Raises:
        ConfigurationError: `verify_token` is empty, so that anyone could subscribe; or `params` is no mapping.
        PermissionDeniedError: The request does not have the verify token. Respond with status 403.
    """
    if not verify_token:
        raise ConfigurationError("there is no verify token: pass the one of your app's dashboard")
    if not hasattr(params, "get"):
        kind = type(params).__name__
        raise ConfigurationError(f"params must be the query as a mapping, such as request.query_params, not a {kind}")
    mode, given, challenge = (_parameter(params, f"hub.{name}") for name in ("mode", "verify_token", "challenge"))
    if not hmac.compare_digest(_bytes(given), _bytes(verify_token)) or mode != "subscribe" or not challenge:
        message = "the subscription request does not have the verify token: respond with status 403"
        raise PermissionDeniedError(message, status=403)
    return challenge


def _parameter(params: Mapping[str, Any], name: str) -> str:
    """Return a parameter of a query; an empty text for none. Some frameworks have lists, or bytes, as their values."""
    value = params.get(name)
    value = value[0] if isinstance(value, list) and value else value
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    return value if isinstance(value, str) else ""


def _bytes(value: str | bytes) -> bytes:
    return value.encode(errors="surrogatepass") if isinstance(value, str) else value


def _decoded(payload: object) -> Mapping[str, Any]:
    if isinstance(payload, str | bytes | bytearray | memoryview):
        payload = from_json(bytes(payload) if isinstance(payload, memoryview) else payload)
        if payload is None:
            raise InvalidWebhookError("the payload is not JSON: pass the body of Meta's POST as it came")
    if isinstance(payload, Mapping):
        return payload
    hint = ": await it first" if hasattr(payload, "__await__") else ": pass the body of Meta's POST as it came"
    raise InvalidWebhookError(f"a webhook is bytes, text or a JSON object, not {type(payload).__name__}{hint}")


def _values(payload: _Json) -> Iterator[tuple[_Json, str]]:
    """List the values of a webhook's changes, each with the carrier of its messages."""
    for entry in _items(payload, "entry"):
        for change in _items(entry, "changes"):
            if isinstance(value := change.get("value"), Mapping):
                yield value, "history" if change.get("field") == "history" else "message"
                if isinstance(standby := value.get("standby"), Mapping):
                    yield {"metadata": value.get("metadata"), **standby}, "standby"


def _at(value: Any, *keys: str) -> Any:
    """Return the value at a path of keys, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _items(container: object, key: str) -> list[_Json]:
    items = _at(container, key)
    return [item for item in (items if isinstance(items, list) else []) if isinstance(item, Mapping)]


class _Reader:
    """Reads the values of changes, and keeps what they have."""

    _only_contact: object  # of a value, or of a thread of a history

    def __init__(self) -> None:
        self.media: list[InboundMedia] = []
        self.statuses: list[MessageStatus] = []
        self.failures: list[InboundFailure] = []
        self.unread, self.first_unread = 0, ""

    def read(self, value: _Json, carrier: str) -> None:
        """Read the value of one change."""
        contacts = _items(value, "contacts")
        ids = ((contact.get(name), contact) for name in ("user_id", "wa_id") for contact in contacts)
        self._contacts = {person: contact for person, contact in ids if isinstance(person, str)}
        self._only_contact = only = contacts[0] if len(contacts) == 1 else {}
        for message in _items(value, "messages"):
            self._message(message, value, carrier)
        for message in _items(value, "message_echoes"):
            self._message(message, value, "echo")
        for call in _items(value, "calls"):
            self._call(call, value)
        for status in _items(value, "statuses"):
            self._status(status, value)
        for part in (value, *_items(value, "history")):
            if errors := _items(part, "errors"):
                self._fail(errors, {}, value)
        for thread in (thread for history in _items(value, "history") for thread in _items(history, "threads")):
            self._only_contact = thread.get("context") or only
            for message in _items(thread, "messages"):
                self._message(message, value, "history")
        if not any(key in value for key in _PARTS):
            self._skip("a change with none of messages, statuses and calls")

    def _message(self, message: _Json, value: _Json, carrier: str) -> None:
        kind, errors, found = message.get("type"), _items(message, "errors"), False
        business = _at(value, "metadata", "display_phone_number")
        if isinstance(business, str) and message.get("from") == business:
            carrier = "echo"  # a history has both sides
        for kind_of_media, media, place in _media_objects(message):
            found = True
            self._add(kind_of_media, media, message, value, carrier if carrier == "echo" else place or carrier)
        if errors or kind == "unsupported":
            self._fail(errors, message, value)
        elif not found and kind not in _WITHOUT_MEDIA:
            named = shown(kind) if isinstance(kind, str) else type(kind).__name__
            self._skip(f"a message of type {named} without media")

    def _call(self, call: _Json, value: _Json) -> None:
        for name in _CALLS:
            if found := _objects(call.get(name)):
                self._add(*found[0], call, value, name)
            elif name in call:
                self._skip(f"a {name} without media")

    def _add(self, kind: str, media: _Json, message: _Json, value: _Json, carrier: str) -> None:
        misfits: dict[str, Any] = {}
        known = _fitting(media, {"id": ("id", _any_id), **_OF_MEDIA}, misfits)
        if "id" not in known:
            self._skip("media whose id is not one")
            return
        fields = known | self._about(message, value, misfits)
        if misfits:
            names = ", ".join(misfits)
            _log.warning("media %s of a webhook: %s in an unknown form, kept in extra", known["id"], names)
        others = {name: value for name, value in media.items() if name != "id" and name not in _OF_MEDIA}
        extra = others | misfits
        self.media.append(InboundMedia(kind=kind, carrier=carrier, message=message, extra=extra, **fields))

    def _fail(self, errors: list[_Json], message: _Json, value: _Json) -> None:
        about = self._about(message, value, {})
        fields = {name: about[name] for name in _OF_FAILURE if name in about}
        reasons = tuple(message_error(error) for error in errors)
        self.failures.append(InboundFailure(errors=reasons, message=message, **fields))

    def _status(self, status: _Json, value: _Json) -> None:
        misfits: dict[str, Any] = {}
        fields = _fitting(status, _OF_STATUS, misfits) | _fitting(value.get("metadata"), _OF_METADATA, misfits)
        if not {"message_id", "status"} <= fields.keys():
            self._skip("a status without a message id")
            return
        in_group = status.get("recipient_type") == "group"
        kinds: tuple[Kind, ...] = ("group",) if in_group else ("phone", "user", "group")
        recipient = address(status.get("recipient_id"), *kinds)
        recipient = recipient or address(status.get("recipient_user_id"), "user")
        errors = tuple(message_error(error) for error in _items(status, "errors"))
        extra = {name: other for name, other in status.items() if name not in {*_OF_STATUS, "errors"}} | misfits
        self.statuses.append(MessageStatus(recipient=recipient, errors=errors, extra=extra, **fields))

    def _about(self, message: _Json, value: _Json, misfits: dict[str, Any]) -> dict[str, Any]:
        """Return who sent a message, when, and to which number."""
        fields = _fitting(message, _OF_MESSAGE, misfits) | _fitting(value.get("metadata"), _OF_METADATA, misfits)
        if address(fields.get("sender"), "user"):  # some intermediaries have the user id in the place of the number
            fields = {"user_id": fields.pop("sender"), **fields}
        people = (fields.get("sender"), fields.get("user_id"), message.get("to"))
        theirs = (self._contacts[person] for person in people if isinstance(person, str) and person in self._contacts)
        contact = next(theirs, self._only_contact)
        profile = _fitting(_at(contact, "profile"), _OF_PROFILE, misfits)
        return _fitting(contact, _OF_CONTACT, misfits) | profile | fields

    def _skip(self, what: str) -> None:
        self.unread += 1
        self.first_unread = self.first_unread or what


def _media_objects(message: _Json) -> Iterator[tuple[str, _Json, str | None]]:
    """List the media objects of a message, each with its kind, and with its carrier if that is not the message itself."""
    yield from ((kind, media, None) for kind, media in _objects(message))
    yield from ((kind, media, "edit") for kind, media in _objects(_at(message, "edit", "message")))
    answers = _at(message, "interactive", "nfm_reply", "response_json")
    answers = from_json(answers) if isinstance(answers, str) else answers
    names = answers if isinstance(answers, Mapping) else ()
    for picked in (item for name in names for item in _items(answers, name)):
        if not _OF_PICKED.isdisjoint(picked):
            mime_type = picked.get("mime_type")
            media = {"filename" if key == "file_name" else key: value for key, value in picked.items()}
            yield kind_of(mime_type) if isinstance(mime_type, str) else "document", media, "flow"


def _objects(message: object) -> list[tuple[str, _Json]]:
    """Return the media object of a message: under its type, or, where that is missing, under the name of any kind."""
    if not isinstance(message, Mapping):
        return []
    for kind in (message.get("type"), *_KINDS):
        media = message.get(kind) if isinstance(kind, str) else None
        if isinstance(media, Mapping) and media.get("id") is not None and (kind in _KINDS or "sha256" in media):
            return [(str(kind), media)]
    return []


def _fitting(values: object, rules: _Rules, misfits: dict[str, Any]) -> dict[str, Any]:
    """Return the values that have the documented form, under our names. The others go into `misfits`."""
    fields: dict[str, Any] = {}
    for name, (field, rule) in rules.items():
        value = _at(values, name)
        try:
            fields |= {} if value is None else {field: rule(value)}
        except (TypeError, ValueError, RecursionError):  # of the sentence: a deep value, an int of thousands of digits
            misfits[name] = value
    return fields


def _any_id(value: object) -> str:
    """Accept an id that some program has turned into a number."""
    return media_id(str(value) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else value)
