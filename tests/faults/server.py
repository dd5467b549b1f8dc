"""A server that answers correctly, except for the faults that it was armed with: in TLS, TCP, HTTP or JSON."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, Self

import attrs

from tests.faults.graph import Graph, Seen, graph_error, json_response
from tests.faults.wire import Wire, flipped
from tests.support.servers import Listener

__all__ = ["Fault", "FaultServer", "Graph", "Seen"]

_READ: Final = 2**16  # bytes taken from a connection at a time
_QUICK: Final = 0.01  # seconds between two pieces that a slow server takes or sends

When = Literal["connection", "head", "request"]
Handshake = Literal["", "reset", "end", "silence", "flip", "plain"]
Sends = Literal["nothing", "half the head", "the head", "half the body", "everything"]
Ends = Literal["keep", "end", "cut", "reset", "stall", "drain"]
Framing = Literal["length", "chunked", "unterminated", "trailers", "close"]
Ranges = Literal["obey", "ignore", "shift", "refuse"]


@attrs.frozen(kw_only=True)
class Fault:
    """What one connection or one request meets."""

    when: When = "request"  # it strikes a connection before its first request, a request's head, or a whole request
    handshake: Handshake = ""  # instead of, or in, TLS's; plain HTTP knows only `reset`, `end` and `silence`
    reads: int = 0  # bytes of the request's body taken before a fault that strikes at the head
    takes: int = 0  # bytes of the request's body taken at a time, a hundred times a second; 0: as fast as they come
    applied: bool | None = None  # the server did what it was asked; None: if the request was whole and is not refused
    status: int | None = None  # None: the true one
    headers: Mapping[str, str] = attrs.field(
        factory=dict
    )  # beside the true ones; `{base}` and other `places` are filled in
    text: str | None = None  # the body; None: the true one, or an error of Graph's for a status above 399
    repeat: int = 1  # of `text`
    error: Mapping[str, Any] = attrs.field(factory=dict)  # changes to that error of Graph's
    info: Mapping[str, Any] = attrs.field(factory=dict)  # changes to the true response about a media id
    ranges: Ranges = "obey"  # what becomes of a Range: a true part, the whole, one shifted by a byte, or 416
    padding: int = 0  # bytes added to the body, which the length in the head includes
    flips: bool = False  # a bit in the middle of the body
    flips_record: bool = False  # a bit in the second half of the body after it was encrypted
    framing: Framing = (
        "length"  # `unterminated` is chunked without the last chunk, `trailers` with it but without the end
    )
    surplus: bool = False  # a whole response about another media follows in the same piece
    preface: str = ""  # sent before everything else, `prefaces` times; `{long}` is a text of 5,000 bytes
    prefaces: int = 1
    sends: Sends = "everything"
    pace: float = 0.0  # seconds between the single bytes of the body, or between two of `endless`; 0: all at once
    endless: str = ""  # sent again and again after what is sent, until the client hangs up
    # `end` is FIN (in TLS after close_notify), `cut` is FIN alone; until the client hangs up, `drain` takes, `stall` does not
    ends: Ends = "keep"


_TRUE: Final = Fault()


class FaultServer(Listener):
    """Answers truthfully, but for the faults it was armed with: each strikes once, in order."""

    def __init__(self, graph: Graph, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.graph = graph
        self.faults: deque[Fault] = deque()
        self.lasting: Fault | None = None  # strikes whenever none of `faults` does
        self.judge: Callable[[Seen], Fault | None] = lambda _: None  # the fault of a request, whatever the others are
        self.requests: list[Seen] = []  # all whose head has come
        self.connections = 0
        self.open = 0
        self.deaf = 0  # connections of which it may not notice the end, because it takes little or nothing from them
        self.places: dict[str, str] = {}  # what headers may name: `base` is itself
        self.held: asyncio.Event | None = None  # awaited before anything is answered
        self.holds: Callable[[Seen], asyncio.Event | None] = lambda _: None  # likewise, of one request
        self.struck: list[Callable[[], object]] = []  # called as a fault strikes, before anything else happens
        self.errors: list[BaseException] = []  # what went wrong in here: a request that is none

    @property
    def base_url(self) -> str:
        """Scheme, host and port; a set-up may have given it a host name."""
        return self.places["base"]

    def arm(self, faults: Iterable[Fault]) -> None:
        """Let these strike next."""
        self.faults.extend(faults)

    async def __aenter__(self) -> Self:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)  # what waits there unread counts as sent
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what it holds back, a reset discards
        listener.bind(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=2**15)
        self.places["base"] = super().base_url
        return self

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = self._keep(self._converse(Wire(reader, writer, self.tls)))
        task.add_done_callback(lambda task: self._forget(task, writer))

    def _forget(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        self._tasks.discard(task)
        writer.transport.abort()  # which a task that was cancelled before it began has not done
        if not task.cancelled() and (error := task.exception()):
            self.errors.append(error)

    def _strikes(self, *when: When) -> Fault:
        """Take the next fault if it is due, or one that lasts, else the truth."""
        if self.faults and self.faults[0].when in when:
            return self._struck(self.faults.popleft())
        if self.lasting is not None and self.lasting.when in when:
            return self._struck(self.lasting)
        return _TRUE

    def _struck(self, fault: Fault) -> Fault:
        for hook in self.struck:
            hook()
        return fault

    async def _converse(self, wire: Wire) -> None:
        self.open += 1
        try:
            with contextlib.suppress(OSError, ssl.SSLError):  # the client's end of it is what is looked at
                if await self._welcomed(wire, self._strikes("connection").handshake):
                    while await self._served(wire):
                        pass
        finally:
            await wire.aclose()
            self.open -= 1

    async def _welcomed(self, wire: Wire, handshake: Handshake) -> bool:
        if handshake in {"", "flip"}:
            await wire.start_tls(flip=handshake == "flip")
            return True
        if wire.secured:
            await wire.raw()  # the client's greeting
        if handshake == "silence":
            while await wire.raw():
                pass
        elif handshake == "plain":
            await wire.say_raw(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        elif handshake == "reset":
            wire.reset()
        return False

    async def _served(self, wire: Wire) -> bool:
        """Serve one request; say if the connection is good for another."""
        head = await wire.read_head()
        if not head:
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        request = Seen(method=method, target=target, headers=headers)
        self.requests.append(request)
        judged = self.judge(request)
        fault = self._strikes("head", "request") if judged is None else self._struck(judged)
        await self._take(wire, request, fault)
        held = self.held or self.holds(request)
        if held is not None:
            await held.wait()
        await self._say(wire, request, fault)
        closes = (fault.framing, fault.ends) == ("close", "keep")
        return await self._ended(wire, request, "end" if closes else fault.ends)

    async def _take(self, wire: Wire, request: Seen, fault: Fault) -> None:
        self.deaf += bool(fault.takes)
        wanted = min(fault.reads, request.length) if fault.when == "head" else request.length
        while len(request.body) < wanted:
            data = await wire.read(min(fault.takes or _READ, wanted - len(request.body)))
            if not data:
                raise ConnectionError("the client hung up in the middle of its request")
            request.body += data
            if fault.takes:
                await asyncio.sleep(_QUICK)  # the pace

    async def _say(self, wire: Wire, request: Seen, fault: Fault) -> None:
        head, body = self._answer(request, fault)
        if fault.sends == "half the body":
            body = body[: len(body) // 2]
        if fault.sends in {"nothing", "half the head", "the head"}:
            head, body = {"nothing": b"", "half the head": head[: len(head) // 2], "the head": head}[fault.sends], b""
        await wire.send(fault.preface.format(long="x" * 5000).encode() * fault.prefaces)
        if fault.endless:
            await wire.send(head + body)
            while True:
                await wire.send(fault.endless.encode() * (1 if fault.pace else 200))
                await asyncio.sleep(fault.pace)  # the pace
        elif fault.pace:
            await wire.send(head)
            for byte in body:
                await wire.send(bytes([byte]))
                await asyncio.sleep(fault.pace)  # the pace
        elif fault.flips_record:
            await wire.send(head + body[: len(body) // 2])
            await wire.send(body[len(body) // 2 :], flip=True)
        else:
            await wire.send(head + body + (self._poison() if fault.surplus else b""))

    def _answer(self, request: Seen, fault: Fault) -> tuple[bytes, bytes]:
        applied = request.whole and (fault.status or 200) < 300 if fault.applied is None else fault.applied
        status, headers, body = self.graph.answer(request, self.base_url, applies=applied)
        if fault.info and headers["content-type"] == "application/json":
            body = json.dumps(json.loads(body) | dict(fault.info)).encode()
        if fault.status is not None or fault.text is not None:
            status = fault.status or status
            if status >= 400:
                status, headers, body = json_response(graph_error(fault.error), status)
        elif request.method == "GET":
            status, body = _ranged(request.headers.get("range", ""), fault.ranges, headers, status, body)
        if fault.text is not None:
            headers, body = {"content-type": "application/json"}, (fault.text * fault.repeat).encode()
        body += b"x" * fault.padding
        body = flipped(body) if fault.flips else body
        places = self.places | {"id": request.media_id}
        headers |= {name.lower(): value.format_map(places) for name, value in fault.headers.items()}
        return _framed(status, headers, body, fault.framing)

    def _poison(self) -> bytes:
        facts = self.graph.facts(self.base_url, "9")
        head, body = _framed(200, {"content-type": "application/json"}, json.dumps(facts).encode(), "length")
        return head + body

    async def _ended(self, wire: Wire, request: Seen, ends: Ends) -> bool:
        if ends == "reset":
            wire.reset()
        elif ends in {"end", "cut"}:
            await wire.end(takes_leave=ends == "end")
        elif ends == "drain":
            while data := await wire.read():
                request.body += data
        elif ends == "stall" and request.whole:
            while await wire.raw():
                pass
        elif ends == "stall":
            self.deaf += 1
            await asyncio.Event().wait()  # takes nothing, so it does not hear of the end either
        return ends == "keep" and request.whole


def _ranged(wanted: str, ranges: Ranges, headers: dict[str, str], status: int, body: bytes) -> tuple[int, bytes]:
    """Give the part of a body that was asked for."""
    match = re.fullmatch(r"bytes=([0-9]+)-", wanted)
    if match is None or ranges == "ignore" or headers["content-type"] == "application/json":
        return status, body
    start = int(match[1])
    if ranges == "refuse" or start >= len(body):
        headers["content-range"] = f"bytes */{len(body)}"
        return 416, b""
    start -= ranges == "shift"
    headers["content-range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
    return 206, body[start:]


def _framed(status: int, headers: Mapping[str, str], body: bytes, framing: Framing) -> tuple[bytes, bytes]:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers.items())]
    if framing == "length" and "content-length" not in headers:
        lines.append(f"content-length: {len(body)}")
    elif framing in {"chunked", "unterminated", "trailers"}:
        lines.append("transfer-encoding: chunked")
        halves = (body[: len(body) // 2], body[len(body) // 2 :])
        framed = b"".join(b"%x\r\n%s\r\n" % (len(half), half) for half in halves if half)
        body = framed + {"chunked": b"0\r\n\r\n", "unterminated": b"", "trailers": b"0\r\n"}[framing]
    elif framing == "close":
        lines.append("connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n", body
