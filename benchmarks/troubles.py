"""The faults of a soak: what the emulator does to a share of the requests, and the error that a call may then end with."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final, NamedTuple

from meta_media.emulator import Fault, PlannedFault
from meta_media.emulator.faults import FaultQueue
from meta_media.emulator.graph import operation_of


class Trouble(NamedTuple):
    """A fault, the operations that meet it, the errors that it may cause, and whether one of it is enough for that."""

    name: str
    operations: str
    fault: Fault | None
    error: str = ""
    at_once: bool = False


_GRAPH, _WRITES, _ALL = "upload get_info delete", "upload delete", "upload get_info delete download"
TROUBLES: Final = (
    Trouble("400, throttled", _GRAPH, Fault.throttle(status=400), "RateLimitError"),
    Trouble("429, Retry-After: soon", _GRAPH, Fault.throttle(code=4, retry_after="soon"), "RateLimitError"),
    Trouble("400, parameter", _GRAPH, Fault.error(100), "InvalidRequestError", at_once=True),
    Trouble("403, permission", _GRAPH, Fault.error(200, 403), "PermissionDeniedError", at_once=True),
    Trouble(
        "413 early, closed", "upload", Fault(status=413, reads=0, at="end", end="close"), "UploadRejectedError", True
    ),
    Trouble("302 elsewhere", _ALL, Fault.redirect("http://127.0.0.1:9/"), "UntrustedUrlError", at_once=True),
    Trouble("500", _ALL, Fault.error(2, 500), "ServerError"),
    Trouble("500, but done", _WRITES, Fault.error(2, 500, applied=True), "ServerError"),
    Trouble("503, HTML", _ALL, Fault.html(503), "ServerError"),
    Trouble("200, HTML", _ALL, Fault.html(), "ServerError", at_once=True),
    Trouble("200, another JSON, but done", "upload", Fault(body='{"id":"../1"}', applied=True), "ServerError", True),
    Trouble("200, bit flipped", "upload get_info", Fault(flip_at=0), "ServerError", at_once=True),
    Trouble("media, bit flipped", "download", Fault(flip_at=0), "IntegrityError"),
    Trouble("expired URL", "download", Fault(expired_url=True), "MediaNotFoundError", at_once=True),
    Trouble("reset at its head", _ALL, Fault(at="request", end="reset", reads=0), "NetworkError"),
    Trouble("closed half way", "upload", Fault(at="request", end="close", reads=2**15), "NetworkError"),
    Trouble("reply lost", _ALL, Fault(end="close"), "NetworkError"),
    Trouble("reset in the head", _ALL, Fault(at="head", end="reset"), "NetworkError"),
    Trouble("closed in the body", _ALL, Fault(at=5, end="close"), "NetworkError"),
    Trouble("silence", _ALL, Fault(end="stall"), "TransferTimeoutError"),
    Trouble("late", _ALL, Fault(delay=0.3)),
    Trouble("trickle", _GRAPH, Fault(rate=2000)),
    Trouble("trickle of the media", "download", Fault(rate=300), "TransferTimeoutError"),
    Trouble("in chunks", _ALL, Fault(framing="chunked")),
    Trouble("surplus", _ALL, Fault(surplus=b'HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{"id":1}')),
    Trouble("closed afterwards", _ALL, Fault(at="end", end="close")),
)
FLOODS: Final = tuple(  # of the server's TLS side, see `soak_server`
    Trouble(f"{kind} of interim responses", _ALL, None, "NetworkError ServerError TransferTimeoutError", at_once=True)
    for kind in ("flood", "trickle")
)


def plan(rate: float, seed: int) -> list[PlannedFault]:
    """Plan each trouble for each of its operations, so that a share `rate` of the requests meets one."""
    pairs = [(operation, it.fault) for it in TROUBLES if it.fault for operation in it.operations.split()]
    counts = Counter(operation for operation, _ in pairs)
    return [
        PlannedFault(operation=kind, fault=fault, times=None, probability=rate / counts[kind], seed=seed + number)  # type: ignore[arg-type]
        for number, (kind, fault) in enumerate(pairs if rate else ())
    ]


def met_by_call(folder: Path, rate: float, seed: int) -> tuple[int, dict[str, list[Trouble]]]:
    """Roll the emulator's dice again: return how many requests came, and the troubles that each call met."""
    by_fault = {id(trouble.fault): trouble for trouble in TROUBLES}
    queue, met, count = FaultQueue(), defaultdict[str, list[Trouble]](list), 0
    for planned in plan(rate, seed):
        queue.add(planned)
    for line in (folder / "record").read_text().splitlines():
        method, path, agent = json.loads(line)
        count += 1
        if (fault := queue.take(operation_of(method, path))) is not None:
            met[agent.rpartition("call/")[2]].append(by_fault[id(fault)])
    floods = {flood.name: flood for flood in FLOODS}
    for call, name in json.loads((folder / "flooded").read_text()):
        met[call].append(floods[name])
    return count, met
