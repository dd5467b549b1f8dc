"""A media message from its parts to Meta's receipt."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from meta_media.http.call import Call
from meta_media.protocol.models import SentMessage
from meta_media.protocol.requests import graph_request, message_body
from meta_media.protocol.validators import checked_id, checked_number

__all__ = ["send"]


async def send(
    call: Call,
    phone_number_id: str,
    to: str,
    media_id: str,
    kind: str,
    extras: Mapping[str, Any],
    reply_to: str | None,
) -> SentMessage:
    """
    Send media by id.

    Args:
        call: Over what.
        phone_number_id: From whom.
        to: The recipient's phone number.
        media_id: From an upload on the same number.
        kind: The sort of message.
        extras: Caption, filename and voice, where given.
        reply_to: The id of the message that it answers.
    """
    body = message_body(checked_number(to), checked_id(media_id, "the media id"), kind, extras, reply_to)
    json_body = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    request = graph_request(
        "send", "POST", call.settings, phone_number_id, "messages", media_id=media_id, headers=json_body
    )
    return await call.request(request, SentMessage, lambda: contextlib.nullcontext(body))
