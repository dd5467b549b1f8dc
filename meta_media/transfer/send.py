"""Send media by its id."""

from __future__ import annotations

import attrs

from meta_media.http.call import Call
from meta_media.protocol.filenames import with_extension
from meta_media.protocol.media_types import extension_for, kind_of
from meta_media.protocol.models import HasMediaId, InboundMedia, SentMessage
from meta_media.protocol.requests import MediaMessage, graph_request
from meta_media.transfer.info import get_info

__all__ = ["send"]


async def send(call: Call, number: str, media: object, kind: str | None, message: MediaMessage) -> SentMessage:
    """
    Send a message from a number.

    Without a kind, it is the one for the type of the media, for which Meta is asked if only an id is known. A document is
    shown under its own name, with an extension of its type where that is known. Text keeps `.csv` and the like.
    """
    own_type, own_name = (
        getattr(media, name, None) if isinstance(media, HasMediaId) else None for name in ("mime_type", "filename")
    )
    if kind is None and isinstance(media, InboundMedia):
        kind = media.kind
    if kind is None:
        own_type = own_type or (await get_info(call, message.media_id)).mime_type
        kind = kind_of(own_type)
    filename = message.filename or own_name
    if kind == "document" and filename:
        is_text = extension_for(own_type or "") == ".txt"
        message = attrs.evolve(message, filename=with_extension(filename, own_type or "", sent=not is_text))
    body = message.body(kind, own_type)
    call.limit_to(message.to.id)
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    request = graph_request(
        "send", "POST", call.settings, number, "messages", media_id=message.media_id, headers=headers
    )
    return await call.request(request, SentMessage, (body,))
