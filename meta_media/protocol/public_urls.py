"""
URLs of files on the public internet, and the addresses that their hosts may have.

A URL may be a stranger's, and must not lead to what only this machine can reach. Python's `is_global` does not decide: up
to 3.13 it is true for multicast, for NAT64 of private addresses and for `fec0::/10`, and it changed between versions.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn
from urllib.parse import quote, urljoin

import attrs

from meta_media.errors import ConfigurationError, UntrustedUrlError
from meta_media.protocol.secrets import Secret, shown

__all__ = ["PublicUrl", "check_addresses", "checked_headers", "is_public"]

# IANA's special-purpose address registries (RFC 6890). Blocks that are reachable and hold anycast servers only are left out.
_SPECIAL_V4: Final = tuple(
    ipaddress.IPv4Network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # Azure's platform, which serves metadata to virtual machines
    )
)
_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")  # the only unicast addresses that IANA gives out
_SPECIAL_V6: Final = tuple(
    ipaddress.IPv6Network(block)
    for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")  # Teredo and others, examples, 6to4, examples
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # ends with the IPv4 address that it leads to (RFC 6052)

_NAME: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_URL: Final = re.compile(
    rf"(?P<scheme>[Hh][Tt][Tt][Pp][Ss]?)://(?P<host>{_NAME}(?:\.{_NAME})*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{{1,5}}))?"
    r"(?P<target>[/?].*)?"
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_NUMERIC: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[Xx][0-9A-Fa-f]*)")  # a host that parsers take for an IPv4 address
_UNQUOTED: Final = "!#$%&'()*+,/:;=?@[]~"  # what stays as it is in a URL (RFC 3986, section 2)
_MAX_HOST_SIZE: Final = 253  # characters (RFC 1035)
_PORTS: Final = {"https": 443, "http": 80}
_FIRST_FREE_PORT: Final = 1024  # those below belong to services of the system, most of which are not HTTP
_HEADER: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_HEADER_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?|")
_OWN_HEADERS: Final = frozenset(  # that a fetch writes itself, or that are about one connection
    {
        *("accept-encoding", "connection", "content-length", "expect", "host", "if-range", "keep-alive"),
        *("proxy-authorization", "proxy-connection", "range", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public internet. One with a zone, such as `fe80::1%eth0`, is not."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _GLOBAL_V6:
            return ip.scope_id is None and not any(ip in block for block in _SPECIAL_V6)
        if ip not in _NAT64 or ip.scope_id is not None:
            return False
        ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return not any(ip in block for block in _SPECIAL_V4)


def check_addresses(host: str, addresses: Sequence[str]) -> None:
    """Raise `UntrustedUrlError` if one of a host's addresses is not public: a name that has both kinds is no honest one."""
    if not addresses or not all(map(is_public, addresses)):
        _refuse(f"not all addresses of {host} are public: fetch the file yourself, and pass the response", host)


@attrs.frozen(kw_only=True)
class PublicUrl:
    """A URL in which all parsers find the same host."""

    scheme: str
    host: str  # in lower case; an IPv6 address has no brackets
    port: int
    target: Secret  # path and query; the query may be a signature

    @classmethod
    def of(cls, url: str) -> PublicUrl:
        """
        Read a URL. Characters of path and query that need it are percent-encoded, and a fragment is dropped.

        Raises:
            UntrustedUrlError: It is no plain URL of a web server.
        """
        if _CONTROL.search(url):
            _refuse("the URL has control characters: pass it without them")
        plain = Secret(quote(url, safe=_UNQUOTED).partition("#")[0])
        match = _URL.fullmatch(plain)
        if match is None:
            _refuse(
                "the URL is not plain: write it as https://host/path, the host in ASCII (xn--…), without a user or password"
            )
        scheme, host = match["scheme"].lower(), match["host"].lower()
        port, target = int(match["port"] or _PORTS[scheme]), match["target"] or "/"
        del match  # its repr, which a traceback may show, has the first characters of the URL
        if port not in _PORTS.values() and not _FIRST_FREE_PORT <= port < 2**16:
            _refuse(f"port {port} is none of a web server: use 80, 443 or one from {_FIRST_FREE_PORT} to 65535", host)
        target = target if target.startswith("/") else f"/{target}"
        return cls(scheme=scheme, host=_host(host), port=port, target=Secret(target))

    def redirected(self, location: str) -> PublicUrl:
        """Return the URL that a response leads to: its `Location`, decoded as Latin-1. It must not lead from https to http."""
        try:
            url = PublicUrl.of(urljoin(str(self), quote(location.encode("latin-1"), safe=_UNQUOTED)))
        except ValueError:  # of `urljoin`
            _refuse(f"{self.host} redirects to what is no URL: check the URL", self.host)
        except UntrustedUrlError as error:
            raise UntrustedUrlError(f"{self.host} redirects elsewhere: {error}", host=error.host) from None
        if (self.scheme, url.scheme) == ("https", "http"):
            _refuse(
                f"{self.host} redirects from https to http, to {url.host}: fetch the file yourself, and pass the response",
                url.host,
            )
        return url

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port (RFC 6454)."""
        return self.scheme, self.host, self.port

    @property
    def netloc(self) -> str:
        """Host and port as they are written in a URL, without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return Secret(f"{self.scheme}://{self.netloc}{self.target}")


def checked_headers(headers: object) -> dict[str, str]:
    """Return a copy of the headers that a caller gives for a fetch."""
    if not isinstance(headers, Mapping):
        raise ConfigurationError(f"headers must be a mapping of names to values, not {type(headers).__name__}")
    given: Mapping[Any, Any] = headers
    for name, value in given.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name):
            raise ConfigurationError(f"headers must have names as HTTP has them, not {shown(name)}")
        if name.lower() in _OWN_HEADERS:
            raise ConfigurationError(f"headers must not have {name}, which is written for you: leave it out")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise ConfigurationError(f"the header {name} must be printable ASCII without white space around it")
    return {name: Secret(value) for name, value in given.items()}


def _host(host: str) -> str:
    """Return a host without brackets. An address must be written in the one form that every parser reads alike."""
    name = host.strip("[]")
    try:
        version = ipaddress.ip_address(name).version
    except ValueError:
        version = None
    odd = version is None and (_NUMERIC.fullmatch(host) or len(host) > _MAX_HOST_SIZE)
    if odd or (name != host) is not (version == 6):  # only IPv6 has brackets
        _refuse("the URL's host is neither a name nor a plain address: write it as a name", host[:_MAX_HOST_SIZE])
    return name


def _refuse(sentence: str, host: str | None = None) -> NoReturn:
    raise UntrustedUrlError(f"{sentence}; nothing was sent there", host=host)
