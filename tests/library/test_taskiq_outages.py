"""Result backends and stores that are away for a while, hang, or have damaged what they stored."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from taskiq import AckableMessage, AsyncBroker, AsyncResultBackend, InMemoryBroker
from taskiq.exceptions import TaskiqResultTimeoutError
from taskiq.message import TaskiqMessage
from taskiq.receiver import Receiver

from meta_media import MediaApi, Settings, errors
from meta_media.emulator import Emulator
from meta_media.library.taskiq import media_tasks
from meta_media.library.taskiq.outages import Outages
from tests.library.helpers import HookedStore, fail, upload_count
from tests.library.worker import UPLOADED, Backend, Worker, make_worker, upload_one
from tests.support.servers import Server, stalled, wait_until

FOREVER = float("inf")


def deliver(worker: Worker, path: Path) -> tuple[asyncio.Task[None], list[str]]:
    """Deliver an upload as task "one", as a broker with acknowledgements does. The list gets its acknowledgement."""
    labels = {"ack_type": "when_saved"}
    message = TaskiqMessage(task_id="one", task_name="meta_media.upload", labels=labels, args=[str(path)], kwargs={})
    acknowledged: list[str] = []

    async def ack() -> None:
        acknowledged.append("one")

    data = AckableMessage(data=worker.broker.formatter.dumps(message).message, ack=ack)
    return asyncio.create_task(Receiver(worker.broker).callback(data)), acknowledged


@pytest.mark.parametrize("what", ["get_progress", "set_STARTED", "set_result"])
async def test_a_task_outlasts_an_outage(what: str, emulator: Emulator, worker: Worker, path: Path) -> None:
    """A task waits for the result backend before its work and after it. The work is done once."""
    worker.backend.error = TimeoutError if what == "get_progress" else ConnectionError
    worker.backend.outages[what] = 3
    uploaded = await worker.tasks.result(await worker.tasks.upload.kiq(path))
    assert worker.backend.failed == 3
    assert not uploaded.maybe_duplicate
    assert upload_count(emulator) == 1


@pytest.mark.parametrize("what", ["is_result_ready", "get_result"])
async def test_a_repetition_outlasts_an_outage(what: str, emulator: Emulator, worker: Worker, path: Path) -> None:
    """A repeated task waits for its saved result."""
    first = await worker.tasks.result(await worker.tasks.upload.kicker().with_task_id("one").kiq(path))
    worker.backend.outages[what] = 3
    again = await worker.tasks.upload.kicker().with_task_id("one").kiq(path)
    assert worker.backend.failed == 3
    assert await worker.tasks.result(again) == first
    assert upload_count(emulator) == 1


async def test_an_error_outlasts_an_outage(worker: Worker) -> None:
    """A result backend that fails after the work hides no error."""
    worker.backend.outages["set_FAILURE"] = 3
    with pytest.raises(errors.MediaNotFoundError):
        await worker.tasks.result(await worker.tasks.delete.kiq("1045500012345678"))
    assert worker.backend.failed == 3


@pytest.mark.parametrize("what", ["get_progress", "set_STARTED", "set_result"])
async def test_a_silent_backend_is_asked_again(
    what: str, worker: Worker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that gets no answer, for example because the machine is gone, is repeated."""
    monkeypatch.setattr("meta_media.library.taskiq.outages._LONGEST_CALL", 0.05)
    worker.backend.outages[what] = None
    delivery, acknowledged = deliver(worker, path)
    await wait_until(lambda: worker.backend.failed > 1)
    worker.backend.left = 0
    await delivery
    assert acknowledged == ["one"]


@pytest.mark.parametrize("calls", [FOREVER, None], ids=["fails", "hangs"])
@pytest.mark.parametrize("what", ["get_progress", "set_STARTED", "set_result"])
async def test_a_worker_stops_in_an_outage(
    what: str, calls: float | None, emulator: Emulator, worker: Worker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task is not acknowledged before its result is saved. A worker that stops does not wait for that."""
    monkeypatch.setattr("meta_media.library.taskiq.outages._GRACE", 0.05)
    worker.backend.outages[what] = calls
    delivery, acknowledged = deliver(worker, path)
    await wait_until(lambda: worker.backend.failed >= (1 if calls is None else 3))
    await worker.broker.shutdown()
    with pytest.raises(asyncio.CancelledError):
        await delivery
    assert (acknowledged, worker.backend.results) == ([], {})
    assert upload_count(emulator) == (what == "set_result")

    worker.backend.left = 0
    await worker.broker.startup()
    delivery, acknowledged = deliver(worker, path)
    await delivery
    assert acknowledged == ["one"]
    assert (await worker.tasks.result(upload_one(worker))).maybe_duplicate == (what == "set_result")


async def test_a_call_ends_when_the_worker_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may be told to stop just when a call has taken too long."""
    monkeypatch.setattr("meta_media.library.taskiq.outages._LONGEST_CALL", 0.01)
    outages = Outages()

    async def silent() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            outages.stop()

    with pytest.raises(asyncio.CancelledError, match="the worker stops"):
        await outages.outlast(silent)


async def test_a_stopping_worker_saves_results(path: Path) -> None:
    """A task that ends after its worker was told to stop is saved. An outage then ends it at once."""
    for outage in (0, FOREVER):
        answer = asyncio.Event()
        async with Server(stalled(b"", answer, then=UPLOADED)) as server:
            made = make_worker(lambda: MediaApi("a-token", "1", settings=Settings(base_url=server.base_url)))
            await made.broker.startup()
            delivery, acknowledged = deliver(made, path)
            await wait_until(lambda: bool(server.requests))
            stopping = asyncio.create_task(made.broker.shutdown())
            await asyncio.sleep(0)  # it has begun
            made.backend.left = outage
            answer.set()
            with contextlib.suppress(asyncio.CancelledError):
                await delivery
            await stopping
        assert len(acknowledged) == len(made.backend.results) == (outage == 0)


async def test_cancelled_work_is_not_acknowledged(path: Path) -> None:
    """A task that is cancelled has no result, and is delivered again."""
    async with Server(stalled(b"", asyncio.Event())) as server:
        made = make_worker(lambda: MediaApi("a-token", "1", settings=Settings(base_url=server.base_url)))
        await made.broker.startup()
        delivery, acknowledged = deliver(made, path)
        await wait_until(lambda: bool(server.requests))
        delivery.cancel()
        with pytest.raises(asyncio.CancelledError):
            await delivery
        await made.broker.shutdown()
    assert (acknowledged, made.backend.results) == ([], {})


@pytest.mark.parametrize("waits", [True, False])
async def test_own_tasks_in_an_outage(waits: bool, worker: Worker) -> None:
    """A task of the user waits for the result backend if it has the label. Others are taskiq's."""

    @worker.broker.task("own", **({"ack_type": "when_saved"} if waits else {}))
    async def own() -> int:
        return 1

    worker.backend.outages["set_result"] = 2
    task = await own.kiq()
    assert (task.task_id in worker.backend.results) == waits


# Damaged data


@pytest.mark.parametrize("kept", [b"\xff", b'{"state": 5', b"{}", b"[]", b"null"])
async def test_damaged_progress(kept: bytes, worker: Worker, path: Path) -> None:
    """If the progress of a task cannot be read, it may have been begun: an upload is flagged."""
    worker.backend.progress["one"] = kept
    await worker.tasks.upload.kicker().with_task_id("one").kiq(path)
    assert (await worker.tasks.result(upload_one(worker))).maybe_duplicate


@pytest.mark.parametrize("change", [b"", b"\xff", {"return_value": {"id": 5}}, {"return_value": "text"}])
async def test_damaged_results(change: bytes | dict[str, Any], worker: Worker, path: Path) -> None:
    """If the saved result of a repeated task cannot be read, the task is done anew and flagged."""
    await worker.tasks.upload.kicker().with_task_id("one").kiq(path)
    saved = json.loads(worker.backend.results["one"])
    worker.backend.results["one"] = change if isinstance(change, bytes) else json.dumps(saved | change).encode()
    await worker.tasks.upload.kicker().with_task_id("one").kiq(path)
    again = await worker.tasks.result(upload_one(worker))
    assert again.maybe_duplicate
    assert again.id != saved["return_value"]["id"]


# The store


def failing(times: float) -> Callable[[], Awaitable[None]]:
    """Make a hook that fails some times, as a store that is away."""

    async def hook() -> None:
        nonlocal times
        times -= 1
        if times >= 0:
            raise errors.StorageError("the store is away", retryable=True)

    return hook


@pytest.mark.parametrize(("method", "uploads"), [("get", 1), ("claim", 1), ("put", 3)])
async def test_ensure_outlasts_the_store(method: str, uploads: int, emulator: Emulator, path: Path) -> None:
    """`ensure` waits for its store. An upload whose entry could not be stored is repeated, and flagged."""
    store = HookedStore()
    settings = Settings(base_url=emulator.base_url, max_retries=0)  # the library asks once
    made = make_worker(
        lambda: MediaApi(emulator.access_token, emulator.phone_number_id, settings=settings), store=store
    )
    store.before[method] = failing(2)
    await made.broker.startup()
    entry = await made.tasks.result(await made.tasks.ensure.kiq(path))
    await made.broker.shutdown()
    assert upload_count(emulator) == uploads
    assert entry.maybe_duplicate == (uploads > 1)


async def test_the_store_fails_for_good(emulator: Emulator, path: Path) -> None:
    """An error of the store that no wait mends is the task's error. A worker that stops waits for no store."""
    store = HookedStore()
    made = make_worker(emulator.api, store=store)
    store.before["get"] = fail
    await made.broker.startup()
    with pytest.raises(errors.StorageError, match="the store is away"):
        await made.tasks.result(await made.tasks.ensure.kiq(path))
    store.before["get"] = failing(FOREVER)
    store.calls.clear()
    waiting = asyncio.create_task(made.tasks.ensure.kicker().with_task_id("one").kiq(path))
    await wait_until(lambda: len(store.calls) > 2)
    await made.broker.shutdown()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert "one" not in made.backend.results


# Backends without progress


async def test_a_backend_without_progress(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """A worker whose result backend stores no progress says what that means. Another one says nothing."""

    class Poor(Backend):
        """Stores no progress."""

        set_progress = AsyncResultBackend.set_progress

    for backend in (Backend(), Poor()):
        broker: AsyncBroker = InMemoryBroker().with_result_backend(backend)
        media_tasks(broker, media=emulator.api)
        await broker.startup()
        assert broker.result_backend is not backend
        await broker.shutdown()
        assert broker.result_backend is backend
    assert [record.getMessage() for record in caplog.records if record.name == "meta_media"] == [
        (
            "Poor stores no progress: if a worker is killed, its uploads are repeated without maybe_duplicate, and its deletes "
            "may fail. Use a result backend that does, such as RedisAsyncResultBackend"
        )
    ]


# Results


@pytest.mark.parametrize("what", ["is_result_ready", "get_result"])
async def test_a_result_outlasts_an_outage(what: str, worker: Worker, path: Path) -> None:
    """`result` goes on asking while the result backend is away."""
    task = await worker.tasks.upload.kiq(path)
    worker.backend.outages[what] = 2
    assert (await worker.tasks.result(task)).file_size == 13
    assert worker.backend.failed == 2


@pytest.mark.parametrize("calls", [FOREVER, None], ids=["fails", "hangs"])
@pytest.mark.parametrize("what", ["is_result_ready", "get_result"])
async def test_a_long_outage(
    what: str, calls: float | None, worker: Worker, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result backend that is away too long is a `StorageError` that is retryable, or the end of the caller's time."""
    monkeypatch.setattr("meta_media.library.taskiq.tasks._POLL", 0.01)
    task = await worker.tasks.upload.kiq(path)
    worker.backend.outages[what] = calls
    with pytest.raises(TaskiqResultTimeoutError, match=r"timeout=0\.05"):
        await worker.tasks.result(task, within=0.05)
    monkeypatch.setattr("meta_media.library.taskiq.tasks._LONGEST_OUTAGE", 0.1)
    with pytest.raises(errors.StorageError, match="the result backend has failed for 0 seconds: check it") as failed:
        await worker.tasks.result(task)
    assert failed.value.retryable
    assert isinstance(failed.value.__cause__, ConnectionError if calls else None.__class__)


async def test_a_task_may_take_longer_than_an_outage(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the result backend answers, `result` waits for the task without a limit."""
    monkeypatch.setattr("meta_media.library.taskiq.tasks._POLL", 0.01)
    monkeypatch.setattr("meta_media.library.taskiq.tasks._LONGEST_OUTAGE", 0.2)
    waiting = asyncio.create_task(worker.tasks.result(upload_one(worker)))
    await asyncio.sleep(0.4)  # longer than an outage
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_other_errors_of_a_task(path: Path) -> None:
    """Errors of taskiq's own arrive as they are: arguments that do not fit, and the label `timeout`."""
    async with Server(stalled(b"", asyncio.Event())) as server:
        made = make_worker(lambda: MediaApi("a-token", "1", settings=Settings(base_url=server.base_url)))
        await made.broker.startup()
        with pytest.raises(TypeError, match="unexpected keyword"):
            await made.tasks.result(await made.tasks.upload.kiq(path, color="red"))  # type: ignore[call-overload] # on purpose
        with pytest.raises(TimeoutError):
            await made.tasks.result(await made.tasks.upload.kicker().with_labels(timeout=0.05).kiq(path))
        await made.broker.shutdown()
