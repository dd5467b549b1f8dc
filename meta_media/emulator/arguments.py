"""The checks that several arguments of the emulator share."""

from __future__ import annotations

import re
from typing import Final, TypeVar, get_args

from meta_media.errors import ConfigurationError

__all__ = ["of_type", "one_of", "origin", "text"]

_T = TypeVar("_T")
_ORIGIN: Final = re.compile(r"(https?://(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?)/?")


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


def origin(name: str, value: str) -> str:
    """Return a URL without a slash at its end; a `ConfigurationError` unless it is a scheme, a host and maybe a port."""
    if match := _ORIGIN.fullmatch(text(name, value)):
        return match[1]
    example = "a scheme and a host such as https://graph.facebook.com"
    raise ConfigurationError(f"{name} must be {example}: leave out path, query and user")


def one_of(name: str, value: _T, choices: object) -> _T:
    """Return an argument; a `ConfigurationError` if it is not in a tuple of choices, or a `Literal` of them."""
    allowed = choices if isinstance(choices, tuple) else get_args(choices)
    if value not in allowed:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(str, allowed))}")
    return value
