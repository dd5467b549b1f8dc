"""`Recipient`: who gets a message."""

from __future__ import annotations

import re
from typing import Final, Literal

import attrs

from meta_media.errors import ConfigurationError
from meta_media.protocol.secrets import shown
from meta_media.protocol.validators import matched

__all__ = ["Recipient", "address"]

Kind = Literal["phone", "user", "group"]

# Meta's page "Business-scoped user IDs": a country code, `ENT.` for those of a parent portfolio, and 128 characters at most.
_USER_ID: Final = re.compile(r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]{1,128}")
_PHONE_NUMBER: Final = re.compile(r"\+?[1-9][0-9]{4,19}")  # no country code begins with 0
_GROUP_ID: Final = re.compile(r"[!-~]{1,256}")  # opaque, like Base64
# What people and address books write into a number: spaces of any width, hyphens, dots, and marks of the text's direction.
_SEPARATORS: Final = re.compile(r"[ ().\u00a0\u2000-\u200f\u2010-\u2015\u202a-\u202f\u2066-\u2069-]")
_PATTERNS: Final[dict[Kind, re.Pattern[str]]] = {"phone": _PHONE_NUMBER, "user": _USER_ID, "group": _GROUP_ID}
_EXAMPLES: Final[dict[Kind, str]] = {
    "phone": 'a phone number with country code, such as "+15550001111"',
    "user": 'a user id, such as "US.13491208655302741918"',
    "group": "a group id of Meta's",
}


def _check(recipient: Recipient, _: object, value: str) -> None:
    kind = recipient.kind
    if kind not in tuple(_PATTERNS):  # a tuple, because any value may be looked for in one
        raise ConfigurationError(f"a recipient's kind must be phone, user or group, not {shown(kind)}")
    matched(_PATTERNS[kind], value, f"a {kind} recipient must be {_EXAMPLES[kind]}, not {shown(value)}")


@attrs.frozen
class Recipient:
    """
    The recipient of a message: `Recipient.phone(…)`, `Recipient.user(…)` or `Recipient.group(…)`.

    `MediaApi.send` also takes a `str` that is a phone number or a user id.

    Attributes:
        kind: `"phone"`, `"user"` or `"group"`.
        id: The phone number, as digits with or without a leading plus; the business-scoped user id; or the group id.

    Raises:
        ConfigurationError: The id is not one of this kind.
    """

    kind: Kind
    id: str = attrs.field(validator=_check)

    @classmethod
    def phone(cls, number: str) -> Recipient:
        """Address a phone number with country code. Spaces, dots, hyphens and brackets in it are dropped."""
        given: object = number
        if isinstance(given, int):
            raise ConfigurationError(f'a recipient must be a str such as "+15550001111", not the int {given}')
        digits = _SEPARATORS.sub("", given.strip()) if isinstance(given, str) else ""
        if re.fullmatch(r"\+?0[0-9]{4,19}", digits):
            sentence = "must begin with its country code, without 00 or a leading 0"
            raise ConfigurationError(f'the phone number {shown(given)} {sentence}, such as "+15550001111"')
        if not _PHONE_NUMBER.fullmatch(digits):
            what = shown(given) if given is None or isinstance(given, str) else type(given).__name__
            hint = ": pass its reply_address" if hasattr(given, "reply_address") else ""
            expected = f"{_EXAMPLES['phone']}, {_EXAMPLES['user']}, or Recipient.group(id)"
            raise ConfigurationError(f"a recipient must be {expected}, not {what}{hint}")
        return cls("phone", digits)

    @classmethod
    def user(cls, user_id: str) -> Recipient:
        """Address a person by the business-scoped user id, or its parent form, of a webhook: no phone number is needed."""
        return cls("user", user_id)

    @classmethod
    def group(cls, group_id: str) -> Recipient:
        """Address a group by its id."""
        return cls("group", group_id)

    @classmethod
    def of(cls, to: str | Recipient) -> Recipient:
        """Return the recipient that an argument of `MediaApi.send` means."""
        if isinstance(to, Recipient):
            return to
        return address(to, "user") or cls.phone(to)


def address(value: object, *kinds: Kind) -> Recipient | None:
    """Return a value of Meta's as a recipient of the first of these kinds that it fits, or None."""
    for kind in kinds:
        if isinstance(value, str) and _PATTERNS[kind].fullmatch(value):
            return Recipient(kind, value)
    return None
