"""
The pictures in README.md: the demo on a terminal, the emulator's page, and a plot of the benchmarks' table.

`python -m tests.pictures` makes them anew in `.github/pictures`; another folder may be given. It needs the extra `dev`, and
Chromium. The demo's figures are those of the machine, the plot's are those of `benchmarks/README.md`.
"""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

from meta_media.emulator import Emulator
from tests.emulator.test_page_browser import fill
from tests.support.chromium import open_chromium

_ROOT: Final = Path(__file__).parents[1]
_FOLDER: Final = _ROOT / ".github" / "pictures"
_COLUMNS: Final = 96
_SIZE: Final[Any] = {"width": 1120, "height": 700}
_ACCOUNT: Final = {"106540352242922": "EAAG" + "0" * 80}
_PLOTTED: Final = (
    "64 KiB uploads, 16, http",
    "64 KiB uploads, 100, http",
    "64 KiB uploads, 16, https",
    "get_info, 16, http",
)
_STYLE: Final = """\
text { font: 14px system-ui, sans-serif; fill: #1b2226 } .soft { fill: #56626a } .bar { fill: #b4bfc6 } .own { fill: #0f766e }
.back { fill: #fff } @media (prefers-color-scheme: dark) { text { fill: #e6ebee } .soft { fill: #a3b0b8 } .bar { fill: #56626a }
.own { fill: #4fd1c1 } .back { fill: #12171a } }"""


def make_demo(folder: Path) -> None:
    """Run the demo on a terminal, and draw what it printed."""
    from rich._export_format import CONSOLE_SVG_FORMAT  # without its fonts, which are fetched from another machine
    from rich.console import Console
    from rich.text import Text

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "meta_media", "demo"]
    environment = {**os.environ, "COLUMNS": str(_COLUMNS), "TERM": "xterm-256color"}
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment, cwd=_ROOT):
        os.close(theirs)
        printed = b"".join(iter(lambda: _read(ours), b""))
    os.close(ours)
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=_COLUMNS, file=nowhere)
        console.print(Text("$ meta-media demo", style="bold"))
        console.print(Text.from_ansi(printed.decode().replace("\r\n", "\n")))
        style = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
        console.save_svg(str(folder / "demo.svg"), title="meta_media", code_format=style)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux: the program has ended
        return b""


async def make_page(folder: Path) -> None:
    """Photograph the emulator's page with a few media, light and dark."""
    async with Emulator(accounts=_ACCOUNT) as emulator, emulator.api() as media, open_chromium() as chromium:
        await fill(emulator, media, "drawing.png", "image/png")
        for scheme, name in (("light", "page.png"), ("dark", "page-dark.png")):
            chosen: Any = scheme
            page = await chromium.new_page(viewport=_SIZE, color_scheme=chosen)
            await page.goto(emulator.local_url + "/")
            await page.wait_for_selector(".verdict:not(:empty)")
            await page.wait_for_load_state("load")
            await page.screenshot(path=folder / name)


def figures() -> list[tuple[str, list[tuple[str, float]]]]:
    """Return the calls per second of each contender in each plotted row of the benchmarks' table."""
    lines = (_ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").splitlines()
    table = {
        cells[0]: cells[1:] for line in lines if len(cells := [cell.strip() for cell in line.split("|")[1:-1]]) == 6
    }
    names = [name.removeprefix("to ") for name in table["work"]]
    rows = []
    for work in _PLOTTED:
        own, *ratios = (
            float(re.split("[· /]+", cell)[-2 if index == 0 else -1].replace(",", ""))
            for index, cell in enumerate(table[work])
        )
        found = [(names[0], own), *((name, own / ratio) for name, ratio in zip(names[1:], ratios, strict=True))]
        rows.append((work, [(name, rate) for name, rate in found if name != "before"]))
    return rows


def make_plot(folder: Path) -> None:
    """Draw the calls per second as bars."""
    rows, parts, y = figures(), [], 58
    most = max(rate for _, rates in rows for _, rate in rates)
    for work, rates in rows:
        parts.append(f'<text x="16" y="{y}" font-weight="600">{escape(work)}</text>')
        for name, rate in rates:
            y += 22
            length = round(500 * rate / most)
            kind = "own" if name == "meta_media" else "bar"
            parts.append(f'<text x="112" y="{y}" text-anchor="end">{escape(name)}</text>')
            parts.append(f'<rect class="{kind}" x="122" y="{y - 12}" width="{length}" height="15" rx="3"/>')
            parts.append(f'<text class="soft" x="{130 + length}" y="{y}">{rate:,.0f}</text>')
        y += 36
    title = '<text x="16" y="26" class="soft">Calls per second over loopback, at 16 or 100 calls at a time: longer is better</text>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {y - 12}" role="img"><style>{_STYLE}</style>'
    drawn = "\n".join([head, f'<rect class="back" width="720" height="{y - 12}" rx="8"/>', title, *parts, "</svg>", ""])
    (folder / "benchmarks.svg").write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if sys.argv[1:] else _FOLDER
    chosen.mkdir(parents=True, exist_ok=True)
    make_demo(chosen)
    make_plot(chosen)
    asyncio.run(make_page(chosen))
