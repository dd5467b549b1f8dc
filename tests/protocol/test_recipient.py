"""Recipients: phone numbers, user ids and groups, and what is none of them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_media.errors import ConfigurationError
from meta_media.protocol.models import InboundMedia
from meta_media.protocol.recipient import Recipient, address


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("15550001111", "15550001111"),
        ("+15550001111", "+15550001111"),
        ("+1 (555) 000-1111", "+15550001111"),
        ("+1.555.000.1111", "+15550001111"),
        (" +15550001111\n", "+15550001111"),
        ("\u202a+1\u00a0555\u202f000\u20111111\u202c", "+15550001111"),  # as phones and their address books copy it
        ("12345", "12345"),
        ("1" * 20, "1" * 20),
    ],
)
def test_phone_numbers(number: str, expected: str) -> None:
    """A phone number is digits with or without a plus; what people and phones write between them is dropped."""
    assert Recipient.of(number) == Recipient.phone(number) == Recipient("phone", expected)


@pytest.mark.parametrize(
    "user_id", ["US.13491208655302741918", "BR.1", "US.ENT.11815799212886844830", "DE." + "a" * 128]
)
def test_user_ids(user_id: str) -> None:
    """A business-scoped user id and its parent form are recipients as they are."""
    assert Recipient.of(user_id) == Recipient.user(user_id) == Recipient("user", user_id)


def test_groups() -> None:
    """A group is addressed explicitly, because its id has no form of its own."""
    group = Recipient.group("Y2FwaV9ncm91cDoxNTU1MDAwMTExMTI=")
    assert Recipient.of(group) is group


@pytest.mark.parametrize("number", ["0171 1234567", "0015550001111", "+0171 1234567", "00 49 171 1234567", "00000"])
def test_numbers_without_a_country_code(number: str) -> None:
    """A number without a country code, or with the prefix of a call abroad, would reach another person or none."""
    with pytest.raises(ConfigurationError) as caught:
        Recipient.of(number)
    assert str(caught.value) == (
        f"the phone number {number!r} must begin with its country code, without 00 or a leading 0,"
        ' such as "+15550001111"'
    )


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        *((text, repr(text)) for text in ("", "+", "1234", "1" * 21, "++15550001111", "1555000111a", "somebody")),
        *((text, repr(text)) for text in ("1555\n0001111", "\u0661" * 11, "15550001111,15550002222")),
        *(
            (text, repr(text))
            for text in ("us.1", "US.", "USA.1", "US.ENT.", "US.a-b", "US.1\n", "whatsapp:+15550001111")
        ),
        ("US." + "1" * 129, "'US.…'"),
        (None, "None"),
        (b"15550001111", "bytes"),
        (["15550001111"], "list"),
        (1.5, "float"),
        (InboundMedia(id="7", kind="image", caption="secret"), "InboundMedia: pass its reply_address"),
    ],
    ids=ascii,
)
def test_what_is_no_recipient(wrong: Any, shown: str) -> None:
    """Anything else is refused with an example of each kind; of an object, only the type is shown."""
    with pytest.raises(ConfigurationError) as caught:
        Recipient.of(wrong)
    assert str(caught.value) == (
        'a recipient must be a phone number with country code, such as "+15550001111", a user id, such as'
        f' "US.13491208655302741918", or Recipient.group(id), not {shown}'
    )


def test_recipients_are_no_ints() -> None:
    """A phone number as an int is refused, because an int has no plus."""
    wrong: Any = 15550001111
    with pytest.raises(ConfigurationError) as caught:
        Recipient.of(wrong)
    assert str(caught.value) == 'a recipient must be a str such as "+15550001111", not the int 15550001111'


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        ("phone", "01711234567", 'a phone recipient must be a phone number with country code, such as "+15550001111"'),
        ("user", "15550001111", 'a user recipient must be a user id, such as "US.13491208655302741918"'),
        ("group", "two words", "a group recipient must be a group id of Meta's"),
        ("group", None, "a group recipient must be a group id of Meta's"),
        ("mail", "a@b", "a recipient's kind must be phone, user or group"),
        (["user"], "US.1", "a recipient's kind must be phone, user or group"),
    ],
)
def test_recipients_are_checked(kind: Any, value: Any, sentence: str) -> None:
    """A recipient that is made directly is checked as well."""
    with pytest.raises(ConfigurationError) as caught:
        Recipient(kind, value)
    assert str(caught.value).startswith(f"{sentence}, not ")


@given(st.text() | st.none() | st.integers() | st.from_regex(r"\+?[0-9]{0,22}|[A-Z]{2}\.(ENT\.)?\w*"))
def test_any_address(value: object) -> None:
    """A value of a webhook is an address only if it can be sent to."""
    found = address(value, "phone", "user")
    assert found is None or Recipient.of(found.id) == found
