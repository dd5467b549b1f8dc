"""What Meta does with a file when it is sent: it looks at the bytes, and fails the message if phones cannot play them."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NoReturn

from meta_media import MediaApi, MediaError, Settings
from meta_media.emulator.state import StoredMedia
from meta_media.emulator.webhooks import Failure
from meta_media.errors import FileTooLargeError, InvalidMediaError, StorageError

__all__ = ["Judge"]

_PICTURES_AND_SOUND = ("audio/", "image/", "video/")  # as documents, these are passed on as they are


# Every field whose default the environment has.
_SETTINGS: Final = Settings(
    base_url="http://127.0.0.1", api_version="v25.0", business_account_id=None, app_id=None, app_secret=None
)


class _AcceptedError(MediaError):
    """The file is such that its request would be sent now."""


class _Rules(MediaApi):
    """Uploads up to the request. No trace shows them: they are none of the program's calls."""

    observer = None


async def _accept() -> NoReturn:
    raise _AcceptedError("it would be sent")


class Judge:
    """The rules of an upload by `MediaApi`, which refuses files before it asks for the token. Nothing is sent."""

    def __init__(self) -> None:
        self._api = _Rules(_accept, "1", settings=_SETTINGS)
        self._last: tuple[str, Failure | None] = ("", None)  # of the media that was judged last

    async def failure(self, kind: str, media: StoredMedia, path: Path) -> Failure | None:
        """Return why a message of this kind fails; None if it does not."""
        if kind == "document" and media.mime_type.lower().startswith(_PICTURES_AND_SOUND):
            return None
        if self._last[0] != media.id:
            error = await self.refusal(media, path)
            decided = isinstance(error, FileTooLargeError | StorageError)  # by the upload; or it is being deleted
            self._last = (media.id, None if error is None or decided else Failure(131053, str(error)))
        return self._last[1]

    async def refusal(self, media: StoredMedia, path: Path) -> MediaError | None:
        """Return why an upload refuses a file; None if it does not."""
        try:
            await self._api.upload(path, filename=media.filename, mime_type=media.mime_type)
        except (InvalidMediaError, StorageError) as error:
            return error
        except _AcceptedError:
            pass
        return None
