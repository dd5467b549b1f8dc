"""
Faults in a TOML file.

```toml
[[fault]]
operation = "download"  # when: the fields of PlannedFault
times = 2               # 1 without it; "always" for every request
at = 1000               # what: the fields of Fault
end = "reset"

[[fault]]
operation = "upload"
kind = "throttle"       # or "error", "html", "redirect": the other ways to make a Fault, and what they take
retry_after = 2
```
"""

from __future__ import annotations

import inspect
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from meta_media.emulator.fault_queue import PlannedFault
from meta_media.emulator.faults import Fault

__all__ = ["read_faults"]

_MAKERS: Final[Mapping[str, Callable[..., Fault]]] = {
    "error": Fault.error,
    "html": Fault.html,
    "redirect": Fault.redirect,
    "throttle": Fault.throttle,
}
_WHEN: Final = tuple(field.name for field in attrs.fields(PlannedFault) if field.name != "fault")
_WHAT: Final = tuple(field.name for field in attrs.fields(Fault))


def read_faults(path: str | os.PathLike[str]) -> list[PlannedFault]:
    """
    Read a file of faults.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not such a file; the message is one sentence about what is wrong where.
    """
    content = Path(path).read_bytes()
    try:
        document = tomllib.loads(content.decode())
    except ValueError as error:
        raise ValueError(f"it is not TOML: {error}") from error
    tables = document.pop("fault", None)
    if document:
        raise ValueError(f"it may hold nothing but tables [[fault]], and there is {next(iter(document))!r}")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError("it holds no list of tables [[fault]]")
    return [_planned(number, table) for number, table in enumerate(tables, 1)]


def _planned(number: int, table: dict[str, Any]) -> PlannedFault:
    when = {name: table.pop(name) for name in _WHEN if name in table}
    try:
        if "operation" not in when:
            raise ValueError("it needs an operation")
        if when.get("times") == "always":
            when["times"] = None
        return PlannedFault(fault=_fault(table), **when)
    except ValueError as error:
        raise ValueError(f"fault {number}: {error}") from error


def _fault(table: dict[str, Any]) -> Fault:
    kind = table.pop("kind", None)
    if kind is None:
        make: Callable[..., Fault] = Fault
    elif isinstance(kind, str) and kind in _MAKERS:
        make = _MAKERS[kind]
    else:
        raise ValueError(f"kind must be one of {', '.join(_MAKERS)}, not {kind!r}")
    known = [name for name in {**inspect.signature(make).parameters, **dict.fromkeys(_WHAT)} if name != "more"]
    for name in table:
        if name not in known:
            raise ValueError(f"there is no {name!r}; there are {', '.join((*_WHEN, 'kind', *known))}")
    try:
        return make(**table)
    except TypeError as error:  # "missing 1 required positional argument: 'location'"
        raise ValueError(str(error)) from error
