"""
What 60 libraries put into people's hands is uploaded whole, or refused by one typed sentence; and so for destinations.

`rows/` has one row for each thing, with what must become of it. They run in an environment of their own, which has the libraries.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest

from tests.libraries.table import SUBJECTS, Row, content

pytestmark = [pytest.mark.libraries, pytest.mark.timeout(1800)]


def _marks(row: Row) -> list[pytest.MarkDecorator]:
    return [pytest.mark.xfail(reason=row.fails)] if row.fails else []


_ROWS = [
    pytest.param(subject, row, size, id=f"{subject}-{row.name}-{size}", marks=_marks(row))
    for subject in SUBJECTS
    for row in importlib.import_module(f"tests.libraries.rows.{subject}").TABLE
    for size in row.sizes
]


@pytest.mark.parametrize(("subject", "row", "size"), _ROWS)
def test_row(subject: str, row: Row, size: str, results: Any) -> None:
    """Every byte arrives with its name and type, or one typed sentence says what to do."""
    seen = results(subject)[row.name, size]
    if seen["result"] == "missing":
        (pytest.fail if os.environ.get("CI") else pytest.skip)(seen["sentence"])
    assert seen["result"] != "broken", seen["sentence"]
    if problem := row.wanted.problem(seen, content(size, row.kind)):
        pytest.fail(problem)
