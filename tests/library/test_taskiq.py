"""Tasks for a fleet, on taskiq: the verbs at both ends, and plain data in between."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import pickle
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, cast

import anyio
import attrs
import pytest
from taskiq import AsyncBroker, AsyncResultBackend, AsyncTaskiqTask, InMemoryBroker, SmartRetryMiddleware
from taskiq.abc.serializer import TaskiqSerializer
from taskiq.depends.progress_tracker import TaskProgress, TaskState
from taskiq.exceptions import TaskiqResultTimeoutError
from taskiq.message import TaskiqMessage
from taskiq.result import TaskiqResult
from taskiq.serializers import JSONSerializer, PickleSerializer

from meta_media import (
    DeletedMedia,
    DownloadedMedia,
    LibraryEntry,
    MediaApi,
    MediaError,
    MemoryStore,
    Settings,
    UploadedMedia,
    errors,
)
from meta_media.emulator import Emulator, Fault
from meta_media.library.taskiq import MediaTasks, RemoteError, media_tasks
from meta_media.library.taskiq.results import error_from_plain, error_to_plain
from tests.support.servers import Server, stalled, told, until

KINDS: Final = [getattr(errors, name) for name in errors.__all__]


class Wire(AsyncResultBackend[Any]):
    """Keeps results and progress as bytes, as a backend on a network does; or is out of order."""

    def __init__(self, serializer: TaskiqSerializer | None = None) -> None:
        self.serializer = serializer or JSONSerializer()
        self.results: dict[str, bytes] = {}
        self.progress: dict[str, bytes] = {}
        self.broken: set[str] = set()

    def works(self, *what: str) -> None:
        """Raise if this is to fail."""
        if self.broken.intersection(what):
            raise ConnectionError(f"no {what[0]}")

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        """Keep it."""
        self.results[task_id] = self.serializer.dumpb(result.model_dump(mode="json"))

    async def is_result_ready(self, task_id: str) -> bool:
        """Tell whether it is there."""
        self.works("is_result_ready")
        return task_id in self.results

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[Any]:
        """Make it again."""
        return TaskiqResult[Any].model_validate(self.serializer.loadb(self.results[task_id]))

    async def set_progress(self, task_id: str, progress: TaskProgress[Any]) -> None:
        """Keep it."""
        self.works("set_progress", str(progress.state.value if isinstance(progress.state, TaskState) else ""))
        self.progress[task_id] = self.serializer.dumpb(progress.model_dump(mode="json"))

    async def get_progress(self, task_id: str) -> TaskProgress[Any] | None:
        """Make it again."""
        self.works("get_progress")
        kept = self.progress.get(task_id)
        return None if kept is None else TaskProgress[Any].model_validate(self.serializer.loadb(kept))


@attrs.frozen(kw_only=True)
class Running:
    """A worker in this process."""

    broker: InMemoryBroker
    backend: Wire
    tasks: MediaTasks
    closed: list[str]

    def begun(self, task_id: str = "one") -> str:
        """Leave what a worker leaves that is killed with a task under way."""
        progress = TaskProgress[Any](state=TaskState.STARTED, meta={"worker": "elsewhere:1"})
        self.backend.progress[task_id] = self.backend.serializer.dumpb(progress.model_dump(mode="json"))
        return task_id


class ToldStore(MemoryStore):
    """A store that tells for how long it is claimed, and when it is closed."""

    def __init__(self, closed: list[str]) -> None:
        super().__init__()
        self.closed = closed

    async def claim(self, key: str, seconds: float) -> int | None:
        """Claim, and tell."""
        assert seconds == 7
        return await super().claim(key, seconds)

    async def aclose(self) -> None:
        """Tell."""
        self.closed.append("store")


def running(media: Callable[[], MediaApi], *, store: bool = True, backend: Wire | None = None) -> Running:
    """Make a broker whose worker is this process; it runs between `startup` and `shutdown`."""
    broker, backend = InMemoryBroker(await_inplace=True), backend or Wire()
    closed: list[str] = []
    broker.with_result_backend(backend)
    tasks = media_tasks(broker, media=media, store=(lambda: ToldStore(closed)) if store else None, claim_seconds=7)
    return Running(broker=broker, backend=backend, tasks=tasks, closed=closed)


@pytest.fixture(params=[JSONSerializer, PickleSerializer])
async def run(emulator: Emulator, request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    """A worker that talks to the emulator, with a backend of this kind."""
    made = running(emulator.api, backend=Wire(request.param()))
    await made.broker.startup()
    yield made
    await made.broker.shutdown()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file to upload."""
    file = tmp_path / "note.txt"
    file.write_bytes(b"to all of you")
    return file


# What goes in and comes out


async def test_verbs(run: Running, emulator: Emulator, path: Path, tmp_path: Path) -> None:
    """Each task takes what its verb takes, and gives what it gives, as the same class."""
    number = emulator.phone_number_id
    uploaded = await run.tasks.result(
        await run.tasks.upload.kiq(path, filename="n.txt", ttl=timedelta(hours=2), verify=True, phone_number_id=number)
    )
    saved = await run.tasks.result(await run.tasks.download.kiq(uploaded.id, tmp_path))
    deleted = await run.tasks.result(await run.tasks.delete.kiq(uploaded.id, phone_number_id=number))
    missing = await run.tasks.result(await run.tasks.delete.kiq(uploaded.id, missing_ok=True))

    sha256 = saved.sha256
    assert uploaded == UploadedMedia(id=uploaded.id, mime_type="text/plain", file_size=13, sha256=sha256)
    place = tmp_path / f"{uploaded.id}.txt"
    assert saved == DownloadedMedia(path=place, size=13, sha256=sha256, mime_type="text/plain", media_id=uploaded.id)
    assert (uploaded.attempts, saved.attempts) == (2, 2)
    assert (deleted, missing) == (DeletedMedia(success=True), DeletedMedia(success=False))


async def test_ensure(run: Running, emulator: Emulator, path: Path) -> None:
    """The library of the worker uploads once, for each number, and says so."""
    emulator.add_account("222", emulator.access_token)
    first = await run.tasks.result(await run.tasks.ensure.kiq(str(path)))
    second = await run.tasks.result(await run.tasks.ensure.kiq(str(path)))
    brief = await run.tasks.result(
        await run.tasks.ensure.kiq(path, ttl=timedelta(hours=2), phone_number_id="222", filename="n.txt")
    )
    await run.tasks.result(await run.tasks.delete.kiq(first.id))
    third = await run.tasks.result(await run.tasks.ensure.kiq(path, verify=True))

    assert isinstance(first, LibraryEntry)
    assert first == second
    assert (first.reused, second.reused) == (False, True)
    assert not second.maybe_duplicate
    assert (brief.phone_number_id, brief.sha256) == ("222", first.sha256)
    assert brief.expires_at - brief.uploaded_at < timedelta(hours=2)
    assert third.id not in {first.id, brief.id}


async def test_keywords_arrive(emulator: Emulator, path: Path) -> None:
    """The keywords of an upload reach Meta, and the ones that WhatsApp would not take are refused."""
    other = running(emulator.api)
    await other.broker.startup()
    task = await other.tasks.upload.kiq(path, ttl=timedelta(minutes=1))
    with pytest.raises(errors.ConfigurationError, match="ttl must be a timedelta"):
        await other.tasks.result(task)
    with pytest.raises(errors.UnsupportedMediaTypeError):
        await other.tasks.result(await other.tasks.upload.kiq(path, mime_type="text/csv"))
    with pytest.raises(errors.UploadRejectedError):
        await other.tasks.result(await other.tasks.ensure.kiq(path, mime_type="text/csv", validate=False))
    await other.broker.shutdown()


async def test_taskiqs_own_way(run: Running, path: Path) -> None:
    """`wait_result` gives our results and errors, too, and a task's progress names its worker."""
    task = await run.tasks.upload.kiq(path)
    result = await task.wait_result()
    failed = await (await run.tasks.delete.kiq("1045500012345678")).wait_result()
    progress = await task.get_progress()

    assert (type(result.return_value), result.error) == (UploadedMedia, None)
    assert type(failed.error) is errors.MediaNotFoundError
    assert cast("Any", failed.return_value) is None
    assert cast("Any", progress).meta["worker"].rpartition(":")[2] == str(os.getpid())


async def test_results_of_a_newer_version(emulator: Emulator, path: Path) -> None:
    """What a newer worker says besides is left out."""
    made = running(emulator.api)
    await made.broker.startup()
    for verb in (made.tasks.upload, made.tasks.ensure):
        task = await verb.kiq(path)
        saved = json.loads(made.backend.results[task.task_id])
        saved["return_value"]["newer"] = 1
        made.backend.results[task.task_id] = json.dumps(saved).encode()
        assert not hasattr(await made.tasks.result(cast("AsyncTaskiqTask[Any]", task)), "newer")
    await made.broker.shutdown()


async def test_own_tasks(run: Running, emulator: Emulator, path: Path) -> None:
    """A task of the user's own finds client and library, and its errors and results are taken care of as well."""

    @run.broker.task("own")
    async def own(media_id: str) -> Any:
        state = run.broker.state
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


async def test_errors_of_others_stay_taskiqs(run: Running) -> None:
    """What is no error of ours arrives as taskiq sends it."""

    @run.broker.task("wrong")
    async def wrong() -> None:
        raise LookupError("not ours")

    with pytest.raises(LookupError, match="not ours"):
        (await (await wrong.kiq()).wait_result()).raise_for_error()


# Errors


def full(kind: type[MediaError]) -> MediaError:
    """Make an error with something in each attribute."""
    error = kind("a sentence")
    annotated = {name for cls in kind.__mro__ for name in vars(cls).get("__annotations__", ())}
    for number, name in enumerate(sorted((set(vars(error)) | annotated) - {"message", "answer"})):
        setattr(error, name, f"{name} {number}")
    if isinstance(error, errors.InvalidMediaError):
        error.answer = errors.ApiError("Meta's own", status=400, code=131031)
    error.elapsed, error.retryable, error.media_id = 1.5, True, None
    error.add_note("a note")
    return error


def facts(error: BaseException | None) -> Any:
    """Tell all that an error says, nested errors included."""
    if not isinstance(error, MediaError):
        return error
    return type(error).__name__, str(error), {name: facts(value) for name, value in vars(error).items()}


def executed(result: TaskiqResult[Any]) -> None:
    """Let our middleware have a result, as a worker does before it is saved."""
    broker = InMemoryBroker()
    media_tasks(broker)
    broker.middlewares[0].post_execute(TaskiqMessage(task_id="1", task_name="x", labels={}, args=[], kwargs={}), result)


def sent(error: MediaError, dumps: Callable[[Any], Any], loads: Callable[[Any], Any]) -> BaseException | None:
    """Send an error as the result of a task, as the middleware and a result backend do."""
    result = TaskiqResult[Any](is_err=True, return_value=None, execution_time=0, error=error)
    executed(result)
    assert isinstance(result.error, type(error))  # for whoever looks at it before it is sent
    assert str(result.error) == str(error)
    return TaskiqResult[Any].model_validate(loads(dumps(result.model_dump(mode="json")))).error


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive(kind: type[MediaError]) -> None:
    """Every error arrives as itself: class, sentence, attributes, notes, and the answer within."""
    error = full(kind)

    arrived = sent(error, json.dumps, json.loads)

    assert type(arrived) is kind
    assert facts(arrived) == facts(error)


def test_errors_survive_pickle() -> None:
    """A backend that pickles the result itself gives the error itself, too."""
    error = full(errors.RateLimitError)
    result: TaskiqResult[Any] = TaskiqResult(is_err=True, return_value=None, execution_time=0, error=error)
    executed(result)

    arrived = pickle.loads(pickle.dumps(result)).error

    assert type(arrived) is errors.RateLimitError
    assert facts(arrived) == facts(error)


def test_causes_stay() -> None:
    """An error's cause, which may say anything, is not sent."""
    error = errors.NetworkError("the way is broken")
    error.__cause__ = ValueError("canary")
    said: list[str] = []

    def dumps(dumped: object) -> str:
        said.append(json.dumps(dumped))
        return said[0]

    assert facts(sent(error, dumps, json.loads)) == facts(error)
    assert "canary" not in said[0]


def test_errors_of_another_version() -> None:
    """A class that is not known here arrives as its nearest base, and attributes that are not known are left out."""

    class NewerError(errors.ServerError):
        """Of a newer version."""

    error = NewerError("new", status=599)
    vars(error).update(newer=1, raw=b"no JSON")

    arrived = sent(error, json.dumps, json.loads)

    assert type(arrived) is errors.ServerError
    assert arrived.status == 599
    assert not hasattr(arrived, "newer")
    stranger: Mapping[str, Any] = {
        "kinds": ["Other"],
        "facts": {"message": "?", "__class__": 1, "args": 2},
        "notes": [],
    }
    assert facts(error_from_plain(stranger)) == facts(MediaError("?"))
    assert isinstance(RemoteError(error_to_plain(error)), errors.ServerError)


async def test_real_errors(run: Running, media: MediaApi, path: Path) -> None:
    """What Meta says arrives with its codes, and what the disk says with its number."""
    with pytest.raises(errors.MediaNotFoundError) as here:
        await media.get_info("1045500012345678")
    with pytest.raises(errors.MediaNotFoundError) as there:
        await run.tasks.result(await run.tasks.download.kiq("1045500012345678", path))
    assert (there.value.status, there.value.code, there.value.subcode) == (400, here.value.code, here.value.subcode)
    assert (there.value.operation, there.value.media_id) == ("download", "1045500012345678")
    assert (there.value.attempts, there.value.retryable, there.value.maybe_applied) == (1, False, False)
    assert there.value.fbtrace_id

    with pytest.raises(errors.StorageError) as gone:
        await run.tasks.result(await run.tasks.upload.kiq(path.with_name("gone")))
    assert gone.value.errno == 2


# Configuration


async def test_no_number(emulator: Emulator, path: Path) -> None:
    """What a call lacks is told to the caller."""
    made = running(lambda: MediaApi(emulator.access_token, settings=Settings(base_url=emulator.base_url)))
    await made.broker.startup()
    task = await made.tasks.upload.kiq(path)
    with pytest.raises(errors.ConfigurationError, match="WA_PHONE_NUMBER_ID"):
        await made.tasks.result(task)
    await made.broker.shutdown()


async def test_no_token() -> None:
    """A worker without a token does not start, and leaves nothing open."""
    opened = MediaApi()
    made = running(lambda: opened)

    with pytest.raises(errors.ConfigurationError, match="CLOUD_API_ACCESS_TOKEN"):
        await made.broker.startup()

    with pytest.raises(errors.ConfigurationError, match="closed"):
        await opened.with_options(access_token="a-token").get_info("1")
    await made.broker.shutdown()


async def test_no_store(emulator: Emulator, path: Path) -> None:
    """`ensure` without a store is told of; a broker takes the tasks once, and has to keep results."""
    made = running(emulator.api, store=False)
    await made.broker.startup()
    task = await made.tasks.ensure.kiq(path)
    with pytest.raises(errors.ConfigurationError, match=r"media_tasks\(broker, store="):
        await made.tasks.result(task)
    await made.broker.shutdown()

    with pytest.raises(errors.ConfigurationError, match="already has media tasks"):
        media_tasks(made.broker)


async def test_no_results() -> None:
    """A broker without a result backend is told of before anybody waits."""

    class Silent(InMemoryBroker):
        """A broker as others are: without results."""

        def __init__(self) -> None:
            super().__init__()
            AsyncBroker.__init__(self)

    broker = Silent()
    tasks = media_tasks(broker)
    with pytest.raises(errors.ConfigurationError, match="with_result_backend"):
        await tasks.result(AsyncTaskiqTask[Any]("1", broker.result_backend))


async def test_result_in_time(run: Running) -> None:
    """Nobody has to wait for ever."""
    with pytest.raises(TaskiqResultTimeoutError):
        await run.tasks.result(the_one(run), within=0.01)


async def test_called_as_functions(run: Running, path: Path) -> None:
    """In a worker a task can be called as a function; elsewhere that is told of."""
    uploaded = await run.tasks.upload(path)
    assert uploaded.file_size == 13
    assert run.backend.progress == {}

    idle = running(MediaApi)
    with pytest.raises(errors.ConfigurationError, match="outside of a worker"):
        await idle.tasks.upload(path)


def test_without_taskiq(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without taskiq, the import fails and names what to install."""
    for name in [name for name in sys.modules if name.startswith("meta_media.library.taskiq")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "taskiq", None)

    with pytest.raises(ModuleNotFoundError) as missing:
        importlib.import_module("meta_media.library.taskiq")

    assert str(missing.value) == 'meta_media.library.taskiq needs a package: pip install "meta-media[taskiq]"'
    assert missing.value.name == "taskiq"


# Delivered again


async def test_killed_before(run: Running, emulator: Emulator, path: Path, tmp_path: Path) -> None:
    """What was begun and has no result is done again: an upload is flagged, and what is deleted has been deleted."""
    upload = await run.tasks.upload.kicker().with_task_id(run.begun("upload")).kiq(path)
    uploaded = await run.tasks.result(upload)
    assert uploaded.maybe_duplicate

    download = await run.tasks.download.kicker().with_task_id(run.begun("load")).kiq(uploaded.id, tmp_path / "copy")
    assert (await run.tasks.result(download)).size == 13

    for task_id in ("first", "second"):
        delete = await run.tasks.delete.kicker().with_task_id(run.begun(task_id)).kiq(uploaded.id)
        assert await run.tasks.result(delete) == DeletedMedia(success=True)


async def test_killed_with_a_library(run: Running, path: Path) -> None:
    """An entry that is uploaded again is flagged; one that the killed worker left is not."""
    again = await run.tasks.result(await run.tasks.ensure.kicker().with_task_id(run.begun("a")).kiq(path))
    reused = await run.tasks.result(await run.tasks.ensure.kicker().with_task_id(run.begun("b")).kiq(path))

    assert (again.maybe_duplicate, again.reused) == (True, False)
    assert (reused.maybe_duplicate, reused.reused) == (False, True)


async def test_done_before(run: Running, emulator: Emulator, path: Path) -> None:
    """What was done, and not acknowledged in time, gives the same result; nothing is sent."""
    first = await run.tasks.result(await run.tasks.upload.kicker().with_task_id("one").kiq(path))
    requests = len(emulator.requests)
    again = await run.tasks.result(await run.tasks.upload.kicker().with_task_id("one").kiq(path))

    assert again == first
    assert not again.maybe_duplicate
    assert len(emulator.requests) == requests


async def test_delivered_twice_at_a_time(emulator: Emulator, path: Path) -> None:
    """A task that comes again while it is under way in the same worker is done once, and both give its result."""
    emulator.fail("upload", Fault(at="reply", delay=0.5))
    made = running(emulator.api)
    await made.broker.startup()
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(made.tasks.upload.kicker().with_task_id("one").kiq, path)

    uploaded = await made.tasks.result(the_one(made))
    assert not uploaded.maybe_duplicate
    assert sum(request.method == "POST" for request in emulator.requests) == 1
    await made.broker.shutdown()


def the_one(made: Running) -> AsyncTaskiqTask[Any]:
    """Return the upload that was sent as task "one"."""
    return AsyncTaskiqTask("one", made.backend, made.tasks.upload.return_type)


REFUSED: Final = told({"error": {"message": "try again", "code": 2}}, 500)
THROTTLED: Final = told({"error": {"message": "throttled", "code": 130429}}, 400)
UPLOADED: Final = told({"id": "77"})


@pytest.mark.parametrize(("first", "applied"), [(REFUSED, True), (THROTTLED, False)], ids=["perhaps", "no"])
async def test_retried(first: bytes, applied: bool, path: Path) -> None:
    """Retries of taskiq see the true error, and an upload is flagged if the failed one may have arrived."""

    class OnlyRetryable(SmartRetryMiddleware):
        """Retries what may succeed later."""

        async def on_error(self, message: TaskiqMessage, result: TaskiqResult[Any], exception: BaseException) -> None:
            """Ask the error."""
            if isinstance(exception, MediaError) and exception.retryable:
                await super().on_error(message, result, exception)

    async with Server(first, UPLOADED, told({"error": {"message": "no", "code": 100}}, 400)) as server:
        settings = Settings(base_url=server.base_url, max_retries=0)
        made = running(lambda: MediaApi("a-token", "1", settings=settings))
        made.broker.add_middlewares(OnlyRetryable(default_retry_label=True, default_delay=0))
        await made.broker.startup()
        uploaded = await made.tasks.result(await made.tasks.upload.kiq(path))
        with pytest.raises(errors.InvalidRequestError):
            await made.tasks.result(await made.tasks.upload.kiq(path))
        await made.broker.shutdown()

    assert uploaded.maybe_duplicate == applied
    assert len(server.requests) == 3


async def test_killed_and_then_refused(path: Path) -> None:
    """What a killed worker may have uploaded stays in doubt when the next one is refused."""
    async with Server(THROTTLED, UPLOADED) as server:
        settings = Settings(base_url=server.base_url, max_retries=0)
        made = running(lambda: MediaApi("a-token", "1", settings=settings))
        await made.broker.startup()
        again = made.tasks.upload.kicker().with_task_id(made.begun("one"))
        with pytest.raises(errors.RateLimitError):
            await made.tasks.result(await again.kiq(path))
        assert (await made.tasks.result(await again.kiq(path))).maybe_duplicate
        await made.broker.shutdown()


@pytest.mark.parametrize("what", ["get_progress", "set_progress", "is_result_ready"])
async def test_backend_fails(what: str, emulator: Emulator, path: Path) -> None:
    """A result backend that is away before anything is sent is an error that says so, and may be retried."""
    made = running(emulator.api)
    await made.broker.startup()
    made.begun("one")
    made.backend.broken.add(what)
    task = await made.tasks.upload.kicker().with_task_id("one").kiq(path)
    made.backend.broken.clear()
    with pytest.raises(errors.StorageError, match=f"the result backend failed: no {what}") as failed:
        await made.tasks.result(task)
    assert failed.value.retryable
    assert emulator.requests == []
    await made.broker.shutdown()


async def test_backend_fails_after(emulator: Emulator) -> None:
    """A result backend that is away afterwards hides no error."""
    made = running(emulator.api)
    await made.broker.startup()
    made.backend.broken.add(TaskState.FAILURE.value)
    with pytest.raises(errors.MediaNotFoundError):
        await made.tasks.result(await made.tasks.delete.kiq("1045500012345678"))
    await made.broker.shutdown()


# A worker's life


async def test_shutdown_waits(path: Path) -> None:
    """A worker that ends lets what is under way be done, and then closes client and store."""
    answer = asyncio.Event()
    async with Server(stalled(b"", answer, then=UPLOADED)) as server:
        made = running(lambda: MediaApi("a-token", "1", settings=Settings(base_url=server.base_url)))
        await made.broker.startup()
        media = made.broker.state.media_api
        async with anyio.create_task_group() as group:
            group.start_soon(made.tasks.upload.kicker().with_task_id("one").kiq, path)
            await until(lambda: bool(server.requests))
            group.start_soon(made.broker.shutdown)
            await asyncio.sleep(0.05)  # so that a shutdown that does not wait has happened
            assert made.closed == []
            answer.set()
        assert made.closed == ["store"]
        with pytest.raises(errors.ConfigurationError, match="closed"):
            await media.get_info("1")
    assert (await made.tasks.result(the_one(made))).id == "77"


async def test_pulse(emulator: Emulator) -> None:
    """Where dead workers' tasks are looked for only when something new comes, a worker sends something, come what may."""
    broker = InMemoryBroker()
    kicked = asyncio.Event()
    tries = 0

    class Quiet(SmartRetryMiddleware):
        """A way to the broker that is away at first."""

        async def pre_send(self, message: TaskiqMessage) -> TaskiqMessage:
            """Fail once."""
            nonlocal tries
            tries += 1
            if tries == 1:
                raise ConnectionError
            return message

        async def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
            """Tell."""
            assert (message.task_name, result.is_err) == ("meta_media.pulse", False)
            kicked.set()

    vars(broker)["idle_timeout"] = 20  # as RedisStreamBroker has it
    media_tasks(broker, media=emulator.api)
    broker.add_middlewares(Quiet())
    await broker.startup()
    await kicked.wait()
    await broker.shutdown()
    before = tries
    await asyncio.sleep(0.1)  # so that a pulse that goes on is seen
    assert tries == before
