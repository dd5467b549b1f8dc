"""
Which requests to the page are refused: only a browser of this machine that was led to the page's own address may use it.

Any web page that is open in the same browser can send requests to a port of this machine. It cannot choose `Host`, `Origin` and
`Sec-Fetch-Site` (Fetch Standard, section "Forbidden request-header"), and a header of one's own needs a preflight request,
which is not granted. The check of `Host` is against DNS rebinding: there, a name of the attacker leads to 127.0.0.1.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

__all__ = ["HEADER", "refusal"]

HEADER: Final = "x-emulator-page"  # of each request that changes something
_FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host")  # a proxy's: the client may be anywhere


def refusal(request: Request, local_url: str) -> str | None:
    """Return why a request to the page at `local_url` is refused, in one sentence; None if it is not."""
    headers, client = request.headers, request.client
    if client is None or not _is_loopback(client.host) or any(name in headers for name in _FORWARDED):
        return "the page is for browsers of the emulator's own machine: open it there, and without a proxy"
    if request.headers.getlist("host") != [urlsplit(local_url).netloc]:
        return f"the page has another address: open {local_url}/"
    opened = request.scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"  # by a link; it holds no data
    if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"} and not opened:
        return f"the request came from another site: open {local_url}/"
    if headers.get("origin", local_url) != local_url:
        return f"the request came from a page of another site: open {local_url}/"
    if request.method not in {"GET", "HEAD"} and HEADER not in headers:
        return f"the request lacks the header {HEADER}, which the page sends: send it, too"
    return None


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False
