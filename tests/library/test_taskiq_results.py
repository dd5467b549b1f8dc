"""Results and errors of tasks: they arrive as objects of our classes, through any serializer."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

import pytest
from taskiq import AsyncTaskiqTask, InMemoryBroker
from taskiq.message import TaskiqMessage
from taskiq.result import TaskiqResult
from taskiq.serializers import JSONSerializer, PickleSerializer

from meta_media import MediaApi, MediaError, errors
from meta_media.library.taskiq import RemoteError, media_tasks
from meta_media.library.taskiq.results import error_from_plain, error_to_plain
from tests.library.worker import Worker

KINDS: Final = [getattr(errors, name) for name in errors.__all__]


async def test_results_of_a_newer_version(worker: Worker, path: Path) -> None:
    """A field that only a newer worker knows is ignored."""
    for verb in (worker.tasks.upload, worker.tasks.ensure):
        task = await verb.kiq(path)
        saved = json.loads(worker.backend.results[task.task_id])
        saved["return_value"]["newer"] = 1
        worker.backend.results[task.task_id] = json.dumps(saved).encode()
        assert not hasattr(await worker.tasks.result(cast("AsyncTaskiqTask[Any]", task)), "newer")


async def test_errors_of_others_stay_taskiqs(worker: Worker) -> None:
    """An error of another library arrives as taskiq sends it."""

    @worker.broker.task("wrong")
    async def wrong() -> None:
        raise LookupError("not ours")

    with pytest.raises(LookupError, match="not ours"):
        (await (await wrong.kiq()).wait_result()).raise_for_error()


def full(kind: type[MediaError]) -> MediaError:
    """Make an error with a value in each attribute."""
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
    """Return everything that an error holds, nested errors included."""
    if not isinstance(error, MediaError):
        return error
    return type(error).__name__, str(error), {name: facts(value) for name, value in vars(error).items()}


def executed(result: TaskiqResult[Any]) -> None:
    """Pass a result through our middleware, as a worker does before it is saved."""
    broker = InMemoryBroker()
    media_tasks(broker)
    broker.middlewares[0].post_execute(TaskiqMessage(task_id="1", task_name="x", labels={}, args=[], kwargs={}), result)


def sent(error: MediaError, dumps: Callable[[Any], Any], loads: Callable[[Any], Any]) -> BaseException | None:
    """Send an error as the result of a task, as the middleware and a result backend do."""
    result = TaskiqResult[Any](is_err=True, return_value=None, execution_time=0, error=error)
    executed(result)
    assert isinstance(result.error, type(error))  # middlewares see it before it is sent
    assert str(result.error) == str(error)
    return TaskiqResult[Any].model_validate(loads(dumps(result.model_dump(mode="json")))).error


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive(kind: type[MediaError]) -> None:
    """Every error arrives with its class, sentence, attributes, notes and nested answer."""
    error = full(kind)
    arrived = sent(error, json.dumps, json.loads)
    assert type(arrived) is kind
    assert facts(arrived) == facts(error)


def test_errors_survive_pickle() -> None:
    """A backend that pickles results returns the same error, too."""
    error = full(errors.RateLimitError)
    result: TaskiqResult[Any] = TaskiqResult(is_err=True, return_value=None, execution_time=0, error=error)
    executed(result)
    arrived = pickle.loads(pickle.dumps(result)).error
    assert type(arrived) is errors.RateLimitError
    assert facts(arrived) == facts(error)


def test_causes_stay() -> None:
    """An error's cause is not sent, because it may hold anything."""
    error = errors.NetworkError("the way is broken")
    error.__cause__ = ValueError("canary")
    texts: list[str] = []

    def dumps(dumped: object) -> str:
        texts.append(json.dumps(dumped))
        return texts[0]

    assert facts(sent(error, dumps, json.loads)) == facts(error)
    assert "canary" not in texts[0]


def test_errors_of_another_version() -> None:
    """An unknown class arrives as its nearest known base, and unknown attributes are ignored."""

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


@pytest.mark.parametrize("worker", [JSONSerializer, PickleSerializer], indirect=True)
async def test_real_errors(worker: Worker, media: MediaApi, path: Path) -> None:
    """An error of Meta arrives with its codes, and one of the disk with its number."""
    with pytest.raises(errors.MediaNotFoundError) as here:
        await media.get_info("1045500012345678")
    with pytest.raises(errors.MediaNotFoundError) as there:
        await worker.tasks.result(await worker.tasks.download.kiq("1045500012345678", path))
    assert (there.value.status, there.value.code, there.value.subcode) == (400, here.value.code, here.value.subcode)
    assert (there.value.operation, there.value.media_id) == ("download", "1045500012345678")
    assert (there.value.attempts, there.value.retryable, there.value.maybe_applied) == (1, False, False)
    assert there.value.fbtrace_id
    with pytest.raises(errors.StorageError) as gone:
        await worker.tasks.result(await worker.tasks.upload.kiq(path.with_name("gone")))
    assert gone.value.errno == 2
