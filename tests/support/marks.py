"""Marks of sweeps: a few cases run always, the rest is slow."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import pytest

__all__ = ["slow_except"]


def slow_except(quick: Container[Any], cases: Iterable[Any]) -> list[Any]:
    """Return parameters of which all but the quick ones are marked slow."""
    marked = []
    for case in cases:
        values = case if isinstance(case, tuple) else (case,)
        marked.append(pytest.param(*values, marks=() if case in quick else pytest.mark.slow))
    return marked
