"""taskiq tasks: arguments, results, configuration, and the life of a worker."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from taskiq import AsyncBroker, AsyncTaskiqTask, InMemoryBroker, SmartRetryMiddleware
from taskiq.exceptions import TaskiqResultTimeoutError
from taskiq.message import TaskiqMessage
from taskiq.result import TaskiqResult
from taskiq.serializers import JSONSerializer, PickleSerializer

from meta_media import (
    DeletedMedia,
    DownloadedMedia,
    LibraryEntry,
    MediaApi,
    MemoryStore,
    Settings,
    UploadedMedia,
    errors,
)
from meta_media.emulator import Emulator
from meta_media.library.taskiq import media_tasks
from tests.library.worker import UPLOADED, Worker, make_worker, upload_one
from tests.support.servers import Server, stalled, wait_until


@pytest.mark.parametrize("worker", [JSONSerializer, PickleSerializer], indirect=True)
async def test_verbs(worker: Worker, emulator: Emulator, path: Path, tmp_path: Path) -> None:
    """Each task takes the arguments of its call, and returns an object of the same class."""
    number = emulator.phone_number_id
    uploaded = await worker.tasks.result(
        await worker.tasks.upload.kiq(
            path, filename="n.txt", ttl=timedelta(hours=2), verify=True, phone_number_id=number
        )
    )
    saved = await worker.tasks.result(await worker.tasks.download.kiq(uploaded.id, tmp_path))
    deleted = await worker.tasks.result(await worker.tasks.delete.kiq(uploaded.id, phone_number_id=number))
    missing = await worker.tasks.result(await worker.tasks.delete.kiq(uploaded.id, missing_ok=True))
    sha256 = saved.sha256
    assert uploaded == UploadedMedia(id=uploaded.id, mime_type="text/plain", file_size=13, sha256=sha256)
    place = tmp_path / f"{uploaded.id}.txt"
    assert saved == DownloadedMedia(path=place, size=13, sha256=sha256, mime_type="text/plain", media_id=uploaded.id)
    assert (uploaded.attempts, saved.attempts) == (2, 2)
    assert (deleted, missing) == (DeletedMedia(success=True), DeletedMedia(success=False))


@pytest.mark.parametrize("worker", [JSONSerializer, PickleSerializer], indirect=True)
async def test_ensure(worker: Worker, emulator: Emulator, path: Path) -> None:
    """The library of the worker uploads once for each phone number, and says whether it did."""
    emulator.add_account("222", emulator.access_token)
    first = await worker.tasks.result(await worker.tasks.ensure.kiq(str(path)))
    second = await worker.tasks.result(await worker.tasks.ensure.kiq(str(path)))
    brief = await worker.tasks.result(
        await worker.tasks.ensure.kiq(path, ttl=timedelta(hours=2), phone_number_id="222", filename="n.txt")
    )
    await worker.tasks.result(await worker.tasks.delete.kiq(first.id))
    third = await worker.tasks.result(await worker.tasks.ensure.kiq(path, verify=True))
    assert isinstance(first, LibraryEntry)
    assert first == second
    assert (first.reused, second.reused) == (False, True)
    assert not second.maybe_duplicate
    assert (brief.phone_number_id, brief.sha256) == ("222", first.sha256)
    assert brief.expires_at - brief.uploaded_at < timedelta(hours=2)
    assert third.id not in {first.id, brief.id}


async def test_recordings_of_browsers(worker: Worker, media: MediaApi) -> None:
    """`upload` and `ensure` repackage as their calls do: the same recording is the same voice note."""
    recording = Path(__file__).parents[1] / "media" / "voice.webm"
    uploaded = await worker.tasks.result(await worker.tasks.upload.kiq(recording, repackage=True))
    entry = await worker.tasks.result(await worker.tasks.ensure.kiq(str(recording), repackage=True))
    assert (uploaded.mime_type, entry.mime_type, entry.filename) == ("audio/ogg", "audio/ogg", "voice.ogg")
    assert hashlib.sha256(await media.read(uploaded.id)).hexdigest() == entry.sha256


async def test_keywords_arrive(worker: Worker, path: Path) -> None:
    """The keywords of an upload reach Meta, and wrong ones are refused."""
    task = await worker.tasks.upload.kiq(path, ttl=timedelta(minutes=1))
    with pytest.raises(errors.ConfigurationError, match="ttl must be a timedelta"):
        await worker.tasks.result(task)
    with pytest.raises(errors.UnsupportedMediaTypeError):
        await worker.tasks.result(await worker.tasks.upload.kiq(path, mime_type="text/csv"))
    with pytest.raises(errors.UploadRejectedError):
        await worker.tasks.result(await worker.tasks.ensure.kiq(path, mime_type="text/csv", validate=False))


async def test_taskiqs_own_way(worker: Worker, path: Path) -> None:
    """`wait_result` returns our results and errors, too, and a task's progress names its worker."""
    task = await worker.tasks.upload.kiq(path)
    result = await task.wait_result()
    failed = await (await worker.tasks.delete.kiq("1045500012345678")).wait_result()
    progress = await task.get_progress()
    assert (type(result.return_value), result.error) == (UploadedMedia, None)
    assert type(failed.error) is errors.MediaNotFoundError
    assert cast("Any", failed.return_value) is None
    assert cast("Any", progress).meta["worker"].rpartition(":")[2] == str(os.getpid())


async def test_own_tasks(worker: Worker, emulator: Emulator, path: Path) -> None:
    """A task of the user finds the client and the library, and returns our results and errors."""

    @worker.broker.task("own")
    async def own(media_id: str) -> Any:
        state = worker.broker.state
        assert state.media_library is not None
        if media_id == "none":
            return await state.media_api.upload(path)
        return await state.media_api.get_info(media_id)

    made = await (await own.kiq("none")).wait_result()
    failed = await (await own.kiq("1045500012345678")).wait_result()
    broken = await (await own.kiq("a/b")).wait_result()
    assert UploadedMedia(**made.return_value).file_size == 13
    assert isinstance(failed.error, errors.MediaNotFoundError)
    assert failed.error.code == 100
    assert isinstance(broken.error, errors.ConfigurationError)


async def test_called_as_functions(worker: Worker, path: Path) -> None:
    """A task can be called as a function in a worker. Elsewhere that is a ConfigurationError."""
    uploaded = await worker.tasks.upload(path)
    assert uploaded.file_size == 13
    assert worker.backend.progress == {}
    idle = make_worker(MediaApi)
    with pytest.raises(errors.ConfigurationError, match="outside of a worker"):
        await idle.tasks.upload(path)


async def test_result_in_time(worker: Worker) -> None:
    """`result` waits for `within` seconds at most."""
    with pytest.raises(TaskiqResultTimeoutError):
        await worker.tasks.result(upload_one(worker), within=0.01)


# Configuration


async def test_no_number(emulator: Emulator, path: Path) -> None:
    """A task without a phone number fails with a sentence that names the variable."""
    made = make_worker(lambda: MediaApi(emulator.access_token, settings=Settings(base_url=emulator.base_url)))
    await made.broker.startup()
    task = await made.tasks.upload.kiq(path)
    with pytest.raises(errors.ConfigurationError, match="WA_PHONE_NUMBER_ID"):
        await made.tasks.result(task)
    await made.broker.shutdown()


async def test_no_token() -> None:
    """A worker without a token does not start, and leaves nothing open."""
    opened = MediaApi()
    made = make_worker(lambda: opened)
    with pytest.raises(errors.ConfigurationError, match="CLOUD_API_ACCESS_TOKEN"):
        await made.broker.startup()
    with pytest.raises(errors.ConfigurationError, match="closed"):
        await opened.with_options(access_token="a-token").get_info("1")
    await made.broker.shutdown()


@pytest.mark.parametrize("name", ["media", "store"])
def test_what_is_made_already(name: str) -> None:
    """A client or a store in the place of a function that makes one is refused where the tasks are made."""
    given: Any = MemoryStore() if name == "store" else MediaApi("token", "1")
    with pytest.raises(
        errors.ConfigurationError, match=f"^{name} must be a function that makes one, such as the class"
    ):
        media_tasks(InMemoryBroker(), **{name: given})


async def test_no_store(emulator: Emulator, path: Path) -> None:
    """`ensure` without a store, and a second `media_tasks` on a broker, are ConfigurationErrors."""
    made = make_worker(emulator.api, store=False)
    await made.broker.startup()
    task = await made.tasks.ensure.kiq(path)
    with pytest.raises(errors.ConfigurationError, match=r"media_tasks\(broker, store="):
        await made.tasks.result(task)
    await made.broker.shutdown()
    with pytest.raises(errors.ConfigurationError, match="already has media tasks"):
        media_tasks(made.broker)


async def test_no_results() -> None:
    """`result` on a broker without a result backend is a ConfigurationError."""

    class Silent(InMemoryBroker):
        """A broker without a result backend."""

        def __init__(self) -> None:
            super().__init__()
            AsyncBroker.__init__(self)

    broker = Silent()
    tasks = media_tasks(broker)
    with pytest.raises(errors.ConfigurationError, match="with_result_backend"):
        await tasks.result(AsyncTaskiqTask[Any]("1", broker.result_backend))


def test_without_taskiq(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without taskiq, the import fails and names what to install."""
    for name in [name for name in sys.modules if name.startswith("meta_media.library.taskiq")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "taskiq", None)
    with pytest.raises(ModuleNotFoundError) as missing:
        importlib.import_module("meta_media.library.taskiq")
    assert str(missing.value) == "meta_media.library.taskiq needs a package: pip install '.[taskiq]' in a checkout"
    assert missing.value.name == "taskiq"


# The life of a worker


async def test_shutdown_waits(path: Path) -> None:
    """A worker that shuts down finishes the tasks in progress, and then closes the client and the store."""
    answer = asyncio.Event()
    async with Server(stalled(b"", answer, then=UPLOADED)) as server:
        made = make_worker(lambda: MediaApi("a-token", "1", settings=Settings(base_url=server.base_url)))
        await made.broker.startup()
        media = made.broker.state.media_api
        async with anyio.create_task_group() as group:
            group.start_soon(made.tasks.upload.kicker().with_task_id("one").kiq, path)
            await wait_until(lambda: bool(server.requests))
            group.start_soon(made.broker.shutdown)
            await asyncio.sleep(0.05)  # time for a shutdown that does not wait
            assert made.closed == []
            answer.set()
        assert made.closed == ["store"]
        with pytest.raises(errors.ConfigurationError, match="closed"):
            await media.get_info("1")
    assert (await made.tasks.result(upload_one(made))).id == "77"


async def test_pulse(emulator: Emulator) -> None:
    """A worker sends an empty task at the interval of `idle_timeout`, even if one of them fails."""
    broker = InMemoryBroker()
    kicked = asyncio.Event()
    sent = 0

    class FirstSendFails(SmartRetryMiddleware):
        """Makes the first send fail."""

        async def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
            """Fail once."""
            nonlocal sent
            sent += 1
            if sent == 1:
                raise ConnectionError
            return message

        async def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
            """See the pulse."""
            assert (message.task_name, result.is_err) == ("meta_media.pulse", False)
            kicked.set()

    vars(broker)["idle_timeout"] = 20  # as RedisStreamBroker has it
    media_tasks(broker, media=emulator.api)
    broker.add_middlewares(FirstSendFails())
    await broker.startup()
    await kicked.wait()
    await broker.shutdown()
    before = sent
    await asyncio.sleep(0.1)  # time for a pulse after the shutdown
    assert sent == before
