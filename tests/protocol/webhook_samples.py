"""A webhook for each place in which Meta's pages have media, with what must be read from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from meta_media.protocol.recipient import Recipient

ID: Final = "1045500012345678"
DIGEST: Final = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="  # of no bytes
HEX: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
URL: Final = (
    f"https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid={ID}&source=webhook&ext=1795342301&hash=ARk0"
)
NUMBER, BUSINESS, GROUP = "15550001111", "15550783881", "Y2FwaV9ncm91cDoxNTU1MDAwMTExMTI="
USER, PARENT = "US.13491208655302741918", "US.ENT.11815799212886844830"

_PHONE_NUMBER_ID: Final = "106540352242922"
_FILE: Final = {"mime_type": "image/jpeg", "sha256": DIGEST, "id": ID, "url": URL}
_IMAGE: Final = {"type": "image", "image": {"caption": "leaf", **_FILE}}
_SENT: Final = {"id": "wamid.1", "timestamp": "1795342000"}
_BY_NUMBER: Final = {"from": NUMBER, "from_user_id": USER, **_SENT}
_BY_USER: Final = {"from_user_id": USER, "from_parent_user_id": PARENT, **_SENT}
_PROFILE: Final = {"name": "Zoë", "username": "@zoe"}
_CONTACTS: Final = [{"profile": _PROFILE, "wa_id": NUMBER, "user_id": USER, "parent_user_id": PARENT}]
_WITHOUT_NUMBER: Final = [{"profile": _PROFILE, "user_id": USER, "parent_user_id": PARENT}]
_EDIT: Final = {"type": "edit", "edit": {"original_message_id": "wamid.0", "message": _IMAGE}}
_PICKED: Final = {"file_name": "leaf.jpg", "mime_type": "image/jpeg", "sha256": DIGEST, "id": ID}
_METADATA: Final = {"display_phone_number": BUSINESS, "phone_number_id": _PHONE_NUMBER_ID}


@attrs.frozen(kw_only=True)
class Sample:
    """A webhook with one media, and what must be read from it."""

    field: str
    value: Mapping[str, Any]
    carrier: str = "message"
    kind: str = "image"
    sender: str | None = NUMBER
    reply_address: Recipient | None = attrs.field(factory=lambda: Recipient.phone(NUMBER))
    more: Mapping[str, Any] = attrs.field(factory=dict)  # other fields

    @property
    def change(self) -> dict[str, Any]:
        """The entry of `changes`, as a copy."""
        value = {"messaging_product": "whatsapp", "metadata": _METADATA, **self.value}
        copy: dict[str, Any] = json.loads(json.dumps({"field": self.field, "value": value}))
        return copy

    @property
    def payload(self) -> dict[str, Any]:
        """The whole webhook, as a copy."""
        return webhook(self.change)


def webhook(*changes: Mapping[str, Any]) -> dict[str, Any]:
    """Wrap changes in the payload of a webhook."""
    return {"object": "whatsapp_business_account", "entry": [{"id": "102290129340398", "changes": list(changes)}]}


def _message(*messages: Mapping[str, Any], contacts: object = _CONTACTS, **expected: Any) -> Sample:
    value = {"contacts": contacts, "messages": list(messages)}
    return Sample(field="messages", value=value, **{"more": {"url": URL, "caption": "leaf"}, **expected})


def _flow(answers: object) -> Sample:
    reply = {"type": "nfm_reply", "nfm_reply": {"name": "flow", "body": "Sent", "response_json": answers}}
    message = {
        **_BY_NUMBER,
        "type": "interactive",
        "interactive": reply,
        "context": {"from": BUSINESS, "id": "wamid.0"},
    }
    return _message(message, carrier="flow", more={"filename": "leaf.jpg"})


def _call(call: Mapping[str, Any], carrier: str, kind: str, **expected: Any) -> Sample:
    value = {"contacts": expected.pop("contacts", _CONTACTS), "calls": [{**_SENT, **call}]}
    return Sample(field="calls", value=value, carrier=carrier, kind=kind, **{"more": {"url": URL}, **expected})


def _kind(kind: str, mime_type: str, **more: Any) -> Sample:
    message = {**_BY_NUMBER, "type": kind, kind: _FILE | {"mime_type": mime_type, **more}}
    return _message(message, kind=kind, more={"mime_type": mime_type, "url": URL, **more})


_NO_NUMBER: Final[Mapping[str, Any]] = {"sender": None, "reply_address": Recipient.user(USER)}
_OWN: Final[Mapping[str, Any]] = {"carrier": "echo", "sender": BUSINESS, "more": {"url": URL, "caption": "leaf"}}
_THREAD: Final = {"wa_id": NUMBER, "user_id": USER, "parent_user_id": PARENT, "username": "@zoe"}
_RECORDING: Final = {"type": "audio", "audio": _FILE | {"mime_type": "audio/ogg; codecs=opus"}}
_RECORDED: Final = {"event": "call_recording_available", "call_recording": _RECORDING}
_TRANSCRIPT: Final = {"document": _FILE | {"mime_type": "application/json"}}
_OGG: Final = {"mime_type": "audio/ogg; codecs=opus", "url": URL}


def _thread(*messages: Mapping[str, Any], **thread: Any) -> dict[str, Any]:
    progress = {"phase": 1, "chunk_order": 1, "progress": 55}
    return {"history": [{"metadata": progress, "threads": [{**thread, "messages": list(messages)}]}]}


SAMPLES: Final[Mapping[str, Sample]] = {
    "image": _kind("image", "image/jpeg", caption="leaf"),
    "video": _kind("video", "video/mp4", caption="river"),
    "voice note": _kind("audio", "audio/ogg; codecs=opus", voice=True),
    "document": _kind("document", "application/msword", filename="../órder.doc", caption="Your order"),
    "sticker": _kind("sticker", "image/webp", animated=True),
    "without a number": _message({**_BY_USER, **_IMAGE}, contacts=_WITHOUT_NUMBER, **_NO_NUMBER),
    "user id as the number": _message(
        {"from": USER, **_SENT, **_IMAGE},
        contacts=[{"profile": _PROFILE, "wa_id": USER, "parent_user_id": PARENT}],
        **_NO_NUMBER,
    ),
    "group": _message(
        {**_BY_NUMBER, "group_id": GROUP, **_IMAGE},
        reply_address=Recipient.group(GROUP),
        more={"group_id": GROUP, "url": URL, "caption": "leaf"},
    ),
    "edit": _message({**_BY_NUMBER, **_EDIT}, carrier="edit"),
    "Flow, photo": _flow(json.dumps({"flow_token": "t", "photo_picker": [_PICKED]})),
    "Flow, document": attrs.evolve(
        _flow(json.dumps({"document_picker": [_PICKED | {"mime_type": "text/csv"}], "flow_token": "t"})),
        kind="document",
        more={"filename": "leaf.jpg", "mime_type": "text/csv"},
    ),
    "Flow, a name of its author": _flow(json.dumps({"flow_token": "t", "rooms": ["2"], "receipts": [_PICKED]})),
    "Flow, decoded": _flow({"flow_token": "t", "rooms": [{"id": "7", "title": "x"}], "photo_picker": [_PICKED]}),
    "echo": Sample(
        field="smb_message_echoes",
        value={"message_echoes": [{"from": BUSINESS, "to": NUMBER, **_SENT, **_IMAGE}], "contacts": _CONTACTS},
        **_OWN,
    ),
    "echo, to a user id": Sample(
        field="smb_message_echoes",
        value={
            "message_echoes": [{"from": BUSINESS, "to_user_id": USER, "to_parent_user_id": PARENT, **_SENT, **_IMAGE}]
        },
        reply_address=Recipient.user(USER),
        **{**_OWN, "more": {"username": None, "profile_name": None, "url": URL, "caption": "leaf"}},
    ),
    "echo, edit": Sample(
        field="smb_message_echoes",
        value={"message_echoes": [{"from": BUSINESS, "to": NUMBER, **_SENT, **_EDIT}], "contacts": _CONTACTS},
        **_OWN,
    ),
    "history": Sample(
        field="history",
        value=_thread({**_BY_NUMBER, **_IMAGE, "history_context": {"status": "READ"}}, id=NUMBER, context=_THREAD),
        carrier="history",
        more={"profile_name": None, "url": URL, "caption": "leaf"},
    ),
    "history, of the business": Sample(
        field="history",
        value=_thread({"from": BUSINESS, "to": NUMBER, **_SENT, **_IMAGE}, id=NUMBER, context=_THREAD),
        **{**_OWN, "more": {"profile_name": None, "url": URL, "caption": "leaf"}},
    ),
    "history, of the business to a user id": Sample(
        field="history",
        value=_thread(
            {"from": BUSINESS, **_SENT, **_IMAGE},
            context={name: value for name, value in _THREAD.items() if name != "wa_id"},
        ),
        reply_address=Recipient.user(USER),
        **{**_OWN, "more": {"profile_name": None, "url": URL, "caption": "leaf"}},
    ),
    "history, media later": attrs.evolve(_message({**_BY_NUMBER, **_IMAGE}), field="history", carrier="history"),
    "history, media of the business later": Sample(
        field="history",
        value={"message_echoes": [{"from": BUSINESS, "to": NUMBER, **_SENT, **_IMAGE}], "contacts": _CONTACTS},
        **_OWN,
    ),
    "standby": Sample(
        field="standby",
        value={"standby": {"messages": [{**_BY_NUMBER, **_IMAGE}], "contacts": _CONTACTS}},
        carrier="standby",
        more={"url": URL, "caption": "leaf"},
    ),
    "standby, echo to a group": Sample(
        field="standby",
        value={
            "standby": {
                "message_echoes": [
                    {
                        "messaging_product": "whatsapp",
                        "recipient_type": "group",
                        "to": GROUP,
                        **_SENT,
                        "type": "image",
                        "image": {"id": ID, "caption": "leaf"},
                    }
                ],
                "contacts": _CONTACTS,
            }
        },
        carrier="echo",
        sender=None,
        reply_address=Recipient.group(GROUP),
        more={"mime_type": None, "sha256": None, "caption": "leaf"},
    ),
    "call recording": _call(
        {"from": NUMBER, "from_user_id": USER, "to": BUSINESS, "direction": "USER_INITIATED", **_RECORDED},
        "call_recording",
        "audio",
        more=_OGG,
    ),
    "call recording, of a call to a user id": _call(
        {
            "from": BUSINESS,
            "to_user_id": USER,
            "to_parent_user_id": PARENT,
            "direction": "BUSINESS_INITIATED",
            **_RECORDED,
        },
        "call_recording",
        "audio",
        contacts=_WITHOUT_NUMBER,
        sender=BUSINESS,
        reply_address=Recipient.user(USER),
        more=_OGG,
    ),
    "call transcript": _call(
        {"from": NUMBER, "from_user_id": USER, "event": "call_transcription_available", "call_transcript": _TRANSCRIPT},
        "call_transcript",
        "document",
        more={"mime_type": "application/json", "url": URL},
    ),
}
EXPECTED: Final[Mapping[str, Any]] = {  # of each sample, unless its `more` has another value
    "id": ID,
    "mime_type": "image/jpeg",
    "sha256": HEX,
    "user_id": USER,
    "parent_user_id": PARENT,
    "username": "@zoe",
    "profile_name": "Zoë",
    "message_id": "wamid.1",
    "phone_number_id": _PHONE_NUMBER_ID,
    "extra": {},
}
