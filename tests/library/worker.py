"""A worker in this process, and a result backend that keeps bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import attrs
from taskiq import AsyncResultBackend, AsyncTaskiqTask, InMemoryBroker
from taskiq.abc.serializer import TaskiqSerializer
from taskiq.depends.progress_tracker import TaskProgress, TaskState
from taskiq.result import TaskiqResult
from taskiq.serializers import JSONSerializer

from meta_media import MediaApi, MemoryStore
from meta_media.library import Store
from meta_media.library.taskiq import MediaTasks, media_tasks
from tests.support.servers import json_response

REFUSED: Final = json_response({"error": {"message": "try again", "code": 2}}, 500)
THROTTLED: Final = json_response({"error": {"message": "throttled", "code": 130429}}, 400)
UPLOADED: Final = json_response({"id": "77"})


class Backend(AsyncResultBackend[Any]):
    """
    Keeps results and progress as bytes, as a backend on a network does.

    An outage begins with a method, and makes that call and the next ones fail: a number of them, or all. With None, they hang.
    """

    def __init__(self, serializer: TaskiqSerializer | None = None) -> None:
        self.serializer = serializer or JSONSerializer()
        self.results: dict[str, bytes] = {}
        self.progress: dict[str, bytes] = {}
        self.outages: dict[str, float | None] = {}
        self.left: float | None = 0  # calls that fail
        self.failed = 0
        self.error: type[Exception] = ConnectionError

    async def _meet_outage(self, method: str) -> None:
        """Fail or hang if there is an outage."""
        self.left = self.outages.pop(method, self.left)
        if self.left is None:
            self.failed += 1
            await asyncio.Event().wait()
        elif self.left > 0:
            self.left, self.failed = self.left - 1, self.failed + 1
            raise self.error(f"no {method}")

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """See taskiq."""
        await self._meet_outage("set_result")
        self.results[task_id] = self.serializer.dumpb(result.model_dump(mode="json"))

    async def is_result_ready(self, task_id: str) -> bool:
        """See taskiq."""
        await self._meet_outage("is_result_ready")
        return task_id in self.results

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[Any]:
        """See taskiq."""
        await self._meet_outage("get_result")
        return TaskiqResult[Any].model_validate(self.serializer.loadb(self.results[task_id]))

    async def set_progress(self, task_id: str, progress: TaskProgress[Any]) -> None:
        """See taskiq."""
        await self._meet_outage(f"set_{TaskState(progress.state).name}")
        self.progress[task_id] = self.serializer.dumpb(progress.model_dump(mode="json"))

    async def get_progress(self, task_id: str) -> TaskProgress[Any] | None:
        """See taskiq."""
        await self._meet_outage("get_progress")
        kept = self.progress.get(task_id)
        return None if kept is None else TaskProgress[Any].model_validate(self.serializer.loadb(kept))


@attrs.frozen(kw_only=True)
class Worker:
    """A worker in this process."""

    broker: InMemoryBroker
    backend: Backend
    tasks: MediaTasks
    closed: list[str]

    def start_elsewhere(self, task_id: str = "one") -> str:
        """Leave the progress of a task whose worker was killed."""
        progress = TaskProgress[Any](state=TaskState.STARTED, meta={"worker": "elsewhere:1"})
        self.backend.progress[task_id] = self.backend.serializer.dumpb(progress.model_dump(mode="json"))
        return task_id


class RecordingStore(MemoryStore):
    """A store that checks the seconds of its claims, and records that it is closed."""

    def __init__(self, closed: list[str]) -> None:
        super().__init__()
        self.closed = closed

    async def claim(self, key: str, seconds: float) -> int | None:
        """See `Store`."""
        assert seconds == 7
        return await super().claim(key, seconds)

    async def aclose(self) -> None:
        """See `Store`."""
        self.closed.append("store")


def make_worker(media: Callable[[], MediaApi], *, store: Store | bool = True, backend: Backend | None = None) -> Worker:
    """Make a broker whose worker is this process. It runs between `startup` and `shutdown`."""
    broker, backend = InMemoryBroker(await_inplace=True), backend or Backend()
    closed: list[str] = []
    broker.with_result_backend(backend)
    chosen = RecordingStore(closed) if store is True else store
    tasks = media_tasks(broker, media=media, store=(lambda: chosen) if chosen else None, claim_seconds=7)
    return Worker(broker=broker, backend=backend, tasks=tasks, closed=closed)


def upload_one(made: Worker) -> AsyncTaskiqTask[Any]:
    """Return the upload that was sent as task "one"."""
    return AsyncTaskiqTask("one", made.backend, made.tasks.upload.return_type)
