"""
One request and its response over one connection, in HTTP/1.1.

Plain heads, and bodies whose length is known, are written and read here. h11 does it for all others: it gets the same bytes,
and what it refuses is refused.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final

import h11
import httpx

from meta_media.http.heads import Fields, Headers, request_head, response_head
from meta_media.http.stream import NetworkStream
from meta_media.http.timeouts import TransferTimeouts

__all__ = ["RequestResponseCycle"]

_MAX_HEADERS_SIZE: Final = 100 * 2**10  # bytes of a response's headers, as in httpcore
_WRITE_SIZE: Final = 2**15  # bytes of small pieces that are joined, to be sent in one system call
_MAX_INTERIM_RESPONSES: Final = 32  # before the final response (RFC 9110, section 15.2); Go's client takes 5
_MAX_OVERHEAD: Final = 2**14  # bytes of framing beyond 16 for each chunk and twice its data, as in Go's net/http
_EVENTS_PER_TURN: Final = 64  # of h11, after which other tasks get their turn: a chunk may have one byte
_CUT_SHORT: Final = "the server hung up before the end of the body"


class RequestResponseCycle(httpx.AsyncByteStream):
    """A request being sent, then a response being read: by iteration in the pieces that arrive, or by `readinto`."""

    hooked: Final = False  # see `ExceptionMapper`
    # The state at the beginning
    status = 0
    headers: Fields  # of the response
    received_any = False  # whether any byte of the response has arrived
    request_sent = False  # whether the whole request was sent; a server may refuse it earlier
    filled = 0  # bytes that the last `readinto` received, also if it failed
    _method = ""
    _h11: Any = None  # the `h11.Connection`, if a head or a body needs it
    _unsent: int | None = None  # bytes of the request's body still to be sent; None if h11 frames them
    _buffered = memoryview(b"")  # bytes of the body that have arrived and were not read
    _remaining: int | None = None  # bytes of the body still to arrive, if its length is known
    ended = False  # whether the whole body has arrived
    _until_closed = False  # whether the end of the connection is that of the body
    _surplus = False  # whether bytes follow that belong to no response
    _fed = 0  # bytes of headers that h11 received; from the body on, those of chunked framing
    _events = 0  # interim responses; from the body on, pieces of the body

    def __init__(
        self, stream: NetworkStream, timeouts: TransferTimeouts, give_back: Callable[[RequestResponseCycle], None]
    ) -> None:
        self.stream = stream  # used by this cycle alone until it is over
        self._give_back: Callable[[RequestResponseCycle], None] | None = give_back  # called once, when it is over
        self._timeouts = timeouts

    async def send(
        self,
        method: str,
        target: str | bytes,
        headers: Headers,
        content: AsyncIterable[Any] | tuple[Any, ...] | bytes | None,
    ) -> None:
        """Send the request, stopping early if the server responds first; then read the response's headers."""
        self._method, size, responded = method, 0, False
        try:
            pending = [self._head(method, target, headers)]
            if isinstance(content, (bytes, tuple)):
                pending += self._framed(content)
            elif content is not None:
                async for piece in content:
                    pending += self._framed(piece)
                    size += len(piece)
                    if size >= _WRITE_SIZE:
                        if responded := await self._write(pending):
                            break
                        pending, size = [], 0
                        if self._unsent != 0:
                            await asyncio.sleep(0)  # lets other tasks run, and the loop receive an early response
            if not responded:
                responded = await self._write(pending + self._end(), last=True)
            self._timeouts.restart()
            while not responded:
                responded = await self._responded()
        except h11.LocalProtocolError as error:
            raise httpx.LocalProtocolError(str(error)) from error

    # The request

    def _head(self, method: str, target: str | bytes, headers: Headers) -> memoryview:
        """Return the head in a view, because a traceback with local variables would show the token in bytes."""
        if plain := request_head(method, target, headers):
            head, self._unsent = plain
            return head
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADERS_SIZE)
        return memoryview(self._h11.send(h11.Request(method=method, target=target, headers=[*headers])))

    def _framed(self, data: Any) -> list[Any]:
        """Return a piece of the body, or a tuple of pieces, as it is sent."""
        pieces = data if isinstance(data, tuple) else (data,)
        if self._unsent is None:
            framed = [self._h11.send_with_data_passthrough(h11.Data(data=piece)) or [] for piece in pieces]
            return list(itertools.chain(*framed))
        self._unsent -= sum(map(len, pieces))
        if self._unsent < 0:
            raise httpx.LocalProtocolError("the body is longer than its Content-Length")
        return [*pieces]

    def _end(self) -> list[Any]:
        if self._unsent is None:
            return self._h11.send_with_data_passthrough(h11.EndOfMessage()) or []
        if self._unsent:
            raise httpx.LocalProtocolError("the body is shorter than its Content-Length")
        return []

    async def _write(self, pending: list[Any], *, last: bool = False) -> bool:
        """Send bytes, and return whether the response arrived meanwhile; interim responses are skipped."""
        data = self.stream.send(pending)
        self.request_sent = last and not data
        if not data and self.stream.writable:
            return False
        self._timeouts.restart()
        while True:
            data = data[await self.stream.write(data, self._timeouts) :]
            self.request_sent = last and not data
            if not self.stream.received_any:  # so all of it was sent
                return False
            if await self._responded():
                return True

    # The response

    async def _feed(self) -> bytes:
        """Return the next bytes, after h11 has received them, if it is in use."""
        piece = b""
        try:
            piece = bytes(await self.stream.read(self._timeouts))
        except httpx.ReadError:
            if self.request_sent or not self.status:
                raise  # otherwise it is the end of a server that did not want the rest of the request (RFC 9112, 9.6)
        self.received_any = self.received_any or bool(piece)
        if self._h11 is not None:
            self._fed += len(piece)
            self._h11.receive_data(piece)
        return piece

    async def _responded(self) -> bool:
        """Receive, and return whether the head of the final response is complete."""
        piece = await self._feed()
        if self._h11 is None:
            if plain := response_head(piece):
                self.status, self.headers, length, reusable, arrived = plain
                self._surplus = not reusable
                self._buffer(arrived, 0 if self._method == "HEAD" or self.status in {204, 304} else length)
                return True
            self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEADERS_SIZE)
            self._h11.send(
                h11.Request(method=self._method, target="/", headers=[("Host", "")])
            )  # only to get a response
            self._h11.send(h11.EndOfMessage())
            self._fed = len(piece)
            self._h11.receive_data(piece)
        response = self._response()
        if response is not None:
            self._begin_body(response)
        return response is not None

    def _response(self) -> h11.Response | None:
        """Return the final response if its headers have arrived. The responses before it are limited in number and size."""
        while isinstance(event := self._event(), h11.InformationalResponse):
            self._events += 1
            if self._events > _MAX_INTERIM_RESPONSES:
                raise httpx.RemoteProtocolError(f"more than {_MAX_INTERIM_RESPONSES} interim responses")
        if isinstance(event, h11.Response):
            return event
        if self._fed > _MAX_HEADERS_SIZE:
            raise httpx.RemoteProtocolError(f"more than {_MAX_HEADERS_SIZE} bytes of interim responses and headers")
        return None

    def _event(self) -> Any:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            raise httpx.RemoteProtocolError(str(error)) from error

    # The body

    def _begin_body(self, response: h11.Response) -> None:
        self.status = response.status_code
        self.headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
        headers = dict(self.headers)
        arrived = memoryview(self._h11.trailing_data[0])  # of the body
        self._fed, self._events = len(arrived), 0
        if "transfer-encoding" in headers:  # it overrides a Content-Length, which no honest server sends beside it
            self._surplus = "content-length" in headers
            return
        if self._method == "HEAD" or self.status in {204, 304}:
            return
        if "content-length" in headers:  # one number: h11 has checked that
            self._buffer(arrived, int(headers["content-length"]))
        else:
            self._until_closed = True

    def _buffer(self, piece: memoryview, remaining: int) -> None:
        """Buffer the next piece of a body of which `remaining` bytes have not arrived before it."""
        self._buffered = piece[:remaining]
        self._surplus = self._surplus or len(piece) > remaining
        self._remaining = remaining - len(self._buffered)
        self.ended = not self._remaining

    async def _receive(self) -> None:
        """Buffer the next piece of the body, or notice its end."""
        if self._remaining is not None:
            piece = await self.stream.read(self._timeouts)
            if not piece:
                raise httpx.RemoteProtocolError(_CUT_SHORT)
            self._timeouts.record("read", len(piece))
            self._buffer(piece, self._remaining)
            return
        while (event := self._event()) is h11.NEED_DATA:
            if self._fed > _MAX_OVERHEAD:
                raise httpx.RemoteProtocolError("more bytes between the chunks of the body than in them")
            await self._feed()
        if isinstance(event, h11.Data):
            self._buffered = memoryview(event.data)
            self._fed -= 2 * len(event.data) + 16 * event.chunk_start
            self._events += 1
            if self._events % _EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
            self._timeouts.record("read", len(event.data))
        else:
            self.ended = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self._buffered or not self.ended:
            piece, self._buffered = self._buffered, memoryview(b"")
            if piece:
                yield bytes(piece)
            else:
                await self._receive()
        if self.cut:
            raise httpx.RemoteProtocolError(_CUT_SHORT)

    def arrived(self) -> memoryview | None:
        """Return the rest of the body if all of it has arrived; else None."""
        if not self.ended:
            return None
        rest, self._buffered = self._buffered, memoryview(b"")
        return rest

    async def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer with the next bytes of the body; return their number, which is smaller only at the end."""
        self.filled = 0
        while self.filled < len(buffer):
            if self._buffered:
                count = min(len(self._buffered), len(buffer) - self.filled)
                buffer[self.filled : self.filled + count] = self._buffered[:count]
                self._buffered = self._buffered[count:]
                self.filled += count
            elif self.ended:
                break
            elif self._remaining is None:
                await self._receive()
            else:
                await self._receive_into(buffer[self.filled :][: self._remaining])
        return self.filled

    async def _receive_into(self, buffer: memoryview) -> None:
        """Fill a buffer with bytes of a body whose length is known, without h11."""
        try:
            count = await self.stream.readinto(buffer, self._timeouts)
        finally:
            self.filled += self.stream.filled
        if count < len(buffer):
            raise httpx.RemoteProtocolError(_CUT_SHORT)
        self._timeouts.record("read", count)
        self._remaining = (self._remaining or 0) - count
        self.ended = not self._remaining

    @property
    def cut(self) -> bool:
        """Whether TLS was cut (RFC 8446, 6.1) where only the end of the connection ends the body: more may have been sent."""
        return self._until_closed and self.stream.cut

    @property
    def complete(self) -> bool:
        """Whether both messages ended and no byte follows them: a surplus would be taken for the next response."""
        if not (self.ended and self.request_sent) or self._buffered or self._surplus:
            return False
        if self.stream.received_any or self.stream.unsent:
            return False
        if self._h11 is None:
            return True
        responded = self._remaining == 0 or (self._h11.their_state is h11.DONE and not self._h11.trailing_data[0])
        return responded and self._h11.our_state is h11.DONE

    def do_not_reuse(self) -> None:
        """Close the connection after this cycle."""
        self._surplus = True

    async def aclose(self) -> None:
        """End the cycle, also in the middle of a message; nothing is awaited."""
        if self._give_back is not None:
            give_back, self._give_back = self._give_back, None
            give_back(self)

    def abort(self) -> None:
        """Close the connection at once."""
        self.stream.abort(unsent=not self.request_sent or self.stream.unsent)
