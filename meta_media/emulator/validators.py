"""Validators of attrs fields whose refusals are sentences for people, since what they check may come from a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

__all__ = ["Check", "boolean", "integer", "maybe", "number", "octets", "one_of", "position", "printable_headers"]

Check = Callable[[Any, Any, Any], None]


def maybe(check: Check) -> Check:
    """Let None pass."""

    def checked(owner: Any, field: Any, value: Any) -> None:
        if value is not None:
            check(owner, field, value)

    return checked


def integer(minimum: int, maximum: float = math.inf) -> Check:
    """Ask for a whole number."""
    upto = "" if maximum == math.inf else f" and at most {maximum}"

    def check(_: Any, field: Any, value: Any) -> None:
        if type(value) is not int or not minimum <= value <= maximum:
            _refuse(field, f"a whole number of at least {minimum}{upto}", value)

    return check


def number(*, maximum: float = math.inf) -> Check:
    """Ask for a number above zero."""
    upto = "" if maximum == math.inf else f" and at most {maximum}"

    def check(_: Any, field: Any, value: Any) -> None:
        if type(value) not in {int, float} or not 0 < value <= maximum or value == math.inf:
            _refuse(field, f"a number above 0{upto}", value)

    return check


def one_of(*choices: str) -> Check:
    """Ask for one of several words."""

    def check(_: Any, field: Any, value: Any) -> None:
        if not isinstance(value, str) or value not in choices:
            _refuse(field, f"one of {', '.join(choices)}", value)

    return check


def position(*places: str) -> Check:
    """Ask for one of several words or a number of bytes."""

    def check(_: Any, field: Any, value: Any) -> None:
        if not (isinstance(value, str) and value in places) and (type(value) is not int or value < 0):
            _refuse(field, f"one of {', '.join(places)} or a number of bytes", value)

    return check


def boolean(_: Any, field: Any, value: Any) -> None:
    """Ask for True or False."""
    if type(value) is not bool:
        _refuse(field, "true or false", value)


def octets(_: Any, field: Any, value: Any) -> None:
    """Ask for bytes, into which a converter has made text."""
    if not isinstance(value, bytes):
        _refuse(field, "text or bytes", value)


def printable_headers(_: Any, field: Any, value: Any) -> None:
    """Ask for names and values that make lines of a head."""
    if not isinstance(value, Mapping):
        _refuse(field, "a mapping of names to values", value)
    for part in (part for pair in value.items() for part in pair):
        if not isinstance(part, str) or not part.isascii() or not part.isprintable():
            _refuse(field, "made of printable ASCII", part)


def _refuse(field: Any, wanted: str, value: object) -> NoReturn:
    raise ValueError(f"{field.name} must be {wanted}, not {value!r}")
