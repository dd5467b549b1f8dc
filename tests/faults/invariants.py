"""What must hold after every call, whatever it met: nothing half done, nothing left behind, nothing secret told."""

from __future__ import annotations

import contextlib
import copy
import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import meta_media
from meta_media import Outcome
from meta_media.errors import ApiError, MediaError
from tests.faults.cells import Cell
from tests.faults.many import ManyGraph, Ran, check_many_files, media_id
from tests.faults.scenes import APP_SECRET, CONTENT, OLD, TOKEN, Scene

_OURS: Final = str(Path(meta_media.__file__).parent)
_ABOUT_MEDIA: Final = frozenset({"get_info", "download", "delete", "send"})
_VERBS: Final = {"read": "download", "stream": "download", "handle": "download"}


def check_files(scene: Scene, *, done: bool | None, ran: Ran | None = None) -> None:
    """Check that nothing is half done, on the disk and at Meta. A cancelled call may be `done` or not: None."""
    if scene.cell.items:
        check_many_files(scene, ran)
        return
    names = {entry.name for entry in scene.folder.iterdir()}
    assert names <= {scene.target.name, *scene.others}
    if scene.target.name in names and scene.target.is_file():
        downloaded = scene.cell.verb == "download"
        allowed = {OLD, CONTENT} if done is None and downloaded else {CONTENT if done and downloaded else OLD}
        assert scene.target.read_bytes() in allowed
    assert all(stored == scene.sent for stored in scene.server.graph.stored)
    assert scene.server.errors == []


def check_requests(scene: Scene) -> None:
    """Check that all of a cell's faults struck, and what the server saw."""
    cell, server = scene.cell, scene.server
    assert not server.faults, f"{len(server.faults)} faults did not strike"
    assert all(proof() for proof in scene.proofs), "what the cell is about did not happen"
    assert cell.items or len(server.requests) == cell.requests
    assert cell.connections in {None, server.connections}
    asked = server.requests[-1].headers.get("range", "") if server.requests else ""
    assert cell.resumed is None or asked == f"bytes={cell.resumed}-" or bool(asked) is cell.resumed, asked
    many = server.graph if isinstance(server.graph, ManyGraph) else None
    met = [request for request in server.requests if many is None or many.index_of(request) == cell.struck]
    for request, fault in zip(met, cell.faults, strict=False):  # a retry may have met the truth
        assert fault.ends != "drain" or not request.whole, "the rest was sent although the answer was there"
    if cell.dropped:
        before = server.connections
        scene.checks.append(lambda: server.connections > before)  # the next call trusted none of them


def check_error(scene: Scene, error: BaseException) -> None:
    """Check that an error says all that is known, and can be handled like any other."""
    cell = scene.cell
    if isinstance(error, MediaError) and not cell.items:
        operation = _VERBS.get(cell.operation, cell.verb)
        about = operation in _ABOUT_MEDIA or cell.operation == "upload verified"
        about = about and cell.operation != "download of a URL"
        _check_statement(cell, error, operation, "7" if about else None, cell.attempts)
        last = cell.faults[-1] if cell.faults else None
        if last is not None and isinstance(error, ApiError) and (last.status or 0) >= 400 and last.text is None:
            assert error.fbtrace_id == "AbScriptedTrace"
            assert error.status == last.status
    _check_handled(error)


def _check_statement(cell: Cell, error: MediaError, operation: str, media: str | None, attempts: int) -> None:
    assert (error.operation, error.media_id, error.attempts) == (operation, media, attempts)
    assert error.elapsed > 0
    said = (error.retryable, error.maybe_applied)
    assert said == (cell.retryable, cell.maybe_applied), f"retryable, maybe_applied: {said}"
    assert {name: getattr(error, name) for name in cell.facts} == cell.facts
    assert str(error)


def _check_handled(error: BaseException) -> None:
    for twin in _handled(error):
        assert (type(twin), str(twin), _facts(twin)) == (type(error), str(error), _facts(error))


def check_outcome_error(scene: Scene, outcome: Outcome[Any]) -> None:
    """Check that the error of an item says all that is known, as that of a single call would."""
    cell, error = scene.cell, outcome.error
    assert error is not None
    if isinstance(error, MediaError):
        about = cell.verb != "upload" or cell.operation.endswith("verified")
        _check_statement(cell, error, cell.verb, media_id(outcome.index) if about else None, outcome.attempts)
    _check_handled(error)


def _facts(error: BaseException) -> dict[str, Any]:
    """List an error's attributes, without the notes; an answer within it by its own."""
    facts = {name: value for name, value in vars(error).items() if name != "__notes__"}
    return {name: vars(value) if isinstance(value, BaseException) else value for name, value in facts.items()}


def _handled(error: BaseException) -> Iterator[BaseException]:
    """Do to an error whatever programs do to errors; give what came out."""
    yield pickle.loads(pickle.dumps(error))
    yield copy.copy(error)
    yield copy.deepcopy(error)
    noted = copy.copy(error)
    noted.add_note("a note")
    yield noted
    yield _raised(error, _manager())
    with contextlib.ExitStack() as stack:
        stack.enter_context(_manager())
        yield _raised(error, stack.pop_all())


@contextlib.contextmanager
def _manager() -> Iterator[None]:
    yield


def _raised(error: BaseException, manager: contextlib.AbstractContextManager[object]) -> BaseException:
    before = error.__traceback__
    with pytest.raises(type(error)) as caught, manager:
        raise error
    assert caught.value is error
    error.__traceback__ = before  # which the frames of this test have been added to
    return caught.value


def check_secrets(scene: Scene, error: BaseException | None, records: list[logging.LogRecord], *more: object) -> None:
    """Check that neither a token nor anything out of a query is in an error, its causes, their frames, or the log."""
    secrets = {TOKEN, APP_SECRET, "SIGNATURE"}.union(*(request.secrets for request in scene.server.requests)) - {""}
    shown = "\n".join([*(record.getMessage() + repr(record.args) for record in records), *map(repr, more)])
    if error is not None:
        shown += "\n".join(_told(error))
    for secret in secrets:
        assert secret not in shown, f"{secret} is shown: …{shown.partition(secret)[0][-300:]}"


def _told(error: BaseException) -> Iterator[str]:
    """Write all that a log, a pickle, a debugger or an error reporter would show."""
    yield repr(pickle.dumps(error))
    yield repr(vars(error))
    yield from traceback.format_exception(error)
    for link in _chain(error):
        yield str(link)
        yield repr(link)
        yield from map(str, getattr(link, "__notes__", []))
        for frame in traceback.TracebackException.from_exception(link, capture_locals=True).stack:
            if frame.filename.startswith(_OURS):
                yield f"{frame.name}: {frame.locals}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """List an error, and every cause, context and member of a group behind it."""
    waiting: list[BaseException | None] = [error]
    known: list[BaseException] = []
    while waiting:
        link = waiting.pop()
        if link is None or any(link is other for other in known):
            continue
        known.append(link)
        yield link
        waiting += [link.__cause__, link.__context__]
        waiting += link.exceptions if isinstance(link, BaseExceptionGroup) else ()
