"""When something goes wrong: the queue of the faults that have not happened yet."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Final, Literal, get_args

import attrs

from meta_media.emulator.download import PATH
from meta_media.emulator.faults import Fault
from meta_media.emulator.validators import integer, maybe, number, one_of
from meta_media.errors import Operation

__all__ = ["FaultOperation", "Faults", "PlannedFault", "operation_of"]

FaultOperation = Operation | Literal["graph", "any"]
_GRAPH: Final = frozenset({"upload", "get_info", "delete", "send"})
_OPERATIONS: Final = (*get_args(Operation), "graph", "any")


def operation_of(method: str, path: str) -> Operation | None:
    """Tell which operation a request is; None for one that is none."""
    if path == PATH:
        return "download"
    match method, path.split("/")[1:]:
        case "POST", [_, _, "media"]:
            return "upload"
        case "POST", [_, _, "messages"]:
            return "send"
        case "GET" | "HEAD", [_, _]:
            return "get_info"
        case "DELETE", [_, _]:
            return "delete"
    return None


@attrs.frozen(kw_only=True)
class PlannedFault:
    """
    A fault, and when it happens.

    Attributes:
        operation: To which requests: those of one verb; `"graph"` for all but downloads; `"any"`.
        fault: What happens.
        times: How often, or how often it still will; None for always.
        probability: How likely it happens to a request: above 0, at most 1.
        seed: Chooses the requests that a probability below 1 happens to; the same ones in each run.
    """

    operation: FaultOperation = attrs.field(validator=one_of(*_OPERATIONS))
    fault: Fault = attrs.field(validator=attrs.validators.instance_of(Fault))
    times: int | None = attrs.field(default=1, validator=maybe(integer(1)))
    probability: float = attrs.field(default=1.0, validator=number(maximum=1))
    seed: int = attrs.field(default=0, validator=integer(0))

    def is_for(self, operation: Operation | None) -> bool:
        """Tell whether it may happen to a request."""
        return self.operation in {operation, "any"} or (self.operation == "graph" and operation in _GRAPH)


class _Entry:
    def __init__(self, planned: PlannedFault) -> None:
        self.planned = planned
        self.left = planned.times
        self._rolls = 0

    def happens(self) -> bool:
        """Roll the dice: the same ones in each run, whatever else is random in this process."""
        self._rolls += 1
        roll = hashlib.sha256(f"{self.planned.seed}/{self._rolls}".encode()).digest()[:8]
        return int.from_bytes(roll, "big") < self.planned.probability * 2**64


class Faults:
    """
    The faults that have not happened yet, in the order in which they were planned.

    Requests take them in the emulator's thread; `add`, `left` and `clear` may be called in any other, without a lock:
    each changes or reads the list in one step.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def add(self, planned: PlannedFault) -> None:
        """Plan one."""
        self._entries.append(_Entry(planned))

    def take(self, operation: Operation | None) -> Fault | None:
        """Use up the first that happens to a request."""
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
        """Forget one."""
        self._entries[:] = [entry for entry in self._entries if entry.planned is not planned]

    def left(self) -> list[PlannedFault]:
        """List what is still to happen."""
        return [attrs.evolve(entry.planned, times=entry.left) for entry in self._entries.copy()]

    def clear(self) -> None:
        """Forget them all."""
        self._entries.clear()
