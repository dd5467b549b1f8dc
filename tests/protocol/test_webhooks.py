"""Webhooks: their media, other content, signatures and subscriptions."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meta_media.errors import (
    ApiError,
    ConfigurationError,
    InvalidRequestError,
    InvalidWebhookError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UploadRejectedError,
)
from meta_media.protocol.models import InboundMedia, MessageStatus
from meta_media.protocol.recipient import Recipient
from meta_media.protocol.webhooks import inbound_media, parse_webhook, verify_signature, verify_subscription

REPLIES = Path(__file__).parents[1] / "replies"
HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
MEDIA: dict[str, Any] = {"id": "1", "mime_type": "image/jpeg"}
PHONE, USER = Recipient.phone("15550001111"), "US.13491208655302741918"
GROUP = Recipient.group("Y2FwaV9n")


def webhook(*messages: object, **value: object) -> dict[str, Any]:
    """Wrap messages in the payload of a webhook."""
    return {"entry": [{"changes": [{"field": "messages", "value": {"messages": list(messages), **value}}]}]}


def test_all_kinds_in_order() -> None:
    """All five kinds of media are listed with every field, in the order of entries, changes and messages."""
    payload = json.loads((REPLIES / "webhook_media.json").read_bytes())

    def at(second: int) -> dict[str, Any]:
        return {
            "id": f"104550001234567{second}",
            "sha256": HEX,
            "sender": "15550001111",
            "user_id": "BR.1382",
            "profile_name": "Zoë",
            "message_id": f"wamid.HBgL{second}",
            "timestamp": datetime(2026, 11, 22, 10, 6, 40 + second, tzinfo=UTC),
            "phone_number_id": "106540352242922",
        }

    url = "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid={}&source=webhook&ext={}&hash=ARk0"
    assert inbound_media(payload) == [
        InboundMedia(
            kind="image",
            mime_type="image/jpeg",
            caption="leaf",
            url=url.format("1045500012345671", "1795342302"),
            **at(1),
        ),
        InboundMedia(kind="video", mime_type="video/mp4", caption="river", **at(2)),
        InboundMedia(
            kind="audio",
            mime_type="audio/ogg; codecs=opus",
            voice=True,
            url=url.format("1045500012345674", "1795342305"),
            **at(4),
        ),
        InboundMedia(
            kind="document", mime_type="application/msword", filename="../órder.doc", caption="Your order", **at(5)
        ),
        InboundMedia(
            kind="sticker", mime_type="image/webp", animated=True, **at(6) | {"phone_number_id": "106540352242999"}
        ),
    ]


def test_urls_of_webhooks_expire() -> None:
    """A URL in a webhook expires five minutes after the message."""
    first, *_ = inbound_media(json.loads((REPLIES / "webhook_media.json").read_bytes()))
    assert first.url_expires_at == datetime(2026, 11, 22, 10, 11, 42, tzinfo=UTC)


def test_other_carriers() -> None:
    """Media of an edit, an echo and a call's transcript are found; failures are listed, and nothing is left unread."""
    webhook = parse_webhook((REPLIES / "webhook_other.json").read_bytes())
    assert [(media.carrier, media.kind, media.message_id) for media in webhook.media] == [
        ("edit", "image", "wamid.3"),
        ("echo", "image", "wamid.8"),
        ("call_transcript", "document", None),
    ]
    assert [media.reply_address for media in webhook.media] == [PHONE, PHONE, None]
    assert [(failure.message_id, failure.errors[0].code) for failure in webhook.failures] == [
        ("wamid.1", 131051),
        ("wamid.6", 131052),
        (None, 131000),
    ]
    assert (webhook.statuses, webhook.unread) == ((), 0)


def test_an_edit_by_the_business_is_an_echo() -> None:
    """What the business itself has changed is an echo, so that no bot replies to it."""
    edit = {"type": "edit", "edit": {"message": {"type": "image", "image": MEDIA}}, "from": "15550783881"}
    (media,) = inbound_media({"entry": [{"changes": [{"value": {"message_echoes": [edit]}}]}]})
    assert (media.carrier, media.reply_address) == ("echo", None)


def test_people_without_a_number() -> None:
    """A person with a username may have no phone number: the user id names them, and is where to reply."""
    message = {"from_user_id": USER, "from_parent_user_id": "US.ENT.1", "type": "image", "image": MEDIA}
    (media,) = inbound_media(webhook(message))
    assert (media.sender, media.user_id, media.parent_user_id) == (None, USER, "US.ENT.1")
    assert media.reply_address == Recipient.user(USER)
    assert USER in str(attrs.asdict(media))


def test_a_user_id_in_the_place_of_the_number() -> None:
    """Some intermediaries write the user id into `from`."""
    (media,) = inbound_media(webhook({"from": USER, "type": "image", "image": MEDIA}, contacts=[{"wa_id": USER}]))
    assert (media.sender, media.user_id, media.reply_address) == (None, USER, Recipient.user(USER))


def test_contacts_belong_to_messages() -> None:
    """Of several contacts, the one with the sender's number or user id counts; of one, that one."""
    contacts = [
        {"wa_id": "1", "profile": {"name": "one"}},
        {"wa_id": "2", "profile": {"name": "two"}},
        {"user_id": "US.3", "parent_user_id": "US.ENT.3", "profile": {"name": "three"}},
    ]
    senders: list[dict[str, Any]] = [{"from": "2"}, {"from_user_id": "US.3"}, {"from": "4"}]
    messages = [{**sender, "type": "image", "image": MEDIA} for sender in senders]
    found = inbound_media(webhook(*messages, contacts=contacts))
    assert [media.profile_name for media in found] == ["two", "three", None]
    assert [media.parent_user_id for media in found] == [None, "US.ENT.3", None]
    (only,) = inbound_media(webhook(messages[2], contacts=contacts[:1]))
    assert only.profile_name == "one"
    (both,) = inbound_media(webhook({"from": "1", **messages[1]}, contacts=[{"wa_id": "1", "user_id": "US.old"}]))
    assert both.user_id == "US.3"


def test_media_of_a_history_is_found() -> None:
    """Media that arrive later, in a `history` change, are media messages like others."""
    payload = webhook({"type": "image", "image": MEDIA})
    payload["entry"][0]["changes"][0]["field"] = "history"
    assert inbound_media(payload) == [InboundMedia(kind="image", carrier="history", **MEDIA)]


def test_little_is_enough() -> None:
    """An id is enough: missing fields are None, and unknown ones are kept."""
    payload = webhook({"image": {"id": "1", "new": 1}})
    (media,) = inbound_media(payload)
    assert (media, media.extra) == (InboundMedia(id="1", kind="image"), {"new": 1})


def test_message_outranks_the_media_object() -> None:
    """The fields of the message cannot be overridden from inside its media object."""
    inside = {"kind": "sticker", "sender": "evil", "phone_number_id": "evil", "carrier": "evil", "message": "evil"}
    message = {"type": "image", "from": "15550001111", "image": MEDIA | inside}
    (media,) = inbound_media(webhook(message, metadata={"phone_number_id": "106540352242922"}))
    assert (media.kind, media.sender, media.phone_number_id) == ("image", "15550001111", "106540352242922")
    assert (media.carrier, media.message, media.extra) == ("message", message, inside)


def test_later_kinds() -> None:
    """A kind of media that Meta invents is found by its id and its hash."""
    (media,) = inbound_media(webhook({"type": "hologram", "hologram": MEDIA | {"sha256": HEX}}))
    assert (media.id, media.kind) == ("1", "hologram")


@pytest.mark.parametrize(
    ("message", "name", "value"),
    [
        ({"image": MEDIA | {"sha256": "short"}}, "sha256", "short"),
        ({"image": MEDIA | {"url": ["x"]}}, "url", ["x"]),
        ({"image": MEDIA | {"mime_type": 7}}, "mime_type", 7),
        ({"image": MEDIA | {"voice": "yes"}}, "voice", "yes"),
        ({"image": MEDIA, "from": 15550001111}, "from", 15550001111),
        ({"image": MEDIA, "timestamp": "soon"}, "timestamp", "soon"),
        ({"image": MEDIA, "id": {}}, "id", {}),
    ],
)
def test_what_does_not_fit(message: dict[str, Any], name: str, value: object, caplog: pytest.LogCaptureFixture) -> None:
    """A value in an unknown form is None, is kept in `extra` and is logged by its name; the media is not lost."""
    (media,) = inbound_media(webhook({"type": "image", **message}))
    expected = InboundMedia(kind="image", **MEDIA)
    assert media == (attrs.evolve(expected, mime_type=None) if name == "mime_type" else expected)
    assert media.extra == {name: value}
    assert [record.getMessage() for record in caplog.records] == [
        f"media 1 of a webhook: {name} in an unknown form, kept in extra"
    ]


def test_ids_as_numbers() -> None:
    """An id that some program has turned into a number is an id."""
    assert [media.id for media in inbound_media(webhook({"type": "image", "image": {"id": 10**15}}))] == [
        "1" + "0" * 15
    ]


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({}, "a message of type NoneType without media"),
        ({"type": "image"}, "a message of type 'image' without media"),
        ({"type": "image", "image": None}, "a message of type 'image' without media"),
        ({"type": "image", "image": [MEDIA]}, "a message of type 'image' without media"),
        ({"type": "image", "image": {"mime_type": "image/jpeg"}}, "a message of type 'image' without media"),
        ({"type": "hologram", "hologram": MEDIA}, "a message of type 'hologram' without media"),
        ({"type": ["image"]}, "a message of type list without media"),
        ({"type": "image", "image": MEDIA | {"id": "../1"}}, "media whose id is not one"),
        ({"type": "image", "image": MEDIA | {"id": True}}, "media whose id is not one"),
        ({"type": "image", "image": MEDIA | {"id": -1}}, "media whose id is not one"),
        ({"type": "image", "image": MEDIA | {"id": ["1"]}}, "media whose id is not one"),
    ],
    ids=repr,
)
def test_unread_messages(message: object, sentence: str, caplog: pytest.LogCaptureFixture) -> None:
    """A message that may have media, but none with an id, is counted and logged; its neighbours are read."""
    good = {"type": "image", "image": MEDIA}
    found = parse_webhook(webhook(good, message, good))
    assert (found.media, found.unread) == ((InboundMedia(kind="image", **MEDIA),) * 2, 1)
    assert [record.getMessage() for record in caplog.records] == [
        f"a webhook has {sentence}, which is not read; unread parts: 1"
    ]


@pytest.mark.parametrize(
    ("value", "unread"),
    [
        ({"messages": [{"type": "text", "text": {"body": "x"}}, {"type": "system"}, {"type": "revoke"}]}, 0),
        ({"messages": [{"type": "interactive", "interactive": {"nfm_reply": {"response_json": "{"}}}]}, 0),
        ({"calls": [{"event": "terminate"}]}, 0),
        ({"calls": [{"call_recording": {"audio": {}}}]}, 1),
        ({"statuses": [{"status": "sent"}, {"id": "wamid.1"}]}, 2),
        ({"event": "PARTNER_REMOVED"}, 1),
        ({"messages": [None, "x", 7]}, 0),
        ({"messages": {}, "contacts": 7, "statuses": None}, 0),
    ],
)
def test_values_without_media(value: dict[str, Any], unread: int) -> None:
    """Messages that have no media by their type are nothing unread; changes of other fields are."""
    found = parse_webhook({"entry": [{"changes": [{"value": value}]}]})
    assert (found.media, found.unread) == ((), unread)


@pytest.mark.parametrize(
    ("code", "kind"), [(131051, InvalidRequestError), (131052, UploadRejectedError), (131060, InvalidRequestError)]
)
def test_failures(code: int, kind: type[ApiError]) -> None:
    """A message that could not be received has its reasons as errors, and where to ask for it again."""
    errors = [{"code": code, "title": "Gone", "error_data": {"details": "Ask again."}}]
    message = {
        "from_user_id": USER,
        "id": "wamid.1",
        "timestamp": "1795342000",
        "type": "unsupported",
        "errors": errors,
    }
    webhook_ = parse_webhook(webhook(message, {"type": "unsupported", "from": "15550001111"}))
    first, second = webhook_.failures
    (error,) = first.errors
    assert (type(error), error.code, error.status) == (kind, code, None)
    assert str(error) == f"Gone: Ask again. (code {code})"
    assert (first.message_id, first.reply_address, first.message) == ("wamid.1", Recipient.user(USER), message)
    assert (second.errors, second.reply_address) == ((), PHONE)


@pytest.mark.parametrize(
    ("status", "recipient"),
    [
        ({"recipient_id": "15550001111", "recipient_user_id": USER}, PHONE),
        ({"recipient_user_id": USER}, Recipient.user(USER)),
        ({"recipient_id": USER}, Recipient.user(USER)),
        ({"recipient_id": "Y2FwaV9n=="}, Recipient.group("Y2FwaV9n==")),
        ({"recipient_id": "Y2FwaV9n", "recipient_type": "group", "recipient_participant_id": "15550001111"}, GROUP),
        ({"recipient_id": "Y2FwaV9n", "recipient_type": "group", "recipient_participant_user_id": USER}, GROUP),
        ({"recipient_id": "120363027", "recipient_type": "group"}, Recipient.group("120363027")),
        ({"recipient_id": "15550001111", "recipient_type": "individual"}, PHONE),
        ({"recipient_id": 7}, None),
        ({}, None),
    ],
)
def test_statuses(status: dict[str, Any], recipient: Recipient | None) -> None:
    """A status names its message, its recipient of any kind, and its time."""
    whole = {
        "id": "wamid.1",
        "status": "delivered",
        "timestamp": "1795342000",
        "biz_opaque_callback_data": "7",
        **status,
    }
    payload = {"entry": [{"changes": [{"value": {"statuses": [whole], "metadata": {"phone_number_id": "1"}}}]}]}
    time = datetime(2026, 11, 22, 10, 6, 40, tzinfo=UTC)
    (found,) = parse_webhook(payload).statuses
    assert found == MessageStatus(
        message_id="wamid.1", status="delivered", recipient=recipient, timestamp=time, phone_number_id="1"
    )
    assert found.extra == {"biz_opaque_callback_data": "7", **status}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (131053, UploadRejectedError),
        (130429, RateLimitError),
        (131000, ServerError),
        (131026, InvalidRequestError),
        (131062, InvalidRequestError),
    ],
)
def test_failed_statuses(code: int, kind: type[ApiError]) -> None:
    """The errors of a failed status are those that a response with their code would raise."""
    details = {"details": "application/octet-stream is not supported"}
    error = {"code": code, "title": "Failed", "message": "Failed", "error_data": details, "href": "/docs"}
    status = {"id": "wamid.1", "status": "failed", "errors": [error, None]}
    ((found,),) = (
        one.errors for one in parse_webhook({"entry": [{"changes": [{"value": {"statuses": [status]}}]}]}).statuses
    )
    assert type(found) is kind
    assert (found.code, found.details, found.status) == (code, details["details"], None)
    assert ("send it to a phone number" in str(found)) == (code == 131062)


@pytest.mark.parametrize("metadata", [None, [], "x", {}, {"phone_number_id": None}])
def test_missing_metadata(metadata: object) -> None:
    """Without metadata, `phone_number_id` is None."""
    (media,) = inbound_media(webhook({"type": "image", "image": MEDIA}, metadata=metadata))
    assert media.phone_number_id is None


@pytest.mark.parametrize("form", [str, bytes, bytearray, memoryview, dict, MappingProxyType])
def test_forms_of_a_payload(form: Callable[[Any], Any]) -> None:
    """The body as bytes or text, and the object decoded from it, are the same webhook."""
    payload = webhook({"type": "image", "image": MEDIA})
    text = json.dumps(payload)
    given_form = form(payload) if form in {dict, MappingProxyType} else text if form is str else form(text.encode())
    assert inbound_media(given_form) == [InboundMedia(kind="image", **MEDIA)]


NOT_JSON = "the payload is not JSON: pass the body of Meta's POST as it came"
NOT_META = "the payload is not a webhook of a WhatsApp account: pass the whole body of Meta's POST"


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        *((payload, NOT_JSON) for payload in ("", b"", "{", b"\xff", b"entry=1", "[" * 100_000, "1" * 10_000, b"null")),
        ({}, NOT_META),
        ("{}", NOT_META),
        ({"entry": None}, NOT_META),
        ({"entry": {}}, NOT_META),
        ({"entry": []}, NOT_META),
        ({"entry": [None, [], {}]}, NOT_META),
        ({"object": "page", "entry": [{"messaging": [{"message": {}}]}]}, NOT_META),
        ({"entry": [{"changes": {}}]}, NOT_META),
        ({"entry": [{"changes": [None, {}, {"value": None}, {"value": []}]}]}, NOT_META),
        (webhook({"type": "image", "image": MEDIA})["entry"][0], NOT_META),
        (None, "a webhook is bytes, text or a JSON object, not NoneType: pass the body of Meta's POST as it came"),
        ([], "a webhook is bytes, text or a JSON object, not list: pass the body of Meta's POST as it came"),
        ("[]", "a webhook is bytes, text or a JSON object, not list: pass the body of Meta's POST as it came"),
        (7, "a webhook is bytes, text or a JSON object, not int: pass the body of Meta's POST as it came"),
        (asyncio.Future, "a webhook is bytes, text or a JSON object, not type: await it first"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_is_no_webhook(payload: Any, sentence: str) -> None:
    """What is no webhook raises InvalidWebhookError, and the error has nothing of the payload."""
    for read in (parse_webhook, inbound_media):
        with pytest.raises(InvalidWebhookError) as caught:
            read(payload)
        assert str(caught.value) == sentence
        assert caught.value.__context__ is None


@given(JSON)
def test_any_json(payload: Any) -> None:
    """Any JSON that is no webhook is an InvalidWebhookError."""
    with pytest.raises(InvalidWebhookError):
        parse_webhook(payload)


@given(
    JSON,
    st.dictionaries(st.sampled_from(["id", "mime_type", "sha256", "url", "voice", "caption"]), JSON | st.just("1")),
)
def test_any_json_in_the_right_places(anything: object, media: dict[str, object]) -> None:
    """Any JSON in the documented places raises nothing, and a media with an id is found."""
    message = {"type": "image", "image": media, "from": anything, "id": anything, "timestamp": anything}
    other = {"image": media, "edit": anything, "interactive": anything, "errors": anything, "to": anything}
    value = dict.fromkeys(("contacts", "statuses", "calls", "history", "standby", "errors"), anything)
    found = parse_webhook(webhook(message, anything, other, metadata=anything, **value))
    media_id = media.get("id")
    assert {one.id for one in found.media} <= {"1", str(media_id)}
    assert media_id != "1" or len(found.media) == 2


def test_deep_payloads() -> None:
    """Values that are deeper than Python's recursion are kept as they are."""
    deep: object = None
    for _ in range(5000):
        deep = [deep]
    misfits = dict.fromkeys(("sha256", "caption"), deep)
    messages = [
        {"image": MEDIA | {"id": deep}},
        {"image": MEDIA | misfits},
        {"type": deep},
        {"edit": deep, "errors": deep},
    ]
    found = parse_webhook(webhook(*messages, contacts=deep, metadata=deep))
    assert ([sorted(media.extra) for media in found.media], found.unread) == ([["caption", "sha256"]], 3)


BODY = rb'{"text":"caf\u00e9","url":"https:\/\/example.com\/"}'
SIGNED = "sha256=77a2f3afa17df13a16e30df396efa6ebdc20d15c03ef1d1dab386d79dfe461b9"  # by openssl dgst -sha256 -hmac


@pytest.mark.parametrize(
    ("secret", "body", "header"),
    [
        ("app-secret", BODY, SIGNED),
        ("app-secret", BODY, SIGNED.encode()),
        (  # RFC 4231, test case 2
            "Jefe",
            b"what do ya want for nothing?",
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
    ],
)
def test_known_signatures(secret: str, body: bytes, header: str | bytes) -> None:
    """Signatures of other programs are accepted, as text and as bytes."""
    assert verify_signature(secret, body, header) is True


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.binary())
def test_signatures_of_any_body(secret: str, body: bytes) -> None:
    """For any secret and body, only the right signature is accepted."""
    header = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert verify_signature(secret, body, header) is True
    assert verify_signature(secret, body + b" ", header) is False
    assert verify_signature(secret + "x", body, header) is False


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        b"",
        "sha256=",
        SIGNED.removeprefix("sha256="),
        SIGNED.replace("sha256", "sha1"),
        SIGNED.upper(),
        SIGNED.replace("77a2", "77A2"),
        SIGNED[:-1],
        SIGNED + "0",
        SIGNED + "\n",
        " " + SIGNED,
        SIGNED.replace("77", "78"),
        SIGNED.replace("7", "\uff17"),
        SIGNED.replace("7", "\u0667"),
        "sha256=" + "é" * 64,
        "sha256=" + "\ud800" * 64,
        b"\xff" * 71,
        bytes(71),
    ],
    ids=ascii,
)
def test_wrong_signatures(header: str | bytes | None) -> None:
    """A missing, malformed or wrong signature gives False and never raises."""
    assert verify_signature("app-secret", BODY, header) is False


@pytest.mark.parametrize(
    "body", [BODY, BODY.decode(), bytearray(BODY), memoryview(BODY)], ids=lambda body: type(body).__name__
)
@pytest.mark.parametrize("secret", ["app-secret", b"app-secret", ["new", "app-secret"], (b"app-secret", "new")])
def test_forms_of_secrets_and_bodies(secret: Any, body: Any) -> None:
    """Secret and body are text or bytes. While a secret is being changed, both are accepted."""
    assert verify_signature(secret, body, SIGNED) is True
    assert verify_signature(["new", b"newer"], body, SIGNED) is False


@pytest.mark.parametrize("body", [json.loads(BODY), None, ["x"]])
def test_bodies_that_are_not_raw(body: Any) -> None:
    """A body that was decoded is refused, because it has no signature any more."""
    with pytest.raises(ConfigurationError, match=r"^the body must be the raw bytes of the request, not "):
        verify_signature("app-secret", body, SIGNED)


@given(st.none() | st.text(st.characters(exclude_categories=())) | st.binary())
@example("sha256=?")
def test_any_header(header: str | bytes | None) -> None:
    """No header that was made without the secret is accepted."""
    assert verify_signature("app-secret", BODY, header) is False


@pytest.mark.parametrize(
    "body", [BODY.replace(rb"\/", b"/"), BODY.replace(rb"\u00e9", "é".encode()), BODY + b"\n", BODY[:-1], b""]
)
def test_reserialised_bodies(body: bytes) -> None:
    """Only the raw bytes match; the same JSON in other bytes does not."""
    assert verify_signature("app-secret", body, SIGNED) is False


@pytest.mark.parametrize("secret", ["", b"", None, [], [""], ["app-secret", ""], ["app-secret", None]])
def test_empty_secret(secret: Any) -> None:
    """An empty secret, with which anyone could sign, raises ConfigurationError; also beside another one."""
    header = "sha256=" + hmac.new(b"", BODY, hashlib.sha256).hexdigest()
    with pytest.raises(ConfigurationError, match="WA_APP_SECRET"):
        verify_signature(secret, BODY, header)


HANDSHAKE = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": "pässwörd✓"}


def test_subscription() -> None:
    """The right token, of any characters, returns the challenge."""
    for token in ("pässwörd✓", "pässwörd✓".encode()):
        assert verify_subscription(HANDSHAKE, token) == "1158201444"


@pytest.mark.parametrize(
    "form", [list, str.encode, lambda text: [text.encode()]], ids=["lists", "bytes", "lists of bytes"]
)
def test_forms_of_a_query(form: Callable[[str], Any]) -> None:
    """Frameworks give a query as text, as bytes, or as lists of one or the other."""
    params = {name: [value] if form is list else form(value) for name, value in HANDSHAKE.items()}
    assert verify_subscription(params, "pässwörd✓") == "1158201444"
    with pytest.raises(PermissionDeniedError):
        verify_subscription(params | {"hub.challenge": [], "hub.mode": 7}, "pässwörd✓")


@pytest.mark.parametrize(
    "changes",
    [
        {"hub.mode": "unsubscribe"},
        {"hub.mode": ""},
        {"hub.mode": None},
        {"hub.challenge": ""},
        {"hub.challenge": None},
        {"hub.verify_token": "passwrd"},
        {"hub.verify_token": "pässwörd✓ "},
        {"hub.verify_token": "PÄSSWÖRD✓"},
        {"hub.verify_token": "pa\u0308sswo\u0308rd✓"},
        {"hub.verify_token": "\ud800"},
        {"hub.verify_token": ""},
        {"hub.verify_token": None},
    ],
    ids=ascii,
)
def test_wrong_subscriptions(changes: dict[str, str | None]) -> None:
    """Another token or mode, or a missing challenge, raises an error with the status of the response."""
    params = {name: value for name, value in (HANDSHAKE | changes).items() if value is not None}
    with pytest.raises(PermissionDeniedError, match="does not have the verify token") as caught:
        verify_subscription(params, "pässwörd✓")
    assert caught.value.status == 403
    assert "pässwörd" not in str(caught.value)


@pytest.mark.parametrize("params", [{}, HANDSHAKE, {**HANDSHAKE, "hub.verify_token": ""}])
def test_subscription_without_a_token(params: dict[str, str]) -> None:
    """An empty verify token raises ConfigurationError, even for a request with an empty one."""
    with pytest.raises(ConfigurationError, match="verify token"):
        verify_subscription(params, "")


@pytest.mark.parametrize("params", ["hub.mode=subscribe", None])
def test_a_subscription_that_is_text(params: Any) -> None:
    """The query as text, or none, is told apart from one with another token."""
    with pytest.raises(
        ConfigurationError, match=r"^params must be the query as a mapping, such as request\.query_params"
    ):
        verify_subscription(params, "token")


@given(st.text(st.characters(exclude_categories=())))
@example("another token\ud800")
def test_any_verify_token(token: str) -> None:
    """Any other token raises PermissionDeniedError."""
    params = {**HANDSHAKE, "hub.verify_token": token}
    with pytest.raises(PermissionDeniedError):
        verify_subscription(params, "another token?")
