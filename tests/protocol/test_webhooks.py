"""Webhooks: their media, other content, signatures and subscriptions."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meta_media.errors import ConfigurationError, PermissionDeniedError
from meta_media.protocol.models import InboundMedia
from meta_media.protocol.webhooks import inbound_media, verify_signature, verify_subscription

REPLIES = Path(__file__).parents[1] / "replies"
HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
MEDIA: dict[str, Any] = {"id": "1", "mime_type": "image/jpeg"}


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


def test_everything_else_is_skipped() -> None:
    """Unsupported, placeholder, edited, revoked and failed messages, echoes, histories, calls and errors hold no media."""
    assert inbound_media(json.loads((REPLIES / "webhook_other.json").read_bytes())) == []


def test_media_of_a_history_is_found() -> None:
    """Media that arrive later, in a `history` change, are media messages like others."""
    payload = webhook({"type": "image", "image": MEDIA})
    payload["entry"][0]["changes"][0]["field"] = "history"
    assert inbound_media(payload) == [InboundMedia(kind="image", **MEDIA)]


def test_little_is_enough() -> None:
    """An id and a type are enough: missing fields are None, and unknown ones are kept."""
    payload = webhook({"type": "image", "image": MEDIA | {"new": 1}})
    (media,) = inbound_media(payload)
    assert (media, media.extra) == (InboundMedia(kind="image", **MEDIA), {"new": 1})


def test_message_outranks_the_media_object() -> None:
    """The fields of the message cannot be overridden from inside its media object."""
    inside = {"kind": "sticker", "sender": "evil", "phone_number_id": "evil"}
    message = {"type": "image", "from": "15550001111", "image": MEDIA | inside}
    (media,) = inbound_media(webhook(message, metadata={"phone_number_id": "106540352242922"}))
    assert (media.kind, media.sender, media.phone_number_id) == ("image", "15550001111", "106540352242922")


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        "image",
        {},
        {"type": "image"},
        {"type": "image", "image": None},
        {"type": "image", "image": [MEDIA]},
        {"type": "image", "video": MEDIA},
        {"type": "contacts", "contacts": MEDIA},
        {"type": ["image"], "image": MEDIA},
        {"type": None, "image": MEDIA},
        {"type": "image", "image": {"id": "1"}},
        {"type": "image", "image": {"mime_type": "image/jpeg"}},
        {"type": "image", "image": MEDIA | {"id": 1}},
        {"type": "image", "image": MEDIA | {"id": None}},
        {"type": "image", "image": MEDIA | {"sha256": "short"}},
        {"type": "image", "image": MEDIA, "from": 15550001111},
        {"type": "image", "image": MEDIA, "timestamp": "soon"},
    ],
    ids=repr,
)
def test_malformed_messages_are_skipped(message: object) -> None:
    """A message without the documented shape is skipped, and its neighbours are not."""
    good = {"type": "image", "image": MEDIA}
    assert inbound_media(webhook(good, message, good)) == [InboundMedia(kind="image", **MEDIA)] * 2


@pytest.mark.parametrize("metadata", [None, [], "x", {}, {"phone_number_id": None}])
def test_missing_metadata(metadata: object) -> None:
    """Without metadata, `phone_number_id` is None."""
    (media,) = inbound_media(webhook({"type": "image", "image": MEDIA}, metadata=metadata))
    assert media.phone_number_id is None


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "",
        7,
        {},
        {"entry": None},
        {"entry": {}},
        {"entry": [None, [], {}]},
        {"entry": [{"changes": {}}]},
        {
            "entry": [
                {"changes": [None, {}, {"value": None}, {"value": []}, {"value": {}}, {"value": {"messages": {}}}]}
            ]
        },
    ],
    ids=repr,
)
def test_malformed_payloads(payload: object) -> None:
    """A payload of any other shape holds no media."""
    assert inbound_media(payload) == []


@given(JSON)
def test_any_json(payload: object) -> None:
    """Any JSON gives a list."""
    assert inbound_media(payload) == []


@given(
    JSON,
    st.dictionaries(st.sampled_from(["id", "mime_type", "sha256", "url", "voice", "caption"]), JSON | st.just("1")),
)
def test_any_json_in_the_right_places(anything: object, media: dict[str, object]) -> None:
    """Any JSON in the documented places raises nothing, and a media has the values of its message."""
    message = {"type": "image", "image": media, "from": anything, "id": anything, "timestamp": anything}
    other = {"type": "image", "image": media}
    found = inbound_media(webhook(message, anything, other, metadata=anything))
    assert all(one.id == media["id"] and one.mime_type == media["mime_type"] for one in found)


def test_deep_payloads() -> None:
    """A payload of the depth that a JSON parser allows is skipped as well."""
    deep: object = None
    for _ in range(900):
        deep = [deep]
    assert inbound_media(webhook({"type": "image", "image": MEDIA | {"id": deep}})) == []


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


def test_empty_secret() -> None:
    """An empty secret, with which anyone could sign, raises ConfigurationError."""
    header = "sha256=" + hmac.new(b"", BODY, hashlib.sha256).hexdigest()
    with pytest.raises(ConfigurationError, match="WA_APP_SECRET"):
        verify_signature("", BODY, header)


HANDSHAKE = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": "pässwörd✓"}


def test_subscription() -> None:
    """The right token, of any characters, returns the challenge."""
    assert verify_subscription(HANDSHAKE, "pässwörd✓") == "1158201444"


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


@given(st.text(st.characters(exclude_categories=())))
@example("another token\ud800")
def test_any_verify_token(token: str) -> None:
    """Any other token raises PermissionDeniedError."""
    params = {**HANDSHAKE, "hub.verify_token": token}
    with pytest.raises(PermissionDeniedError):
        verify_subscription(params, "another token?")
