"""The pictures of README.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.system import executable

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_pictures(tmp_path: Path) -> None:
    """The pictures of README are made by one command. They fetch nothing, and the plot has the figures of the table."""
    executable("chromium")
    command = [sys.executable, "-m", "tests.pictures", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=100)
    names = ("benchmarks.svg", "demo.svg", "page-dark.png", "page.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == list(names)
    plot, demo = ((tmp_path / name).read_text(encoding="utf-8") for name in names[:2])
    assert "20&#160;of&#160;20&#160;files&#160;came&#160;back" in demo
    assert plot.count("<rect") == 4 * 4 + 1
    for drawn in (plot, demo):
        assert set(re.findall('https?://[^ "<]+', drawn)) <= {"http://www.w3.org/2000/svg", "https://www.textualize.io"}
