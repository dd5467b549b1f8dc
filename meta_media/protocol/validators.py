"""Validators of settings and arguments: attrs' own, with one sentence in a `ConfigurationError`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeGuard

import attrs
from attrs.validators import and_, ge, gt, instance_of, le, matches_re, not_

from meta_media.errors import ConfigurationError
from meta_media.protocol.secrets import shown

__all__ = [
    "checked_id",
    "checked_token",
    "count",
    "flag",
    "header_text",
    "identifier",
    "is_id",
    "mapping",
    "matched",
    "must_be",
    "not_negative",
    "positive",
    "text",
    "time_to_live",
    "whole",
    "word",
]

Validator = Callable[[Any, Any, Any], Any]  # instance, attribute, value

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
_ID_HINTS: Final[Mapping[str, str]] = {  # what to do, where something else is often passed
    "the media id": ": upload the file first, and pass the result",
    **dict.fromkeys(("phone_number_id", "to_number"), ": it is the id of the number at Meta, not the number"),
}
_TOKEN_SIZE: Final = 20  # characters, which no id has and each token exceeds
_TOKEN: Final = re.compile(r"[!-~]+")  # what a header can carry, without white space


def must_be(what: str, *validators: Validator) -> Callable[[object, attrs.Attribute[Any], object], None]:
    """Combine validators of attrs into one that raises `ConfigurationError("<field> must be <what>, not <value>")`."""
    check = validators[0] if len(validators) == 1 else and_(*validators)

    def validate(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
        try:
            check(instance, attribute, value)
        except (TypeError, ValueError):
            raise ConfigurationError(f"{attribute.name} must be {what}, not {shown(value)}") from None

    return validate


_NOT_BOOL: Final[Validator] = not_(instance_of(bool))  # a bool is an int in Python
_NUMBER: Final[Validator] = and_(instance_of((int, float)), _NOT_BOOL, le(sys.maxsize))  # NaN passes no comparison
_INTEGER: Final[Validator] = and_(_NUMBER, instance_of(int))

positive: Final = must_be("a positive number", _NUMBER, gt(0))
not_negative: Final = must_be("a positive number or 0", _NUMBER, ge(0))
count: Final = must_be("a whole number above zero", _INTEGER, ge(1))
whole: Final = must_be("a whole number", _INTEGER, ge(0))
text: Final = must_be("a str", instance_of(str))
flag: Final = must_be("True or False", instance_of(bool))
identifier: Final = must_be("digits", matches_re(_ID))
mapping: Final = must_be("a mapping", instance_of(Mapping))
word: Final = must_be("a word such as call_voicemail_announcement", matches_re(r"_*[^\W_]\w*"))
time_to_live: Final = must_be(  # Meta's page "No Storage": 60 to 43,200 minutes
    "a timedelta from one hour to thirty days", instance_of(timedelta), ge(timedelta(hours=1)), le(timedelta(days=30))
)
header_text: Final = must_be("printable ASCII, because it is sent in a header", matches_re(r"[ -~]*"))


def matched(pattern: re.Pattern[str], value: object, sentence: str) -> re.Match[str]:
    """Match the whole of a text; raise `ConfigurationError(sentence)` for anything else."""
    match = pattern.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ConfigurationError(sentence)
    return match


def checked_token(value: object) -> str:
    """Return the access token without surrounding white space. No error shows the token."""
    if value is not None and not isinstance(value, str):
        kind = type(value).__name__
        hint = ", which it returns: pass the function itself" if kind == "coroutine" else ""
        raise ConfigurationError(f"access_token must be a str or an async function that returns one, not {kind}{hint}")
    token = (value or "").strip()
    if not token:
        raise ConfigurationError("there is no access token: pass access_token or set CLOUD_API_ACCESS_TOKEN")
    if token[:7].lower() == "bearer ":
        raise ConfigurationError('the access token starts with "Bearer ": leave out "Bearer "')
    if not _TOKEN.fullmatch(token):
        raise ConfigurationError("the access token contains white space or non-ASCII characters: copy it again")
    return token


def is_id(value: object) -> TypeGuard[str]:
    """Return whether a value may be an id, and is safe to show."""
    return isinstance(value, str) and _ID.fullmatch(value) is not None and not is_token(value)


def is_token(value: object) -> bool:
    """Return whether a value is an access token of Meta's, which begins with EAA, in the place of something else."""
    return isinstance(value, str) and value.startswith("EAA") and len(value) > _TOKEN_SIZE


def checked_id(value: object, name: str) -> str:
    """Return an id that is safe in a URL's path: it has no slash, dot or colon."""
    if is_token(value):
        raise ConfigurationError(f"{name} is an access token: pass the id")
    digits = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = _ID.fullmatch(digits) if isinstance(digits, str) else None
    if match is None:  # else the sentence, which takes longer than the check, is not written
        raise ConfigurationError(f"{name} must be digits, not {shown(value)}{_ID_HINTS.get(name, '')}")
    return match[0]
