"""
Faults: their fields, the queue of those that have not happened yet, and their TOML file.

`server.inject` acts a fault out. The README in this folder has examples.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import math
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

import attrs
from attrs.validators import and_, deep_mapping, ge, gt, in_, instance_of, le, lt, matches_re, not_, optional, or_

from meta_media.emulator.responses import GraphError, GraphResponse
from meta_media.errors import Operation

__all__ = ["Fault", "FaultOperation", "FaultQueue", "PlannedFault", "Position", "read_faults"]

FaultOperation = Operation | Literal["graph", "any"]
Position = Literal["request", "reply", "head", "end"] | int
_End = Literal["close", "reset", "stall"]
_Framing = Literal["length", "chunked", "close"]
_Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]

_GRAPH: Final = frozenset(get_args(Operation)) - {"download"}
_OPERATIONS: Final = (*get_args(Operation), "graph", "any")
_POSITIONS: Final = ("request", "reply", "head", "end")
_HTML: Final = "<!DOCTYPE html><html><title>Sorry</title><body>Something went wrong. Try again later.</body></html>"


def _must_be(text: str, *validators: _Validator) -> _Validator:
    """Join attrs' validators. The error is one sentence, because a value may come from a file."""

    def validate(owner: Any, field: attrs.Attribute[Any], value: Any) -> None:
        try:
            and_(*validators)(owner, field, value)
        except (TypeError, ValueError):
            raise ValueError(f"{field.name} must be {text}, not {value!r}") from None

    return validate


def _one_of(choices: tuple[str, ...]) -> _Validator:
    return _must_be(f"one of {', '.join(choices)}", instance_of(str), in_(choices))


_INTEGER: Final[tuple[_Validator, ...]] = (instance_of(int), not_(instance_of(bool)))
_NUMBER: Final[tuple[_Validator, ...]] = (instance_of((int, float)), not_(instance_of(bool)), gt(0), lt(math.inf))
_PRINTABLE: _Validator = and_(instance_of(str), matches_re(r"[ -~]*"))
_status = optional(_must_be("a whole number from 200 to 599", *_INTEGER, ge(200), le(599)))
_index = _must_be("a whole number of at least 0", *_INTEGER, ge(0))
_times: _Validator = optional(_must_be("a whole number of at least 1", *_INTEGER, ge(1)))
_number = _must_be("a number above 0", *_NUMBER)
_probability = _must_be("a number above 0 and at most 1", *_NUMBER, le(1))
_boolean = _must_be("true or false", instance_of(bool))
_bytes = _must_be("text or bytes", instance_of(bytes))
_headers = _must_be("a mapping of names to values in printable ASCII", deep_mapping(_PRINTABLE, _PRINTABLE))
_position = _must_be(
    f"one of {', '.join(_POSITIONS)} or a number of bytes",
    or_(and_(instance_of(str), in_(_POSITIONS)), and_(*_INTEGER, ge(0))),
)


def _encoded(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


@attrs.frozen(kw_only=True, repr=False)
class Fault:
    """
    A fault: another response in the place of the real one, or a change to the response or to its connection.

    `status` and `body` replace the real response. All other fields apply to either. At the position `at` the emulator is
    silent for `delay`; then the connection ends as `end` says, or all goes on.

    Attributes:
        status: HTTP status of the response that replaces the real one: 200 to 599. Default with a `body`: 200.
        body: Body of the response that replaces the real one. Text is encoded as UTF-8. Default with a `status`: empty.
        headers: Headers of the response; they replace its own of the same names. The default `Content-Type` of a `body` is
            `application/json`.
        applied: Whether the request is carried out although another response is given.
        reads: Bytes of the request's body that are read, at least, before the other response or the end; 0 responds at once.
            Default: all. The rest stays unread, so that a client that is still writing gets stuck.
        read_rate: Bytes per second at which the request's body is read. Bytes that arrive with the head do not count.
        rate: Bytes per second at which the response's body is sent.
        expired_url: Whether the download URL in the response has expired already. For a download: whether its own URL has.
        truncate: Bytes after which the response's body ends. `Content-Length` agrees, so that no break can be seen.
        flip_at: Index of a byte of the response's body in which one bit is flipped.
        content_length: Value of `Content-Length`, right or wrong.
        framing: How the response's body ends: by `"length"`, `"chunked"`, or at the `"close"` of the connection.
        surplus: Bytes sent after the end of the response.
        at: Position: `"request"` once the request's head has arrived and nothing is done; `"reply"` (the default) when
            the request is carried out and nothing is sent; `"head"` in the middle of the response's head; a number of
            bytes of its body (0 between head and body; a shorter body counts as reached); or `"end"` after the response.
        delay: Seconds of silence at that position.
        end: How the connection ends at that position: `"close"` after everything written is delivered; `"reset"` with RST,
            which may overtake bytes that the client has not received yet; or `"stall"`: open and silent until the client
            hangs up or the emulator stops.

    Raises:
        ValueError: A field has a wrong value, or two fields contradict each other.
    """

    status: int | None = attrs.field(default=None, validator=_status)
    body: bytes | None = attrs.field(default=None, converter=_encoded, validator=optional(_bytes))
    headers: Mapping[str, str] = attrs.field(factory=dict, converter=_copied, validator=_headers)
    applied: bool = attrs.field(default=False, validator=_boolean)
    reads: int | None = attrs.field(default=None, validator=optional(_index))
    read_rate: float | None = attrs.field(default=None, validator=optional(_number))
    rate: float | None = attrs.field(default=None, validator=optional(_number))
    expired_url: bool = attrs.field(default=False, validator=_boolean)
    truncate: int | None = attrs.field(default=None, validator=optional(_index))
    flip_at: int | None = attrs.field(default=None, validator=optional(_index))
    content_length: int | None = attrs.field(default=None, validator=optional(_index))
    framing: _Framing = attrs.field(default="length", validator=_one_of(get_args(_Framing)))
    surplus: bytes = attrs.field(default=b"", converter=_encoded, validator=_bytes)
    at: Position | None = attrs.field(default=None, validator=optional(_position))
    delay: float | None = attrs.field(default=None, validator=optional(_number))
    end: _End | None = attrs.field(default=None, validator=optional(_one_of(get_args(_End))))

    def __attrs_post_init__(self) -> None:
        for holds, sentence in self._contradictions():
            if holds:
                raise ValueError(sentence)

    def __repr__(self) -> str:
        return f"Fault({', '.join(f'{name}={value!r}' for name, value in self._given())})"

    @classmethod
    def html(cls, status: int = 200, body: str | bytes = _HTML, **more: Any) -> Fault:
        """Make an HTML page, as proxies and overloaded hosts send. `more` are fields of `Fault`."""
        headers = {"content-type": "text/html; charset=utf-8"} | dict(more.pop("headers", {}))
        return cls(status=status, body=body, headers=headers, **more)

    @classmethod
    def redirect(cls, location: str, status: int = 302, **more: Any) -> Fault:
        """Make a redirect; `location` is sent as it is. `more` are fields of `Fault`."""
        headers = {"location": location} | dict(more.pop("headers", {}))
        return cls(status=status, headers=headers, **more)

    @classmethod
    def error(cls, code: int, status: int = 400, message: str = "A fault of the emulator", **more: Any) -> Fault:
        """Make an error of the Graph API, with Meta's code and message. `more` are fields of `Fault`."""
        return cls._error(GraphError(message, code=code, status=status), more)

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
        Make a "too many requests".

        Args:
            code: 130429 for throughput; 4, 80007, 80008, 613 and others for quotas.
            status: 429, or 400 as in Meta's error table.
            retry_after: Value of `Retry-After`: seconds, or any text. None leaves the header out.
            usage_minutes: Minutes until access is back, in the header `X-Business-Use-Case-Usage`. None leaves it out.
            more: Fields of `Fault`.
        """
        return cls._error(GraphError.throttled(status, retry_after, code=code, usage_minutes=usage_minutes), more)

    @classmethod
    def _error(cls, error: GraphError, more: Mapping[str, Any]) -> Fault:
        response = GraphResponse(error)
        headers = dict(response.headers) | dict(more.get("headers", {}))
        del headers["content-length"]
        return cls(**{"status": error.status, "body": bytes(response.body), **more, "headers": headers})

    @property
    def replaces(self) -> bool:
        """Whether another response is given in the place of the real one."""
        return self.status is not None or self.body is not None

    def _given(self) -> Iterator[tuple[str, Any]]:
        for field in attrs.fields(Fault):
            value, default = getattr(self, field.name), {} if field.name == "headers" else field.default
            if type(value) is not type(default) or value != default:
                yield field.name, value

    def _contradictions(self) -> Iterator[tuple[bool, str]]:
        given = {name for name, _ in self._given()}
        happens = self.delay is not None or self.end is not None
        yield not given, "a fault needs at least one field"
        yield self.at is not None and not happens, "at is where something happens: give a delay, an end or both"
        yield self.applied and not self.replaces, "applied = true needs a status or a body to answer with"
        yield self.applied and self.reads is not None, "applied reads the whole request: leave out reads"
        reads = self.replaces or (self.at == "request" and self.end is not None)
        yield self.reads is not None and not reads, 'reads needs a status, a body, or an end at "request"'
        yield self.expired_url and self.replaces, "expired_url changes the real response: leave out status and body"
        lies = self.content_length is not None and self.framing != "length"
        yield lies, f"a response of framing {self.framing} has no length: leave out content_length"
        unsent = ", ".join(sorted(given - {"at", "delay", "end", "reads", "read_rate"}))
        early = self.end is not None and self.at in {None, "request", "reply"} and unsent != ""
        yield early, f"the connection ends before the response: leave out {unsent}"


@attrs.frozen(kw_only=True)
class PlannedFault:
    """
    A fault, and the requests that it happens to.

    Attributes:
        operation: The requests: those of one verb; `"graph"` for all but downloads; `"any"`.
        fault: The fault.
        times: How many requests it happens to, or still will. None: all.
        probability: How likely it happens to a request: above 0, at most 1.
        seed: Chooses the requests for a probability below 1; the same requests in each run.
    """

    operation: FaultOperation = attrs.field(validator=_one_of(_OPERATIONS))
    fault: Fault = attrs.field(validator=_must_be("a Fault", instance_of(Fault)))
    times: int | None = attrs.field(default=1, validator=_times)
    probability: float = attrs.field(default=1.0, validator=_probability)
    seed: int = attrs.field(default=0, validator=_index)

    def is_for(self, operation: Operation | None) -> bool:
        """Return whether it may happen to a request of this operation."""
        return self.operation in {operation, "any"} or (self.operation == "graph" and operation in _GRAPH)


@attrs.define
class _Entry:
    planned: PlannedFault
    left: int | None
    rolls: int = 0

    def happens(self) -> bool:
        """Roll the dice; they are the same in each run and independent of the rest of the process."""
        self.rolls += 1
        roll = hashlib.sha256(f"{self.planned.seed}/{self.rolls}".encode()).digest()[:8]
        return int.from_bytes(roll, "big") < self.planned.probability * 2**64


class FaultQueue:
    """
    The faults that have not happened yet, in the order in which they were planned.

    `take` runs in the emulator's thread, the rest in any: each changes or reads the list in one step, without a lock.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def add(self, planned: PlannedFault) -> None:
        """Append a fault."""
        self._entries.append(_Entry(planned, planned.times))

    def take(self, operation: Operation | None) -> Fault | None:
        """Return the first fault that happens to a request of this operation, and count it as used."""
        for entry in self._entries.copy():
            if entry.planned.is_for(operation) and entry.happens():
                if entry.left == 1:
                    with contextlib.suppress(ValueError):  # another thread has just cleared the list
                        self._entries.remove(entry)
                elif entry.left is not None:
                    entry.left -= 1
                return entry.planned.fault
        return None

    def withdraw(self, planned: PlannedFault) -> None:
        """Remove this fault."""
        self._entries[:] = [entry for entry in self._entries if entry.planned is not planned]

    def left(self) -> list[PlannedFault]:
        """Return the faults, each with how often it will still happen."""
        return [attrs.evolve(entry.planned, times=entry.left) for entry in self._entries.copy()]

    def clear(self) -> None:
        """Remove all faults."""
        self._entries.clear()


_MAKERS: Final[Mapping[str, Callable[..., Fault]]] = {
    make.__name__: make for make in (Fault.error, Fault.html, Fault.redirect, Fault.throttle)
}
_PLAN_FIELDS: Final = tuple(field.name for field in attrs.fields(PlannedFault) if field.name != "fault")
_FAULT_FIELDS: Final = tuple(field.name for field in attrs.fields(Fault))


def read_faults(path: str | os.PathLike[str]) -> list[PlannedFault]:
    """
    Read a TOML file of faults.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is wrong; the message is one sentence with the number of the fault.
    """
    content = Path(path).read_bytes()
    try:
        document = tomllib.loads(content.decode())
    except ValueError as error:
        raise ValueError(f"the file is not TOML: {error}") from error
    tables = document.pop("fault", None)
    if document:
        raise ValueError(f"the file may hold tables [[fault]] only: remove {next(iter(document))!r}")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError("the file holds no list of tables [[fault]]")
    return [_planned(number, table) for number, table in enumerate(tables, 1)]


def _planned(number: int, table: dict[str, Any]) -> PlannedFault:
    plan = {name: table.pop(name) for name in _PLAN_FIELDS if name in table}
    try:
        if "operation" not in plan:
            raise ValueError(f"it needs an operation: one of {', '.join(_OPERATIONS)}")
        if plan.get("times") == "always":
            plan["times"] = None
        return PlannedFault(fault=_fault(table), **plan)
    except ValueError as error:
        raise ValueError(f"fault {number}: {error}") from error


def _fault(table: dict[str, Any]) -> Fault:
    kind = table.pop("kind", None)
    make = Fault if kind is None else _MAKERS.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise ValueError(f"kind must be one of {', '.join(_MAKERS)}, not {kind!r}")
    arguments = [name for name in inspect.signature(make).parameters if name != "more"]
    known = dict.fromkeys((*arguments, *_FAULT_FIELDS))
    if unknown := [name for name in table if name not in known]:
        raise ValueError(f"there is no {unknown[0]!r}; there are {', '.join((*_PLAN_FIELDS, 'kind', *known))}")
    try:
        return make(**table)
    except TypeError as error:  # "missing 1 required positional argument: 'location'"
        raise ValueError(str(error)) from error
