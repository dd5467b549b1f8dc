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
    """
    An HTTP proxy. It receives the host and port to connect to, and cannot read what passes through the tunnel.

    Attributes:
        host: Of the proxy.
        port: Of the proxy.
        credentials: `user:password`, or empty.
        always: Whether the environment's `NO_PROXY` is ignored.
    """

    host: str
    port: int
    credentials: str = attrs.field(repr=False)
    always: bool

    @classmethod
    def of(cls, setting: str | None) -> Proxy | None:
        """
        Return the proxy of the setting, else of `HTTPS_PROXY`, else of `ALL_PROXY`; None if none of them is set.

        Raises:
            ConfigurationError: The value is not an http URL. It is not shown, because it may contain a password.
        """
        environment = urllib.request.getproxies_environment()
        known = {
            "Settings.proxy": setting,
            "HTTPS_PROXY": environment.get("https"),
            "ALL_PROXY": environment.get("all"),
        }
        name, url = next(((name, url) for name, url in known.items() if url), ("", ""))
        if not url:
            return None
        parts = _http_url(url)
        if parts is None:
            raise ConfigurationError(
                f"{name} must be an http:// URL with a host; for other proxies pass http_client=httpx.AsyncClient(proxy=…)"
            )
        credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        return cls(
            host=parts.hostname or "",
            port=parts.port or 80,
            credentials=credentials.removesuffix(":"),
            always=name == "Settings.proxy",
        )

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
    found = None
    with contextlib.suppress(ValueError):
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme == "http" and parts.hostname and parts.port != 0:
            found = parts
    return found
