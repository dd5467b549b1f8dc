"""The commands that need no account: `demo`, `serve` and `check`, as they look when piped and on a terminal."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from meta_media import samples
from meta_media.cli import main

PATIENCE = 60
SAMPLES = {path.name: path for path in samples.paths()}
needs_posix = pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals and signals are POSIX matters")


def bare_environment() -> dict[str, str]:
    """An environment that knows nothing of WhatsApp."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("WA_", "CLOUD_API_"))}


def command(*arguments: str | Path) -> list[str]:
    """Return the program's command line."""
    return [sys.executable, "-m", "meta_media", *(os.fspath(argument) for argument in arguments)]


def run(*arguments: str | Path, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a folder, to its end."""
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        cwd=folder,
        env=bare_environment() | more,
        timeout=PATIENCE,
        check=False,
        encoding="utf-8",
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


@contextlib.contextmanager
def serving(
    *arguments: str | Path, folder: Path, **more: str
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """Run `serve` for as long as a block lasts, and give the variables it tells to export."""
    environment = bare_environment() | more
    with subprocess.Popen(
        command("serve", *arguments, "--json"), cwd=folder, env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()
            process.wait(PATIENCE)


def on_a_terminal(
    *arguments: str | Path, folder: Path, columns: int, environment: Mapping[str, str]
) -> tuple[int, str]:
    """Run the program on a terminal of its own: its exit status, and everything the terminal received."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    told = {**environment, "TERM": "xterm-256color"}
    received = bytearray()
    with subprocess.Popen(
        command(*arguments), cwd=folder, env=told, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):  # Linux says EIO when nobody has the other end any more
                    if chunk := os.read(ours, 65536):
                        received += chunk
                        continue
                break
        status = process.wait(PATIENCE)
    os.close(ours)
    return status, received.decode()


def visible(received: str) -> str:
    """Return what a terminal received without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", received).replace("\r\n", "\n")


def test_demo(tmp_path: Path) -> None:
    """Every sample goes there and back and is gone afterwards; the piped table cuts nothing; nothing remains."""
    temporary = tmp_path / "tmp"
    folder = tmp_path / "elsewhere"
    temporary.mkdir()
    folder.mkdir()
    done = run("demo", folder=folder, TMPDIR=os.fspath(temporary), COLUMNS="60")
    assert (done.returncode, done.stderr) == (0, "")
    heading, *rows = (re.split(r" {2,}", line) for line in done.stdout.partition("\n\n")[0].splitlines())
    assert heading == ["file", "type", "size", "id", "up MB/s", "down MB/s", "verified"]
    assert [row[0] for row in rows] == [*SAMPLES, "large.txt"]
    assert {row[-1] for row in rows} == {"yes"}
    assert all(
        re.fullmatch(r"\d{16}", row[3]) and float(row[4]) > 0 <= float(row[5]) for row in rows if row[0] != "note.txt"
    )
    assert "application/vnd.openxmlformats-officedocument.wordprocessingml.document" in done.stdout
    assert f"{len(rows)} of {len(rows)} files came back as they were; {len(rows)} deleted" in done.stdout
    assert list(temporary.iterdir()) == list(folder.iterdir()) == []


def test_demo_with_own_files(tmp_path: Path) -> None:
    """Relative paths work; what WhatsApp would refuse, or is not there, is shown with the reason, and others go on."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mine.pdf").write_bytes(SAMPLES["report.pdf"].read_bytes())
    (tmp_path / "mine.jpg").write_bytes(SAMPLES["photo.jpg"].read_bytes())
    fine = run("demo", "deep/mine.pdf", "mine.jpg", folder=tmp_path)
    assert fine.returncode == 0
    assert re.search(r"^deep/mine\.pdf +application/pdf .* yes$", fine.stdout, re.MULTILINE)
    assert "mine.jpg: uploaded once, sent by id to" in fine.stdout
    (tmp_path / "moving.gif").write_bytes(b"GIF89a\x01\x00\x01\x00")
    mixed = run("demo", "moving.gif", "mine.jpg", "missing.png", folder=tmp_path)
    assert mixed.returncode == 1
    assert re.search(r"^moving\.gif .* refused$", mixed.stdout, re.MULTILINE)
    assert re.search(r"^missing\.png .* refused$", mixed.stdout, re.MULTILINE)
    assert re.search(r"^mine\.jpg .* yes$", mixed.stdout, re.MULTILINE)
    assert "✗ 'moving.gif' is 'image/gif', but WhatsApp takes" in mixed.stdout
    assert "1 of 3 files came back as they were; 1 deleted" in mixed.stdout


@needs_posix
def test_demo_shows_a_mismatch(tmp_path: Path) -> None:
    """A file that changes after it was hashed does not come back as it was: the table says so, and the status is 1."""
    changing = tmp_path / "changing.txt"
    changing.write_bytes(b"A line of text.\n" * 2**20)
    ended = threading.Event()

    def keep_changing() -> None:
        with changing.open("r+b", buffering=0) as file:
            while not ended.is_set():
                os.pwrite(file.fileno(), os.urandom(4).hex().encode(), 2**24 - 8)

    thread = threading.Thread(target=keep_changing)
    thread.start()
    try:
        done = run("demo", "changing.txt", SAMPLES["photo.jpg"], folder=tmp_path)
    finally:
        ended.set()
        thread.join()
    assert done.returncode == 1
    assert re.search(r"^changing\.txt .* MISMATCH$", done.stdout, re.MULTILINE)
    assert "✗ changing.txt: the copy differs from the original" in done.stdout
    assert "1 of 2 files came back as they were; 2 deleted" in done.stdout


def test_demo_json(tmp_path: Path) -> None:
    """`--json` prints an object per file."""
    (tmp_path / "empty.png").touch()
    done = run("demo", SAMPLES["photo.jpg"], "empty.png", "--json", folder=tmp_path)
    fine, refused = (json.loads(line) for line in done.stdout.splitlines())
    assert (done.returncode, fine["verified"], fine["deleted"], refused["verified"]) == (1, True, True, False)
    assert refused["error"]["type"] == "CorruptedMediaError"


def test_demo_ignores_the_environment_and_the_folder(tmp_path: Path) -> None:
    """Credentials, settings and modules lying around have no part in it."""
    (tmp_path / "uvicorn.py").write_text("raise SystemExit(9)")
    variables = {"WA_BASE_URL": "https://127.0.0.1:9", "CLOUD_API_ACCESS_TOKEN": "canary", "CLOUD_API_VERSION": "?"}
    code = "import sys; from meta_media.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "demo", SAMPLES["photo.jpg"]],
        capture_output=True,
        cwd=tmp_path,
        env=bare_environment() | variables,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_demo(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C ends the emulator's process and removes the temporary folder; even a kill leaves no process behind."""
    environment = bare_environment() | {"TMPDIR": os.fspath(tmp_path)}
    with subprocess.Popen(
        command("demo"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        children: list[psutil.Process] = []
        deadline = time.monotonic() + PATIENCE
        while not children and time.monotonic() < deadline:
            time.sleep(0.01)
            children = psutil.Process(process.pid).children()
        os.killpg(process.pid, number)  # as a terminal does
        _, errors = process.communicate(timeout=PATIENCE)
    gone, _ = psutil.wait_procs(children, timeout=PATIENCE)
    assert len(gone) == len(children) == 1
    if number == signal.SIGINT:
        assert (process.returncode, errors) == (130, b"meta-media: interrupted\n")
        assert list(tmp_path.iterdir()) == []


@needs_posix
def test_demo_on_a_terminal(tmp_path: Path) -> None:
    """80 columns are enough: bars while it runs, then a table in which no line wraps."""
    status, received = on_a_terminal("demo", folder=tmp_path, columns=80, environment=bare_environment())
    assert status == 0
    assert "━" in received
    assert re.search(r"\d+/20", visible(received))
    table = received[received.rindex("file ") :]
    assert max(map(len, visible(table).splitlines())) <= 80
    assert len(re.findall(r" yes *$", visible(table), re.MULTILINE)) == 20
    assert received.count("\x1b[?25l") == received.count("\x1b[?25h") > 0, "the cursor was not given back"


@needs_posix
def test_upload_on_a_terminal(tmp_path: Path) -> None:
    """A terminal sees bars and then the ids, each whole on its line; `--quiet` and a dumb terminal have no bars."""
    large = tmp_path / "large.txt"
    large.write_bytes(b"A line of text.\n" * 2**20)
    with serving("--port", "0", "--data", tmp_path / "data", folder=tmp_path) as (_, told):
        environment = bare_environment() | told
        options: dict[str, Any] = {"folder": tmp_path, "columns": 80, "environment": environment}
        status, received = on_a_terminal("upload", large, SAMPLES["photo.jpg"], **options)
        assert (status, "━" in received, "large.txt" in received) == (0, True, True)
        assert len(re.findall(r"^\d{16}  /\S+$", visible(received).replace("\r", "\n"), re.MULTILINE)) == 2
        status, received = on_a_terminal("upload", large, "--quiet", **options)
        assert (status, "━" in received) == (0, False)
        assert re.fullmatch(r"\d{16}\r\n", received)


def test_serve_restart_keeps_media(tmp_path: Path) -> None:
    """Stopped and started on the same folder, `serve` has the same number, token and media."""
    variables = []
    media_id = ""
    for _ in range(2):
        with serving("--port", "0", "--data", "data", folder=tmp_path) as (_, told):
            variables.append(told)
            if not media_id:
                media_id = run("upload", SAMPLES["photo.jpg"], folder=tmp_path, **told).stdout.strip()
            done = run("download", media_id, "copy.jpg", folder=tmp_path, **told)
            assert done.returncode == 0, done.stderr
    for name in ("WA_PHONE_NUMBER_ID", "CLOUD_API_ACCESS_TOKEN"):
        assert variables[0][name] == variables[1][name]
    assert (tmp_path / "copy.jpg").read_bytes() == SAMPLES["photo.jpg"].read_bytes()


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_says_what_to_export(tmp_path: Path, number: signal.Signals) -> None:
    """What `serve` prints can be sourced by a shell, says that it is an emulator; a signal ends it with status 0."""
    environment = bare_environment() | {"HOME": os.fspath(tmp_path), "XDG_DATA_HOME": os.fspath(tmp_path / "share")}
    said: list[str] = []
    with subprocess.Popen(
        command("serve", "--port", "0"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while not said or not said[-1].startswith("# Ctrl-C"):
            said.append(process.stdout.readline())
            assert said[-1], "it ended"
        script = "".join(said) + 'echo "$WA_BASE_URL $WA_PHONE_NUMBER_ID $CLOUD_API_ACCESS_TOKEN"'
        sourced = subprocess.run(
            ["/bin/sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        base_url, phone_number_id, access_token = sourced.stdout.split()
        named = {"CLOUD_API_ACCESS_TOKEN": access_token}
        options = ("--base-url", base_url, "--phone-number-id", phone_number_id, "--api-version", "24")
        assert run("upload", SAMPLES["photo.jpg"], *options, folder=tmp_path, **named).returncode == 0
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
    assert "emulator" in said[0]
    assert any("curl" in line and "$CLOUD_API_ACCESS_TOKEN" in line for line in said)
    assert any(os.fspath(tmp_path) in line for line in said), "the default folder is not told"


def test_serve_that_cannot_start(tmp_path: Path) -> None:
    """A port in use, a folder in use, and a folder that cannot be one: status 1 and one sentence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--port", str(taken.getsockname()[1]), "--data", "data", folder=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert "could not listen on 127.0.0.1" in done.stderr
    with serving("--port", "0", "--data", "data", folder=tmp_path):
        second = run("serve", "--port", "0", "--data", "data", folder=tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "emulator.sqlite3").write_bytes(b"not a database" * 100)
    others = [run("serve", "--port", "0", "--data", name, folder=tmp_path) for name in ("file", "broken")]
    for failed in (second, *others):
        assert (failed.returncode, len(failed.stderr.splitlines())) == (1, 1)
        assert "could not keep data in" in failed.stderr


def test_serve_beyond_loopback_warns(tmp_path: Path) -> None:
    """An address that others can reach gets a warning line."""
    with subprocess.Popen(
        command("serve", "--host", "0.0.0.0", "--port", "0", "--data", tmp_path / "data"),
        env=bare_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("warning: listening on 0.0.0.0")
        process.terminate()
        process.communicate(timeout=PATIENCE)


def test_check(tmp_path: Path) -> None:
    """Accepted files are told with kind, type and limit; others with the reason; one refusal makes the status 1."""
    fine = run("check", *SAMPLES.values(), folder=tmp_path)
    assert (fine.returncode, fine.stderr, fine.stdout.count(": accepted: ")) == (0, "", len(SAMPLES))
    (tmp_path / "moving.gif").write_bytes(b"GIF89a\x01\x00\x01\x00")
    (tmp_path / "huge.png").write_bytes(SAMPLES["drawing.png"].read_bytes() + bytes(6 * 2**20))
    files: list[str | Path] = ["moving.gif", SAMPLES["photo.jpg"], "huge.png", "missing.png"]
    mixed = run("check", *files, folder=tmp_path)
    gif, photo, huge, missing = mixed.stdout.splitlines()
    assert mixed.returncode == 1
    assert gif.startswith("moving.gif: refused: 'moving.gif' is 'image/gif'")
    assert photo.endswith("photo.jpg: accepted: image/jpeg (image), 4,346 of at most 5,242,880 bytes")
    assert "6,293,695 bytes" in huge
    assert missing == "missing.png: refused: could not open 'missing.png': No such file or directory"
    told = [json.loads(line) for line in run("check", *files, "--json", folder=tmp_path).stdout.splitlines()]
    assert [found["accepted"] for found in told] == [False, True, False, False]
    assert (told[1]["kind"], told[1]["limit"], told[1]["size"]) == ("image", 5 * 2**20, 4346)
    assert (told[2]["error"]["type"], told[2]["error"]["limit"]) == ("FileTooLargeError", 5 * 2**20)


@needs_posix
def test_check_reads_only_the_head(tmp_path: Path) -> None:
    """A sparse file of a terabyte is refused at once."""
    with (tmp_path / "huge.pdf").open("wb") as file:
        file.write(SAMPLES["report.pdf"].read_bytes())
        file.truncate(2**40)
    started = time.monotonic()
    done = run("check", "huge.pdf", folder=tmp_path)
    assert (done.returncode, "1,099,511,627,776 bytes" in done.stdout) == (1, True)
    assert time.monotonic() - started < PATIENCE / 2


def test_check_of_standard_input(tmp_path: Path) -> None:
    """`-` is looked at as it will be declared."""
    for arguments, status in ((["-"], 0), (["-", "--mime-type", "image/png"], 1), (["-", "--filename", "a.png"], 0)):
        done = subprocess.run(
            command("check", *arguments),
            input=SAMPLES["photo.jpg"].read_bytes(),
            capture_output=True,
            env=bare_environment(),
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stdout[:3]) == (status, b"-: ")


@needs_posix
def test_check_on_a_terminal(tmp_path: Path) -> None:
    """A terminal of any width gets a table, with the reasons below it."""
    (tmp_path / "moving.gif").write_bytes(b"GIF89a\x01\x00\x01\x00")
    (tmp_path / "table.xlsx").write_bytes(SAMPLES["table.xlsx"].read_bytes())
    for columns, kind in (
        (80, "document  "),
        (160, "(application/vnd.openxmlformats-officedocument.spreadsheetml.sheet)"),
    ):
        options: dict[str, Any] = {"folder": tmp_path, "columns": columns, "environment": bare_environment()}
        status, received = on_a_terminal("check", "table.xlsx", "moving.gif", **options)
        assert status == 1
        assert kind in received
        assert "refuses it" in received
        assert "✗ 'moving.gif' is 'image/gif'" in visible(received)
        assert max(map(len, visible(received).splitlines())) <= columns


def test_missing_extra(tmp_path: Path) -> None:
    """Without its packages the program says in one sentence what to install, and the SDK imports none of them."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split()))\n"
    for missing in ("cyclopts", "rich"):
        code = blocked + "from meta_media.cli import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, missing, "demo"], capture_output=True, timeout=PATIENCE, check=False
        )
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr == b'meta-media: the command line needs more packages: pip install "meta-media[cli]"\n'
    code = "import sys, meta_media; print({'cyclopts', 'rich', 'starlette', 'uvicorn'} & set(sys.modules))"
    lean = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE, check=True)
    assert lean.stdout.split() == [b"set()"]


def test_nothing_blocks_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command runs in this process under the detector of blocking calls."""
    assert threading.current_thread() is threading.main_thread()
    monkeypatch.chdir(tmp_path)

    def inside(*arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["meta-media", *(os.fspath(argument) for argument in arguments)])
        assert main() == 0, capsys.readouterr().err
        return capsys.readouterr().out.strip()

    with serving("--port", "0", "--data", tmp_path / "data", folder=tmp_path) as (_, told):
        for name, value in told.items():
            monkeypatch.setenv(name, value)
        media_id = inside("upload", SAMPLES["photo.jpg"], "--verify")
        assert inside("info", media_id).splitlines()[0].split() == ["id", media_id]
        assert inside("download", media_id) == f"{media_id}.jpg"
        assert len(inside("send", "+15550001111", "+15550002222", "--id", media_id).splitlines()) == 2
        assert inside("delete", media_id) == media_id
    assert inside("check", SAMPLES["photo.jpg"]).count("accepted") == 1
    assert inside("demo", SAMPLES["photo.jpg"], SAMPLES["note.txt"]).count(" yes") == 2
    downloaded = (tmp_path / f"{media_id}.jpg").read_bytes()
    assert hashlib.sha256(downloaded).digest() == hashlib.sha256(SAMPLES["photo.jpg"].read_bytes()).digest()
