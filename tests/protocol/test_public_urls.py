"""Which addresses are public, and in which URLs all parsers find the same host."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

import httpx
import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st

from meta_media.errors import ConfigurationError, UntrustedUrlError
from meta_media.protocol.public_urls import PublicUrl, check_addresses, checked_headers, is_public
from tests.support.hostile_urls import HOSTILE

# By IANA's registries (RFC 6890), whatever `is_global` of this Python's version says.
SPECIAL: Final = (
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255"),
    *("127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "172.16.0.1"),
    *("172.31.255.255", "192.0.0.1", "192.0.0.8", "192.0.0.9", "192.0.0.170", "192.0.0.192", "192.0.2.1"),
    *("192.88.99.1", "192.168.0.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1"),
    *("239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1"),
    *("::ffff:169.254.169.254", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe"),
    *("64:ff9b::a00:1", "64:ff9b:1::7f00:1", "64:ff9b:1::808:808", "100::1", "100:0:0:1::1", "2001::1"),
    *("2001:0:7f00:1::1", "2001:1::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:30::1", "2001:db8::1"),
    *("2002:7f00:1::1", "2002:a9fe:a9fe::1", "2002:808:808::1", "3fff::1", "4000::1", "5f00::1", "fc00::1"),
    *("fd00:ec2::254", "fd20:ce::254", "fe80::1", "fe80::1%eth0", "2606:4700::1111%eth0", "fec0::1", "ff02::1"),
    *("ff0e::1", "64:ff9b::808:808%1", "", "localhost", "1.2.3", "01.2.3.4"),
)
PUBLIC: Final = (
    *("1.1.1.1", "8.8.8.8", "93.184.215.14", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0"),
    *("168.63.129.15", "169.253.255.255", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.31.196.1"),
    *("198.17.255.255", "198.20.0.0", "223.255.255.255", "2606:4700:4700::1111", "2a00:1450:4001::1"),
    *("2001:200::1", "2001:4860:4860::8888", "64:ff9b::808:808", "2620:4f:8000::1", "2003::1", "3ffe::1"),
)
GAPS: Final = {  # special addresses that `ipaddress.is_global` takes for public ones in 3.11.7, 3.12.1 or 3.13.0
    *("168.63.129.16", "192.0.0.8", "192.0.0.9", "192.0.0.192", "192.88.99.1", "224.0.0.1", "239.255.255.255"),
    *("::7f00:1", "::ffff:8.8.8.8", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::a00:1"),
    *("64:ff9b:1::7f00:1", "64:ff9b:1::808:808", "100:0:0:1::1", "2001:1::1", "2001:20::1", "2001:30::1"),
    *("2002:7f00:1::1", "2002:a9fe:a9fe::1", "2002:808:808::1", "2606:4700::1111%eth0", "3fff::1", "4000::1"),
    *("5f00::1", "fec0::1", "ff02::1", "ff0e::1"),
}


@pytest.mark.parametrize("address", SPECIAL)
def test_special_addresses_are_not_public(address: str) -> None:
    """No address of IANA's special-purpose registries is public, nor what leads to one, nor what is no address."""
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_other_addresses_are_public(address: str) -> None:
    """Neighbours of the special blocks are public, and NAT64 of a public address is."""
    assert is_public(address)


def test_nothing_is_left_to_the_version_of_python() -> None:
    """`is_global` has gaps, which differ between versions: a table decides instead. This Python has no other ones."""
    known = {address for address in SPECIAL[:-5] if ipaddress.ip_address(address).is_global}
    assert known <= GAPS <= set(SPECIAL)


@given(st.ip_addresses())
def test_what_python_takes_for_private_is_never_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """The table refuses all that `is_global` refuses, but for NAT64, whose addresses are judged by the IPv4 in them."""
    if not address.is_global:
        assert not is_public(str(address))


def test_a_host_with_one_private_address_is_refused() -> None:
    """Every address of a host must be public."""
    check_addresses("a.example", ["1.1.1.1", "2606:4700::1111"])
    with pytest.raises(UntrustedUrlError, match=r"^not all addresses of a\.example are public: fetch") as caught:
        check_addresses("a.example", ["1.1.1.1", "10.0.0.1"])
    assert caught.value.host == "a.example"
    with pytest.raises(UntrustedUrlError):
        check_addresses("a.example", [])


READ: Final = {
    "https://a.example/b.jpg": ("https", "a.example", 443, "/b.jpg"),
    "HTTP://A.Example": ("http", "a.example", 80, "/"),
    "https://a.example:443/?x=1": ("https", "a.example", 443, "/?x=1"),
    "https://a.example:8443?x": ("https", "a.example", 8443, "/?x"),
    "https://a_b.s3.example/a b/é.jpg?q=ü#part": ("https", "a_b.s3.example", 443, "/a%20b/%C3%A9.jpg?q=%C3%BC"),
    "https://xn--bcher-kva.example/%41": ("https", "xn--bcher-kva.example", 443, "/%41"),
    "https://1.1.1.1/a": ("https", "1.1.1.1", 443, "/a"),
    "http://[2606:4700::1111]:8080/a": ("http", "2606:4700::1111", 8080, "/a"),
    "https://3com.example/a\\b|c": ("https", "3com.example", 443, "/a%5Cb%7Cc"),
    "https://a.example#@evil.example": ("https", "a.example", 443, "/"),
}


@pytest.mark.parametrize("url", READ)
def test_plain_urls_are_read(url: str) -> None:
    """Scheme and host are in lower case, a fragment is dropped, and what needs it is percent-encoded."""
    read = PublicUrl.of(url)
    assert (read.scheme, read.host, read.port, read.target) == READ[url]
    assert PublicUrl.of(str(read)) == read
    assert read.target not in repr(read) or read.target == "/"


REFUSED: Final = (
    *(
        "",
        "a.example/b",
        "//a.example",
        "ftp://a.example/",
        "file:///etc/passwd",
        "data:,x",
        "https:///b",
        "https:a.example",
    ),
    *(
        "https://user@a.example/",
        "https://user:word@a.example/",
        "https://@a.example/",
        "https://a.example\\@b.example/",
    ),
    *(
        "https://a.example./",
        "https://.a.example/",
        "https://a..example/",
        "https://-a.example/",
        "https://a-.example/",
    ),
    *(
        "https://bücher.example/",
        "https://127。0。0。1/",
        "https://①.0.0.1/",
        "https://a%2eexample/",
        "https://a.example%00/",
    ),
    *(
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://0/",
    ),
    *("https://1.1.1.1.1/", "https://256.1.1.1/", "https://a.1/", "https://[::1%25lo]/", "https://[fe80::1%eth0]/"),
    *(
        "https://[1.1.1.1]x/",
        "https://[1.1.1.1]/",
        "https://[::zz]/",
        "https://[v1.a]/",
        "https://[]/",
        "https://a.example:/",
        "https://a.example:0/",
    ),
    *("https://a.example:22/", "https://a.example:25/", "https://a.example:65536/", "https://a.example:99999/"),
    *(
        "https://a.example:8o/",
        "https://a.example:-1/",
        "https://a.example:443:443/",
        " https://a.example/",
        "https://a.example /",
    ),
    *(
        "https://a.example/\r\nHost: b",
        "https://a.example/\t",
        "https://a.example/\0",
        "https://a.example/\x7f",
        "https://\ud800/",
    ),
    *(f"https://{'a' * 64}.example/", f"https://{'a.' * 127}example/", "https://a,b.example/", "https://a;b.example/"),
)


@pytest.mark.parametrize("url", REFUSED)
def test_odd_urls_are_refused(url: str) -> None:
    """What parsers read differently, or is of no web server, is refused in one sentence without the query."""
    with pytest.raises(UntrustedUrlError) as caught:
        PublicUrl.of(url + "?canary=1")
    assert "canary" not in str(caught.value)
    assert str(caught.value).endswith("; nothing was sent there")


@given(HOSTILE)
def test_all_parsers_find_the_same_host(url: str) -> None:
    """Three parsers of others find the host and port, and no user, in whatever is sent."""
    try:
        read = PublicUrl.of(url)
    except UntrustedUrlError:
        return
    text = str(read)
    standard, theirs, third = urlsplit(text), httpx.URL(text), yarl.URL(text, encoded=True)
    hosts = {(standard.hostname or "").lower(), theirs.raw_host.decode().strip("[]"), (third.raw_host or "").lower()}
    assert {str(ipaddress.ip_address(host)) if ":" in host else host for host in hosts} == {
        str(ipaddress.ip_address(read.host)) if ":" in read.host else read.host
    }
    default = {"https": 443, "http": 80}[read.scheme]
    assert {standard.port or default, theirs.port or default, third.port} == {read.port}
    assert (standard.username, theirs.userinfo, third.user) == (None, b"", None)
    assert text.isascii()
    assert " " not in text


LEADS: Final = {
    "/b?x=1": "https://a.example/b?x=1",
    "c": "https://a.example/dir/c",
    "?y": "https://a.example/dir/file?y",
    "//b.example/c": "https://b.example/c",
    "https://b.example:8443": "https://b.example:8443/",
    "/\xc3\xa9.jpg": "https://a.example/%C3%A9.jpg",  # UTF-8, as it is decoded
}


@pytest.mark.parametrize("location", LEADS)
def test_redirects_are_resolved(location: str) -> None:
    """A Location may be relative, and may have bytes that are not ASCII."""
    assert str(PublicUrl.of("https://a.example/dir/file?q").redirected(location)) == LEADS[location]


@pytest.mark.parametrize("location", ["http://a.example/", "ftp://b.example", "https://u@b.example", "//[", "//127.1/"])
def test_redirects_to_odd_urls_are_refused(location: str) -> None:
    """A redirect is judged like the first URL, and must not lead from https to http."""
    with pytest.raises(UntrustedUrlError, match=r"^a\.example redirects .*; nothing was sent there$"):
        PublicUrl.of("https://a.example/?canary").redirected(location)


def test_a_redirect_from_http_to_https_is_followed() -> None:
    """The other way is an improvement."""
    assert PublicUrl.of("http://a.example/").redirected("https://a.example/").scheme == "https"


def test_headers_are_checked() -> None:
    """Names and values are those of HTTP, and what a fetch writes itself is refused. The mapping is copied."""
    given_headers = {"Authorization": "Bearer canary", "X-Empty": ""}
    headers = checked_headers(given_headers)
    assert headers == given_headers
    assert headers is not given_headers
    assert "canary" not in repr(headers)


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ("Authorization: x", "a mapping of names to values, not str"),
        ({"Host": "b.example"}, "must not have Host"),
        ({"content-LENGTH": "1"}, "must not have content-LENGTH"),
        ({"a b": "x"}, "names as HTTP has them"),
        ({1: "x"}, "names as HTTP has them"),
        ({"a": "x\r\nHost: b"}, "printable ASCII"),
        ({"a": " canary"}, "printable ASCII"),
        ({"a": 1}, "printable ASCII"),
    ],
)
def test_odd_headers_are_refused(headers: object, problem: str) -> None:
    """An argument that is no header is a `ConfigurationError` without its value."""
    with pytest.raises(ConfigurationError, match=problem) as caught:
        checked_headers(headers)
    assert "canary" not in str(caught.value)
