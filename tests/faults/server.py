"""A small Graph API, which answers truthfully but for the faults it was armed with: in TLS, TCP, HTTP or what it says."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, Self

import attrs

__all__ = ["Fault", "FaultServer", "Graph", "Seen"]

_READ: Final = 2**16  # bytes taken from a connection at a time
_QUICK: Final = 0.01  # seconds between two pieces that a slow server takes or sends

When = Literal["connection", "head", "request"]
Handshake = Literal["", "reset", "end", "silence", "flip", "plain"]
Sends = Literal["nothing", "half the head", "the head", "half the body", "everything"]
Ends = Literal["keep", "end", "cut", "reset", "stall", "drain"]
Framing = Literal["length", "chunked", "unterminated", "close"]
Ranges = Literal["obey", "ignore", "shift", "refuse"]


@attrs.frozen(kw_only=True)
class Fault:
    """
    What one connection or one request meets.

    Attributes:
        when: What it strikes: a connection before its first request, a request whose head has come, or a whole request.
        handshake: What a connection meets instead of (or in) its TLS handshake; in plain HTTP only `reset`, `end` and
            `silence` mean anything.
        reads: Bytes of the request's body taken before a fault that strikes at the head.
        takes: Bytes of the request's body taken at a time, a hundred times a second; 0 for as fast as they come.
        applied: Whether the server has done what it was asked. Default: if the request was whole and is not refused.
        status: Of the answer. Default: the true one.
        headers: Of the answer, beside the true ones. `{base}` and the server's other `places` are filled in.
        text: The answer's body. Default: the true one, or an error of Graph's for a status above 399.
        repeat: How often `text` is said.
        error: Changes to that error of Graph's.
        info: Changes to the true answer about a media id.
        ranges: What becomes of a Range: a true answer, the whole, one that is shifted by a byte, or 416.
        padding: Bytes added to the body, which the length in the head includes.
        flips: Whether a bit in the middle of the body is flipped.
        flips_record: Whether a bit is flipped in the second half of the body after it was encrypted.
        framing: How the body's end is told; `unterminated` is chunked without the last chunk.
        surplus: Whether a whole answer about another media follows in the same piece.
        sends: How much of the answer leaves.
        pace: Seconds between the single bytes of the body; 0 for all at once.
        ends: What becomes of the connection then: `end` is FIN (in TLS after taking leave), `cut` is FIN alone, `drain`
            takes whatever else comes, `stall` takes nothing; both until the client hangs up.
    """

    when: When = "request"
    handshake: Handshake = ""
    reads: int = 0
    takes: int = 0
    applied: bool | None = None
    status: int | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    text: str | None = None
    repeat: int = 1
    error: Mapping[str, Any] = attrs.field(factory=dict)
    info: Mapping[str, Any] = attrs.field(factory=dict)
    ranges: Ranges = "obey"
    padding: int = 0
    flips: bool = False
    flips_record: bool = False
    framing: Framing = "length"
    surplus: bool = False
    sends: Sends = "everything"
    pace: float = 0.0
    ends: Ends = "keep"


_TRUE: Final = Fault()


@attrs.define(kw_only=True)
class Seen:
    """
    A request whose head has come.

    Attributes:
        method: As sent.
        target: Path and query.
        headers: With names in lower case.
        body: What was taken of it.
        came_at: When its head had come, in seconds of the monotonic clock.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytearray = attrs.field(factory=bytearray)
    came_at: float = attrs.field(factory=time.monotonic)

    @property
    def length(self) -> int:
        """Bytes of body that it announced."""
        return int(self.headers.get("content-length", "0"))

    @property
    def whole(self) -> bool:
        """Whether all of its body has been taken."""
        return len(self.body) >= self.length

    @property
    def media_id(self) -> str:
        """The last part of its path."""
        return self.target.partition("?")[0].rpartition("/")[2]

    @property
    def secrets(self) -> set[str]:
        """The token and the values in the query."""
        values = {pair.partition("=")[2] for pair in self.target.partition("?")[2].split("&")}
        return {value for value in values if len(value) > 7} | {self.headers.get("authorization", "").split(" ")[-1]}


class Graph:
    """
    What a truthful server knows, and what it answers.

    Attributes:
        content: The bytes of every media.
        stored: The files that were uploaded.
        deleted: The ids that were.
        sent: How many messages were.
        promises: What it tells of its media: `sha256`, `file_size`.
        headers: With which the media are served, beside their type.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.stored: list[bytes] = []
        self.deleted: set[str] = set()
        self.sent = 0
        self.promises: set[str] = {"sha256", "file_size"}
        self.headers: dict[str, str] = {}

    def facts(self, base_url: str, media_id: str) -> dict[str, Any]:
        """Tell what is known of a media."""
        content = self.content_of(media_id)
        known = {"sha256": hashlib.sha256(content).hexdigest(), "file_size": len(content)}
        promised = {name: value for name, value in known.items() if name in self.promises}
        url = f"{base_url}/media/{media_id}?hash=SIGNATURE&ext=4102444800"
        return {"messaging_product": "whatsapp", "id": media_id, "url": url, "mime_type": "image/jpeg", **promised}

    def content_of(self, media_id: str) -> bytes:
        """Return the bytes of a media."""
        return self.stored[-1] if self.stored else self.content

    def served(self, media_id: str) -> bytes:
        """Return the bytes that are downloaded as a media, whatever was uploaded."""
        return self.content

    def id_of(self, stored: bytes) -> str:
        """Return the media id of what is uploaded."""
        return "7"

    def answer(self, request: Seen, base_url: str, *, applies: bool) -> tuple[int, dict[str, str], bytes]:
        """Do what a request asks, and answer it."""
        path = request.target.partition("?")[0]
        media_id = request.media_id
        if request.method == "POST":
            return self._posted(request, path, applies=applies)
        if request.method == "DELETE":
            if media_id in self.deleted:
                return _told(_error({"code": 100, "error_subcode": 33, "type": "GraphMethodException"}), 400)
            self.deleted |= {media_id} if applies else set()
            return _told({"success": True})
        if path.startswith("/media/"):
            return 200, {"content-type": "image/jpeg", **self.headers}, self.served(media_id)
        return _told(self.facts(base_url, media_id))

    def _posted(self, request: Seen, path: str, *, applies: bool) -> tuple[int, dict[str, str], bytes]:
        if path.endswith("/messages"):
            self.sent += applies
            return _told({"messaging_product": "whatsapp", "messages": [{"id": "wamid.7"}]})
        if not applies:
            return _told({"id": "7"})
        self.stored.append(_file_of(request))
        return _told({"id": self.id_of(self.stored[-1])})


def _file_of(request: Seen) -> bytes:
    """Take the file out of a form, by a reader of its own."""
    boundary = re.search(r"boundary=(\S+)", request.headers["content-type"])
    assert boundary is not None
    mark = b"--" + boundary[1].strip('"').encode()
    parts = bytes(request.body).split(mark)
    assert parts[-1].strip() == b"--", "the form has no end"
    (file,) = (part for part in parts if b'name="file"' in part.partition(b"\r\n\r\n")[0])
    return file.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")


def _error(changes: Mapping[str, Any]) -> dict[str, Any]:
    facts = {"message": "scripted", "type": "OAuthException", "fbtrace_id": "AbScriptedTrace"} | dict(changes)
    return {"error": facts}


def _told(value: object, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, {"content-type": "application/json"}, json.dumps(value).encode()


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


class _Wire:
    """One connection, with TLS of its own where there is any: bytes can be damaged after they were encrypted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext | None) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._secured = tls.wrap_bio(self._incoming, self._outgoing, server_side=True) if tls else None
        self._ahead = bytearray()
        writer.transport.set_write_buffer_limits(0)  # so that `drain` means that it has left

    @property
    def secured(self) -> bool:
        return self._secured is not None

    async def start_tls(self, *, flip: bool) -> None:
        while self._secured is not None:
            try:
                self._secured.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush(flip=flip)
                await self._fill()
            else:
                await self._flush()
                return

    async def raw(self) -> bytes:
        """Take what comes, as it is."""
        return await self._reader.read(_READ)

    async def say_raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def _fill(self) -> bool:
        data = await self._reader.read(_READ)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return bool(data)

    async def _flush(self, *, flip: bool = False) -> None:
        data = self._outgoing.read()
        await self.say_raw(_flipped(data) if flip and data else data)

    async def read(self, size: int = _READ) -> bytes:
        """Take up to so many bytes; none at the end."""
        if self._ahead:
            data = bytes(self._ahead[:size])
            del self._ahead[:size]
            return data
        if self._secured is None:
            return await self._reader.read(size)
        while True:
            try:
                return self._secured.read(size)
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    return b""

    async def read_head(self) -> bytes:
        """Take a request's head; nothing at the end."""
        taken = bytearray()
        while b"\r\n\r\n" not in taken:
            data = await self.read()
            if not data:
                return b""
            taken += data
        head, _, self._ahead = taken.partition(b"\r\n\r\n")
        return bytes(head)

    async def send(self, data: bytes, *, flip: bool = False) -> None:
        if self._secured is None:
            await self.say_raw(_flipped(data) if flip else data)
        elif data:
            self._secured.write(data)
            await self._flush(flip=flip)

    def reset(self) -> None:
        connection: socket.socket = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def end(self, *, takes_leave: bool = True) -> None:
        if self._secured is not None and takes_leave:
            with contextlib.suppress(ssl.SSLError):  # it would like to wait for the client's
                self._secured.unwrap()
            await self._flush()
        self._writer.close()

    async def aclose(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class FaultServer:
    """
    Answers truthfully, but for the faults it was armed with: each strikes once, in order.

    Args:
        graph: What it knows.
        tls: What it identifies itself with, if it speaks TLS at all.

    Attributes:
        tls: Likewise.
        faults: Those that have not struck yet.
        lasting: What strikes whenever there is none of them.
        judge: Says of a request which fault strikes it, whatever the others are; None for no such fault.
        requests: All whose head has come, the newest last.
        connections: How many were made.
        open: How many connections are open.
        deaf: Of how many it would not know that they have ended, because it takes little or nothing from them.
        places: What the headers of its answers may name: `base` is itself.
        held: What is waited for before anything is answered, if it is set.
        holds: Says of a request what is waited for before it is answered, if anything.
        struck: Called each time that a fault strikes, before anything else happens.
        errors: What went wrong in here: a request that is none.
    """

    def __init__(self, graph: Graph, tls: ssl.SSLContext | None = None) -> None:
        self.graph = graph
        self.faults: deque[Fault] = deque()
        self.lasting: Fault | None = None
        self.judge: Callable[[Seen], Fault | None] = lambda _: None
        self.requests: list[Seen] = []
        self.connections = 0
        self.open = 0
        self.deaf = 0
        self.places: dict[str, str] = {}
        self.held: asyncio.Event | None = None
        self.holds: Callable[[Seen], asyncio.Event | None] = lambda _: None
        self.struck: list[Callable[[], object]] = []
        self.errors: list[BaseException] = []
        self.tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.places["base"].rpartition(":")[2])

    @property
    def base_url(self) -> str:
        """Scheme, host and port."""
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
        scheme = "https" if self.tls else "http"
        self.places["base"] = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.ensure_future(self._converse(_Wire(reader, writer, self.tls)))
        self._tasks.add(task)
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

    async def _converse(self, wire: _Wire) -> None:
        self.open += 1
        try:
            with contextlib.suppress(OSError, ssl.SSLError):  # the client's end of it is what is looked at
                if await self._welcomed(wire, self._strikes("connection").handshake):
                    while await self._served(wire):
                        pass
        finally:
            await wire.aclose()
            self.open -= 1

    async def _welcomed(self, wire: _Wire, handshake: Handshake) -> bool:
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

    async def _served(self, wire: _Wire) -> bool:
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
        return await self._ended(
            wire, request, "end" if (fault.framing, fault.ends) == ("close", "keep") else fault.ends
        )

    async def _take(self, wire: _Wire, request: Seen, fault: Fault) -> None:
        self.deaf += bool(fault.takes)
        wanted = min(fault.reads, request.length) if fault.when == "head" else request.length
        while len(request.body) < wanted:
            data = await wire.read(min(fault.takes or _READ, wanted - len(request.body)))
            if not data:
                raise ConnectionError("the client hung up in the middle of its request")
            request.body += data
            if fault.takes:
                await asyncio.sleep(_QUICK)  # the pace

    async def _say(self, wire: _Wire, request: Seen, fault: Fault) -> None:
        head, body = self._answer(request, fault)
        if fault.sends == "half the body":
            body = body[: len(body) // 2]
        if fault.sends in {"nothing", "half the head", "the head"}:
            head, body = {"nothing": b"", "half the head": head[: len(head) // 2], "the head": head}[fault.sends], b""
        if fault.pace:
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
                status, headers, body = _told(_error(fault.error), status)
        elif request.method == "GET":
            status, body = _ranged(request.headers.get("range", ""), fault.ranges, headers, status, body)
        if fault.text is not None:
            headers, body = {"content-type": "application/json"}, (fault.text * fault.repeat).encode()
        body += b"x" * fault.padding
        body = _flipped(body) if fault.flips else body
        places = self.places | {"id": request.media_id}
        headers |= {name.lower(): value.format_map(places) for name, value in fault.headers.items()}
        return _framed(status, headers, body, fault.framing)

    def _poison(self) -> bytes:
        facts = self.graph.facts(self.base_url, "9")
        head, body = _framed(200, {"content-type": "application/json"}, json.dumps(facts).encode(), "length")
        return head + body

    async def _ended(self, wire: _Wire, request: Seen, ends: Ends) -> bool:
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
    elif framing in {"chunked", "unterminated"}:
        lines.append("transfer-encoding: chunked")
        halves = (body[: len(body) // 2], body[len(body) // 2 :])
        framed = b"".join(b"%x\r\n%s\r\n" % (len(half), half) for half in halves if half)
        body = framed + (b"0\r\n\r\n" if framing == "chunked" else b"")
    elif framing == "close":
        lines.append("connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n", body
