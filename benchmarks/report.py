"""The report: medians, spreads and ratios, as `results.json` for programs and `results.md` for readers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

from .measure import describe_machine
from .plan import OURS
from .rounds import Results, Row

_BUSY = 0.25  # of a processor, used by other processes
_COST = "cost of "  # and the name of a row: what it adds to the row that it goes beyond
_PEERS = {"before": "ours", "aiohttp": "with_aiohttp", "httpx": "with_httpx", "pywa": "with_pywa"}
_NOTES = """\
Every contender ran once per round in a process of its own, in an order that changes with each round: a disturbance hits all of
them. Each one warmed up first. Figures are medians of all rounds; the brackets have the least and the most. Ratios are
meta_media's figure divided by the contender's; their brackets have the ratios within each round.

- **CPU**: processor time of the contender's own process, all threads, system time included.
- **CPU ratio**: below 1, meta_media uses less processor time.
- **rate ratio**: above 1, meta_media is faster by the clock.
- **before**: another build of meta_media. Its ratios are of the same work; those of longer runs are to the shortest run.
- **cost of**: the processor time that a journal or library adds to an item.
- **memory**: peak of resident memory over the idle process, which has loaded the library and done a small transfer.
- **late p99**, **worst**: how late a task that sleeps 5 ms woke, in ms. Every other task on the event loop is as late.
- **server**: share of one processor that the server used. Near 100%, the server was measured and not the contender.
- ✓ computes and compares SHA-256. ⊘ reads or writes files on the event loop.
- Clients keep their default connection limits (aiohttp and httpx: 100); only timeouts are set. Where the size of a write can be
  chosen, it is 256 KiB. Every response is read, and the length of every download is checked.
- curl starts anew for each transfer. Its rate is by its own clock; its processor time includes the start.
"""


def write(results: Results, folder: Path, *, quick: bool) -> str:
    """Write both files into the folder; return the Markdown."""
    measured = [row for row in results.rows if row.samples]
    failed = [(row.case.name, row.entry.shown, error) for row in results.rows for error in row.errors]
    machine = describe_machine()
    busy = [sample["others_busy"] > _BUSY for row in measured for sample in row.samples]
    disturbed = sum(busy) / max(len(busy), 1)
    rows = [{"case": row.case.name, "contender": asdict(row.entry), "samples": row.samples} for row in measured]
    data = {"machine": machine, "rounds": results.rounds, "quick": quick, "disturbed": disturbed, "rows": rows}
    data |= {"missing": results.missing, "failed": failed}
    (folder / "results.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    date, *lines = machine
    parts = ["# Benchmarks\n"]
    if quick:
        parts.append("**A quick run: it shows that everything runs. Its figures mean little.**\n")
    parts.append(f"{date}. {results.rounds} round{'s' * (results.rounds > 1)}, loopback. {_quiet(disturbed)}\n")
    parts.append("".join(f"- {line}\n" for line in lines) + f"\n{_NOTES}")
    if results.missing:
        parts.append(f"Skipped, because it is not installed: {', '.join(results.missing)}.\n")
    if failed:
        parts.append("Failed:\n\n" + "".join(f"- {case}, {name}: `{error}`\n" for case, name, error in failed))
    costs = [_cost(row, measured) for row in measured if row.entry.beyond]
    measured += [row for row in costs if row.samples]
    tables = [[row for row in measured if row.case == case] for case in dict.fromkeys(row.case for row in measured)]
    parts += [_summary(tables), *map(_section, tables)]
    text = "\n".join(parts)
    (folder / "results.md").write_text(text)
    return text


def _quiet(disturbed: float) -> str:
    used = f"Other processes used more than {_BUSY} of a processor during {disturbed:.0%} of the measurements"
    return f"{used}: **the machine was not quiet**. Compare ratios, not figures." if disturbed > 0.05 else f"{used}."


def _cost(row: Row, rows: list[Row]) -> Row:
    """Return a row of the processor time that remains when that of the row beneath is subtracted, round by round."""
    entry = row.entry
    beneath = _named(entry.beyond, [it for it in rows if it.case == row.case])
    pairs = zip(_cpu(row), _cpu(beneath) if beneath else [], strict=False)  # a round may have failed
    standard = _COST + entry.standard if entry.build else ""
    samples = [{"cpu_seconds": mine - other, "transfers": 1} for mine, other in pairs]
    return Row(row.case, replace(entry, name=_COST + entry.name, standard=standard), samples)


def _table(names: list[str], lines: Iterable[list[str]]) -> str:
    head = f"| {' | '.join(names)} |\n|{'---|' + '---:|' * (len(names) - 1)}\n"
    return head + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _summary(tables: list[list[Row]]) -> str:
    """Show both ratios of each case to the first entry of each library that does the same."""
    lines = []
    for rows in tables:
        for row in rows:
            ours, title = row.entry, row.case.title if row.entry.name == OURS else row.entry.name
            if ours.build or not (ours.name == OURS or ours.name.startswith(_COST)):
                continue
            line = [title, " · ".join(filter(None, (_shown_cpu(row), _shown_rate(row))))]
            for name, module in _PEERS.items():
                peers = [it for it in rows if it.entry.module == module and it.entry.standard == ours.name]
                peers = [it for it in peers if bool(it.entry.build) == (name == "before")]
                peers.sort(key=lambda it: it.entry.verify != ours.verify)
                line.append(" · ".join(f"{median(it):.2f}" for it in _ratios(row, peers[0]) if it) if peers else "")
            lines.append(line)
    title = (
        "## Processor time of a request or transfer · rate\n\nThe other columns have the CPU ratio · the rate ratio.\n"
    )
    return f"{title}\n{_table(['work', OURS, *(f'to {name}' for name in _PEERS)], lines)}"


def _section(rows: list[Row]) -> str:
    case = rows[0].case
    names = ["contender", "CPU", "CPU ratio", "rate", "rate ratio", "memory", "late p99", "worst", "server"]
    return f"## {case.title}\n\n`{case.name}`\n\n{_table(names, (_cells(row, rows) for row in rows))}"


def _named(name: str, rows: list[Row]) -> Row | None:
    return next((row for row in rows if row.entry.name == name), None)


def _rates(row: Row) -> list[float]:
    return [row.case.rate(sample["transfers"], sample["seconds"]) for sample in row.samples if "seconds" in sample]


def _cpu(row: Row) -> list[float]:
    """Processor seconds of one transfer, in each round."""
    return [float(sample["cpu_seconds"]) / int(sample["transfers"]) for sample in row.samples]


def _ratios(ours: Row, row: Row) -> tuple[list[float], list[float]]:
    """Divide the processor times and the rates, round by round."""
    cpu, rates = (
        [mine / other for mine, other in zip(of(ours), of(row), strict=False) if other] for of in (_cpu, _rates)
    )
    return cpu, rates


def _shown_cpu(row: Row) -> str:
    factor, unit = (1e6, "µs") if row.case.counts_requests else (1e3, "ms")
    return f"{median(_cpu(row)) * factor:,.0f} {unit}"


def _shown_rate(row: Row) -> str:
    rates = _rates(row)
    return f"{median(rates):,.0f}{'/s' if row.case.counts_requests else ' MB/s'}" if rates else ""


def _spread(shown: str, values: list[float], form: str, factor: float = 1) -> str:
    """Append the least and the most."""
    return f"{shown} ({min(values) * factor:{form}} to {max(values) * factor:{form}})" if len(values) > 1 else shown


def _cells(row: Row, rows: list[Row]) -> list[str]:
    def middle(name: str) -> float:
        return median(float(sample[name]) for sample in row.samples)

    ours = _named(row.entry.standard, rows)
    ratios = _ratios(ours, row) if ours is not None else ([], [])
    cpu_ratio, ratio = (_spread(f"{median(it):.2f}", it, ".2f") if it else "" for it in ratios)
    factor = 1e6 if row.case.counts_requests else 1e3
    cells = [row.entry.shown, _spread(_shown_cpu(row), _cpu(row), ",.0f", factor), cpu_ratio]
    cells += [_spread(_shown_rate(row), _rates(row), ",.0f"), ratio]
    if "seconds" not in row.samples[0]:
        return [*cells, "", "", "", ""]
    inside = [f"{middle('memory') / 2**20:.1f} MiB", f"{middle('lateness_p99'):.1f}", f"{middle('lateness_worst'):.1f}"]
    return [*cells, *(["", "", ""] if row.entry.name == "curl" else inside), f"{middle('server_busy'):.0%}"]
