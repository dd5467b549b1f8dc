"""
Results and errors as plain data, for queues and result backends: what any serializer takes, and what comes out of it again.

Nothing of it needs more than JSON's types, and nothing is made of it but our own classes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import attrs

from meta_media import errors
from meta_media.errors import MediaError
from meta_media.library.entry import LibraryEntry
from meta_media.protocol.models import DeletedMedia, DownloadedMedia, UploadedMedia

__all__ = ["error_from_json", "error_to_json", "plain", "revived"]

T = TypeVar("T")
_KINDS: Final[Mapping[str, type[MediaError]]] = {name: getattr(errors, name) for name in errors.__all__}


def plain(value: Any) -> Any:
    """Return a result of ours as JSON's types, and anything else as it is."""
    if isinstance(value, LibraryEntry):
        return {**value.as_json(), "reused": value.reused}
    if isinstance(value, UploadedMedia | DownloadedMedia | DeletedMedia):
        fields = attrs.asdict(value, recurse=False)
        return {name: os.fspath(field) if isinstance(field, Path) else field for name, field in fields.items()}
    return value


def revived(kind: type[T], value: Any) -> T | None:
    """Undo `plain`; a task that failed has no value."""
    if not isinstance(value, Mapping):
        return cast("T | None", value)
    known = {field.name for field in attrs.fields(cast("Any", kind))}
    fields = {name: field for name, field in value.items() if name in known}  # a newer worker may know more
    if kind is LibraryEntry:
        return cast("T", LibraryEntry.from_json(fields))
    if fields.get("path") is not None:
        fields["path"] = Path(fields["path"])
    return kind(**fields)


def error_to_json(error: MediaError) -> dict[str, Any]:
    """Return an error as JSON's types: the names of its classes, nearest first, its message, attributes and notes."""
    facts = {
        name: error_to_json(value) if isinstance(value, MediaError) else value
        for name, value in vars(error).items()
        if isinstance(value, MediaError | str | int | float | None)
    }
    kinds = [kind.__name__ for kind in type(error).__mro__ if issubclass(kind, MediaError)]
    return {"kinds": kinds, "facts": facts, "notes": list(getattr(error, "__notes__", ()))}


def error_from_json(data: Mapping[str, Any]) -> MediaError:
    """Return the error again: of the nearest class that is known here, without attributes that it does not have here."""
    kind = next((_KINDS[name] for name in data["kinds"] if name in _KINDS), MediaError)
    error = kind(data["facts"]["message"])
    known = set(vars(error)).union(*(vars(cls).get("__annotations__", ()) for cls in kind.__mro__))
    for name in known.intersection(data["facts"]):
        value = data["facts"][name]
        setattr(error, name, error_from_json(value) if isinstance(value, Mapping) else value)
    for note in data["notes"]:
        error.add_note(note)
    return error
