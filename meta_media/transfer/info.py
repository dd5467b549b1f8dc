"""What Meta knows of a media id, and that it should forget it: asked by users, by downloads, by uploads that verify."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import anyio
import attrs

from meta_media.errors import MediaError, MediaNotFoundError, ServerError
from meta_media.http.call import Call
from meta_media.protocol.models import DeletedMedia, MediaInfo
from meta_media.protocol.requests import graph_request

__all__ = ["delete", "deleted_after", "get_info"]

_CLEAN_UP: Final = 30.0  # seconds that deleting may take after a block that was cancelled


async def get_info(call: Call, media_id: str, phone_number_id: str | None = None) -> MediaInfo:
    """Ask Meta about a media id; an answer about another one is a `ServerError`."""

    def about_it(info: MediaInfo) -> None:
        if info.id != media_id:
            what = f"Meta was asked about media {media_id} and answered about {info.id}"
            raise ServerError(what, status=200, retryable=True)

    request = graph_request(
        "get_info", "GET", call.settings, media_id, phone_number_id=phone_number_id, media_id=media_id
    )
    return await call.ask(request, MediaInfo, check=about_it)


async def delete(call: Call, media_id: str, *, missing_ok: bool, phone_number_id: str | None) -> DeletedMedia:
    """Delete a media; one that is gone after a try whose reply was lost was deleted by that."""
    request = graph_request(
        "delete", "DELETE", call.settings, media_id, phone_number_id=phone_number_id, media_id=media_id
    )
    try:
        deleted = await call.ask(request, DeletedMedia)
    except MediaNotFoundError as error:
        if error.maybe_applied or missing_ok:
            return DeletedMedia(success=error.maybe_applied, attempts=call.attempts)
        raise
    if not deleted.success:
        what = f"Meta did not delete media {media_id}, and did not say why"
        raise ServerError(what, status=200, maybe_applied=True)
    return attrs.evolve(deleted, attempts=call.attempts)


@asynccontextmanager
async def deleted_after(delete: Callable[[], Awaitable[object]], media_id: str) -> AsyncIterator[None]:
    """Delete a media when a block ends, also by an error or a cancellation."""
    try:
        yield
    except BaseException as error:
        with anyio.move_on_after(_CLEAN_UP, shield=True):
            try:
                await delete()
            except MediaError as failed:
                error.add_note(f"media {media_id} was not deleted: {failed}")
        raise
    await delete()
