"""Checks of arguments and settings, each with its one sentence."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import attrs

from meta_media.errors import ConfigurationError

__all__ = [
    "checked_id",
    "checked_number",
    "checked_token",
    "count",
    "header_text",
    "matched",
    "not_negative",
    "positive",
    "proof",
    "shown",
    "text",
    "time_to_live",
    "whole",
    "word",
]


_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

_NUMBER = re.compile(r"\+?[0-9]{5,20}")


def matched(pattern: re.Pattern[str], value: object, sentence: str) -> re.Match[str]:
    """Return the match of a whole text, or raise `ConfigurationError` with this sentence."""
    match = pattern.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ConfigurationError(sentence)
    return match


def shown(value: object) -> str:
    """Show what was passed by mistake, without what a URL may hold: a password, a signature."""
    return re.sub(r"//[^/@]*@|[?].*", "…", repr(value)[:100], flags=re.DOTALL)


def positive(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Require a finite number above zero."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float("inf"):
        raise ConfigurationError(f"{attribute.name} must be a positive number, not {value!r}")


def not_negative(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Require a finite number of at least zero."""
    if value != 0:
        positive(_, attribute, value)


def count(_: object, attribute: attrs.Attribute[int], value: object) -> None:
    """Require a whole number above zero."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigurationError(f"{attribute.name} must be a whole number above zero, not {value!r}")


def whole(_: object, attribute: attrs.Attribute[int], value: object) -> None:
    """Require a whole number of at least zero."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(f"{attribute.name} must be a whole number, not {value!r}")


def proof(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Require a form of `appsecret_proof`, or None."""
    if value not in ("timed", "classic", None):
        raise ConfigurationError(f'{attribute.name} must be "timed", "classic" or None, not {value!r}')


def text(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Require a str."""
    if not isinstance(value, str):
        raise ConfigurationError(f"{attribute.name} must be text, not a {type(value).__name__}")


def word(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Require letters, digits and underscores."""
    if not isinstance(value, str) or not value.replace("_", "").isalnum():
        sentence = f"{attribute.name} must be a word such as call_voicemail_announcement, not {value!r}"
        raise ConfigurationError(sentence)


def time_to_live(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Require a timedelta that Meta's page "No Storage" allows: 60 to 43,200 minutes."""
    if not isinstance(value, timedelta) or not timedelta(hours=1) <= value <= timedelta(days=30):
        raise ConfigurationError(f"{attribute.name} must be a timedelta from one hour to thirty days, not {value}")


def header_text(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    """Require printable ASCII."""
    if not isinstance(value, str) or not (value.isascii() and (value.isprintable() or not value)):
        raise ConfigurationError(f"{attribute.name} must be printable ASCII, because it is sent in a header")


def checked_token(value: object) -> str:
    """Return the token without surrounding white space; what a header cannot carry is refused and never printed."""
    token = value.strip() if isinstance(value, str) else ""
    if not token:
        raise ConfigurationError("there is no access token: pass access_token or set CLOUD_API_ACCESS_TOKEN")
    if not re.fullmatch(r"[!-~]+", token):
        raise ConfigurationError("the access token has characters that no token has: white space or non-ASCII")
    return token


def checked_id(value: object, name: str) -> str:
    """Return an id that is safe in a path: `[A-Za-z0-9_-]`, never a slash, dot or scheme."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    return matched(_ID, text, f"{name} must be digits, not {shown(value)}")[0]


def checked_number(value: object) -> str:
    """Return a recipient's number in the form Meta takes: digits, with or without a leading plus."""
    text = re.sub(r"[ ().-]", "", value) if isinstance(value, str) else value
    return matched(_NUMBER, text, f"a recipient is a phone number such as +15550001111, not {value!r}")[0]
