"""What Meta knows of a media id: asked by users, by downloads that need a URL, and by uploads that verify."""

from __future__ import annotations

from .errors import ServerError
from .http import Http
from .models import MediaInfo
from .wire import graph

__all__ = ["look_up"]


async def look_up(http: Http, media_id: str, phone_number_id: str | None = None) -> MediaInfo:
    """Ask Meta about a media id; an answer about another one is a `ServerError`."""
    request = graph("get_info", "GET", http.settings, media_id, phone_number_id=phone_number_id, media_id=media_id)
    info = await http.call(request, MediaInfo)
    if info.id != media_id:
        raise ServerError(f"Meta was asked about media {media_id} and answered about {info.id}", retryable=True)
    return info
