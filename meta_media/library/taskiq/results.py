"""Results and errors in a result backend: JSON types, which any serializer takes, that arrive as our own classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast

from taskiq import TaskiqMiddleware
from taskiq.message import TaskiqMessage
from taskiq.result import TaskiqResult

from meta_media import errors
from meta_media.errors import MediaError
from meta_media.library.entry import LibraryEntry
from meta_media.protocol.convert import from_plain, to_plain
from meta_media.protocol.models import DeletedMedia, DownloadedMedia, UploadedMedia

__all__ = ["PlainResults", "RemoteError", "error_from_plain", "error_to_plain", "result_from_plain"]

T = TypeVar("T")
_ERRORS: Final[Mapping[str, type[MediaError]]] = {name: getattr(errors, name) for name in errors.__all__}


class PlainResults(TaskiqMiddleware):
    """Replaces our results and errors by plain data, after middlewares that retry have seen them."""

    def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        """Replace the result and the error of a task before they are saved. A task that was cancelled has no result."""
        if message.task_name.startswith("meta_media.") and not isinstance(result.error, Exception | None):
            raise result.error  # taskiq would save it as the task's error, and acknowledge the task
        if isinstance(result.error, MediaError):
            result.error = _sendable(result.error)
        if isinstance(result.return_value, UploadedMedia | DownloadedMedia | DeletedMedia | LibraryEntry):
            result.return_value = to_plain(result.return_value)


class RemoteError(MediaError):
    """
    A function in the shape of a class: called with plain data, it returns the error that was sent.

    taskiq finds an error's class by name and calls it with the error's `args`. No error is an instance of this class.
    """

    def __new__(cls, data: Mapping[str, Any]) -> Any:
        """Return the error that was sent."""
        return error_from_plain(data)


def result_from_plain(kind: type[T], value: Any) -> T | None:
    """Return the result of a task as an object of its class. A task that failed has None."""
    return from_plain(kind, value) if isinstance(value, Mapping) else cast("T | None", value)


def error_to_plain(error: MediaError) -> dict[str, Any]:
    """Return an error as JSON types: the names of its classes, nearest first, its attributes and its notes."""
    facts = {
        name: error_to_plain(value) if isinstance(value, MediaError) else value
        for name, value in vars(error).items()
        if isinstance(value, MediaError | str | int | float | None)
    }
    kinds = [kind.__name__ for kind in type(error).__mro__ if issubclass(kind, MediaError)]
    return {"kinds": kinds, "facts": facts, "notes": list(getattr(error, "__notes__", ()))}


def error_from_plain(data: Mapping[str, Any]) -> MediaError:
    """Make an error again. One of a newer version has the nearest class that is known here, and no unknown attributes."""
    kind = next((_ERRORS[name] for name in data["kinds"] if name in _ERRORS), MediaError)
    error = kind(data["facts"]["message"])
    known = set(vars(error)).union(*(vars(cls).get("__annotations__", ()) for cls in kind.__mro__))
    for name in known.intersection(data["facts"]):
        value = data["facts"][name]
        setattr(error, name, error_from_plain(value) if isinstance(value, Mapping) else value)
    for note in data["notes"]:
        error.add_note(note)
    return error


def _sendable(error: MediaError) -> MediaError:
    """
    Return a copy of an error that taskiq can send.

    taskiq sends the name of a class and `args`. The copy's class is a subclass of the error's, named `RemoteError`, with
    plain data as `args`. The cause of the error is not sent: it may hold anything.
    """
    namespace = {
        "__module__": RemoteError.__module__,
        "__qualname__": RemoteError.__qualname__,
        "args": property(lambda error: (error_to_plain(error),)),
        "__reduce__": lambda error: (error_from_plain, (error_to_plain(error),)),
    }
    kind = cast("type[MediaError]", type(type(error).__name__, (type(error),), namespace))
    copy = kind.__new__(kind, error.message)
    vars(copy).update(vars(error))
    return copy
