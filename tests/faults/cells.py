"""The matrix as it is read from its file: rows of cells, each one operation that meets some faults and must end so."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from meta_media import errors
from tests.faults.server import Fault

_FILE: Final = Path(__file__).with_name("matrix.toml")
_CHANGING: Final = ("upload", "delete", "send")


@attrs.frozen(kw_only=True)
class Cell:
    """One operation over one scheme, what it meets, and what must come of it."""

    row: str
    operation: str  # a name in `scenes.OPERATIONS`
    scheme: str
    names: tuple[str, ...] = ()  # of the faults, in the order in which they strike
    faults: tuple[Fault, ...] = ()
    before: tuple[Fault, ...] | None = (
        None  # met by a first call, whose connection this one may use; None: no such call
    )
    setup: str = "nothing else"  # a name in `setups.SETUPS`, for what no server can do
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    size: int = 200_000  # bytes of the source
    promises: frozenset[str] = frozenset({"sha256", "file_size"})  # what Meta states of the media before a download
    certificate: str = "good"
    client: str = "ours"  # or `httpx` for one that was handed in
    expect: str = "ok"  # or the class of the error
    requests: int  # that the server saw, after the first call
    attempts: int  # according to the error
    connections: int | None = None  # that the server accepted, after the first call; None where it does not matter
    retryable: bool | None = None
    maybe_applied: bool | None = None
    maybe_duplicate: bool = False
    facts: Mapping[str, Any] = attrs.field(factory=dict)  # other attributes of the error
    resumed: bool | int | None = (
        None  # the last request asked for the rest, or from this byte; None: it does not matter
    )
    dropped: bool = False  # the connection must not be used again
    note: str = ""  # what distinguishes it from another cell with the same faults
    cancels: bool = True  # False where the call runs in another process or loop
    # of runs over many items:
    items: int = 0
    struck: int | Literal["each", "first", "always"] = 1  # the item that meets the faults; `always`: again and again
    at: Literal["info", "media"] = "media"  # the request of a download that meets them
    item: str = "ok"  # the end of those that meet them; `requests` and `attempts` are theirs, too
    outcomes: Mapping[str, Any] = attrs.field(factory=dict)  # how many items end how, or from how many to how many
    ended: str = ""  # the class of the error that ended the run
    options: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def verb(self) -> str:
        """What is done with one item, or in one call."""
        return self.operation.replace("_many", "").partition(" ")[0]

    def __str__(self) -> str:
        met = ", ".join(f"{name} x{len(list(run))}" for name, run in itertools.groupby(self.names))
        most = f"{self.struck} of {self.items}" if self.items else ""
        more = [most, self.at if self.at == "info" else "", self.setup, self.certificate, self.client]
        told = [self.row, self.operation, self.scheme, met, *more, self.note]
        return "/".join(word for word in told if word not in {"", "nothing else", "good", "ours"})


def _cells(row: str, known: Mapping[str, Fault], table: Mapping[str, Any]) -> Iterator[Cell]:
    """Expand a table: each of its operations, over each of its schemes, meets each of its lists of faults."""
    facts = dict(table)
    operations, schemes = facts.pop("operations"), facts.pop("schemes", ("http", "https"))
    alternatives = [[one] if isinstance(one, str) else one for one in facts.pop("faults", [[]])]
    times = facts.pop("times", 1)
    before = facts.pop("before", None)
    if any("_many" in operation for operation in operations):
        facts = {"items": 6, "requests": 1} | facts
    facts.setdefault("attempts", facts["requests"])
    facts["before"] = None if before is None else tuple(known[name] for name in before)
    facts["promises"] = frozenset(facts.get("promises", ("sha256", "file_size")))
    said = {facts.get("expect", "ok"), facts.get("item", "ok"), *facts.get("outcomes", ())}
    assert said.isdisjoint(errors.__all__) or {"retryable", "maybe_applied"} <= facts.keys(), (row, table)
    for operation, scheme, names in itertools.product(operations, schemes, alternatives):
        struck = tuple(names) * times
        own = dict(facts)
        if not operation.startswith(_CHANGING) and own.get("maybe_applied"):
            own["maybe_applied"] = False
        if not operation.startswith("upload"):
            own["maybe_duplicate"] = False
        faults = tuple(known[name] for name in struck)
        yield Cell(row=row, operation=operation, scheme=scheme, names=struck, faults=faults, **own)


def _read() -> Iterator[Cell]:
    matrix = tomllib.loads(_FILE.read_text())
    known = {name: Fault(**table) for name, table in matrix["fault"].items()}
    for row in matrix["row"]:
        for table in row["cell"]:
            yield from _cells(row["name"], known, table)


CELLS: Final = tuple(_read())
