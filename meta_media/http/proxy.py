"""HTTP proxies for https: which one, for which hosts, and the tunnel through it (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import re
import urllib.request
from urllib.parse import SplitResult, unquote, urlsplit

import attrs
import httpx

from meta_media.errors import ConfigurationError
from meta_media.http.connection import RequestResponseCycle
from meta_media.http.stream import NetworkStream
from meta_media.http.timeouts import TransferTimeouts

__all__ = ["Proxy"]


@attrs.frozen(kw_only=True)
class Proxy:
    """An HTTP proxy. It receives the host and port to connect to, and cannot read what passes through the tunnel."""

    host: str
    port: int
    credentials: str = attrs.field(repr=False)  # `user:password`, or empty
    exceptions: tuple[str, ...]  # the entries of `NO_PROXY`, which is ignored where the proxy is that of the setting

    @classmethod
    def of(cls, setting: str | None) -> Proxy | None:
        """Return the proxy of the setting, else of `HTTPS_PROXY`, else of `ALL_PROXY`; None if none of them is set."""
        environ = urllib.request.getproxies_environment()
        known = {"Settings.proxy": setting, "HTTPS_PROXY": environ.get("https"), "ALL_PROXY": environ.get("all")}
        name, url = next(((name, url) for name, url in known.items() if url), ("", ""))
        if not url:
            return None
        parts = _http_url(url)
        if parts is None:  # the URL is not shown, because it may contain a password
            raise ConfigurationError(
                f"{name} must be an http:// URL with a host; for other proxies pass http_client=httpx.AsyncClient(proxy=…)"
            )
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        login = f"{user}:{password}" if user or password else ""
        listed = "" if name == "Settings.proxy" else environ.get("no", "").lower()
        exceptions = tuple(filter(None, re.split(r"[\s,]+", listed)))
        return cls(host=parts.hostname or "", port=parts.port or 80, credentials=login, exceptions=exceptions)

    def serves(self, host: str, port: int) -> bool:
        """Whether connections to a host use this proxy."""
        return not any(_is_about(entry, host.lower().rstrip("."), port) for entry in self.exceptions)

    async def tunnel(self, stream: NetworkStream, host: str, port: int, timeouts: TransferTimeouts) -> None:
        """Make the proxy connect to a host; `httpx.ProxyError` if it refuses."""
        target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        headers = [("Host", target)]
        if self.credentials:
            headers.append(("Proxy-Authorization", f"Basic {base64.b64encode(self.credentials.encode()).decode()}"))
        cycle = RequestResponseCycle(stream, timeouts, lambda _: None)
        await cycle.send("CONNECT", target, headers, None)
        if not 200 <= cycle.status < 300:
            raise httpx.ProxyError(str(cycle.status))


def _is_about(entry: str, host: str, port: int) -> bool:
    """Whether an entry of `NO_PROXY` means a host: `*`, a domain, an address or a network (CIDR), each with a port or without."""
    name, _, its_port = entry.rpartition(":")
    if not its_port.isdecimal() or (":" in name and not name.endswith("]")):  # all of it is a name, or an IPv6 address
        name, its_port = entry, str(port)
    if int(its_port) != port or name == "*":
        return int(its_port) == port
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = name.removeprefix("*").strip(".")
        return bool(name) and f".{host}".endswith(f".{name}")
    with contextlib.suppress(ValueError):  # the entry is a name
        return address in ipaddress.ip_network(name.strip("[]"), strict=False)
    return False


def _http_url(url: str) -> SplitResult | None:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme == "http" and parts.hostname and parts.port != 0:
            return parts
    return None
