"""The checks that several arguments of the emulator share."""

from __future__ import annotations

from typing import TypeVar, get_args

from meta_media.errors import ConfigurationError

__all__ = ["of_type", "one_of", "text"]

_T = TypeVar("_T")


def of_type(name: str, value: _T, kind: type | tuple[type, ...], expected: str) -> _T:
    """Return an argument; a `ConfigurationError` if it is of another kind."""
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} must be {expected}, not {type(value).__name__}")
    return value


def text(name: str, value: str) -> str:
    """Return an argument; a `ConfigurationError` if it is no text, or has half of a surrogate pair."""
    try:
        return of_type(name, value, str, "text").encode().decode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{name} has characters that UTF-8 cannot encode: replace them") from None


def one_of(name: str, value: _T, choices: object) -> _T:
    """Return an argument; a `ConfigurationError` if it is not in a tuple of choices, or a `Literal` of them."""
    allowed = choices if isinstance(choices, tuple) else get_args(choices)
    if value not in allowed:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(str, allowed))}")
    return value
