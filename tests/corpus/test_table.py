"""The table of the corpus is complete, so that its script can make every file."""

from __future__ import annotations

import re

from tests.corpus.table import modules, table


def test_every_row_can_be_made() -> None:
    """Each row's program is declared with what is installed, and each input that a command reads is made by a command."""
    found = list(modules())
    programs = {program.name: program for module in found for program in module.PROGRAMS}
    inputs = {one.name: one for module in found for one in module.INPUTS}
    made = [*table().values(), *inputs.values()]
    assert {row.program for row in made} | {name for one in programs.values() for name in one.needs} <= set(programs)
    assert {name for row in made for name in re.findall(r"\$IN/([\w.-]+)", row.command)} <= set(inputs)
    assert all("==" in pin for program in programs.values() for pin in program.pip)
    assert all(re.search(r".@\d", pin) for program in programs.values() for pin in program.npm)


def test_the_corpus_is_large() -> None:
    """There are at least 300 files of at least 30 programs, and both verdicts are well represented."""
    rows = table().values()
    assert len(rows) >= 300
    assert len({row.program for row in rows}) >= 30
    refused = sum(type(row.verdict).__name__ == "Refused" for row in rows)
    assert 0.2 < refused / len(rows) < 0.8
