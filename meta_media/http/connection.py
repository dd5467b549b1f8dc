"""
One request and its reply over one connection, in HTTP/1.1.

h11 speaks the protocol: every line that is sent or received passes it. Only the bytes of a body whose length is known go
past it, because it would copy them three times.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, Final

import h11
import httpx

from meta_media.http.stream import NetworkStream
from meta_media.http.timeouts import TransferTimeouts

__all__ = ["RequestResponseCycle"]

_MAX_HEAD: Final = 100 * 2**10  # bytes of a reply's headers, as in httpcore
_TOGETHER: Final = 2**18  # bytes up to which what is to be sent waits for more, to leave in one system call


class RequestResponseCycle:
    """
    A request being sent, then a reply being read.

    Args:
        stream: Nobody else's until this is over.
        clock: For every wait.
        give_back: Called once, when this is over.

    Attributes:
        status: HTTP status.
        headers: As received, in bytes; names in lower case.
        heard: Whether any of the reply has come.
        filled: How many bytes the last `readinto` brought, also when it failed.
    """

    def __init__(
        self, stream: NetworkStream, timeouts: TransferTimeouts, give_back: Callable[[RequestResponseCycle], None]
    ) -> None:
        self.stream = stream
        self._give_back: Callable[[RequestResponseCycle], None] | None = give_back
        self.status = 0
        self.headers: Iterable[tuple[bytes, bytes]] = ()
        self.received_any = False
        self.filled = 0
        self._clock = timeouts
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
        self._rest = memoryview(b"")  # of the body, come already
        self._left: int | None = None  # bytes of the body still to come, where its length is known
        self._over = False  # whether the body has come to its end
        self._surplus = False

    async def send(
        self,
        method: str,
        target: str | bytes,
        headers: Iterable[tuple[Any, Any]],
        content: AsyncIterable[Any] | bytes | None,
    ) -> None:
        """Send a request until it has gone or the server has made up its mind; then read the reply's head."""
        try:
            reply = await self._sent([self._head(method, target, headers)], content)
            while reply is None:
                await self._feed()
                reply = self._reply()
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error
        self.status, self.headers = reply.status_code, reply.headers
        self._begin(method, reply)

    def _head(self, method: str, target: str | bytes, headers: Iterable[tuple[Any, Any]]) -> memoryview:
        """Write the request's head, as something that tracebacks with local variables do not show: the token is in it."""
        return memoryview(self._h11.send(h11.Request(method=method, target=target, headers=list(headers))) or b"")

    async def _sent(self, together: list[Any], content: AsyncIterable[Any] | bytes | None) -> h11.Response | None:
        """Send; give the reply that came before the request had gone."""
        if isinstance(content, bytes):
            together += self._framed(h11.Data(data=content))
        elif content is not None:
            size = 0
            async for piece in content:
                together += self._framed(h11.Data(data=piece))
                size += len(piece)
                if size >= _TOGETHER:
                    if early := await self._written(together):
                        return early
                    await asyncio.sleep(0)  # a fast peer must not keep us from everybody else, nor from hearing it
                    together, size = [], 0
        return await self._written([*together, *self._framed(h11.EndOfMessage())])

    def _framed(self, event: h11.Event) -> list[Any]:
        return self._h11.send_with_data_passthrough(event) or []

    async def _written(self, together: list[Any]) -> h11.Response | None:
        """Write; interim replies that come meanwhile are passed over, a final one ends it."""
        data = memoryview(together[0] if len(together) == 1 else b"".join(together))
        while data:
            data = data[await self.stream.write(data, self._clock) :]
            if self.stream.received_any:
                await self._feed()
                if reply := self._reply():
                    return reply
        return None

    async def _feed(self) -> None:
        piece: Any = b""  # a view does as well as bytes
        try:
            piece = await self.stream.read(self._clock)
        except httpx.ReadError:
            if not self._h11.our_state is self._h11.their_state is h11.SEND_BODY:
                raise  # else it is how a server ends that did not want the rest of our request (RFC 9112, section 9.6)
        self.received_any = self.received_any or bool(piece)
        self._h11.receive_data(piece)

    def _reply(self) -> h11.Response | None:
        """Look for the final reply in what has come; None if more is needed."""
        while isinstance(event := self._event(), h11.InformationalResponse):
            pass
        return event if isinstance(event, h11.Response) else None

    def _event(self) -> Any:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error

    # The body

    def _begin(self, method: str, reply: h11.Response) -> None:
        headers = dict(reply.headers)
        if method == "HEAD" or reply.status_code in {204, 304} or b"transfer-encoding" in headers:
            return
        if b"content-length" in headers:  # one number: h11 has seen to that
            self._take(memoryview(self._h11.trailing_data[0]), int(headers[b"content-length"]))

    def _take(self, piece: memoryview, left: int) -> None:
        """Take the next piece of a body of which so many bytes are left."""
        self._rest = piece[:left]
        self._surplus = len(piece) > left
        self._left = left - len(self._rest)
        self._over = not self._left

    async def _more(self) -> None:
        """Get the next piece of the body, or its end."""
        if self._left is not None:
            piece = await self.stream.read(self._clock)
            if not piece:
                raise self._cut_short()
            self._clock.record("read", len(piece))
            self._take(piece, self._left)
            return
        while (event := self._event()) is h11.NEED_DATA:
            await self._feed()
        if isinstance(event, h11.Data):
            self._rest = memoryview(event.data)
            self._clock.record("read", len(event.data))
        else:
            self._over = True

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes."""
        while self._rest or not self._over:
            piece, self._rest = self._rest, memoryview(b"")
            if piece:
                yield bytes(piece)
            else:
                await self._more()

    async def readinto(self, wanted: memoryview) -> int:
        """Fill a buffer with the next bytes of the body; return how many came, which are fewer only at its end."""
        self.filled = 0
        while self.filled < len(wanted):
            if self._rest:
                count = min(len(self._rest), len(wanted) - self.filled)
                wanted[self.filled : self.filled + count] = self._rest[:count]
                self._rest = self._rest[count:]
                self.filled += count
            elif self._over:
                break
            elif self._left is None:
                await self._more()
            else:
                await self._receive(wanted[self.filled :][: self._left])
        return self.filled

    async def _receive(self, wanted: memoryview) -> None:
        """Fill a buffer with bytes of a body whose length is known, past h11."""
        left = self._left or 0
        try:
            count = await self.stream.readinto(wanted, self._clock)
        finally:
            self.filled += self.stream.filled
        if count < len(wanted):
            raise self._cut_short()
        self._clock.record("read", count)
        self._left = left - count
        self._over = not self._left

    def _cut_short(self) -> Exception:
        return httpx.RemoteProtocolError("the server hung up before the end of the body")

    @property
    def request_sent(self) -> bool:
        """Whether all of the request was sent; a server may refuse it before that."""
        return self._h11.our_state is not h11.SEND_BODY

    @property
    def complete(self) -> bool:
        """Whether both messages are, to the byte, and may be followed by others: a surplus would be the next reply."""
        if not self._over or self._rest or self._surplus or self.stream.received_any or self.stream.unsent:
            return False
        replied = self._left == 0 or (self._h11.their_state is h11.DONE and not self._h11.trailing_data[0])
        return replied and self._h11.our_state is h11.DONE

    def do_not_reuse(self) -> None:
        """Let nothing follow on this connection: its server does not seem to know what it answers."""
        self._surplus = True

    async def aclose(self) -> None:
        """End, whatever is left to send or to read; no await is needed."""
        if self._give_back is not None:
            give_back, self._give_back = self._give_back, None
            give_back(self)

    def abort(self) -> None:
        """Close the connection at once."""
        self.stream.abort(unsent=self._h11.our_state is h11.SEND_BODY or self.stream.unsent)
