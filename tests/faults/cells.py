"""The matrix as it is read from its file: rows of cells, each one operation that meets some faults and must end so."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from tests.faults.server import Fault

__all__ = ["CELLS", "Cell"]

_FILE: Final = Path(__file__).with_name("matrix.toml")
_CHANGING: Final = ("upload", "delete", "send")
_BOTH: Final = ("http", "https")


@attrs.frozen(kw_only=True)
class Cell:
    """
    One operation over one scheme, what it meets, and what must come of it.

    Attributes:
        row: The row's name.
        operation: One of the names in `scenes.OPERATIONS`.
        scheme: `http` or `https`.
        names: The faults' names, in the order in which they strike.
        faults: The faults themselves.
        before: Faults that a first call meets, on whose connection the call follows; None for no such call.
        setup: The name of a function in `setups`, for what no server can do.
        settings: Changes to the settings.
        size: Bytes of the source.
        promises: What Meta tells of the media before a download.
        certificate: What the server shows.
        client: `ours`, or `httpx` for one that was handed in.
        expect: `ok`, or the class of the error.
        requests: How many the server saw, after the first call.
        attempts: How many requests the error says were sent.
        connections: How many the server accepted, after the first call; None where it does not matter.
        retryable: As the error must say.
        maybe_applied: Likewise.
        maybe_duplicate: As the result of an upload must say.
        facts: Other attributes that the error must have.
        resumed: Whether the last request asked for the rest only, or from which byte; None where it does not matter.
        dropped: Whether the connection must not be used again.
        note: What tells it from another cell with the same faults.
        cancels: Whether the call can be cancelled from here: not when it runs in another process or loop.

    The rest is about a run over many items:

    Attributes:
        items: How many.
        struck: Which item meets the faults; or `each` of them; or `first`, whoever comes; or `always`, again and again.
        at: What of a download meets them: the question for its URL, `info`, or the `media` itself.
        item: What becomes of those that meet them; of the others, all is well. `requests` and `attempts` are about them, too:
            downloads have one more, for the URL.
        outcomes: How many items end how, or from how many to how many, where that is not all.
        ended: The class of the error that ended the run, if one did.
        options: Keywords of the run.
    """

    row: str
    operation: str
    scheme: str
    names: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    before: tuple[Fault, ...] | None = None
    setup: str = "nothing else"
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    size: int = 200_000
    promises: frozenset[str] = frozenset({"sha256", "file_size"})
    certificate: str = "good"
    client: str = "ours"
    expect: str = "ok"
    requests: int
    attempts: int
    connections: int | None = None
    retryable: bool | None = None
    maybe_applied: bool | None = None
    maybe_duplicate: bool = False
    facts: Mapping[str, Any] = attrs.field(factory=dict)
    resumed: bool | int | None = None
    dropped: bool = False
    note: str = ""
    cancels: bool = True
    items: int = 0
    struck: int | Literal["each", "first", "always"] = 1
    at: Literal["info", "media"] = "media"
    item: str = "ok"
    outcomes: Mapping[str, Any] = attrs.field(factory=dict)
    ended: str = ""
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
    operations = facts.pop("operations")
    schemes = facts.pop("schemes", _BOTH)
    alternatives = [[one] if isinstance(one, str) else one for one in facts.pop("faults", [[]])]
    times = facts.pop("times", 1)
    before = facts.pop("before", None)
    if any("_many" in operation for operation in operations):
        facts = {"items": 6, "requests": 1} | facts
    facts.setdefault("attempts", facts["requests"])
    facts["before"] = None if before is None else tuple(known[name] for name in before)
    facts["promises"] = frozenset(facts.get("promises", ("sha256", "file_size")))
    errors = _typed().intersection({facts.get("expect", "ok"), facts.get("item", "ok"), *facts.get("outcomes", ())})
    assert not errors or {"retryable", "maybe_applied"} <= facts.keys(), (row, table)
    for operation, scheme, names in itertools.product(operations, schemes, alternatives):
        struck = tuple(names) * times
        cell = Cell(
            row=row,
            operation=operation,
            scheme=scheme,
            names=struck,
            faults=tuple(known[name] for name in struck),
            **facts,
        )
        yield _fitted(cell)


def _typed() -> set[str]:
    """List the classes of errors that say whether to try again."""
    from meta_media import errors

    return set(errors.__all__)


def _fitted(cell: Cell) -> Cell:
    """Questions change nothing, and only uploads can be there twice."""
    if not cell.operation.startswith(_CHANGING):
        cell = attrs.evolve(cell, maybe_applied=cell.maybe_applied and False)
    return cell if cell.operation.startswith("upload") else attrs.evolve(cell, maybe_duplicate=False)


def _read() -> Iterator[Cell]:
    matrix = tomllib.loads(_FILE.read_text())
    known = {name: Fault(**table) for name, table in matrix["fault"].items()}
    for row in matrix["row"]:
        for table in row["cell"]:
            yield from _cells(row["name"], known, table)


CELLS: Final = tuple(_read())
