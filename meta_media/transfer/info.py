"""Look up and delete media by id."""

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

_DELETE_TIMEOUT: Final = 30.0  # seconds for the delete after a block that failed or was cancelled


async def get_info(call: Call, media_id: str, number: str | None = None) -> MediaInfo:
    """Look up a checked media id. If a phone number is given, the media must have been uploaded on it."""

    def check_id(info: MediaInfo) -> None:
        if info.id != media_id:
            sentence = f"Meta was asked about media {media_id} and answered about {info.id}"
            raise ServerError(sentence, status=200, retryable=True)

    request = graph_request("get_info", "GET", call.settings, media_id, phone_number_id=number, media_id=media_id)
    return await call.request(request, MediaInfo, check=check_id)


async def delete(call: Call, media_id: str, number: str | None, *, missing_ok: bool) -> DeletedMedia:
    """
    Delete media by its checked id. With `missing_ok`, unknown media is a result (`success=False`), not an error.

    Media that is gone after an attempt whose response was lost was deleted by that attempt.
    """
    await call.deleted.add(media_id)
    request = graph_request("delete", "DELETE", call.settings, media_id, phone_number_id=number, media_id=media_id)
    try:
        deleted = await call.request(request, DeletedMedia)
    except MediaNotFoundError as error:
        if error.maybe_applied or missing_ok:
            return DeletedMedia(success=error.maybe_applied, attempts=call.attempts)
        raise
    if not deleted.success:
        sentence = f"Meta did not delete media {media_id}, and gave no reason"
        raise ServerError(sentence, status=200, maybe_applied=True)
    return attrs.evolve(deleted, attempts=call.attempts)


@asynccontextmanager
async def deleted_after(delete: Callable[[], Awaitable[object]], media_id: str) -> AsyncIterator[None]:
    """Call `delete` when the block ends, also by an error or a cancellation. If that fails, a note on the error names the media."""
    try:
        yield
    except BaseException as error:
        with anyio.move_on_after(_DELETE_TIMEOUT, shield=True):
            try:
                await delete()
            except MediaError as failed:
                error.add_note(f"media {media_id} was not deleted: {failed}")
        raise
    await delete()
