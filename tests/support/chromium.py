"""
A real browser for tests: Debian's Chromium without a window, driven by playwright.

A start of playwright and the browser takes some seconds, so the tests of a module share them, and have their event loop. Such a
module has `pytest_plugins = ["tests.support.chromium"]`, imports this module before pytest loads it as a plugin
(PYTEST_DONT_REWRITE), has `pytestmark = MARKS`, and makes its other async fixtures with `loop_scope="module"`. `SCREENSHOTS`
names the folder in which pictures stay; without it they go to a temporary one.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio

from tests.support.system import executable

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

MARKS: Final = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
_FLAGS: Final = (
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-proxy-server"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",  # no page reaches another machine
)


@asynccontextmanager
async def open_chromium() -> AsyncIterator[Browser]:
    """Run Chromium with an empty profile until the block ends."""
    from playwright.async_api import async_playwright

    program = executable("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=_FLAGS, chromium_sandbox=False)
        try:
            yield browser
        finally:
            await browser.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _browser() -> AsyncIterator[Browser]:
    async with open_chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def chromium(_browser: Browser) -> AsyncIterator[Browser]:
    """A browser without pages. `await chromium.new_page(viewport=…, color_scheme="dark")` opens one with a profile of its own."""
    yield _browser
    for context in _browser.contexts:
        await context.close()


@pytest.fixture
def screenshots(tmp_path: Path) -> Path:
    """The folder for pictures: `await page.screenshot(path=screenshots / "page.png")`."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def complaints(page: Page) -> list[str]:
    """Return a list that grows by what a page logs as an error or a warning, throws, or fails to load."""
    found: list[str] = []

    def logged(message: Any) -> None:
        if message.type in {"error", "warning"}:
            found.append(message.text)

    page.on("console", logged)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("requestfailed", lambda request: found.append(f"{request.url}: {request.failure}"))
    return found
