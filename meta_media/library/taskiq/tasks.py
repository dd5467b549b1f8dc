"""`media_tasks`: uploads, downloads and deletes on a taskiq broker. The guide is `README.md` in this folder."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any, Final, TypeVar

from pydantic import PlainValidator
from taskiq import AsyncBroker, AsyncTaskiqTask, Context, TaskiqDepends, TaskiqEvents
from taskiq.exceptions import ResultGetError, ResultIsReadyError, TaskiqResultTimeoutError
from taskiq.result import TaskiqResult
from taskiq.result_backends.dummy import DummyResultBackend

from meta_media.api import MediaApi
from meta_media.errors import ConfigurationError, StorageError
from meta_media.library.claims import CLAIM_SECONDS
from meta_media.library.entry import LibraryEntry
from meta_media.library.store import Store
from meta_media.library.taskiq.results import PlainResults, result_from_plain
from meta_media.library.taskiq.worker import Worker
from meta_media.protocol.convert import stored_converter
from meta_media.protocol.models import DeletedMedia, DownloadedMedia, UploadedMedia

__all__ = ["MediaTasks", "media_tasks"]

T = TypeVar("T")
_ACKNOWLEDGED: Final = {"ack_type": "when_saved"}  # a task's own label, which overrides the worker's --ack-type
_CONTEXT: Final[Any] = TaskiqDepends()
_LONGEST_OUTAGE: Final = 30.0  # seconds that `result` waits for a result backend that fails
_POLL: Final = 0.2  # seconds, as in taskiq


def media_tasks(
    broker: AsyncBroker,
    *,
    media: Callable[[], MediaApi] = MediaApi,
    store: Callable[[], Store] | None = None,
    claim_seconds: float = CLAIM_SECONDS,
) -> MediaTasks:
    """
    Register the tasks on a broker. Nothing is opened before a worker starts. A worker closes what it has opened.

    Your own tasks on the broker find the client as `context.state.media_api`, and with a `store` the library as
    `context.state.media_library`.

    Args:
        broker: Any taskiq broker. Results need a result backend. To recognize repeated deliveries, it must store progress.
        media: Makes the client of a worker process. Default: `MediaApi()`, from the environment.
        store: Makes a store that all workers share, such as `lambda: RedisStore(url)`. `ensure` needs one.
        claim_seconds: As for `MediaLibrary`.

    Raises:
        ConfigurationError: The broker already has these tasks; or `media` or `store` is no function.
    """
    for name, make in (("media", media), ("store", store)):
        if make is not None and not callable(make):
            raise ConfigurationError(
                f"{name} must be a function that makes one, such as the class: each worker needs its own"
            )
    if broker.find_task("meta_media.upload") is not None:
        raise ConfigurationError("this broker already has media tasks: call media_tasks once for each broker")
    stored_converter()  # cattrs is imported with the tasks, not on the event loop
    worker = Worker(broker, media, store, claim_seconds)
    broker.add_event_handler(TaskiqEvents.WORKER_STARTUP, worker.open)
    broker.add_event_handler(TaskiqEvents.WORKER_SHUTDOWN, worker.aclose)
    broker.add_middlewares(PlainResults())
    if (idle := getattr(broker, "idle_timeout", None)) is not None:  # milliseconds, as in RedisStreamBroker

        @broker.task("meta_media.pulse", **_ACKNOWLEDGED)
        async def pulse() -> None:
            """Do nothing. A new task is enough."""

        one_id = pulse.kicker().with_task_id("meta_media.pulse")  # results replace each other
        worker.pulse = idle / 1000, one_id.kiq
    return MediaTasks(broker, worker)


class _UploadTasks:
    """The tasks of `MediaTasks` that upload."""

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
            repackage: bool = False,
            context: Context = _CONTEXT,
        ) -> UploadedMedia:
            options: dict[str, Any] = {"filename": filename, "mime_type": mime_type, "validate": validate}
            options |= {"verify": verify, "ttl": ttl, "use_case": use_case}
            options |= {"phone_number_id": phone_number_id, "repackage": repackage}
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
            repackage: bool = False,
            context: Context = _CONTEXT,
        ) -> LibraryEntry:
            options: dict[str, Any] = {"filename": filename, "mime_type": mime_type, "validate": validate}
            options |= {"repackage": repackage, "verify": verify, "ttl": ttl, "phone_number_id": phone_number_id}
            return await worker.once(context, LibraryEntry, lambda again: worker.ensure(path, options, again))

        self.upload, self.ensure = upload, ensure


class MediaTasks(_UploadTasks):
    """
    The tasks. Each has taskiq's `kiq`, `kicker` and `schedule_by_…`. Arguments are those of `MediaApi`, as plain data.

    A path must be absolute, and mean the same file on every worker.

    Attributes:
        upload: `upload(path, *, filename, mime_type, validate, verify, ttl, use_case, phone_number_id, repackage)`:
            `UploadedMedia`.
        ensure: `MediaLibrary.ensure`, with the same arguments except `use_case`: `LibraryEntry`. It can be repeated safely.
        download: `download(media_id, destination, *, overwrite)`: `DownloadedMedia`. The destination is a path, or a folder
            in which a free name is used. If the task is repeated, a path is replaced; a folder gets a second copy.
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
            task.return_type = Annotated[Any, PlainValidator(functools.partial(result_from_plain, kind))]

    async def result(self, task: AsyncTaskiqTask[T], *, within: float | None = None) -> T:
        """
        Wait for a task. Return its result, or raise its error. The wait outlasts a restart of the result backend.

        `task.wait_result()` is taskiq's own way. Its `return_value` and `error` are of our classes, too.

        Args:
            task: The task that `kiq` returned.
            within: Seconds to wait. Default: no limit.

        Raises:
            MediaError: The error of the call in the worker, with all attributes.
            ConfigurationError: The broker has no result backend.
            StorageError: Also if the result backend has failed for 30 seconds. This one is `retryable`.
            taskiq.TaskiqResultTimeoutError: The task has taken longer than `within`.
            Exception: Another error of the task, such as a `TypeError` for arguments that it does not take.
        """
        if isinstance(self._broker.result_backend, DummyResultBackend):
            raise ConfigurationError("the broker has no result backend: add one by broker.with_result_backend(...)")
        try:
            async with asyncio.timeout(within):
                result = await _result_of(task)
        except TimeoutError as error:
            raise TaskiqResultTimeoutError(timeout=within) from error
        return result.raise_for_error().return_value


async def _result_of(task: AsyncTaskiqTask[T]) -> TaskiqResult[T]:
    """Wait for a result. The clock starts anew each time the result backend answers that there is none yet."""
    failure: BaseException | None = None
    now = asyncio.get_running_loop().time
    try:
        async with asyncio.timeout(_LONGEST_OUTAGE) as clock:
            while True:
                try:
                    if await task.is_ready():
                        return await task.get_result()
                    clock.reschedule(now() + _LONGEST_OUTAGE)
                except (ResultIsReadyError, ResultGetError) as error:
                    failure = error.__cause__
                await asyncio.sleep(_POLL)
    except TimeoutError:
        text = (
            f"the result backend has failed for {_LONGEST_OUTAGE:.0f} seconds: check it, and ask for the result again"
        )
        raise StorageError(text, retryable=True) from failure
