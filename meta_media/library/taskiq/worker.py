"""A worker process: its client, its library, and how it runs a task that may have been delivered before."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar, cast

import attrs
from taskiq import AsyncBroker, AsyncResultBackend, Context, TaskiqState
from taskiq.depends.progress_tracker import TaskProgress, TaskState

from meta_media.api import MediaApi
from meta_media.errors import ConfigurationError, MediaError, StorageError
from meta_media.library.entry import LibraryEntry
from meta_media.library.library import MediaLibrary
from meta_media.library.store import Store
from meta_media.library.taskiq.outages import LOGGER, Outages, PersistentBackend, on_shutdown
from meta_media.protocol.convert import from_plain
from meta_media.protocol.models import DeletedMedia, UploadedMedia

__all__ = ["Worker"]

T = TypeVar("T")


@attrs.define(eq=False)
class Worker:
    """The client and the library that the tasks of a worker process share."""

    _broker: AsyncBroker
    _make_media: Callable[[], MediaApi]
    _make_store: Callable[[], Store] | None
    _claim_seconds: float
    # An interval in seconds, and a function to call then. Some brokers look for the tasks of killed workers only when a new
    # task arrives.
    pulse: tuple[float, Callable[[], Awaitable[object]]] | None = None
    _media: MediaApi | None = None
    _library: MediaLibrary | None = None
    _exit: AsyncExitStack = attrs.field(factory=AsyncExitStack)
    _outages: Outages = attrs.field(factory=Outages)
    _running: dict[str, asyncio.Future[Any]] = attrs.field(factory=dict)

    async def open(self, state: TaskiqState) -> None:
        """Open the client and the store. Without a token, the worker fails here, before its tasks do."""
        async with AsyncExitStack() as opening:
            media = await opening.enter_async_context(self._make_media())
            await media.delete_many(()).report()  # an empty run asks for the token, and sends no request
            state["media_api"] = self._media = media
            if self._make_store is not None:
                store = self._make_store()
                opening.push_async_callback(store.aclose)
                self._library = MediaLibrary(media, store, claim_seconds=self._claim_seconds)
                state["media_library"] = self._library
            self._watch_backend(opening)
            if self.pulse is not None:
                opening.callback(asyncio.create_task(_beat(*self.pulse)).cancel)
            self._exit = opening.pop_all()

    async def aclose(self, _: TaskiqState) -> None:
        """Wait for the tasks in progress, and close the client and the store."""
        # Calls to Meta are not cancelled. If they take longer than taskiq's `--shutdown-timeout`, the process ends, and other
        # workers repeat them.
        self._outages.stop()
        while self._running:
            await asyncio.wait(self._running.values())
        self._media = self._library = None
        await self._exit.aclose()

    @property
    def media(self) -> MediaApi:
        """The client of this process."""
        if self._media is None:
            raise ConfigurationError("a media task was called outside of a worker: call await broker.startup() first")
        return self._media

    async def upload(self, path: str | os.PathLike[str], options: Mapping[str, Any], again: bool) -> UploadedMedia:
        """Upload a file. `again`: an earlier delivery may have uploaded it."""
        uploaded = await self.media.upload(path, **options)
        return attrs.evolve(uploaded, maybe_duplicate=uploaded.maybe_duplicate or again)

    async def ensure(self, path: str | os.PathLike[str], options: Mapping[str, Any], again: bool) -> LibraryEntry:
        """Ensure a file. An entry that an earlier delivery stored is not a duplicate."""
        if self._library is None:
            raise ConfigurationError("ensure needs a store that all workers share: media_tasks(broker, store=...)")
        entry = await self._library.ensure(path, **options)
        return attrs.evolve(entry, maybe_duplicate=entry.maybe_duplicate or (again and not entry.reused))

    async def delete(self, media_id: str, options: Mapping[str, Any], again: bool) -> DeletedMedia:
        """Delete media. If it is gone and there was an earlier delivery, that one has deleted it."""
        deleted = await self.media.delete(media_id, **{**options, "missing_ok": again or options["missing_ok"]})
        return attrs.evolve(deleted, success=True) if again else deleted

    async def once(self, context: Any, kind: type[T], work: Callable[[bool], Awaitable[T]]) -> T:
        """Run a task: once, if it is delivered again meanwhile. `work` gets whether an earlier delivery may have done it."""
        if not isinstance(context, Context):  # called as a function
            return await work(False)
        task_id = context.message.task_id
        if (running := self._running.get(task_id)) is None:
            running = self._running[task_id] = asyncio.ensure_future(self._run(context, kind, work))
            running.add_done_callback(lambda _: self._running.pop(task_id))
        return cast("T", await running)

    def _watch_backend(self, opening: AsyncExitStack) -> None:
        """Let the tasks of this worker wait while the result backend is away, until the worker stops."""
        self._outages, backend = Outages(), self._broker.result_backend
        if type(backend).set_progress is AsyncResultBackend.set_progress:
            LOGGER.warning(
                "%s stores no progress: if a worker is killed, its uploads are repeated without maybe_duplicate, and its deletes "
                "may fail. Use a result backend that does, such as RedisAsyncResultBackend",
                type(backend).__name__,
            )
        self._broker.result_backend = cast("AsyncResultBackend[Any]", PersistentBackend(backend, self._outages))
        opening.callback(setattr, self._broker, "result_backend", backend)
        if self._broker.is_worker_process:
            opening.callback(on_shutdown(self._outages.stop))

    async def _run(self, context: Context, kind: type[T], work: Callable[[bool], Awaitable[T]]) -> T:
        again, saved = await self._earlier_delivery(context, kind)
        if saved is not None:  # its worker was killed before it could acknowledge the task
            return saved
        await self._outages.outlast(lambda: _set_progress(context, TaskState.STARTED))
        failures = 0
        while True:
            try:
                return await work(again)
            except MediaError as error:
                again = again or error.maybe_applied
                if not (isinstance(error, StorageError) and error.retryable):
                    if not again:
                        await self._outages.outlast(lambda: _set_progress(context, TaskState.FAILURE))
                    raise
                failures += 1  # of the store, which is away
                await self._outages.pause(failures, error)

    async def _earlier_delivery(self, context: Context, kind: type[T]) -> tuple[bool, T | None]:
        """Return whether an earlier delivery has begun the task, and its saved result. If these are damaged, it may have."""
        backend, task_id = context.broker.result_backend, context.message.task_id

        async def load() -> tuple[bool, T | None]:
            progress = await backend.get_progress(task_id)
            if progress is None or progress.state != TaskState.STARTED:
                return False, None
            saved = (await backend.get_result(task_id)).return_value if await backend.is_result_ready(task_id) else None
            return True, from_plain(kind, saved) if isinstance(saved, Mapping) else None

        return await self._outages.read(load, lambda: backend.is_result_ready(task_id), (True, None))


async def _beat(seconds: float, pulse: Callable[[], Awaitable[object]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        with suppress(Exception):  # the broker may work again at the next beat
            await pulse()


async def _set_progress(context: Context, state: TaskState) -> None:
    progress = TaskProgress(state=state, meta={"worker": f"{socket.gethostname()}:{os.getpid()}"})
    await context.broker.result_backend.set_progress(context.message.task_id, progress)
