"""What a person at a terminal sees: bars, tables, Ctrl-C."""

from __future__ import annotations

import io
import logging
import re
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal
from rich.cells import cell_len
from rich.console import Console

from meta_media import Progress
from meta_media.cli.log import close_log, open_log
from meta_media.cli.output import Bars
from meta_media.cli.table import _fitted
from meta_media.emulator import Emulator, EmulatorSettings
from meta_media.errors import NetworkError, RateLimitError
from tests.support.shell import SAMPLES, Shell, needs_posix, table_of, visible

pytestmark = needs_posix


def mixed(shell: Shell) -> list[str]:
    """Make a folder of fifty files, of which two are bad, and name a third that is missing."""
    shell.photos(47)
    (shell.folder / "photos" / "empty.jpg").touch()
    (shell.folder / "photos" / "moving.gif").write_bytes(b"GIF89a\x01\x00\x01\x00")
    return ["photos", "missing.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "columns", [80, pytest.param(40, marks=pytest.mark.slow), pytest.param(120, marks=pytest.mark.slow)]
)
def test_fifty_files(shell: Shell, columns: int) -> None:
    """A bar for the run; then ids with their files, a table, and the three failures again, wrapped at words."""
    seen = shell.watch("upload", "--recursive", *mixed(shell), "--rate", "40", "--concurrency", "1", columns=columns)
    said = seen.screen.lines
    assert seen.status == 1
    assert len([line for line in said if re.fullmatch(r"\d{16}  photos/\d{3}\.jpg", line)]) == 47
    table = table_of(seen.text)
    shown = {name: table[name] for name in ("files", "uploaded", "skipped", "failed", "not tried")}
    assert shown == {"files": "50", "uploaded": "47", "skipped": "0", "failed": "3", "not tried": "0"}
    end = said[next(index for index, line in enumerate(said) if line.startswith(" rate")) + 1 :]
    assert len([line for line in end if line.startswith("✗ ")]) == 3
    assert max(map(cell_len, end)) < columns
    assert any(line.startswith("✗ could not open 'missing.png'") for line in end)
    assert re.search(r"all ━\S* +\d{1,2}/50\b", visible(seen.received))
    assert seen.screen.widest <= columns - 3
    seen.assert_clean()


@pytest.mark.parametrize(
    ("arguments", "bar"),
    [
        (["upload", "large.txt", "missing.jpg"], r"↑ large\.txt +[━╸╺]+ +[\d.]+/33\.6 MB"),
        (["download", "77", "78", "--to", "got"], r"↓ 77 +[━╸╺]+ +[\d.]+/8\.0 MB"),
    ],
    ids=["upload", "download"],
)
def test_bars_of_transfers(shell: Shell, slow: str, arguments: list[str], bar: str) -> None:
    """Each transfer in progress has a bar with its name and how far it is. Ctrl-C ends the command, and no bar stays."""
    (shell.folder / "large.txt").write_bytes(b"A line of text.\n" * 2**21)
    seen = shell.watch(*arguments, "--base-url", slow, until=bar)
    assert seen.status == 130
    assert re.search(bar, visible(seen.received)), visible(seen.received)
    assert re.search(r"\ball +[━╸╺]+ +0/2 ", visible(seen.received))
    assert "with --journal FILE, the same command could continue from here\nmeta-media: interrupted" in seen.text
    seen.assert_clean()


def test_a_bar_goes_with_its_transfer() -> None:
    """A bar appears with the first byte and goes with the last one, or when its item is done; a new start takes bytes back."""
    bars = Bars(wanted=True)
    assert bars.bar("no terminal") is None
    bars.disable = False
    bar = bars.bar("[bold]" + "long" * 10, "↓")
    assert bar is not None
    bar.hide()
    overall = bars.tasks[0]
    for transferred, shown, moved in (
        (3, ["↓ [bold]longlonglonglongl…"], 3),
        (1, ["↓ [bold]longlonglonglongl…"], 1),
        (4, [], 4),
    ):
        bar(Progress(transferred=transferred, total=4))
        assert [task.description for task in bars.tasks[1:]] == shown
        assert overall.fields["moved"] == moved
    bars.count(1, 1)
    assert not overall.visible
    bars.count(1, 2)
    assert (overall.visible, overall.completed, overall.total) == (True, 1, 2)


@pytest.mark.parametrize(
    ("columns", "amount", "run"),
    [(40, "25%", "0/3"), (56, "25/100 bytes", "0/3 25 bytes"), (60, "25/100 bytes", "0/3 25 bytes")],
)
def test_bars_keep_the_names(monkeypatch: pytest.MonkeyPatch, columns: int, amount: str, run: str) -> None:
    """On a narrow terminal the bars keep the names and stay on one line each; the numbers get shorter."""
    monkeypatch.setenv("COLUMNS", str(columns))
    bars = Bars(wanted=True)
    bars.disable = False
    bars.count(0, 3)
    bar = bars.bar("a rather long name 0.txt")
    assert bar is not None
    bar(Progress(transferred=25, total=100))
    assert bars.wait(5.0)
    console = Console(file=io.StringIO(), width=columns, force_terminal=False)
    with console.capture() as drawn:
        console.print(bars.get_renderable())
    overall, transfer, wait = drawn.get().splitlines()
    assert re.fullmatch(rf"all [━╸╺ ]+ {run} *", overall)
    assert re.fullmatch(rf"↑ a rather long name 0\.txt [━╸╺ ]+{amount} *", transfer)
    assert wait.strip() == "Meta asks to wait: 5 s"


@pytest.mark.slow
def test_results_on_a_terminal(shell: Shell) -> None:
    """Each id stands whole on its line, with its file. `--quiet` prints ids only, and draws no bars."""
    options = (SAMPLES["photo.jpg"], SAMPLES["note.txt"])
    seen = shell.watch("upload", *options, columns=40)
    assert (seen.status, "\x1b[?25l" in seen.received) == (0, True)
    assert len(re.findall(r"^\d{16}  /\S+$", visible(seen.received).replace("\r", "\n"), re.MULTILINE)) == 2
    quiet = shell.watch("upload", SAMPLES["photo.jpg"], "--quiet")
    assert quiet.status == 0
    assert re.fullmatch(r"\d{16}\r\n", quiet.received)


@pytest.mark.slow
def test_a_file_that_is_sent_on_a_terminal(shell: Shell) -> None:
    """The bars of the upload and those of the messages follow each other, and none stays."""
    seen = shell.watch("send", SAMPLES["photo.jpg"], "--to", "+15550001111", "--to", "+15550002222")
    assert (seen.status, seen.text.count("wamid.")) == (0, 2)
    assert "2 of 2 messages sent" in seen.text
    seen.assert_clean()


@pytest.mark.slow
def test_a_dumb_terminal(shell: Shell) -> None:
    """A terminal that cannot redraw gets no control sequences, and all the text."""
    seen = shell.watch("upload", "--recursive", *mixed(shell), TERM="dumb")
    assert seen.status == 1
    assert "\x1b" not in seen.received
    assert len([line for line in seen.screen.lines if line.startswith("✗ ")]) == 3


@pytest.mark.slow
def test_a_wait_that_meta_asks_for(bare: Shell) -> None:
    """While Meta asks to wait, the bars count the seconds; elsewhere a line says so."""
    file = SAMPLES["photo.jpg"]
    settings = EmulatorSettings(retry_after=2)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Emulator(settings=settings)) as emulator:
        shell = bare.with_variables(
            {
                "WA_BASE_URL": emulator.base_url,
                "WA_PHONE_NUMBER_ID": emulator.phone_number_id,
                "CLOUD_API_ACCESS_TOKEN": emulator.access_token,
            }
        )
        emulator.throttle(1)
        seen = shell.watch("upload", file)
        assert seen.status == 0
        counted = {f"Meta asks to wait: {seconds} s" for seconds in (1, 2)}
        assert set(re.findall(r"Meta asks to wait: \d s", visible(seen.received))) >= counted
        assert "Meta asks" not in seen.text
        seen.assert_clean()
        for options, expected in (((), b"Meta asks to wait: 2 s\n"), (("--quiet",), b"")):
            emulator.throttle(1)
            assert shell.run("upload", file, *options).stderr == expected
        emulator.throttle(1)
        said = shell.run("upload", file, "--verbose").stderr.decode()
        assert len(re.findall(r"^\d\d:\d\d:\d\d upload: trying again in [12]\.\d s: .*130429", said, re.MULTILINE)) == 1


WAITED, WARNED, DETAIL = "Meta asks to wait: 3 s", "meta-media: warned", "TIME a detail \\x1b"
AGAIN = ["TIME again in 9.5", "TIME again in 0.5", WAITED, "TIME again in 2.5", "TIME again in 2.6"]


@pytest.mark.parametrize(
    ("options", "variable", "expected"),
    [
        ({}, "", [WAITED, WARNED]),
        ({}, "info", [*AGAIN, WARNED]),
        ({"quiet": True}, "", []),
        ({"quiet": True, "verbose": True}, "", [*AGAIN, DETAIL, WARNED]),
    ],
    ids=["default", "variable", "quiet", "verbose"],
)
def test_levels_of_the_log(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], variable: str, expected: list[str]
) -> None:
    """One wait is one line, the log has the chosen level, and what follows `close_log` is not printed."""
    monkeypatch.setenv("META_MEDIA_LOG", variable)
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    log = logging.getLogger("meta_media")
    open_log(Bars(wanted=True), **{"quiet": False, "verbose": False, **options})
    busy = RateLimitError("busy", retry_after=2.5)
    for delay, error in ((9.5, NetworkError("gone")), (0.5, busy), (2.5, busy), (2.6, busy)):
        log.info("again in %s", delay, extra={"delay": delay, "error": error})
    log.debug("a detail \x1b")
    log.warning("warned")
    close_log()
    log.error("late")
    assert re.sub(r"\d\d:\d\d:\d\d", "TIME", written.getvalue()).splitlines() == expected


@pytest.mark.slow
@pytest.mark.parametrize("columns", [60, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("command", ["check", pytest.param("demo", marks=pytest.mark.slow)])
def test_names_stay_on_a_narrow_terminal(bare: Shell, command: str, columns: int) -> None:
    """Where there is no room for all columns, the widest go, and the names and verdicts stay whole."""
    for sample in SAMPLES.values():
        (bare.folder / sample.name).write_bytes(sample.read_bytes())
    seen = bare.watch(command, *SAMPLES, columns=columns)
    assert seen.status == 0
    table = visible(seen.received[seen.received.rindex("file ") :])
    assert max(map(len, table.splitlines())) <= columns
    verdict = "takes it" if command == "check" else "yes"
    assert re.findall(rf"^ ?(\S+) .*{verdict} *$", table, re.MULTILINE) == list(SAMPLES)


def test_a_long_name_is_folded() -> None:
    """A name that is longer than its part of the terminal is folded; other columns do not go for it."""
    names, rows = _fitted({"file": "left", "type": "left", "yes": "left"}, [["n" * 200, "image", "no"]], 60)
    assert (list(names), rows) == (["file", "type", "yes"], [["n" * 200, "image", "no"]])
    names, rows = _fitted(
        {"file": "left", "a": "left", "b": "left", "yes": "left"}, [["name", "x" * 30, "y", "no"]], 30
    )
    assert (list(names), rows) == (["file", "b", "yes"], [["name", "y", "no"]])


@pytest.mark.slow
def test_demo_on_a_terminal(bare: Shell) -> None:
    """80 columns are enough: a bar while it runs, then a table in which no line wraps."""
    seen = bare.watch("demo", columns=80)
    assert seen.status == 0
    assert re.search(r"\d+/20", visible(seen.received))
    table = visible(seen.received[seen.received.rindex("file ") :])
    assert max(map(len, table.splitlines())) <= 80
    assert len(re.findall(r" yes *$", table, re.MULTILINE)) == 20
    seen.assert_clean()


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        (80, "document  "),
        pytest.param(
            160, "(application/vnd.openxmlformats-officedocument.spreadsheetml.sheet)", marks=pytest.mark.slow
        ),
    ],
)
def test_check_on_a_terminal(bare: Shell, columns: int, kind: str) -> None:
    """A terminal of any width gets a table, with the reasons below it."""
    (bare.folder / "moving.gif").write_bytes(b"GIF89a\x01\x00\x01\x00")
    (bare.folder / "table.xlsx").write_bytes(SAMPLES["table.xlsx"].read_bytes())
    (bare.folder / "high.mp4").write_bytes((Path(__file__).parents[1] / "media" / "high.mp4").read_bytes())
    seen = bare.watch("check", "table.xlsx", "moving.gif", "high.mp4", columns=columns)
    assert seen.status == 1
    assert kind in seen.received
    assert "refuses it" in seen.received
    assert "✗ 'moving.gif' is 'image/gif'" in seen.text
    assert "high.mp4: remark: H.264 High profile, B-frames" in seen.text
    assert max(map(len, visible(seen.received).splitlines())) <= columns
