"""The tree of errors: as drawn, printed as one sentence, and whole after copy, pickle and notes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import copy
import functools
import inspect
import multiprocessing
import pickle
import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meta_media import errors
from meta_media.errors import (
    ApiError,
    ConfigurationError,
    DownloadTooLargeError,
    IntegrityError,
    InvalidMediaError,
    MediaError,
    NetworkError,
    StorageError,
    TransferTimeoutError,
    UntrustedUrlError,
)

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MediaError)]
ANSWERS = [kind for kind in CLASSES if issubclass(kind, ApiError)]
FILES = [kind for kind in CLASSES if issubclass(kind, InvalidMediaError)]
TIMEOUTS = [kind for kind in CLASSES if issubclass(kind, TransferTimeoutError)]
ROUND = {"operation": "upload", "media_id": "1045500012345678", "attempts": 3, "elapsed": 1.5}
ANSWER = {
    "advice": "wait",
    "status": 400,
    "code": 130429,
    "subcode": 2494055,
    "details": "Cloud API message throughput has been reached.",
    "fbtrace_id": "Az8or2yhqkZfEZ",
    "retry_after": 30.0,
    "retryable": True,
    "maybe_applied": True,
}


def full(kind: type[MediaError]) -> MediaError:
    """Build an error with every argument of its constructor, none of them its default."""
    known: dict[str, Any] = {
        "kind": "image",
        "limit": 5,
        "actual": 6,
        "answer": ApiError("no", status=400, code=131031),
        "phase": "read",
        "expected": "e3b0",
        "host": "example.com:8443",
        "errno": 28,
        **ANSWER,
    }
    names = inspect.signature(kind).parameters
    wanted = [name for name in known if name in names or ("flags" in names and name in {"retryable", "maybe_applied"})]
    error = kind("something went wrong", **{name: known[name] for name in wanted})
    error.__dict__.update(ROUND)
    error.add_note("while testing")
    return error


def attributes(error: MediaError) -> dict[str, object]:
    """Return the attributes of an error; a nested answer as its own attributes, because exceptions compare by identity."""
    own = dict(error.__dict__)
    if isinstance(answer := own.pop("answer", None), MediaError):
        own["answer"] = attributes(answer)
    return own


def drawn() -> dict[str, str]:
    """Read the tree in the module's docstring: the name of each class with its parent."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for indent, name in re.findall(r"^    ([ │├└─]*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 3
        if depth:
            parents[name] = path[depth - 1]
        path[depth:] = [name]
    return parents


def test_tree_is_as_drawn() -> None:
    """The tree in the docstring is the real one, with every class and nothing else."""
    real = {kind.__name__: kind.__mro__[1].__name__ for kind in CLASSES if kind is not MediaError}
    assert drawn() == real


def test_root_is_a_plain_exception() -> None:
    """MediaError is a direct subclass of Exception."""
    assert MediaError.__mro__ == (MediaError, Exception, BaseException, object)


def test_every_class_is_exported() -> None:
    """The module's `__all__` lists every error, sorted."""
    assert errors.__all__ == sorted(kind.__name__ for kind in CLASSES)


def pickled(protocol: int, error: MediaError) -> Any:
    """Send an error through pickle."""
    return pickle.loads(pickle.dumps(error, protocol))


COPIES: dict[str, Callable[[MediaError], MediaError]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{f"pickle {number}": functools.partial(pickled, number) for number in range(pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", CLASSES)
def test_copies_are_whole(kind: type[MediaError], how: str) -> None:
    """A copied or pickled error keeps its class, sentence, attributes and notes."""
    error = full(kind)
    twin = COPIES[how](error)
    assert type(twin) is kind
    assert str(twin) == str(error)
    assert twin.args == error.args
    assert attributes(twin) == attributes(error)
    assert twin.__notes__ == ["while testing"]


@pytest.mark.parametrize("kind", CLASSES)
def test_bare_errors_are_copied_too(kind: type[MediaError]) -> None:
    """An error without arguments pickles as well, and prints nothing."""
    twin = pickle.loads(pickle.dumps(kind()))
    assert (type(twin), str(twin), attributes(twin)) == (kind, "", attributes(kind()))


def _fail(kind: type[MediaError]) -> None:
    raise full(kind)


def test_errors_cross_processes() -> None:
    """An error raised in a worker process arrives whole, and does not break the pool."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        arrived = [pool.submit(_fail, kind).exception() for kind in CLASSES]
    assert [type(error) for error in arrived] == CLASSES
    assert all(isinstance(error, MediaError) and error.media_id == ROUND["media_id"] for error in arrived)


@contextlib.contextmanager
def counting() -> Iterator[None]:
    """Change an error that passes, as libraries do."""
    try:
        yield
    except MediaError as error:
        error.attempts += 1
        raise


def raise_through_managers(error: MediaError) -> None:
    """Raise an error below a generator's context manager, entered by hand and by an exit stack."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(counting())
        with counting():
            raise error


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_pass_through_context_managers(kind: type[MediaError]) -> None:
    """`@contextmanager` and `ExitStack` pass on the same object, with its traceback."""
    error = full(kind)
    with pytest.raises(kind) as caught:
        raise_through_managers(error)
    assert caught.value is error
    assert error.attempts == 5
    assert error.__traceback__ is not None


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_print_one_sentence(kind: type[MediaError]) -> None:
    """A traceback ends with the class and one line, then the notes."""
    *_, line, note = "".join(traceback.format_exception_only(full(kind))).splitlines()
    advice = "wait. Meta: " if kind in ANSWERS else ""
    assert line.startswith(f"meta_media.errors.{kind.__name__}: {advice}something went wrong")
    assert note == "while testing"


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if kind not in ANSWERS])
def test_message_is_printed_as_it_is(kind: type[MediaError]) -> None:
    """Other errors print their message, which is an attribute too."""
    error = full(kind)
    assert (str(error), error.message, error.args) == ("something went wrong",) * 2 + (("something went wrong",),)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ApiError("no"), "no"),
        (ApiError("no", status=400), "no (HTTP 400)"),
        (ApiError("no", code=0), "no (code 0)"),
        (
            ApiError("no", status=400, code=100, subcode=33, fbtrace_id="AbC"),
            "no (HTTP 400, code 100, subcode 33, fbtrace_id AbC)",
        ),
        (ApiError("no", details="because"), "no: because"),
        (ApiError("no, because", details="because", code=1), "no, because (code 1)"),
        (ApiError("no", details=""), "no"),
        (ApiError("no", retry_after=3.0), "no"),
        (ApiError("no", advice="make a new token", code=190), "make a new token. Meta: no (code 190)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_answers_print_their_facts(error: ApiError, sentence: str) -> None:
    """An ApiError prints the advice, Meta's text, the details unless the text has them, and the numbers for support."""
    assert str(error) == sentence


@pytest.mark.parametrize("kind", CLASSES)
def test_defaults(kind: type[MediaError]) -> None:
    """Outside a call there is no operation, media or attempt."""
    error = kind("no")
    assert (error.operation, error.media_id, error.attempts, error.elapsed) == (None, None, 0, 0.0)
    assert error.maybe_applied is False


RETRYABLE = {IntegrityError, *TIMEOUTS}


@pytest.mark.parametrize("kind", CLASSES)
def test_only_the_passing_kinds_are_retryable_by_default(kind: type[MediaError]) -> None:
    """Wrong bytes and timeouts are retryable by default, all other errors are not."""
    assert kind("no").retryable is (kind in RETRYABLE)


@pytest.mark.parametrize("kind", ANSWERS)
def test_api_errors_have_the_facts_of_the_response(kind: type[ApiError]) -> None:
    """Every fact of a response is an attribute under its own name."""
    error = kind("no", status=400, code=4, subcode=5, details="d", fbtrace_id="f", retry_after=6.5, retryable=True)
    assert attributes(error) == {
        "message": "no",
        "advice": "",
        "status": 400,
        "code": 4,
        "subcode": 5,
        "details": "d",
        "fbtrace_id": "f",
        "retry_after": 6.5,
        "scope": None,
        "retryable": True,
        "maybe_applied": False,
    }


@pytest.mark.parametrize("kind", [NetworkError, *TIMEOUTS])
def test_network_errors_say_whether_the_request_was_sent(kind: type[NetworkError]) -> None:
    """`maybe_applied` distinguishes a lost response from a request that was not sent."""
    error = kind("lost", retryable=False, maybe_applied=True)
    assert (error.retryable, error.maybe_applied) == (False, True)


@pytest.mark.parametrize("kind", FILES)
def test_file_errors_have_limit_and_actual(kind: type[InvalidMediaError]) -> None:
    """The error of a file has its kind, the limit, the actual value, and Meta's response if there is one."""
    answer = ApiError("no")
    error = kind("no", kind="audio", limit="mono Opus", actual="Vorbis", answer=answer)
    assert (error.kind, error.limit, error.actual, error.answer) == ("audio", "mono Opus", "Vorbis", answer)
    assert (kind("no").kind, kind("no").limit, kind("no").actual, kind("no").answer) == (None,) * 4


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (NetworkError("no", stale=True), {"stale": True, "lasting": False}),
        (NetworkError("no", lasting=True), {"stale": False, "lasting": True}),
        (TransferTimeoutError("no", phase="write"), {"phase": "write", "stale": False, "lasting": False}),
        (IntegrityError("no", expected=3, actual=4), {"expected": 3, "actual": 4}),
        (UntrustedUrlError("no", host="example.com"), {"host": "example.com"}),
        (DownloadTooLargeError("no", limit=5, actual=6), {"limit": 5, "actual": 6}),
        (StorageError("no", errno=28), {"errno": 28}),
        (ConfigurationError("no"), {}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, MediaError) else "",
)
def test_other_errors_have_their_own_facts(error: MediaError, expected: dict[str, object]) -> None:
    """The facts of a sentence are attributes as well."""
    common = {"message": "no", "retryable": type(error) in RETRYABLE, "maybe_applied": False}
    assert attributes(error) == common | expected
