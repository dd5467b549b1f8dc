"""
What may happen to a request: answers that the emulator is told to give, and what the proxy of `benchmarks.chaos` does.

Those of the proxy are beneath HTTP where that is possible: it understands as much of it as it must to know what a request is
about, and where its reply's head and body are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

from meta_media.emulator import Fault

if TYPE_CHECKING:
    from .chaos import Proxy

SILENCE = 4.0  # seconds, which is longer than the client's patience
_FIRST = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.1\r\n")
_CALL = re.compile(rb"\r\nuser-agent: [^\r]* call/([0-9]+)\r\n", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\ncontent-length: ([0-9]+)", re.IGNORECASE)
_RANGE = re.compile(rb"\r\nrange: [^\r]+", re.IGNORECASE)
_TOLD = re.compile(rb"\r\nsoak: ([^\r]+)")
CIRCLE = "/in-circles"
_FORGED = b'HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{"id":"666666666"}'
_ODD_ERRORS = ['{"error":"no"}', '{"error":{"code":"abc"}}', '{"error":[]}', "[1]", "[" * 20_000]
_ODD_ANSWERS = ["[]", "{}", "null", '{"id":null,"success":"no"}', '{"id":"../1","success":false}']
Kind = Literal["upload", "get_info", "delete", "download"]


class Reply(NamedTuple):
    """The head of a reply, with its empty line, and its body."""

    head: bytes
    body: bytes

    @property
    def whole(self) -> bytes:
        """All of it."""
        return self.head + self.body

    def unframed(self, instead: bytes = b"") -> bytes:
        """Give the head without the body's length."""
        return _LENGTH.sub(instead, self.head)

    def with_body(self, body: bytes) -> Reply:
        """Give it another body, and its length."""
        return Reply(self.unframed(b"\r\ncontent-length: %d" % len(body)), body)


class Exchange:
    """A request whose head has come, and what can be done about it."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        self._proxy, self._reader, self._writer = proxy, reader, writer
        first, call, length = _FIRST.match(head), _CALL.search(head), _LENGTH.search(head)
        assert first is not None
        self.head, self.chance = head, proxy.chance
        self.line = first[1] + first[2].partition(b"?")[0]
        self.call = call[1].decode() if call else "-"
        self.left = int(length[1]) if length else 0
        media = first[2].startswith(b"/whatsapp_business/")
        kinds: Mapping[bytes, Kind] = {b"POST": "upload", b"DELETE": "delete"}
        self.kind: Kind = kinds.get(first[1], "download" if media else "get_info")
        self.part = media and _RANGE.search(head) is not None

    async def body(self, upto: int = 2**40) -> bytes:
        """Read the request's body, or the next bytes of it."""
        count = min(self.left, upto)
        self.left -= count
        return await self._reader.readexactly(count)

    async def forwarded(self) -> Reply:
        """Let the emulator answer."""
        request = self.head + await self.body()
        reader, writer = await asyncio.open_connection("127.0.0.1", self._proxy.emulator)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            reply = Reply(head, await reader.readexactly(int(length[1]) if length else 0))
        finally:
            writer.close()
        if told := _TOLD.search(head):
            self._proxy.note(self.call, self.kind, told[1].decode())
        if self._proxy.tls is not None and self.kind == "get_info":
            reply = reply.with_body(reply.body.replace(b'"url":"http:', b'"url":"https:'))
        return reply

    async def say(self, said: bytes) -> bool:
        """Send to the client, and let the connection go on."""
        self._writer.write(said)
        await self._writer.drain()
        return True

    async def end(self, how: str) -> bool:
        """End the connection, if told how: closed, reset, stalled, or garbled beneath TLS."""
        if how == "garbled":
            os.write(self._writer.get_extra_info("socket").fileno(), self.chance.randbytes(100))
        if how == "stalled":
            await asyncio.sleep(SILENCE)
        if how in {"reset", "stalled"}:
            reset(self._writer)
        return not how


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection with RST."""
    with contextlib.suppress(OSError):
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


Act = Callable[[Exchange], Awaitable[bool]]  # tells whether the connection goes on
Change = Callable[[Reply, random.Random], bytes]


def page(status: str, *headers: str) -> bytes:
    """Write a reply without a body."""
    return "\r\n".join([f"HTTP/1.1 {status}", "content-length: 0", *headers, "", ""]).encode()


def _answer(said: bytes, share: float, how: str) -> Act:
    """Read a share of the request's body, answer, end."""

    async def act(exchange: Exchange) -> bool:
        await exchange.body(int(exchange.left * share))
        await exchange.say(said)
        return await exchange.end(how)

    return act


def _change(change: Change, how: str = "") -> Act:
    """Let the emulator answer, and say something else; then end, if told how."""

    async def act(exchange: Exchange) -> bool:
        reply = await exchange.forwarded()
        await exchange.say(change(reply, exchange.chance))
        return await exchange.end(how)

    return act


def _flipped(reply: Reply, chance: random.Random) -> bytes:
    """Flip a bit of a media, or in the brace that makes JSON of the others: who could tell of a bit in an id?"""
    body = bytearray(reply.body or b" ")
    body[0 if body.startswith(b'{"') else chance.randrange(len(body))] ^= 128
    return reply.head + body


def _shorter(reply: Reply, chance: random.Random) -> bytes:
    return reply.body[: chance.randrange(max(len(reply.body), 1))]


def _in_head(reply: Reply, chance: random.Random) -> bytes:
    return reply.head[: chance.randrange(1, len(reply.head))]


def _in_body(reply: Reply, chance: random.Random) -> bytes:
    return reply.head + _shorter(reply, chance)


def _in_chunks(reply: Reply, _: random.Random) -> bytes:
    chunk = b"%x\r\n%b\r\n" % (len(reply.body), reply.body) if reply.body else b""
    return reply.unframed(b"\r\ntransfer-encoding: chunked") + chunk


def _about_another(reply: Reply, _: random.Random) -> bytes:
    return reply.with_body(re.sub(rb'"id":"[0-9]+"', b'"id":"666666666"', reply.body)).whole


def _another_part(reply: Reply, _: random.Random) -> bytes:
    return re.sub(rb"(content-range: bytes )[0-9]+", rb"\g<1>0", reply.whole, count=1)


async def _range_ignored(exchange: Exchange) -> bool:
    exchange.head = _RANGE.sub(b"", exchange.head)
    return await exchange.say((await exchange.forwarded()).whole)


async def _trickle(exchange: Exchange) -> bool:
    reply = await exchange.forwarded()
    await exchange.say(reply.head)
    for byte in reply.body[: int(SILENCE / 0.05)]:
        await exchange.say(bytes([byte]))
        await asyncio.sleep(0.05)
    return await exchange.end("reset")


async def _read_slowly(exchange: Exchange) -> bool:
    while piece := await exchange.body(2**14):
        exchange.head += piece
        await asyncio.sleep(0.003)
    return await exchange.say((await exchange.forwarded()).whole)


async def _late(exchange: Exchange) -> bool:
    await asyncio.sleep(exchange.chance.uniform(0, 0.4))
    return await exchange.say((await exchange.forwarded()).whole)


@dataclass(frozen=True)
class Trouble:
    """
    Something that may happen to a request.

    Attributes:
        name: For the journal.
        kinds: Of requests that it may happen to.
        cause: What the emulator answers, or what the proxy does.
        ends: Names of errors by which a call may then end; without one it has to survive. For some kinds of requests,
            or ways of downloading, alone where they are written before a colon.
    """

    name: str
    kinds: str
    cause: Fault | Act
    ends: str = ""

    def excuses(self, kinds: set[str], error: str) -> bool:
        """Tell whether a call that made such requests may have ended with such an error."""
        return bool({error, *(f"{kind}:{error}" for kind in kinds)} & set(self.ends.split()))


_GRAPH, _WRITES = "upload get_info delete", "upload delete"
_ALL, _READS = f"{_GRAPH} download", "get_info download"
_UNREAD = "upload:ServerError delete:ServerError"  # what may have been done is not asked for again
_LATER = partial(Fault.throttle, code=4)
_ENDS = ("closed", "reset", "stalled")
TROUBLES = (
    Trouble("415", "upload", Fault(status=415), "UploadRejectedError"),
    Trouble("throttled", _ALL, Fault.throttle(status=400)),
    Trouble("429 for a second", _ALL, _LATER(retry_after=1)),
    *(Trouble("429, senseless", _ALL, _LATER(retry_after=text)) for text in ("-5", "soon")),
    Trouble("500, JSON", _ALL, Fault.error(2, 500)),
    Trouble("500, but done", _WRITES, Fault.error(2, 500, applied=True)),
    *(Trouble("502 to 504, HTML", _ALL, Fault.html(status)) for status in (502, 503, 504)),
    Trouble("400, transient", _ALL, Fault(status=400, body='{"error":{"code":100,"is_transient":true}}')),
    Trouble("400, parameter", _GRAPH, Fault.error(100), "InvalidRequestError"),
    Trouble("403, permission", _GRAPH, Fault.error(200, 403), "PermissionDeniedError"),
    Trouble("401, dead token", _GRAPH, Fault.error(190, 401)),
    Trouble("dead URL", "download", Fault(status=401)),
    Trouble("dead URL", "download", Fault(status=403), "fresh:PermissionDeniedError"),
    *(Trouble("dead URL", "download", Fault(status=status), "fresh:MediaNotFoundError") for status in (404, 410)),
    *(Trouble("400, odd", _GRAPH, Fault(status=400, body=body), "InvalidRequestError") for body in _ODD_ERRORS),
    Trouble("200, HTML", _ALL, Fault.html(), f"{_UNREAD} download:ServerError"),
    Trouble("200, HTML, but done", _WRITES, Fault.html(applied=True), _UNREAD),
    Trouble("200, empty", _ALL, Fault(status=200, headers={"content-type": "text/plain"}), "delete:ServerError"),
    *(Trouble("200, odd", _GRAPH, Fault(body=body, applied=True), _UNREAD) for body in _ODD_ANSWERS),
    Trouble("302 to itself", _ALL, Fault.redirect(""), _UNREAD),
    Trouble("302 in circles", _READS, Fault.redirect(CIRCLE), "ServerError"),
    Trouble("302 elsewhere", _ALL, Fault.redirect("http://127.0.0.1:{sink}/"), "UntrustedUrlError"),
    Trouble("request reset at its head", _ALL, _answer(b"", 0, "reset")),
    Trouble("request reset half way", "upload", _answer(b"", 0.5, "reset")),
    Trouble("request closed unanswered", _ALL, _answer(b"", 1, "closed")),
    Trouble("request never read", _ALL, _answer(b"", 0, "stalled")),
    Trouble("request read slowly", "upload", _read_slowly),
    Trouble("413 early, closed", "upload", _answer(page("413 No"), 0, "closed"), "UploadRejectedError"),
    Trouble("413 early, deaf", "upload", _answer(page("413 No"), 0, "stalled"), "UploadRejectedError"),
    Trouble("503 early, closed", "upload", _answer(page("503 No"), 0, "closed")),
    Trouble("head without end", _ALL, _answer(b"HTTP/1.1 200 OK\r\n" + b"and: more\r\n" * 20_000, 1, "closed")),
    Trouble("JSON without end", _GRAPH, _change(lambda it, _: it.with_body(b" " * 2**21).whole), _UNREAD),
    Trouble("about another media", "get_info", _change(_about_another)),
    *(Trouble(f"no reply, {how}", _ALL, _change(lambda *_: b"", how)) for how in _ENDS),
    *(Trouble(f"reply {how} in its head", _ALL, _change(_in_head, how)) for how in _ENDS),
    *(Trouble(f"reply {how} in its body", _ALL, _change(_in_body, how)) for how in _ENDS),
    Trouble("chunks without end", _ALL, _change(_in_chunks, "closed")),
    Trouble("unframed, cut", _ALL, _change(lambda it, chance: it.unframed() + _shorter(it, chance), "closed")),
    Trouble(
        "unframed, longer",
        "download",
        _change(lambda it, _: it.unframed() + it.body + b"!", "closed"),
        "stream:IntegrityError",
    ),
    Trouble("longer", "download", _change(lambda it, _: it.with_body(it.body + b"!").whole)),
    Trouble("bit flipped", _ALL, _change(_flipped), f"{_UNREAD} stream:IntegrityError"),
    Trouble("compressed", _ALL, _change(lambda it, _: it.unframed(b"\r\ncontent-encoding: gzip")), "ServerError"),
    Trouble("surplus", _ALL, _change(lambda it, _: it.whole + _FORGED)),
    Trouble("trickle", _ALL, _trickle),
    Trouble("late", _ALL, _late),
    Trouble("in chunks", _ALL, _change(lambda it, chance: _in_chunks(it, chance) + b"0\r\n\r\n")),
    Trouble("interim replies", _ALL, _change(lambda it, _: b"HTTP/1.1 103 Soon\r\n\r\n" * 2 + it.whole)),
    Trouble("closed afterwards", _ALL, _change(lambda it, _: it.whole, "closed")),
    Trouble("TLS garbled", "tls", _change(_in_body, "garbled")),
    Trouble("429 for years", "poor", _answer(page("429 No", "retry-after: 1e9"), 1, ""), "RateLimitError"),
    Trouble("416", "part", _answer(page("416 No"), 1, "closed")),
    Trouble("range ignored", "part", _range_ignored),
    Trouble("another part", "part", _change(_another_part)),
)
