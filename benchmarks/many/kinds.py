"""
What may happen to an upload, and what may then become of it.

Left out is what ends a whole run, as a dead token does or a pause of hours: it is no matter of single items.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meta_media.emulator import Fault
from meta_media.emulator.app import operation_of
from meta_media.emulator.faults import FaultQueue, PlannedFault

TRIES = 3  # requests that a call makes at most, by default


@dataclass(frozen=True)
class Kind:
    """
    Something that may happen to an upload's request.

    Attributes:
        name: In the tables.
        fault: What the emulator is told to do.
        ends: The error by which a call may then end; nothing if it has to take no notice.
        after: How many of such requests it takes for that.
        doubtful: Whether the client cannot know what became of it.
    """

    name: str
    fault: Fault
    ends: str = ""
    after: int = TRIES
    doubtful: bool = True


def _no(name: str, fault: Fault, ends: str, after: int = TRIES) -> Kind:
    """Make a kind after which there is no doubt: it was not done."""
    return Kind(name, fault, ends, after, doubtful=False)


def _harmless(name: str, fault: Fault) -> Kind:
    return Kind(name, fault, doubtful=False)


KINDS = (
    _no("400, throttled", Fault.throttle(status=400), "RateLimitError"),
    _no("429, Retry-After: soon", Fault.throttle(code=4, retry_after="soon"), "RateLimitError"),
    _no("400, transient", Fault(status=400, body='{"error":{"code":100,"is_transient":true}}'), "InvalidRequestError"),
    _no("400, parameter", Fault.error(100), "InvalidRequestError", 1),
    _no("403, permission", Fault.error(200, 403), "PermissionDeniedError", 1),
    _no("415", Fault(status=415), "UploadRejectedError", 1),
    _no("413, early, closed", Fault(status=413, reads=0, at="end", end="close"), "UploadRejectedError", 1),
    _no("302 elsewhere", Fault.redirect("http://127.0.0.1:9/"), "UntrustedUrlError", 1),
    Kind("500", Fault.error(2, 500), "ServerError"),
    Kind("500, but done", Fault.error(2, 500, applied=True), "ServerError"),
    Kind("503, HTML", Fault.html(503), "ServerError"),
    Kind("502, HTML, but done", Fault.html(502, applied=True), "ServerError"),
    Kind("200, HTML", Fault.html(), "ServerError", 1),
    Kind("200, another JSON, but done", Fault(body='{"id":"../1"}', applied=True), "ServerError", 1),
    Kind("200, empty, but done", Fault(status=200, applied=True), "ServerError", 2),
    Kind("200, bit flipped", Fault(flip_at=0), "ServerError", 1),
    Kind("200, cut short", Fault(truncate=5), "ServerError", 1),
    Kind("reset at its head", Fault(at="request", end="reset", reads=0), "NetworkError"),
    Kind("closed half way", Fault(at="request", end="close", reads=2**15), "NetworkError"),
    Kind("done, reply lost", Fault(end="close"), "NetworkError"),
    Kind("done, reply reset in its head", Fault(at="head", end="reset"), "NetworkError"),
    Kind("done, reply closed in its body", Fault(at=5, end="close"), "NetworkError"),
    Kind("done, then silence", Fault(end="stall"), "TransferTimeoutError"),
    _harmless("reply late", Fault(delay=0.3)),
    _harmless("reply trickles", Fault(rate=2000)),
    _harmless("reply in chunks", Fault(framing="chunked")),
    _harmless("reply with a surplus", Fault(surplus=b'HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{"id":1}')),
    _harmless("request read slowly", Fault(read_rate=2**20)),
    _harmless("closed afterwards", Fault(at="end", end="close")),
)
_BY_FAULT = {id(kind.fault): kind for kind in KINDS}


def plan(probability: float) -> list[PlannedFault]:
    """Plan each kind of fault with this probability; none if that is zero."""
    return [
        PlannedFault(operation="upload", fault=kind.fault, times=None, probability=probability, seed=number)
        for number, kind in enumerate(KINDS if probability else ())
    ]


def replayed(requests: Iterable[tuple[str, str]], probability: float) -> Iterator[Kind | None]:
    """Tell what happened to each request, by method and path, in the order in which they came: the dice are the same."""
    faults = FaultQueue()
    for planned in plan(probability):
        faults.add(planned)
    for method, path in requests:
        fault = faults.take(operation_of(method, path))
        yield None if fault is None else _BY_FAULT[id(fault)]
