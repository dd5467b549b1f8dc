"""
One request for a file on the public internet, without the token and over a connection of its own.

A host is looked up once. Its addresses are judged, and the connection is made to one of the addresses that were judged: a
name that leads elsewhere a moment later (DNS rebinding) changes nothing. The host of each redirect is judged alike.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final

from meta_media.errors import DownloadError, UntrustedUrlError
from meta_media.http.connect import Addresses, connect, look_up, secure
from meta_media.http.connection import RequestResponseCycle
from meta_media.http.exceptions import ExceptionMapper
from meta_media.http.observer import Observer, observed
from meta_media.http.proxy import Proxy
from meta_media.http.response import Response
from meta_media.http.stream import NetworkStream
from meta_media.http.timeouts import TransferTimeouts
from meta_media.http.transport import load_certificates
from meta_media.protocol.public_urls import PublicUrl, check_addresses
from meta_media.protocol.requests import Request
from meta_media.protocol.secrets import Secret

__all__ = ["Fetcher"]

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS: Final = 5


class Fetcher:
    """Sends requests for public URLs. To make one takes tens of milliseconds, so it is made on a thread."""

    def __init__(self, proxy: str | None, timeouts: TransferTimeouts, observer: Observer | None) -> None:
        self._proxy = Proxy.of(proxy)
        self._tls = load_certificates()
        self.timeouts = timeouts
        self._observer = observer
        self.requests = 0  # that were sent

    async def open(self, url: PublicUrl, own: Mapping[str, str], given: Mapping[str, str], max_size: int) -> Response:
        """
        Send a GET, follow its redirects, and return the response, to a body of at most `max_size` bytes.

        Headers that the caller has `given` replace our `own`, and go to the first origin only: behind the first redirect to
        another one they are gone.
        """
        origin = url.origin
        for _ in range(1 + _MAX_REDIRECTS):
            names = {name.lower() for name in given}
            headers = [
                ("Host", url.netloc),
                *given.items(),
                *((n, v) for n, v in own.items() if n.lower() not in names),
            ]
            response = await self._response(url, headers, max_size)
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or location is None:
                return response
            async with response:
                url = url.redirected(Secret(location))
            given = given if url.origin == origin else {}
        raise DownloadError(f"{url.host} redirects more than {_MAX_REDIRECTS} times: pass the URL that it leads to")

    async def _response(self, url: PublicUrl, headers: list[tuple[str, str]], max_size: int) -> Response:
        request = Request(operation="download", method="GET", url=Secret(url), bearer=False)
        mapper = ExceptionMapper(request, (), hooked=False, secret=Secret())
        self.timeouts.extend(0)
        shown = f"{url.scheme}://{url.netloc}"  # the path may be a secret
        seen = observed(request, self.requests + 1, shown, self._observer)
        try:
            with mapper, self.timeouts:
                sending = self._sent(url, headers)
                cycle = await (sending if seen is None else seen.sent(sending))
        except BaseException as error:
            if seen is not None:
                seen.end(error)
            raise
        response = Response(cycle, timeouts=self.timeouts, mapper=mapper, refused=lambda _: None, seen=seen)
        self.timeouts.extend(max_size if response.length is None else min(response.length, max_size))
        return response

    async def _sent(self, url: PublicUrl, headers: list[tuple[str, str]]) -> RequestResponseCycle:
        stream = await self._connect(url)
        self.requests += 1
        cycle = RequestResponseCycle(stream, self.timeouts, RequestResponseCycle.abort)
        try:
            await cycle.send("GET", url.target, headers, ())
        except BaseException:
            await cycle.aclose()
            raise
        return cycle

    async def _connect(self, url: PublicUrl) -> NetworkStream:
        host, port, tls = url.host, url.port, self._tls if url.scheme == "https" else None
        addresses = await look_up(host, port, self.timeouts)
        check_addresses(host, [str(address[0]) for *_, address in addresses])
        if any(_is_own(address) for address in addresses):
            raise UntrustedUrlError(
                f"{host} is this machine: pass the path of the file; nothing was sent there", host=host
            )
        if tls is None or self._proxy is None or not self._proxy.serves(host, port):
            return await connect(host, port, tls, self.timeouts, addresses)
        return await self._through_proxy(self._proxy, url, addresses, tls)

    async def _through_proxy(
        self, proxy: Proxy, url: PublicUrl, addresses: Addresses, tls: ssl.SSLContext
    ) -> NetworkStream:
        """Connect by a proxy, to which the address is named and not the host, because it would look the host up anew."""
        address = min(addresses, key=lambda known: known[0] != socket.AF_INET)[-1][0]
        stream = await connect(proxy.host, proxy.port, None, self.timeouts)
        try:
            await proxy.tunnel(stream, address, url.port, self.timeouts)
            await secure(stream, url.host, tls, self.timeouts)
        except BaseException:
            stream.abort()
            raise
        return stream


def _is_own(address: tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]) -> bool:
    """Return whether an address is of this machine, which is then the sender of what is sent there. Nothing is sent."""
    family, *_, target = address
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:  # there may be no route
        probe.setblocking(False)
        probe.connect(target)
        return bool(probe.getsockname()[0] == target[0])
    return False
