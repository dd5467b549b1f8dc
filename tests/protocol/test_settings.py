"""Settings: valid and invalid values of each field, the environment, secrets, tokens, ids and phone numbers."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_media.errors import ConfigurationError
from meta_media.protocol.secrets import Secret, SecretBytes
from meta_media.protocol.settings import Settings
from meta_media.protocol.validators import checked_id, checked_token

NAMES = [field.name for field in attrs.fields(Settings)]
RATES = (0, 0.5, 10**6)
SECONDS = ("connect_timeout", "read_timeout", "write_timeout")
COUNTS = ("concurrency", "chunk_size", "max_download_size", "memory")


def changed(name: str, value: Any) -> Settings:
    """Make settings with one field given."""
    return Settings(**{name: value})


def test_defaults() -> None:
    """Without arguments and environment variables, every field has its documented default."""
    assert attrs.asdict(Settings()) == {
        "base_url": "https://graph.facebook.com",
        "api_version": "v25.0",
        "business_account_id": None,
        "app_id": None,
        "app_secret": None,
        "appsecret_proof": "timed",
        "api_key": None,
        "token_hosts": ("lookaside.fbsbx.com",),
        "media_hosts": (".fbcdn.net", ".whatsapp.net"),
        "connect_timeout": 10.0,
        "read_timeout": 30.0,
        "write_timeout": 30.0,
        "minimum_rate": 1024.0,
        "deadline": None,
        "proxy": None,
        "max_retries": 2,
        "backoff": 0.5,
        "uploads_per_second": None,
        "info_errors_per_hour": None,
        "concurrency": 16,
        "chunk_size": 1048576,
        "max_download_size": 104857600,
        "fsync": False,
        "validate": True,
        "memory": 2**28,
        "str_paths": True,
        "user_agent_suffix": "",
    }


def test_every_field_is_documented() -> None:
    """The class's docstring explains every field."""
    attributes = inspect.cleandoc(Settings.__doc__ or "").partition("Attributes:")[2].partition("Raises:")[0]
    assert re.findall(r"^    (\w+): ", attributes, re.MULTILINE) == NAMES


@pytest.mark.parametrize(
    ("given_url", "expected"),
    [
        ("https://graph.facebook.com", "https://graph.facebook.com"),
        ("https://graph.facebook.com/", "https://graph.facebook.com"),
        ("https://Graph.Facebook.COM:8443/", "https://graph.facebook.com:8443"),
        ("graph.facebook.com", "https://graph.facebook.com"),
        ("graph.facebook.com:8443", "https://graph.facebook.com:8443"),
        ("localhost", "https://localhost"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://LocalHost", "http://localhost"),
        ("http://127.0.0.1:1", "http://127.0.0.1:1"),
        ("http://[::1]:65535/", "http://[::1]:65535"),
        ("https://[2001:DB8::1]:8443", "https://[2001:db8::1]:8443"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
    ],
)
def test_base_url(given_url: str, expected: str) -> None:
    """A base URL is a scheme, host and port; a bare host, as other SDKs document it, means https."""
    assert Settings(base_url=given_url).base_url == expected


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "https://",
        "https:///",
        "ftp://graph.facebook.com",
        "HTTPS://graph.facebook.com",
        "https://graph.facebook.com/v25.0",
        "https://graph.facebook.com?x=1",
        "https://graph.facebook.com#x",
        "https://user@graph.facebook.com",
        "https://graph.facebook.com:",
        "https://graph.facebook.com:https",
        "https://graph.facebook.com:65536",
        "https://graph.facebook.com:123456",
        "https://graph.facebook.com\n",
        " https://graph.facebook.com",
        "https://graph facebook.com",
        "https://graph.facebook.com\\@evil.example",
        "https://gräph.example",
        "https://::1",
        "http://graph.facebook.com",
        "http://localhost.evil.example",
        "http://127.0.0.2",
        "http://127.0.0.1.evil.example",
        "http://0.0.0.0",
        "http://[::2]",
        7,
        b"https://graph.facebook.com",
        None,
    ],
)
def test_base_urls_that_cannot_work(wrong: Any) -> None:
    """A base URL with a path, query or user, or with http to another machine, is refused."""
    with pytest.raises(ConfigurationError, match=r"^base_url "):
        Settings(base_url=wrong)


@pytest.mark.parametrize(
    ("given_version", "expected"),
    [
        (25, "v25.0"),
        ("25", "v25.0"),
        ("v25", "v25.0"),
        (25.0, "v25.0"),
        ("25.0", "v25.0"),
        ("v25.0", "v25.0"),
        ("v2.12", "v2.12"),
        (100, "v100.0"),
    ],
)
def test_api_version(given_version: Any, expected: str) -> None:
    """A version may be written as a number or a text, with and without the v and the minor part."""
    assert Settings(api_version=given_version).api_version == expected


@pytest.mark.parametrize(
    "wrong",
    ["", "v", "latest", "v25.", "v25.0.0", "25,0", "V25", "v25.0/..", "v25.0\n", "-1", 1e9, math.nan, True, None, ()],
)
def test_api_versions_that_are_none(wrong: Any) -> None:
    """Anything else as a version is refused."""
    with pytest.raises(ConfigurationError, match=r"^api_version must look like v25\.0, 25\.0 or 25, not "):
        Settings(api_version=wrong)


@pytest.mark.parametrize("name", ["token_hosts", "media_hosts"])
@pytest.mark.parametrize(
    ("given_hosts", "expected"),
    [
        ("Example.com", ("example.com",)),
        (["a.example", "B.example:8443"], ("a.example", "b.example:8443")),
        ({"a.example"}, ("a.example",)),
        ("a.example:443", ("a.example",)),
        ("[::1]:8443", ("[::1]:8443",)),
        ("[2001:DB8::1]", ("[2001:db8::1]",)),
        ((), ()),
    ],
    ids=repr,
)
def test_hosts(name: str, given_hosts: Any, expected: tuple[str, ...]) -> None:
    """Trusted hosts are one name or an iterable of names, in any case, with an optional port."""
    assert getattr(changed(name, given_hosts), name) == expected


def test_hosts_from_a_generator() -> None:
    """A generator of hosts is read once and kept."""
    settings = Settings(media_hosts=(f"{letter}.example" for letter in "ab"))
    assert settings.media_hosts == ("a.example", "b.example")


@pytest.mark.parametrize("name", ["token_hosts", "media_hosts"])
@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "https://example.com",
        "example.com/",
        "user@example.com",
        "example..com",
        "*.example.com",
        "example.com:",
        "example.com:port",
        "example.com\n",
        "exämple.com",
        "::1",
        "..example.com",
        ".",
        [None],
        [b"example.com"],
        ["example.com", ""],
        None,
        7,
    ],
    ids=repr,
)
def test_hosts_that_are_none(name: str, wrong: Any) -> None:
    """A URL, a wildcard, or anything else that would match nothing or too much, is refused."""
    with pytest.raises(ConfigurationError, match=r"trusted hosts? "):
        changed(name, wrong)


def test_suffixes_are_for_media_only() -> None:
    """A leading dot includes subdomains in `media_hosts`, and is refused in `token_hosts`."""
    assert Settings(media_hosts=".Example.com").media_hosts == (".example.com",)
    with pytest.raises(ConfigurationError, match=r"^token_hosts must be exact hosts, not the suffix '\.example\.com'$"):
        Settings(token_hosts=("a.example", ".Example.com"))


@pytest.mark.parametrize("rate", RATES)
def test_a_minimum_rate(rate: float) -> None:
    """A minimum rate is zero or any positive number."""
    assert Settings(minimum_rate=rate).minimum_rate == rate


@pytest.mark.parametrize("name", ["minimum_rate", "deadline"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", True])
def test_a_rate_or_deadline_that_cannot_be(name: str, value: Any) -> None:
    """A negative rate or deadline, and anything that is not a finite number, is refused."""
    with pytest.raises(ConfigurationError, match=name):
        changed(name, value)


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("good", [1, 0.001, 3600.0])
def test_seconds(name: str, good: float) -> None:
    """A timeout is any positive number of seconds."""
    assert getattr(changed(name, good), name) == good


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("wrong", [0, -1, 0.0, math.inf, -math.inf, math.nan, True, "10", None, []])
def test_seconds_that_are_none(name: str, wrong: Any) -> None:
    """Zero, infinity and anything that is not a number are refused as timeouts."""
    with pytest.raises(ConfigurationError, match=rf"^{name} must be a positive number, not "):
        changed(name, wrong)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("good", [1, 2**40])
def test_counts(name: str, good: int) -> None:
    """A count is any whole number above zero."""
    assert getattr(changed(name, good), name) == good


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("wrong", [0, -1, 1.0, True, "16", None, math.inf])
def test_counts_that_are_none(name: str, wrong: Any) -> None:
    """Zero, fractions and anything that is not a number are refused as counts."""
    with pytest.raises(ConfigurationError, match=rf"^{name} must be a whole number above zero, not "):
        changed(name, wrong)


@pytest.mark.parametrize("good", ["", "acme/1.0", "acme/1.0 (+https://acme.example)"])
def test_user_agent_suffix(good: str) -> None:
    """The suffix is any printable ASCII."""
    assert Settings(user_agent_suffix=good).user_agent_suffix == good


@pytest.mark.parametrize("wrong", ["a\r\nX-Evil: 1", "a\n", "\x00", "\t", "é", "\ud800", b"a", None, 7])
def test_user_agent_suffixes_that_break_headers(wrong: Any) -> None:
    """Text that would end a header line or does not fit in one is refused."""
    with pytest.raises(ConfigurationError, match=r"^user_agent_suffix must be printable ASCII"):
        Settings(user_agent_suffix=wrong)


VARIABLES = [
    ("WA_BASE_URL", "graph.example", "base_url", "https://graph.example"),
    ("CLOUD_API_VERSION", "24", "api_version", "v24.0"),
    ("WA_BUSINESS_ACCOUNT_ID", "102290129340398", "business_account_id", "102290129340398"),
    ("WA_APP_ID", "634974688087057", "app_id", "634974688087057"),
    ("WA_APP_SECRET", "0123456789abcdef", "app_secret", "0123456789abcdef"),
]


@pytest.mark.parametrize(("variable", "value", "name", "expected"), VARIABLES)
def test_environment(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str, expected: str) -> None:
    """A default comes from Meta's environment variable; an empty variable counts as unset."""
    default = getattr(Settings(), name)
    monkeypatch.setenv(variable, value)
    from_environment = getattr(Settings(), name)
    monkeypatch.setenv(variable, "")
    assert (from_environment, getattr(Settings(), name)) == (expected, default)


@pytest.mark.parametrize(("variable", "value", "name", "expected"), VARIABLES)
def test_arguments_win(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str, expected: str) -> None:
    """An argument wins over the environment, even over an invalid variable."""
    monkeypatch.setenv(variable, "\n")
    assert getattr(changed(name, value), name) == expected


@pytest.mark.parametrize(
    ("variable", "value"), [("WA_BASE_URL", "http://evil.example"), ("CLOUD_API_VERSION", "latest")]
)
def test_environment_is_checked(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    """An invalid variable is refused like an argument."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError):
        Settings()


def test_secrets_are_not_shown() -> None:
    """The app secret is in no repr, neither of the original nor of a changed copy."""
    settings = Settings(app_secret="canary")
    assert settings.app_secret == "canary"
    assert "canary" not in f"{settings!r}{settings}{settings.changed({'concurrency': 2})!r}{[settings]}"


def test_changed() -> None:
    """A changed copy is converted and checked like a new one, and the original stays as it was."""
    settings = Settings(app_secret="canary", concurrency=3)
    copy = settings.changed({"api_version": 24, "token_hosts": "Example.com"})
    assert copy == attrs.evolve(settings, api_version="v24.0", token_hosts=("example.com",))
    assert (settings.api_version, settings.token_hosts) == ("v25.0", ("lookaside.fbsbx.com",))
    assert settings.changed({}) == settings


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"timeout": 3}, "there is no setting named timeout: see help(Settings)"),
        ({"zoo": 3, "concurrency": 1, "ape": 4}, "there is no setting named ape, zoo: see help(Settings)"),
        ({"concurrency": 0}, "concurrency must be a whole number above zero, not 0"),
    ],
)
def test_changes_that_cannot_work(changes: dict[str, Any], sentence: str) -> None:
    """An unknown name and an invalid value have different sentences."""
    with pytest.raises(ConfigurationError) as caught:
        Settings().changed(changes)
    assert str(caught.value) == sentence


def test_settings_are_frozen() -> None:
    """Settings cannot be changed."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Settings().concurrency = 1  # type: ignore[misc]


@pytest.mark.parametrize("token", ["EAAG", "a|b", "!~", "x" * 4096])
@pytest.mark.parametrize("around", ["", "\n", " ", "\t\r\n", "\u00a0"])
def test_tokens_are_stripped(token: str, around: str) -> None:
    """White space around a token, such as a file's last newline, is removed."""
    assert checked_token(f"{around}{token}{around}") == token


@pytest.mark.parametrize("missing", [None, "", " ", "\n"])
def test_missing_tokens(missing: object) -> None:
    """A missing token is an error that names the argument and the variable."""
    with pytest.raises(
        ConfigurationError, match=r"^there is no access token: .* access_token .* CLOUD_API_ACCESS_TOKEN$"
    ):
        checked_token(missing)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (7, "access_token must be a str or an async function that returns one, not int"),
        (b"EAAG", "access_token must be a str or an async function that returns one, not bytes"),
        ("Bearer EAAG", 'the access token starts with "Bearer ": leave out "Bearer "'),
    ],
)
def test_wrong_tokens(wrong: object, sentence: str) -> None:
    """A value of another type, and a header's value in place of the token, are refused without being shown."""
    with pytest.raises(ConfigurationError) as caught:
        checked_token(wrong)
    assert str(caught.value) == sentence


@given(
    st.text(), st.characters(exclude_categories=(), min_codepoint=0).filter(lambda c: not "!" <= c <= "~"), st.text()
)
def test_tokens_that_no_header_carries(before: str, bad: str, after: str) -> None:
    """A token with anything but visible ASCII is refused, and the error does not show it."""
    with pytest.raises(ConfigurationError) as caught:
        checked_token(f"canary{before}{bad}{after}canary")
    assert str(caught.value) == "the access token contains white space or non-ASCII characters: copy it again"


@given(st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True))
def test_ids_come_back(text: str) -> None:
    """An id has digits and, for other emulators, letters, hyphens and underscores."""
    assert checked_id(text, "the media id") == text


@given(st.integers(min_value=0, max_value=10**100))
def test_numbers_are_ids(number: int) -> None:
    """An id may be an int."""
    assert checked_id(number, "the media id") == str(number)


BAD_IN_IDS = r"/\.:%?#&=@+ " + "\t\n\r\x00\x0b\x85\xa0\u2028é\u0661\ud800"


@given(st.text(alphabet="0123456789"), st.sampled_from(BAD_IN_IDS), st.text(alphabet="0123456789"))
def test_ids_that_reach_elsewhere(before: str, bad: str, after: str) -> None:
    """An id with a slash, dot, colon, percent sign or white space, even a last newline, is refused."""
    with pytest.raises(ConfigurationError, match=r"^the media id must be digits, not "):
        checked_id(f"{before}{bad}{after}", "the media id")


@given(st.text())
def test_ids_are_safe_or_refused(text: str) -> None:
    """An accepted id has only characters without a meaning in a URL."""
    try:
        accepted = checked_id(text, "the media id")
    except ConfigurationError:
        accepted = ""
    assert set(accepted) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


@pytest.mark.parametrize(
    "wrong", ["", "x" * 129, None, True, 1.0, b"1", [], -0.5, "123/../../v22.0/4567", "https://evil.example"]
)
def test_ids_that_are_none(wrong: object) -> None:
    """An empty or overlong text, and anything that is neither a str nor an int, is refused."""
    with pytest.raises(ConfigurationError, match=r"^phone_number_id must be digits, not "):
        checked_id(wrong, "phone_number_id")


@pytest.mark.parametrize("wrong", ["", "Timed", True, 1])
def test_forms_of_the_proof(wrong: Any) -> None:
    """`appsecret_proof` is one of two forms, or None."""
    with pytest.raises(ConfigurationError, match=r'^appsecret_proof must be "timed", "classic" or None, not '):
        Settings(appsecret_proof=wrong)


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "2", None])
def test_retries_are_counted(wrong: Any) -> None:
    """The number of retries is a whole number, which may be zero."""
    with pytest.raises(ConfigurationError, match=r"^max_retries must be a whole number, not "):
        Settings(max_retries=wrong)
    assert Settings(max_retries=0, backoff=0).max_retries == 0


def test_secrets_do_not_show() -> None:
    """A secret has its value in every use but `repr`."""
    assert (repr(Secret("x")), str(Secret("x")), Secret("x") == "x") == ("'***'", "x", True)
    assert (repr(SecretBytes(b"x")), SecretBytes(b"x") == b"x") == ("b'***'", True)


WRONG_TYPES = [5, 1.5, True, b"x", [], {}, object(), "…\n", "yes"]


@pytest.mark.parametrize("name", NAMES)
def test_wrong_types(name: str) -> None:
    """Whatever a field is given, the settings are made or one sentence that begins with its name says what it wants."""
    for value in [*WRONG_TYPES, Settings, None, "x" * 10_000]:
        sentence = ""
        try:
            given = getattr(changed(name, value), name)
        except ConfigurationError as error:
            sentence = str(error)
        else:
            assert given is None or isinstance(given, str | bool | int | float | tuple)
        assert re.fullmatch(rf"({name}|a trusted host|trusted hosts) .{{,250}}|", sentence, re.DOTALL)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("proxy", 5, "proxy must be a str, not int"),
        ("app_secret", 5, "app_secret must be a str, not int"),
        ("app_secret", bytearray(b"canary"), "app_secret must be a str, not bytearray"),
        ("business_account_id", "1/2", "business_account_id must be digits, not '1/2'"),
        ("business_account_id", 5, "business_account_id must be digits, not 5"),
        ("app_id", "1/2", "app_id must be digits, not '1/2'"),
        ("fsync", "no", "fsync must be True or False, not 'no'"),
        ("validate", 0, "validate must be True or False, not 0"),
        ("read_timeout", "x" * 200, "read_timeout must be a positive number, not '…'"),
        (
            "read_timeout",
            "a b" * 200,
            "read_timeout must be a positive number, not '" + ("a b" * 13 + "…" + ("a b" * 99)[-40:] + "'"),
        ),
        (
            "base_url",
            "https://u:secret@host?q=secret",
            "base_url must be a scheme, host and port, such as https://graph.facebook.com, not 'https://host…'",
        ),
    ],
)
def test_sentences_about_fields(name: str, value: Any, sentence: str) -> None:
    """A wrong value is named with its field, shortened, and without what may be secret."""
    with pytest.raises(ConfigurationError) as caught:
        changed(name, value)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("secret", ["abc", b"abc", " abc\n", b"abc\n"])
def test_an_app_secret_as_text_or_bytes(secret: Any) -> None:
    """An app secret is text or bytes, without the newline that files put after it, and is not shown."""
    settings = Settings(app_secret=secret, proxy="http://user:abc@proxy")
    assert (settings.app_secret, settings.changed({"read_timeout": 1}).app_secret) == ("abc", "abc")
    assert "abc" not in f"{settings!r} {attrs.asdict(settings)}"
