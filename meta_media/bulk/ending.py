"""Which errors end a run: one that every other item would meet, and those that one item after the other meets."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, Final

from meta_media.errors import (
    AccountRestrictedError,
    ApiError,
    AuthenticationError,
    MediaError,
    NetworkError,
    RateLimitError,
    StorageError,
)
from meta_media.http.limits import MAX_RETRY_AFTER
from meta_media.transfer.progress import ItemProgress
from meta_media.transfer.sources import OpenableSource
from meta_media.transfer.threads import FileWork

__all__ = ["is_fatal", "is_shared", "split_item"]

_FULL_DISK_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_AWAY: Final = "EIO ENODEV ENOTCONN ENXIO ESTALE ETIMEDOUT EHOSTDOWN ENETDOWN EMFILE ENFILE"  # mounts, descriptors
_AWAY_ERRNOS: Final = frozenset(getattr(errno, name, errno.EIO) for name in _AWAY.split())


def split_item(item: Any) -> tuple[Any, Mapping[str, Any]]:
    """Split a pair of a source and its own keywords. Any other item has no keywords."""
    if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], Mapping):
        return item
    return item, {}


def is_fatal(error: Exception) -> bool:
    """Return whether every other item would meet the same error: dead token, locked account, no trust, full disk."""
    if isinstance(error, ApiError) and error.scope == "recipient":
        return False
    too_long = isinstance(error, RateLimitError) and (error.retry_after or 0) > MAX_RETRY_AFTER
    untrusted = isinstance(error, NetworkError) and error.lasting
    full = isinstance(error, StorageError) and error.errno in _FULL_DISK_ERRNOS
    refused = isinstance(error, AuthenticationError | AccountRestrictedError)
    return refused or too_long or untrusted or full


async def is_shared(error: Exception, item: Any, progress: ItemProgress) -> bool:
    """
    Return whether an item failed by what it shares with others, which may meet the same.

    That is the network, a store, a disk that does not respond, a folder of sources that is gone or empty, as after an unmount,
    and the caller's token callable and progress callback. A single missing file is the item's own.
    """
    if isinstance(error, NetworkError) or progress.callback_failed:
        return True
    if not isinstance(error, StorageError):
        return False
    source, _ = split_item(item)
    source = source.file if isinstance(source, OpenableSource) else source
    if error.errno != errno.ENOENT or not isinstance(source, str | PurePath):
        return error.retryable or error.errno in _AWAY_ERRNOS
    try:
        return await FileWork(source).run(_folder_is_gone, source)
    except MediaError:  # the folder does not respond
        return True


def _folder_is_gone(path: str | PurePath) -> bool:
    try:
        with os.scandir(Path(path).parent) as entries:
            return next(entries, None) is None
    except OSError:
        return True
