"""The report: `results.json` for machines, `results.md` for people, one plot per group of cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import plots
from .machine import describe
from .plan import CONCURRENT, Case
from .rounds import Results
from .summary import Line, by_case, verdicts

_NOTES = """\
Every contender ran once per round in a process of its own, one after the other in an order that changes, so that a disturbance
hits all alike; each warmed up first. Rates are medians, with the least and the most of all rounds behind them.

- **ratio**: meta_media's median divided by this contender's. Above 1, meta_media is faster. Behind it, the least and the most of
  the ratios within each round.
- **CPU**: processor seconds of the contender's own process, all threads, system time included; **CPU ratio**: this contender's
  divided by meta_media's. Above 1, meta_media spends less.
- **memory**: peak of resident memory over what the process held, idle, with the library loaded and one small transfer done.
- **late p99**: how late a task that sleeps 5 ms woke, 99th percentile, in ms: what others on the same event loop feel.
- **server**: share of one processor that the server took. Near 100%, the server was measured, not the contender.
- ✓ computes SHA-256 and compares it. ⊘ reads or writes the file on the event loop.
- Clients have the connection limits they come with (aiohttp and httpx: 100); only timeouts are set. Who may choose writes to
  disk in pieces of 256 KiB. The answer to every upload is read; every download's length is checked.
- curl starts anew for each transfer; its rate is by its own clock, its CPU includes the start. It has no event loop here.
"""


def write(results: Results, folder: Path, *, quick: bool) -> str:
    """Write all files into the folder, and return the Markdown."""
    lines = by_case(results)
    machine = describe() | {
        "download_server": results.download_server,
        "upload_server": "the benchmarks' own",
        "disturbed": _others(lines),
    }
    data = {
        "machine": machine,
        "rounds": results.rounds,
        "quick": quick,
        "missing": results.missing,
        "goals": [] if quick else [vars(verdict) for verdict in verdicts(lines)],
        "cases": [_case(case, its) for case, its in lines.items()],
        "errors": _errors(results),
    }
    (folder / "results.json").write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    pictures = plots.draw(lines, folder)
    text = _markdown(results, lines, machine, pictures, quick=quick)
    (folder / "results.md").write_text(text)
    return text


def _others(lines: dict[Case, list[Line]]) -> float:
    """Return the share of measurements during which others took more than a quarter of a processor."""
    found = [float(one["others_busy"]) > 0.25 for its in lines.values() for it in its for one in it.row.samples]
    return round(sum(found) / max(len(found), 1), 2)


def _errors(results: Results) -> list[dict[str, str]]:
    return [
        {"case": row.case.name, "contender": row.entry.shown, "error": error}
        for row in results.rows
        for error in row.errors
    ]


def _case(case: Case, lines: list[Line]) -> dict[str, Any]:
    contenders = [
        {"name": it.row.entry.name, "verifies": it.row.entry.verify, "blocks": it.row.entry.blocks}
        | it.as_dict()
        | {"rounds": it.row.samples}
        for it in lines
    ]
    return {"name": case.name, "title": case.title, "unit": case.unit, "contenders": contenders}


def _markdown(
    results: Results, lines: dict[Case, list[Line]], machine: dict[str, Any], pictures: dict[str, str], *, quick: bool
) -> str:
    parts = ["# Benchmarks\n", _machine(results, machine, quick=quick), _NOTES]
    if results.missing:
        parts.append(f"Missing, because not installed: {', '.join(results.missing)}.\n")
    if failed := _errors(results):
        parts.append("Failed:\n")
        parts.append("".join(f"- {it['case']}, {it['contender']}: `{it['error']}`\n" for it in failed))
    if not quick:
        parts.append(_goals(lines))
    group = ""
    for case, its in lines.items():
        if case.group != group:
            group = case.group
            parts.append(f"## {group[0].upper()}{group[1:]}\n\n![{group}]({pictures[group]})\n")
        parts.append(f"### {case.title}\n\n`{case.name}`\n\n{_table(case, its)}")
    return "\n".join(parts)


def _machine(results: Results, machine: dict[str, Any], *, quick: bool) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    disturbed = machine["disturbed"]
    quiet = f"Others took more than a quarter of a processor during {disturbed:.0%} of the measurements" + (
        ": **the machine was not quiet**; compare ratios, not figures." if disturbed > 0.05 else "."
    )
    warning = "**A quick run: it shows that everything runs, and its figures mean little.**\n\n" if quick else ""
    return (
        f"{warning}{machine['date']}. {results.rounds} round{'s' if results.rounds > 1 else ''}, loopback. {quiet}\n\n"
        f"- {machine['processor']}, {machine['processors']} processors, {machine['memory_gb']} GB; {machine['system']}\n"
        f"- {machine['python']}, {machine['openssl']}; {libraries}; {machine['curl'] or 'no curl'}\n"
        f"- downloads from {machine['download_server']}, uploads to {machine['upload_server']}, each in its own process\n"
    )


def _goals(lines: dict[Case, list[Line]]) -> str:
    rows = [
        f"| {verdict.sentence} | {verdict.wanted} | {verdict.found} | {'met' if verdict.met else '**not met**'} |"
        for verdict in verdicts(lines)
    ]
    if not rows:
        return ""
    return "\n".join(("## Goals\n", "| what | wanted | found | |", "|---|---|---|---|", *rows)) + "\n"


def _table(case: Case, lines: list[Line]) -> str:
    many = case.concurrency == CONCURRENT
    per = "1,000 requests" if case.unit == "requests/s" else "GB"
    late = ["late median", "late p99", "late worst"] if many else ["late p99"]
    names = ["contender", case.unit, "ratio", f"CPU s per {per}", "CPU ratio", "memory", *late, "server"]
    head = f"| {' | '.join(names)} |\n|{'---|' + '---:|' * (len(names) - 1)}\n"
    return head + "".join(f"| {' | '.join(_cells(it, many=many))} |\n" for it in lines)


def _cells(it: Line, *, many: bool) -> list[str]:
    value, rounds, curl = it.value, it.rounds_ratio, it.row.entry.name == "curl"
    ratio = "" if it.ratio is None else f"{it.ratio:.2f}"
    if rounds is not None and len(it.row.samples) > 1:
        ratio += f" ({rounds.least:.2f} to {rounds.most:.2f})"
    late = [it.lateness_median, it.lateness_p99, it.lateness_worst] if many else [it.lateness_p99]
    spread = f" ({value.least:,.0f} to {value.most:,.0f})" if len(it.row.samples) > 1 else ""
    return [
        it.row.entry.shown,
        f"{value.median:,.0f}{spread}",
        ratio,
        f"{it.cpu:.2f}",
        "" if it.cpu_ratio is None else f"{it.cpu_ratio:.2f}",
        "" if curl else f"{it.memory / 2**20:.1f} MiB",
        *("" if curl else f"{one:.1f}" for one in late),
        f"{it.server_busy:.0%}",
    ]
