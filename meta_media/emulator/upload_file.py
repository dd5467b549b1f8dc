"""A file that is arriving: written and hashed off the event loop, in batches, one being written while the next fills up."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from io import FileIO
from types import TracebackType
from typing import Final, Self

import anyio

from meta_media.emulator.store import Store, StoredMedia, new_media_id

__all__ = ["IncomingFile"]

_BATCH: Final = 2**20
_Piece = bytes | memoryview


class IncomingFile:
    """
    Bytes on their way to the store.

    Used as `async with`: what was not kept by the end of the block leaves nothing behind.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._id = new_media_id()
        self._path = store.partial_path(self._id)
        self._file: FileIO | None = None
        self._hash = hashlib.sha256()
        self._size = 0
        self._batch: list[_Piece] = []
        self._batched = 0
        self._writing: asyncio.Task[None] | None = None
        self._kept = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._kept:
            return
        with anyio.CancelScope(shield=True):
            if self._writing is not None:
                await asyncio.gather(self._writing, return_exceptions=True)
            await self._store.in_thread(self._abandon)

    async def write(self, pieces: Sequence[_Piece]) -> None:
        """Take some bytes; they are on their way to disk once there are enough of them."""
        self._batch.extend(pieces)
        self._batched += sum(map(len, pieces))
        if self._batched >= _BATCH:
            await self._settle()
            batch, self._batch, self._batched = self._batch, [], 0
            self._writing = asyncio.create_task(self._store.in_thread(self._append, batch))

    async def keep(
        self, phone_number_id: str, mime_type: str, *, filename: str | None, expires_at: float | None
    ) -> StoredMedia:
        """Write the rest, and make the media known."""
        await self._settle()
        await self._store.in_thread(self._finish)
        media = StoredMedia(
            id=self._id,
            phone_number_id=phone_number_id,
            mime_type=mime_type,
            sha256=self._hash.hexdigest(),
            file_size=self._size,
            filename=filename,
            expires_at=expires_at,
        )
        await self._store.add(media)
        self._kept = True
        return media

    async def _settle(self) -> None:
        if self._writing is not None:
            await asyncio.wait(
                {self._writing}
            )  # unlike awaiting the task, this does not cancel it when we are cancelled
            self._writing.result()

    def _append(self, batch: Sequence[_Piece]) -> None:
        if self._file is None:
            self._file = FileIO(self._path, "xb")
        for piece in batch:
            view = memoryview(piece)
            self._hash.update(view)
            self._size += len(view)
            while view:
                view = view[self._file.write(view) :]

    def _finish(self) -> None:
        self._append(self._batch)
        self._close()
        self._path.rename(self._store.path(self._id))

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _abandon(self) -> None:
        self._close()
        self._path.unlink(missing_ok=True)
        self._store.path(self._id).unlink(missing_ok=True)
