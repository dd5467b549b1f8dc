"""The report: medians, spreads and ratios, as `results.json` for programs and `results.md` for readers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from statistics import median

from .measure import describe_machine
from .plan import OURS, Case
from .rounds import Results, Row

_BUSY = 0.25  # of a processor, used by other processes
_NOTES = """\
Every contender ran once per round in a process of its own, in an order that changes with each round: a disturbance hits all of
them. Each one warmed up first. Figures are medians of all rounds; the brackets have the least and the most.

- **ratio**: meta_media's rate divided by this contender's. Above 1, meta_media is faster. Brackets: ratios within each round.
- **CPU**: processor time of the contender's own process, all threads, system time included.
- **CPU ratio**: this contender's processor time divided by meta_media's. Above 1, meta_media uses less.
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
    cases = list(dict.fromkeys(row.case for row in measured))
    parts += [_section(case, [row for row in measured if row.case == case]) for case in cases]
    text = "\n".join(parts)
    (folder / "results.md").write_text(text)
    return text


def _quiet(disturbed: float) -> str:
    used = f"Other processes used more than {_BUSY} of a processor during {disturbed:.0%} of the measurements"
    return f"{used}: **the machine was not quiet**. Compare ratios, not figures." if disturbed > 0.05 else f"{used}."


def _section(case: Case, rows: list[Row]) -> str:
    rate, item = ("requests/s", "request, µs") if case.counts_requests else ("MB/s", "transfer, ms")
    names = ["contender", rate, "ratio", f"CPU per {item}", "CPU ratio", "memory", "late p99", "worst", "server"]
    head = f"| {' | '.join(names)} |\n|{'---|' + '---:|' * (len(names) - 1)}\n"
    ours = next((row for row in rows if row.entry.name == OURS), None)
    table = head + "".join(f"| {' | '.join(_cells(row, ours))} |\n" for row in rows)
    return f"## {case.title}\n\n`{case.name}`\n\n{table}"


def _rates(row: Row) -> list[float]:
    return [row.case.rate(sample["transfers"], sample["seconds"]) for sample in row.samples]


def _cpu(row: Row) -> float:
    """Processor seconds of one transfer."""
    return median(float(sample["cpu_seconds"]) / int(sample["transfers"]) for sample in row.samples)


def _spread(values: list[float], form: str, *, middle: float | None = None) -> str:
    shown = format(median(values) if middle is None else middle, form)
    return shown if len(values) < 2 else f"{shown} ({min(values):{form}} to {max(values):{form}})"


def _cells(row: Row, ours: Row | None) -> list[str]:
    def middle(name: str) -> float:
        return median(float(sample[name]) for sample in row.samples)

    rates, cpu = _rates(row), _cpu(row)
    ratio = cpu_ratio = ""
    if ours is not None:
        within = [mine / other for mine, other in zip(_rates(ours), rates, strict=False)]  # a round may have failed
        ratio = _spread(within, ".2f", middle=median(_rates(ours)) / median(rates))
        cpu_ratio = f"{cpu / _cpu(ours):.2f}" if _cpu(ours) else ""
    inside = [f"{middle('memory') / 2**20:.1f} MiB", f"{middle('lateness_p99'):.1f}", f"{middle('lateness_worst'):.1f}"]
    return [
        row.entry.shown,
        _spread(rates, ",.0f"),
        ratio,
        f"{cpu * (1e6 if row.case.counts_requests else 1e3):,.0f}",
        cpu_ratio,
        *(["", "", ""] if row.entry.name == "curl" else inside),
        f"{middle('server_busy'):.0%}",
    ]
