"""
What may go wrong: the description of a fault.

When it does is in `schedule`, how it is written in a file in `fault_file`, and how it is acted out in `misbehave`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import attrs

from meta_media.emulator.replies import GraphError, GraphResponse
from meta_media.emulator.validators import boolean, integer, maybe, number, octets, one_of, position, printable_headers

__all__ = ["Fault", "Position"]

Position = Literal["request", "reply", "head", "end"] | int
_End = Literal["close", "reset", "stall"]
_HTML: Final = (
    "<!DOCTYPE html><html><title>Sorry</title><body>Something went wrong. We are working on it.</body></html>"
)


def _encoded(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


@attrs.frozen(kw_only=True, repr=False)
class Fault:
    """
    What happens instead of a reply, or to it.

    `status` and `body` put another reply in the place of the real one; all else can be done to either. Where `at`
    says, there is silence for `delay`, and then the connection ends as `end` says, or all goes on.

    Attributes:
        status: HTTP status of a reply in the place of the real one: 200 to 599. With a `body` alone, 200.
        body: Body of a reply in the place of the real one; text is encoded as UTF-8. With a `status` alone, empty.
        headers: Headers that the reply has in any case, in the place of its own of the same names. A `body` without a
            `Content-Type` among them is called `application/json`.
        applied: Whether what was asked is done all the same, although another reply is given: the reply that lies.
        reads: Bytes of the request's body that are read, at least, before the other reply or the end; 0 does so at
            once. Without it, everything is read. What is not read stays in the way of a client that is still writing.
        read_rate: Bytes per second at which the request's body is read. What came along with its head counts not.
        rate: Bytes per second at which the reply's body is sent.
        expired_url: Whether the download URL that is handed out has expired already; or, in a download, the one used.
        truncate: Bytes after which the reply's body ends, `Content-Length` included: no break can be seen.
        flip_at: Index of a byte of the reply's body of which one bit is flipped.
        content_length: What `Content-Length` says, whatever the truth is.
        framing: How the reply's body ends: by `"length"`, `"chunked"`, or at the `"close"` of the connection.
        surplus: Bytes sent after the end of the reply, which should not be there.
        at: Where it happens: `"request"` before anything is done, once the request's head is there; `"reply"`, the
            default, when everything is done but nothing said; `"head"` in the middle of the reply's head; a number of
            bytes of the reply's body (0 between head and body; in a shorter one, where its last byte was); or
            `"end"`, after the reply.
        delay: Seconds of silence at that point.
        end: How the connection ends at that point: `"close"` with all delivered that has been said, `"reset"` with
            RST, which may overtake what the client has not received yet, or `"stall"`: open and silent until the client
            hangs up or the emulator ends.
    """

    status: int | None = attrs.field(default=None, validator=maybe(integer(200, 599)))
    body: bytes | None = attrs.field(default=None, converter=_encoded, validator=maybe(octets))
    headers: Mapping[str, str] = attrs.field(factory=dict, converter=_copied, validator=printable_headers)
    applied: bool = attrs.field(default=False, validator=boolean)
    reads: int | None = attrs.field(default=None, validator=maybe(integer(0)))
    read_rate: float | None = attrs.field(default=None, validator=maybe(number()))
    rate: float | None = attrs.field(default=None, validator=maybe(number()))
    expired_url: bool = attrs.field(default=False, validator=boolean)
    truncate: int | None = attrs.field(default=None, validator=maybe(integer(0)))
    flip_at: int | None = attrs.field(default=None, validator=maybe(integer(0)))
    content_length: int | None = attrs.field(default=None, validator=maybe(integer(0)))
    framing: str = attrs.field(default="length", validator=one_of("length", "chunked", "close"))
    surplus: bytes = attrs.field(default=b"", converter=_encoded, validator=octets)
    at: Position | None = attrs.field(default=None, validator=maybe(position("request", "reply", "head", "end")))
    delay: float | None = attrs.field(default=None, validator=maybe(number()))
    end: _End | None = attrs.field(default=None, validator=maybe(one_of("close", "reset", "stall")))

    def __attrs_post_init__(self) -> None:
        for is_so, why in self._contradictions():
            if is_so:
                raise ValueError(why)

    def __repr__(self) -> str:
        return f"Fault({', '.join(f'{name}={value!r}' for name, value in self._given())})"

    @classmethod
    def html(cls, status: int = 200, body: str | bytes = _HTML, **more: Any) -> Fault:
        """
        A page for people, as proxies and overloaded hosts give.

        Args:
            status: HTTP status.
            body: The page.
            more: Fields of `Fault`.
        """
        headers = {"content-type": "text/html; charset=utf-8"} | dict(more.pop("headers", {}))
        return cls(status=status, body=body, headers=headers, **more)

    @classmethod
    def redirect(cls, location: str, status: int = 302, **more: Any) -> Fault:
        """
        A redirect.

        Args:
            location: Where to, whatever it is.
            status: HTTP status.
            more: Fields of `Fault`.
        """
        headers = {"location": location} | dict(more.pop("headers", {}))
        return cls(status=status, headers=headers, **more)

    @classmethod
    def error(cls, code: int, status: int = 400, message: str = "The emulator was told to fail", **more: Any) -> Fault:
        """
        A refusal in the envelope of the Graph API.

        Args:
            code: The Graph API's code.
            status: HTTP status.
            message: What it says.
            more: Fields of `Fault`.
        """
        return cls._refusal(GraphError(message, code=code, status=status), more)

    @classmethod
    def throttle(
        cls,
        code: int = 130429,
        status: int = 429,
        retry_after: float | str | None = None,
        usage_minutes: int | None = None,
        **more: Any,
    ) -> Fault:
        """
        Too many requests.

        Args:
            code: 130429 for throughput; 4, 80007, 80008, 613 and others for quotas.
            status: 429, or 400 as in Meta's error table.
            retry_after: What `Retry-After` says, in seconds or any text; None leaves the header out.
            usage_minutes: Minutes until access is back, in the header `X-Business-Use-Case-Usage`; None leaves it out.
            more: Fields of `Fault`.
        """
        return cls._refusal(GraphError.throttled(status, retry_after, code=code, usage_minutes=usage_minutes), more)

    @classmethod
    def _refusal(cls, error: GraphError, more: Mapping[str, Any]) -> Fault:
        response = GraphResponse(error)
        headers = dict(response.headers) | dict(more.get("headers", {}))
        del headers["content-length"]
        return cls(**{"status": error.status, "body": bytes(response.body), **more, "headers": headers})

    @property
    def replaces(self) -> bool:
        """Whether another reply is given in the place of the real one."""
        return self.status is not None or self.body is not None

    def _given(self) -> Iterator[tuple[str, Any]]:
        for field in attrs.fields(Fault):
            value, default = getattr(self, field.name), {} if field.name == "headers" else field.default
            if type(value) is not type(default) or value != default:
                yield field.name, value

    def _contradictions(self) -> Iterator[tuple[bool, str]]:
        given = {name for name, _ in self._given()}
        happens = self.delay is not None or self.end is not None
        yield not given, "a fault without any field is none"
        yield self.at is not None and not happens, "at says where something happens: give a delay, an end or both"
        yield self.applied and not self.replaces, "applied is about another reply: give a status, a body or both"
        yield self.applied and self.reads is not None, "applied reads the whole request, so it cannot be told reads"
        reads = self.replaces or (self.at == "request" and self.end is not None)
        yield self.reads is not None and not reads, 'reads needs another reply, or an end at "request"'
        yield self.expired_url and self.replaces, "expired_url is about the real reply, so it needs no status or body"
        lies = self.content_length is not None and self.framing != "length"
        yield lies, f"content_length has no place in a reply of framing {self.framing}"
        unsaid = given - {"at", "delay", "end", "reads", "read_rate"}
        early = self.end is not None and self.at in {None, "request", "reply"}
        yield (
            early and bool(unsaid),
            f"the connection ends before the reply, so {', '.join(sorted(unsaid))} is too much",
        )
