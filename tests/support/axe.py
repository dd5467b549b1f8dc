"""
Axe: rules of accessibility (WCAG 2.2) that a program can check, run in a page of `tests.support.chromium`.

A module that uses the fixture has `pytest_plugins = ["tests.support.axe"]`, and imports this module before pytest loads it as
a plugin (PYTEST_DONT_REWRITE). The script comes from npm, once a session.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.support.system import executable, unavailable

if TYPE_CHECKING:
    from playwright.async_api import Page

_PACKAGE: Final = "axe-core@4.11.0"
_RUN: Final = "() => axe.run(document, {resultTypes: ['violations']})"
_TIMEOUT: Final = 60  # seconds


@pytest.fixture(scope="session")
def axe_script(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe."""
    folder = tmp_path_factory.mktemp("axe")
    command = [
        executable("npm"),
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--prefix",
        str(folder),
        _PACKAGE,
    ]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        unavailable(f"npm could not fetch {_PACKAGE}: {error}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


async def faults_of(page: Page, axe_script: str) -> list[str]:
    """Return the faults of a page as it is: the rule, how grave it is, and the first element."""
    await page.evaluate(axe_script)
    found: dict[str, Any] = await page.evaluate(_RUN)
    return [f"{fault['impact']} {fault['id']}: {fault['nodes'][0]['html']}" for fault in found["violations"]]
