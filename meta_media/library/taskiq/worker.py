"""
A worker process: the client and the library that its tasks share, and what it knows of a task that was delivered before.

It is imported by `taskiq`, which says so if there is no taskiq.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, TypeVar, cast

import anyio
import attrs
from taskiq import Context, TaskiqState
from taskiq.depends.progress_tracker import TaskProgress, TaskState

from meta_media.api import MediaApi
from meta_media.bulk.caught import Caught
from meta_media.errors import ConfigurationError, MediaError, StorageError
from meta_media.library.entry import LibraryEntry
from meta_media.library.library import MediaLibrary
from meta_media.library.store import Store
from meta_media.library.taskiq.plain import revived
from meta_media.protocol.models import DeletedMedia, UploadedMedia

__all__ = ["Worker"]

T = TypeVar("T")


class Worker:
    """
    What the tasks share in a worker process, from its start to its end.

    Args:
        media: Makes the client.
        store: Makes the library's store.
        claim_seconds: As for `MediaLibrary`.

    Attributes:
        pulse: Every so many seconds, what to call: some brokers look for what dead workers left only when a task has come.
    """

    pulse: tuple[float, Callable[[], Awaitable[object]]] | None = None

    def __init__(self, media: Callable[[], MediaApi], store: Callable[[], Store] | None, claim_seconds: float) -> None:
        self._make_media = media
        self._make_store = store
        self._claim_seconds = claim_seconds
        self._media: MediaApi | None = None
        self._library: MediaLibrary | None = None
        self._exit = AsyncExitStack()
        self._under_way: dict[str, asyncio.Future[Any]] = {}

    async def open(self, state: TaskiqState) -> None:
        """Open the client and the store, and ask for the token: without one, a worker is to fail before its tasks do."""
        async with AsyncExitStack() as opening:
            media = await opening.enter_async_context(self._make_media())
            await media.delete_many(()).report()  # of nothing: a run asks for the token, and sends no request
            state["media_api"] = self._media = media
            if self._make_store is not None:
                store = self._make_store()
                opening.push_async_callback(store.aclose)
                self._library = MediaLibrary(media, store, claim_seconds=self._claim_seconds)
                state["media_library"] = self._library
            if self.pulse is not None:
                opening.callback(asyncio.create_task(_beating(*self.pulse)).cancel)
            self._exit = opening.pop_all()

    async def aclose(self, _: TaskiqState) -> None:
        """
        Wait for what is under way, and close.

        If that takes longer than taskiq's `--shutdown-timeout`, the process ends first, and others do what was not done:
        an upload that we broke off ourselves would be acknowledged as failed.
        """
        while self._under_way:
            await asyncio.wait(self._under_way.values())
        self._media = self._library = None
        await self._exit.aclose()

    @property
    def media(self) -> MediaApi:
        """The client of this process."""
        if self._media is None:
            raise ConfigurationError("a media task was called outside of a worker: await broker.startup() makes one")
        return self._media

    async def upload(self, path: str | os.PathLike[str], options: Mapping[str, Any], again: bool) -> UploadedMedia:
        """Upload; again, if an earlier delivery may have done it."""
        uploaded = await self.media.upload(path, **options)
        return attrs.evolve(uploaded, maybe_duplicate=uploaded.maybe_duplicate or again)

    async def ensure(self, path: str | os.PathLike[str], options: Mapping[str, Any], again: bool) -> LibraryEntry:
        """Ensure; an entry that an earlier delivery made is no duplicate."""
        if self._library is None:
            raise ConfigurationError("ensure needs a store that all workers share: media_tasks(broker, store=...)")
        entry = await self._library.ensure(path, **options)
        return attrs.evolve(entry, maybe_duplicate=entry.maybe_duplicate or (again and not entry.reused))

    async def delete(self, media_id: str, options: Mapping[str, Any], again: bool) -> DeletedMedia:
        """Delete; what is gone after an earlier delivery has been deleted by it."""
        deleted = await self.media.delete(media_id, **{**options, "missing_ok": again or options["missing_ok"]})
        return attrs.evolve(deleted, success=True) if again else deleted

    async def once(self, context: Any, kind: type[T], work: Callable[[bool], Awaitable[T]]) -> T:
        """Do a task, and tell it whether it may have been done; delivered twice at a time, it is done once."""
        if not isinstance(context, Context):  # called as a function
            return await work(False)
        task_id = context.message.task_id
        if (doing := self._under_way.get(task_id)) is None:
            doing = self._under_way[task_id] = asyncio.ensure_future(self._done(context, kind, work))
            doing.add_done_callback(lambda _: self._under_way.pop(task_id))
        return cast("T", await doing)

    async def _done(self, context: Context, kind: type[T], work: Callable[[bool], Awaitable[T]]) -> T:
        progress = await self._asked(context.broker.result_backend.get_progress(context.message.task_id))
        again = progress is not None and progress.state == TaskState.STARTED
        if again and (kept := await self._asked(_kept(context))) is not None:
            return cast("T", revived(kind, kept))
        await self._asked(_noted(context, TaskState.STARTED))
        try:
            return await work(again)
        except MediaError as error:
            if not (again or error.maybe_applied):
                with Caught():  # then a retry is flagged without need
                    await _noted(context, TaskState.FAILURE)
            raise

    async def _asked(self, answer: Awaitable[T]) -> T:
        """Wait for the result backend; nothing has been sent to Meta yet."""
        results = []
        with Caught() as caught:
            results.append(await answer)
        if caught.error is not None:
            failed = StorageError(f"the result backend failed: {caught.error}")
            failed.retryable = True
            raise failed from caught.error
        return results[0]


async def _beating(seconds: float, pulse: Callable[[], Awaitable[object]]) -> None:
    while True:
        await anyio.sleep(seconds)
        with Caught():  # a broker that is away for a moment
            await pulse()


async def _noted(context: Context, state: TaskState) -> None:
    worker = f"{socket.gethostname()}:{os.getpid()}"
    progress = TaskProgress(state=state, meta={"worker": worker})
    await context.broker.result_backend.set_progress(context.message.task_id, progress)


async def _kept(context: Context) -> Any:
    """Return what an earlier delivery gave: it was done, but not acknowledged, or not in time."""
    backend = context.broker.result_backend
    if not await backend.is_result_ready(context.message.task_id):
        return None
    return (await backend.get_result(context.message.task_id)).return_value
