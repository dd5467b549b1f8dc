"""JSON to values and back: one cattrs converter for Meta's responses, one for what we store."""

from __future__ import annotations

import base64
import binascii
import functools
import os
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import attrs

from meta_media.protocol.models import DeletedMedia, MediaInfo, SentMessage, UploadedMedia
from meta_media.protocol.validators import is_id

if TYPE_CHECKING:
    import cattrs

__all__ = [
    "converter",
    "from_plain",
    "hex_digest",
    "media_id",
    "of_type",
    "stored_converter",
    "structure",
    "timestamp",
    "to_plain",
]

T = TypeVar("T")
_SIZE: Final = re.compile("[0-9]{1,18}")
_HEX_DIGEST: Final = re.compile("[0-9A-Fa-f]{64}")
_USUAL_DIGEST: Final = re.compile("[0-9a-f]{64}")
_INFO: Final = frozenset({"id", "url", "mime_type", "sha256", "file_size", "messaging_product"})  # as Meta sends it


def structure(cls: type[T], data: object) -> T:
    """Convert Meta's JSON into a model. The `ValueError` for one that does not fit has the path of each wrong value."""
    if cls is UploadedMedia and isinstance(data, dict) and data.keys() == {"id"} and is_id(data["id"]):
        return cls(**data)  # as Meta responds to every upload: the converter would take ten times as long
    if cls is MediaInfo and isinstance(data, dict) and data.keys() == _INFO and _is_usual(data):
        return cls(**data)
    return _structured(converter(), cls, data, "response")


def to_plain(value: attrs.AttrsInstance, *, omit: Collection[str] = ()) -> dict[str, Any]:
    """
    Convert an attrs object into JSON types, for a journal, a store or a queue. Fields named in `omit` are left out.

    A `datetime` becomes unix seconds, a `Path` a string. Other nested values must be JSON types or attrs objects.
    """
    plain = stored_converter().unstructure(value)
    return {name: field for name, field in plain.items() if name not in omit}


def from_plain(cls: type[T], data: object) -> T:
    """
    Convert the JSON types that `to_plain` returned into an object. The `ValueError` has the path of each wrong value.

    A missing field gets its default. An unknown field is ignored, because a newer version may have written it.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"expected an object, got {data!r:.40}")  # noqa: TRY004 - one error for all that does not fit
    return _structured(stored_converter(), cls, data, cls.__name__)


def _structured(strict: cattrs.Converter, cls: type[T], data: object, path: str) -> T:
    try:
        return strict.structure(data, cls)
    except _misfits() as error:
        import cattrs

        raise ValueError("; ".join(cattrs.transform_error(error, path=path, format_exception=_sentence))) from error


def _misfits() -> tuple[type[Exception], ...]:
    """Return what the converter raises for data that does not fit. It is called only then: an import takes a microsecond."""
    import cattrs

    return cattrs.BaseValidationError, TypeError


def _sentence(error: BaseException, _: type | None) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


@functools.cache
def converter() -> cattrs.Converter:
    """
    Return the converter of Meta's JSON. cattrs by default turns a null into the text 'None'; this one raises.

    The first call imports cattrs, which is slow. `http` makes it on a thread before the first request.
    """
    import cattrs
    from cattrs.gen import make_dict_structure_fn, override

    strict = cattrs.Converter()
    for kind in (str, bool):
        strict.register_structure_hook(kind, of_type)
    strict.register_structure_hook(int, _size)
    strict.register_structure_hook(SentMessage, _sent)
    ids = override(struct_hook=lambda value, _: media_id(value))
    digests = override(struct_hook=lambda value, _: hex_digest(value))
    for cls in (UploadedMedia, MediaInfo, DeletedMedia):
        hook = make_dict_structure_fn(cls, strict, id=ids, sha256=digests)
        known = frozenset(attrs.fields_dict(cls)) - {"extra"}
        strict.register_structure_hook(cls, functools.partial(_with_extra, hook, known))
    return strict


@functools.cache
def stored_converter() -> cattrs.Converter:
    """Return the converter of stored values. The first call imports cattrs, which is slow."""
    import cattrs

    stored = cattrs.Converter()
    for kind in (str, bool, int):
        stored.register_structure_hook(kind, of_type)
    stored.register_structure_hook(datetime, _moment)
    stored.register_unstructure_hook(datetime, datetime.timestamp)
    stored.register_structure_hook(Path, lambda value, _: Path(value))
    stored.register_unstructure_hook(Path, os.fspath)
    return stored


def of_type(value: object, kind: type[T]) -> T:
    """Return a value of this type; `TypeError` for any other. A bool is no int."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"expected {kind.__name__}, got {value!r:.40}")
    return value


def media_id(value: object) -> str:
    """Require an id's characters, because the id becomes part of the next request's path."""
    text = of_type(value, str)
    if not is_id(text):
        raise TypeError(f"expected an id, got {text!r:.40}")
    return text


def _moment(value: object, _: type[datetime]) -> datetime:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected unix seconds, got {value!r:.40}")
    return datetime.fromtimestamp(value, UTC)


def _size(value: object, _: object) -> int:
    """Accept a number or digits: `file_size` is a string in Meta's guide and a number in its live responses."""
    if isinstance(value, (str, int)) and _SIZE.fullmatch(str(value)):
        return int(value)
    raise TypeError(f"expected a number of bytes, got {value!r:.40}")


def timestamp(value: object) -> datetime:
    """Return the time of unix seconds, which Meta writes as text."""
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,11}", str(value)):
        raise TypeError(f"expected unix seconds, got {value!r:.40}")
    return datetime.fromtimestamp(int(str(value)), UTC)


def hex_digest(value: object) -> str:
    """Return hex digits: Meta writes SHA-256 in hex in responses and in base64 in webhooks."""
    if isinstance(value, str) and _HEX_DIGEST.fullmatch(value):
        return value.lower()
    try:
        digest = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 32:
        raise TypeError(f"expected a SHA-256 in hex or base64, got {value!r:.80}")
    return digest.hex()


def _is_usual(info: Mapping[str, Any]) -> bool:
    """Return whether the values of Meta's usual response are those that the converter would return."""
    size, digest, texts = info["file_size"], info["sha256"], (info["url"], info["mime_type"], info["messaging_product"])
    return (
        type(size) is int
        and 0 <= size < 10**18
        and is_id(info["id"])
        and isinstance(digest, str)
        and _USUAL_DIGEST.fullmatch(digest) is not None
        and {str} == {*map(type, texts)}
    )


def _with_extra(hook: Any, known: frozenset[str], data: object, cls: type[attrs.AttrsInstance]) -> object:
    """Convert a JSON object with `hook`. Keys that are not `known` go into its `extra`."""
    if not isinstance(data, Mapping):
        raise TypeError(f"expected an object, got {data!r:.40}")
    if data.keys() <= known:
        return hook(data, cls)
    return hook({**data, "extra": {name: value for name, value in data.items() if name not in known}}, cls)


def _sent(data: object, _: type[SentMessage]) -> SentMessage:
    """Flatten the response for one recipient: `{"contacts": [{"wa_id"}], "messages": [{"id", "message_status"?}]}`."""
    lists = [data.get(key) if isinstance(data, Mapping) else None for key in ("messages", "contacts")]
    message, contact = (items[0] if isinstance(items, list) and items else {} for items in lists)
    if not isinstance(message, Mapping) or not isinstance(message.get("id"), str) or not message["id"]:
        raise TypeError("expected the id of one message")
    found = {"status": message.get("message_status")}
    found |= {name: contact.get(name) for name in ("wa_id", "user_id", "input") if isinstance(contact, Mapping)}
    return SentMessage(id=message["id"], **{name: text for name, text in found.items() if isinstance(text, str)})
