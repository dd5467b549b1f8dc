"""HTTP proxies for https: which one, for which hosts, and the tunnel through it (RFC 9110, section 9.3.6)."""

from __future__ import annotations

import base64
import contextlib
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
    always: bool  # whether the environment's `NO_PROXY` is ignored

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
        always = name == "Settings.proxy"
        return cls(host=parts.hostname or "", port=parts.port or 80, credentials=login, always=always)

    def serves(self, host: str) -> bool:
        """Whether connections to a host use this proxy."""
        return self.always or not urllib.request.proxy_bypass(host)

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


def _http_url(url: str) -> SplitResult | None:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme == "http" and parts.hostname and parts.port != 0:
            return parts
    return None
