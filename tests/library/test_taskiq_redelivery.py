"""Tasks that are delivered again: after a kill, after a retry, or while they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from taskiq import SmartRetryMiddleware
from taskiq.message import TaskiqMessage
from taskiq.result import TaskiqResult

from meta_media import DeletedMedia, MediaApi, MediaError, Settings, errors
from meta_media.emulator import Emulator, Fault
from tests.library.worker import REFUSED, THROTTLED, UPLOADED, Worker, make_worker, upload_one
from tests.support.servers import Server, json_response


async def test_killed_before(worker: Worker, emulator: Emulator, path: Path, tmp_path: Path) -> None:
    """A task that was started without a result is repeated: an upload is flagged, and a delete accepts that the media is gone."""
    upload = await worker.tasks.upload.kicker().with_task_id(worker.start_elsewhere("upload")).kiq(path)
    uploaded = await worker.tasks.result(upload)
    assert uploaded.maybe_duplicate
    download = (
        await worker.tasks.download.kicker()
        .with_task_id(worker.start_elsewhere("load"))
        .kiq(uploaded.id, tmp_path / "copy")
    )
    assert (await worker.tasks.result(download)).size == 13
    for task_id in ("first", "second"):
        delete = await worker.tasks.delete.kicker().with_task_id(worker.start_elsewhere(task_id)).kiq(uploaded.id)
        assert await worker.tasks.result(delete) == DeletedMedia(success=True)


async def test_killed_with_a_library(worker: Worker, path: Path) -> None:
    """An entry that is uploaded again is flagged. An entry that the killed worker stored is not."""
    again = await worker.tasks.result(
        await worker.tasks.ensure.kicker().with_task_id(worker.start_elsewhere("a")).kiq(path)
    )
    reused = await worker.tasks.result(
        await worker.tasks.ensure.kicker().with_task_id(worker.start_elsewhere("b")).kiq(path)
    )
    assert (again.maybe_duplicate, again.reused) == (True, False)
    assert (reused.maybe_duplicate, reused.reused) == (False, True)


async def test_done_before(worker: Worker, emulator: Emulator, path: Path) -> None:
    """A task that was done but not acknowledged returns its saved result, and sends nothing."""
    first = await worker.tasks.result(await worker.tasks.upload.kicker().with_task_id("one").kiq(path))
    requests = len(emulator.requests)
    again = await worker.tasks.result(await worker.tasks.upload.kicker().with_task_id("one").kiq(path))
    assert again == first
    assert not again.maybe_duplicate
    assert len(emulator.requests) == requests


async def test_delivered_twice_at_a_time(emulator: Emulator, worker: Worker, path: Path) -> None:
    """A task that is delivered again while it runs in the same worker runs once. Both deliveries have its result."""
    emulator.fail("upload", Fault(at="reply", delay=0.5))
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(worker.tasks.upload.kicker().with_task_id("one").kiq, path)
    uploaded = await worker.tasks.result(upload_one(worker))
    assert not uploaded.maybe_duplicate
    assert sum(request.method == "POST" for request in emulator.requests) == 1


@pytest.mark.parametrize(("first", "applied"), [(REFUSED, True), (THROTTLED, False)], ids=["perhaps", "no"])
async def test_retried(first: bytes, applied: bool, path: Path) -> None:
    """Taskiq's retries see the true error. A retried upload is flagged if the failed one may have arrived."""

    class OnlyRetryable(SmartRetryMiddleware):
        """Resent what may succeed later."""

        async def on_error(self, message: TaskiqMessage, result: TaskiqResult[Any], exception: BaseException) -> None:
            """Retry if the error says so."""
            if isinstance(exception, MediaError) and exception.retryable:
                await super().on_error(message, result, exception)

    async with Server(first, UPLOADED, json_response({"error": {"message": "no", "code": 100}}, 400)) as server:
        settings = Settings(base_url=server.base_url, max_retries=0)
        made = make_worker(lambda: MediaApi("a-token", "1", settings=settings))
        made.broker.add_middlewares(OnlyRetryable(default_retry_label=True, default_delay=0))
        await made.broker.startup()
        uploaded = await made.tasks.result(await made.tasks.upload.kiq(path))
        with pytest.raises(errors.InvalidRequestError):
            await made.tasks.result(await made.tasks.upload.kiq(path))
        await made.broker.shutdown()
    assert uploaded.maybe_duplicate == applied
    assert len(server.requests) == 3


async def test_killed_and_then_refused(path: Path) -> None:
    """An upload that a killed worker may have done stays flagged after a later refusal."""
    async with Server(THROTTLED, UPLOADED) as server:
        settings = Settings(base_url=server.base_url, max_retries=0)
        made = make_worker(lambda: MediaApi("a-token", "1", settings=settings))
        await made.broker.startup()
        again = made.tasks.upload.kicker().with_task_id(made.start_elsewhere("one"))
        with pytest.raises(errors.RateLimitError):
            await made.tasks.result(await again.kiq(path))
        assert (await made.tasks.result(await again.kiq(path))).maybe_duplicate
        await made.broker.shutdown()
