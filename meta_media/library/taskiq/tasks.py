"""
A fleet of workers, on taskiq: uploads, downloads and deletes as tasks of your broker.

In a module that the workers import, and whoever gives them work:

    broker = RedisStreamBroker(url).with_result_backend(RedisAsyncResultBackend(url))
    tasks = media_tasks(broker, store=lambda: RedisStore(url))

Then `task = await tasks.ensure.kiq("/shared/photo.jpg")` and `entry = await tasks.result(task)` on one side, and taskiq's
own command line on the other: `taskiq worker tasks:broker`.

- A task is acknowledged when its result has been saved, whatever `--ack-type` says. What a killed worker had under way is
  done by another, if the broker keeps what was not acknowledged: `RedisStreamBroker` and RabbitMQ's `AioPikaBroker` do;
  Redis' `ListQueueBroker` and `PubSubBroker` do not. `RedisStreamBroker` hands it out again after its `idle_timeout`, which
  must be longer than any task takes; and only when something new arrives, so each worker sends an empty task that often.
- Before a task begins, that is noted at the result backend, with the worker's name: `await task.get_progress()`. So a task
  that is delivered again knows it. If it was done, it gives what it gave; an upload that was not is flagged
  `maybe_duplicate`, and a delete may find that there is nothing left to delete.
- Results come out as the classes that `MediaApi` returns, and errors as those of `meta_media.errors`, with all their
  attributes, by way of JSON's types only: any serializer will do. Also those of your own tasks on the same broker.

A worker does not start without a token, so it cannot spoil tasks that others could do.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, TypeVar, cast

from pydantic import PlainValidator
from taskiq import AsyncBroker, AsyncTaskiqTask, Context, TaskiqDepends, TaskiqEvents, TaskiqMiddleware
from taskiq.message import TaskiqMessage
from taskiq.result import TaskiqResult
from taskiq.result_backends.dummy import DummyResultBackend

from meta_media.api import MediaApi
from meta_media.errors import ConfigurationError, MediaError
from meta_media.library.entry import LibraryEntry
from meta_media.library.store import Store
from meta_media.library.taskiq.plain import error_from_json, error_to_json, plain, revived
from meta_media.library.taskiq.worker import Worker
from meta_media.protocol.models import DeletedMedia, DownloadedMedia, UploadedMedia

__all__ = ["MediaTasks", "RemoteError", "media_tasks"]

T = TypeVar("T")
_ACKNOWLEDGED: Final = {"ack_type": "when_saved"}  # a task's own label, which wins over the worker's --ack-type
_CLAIM: Final = 30.0  # as for a library elsewhere
_CONTEXT: Final[Any] = TaskiqDepends()


def media_tasks(
    broker: AsyncBroker,
    *,
    media: Callable[[], MediaApi] = MediaApi,
    store: Callable[[], Store] | None = None,
    claim_seconds: float = _CLAIM,
) -> MediaTasks:
    """
    Register our tasks on a broker. Nothing is opened before a worker starts, and a worker closes what it opened.

    A worker's own tasks find the client as `context.state.media_api`, and with a `store` the library as
    `context.state.media_library`.

    Args:
        broker: Any of taskiq's. Results, and knowing what had been begun, need a result backend.
        media: Makes the client of a worker process. Default: `MediaApi()`, from the environment.
        store: Makes a store that all workers share, such as `lambda: RedisStore(url)`. `ensure` needs one.
        claim_seconds: As for `MediaLibrary`.

    Raises:
        ConfigurationError: The broker has these tasks already.
    """
    if broker.find_task("meta_media.upload") is not None:
        raise ConfigurationError("this broker has media tasks already")
    worker = Worker(media, store, claim_seconds)
    broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, worker.open)
    broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, worker.aclose)
    broker.add_middlewares(_PlainResults())
    if (idle := getattr(broker, "idle_timeout", None)) is not None:  # in milliseconds, as in RedisStreamBroker
        worker.pulse = idle / 1000, _pulse(broker)
    return MediaTasks(broker, worker)


def _pulse(broker: AsyncBroker) -> Callable[[], Awaitable[object]]:
    @broker.task("meta_media.pulse", **_ACKNOWLEDGED)
    async def pulse() -> None:
        """Do nothing, but be new."""

    return lambda: pulse.kicker().with_task_id("meta_media.pulse").kiq()  # one id: the results replace each other


class _Uploads:
    """The half of `MediaTasks` that sends files."""

    def __init__(self, broker: AsyncBroker, worker: Worker) -> None:
        @broker.task("meta_media.upload", **_ACKNOWLEDGED)
        async def upload(
            path: str | os.PathLike[str],
            *,
            filename: str | None = None,
            mime_type: str | None = None,
            validate: bool = True,
            verify: bool = False,
            ttl: timedelta | None = None,
            use_case: str | None = None,
            phone_number_id: str | None = None,
            context: Context = _CONTEXT,
        ) -> UploadedMedia:
            options: dict[str, Any] = {"filename": filename, "mime_type": mime_type, "validate": validate}
            options |= {"verify": verify, "ttl": ttl, "use_case": use_case, "phone_number_id": phone_number_id}
            return await worker.once(context, UploadedMedia, lambda again: worker.upload(path, options, again))

        @broker.task("meta_media.ensure", **_ACKNOWLEDGED)
        async def ensure(
            path: str | os.PathLike[str],
            *,
            filename: str | None = None,
            mime_type: str | None = None,
            validate: bool = True,
            verify: bool = False,
            ttl: timedelta | None = None,
            phone_number_id: str | None = None,
            context: Context = _CONTEXT,
        ) -> LibraryEntry:
            options: dict[str, Any] = {"filename": filename, "mime_type": mime_type, "validate": validate}
            options |= {"verify": verify, "ttl": ttl, "phone_number_id": phone_number_id}
            return await worker.once(context, LibraryEntry, lambda again: worker.ensure(path, options, again))

        self.upload = upload
        self.ensure = ensure


class MediaTasks(_Uploads):
    """
    The tasks, each with taskiq's `kiq`, `kicker` and `schedule_by_…`. Arguments are those of `MediaApi`, as plain data.

    A path is one of the workers' file systems; give it whole, and the same on all of them.

    Attributes:
        upload: `upload(path, *, filename, mime_type, validate, verify, ttl, use_case, phone_number_id)`: `UploadedMedia`.
        ensure: The same but for `use_case`, by `MediaLibrary.ensure`: `LibraryEntry`. Harmless however often it is done.
        download: `download(media_id, destination, *, overwrite)`, to a path, or to a folder under a name that is still
            free: `DownloadedMedia`. Done again, a path is replaced, but a folder gets a second copy.
        delete: `delete(media_id, *, missing_ok, phone_number_id)`: `DeletedMedia`.
    """

    def __init__(self, broker: AsyncBroker, worker: Worker) -> None:
        @broker.task("meta_media.download", **_ACKNOWLEDGED)
        async def download(
            media_id: str, destination: str | os.PathLike[str], *, overwrite: bool = True, context: Context = _CONTEXT
        ) -> DownloadedMedia:
            return await worker.once(
                context, DownloadedMedia, lambda _: worker.media.download(media_id, destination, overwrite=overwrite)
            )

        @broker.task("meta_media.delete", **_ACKNOWLEDGED)
        async def delete(
            media_id: str, *, missing_ok: bool = False, phone_number_id: str | None = None, context: Context = _CONTEXT
        ) -> DeletedMedia:
            options = {"missing_ok": missing_ok, "phone_number_id": phone_number_id}
            return await worker.once(context, DeletedMedia, lambda again: worker.delete(media_id, options, again))

        super().__init__(broker, worker)
        self.download = download
        self.delete = delete
        self._broker = broker
        tasks: tuple[Any, ...] = (self.upload, self.ensure, self.download, self.delete)
        for task, kind in zip(tasks, (UploadedMedia, LibraryEntry, DownloadedMedia, DeletedMedia), strict=True):
            task.return_type = Annotated[Any, PlainValidator(functools.partial(revived, kind))]

    async def result(self, task: AsyncTaskiqTask[T], *, within: float | None = None) -> T:
        """
        Wait for a task, and return what the verb returned or raise what it raised.

        `task.wait_result()` does the same in taskiq's own way; its `error` and `return_value` are ours as well.

        Args:
            task: What `kiq` gave.
            within: Seconds, after which taskiq's `TaskiqResultTimeoutError` is raised. Default: for ever.

        Raises:
            MediaError: As the verb, with all attributes.
            ConfigurationError: The broker keeps no results.
        """
        if isinstance(self._broker.result_backend, DummyResultBackend):
            raise ConfigurationError("the broker keeps no results: give it a result backend, by with_result_backend")
        result = await task.wait_result(timeout=within or -1.0)
        return result.raise_for_error().return_value


class _PlainResults(TaskiqMiddleware):
    """Makes plain data of what is on its way to the result backend; middlewares that retry have seen it as it was."""

    def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        """Replace our errors and results by what any serializer can take."""
        if isinstance(result.error, MediaError):
            result.error = _sendable(result.error)
        result.return_value = plain(result.return_value)


class RemoteError(MediaError):
    """
    What taskiq finds by name where a result is read: called with what was sent, it gives the error itself.

    No error is ever of this class.
    """

    def __new__(cls, data: Mapping[str, Any]) -> Any:
        """Make the error that was sent."""
        return error_from_json(data)


def _sendable(error: MediaError) -> MediaError:
    """
    Return the same error as taskiq can take it apart: it sends a class by name, and `args`.

    The class is derived from the error's own, goes by another name, and has plain data for `args`. The error's cause, which
    may be anybody's and say anything, stays here.
    """

    def reduced(error: MediaError) -> tuple[Any, ...]:
        return error_from_json, (error_to_json(error),)

    names = {"__module__": RemoteError.__module__, "__qualname__": RemoteError.__qualname__}
    data = property(lambda error: (error_to_json(error),))
    space = {**names, "args": data, "__reduce__": reduced}
    kind = cast("type[MediaError]", type(type(error).__name__, (type(error),), space))
    twin = kind.__new__(kind, error.message)
    vars(twin).update(vars(error))
    return twin
