"""Messages: what is sent, to whom, what Meta would refuse, and read receipts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from pywa_async.client import WhatsApp
from pywa_async.errors import BSUIDRecipientNotSupported
from pywa_async.types.callback import Button
from pywa_async.types.templates import AuthenticationBody, HeaderImage, OneTapOTPButton, TemplateLanguage

from meta_media import Recipient
from meta_media.emulator import Emulator, Fault
from meta_media.errors import InvalidRequestError

BASE: dict[str, Any] = {"messaging_product": "whatsapp", "to": "15550001111"}
Send = Callable[[dict[str, Any]], Awaitable[httpx.Response]]


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    """A plain client that sends the default token."""
    headers = {"authorization": f"Bearer {emulator.access_token}"}
    async with httpx.AsyncClient(base_url=emulator.base_url, headers=headers, trust_env=False) as connected:
        yield connected


@pytest.fixture
def send(emulator: Emulator, http: httpx.AsyncClient) -> Send:
    """A function that sends a message: what it is given, and what all messages need."""
    return lambda message: http.post(f"/v25.0/{emulator.phone_number_id}/messages", json=BASE | message)


def template(*parts: Any, **more: Any) -> dict[str, Any]:
    """Return a template message."""
    content = {"name": "order", "language": {"code": "en"}, "components": list(parts)}
    return {"type": "template", "template": content | more}


def interactive(**header: Any) -> dict[str, Any]:
    """Return an interactive message with a header."""
    content = {"type": "button", "header": {"type": next(iter(header))} | header, "action": {"buttons": []}}
    return {"type": "interactive", "interactive": content}


async def upload(http: httpx.AsyncClient, number: str, mime_type: str) -> str:
    """Upload a file of a type, and return its id."""
    file = {"file": ("a", b"x", mime_type)}
    response = await http.post(f"/v25.0/{number}/media", data={"messaging_product": "whatsapp"}, files=file)
    return str(response.json()["id"])


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Return the code of an error, and its reason: the details, or the message."""
    assert response.status_code == 400
    error = response.json()["error"]
    return error["code"], error.get("error_data", {"details": error["message"]})["details"]


@pytest.mark.parametrize(
    ("kind", "mime_type"),
    [
        ("image", "image/png"),
        ("video", "video/mp4"),
        ("audio", "audio/ogg"),
        ("document", "image/png"),
        ("sticker", "image/webp"),
    ],
)
async def test_send(emulator: Emulator, http: httpx.AsyncClient, send: Send, kind: str, mime_type: str) -> None:
    """Media is sent by its id, or by a link that is not followed, and each message is remembered; null is nothing."""
    media_id = await upload(http, emulator.phone_number_id, mime_type)
    for media in ({"id": media_id}, {"link": "https://example.com/a"}):
        message = {"to": "+1 555 000 1111", "type": kind, kind: media}
        nulls: dict[str, Any] = {kind: media | dict.fromkeys(("id", "link", "caption", "filename", "voice")) | media}
        body = (await send(message | nulls | {"recipient": None, "context": None, "recipient_type": None})).json()
        assert list(body) == ["messaging_product", "contacts", "messages"]
        assert body["contacts"] == [{"input": "+1 555 000 1111", "wa_id": "15550001111"}]
        message_id = body["messages"][0]["id"]
        assert message_id.startswith("wamid.HBgL")
        extra = {"message_id": message_id, "phone_number_id": emulator.phone_number_id}
        assert emulator.messages[-1] == BASE | message | extra


@pytest.mark.parametrize(
    "message",
    [
        {"type": "text", "text": {"body": "x" * 4096, "preview_url": False}},
        {"text": {"body": "hi"}},
        {"text": {"body": "hi"}, "recipient_type": "group", "to": "Y2FwaV9n"},
        {"text": {"body": "hi"}, "to": None, "recipient": "US.1349"},
        {"type": "reaction", "reaction": {"message_id": "wamid.1", "emoji": ""}},
        {"type": "location", "location": {"latitude": 0, "longitude": "8.5", "name": "a", "address": "b"}},
        {"type": "contacts", "contacts": [{"name": {"formatted_name": "a"}}]},
        {"type": "interactive", "interactive": {"type": "flow", "action": {"flow_action_payload": {"image": "x"}}}},
        {"type": "document", "document": {"link": "http://a", "caption": "x" * 1024, "filename": "a.pdf"}},
        {"type": "audio", "audio": {"link": "http://a", "voice": True}},
    ],
)
async def test_what_else_is_sent(emulator: Emulator, send: Send, message: dict[str, Any]) -> None:
    """Text, with `type` or without, and the other kinds are accepted, at the limits of Meta's guides."""
    response = await send(message)
    assert response.status_code == 200, response.text
    given = {name: value for name, value in (BASE | message).items() if value is not None}
    assert emulator.messages[-1].items() >= given.items()


async def test_media_in_headers(emulator: Emulator, http: httpx.AsyncClient, send: Send) -> None:
    """Templates, cards of a carousel and interactive messages have a media header by id; a template has a status."""
    for kind, mime_type in (("image", "image/jpeg"), ("video", "video/mp4"), ("document", "application/pdf")):
        media = {"id": await upload(http, emulator.phone_number_id, mime_type)}
        header = {"type": "header", "parameters": [{"type": kind, kind: media}]}
        carousel = {"type": "carousel", "cards": [{"card_index": 0, "components": [header]}]}
        for message in (template(header), template(carousel), template({"type": "HEADER"} | header)):
            sent = await send(message)
            assert sent.json()["messages"][0]["message_status"] == "accepted"
        plain = await send(interactive(**{kind: media}))
        assert list(plain.json()["messages"][0]) == ["id"]
    card = {"type": "carousel", "cards": [{"components": [{"type": "header", "parameters": [{"image": media}]}]}]}
    where = "template['components'][1]['cards'][0]['components'][0]['parameters'][0]['image']['id']"
    refused = await send(template({"type": "body"}, card))
    assert refusal(refused) == (131009, f"{where} is media of type application/pdf.")


async def test_one_time_passwords(send: Send) -> None:
    """A template with a code goes to a number, whether or not a user id is given; another button goes to anyone."""
    both = template(*ONE_TIME_PASSWORD) | {"recipient": "US.1349"}
    button = {"type": "button", "sub_type": "url", "index": "0", "parameters": [{"type": "text", "text": "path"}]}
    other = template(ONE_TIME_PASSWORD[0], button) | {"to": None, "recipient": "US.1349"}
    plain = template({"type": "body"}, {"type": "button"}) | {"to": None, "recipient": "US.1349"}
    assert [(await send(message)).status_code for message in (both, other, plain)] == [200, 200, 200]


async def test_read_receipts(emulator: Emulator, send: Send) -> None:
    """A read receipt, with a typing indicator or without, is a success and no message."""
    for more in ({}, {"typing_indicator": {"type": "text"}}, {"typing_indicator": None}):
        response = await send({"status": "read", "message_id": "wamid.HBgL", "to": None} | more)
        assert (response.status_code, response.json()) == (200, {"success": True})
    assert emulator.messages == []


@pytest.mark.parametrize(
    ("address", "contact", "group"),
    [
        ({"to": "+15550001111"}, {"input": "+15550001111", "wa_id": "15550001111"}, {}),
        ({"to": 15550001111}, {"input": "15550001111", "wa_id": "15550001111"}, {}),
        ({"recipient": "US.1349"}, {"input": "US.1349", "user_id": "US.1349"}, {}),
        ({"recipient": "US.ENT.1349", "to": None}, {"input": "US.ENT.1349", "user_id": "US.ENT.1349"}, {}),
        ({"recipient": "US.1349", "to": "15550001111"}, {"input": "15550001111", "wa_id": "15550001111"}, {}),
        ({"recipient": "no user id", "to": "15550001111"}, {"input": "15550001111", "wa_id": "15550001111"}, {}),
        ({"to": "Y2FwaV9n", "recipient_type": "group"}, {"input": "Y2FwaV9n"}, {"group_id": "Y2FwaV9n"}),
    ],
)
async def test_recipients(
    http: httpx.AsyncClient, emulator: Emulator, address: dict[str, Any], contact: dict[str, Any], group: dict[str, Any]
) -> None:
    """A number, a person without a number and a group are addressed as on Meta's pages; `to` wins over `recipient`."""
    message = {"messaging_product": "whatsapp", "type": "image", "image": {"link": "https://a"}, **address}
    body = (await http.post(f"/v25.0/{emulator.phone_number_id}/messages", json=message)).json()
    assert body["contacts"] == [contact]
    assert body["messages"] == [{"id": body["messages"][0]["id"], **group}]


ATTACHMENT = "(#100) Param image['id'] is not a valid whatsapp business account media attachment ID"
PASSWORD = [{"type": "text", "text": "J$FpnYnP"}]
ONE_TIME_PASSWORD: list[Any] = [
    {"type": "body", "parameters": PASSWORD},
    {"type": "button", "sub_type": "url", "index": "0", "parameters": PASSWORD},
]
USER_ID_REFUSED = "An authentication template goes to a phone number, in to."
KINDS = (
    "The emulator sends image, video, document, audio, sticker, text, reaction, location, template, interactive, contacts"
    " only."
)
WRONG_MESSAGES: list[tuple[dict[str, Any], int, str]] = [
    ({"messaging_product": ""}, 100, "(#100) The parameter messaging_product is required."),
    ({"messaging_product": "x"}, 100, '(#100) Param messaging_product must be one of {WHATSAPP} - got "x".'),
    ({"to": None}, 100, "(#100) The parameter to is required."),
    ({"to": ""}, 100, "(#100) The parameter to is required."),
    ({"to": ["15550001111"]}, 100, "(#100) Param to must be a string."),
    ({"to": 15550001111.5}, 100, "(#100) Param to must be a string."),
    ({"to": True}, 100, "(#100) Param to must be a string."),
    ({"to": "nobody"}, 131009, "to takes a phone number; a business-scoped user id goes into recipient."),
    ({"to": "US.1349"}, 131009, "to takes a phone number; a business-scoped user id goes into recipient."),
    ({"to": None, "recipient": "15550001111"}, 131009, "recipient takes a business-scoped user id."),
    ({"to": None, "recipient": 7}, 131009, "recipient takes a business-scoped user id."),
    ({"to": None, "recipient": "US.1", "recipient_type": "group"}, 100, "(#100) The parameter to is required."),
    ({"to": None, "recipient": ["US.1"]}, 100, "(#100) Param recipient must be a string."),
    ({"recipient_type": ["x"]}, 100, "(#100) Param recipient_type must be one of {INDIVIDUAL, GROUP}."),
    ({"type": "hologram"}, 131051, KINDS),
    ({"type": ["image"]}, 131051, KINDS),
    ({"type": "video"}, 100, "(#100) The parameter video is required."),
    ({"image": {}}, 131008, "image needs one of id and link."),
    ({"image": {"id": "1", "link": "https://a"}}, 131009, "image takes one of id and link, not both."),
    ({"image": {"id": 1}}, 100, "(#100) Param image['id'] must be a string."),
    ({"image": {"link": "ftp://a"}}, 131009, "image['link'] must be an http or https URL."),
    ({"image": {"link": "http://a", "caption": 1}}, 100, "(#100) Param image['caption'] must be a string."),
    (
        {"image": {"link": "http://a", "caption": "x" * 1025}},
        100,
        "(#100) Param image['caption'] must be at most 1024 characters long.",
    ),
    ({"image": {"link": "http://a", "filename": "a"}}, 100, '(#100) Unexpected key "filename" on param "image".'),
    (
        {"type": "audio", "audio": {"link": "http://a", "caption": "a"}},
        100,
        '(#100) Unexpected key "caption" on param "audio".',
    ),
    ({"image": "1"}, 100, "(#100) Param image must be a JSON object."),
    ({"image": None}, 100, "(#100) The parameter image is required."),
    (
        {"type": "audio", "audio": {"link": "http://a", "voice": "yes"}},
        100,
        "(#100) Param audio['voice'] must be a boolean.",
    ),
    (
        {"type": "video", "video": {"link": "http://a", "voice": True}},
        100,
        '(#100) Unexpected key "voice" on param "video".',
    ),
    ({"image": {"id": "123"}}, 100, ATTACHMENT),
    ({"image": {"id": "../123"}}, 100, ATTACHMENT),
    ({"type": None}, 100, "(#100) The parameter text is required."),
    ({"text": "hi", "type": "text"}, 100, "(#100) Param text must be a JSON object."),
    ({"text": {"body": ""}, "type": "text"}, 100, "(#100) The parameter text['body'] is required."),
    ({"text": {"body": None}, "type": None}, 100, "(#100) The parameter text['body'] is required."),
    ({"text": {"body": 5}, "type": "text"}, 100, "(#100) Param text['body'] must be a string."),
    (
        {"text": {"body": "x" * 4097}, "type": "text"},
        100,
        "(#100) Param text['body'] must be at most 4096 characters long.",
    ),
    ({"text": {"body": "x", "to": "y"}, "type": "text"}, 100, '(#100) Unexpected key "to" on param "text".'),
    ({"type": "reaction", "reaction": {"emoji": "x"}}, 100, "(#100) The parameter reaction['message_id'] is required."),
    ({"type": "location", "location": {"latitude": 0}}, 100, "(#100) The parameter location['longitude'] is required."),
    (
        {"type": "interactive", "interactive": {"type": "button"}},
        100,
        "(#100) The parameter interactive['action'] is required.",
    ),
    ({"type": "template", "template": {"name": "a"}}, 100, "(#100) The parameter template['language'] is required."),
    (template(language="en"), 100, "(#100) Param template['language'] must be a JSON object."),
    (template(language={"x": 1}), 100, "(#100) The parameter template['language']['code'] is required."),
    (template({}), 100, "(#100) The parameter template['components'][0]['type'] is required."),
    (template(components={"type": "body"}), 100, "(#100) Param template['components'][0] must be a JSON object."),
    (template(components=5), 100, "(#100) Param template['components'][0] must be a JSON object."),
    (
        template({"type": "header", "parameters": [{"type": "image", "image": {"id": "1"}}]}),
        100,
        ATTACHMENT.replace("image", "template['components'][0]['parameters'][0]['image']"),
    ),
    (
        template({"type": "header", "parameters": [{"type": "image", "image": {}}]}),
        131008,
        "template['components'][0]['parameters'][0]['image'] needs one of id and link.",
    ),
    (interactive(video={"id": "1"}), 100, ATTACHMENT.replace("image", "interactive['header']['video']")),
    (interactive(video="1"), 100, "(#100) Param interactive['header']['video'] must be a JSON object."),
    ({"status": "delivered"}, 100, "(#100) Param status must be one of {READ}."),
    ({"status": "read"}, 100, "(#100) The parameter message_id is required."),
    ({"status": "read", "messaging_product": ""}, 100, "(#100) The parameter messaging_product is required."),
    (
        {"status": "read", "message_id": "wamid.1", "typing_indicator": {}},
        100,
        "(#100) The parameter typing_indicator['type'] is required.",
    ),
    (
        {"status": "read", "message_id": "wamid.1", "typing_indicator": True},
        100,
        "(#100) Param typing_indicator must be a JSON object.",
    ),
    *(
        ({"recipient_type": "group", "type": kind, kind: content}, 130501, "A group takes text, media and templates.")
        for kind, content in {
            "reaction": {"message_id": "wamid.1"},
            "location": {"latitude": 0, "longitude": 0},
            "interactive": {"type": "button", "action": {}},
            "contacts": [{}],
        }.items()
    ),
    (template(*ONE_TIME_PASSWORD) | {"to": None, "recipient": "US.1349"}, 131062, USER_ID_REFUSED),
]


async def test_messages_that_are_refused(emulator: Emulator, send: Send) -> None:
    """A message that Meta would not accept is refused with the reason."""
    for change, code, text in WRONG_MESSAGES:
        assert refusal(await send({"type": "image", "image": {"link": "https://a"}} | change)) == (code, text), change
    assert emulator.messages == []


async def test_ids_of_another_kind_or_expired(emulator: Emulator, http: httpx.AsyncClient, send: Send) -> None:
    """WebP is no image, and an id that has expired is none."""
    media = {"id": await upload(http, emulator.phone_number_id, "image/webp")}
    refused = refusal(await send({"type": "image", "image": media}))
    assert refused == (131009, "image['id'] is media of type image/webp.")
    emulator.clock.advance(31 * 24 * 60 * 60)
    refused = refusal(await send({"type": "sticker", "sticker": media}))
    assert refused == (100, ATTACHMENT.replace("image", "sticker"))


async def test_messages_that_cannot_be_read(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """A body that is not a JSON object, or is far too long, has no fields."""
    for body in (b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"a":"' + b"x" * 2**21 + b'"}'):
        refused = await http.post(f"/v25.0/{emulator.phone_number_id}/messages", content=body)
        assert refusal(refused) == (100, "(#100) The parameter messaging_product is required.")


async def test_deep_messages(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """A message as deep as JSON can be read, or deeper, gets an answer that is no failure of the emulator."""
    start = b'{"messaging_product":"whatsapp","to":"1","type":"interactive","interactive":{"type":"flow","action":'
    for depth in (100, 900, 5000, 50_000):
        body = start + b"[" * depth + b"1" + b"]" * depth + b"}}"
        response = await http.post(f"/v25.0/{emulator.phone_number_id}/messages", content=body)
        assert response.status_code in (200, 400)


async def test_a_group_that_takes_no_media(emulator: Emulator) -> None:
    """A group's refusal, which a test can ask for, is a typed error of the client."""
    emulator.fail("send", Fault.error(130501, 400))
    async with emulator.api() as media:
        uploaded = await media.upload(b"hello", mime_type="text/plain")
        with pytest.raises(InvalidRequestError) as caught:
            await media.send(Recipient.group("Y2FwaV9n"), uploaded, kind="document")
        assert caught.value.code == 130501
        assert (await media.send(Recipient.group("Y2FwaV9n"), uploaded, kind="document")).input == "Y2FwaV9n"


async def test_pywa_sends_media_in_headers(emulator: Emulator) -> None:
    """An unmodified pywa sends templates and buttons with an image by id, and knows the refusal of a one-time password."""
    async with httpx.AsyncClient() as session:
        pywa: Any = WhatsApp(phone_id=emulator.phone_number_id, token=emulator.access_token, session=session)
        session.base_url = httpx.URL(f"{emulator.base_url}/v26.0")  # it sets Meta's own, and offers no other way
        image = (await pywa.upload_media(b"x", mime_type="image/jpeg", filename="a.jpg")).id
        named = {"name": "order", "language": TemplateLanguage.ENGLISH}
        sent = await pywa.send_template("15550001111", **named, params=[HeaderImage.params(image=image)])
        assert sent.status.value == "accepted"
        await pywa.send_image("15550001111", image, caption="which?", buttons=[Button("this", "1")])
        assert [message["type"] for message in emulator.messages] == ["template", "interactive"]
        code = [AuthenticationBody.params(otp="123"), OneTapOTPButton.params(otp="123")]
        with pytest.raises(BSUIDRecipientNotSupported):
            await pywa.send_template("US.1349", **named, params=code)
        assert (await pywa.send_template("15550001111", **named, params=code)).id == emulator.messages[-1]["message_id"]
