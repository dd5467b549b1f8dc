"""The guides say what WhatsApp accepts, refuses and remarks on, as the rules do today."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from meta_media.protocol.formats import Flaw
from tests.support.rules import GUIDES, tables, with_tables

PROTOCOL = Path(__file__).parents[1] / "meta_media" / "protocol"
AT_IMPORT = {"_frames_of"}  # functions that are called while their module is imported, before this test can see it


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.parent.name)
def test_the_guides_have_the_rules_of_today(guide: Path) -> None:
    """The tables of a guide are those that `python -m tests.support.rules` writes."""
    text = guide.read_text("utf-8")
    assert text == with_tables(text), "the tables are stale: run `python -m tests.support.rules`"


def test_each_refusal_has_an_example() -> None:
    """The tables have every place that finds a flaw: a new one needs an example."""
    places = {
        function.name
        for module in PROTOCOL.glob("*.py")
        for function in ast.walk(ast.parse(module.read_text("utf-8")))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == Flaw.__name__
    }
    seen = set()

    def record(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code is Flaw.__init__.__code__ and frame.f_back is not None:
            seen.add(frame.f_back.f_code.co_name)

    sys.setprofile(record)
    try:
        tables()
    finally:
        sys.setprofile(None)
    assert places - AT_IMPORT == seen
