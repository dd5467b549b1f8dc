"""URLs that imitate trusted hosts: four parsers must find the same trusted host in every accepted URL."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import attrs
import httpx
import pytest
import yarl
from hypothesis import example, find, given, settings
from hypothesis import strategies as st

from tests.support.hostile_urls import (
    CDN,
    FOREIGN,
    HOST,
    HOSTILE,
    PLAIN,
    PORTS,
    SCHEMES,
    TOKEN_HOSTS,
    USERS,
    judged,
    sweep,
)


@attrs.frozen
class Reading:
    """What a parser finds in a URL: the address of the connection, and whether there is a user or password."""

    scheme: str
    host: str
    port: int | None
    user: bool

    @property
    def gets_token(self) -> bool:
        """Whether this address may receive the token."""
        return (self.scheme, self.port, self.user) == ("https", 443, False) and self.host in TOKEN_HOSTS

    @property
    def serves_media(self) -> bool:
        """Whether this address may serve media, with or without the token."""
        below = self.host.endswith((".fbcdn.net", ".whatsapp.net"))
        return self.gets_token or ((self.scheme, self.port, self.user, below) == ("https", 443, False, True))


def _urllib(url: str) -> Reading:
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme)
    return Reading(parts.scheme, parts.hostname or "", port, parts.username is not None or parts.password is not None)


def _httpx(url: str) -> Reading:
    parsed = httpx.URL(url)
    port = parsed.port or {"https": 443, "http": 80}.get(parsed.scheme)
    return Reading(parsed.scheme, parsed.raw_host.decode(), port, bool(parsed.userinfo))


def _yarl(url: str) -> Reading:
    parsed = yarl.URL(url)
    user = parsed.raw_user is not None or parsed.raw_password is not None
    return Reading(parsed.scheme, parsed.raw_host or "", parsed.port, user)


def _browser(url: str) -> Reading:
    """Read a URL by the URL Standard: white space is removed, and a backslash is a slash."""
    stripped = url.strip("".join(map(chr, range(33)))).translate(dict.fromkeys(map(ord, "\t\n\r")))
    scheme, _, rest = stripped.partition(":")
    authority = rest.replace("\\", "/").lstrip("/").partition("/")[0].partition("?")[0].partition("#")[0]
    user, at, address = authority.rpartition("@")
    host, _, port = address.rpartition(":") if address.rpartition(":")[2].isdecimal() else (address, "", "")
    default = {"https": 443, "http": 80}.get(scheme.lower())
    return Reading(scheme.lower(), host.removesuffix(":").lower(), int(port) if port else default, bool(at or user))


READERS: Final[tuple[Callable[[str], Reading], ...]] = (_urllib, _httpx, _yarl, _browser)


def readings(url: str) -> list[Reading | None]:
    """Collect the readings of all parsers; None for one that refuses the URL."""
    found: list[Reading | None] = []
    for read in READERS:
        try:
            found.append(read(url))
        except (ValueError, TypeError, httpx.InvalidURL):
            found.append(None)
    return found


@pytest.mark.slow  # test_requests.test_parsers_find_the_same_host is the quick one
@settings(max_examples=2000, deadline=None)
@given(HOSTILE)
@example(PLAIN)
@example(f"https://{CDN}/v/t45.1?oe=6")
@example(f"https://{HOST}:443?x")
@example("https://loo\u212aaside.fbsbx.com/x")
def test_parsers_find_the_same_trusted_host(url: str) -> None:
    """An accepted URL has the same trusted host for four parsers; with the token, it is a token host for all."""
    bearer = judged(url)
    found = readings(url)
    if bearer:
        assert all(reading is not None and reading.gets_token for reading in found), found
    elif bearer is not None:
        assert all(reading is not None and reading.serves_media for reading in found), found
        assert not any(reading is not None and reading.gets_token for reading in found), found


@settings(deadline=None)
@given(
    st.sampled_from([*sorted(TOKEN_HOSTS), CDN, "a.b.c.fbcdn.net", "mmg.whatsapp.net"]),
    st.sampled_from(["", ":443"]),
    st.lists(st.text(string.ascii_letters + string.digits + "-._~", max_size=8), max_size=4),
    st.none() | st.text(string.ascii_letters + string.digits + "-._~=&%/:", max_size=30),
)
def test_plain_urls_of_trusted_hosts_are_accepted(host: str, port: str, path: list[str], query: str | None) -> None:
    """URLs of trusted hosts are accepted with any path and query; token hosts receive the token."""
    url = f"https://{host}{port}/{'/'.join(path)}" + ("" if query is None else f"?{query}")
    assert judged(url) is (host in TOKEN_HOSTS)
    assert judged(url.replace(host, host.upper())) is (host in TOKEN_HOSTS)


@pytest.mark.parametrize("host", sweep(FOREIGN), ids=ascii)
def test_disguises(host: str) -> None:
    """No imitation of a trusted host is accepted, with any scheme, port or user."""
    users = [user for user in USERS if not set(user) & set("/?")]  # which would end the host
    around = [*((user, "") for user in users), *(("", port) for port in PORTS)]
    for url in (f"{scheme}{user}{host}{port}/x" for scheme in SCHEMES for user, port in around):
        assert judged(url) is None, url


@pytest.mark.slow
@pytest.mark.parametrize("outcome", [True, False, None])
def test_the_strategies_reach_every_outcome(outcome: bool | None) -> None:
    """The strategies find URLs with the token, without it, and refused ones."""
    assert judged(find(HOSTILE, lambda url: judged(url) is outcome)) is outcome
