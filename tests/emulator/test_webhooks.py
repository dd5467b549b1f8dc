"""The bodies of webhooks: the documented structure of each carrier, of failures and of statuses."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

from meta_media import MediaApi, Recipient, parse_webhook, samples, verify_signature
from meta_media.emulator import Emulator
from meta_media.errors import ConfigurationError, UploadRejectedError

CONTENT = b"\xff\xd8\xff photo"
PERSON, GROUP, ANY = "US.13491208655302741918", "Y2FwaV9n", "any"
BUSINESS, NUMBER, NUMBERS_ID = "15550002222", "15550001111", "US.13739530273066567577"
FROM = {"from": NUMBER, "from_user_id": NUMBERS_ID, "id": ANY, "timestamp": ANY}
TOLD = {"mime_type": "image/jpeg", "sha256": b64encode(hashlib.sha256(CONTENT).digest()).decode(), "id": ANY}
MEDIA = {**TOLD, "url": ANY}
IMAGE = {"type": "image", "image": {**MEDIA, "caption": "look"}}
PICKED = {"flow_token": "unused", "photo_picker": [{"file_name": "a.jpg", **TOLD}]}
FLOW = {"name": "flow", "body": "Sent", "response_json": PICKED}
# The field of the change, the key of the list in its value, and the one item of the list: Meta's pages on webhooks.
CARRIERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "message": ("messages", "messages", {**FROM, **IMAGE}),
    "edit": ("messages", "messages", {**FROM, "type": "edit", "edit": {"original_message_id": ANY, "message": IMAGE}}),
    "flow": (
        "messages",
        "messages",
        {
            **FROM,
            "type": "interactive",
            "context": {"from": BUSINESS, "id": ANY},
            "interactive": {"type": "nfm_reply", "nfm_reply": FLOW},
        },
    ),
    "echo": (
        "smb_message_echoes",
        "message_echoes",
        {"from": BUSINESS, "to": NUMBER, "to_user_id": NUMBERS_ID, "id": ANY, "timestamp": ANY, **IMAGE},
    ),
    "history": ("history", "messages", {**FROM, **IMAGE}),
    "standby": ("standby", "messages", {**FROM, **IMAGE}),
    "call_recording": (
        "calls",
        "calls",
        {**FROM, "event": "call_recording_available", "call_recording": {"type": "audio", "audio": MEDIA}},
    ),
    "call_transcript": (
        "calls",
        "calls",
        {**FROM, "event": "call_transcription_available", "call_transcript": {"document": MEDIA}},
    ),
}


def value_of(body: bytes) -> tuple[str, dict[str, Any]]:
    """Return the field and the value of a webhook's one change."""
    payload = json.loads(body)
    assert payload["object"] == "whatsapp_business_account"
    [entry] = payload["entry"]
    [change] = entry["changes"]
    assert change["value"]["messaging_product"] == "whatsapp"
    return change["field"], change["value"]


def masked(value: Any) -> Any:
    """Replace the values that differ each time, and decode JSON in JSON."""
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    changing = {name: ANY for name in ("id", "timestamp", "url", "original_message_id") if name in value}
    decoded = {name: json.loads(value[name]) for name in ("response_json",) if name in value}
    return {name: masked(inner) for name, inner in (value | decoded).items()} | changing


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_every_carrier(emulator: Emulator, media: MediaApi, carrier: Any) -> None:
    """Each carrier has the structure of Meta's page, and the media in it can be read."""
    body, signature = await emulator.receive(
        CONTENT, "image/jpeg", caption="look", filename="a.jpg", carrier=carrier, username="@anna"
    )
    assert verify_signature(emulator.app_secret, body, signature)
    field, value = value_of(body)
    assert value["metadata"] == {"display_phone_number": BUSINESS, "phone_number_id": emulator.phone_number_id}
    expected, parts, item = CARRIERS[carrier]
    inside = value["standby"] if carrier == "standby" else value
    assert (field, masked(inside[parts])) == (expected, [item])
    contact = {"profile": {"name": "A customer", "username": "@anna"}, "wa_id": NUMBER, "user_id": NUMBERS_ID}
    assert inside["contacts"] == [contact]
    assert str(inside[parts][0]["id"]).startswith("wacid." if field == "calls" else "wamid.")
    webhook = parse_webhook(body)
    [inbound] = webhook.media
    assert (inbound.carrier, webhook.unread, inbound.username, inbound.user_id) == (carrier, 0, "@anna", NUMBERS_ID)
    assert await media.read(inbound) == CONTENT


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_every_carrier_without_a_number(emulator: Emulator, carrier: Any) -> None:
    """A person without a phone number has none in any carrier, and the user id says who it is."""
    body, _ = await emulator.receive(CONTENT, "application/pdf", sender=PERSON, carrier=carrier)
    assert NUMBER not in body.decode()
    [inbound] = parse_webhook(body).media
    assert (inbound.user_id, inbound.username) == (PERSON, "@customer")
    assert inbound.reply_address == Recipient.user(PERSON)
    assert (inbound.filename is None) == carrier.startswith("call")


@pytest.mark.parametrize("code", [131051, 131052, 131060])
async def test_what_meta_does_not_pass_on(emulator: Emulator, code: int) -> None:
    """A message that Meta could not pass on has the code and the customer, and no media is kept."""
    body, _ = await emulator.receive("missing.jpg", "image/jpeg", failure=code, sender=PERSON, group_id=GROUP)
    webhook = parse_webhook(body)
    [failure] = webhook.failures
    assert (webhook.media, webhook.unread, failure.errors[0].code) == ((), 0, code)
    assert (failure.user_id, failure.group_id, failure.phone_number_id) == (PERSON, GROUP, emulator.phone_number_id)
    [message] = value_of(body)[1]["messages"]
    assert (message["type"], message["unsupported"]) == ("unsupported", {"type": "media_placeholder"})


async def test_wrong_carriers_and_failures(emulator: Emulator) -> None:
    """What is no carrier, and no failure of an inbound message, is one sentence that lists them."""
    with pytest.raises(ConfigurationError, match="carrier must be one of message, edit, echo, history, standby, call_"):
        await emulator.receive(b"x", "text/plain", carrier="pigeon")  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(ConfigurationError, match="failure must be one of 131051, 131052, 131060"):
        await emulator.receive(b"x", "text/plain", failure=131053)
    with pytest.raises(ConfigurationError, match="code must be a code such as 131053, not str"):
        emulator.fail_delivery("131053")  # type: ignore[arg-type] # wrong on purpose


NUMBERED = {"recipient_id": NUMBER, "recipient_user_id": NUMBERS_ID}
GROUPED = {
    "recipient_id": GROUP,
    "recipient_type": "group",
    "recipient_participant_id": NUMBER,
    "recipient_participant_user_id": NUMBERS_ID,
}


@pytest.mark.parametrize(
    ("to", "about", "failed"),
    [
        (Recipient.phone("+" + NUMBER), NUMBERED, {"recipient_id": NUMBER}),
        (Recipient.user(PERSON), {"recipient_user_id": PERSON}, {"recipient_user_id": PERSON}),
        (Recipient.group(GROUP), GROUPED, GROUPED),
    ],
    ids=["number", "user id", "group"],
)
async def test_statuses(
    emulator: Emulator, media: MediaApi, to: Recipient, about: dict[str, str], failed: dict[str, str]
) -> None:
    """Each accepted message climbs the ladder, or fails with the code that was chosen; the structure is Meta's."""
    uploaded = await media.upload(Path(samples.__file__).parent / "note.ogg")
    emulator.fail_delivery(131053, details="The sound is odd.")
    emulator.fail_delivery(131026)
    for voice in (False, False, False, True):
        await media.send(to, uploaded, voice=voice, extra={"biz_opaque_callback_data": "order 7"})
    ids = [message["message_id"] for message in emulator.messages]
    values = [value_of(body) for body, _ in emulator.statuses]
    assert {field for field, _ in values} == {"messages"}
    steps = [step for _, value in values for step in value["statuses"]]
    ladder = ["sent", "delivered", "read"]
    assert [(step["id"], step["status"]) for step in steps] == [
        *((ids[0], "failed"), (ids[1], "failed")),
        *((ids[2], status) for status in ladder),
        *((ids[3], status) for status in (*ladder, "played")),
    ]
    for step, (_, value) in zip(steps, values, strict=True):
        fails = step["status"] == "failed"
        shared = {name: step[name] for name in ("id", "status", "timestamp")}
        extra = {"biz_opaque_callback_data": "order 7"} | ({"errors": step["errors"]} if fails else {})
        assert step == shared | extra | (failed if fails else about)
        assert ("contacts" in value) != fails
    assert steps[0]["errors"][0]["error_data"] == {"details": "The sound is odd."}
    assert [step["errors"][0]["code"] for step in steps[:2]] == [131053, 131026]
    for body, signature in emulator.statuses:
        assert verify_signature(emulator.app_secret, body, signature)
        [status] = parse_webhook(body).statuses
        assert status.recipient == (Recipient.phone(NUMBER) if to.kind == "phone" else to)
    [first] = parse_webhook(emulator.statuses[0][0]).statuses
    assert isinstance(first.errors[0], UploadRejectedError)


async def test_every_message_fails(emulator: Emulator, media: MediaApi) -> None:
    """A failure of all messages lasts until it is cleared; those planned for the next ones come first."""
    uploaded = await media.upload(b"hello", filename="a.txt")
    emulator.fail_delivery(131026, times=None)
    emulator.fail_delivery(131047, times=2)
    for _ in range(4):
        await media.send(NUMBER, uploaded)
    emulator.clear_faults()
    await media.send(NUMBER, uploaded)
    found = [parse_webhook(body).statuses[0] for body, _ in emulator.statuses]
    codes = [status.errors[0].code if status.errors else status.status for status in found]
    assert codes == [131047, 131047, 131026, 131026, "sent", "delivered", "read"]
