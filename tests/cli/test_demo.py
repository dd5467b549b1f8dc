"""The commands that need no account: `demo`, `serve` and `check`."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from meta_media.cli.demo import demo
from tests.support.shell import PATIENCE, SAMPLES, Shell, command, lines, needs_posix, words_of

MEDIA = Path(__file__).parents[1] / "media"
GIF = b"GIF89a\x01\x00\x01\x00"


def test_demo(bare: Shell, tmp_path: Path) -> None:
    """Every sample goes there and back and is gone afterwards. The piped table cuts nothing. No file remains."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    done = bare.spawn("demo", TMPDIR=os.fspath(temporary), COLUMNS="60")
    assert (done.returncode, done.stderr) == (0, b"")
    output = done.stdout.decode()
    heading, *rows = (re.split(r" {2,}", line) for line in output.partition("\n\n")[0].splitlines())
    assert heading == ["file", "type", "size", "id", "up MB/s", "down MB/s", "verified"]
    assert [row[0] for row in rows] == [*SAMPLES, "large.txt"]
    assert {row[-1] for row in rows} == {"yes"}
    assert all(
        re.fullmatch(r"\d{16}", row[3]) and min(float(row[4]), float(row[5])) >= 0
        for row in rows
        if row[0] != "note.txt"
    )
    assert "application/vnd.openxmlformats-officedocument.wordprocessingml.document" in output
    assert f"{len(rows)} of {len(rows)} files came back as they were; {len(rows)} deleted" in output
    assert list(temporary.iterdir()) == list(bare.folder.iterdir()) == []


@pytest.mark.slow
def test_demo_with_own_files(bare: Shell) -> None:
    """A file that WhatsApp would refuse, or that is missing, is shown with the reason. The others go on."""
    (bare.folder / "deep").mkdir()
    (bare.folder / "deep" / "mine.jpg").write_bytes(SAMPLES["photo.jpg"].read_bytes())
    (bare.folder / "moving.gif").write_bytes(GIF)
    mixed = bare.run("demo", "moving.gif", "deep/mine.jpg", "missing.png")
    output = mixed.stdout.decode()
    assert mixed.returncode == 1
    assert re.search(r"^moving\.gif .* refused$", output, re.MULTILINE)
    assert re.search(r"^missing\.png .* refused$", output, re.MULTILINE)
    assert re.search(r"^deep/mine\.jpg +image/jpeg .* yes$", output, re.MULTILINE)
    assert "✗ 'moving.gif' is 'image/gif', but WhatsApp accepts" in output
    assert "deep/mine.jpg: uploaded once, sent by id to" in output
    assert "1 of 3 files came back as they were; 1 deleted" in output


@pytest.mark.slow
def test_demo_json(bare: Shell) -> None:
    """`--json` prints an object for each file."""
    (bare.folder / "empty.png").touch()
    done = bare.run("demo", SAMPLES["photo.jpg"], "empty.png", "--json")
    fine, refused = lines(done.stdout)
    assert (done.returncode, fine["verified"], fine["deleted"], refused["verified"]) == (1, True, True, False)
    assert refused["error"]["type"] == "CorruptedMediaError"


@needs_posix
@pytest.mark.slow
def test_demo_shows_a_mismatch(bare: Shell) -> None:
    """A file that changes while it is uploaded does not come back as it was: the table shows it, and the status is 1."""
    changing = bare.folder / "changing.txt"
    changing.write_bytes(b"A line of text.\n" * 2**20)
    ended = threading.Event()

    def keep_changing() -> None:
        with changing.open("r+b", buffering=0) as file:
            while not ended.is_set():
                os.pwrite(file.fileno(), os.urandom(4).hex().encode(), 2**24 - 8)

    thread = threading.Thread(target=keep_changing)
    thread.start()
    try:
        done = bare.spawn("demo", "changing.txt", SAMPLES["photo.jpg"])
    finally:
        ended.set()
        thread.join()
    assert done.returncode == 1
    assert re.search(rb"^changing\.txt .* MISMATCH$", done.stdout, re.MULTILINE)
    assert "✗ changing.txt: the copy differs from the original" in done.stdout.decode()
    assert b"1 of 2 files came back as they were; 2 deleted" in done.stdout


@pytest.mark.slow
def test_demo_ignores_the_environment_and_the_folder(bare: Shell) -> None:
    """Credentials, settings and modules in the current folder have no effect."""
    (bare.folder / "uvicorn.py").write_text("raise SystemExit(9)")
    variables = {"WA_BASE_URL": "https://127.0.0.1:9", "CLOUD_API_ACCESS_TOKEN": "canary", "CLOUD_API_VERSION": "?"}
    variables["WA_APP_SECRET"] = "another"
    code = "import sys; from meta_media.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "demo", SAMPLES["photo.jpg"]],
        capture_output=True,
        cwd=bare.folder,
        env=bare.environment | variables,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.slow
def test_serve_another_provider(bare: Shell) -> None:
    """With `--provider 360dialog`, the printed key and address are those of that provider."""
    with bare.serving("--data", "data", "--provider", "360dialog") as served:
        files = {"file": ("photo.jpg", SAMPLES["photo.jpg"].read_bytes(), "image/jpeg")}
        fields, key = {"messaging_product": "whatsapp"}, {"D360-API-KEY": served["D360_API_KEY"]}
        response = httpx.post(f"{served['WA_BASE_URL']}/media", data=fields, files=files, headers=key)
        assert (response.status_code, list(response.json())) == (200, ["id"])
        assert httpx.post(f"{served['WA_BASE_URL']}/media", data=fields, files=files).status_code == 401


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_interrupted_demo(bare: Shell, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C ends the emulator's process and removes the temporary folder. Even a kill leaves no process behind."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {**bare.environment, "TMPDIR": os.fspath(temporary)}
    with bare.start("demo", env=environment, start_new_session=True) as process:
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
        assert list(temporary.iterdir()) == []


@needs_posix
async def test_demo_interrupted_while_its_emulator_starts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ctrl-C may end the new process before it has a session of its own. asyncio then has nothing to warn about."""
    test, interrupted, waitpid = threading.get_ident(), threading.Event(), os.waitpid

    def waitpid_once_interrupted(pid: int, options: int) -> tuple[int, int]:
        if threading.get_ident() != test:  # asyncio's thread, which waits for the process
            interrupted.wait()
        return waitpid(pid, options)

    program = shutil.which("true")
    assert program is not None
    monkeypatch.setattr(sys, "executable", program)
    monkeypatch.setattr(os, "waitpid", waitpid_once_interrupted)
    before = psutil.Process().children()

    def has_ended_one() -> bool:
        """Wait for the end of the process, if it was started. The loop does not turn meanwhile."""
        started = [child for child in psutil.Process().children() if child not in before]
        return any(os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) for child in started)

    running = asyncio.ensure_future(demo([SAMPLES["photo.jpg"]]))
    while not has_ended_one():  # noqa: ASYNC110 - no event announces it
        await asyncio.sleep(0)  # a turn of the loop
    running.cancel()
    await asyncio.sleep(0)  # the turn in which it is cancelled
    interrupted.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.slow
def test_serve_restart_keeps_media(bare: Shell) -> None:
    """Stopped and started on the same folder, `serve` has the same number, token and media."""
    with bare.serving("--data", "data") as first:
        media_id = bare.with_variables(first).upload("photo.jpg")
    with bare.serving("--data", "data") as second:
        done = bare.with_variables(second).run("download", media_id, "copy.jpg")
    assert done.returncode == 0, done.stderr
    for name in ("WA_PHONE_NUMBER_ID", "CLOUD_API_ACCESS_TOKEN", "WA_APP_SECRET"):
        assert first[name] == second[name]
    assert (bare.folder / "copy.jpg").read_bytes() == SAMPLES["photo.jpg"].read_bytes()


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_serve_prints_what_to_export(bare: Shell, tmp_path: Path, number: signal.Signals) -> None:
    """A shell can source what `serve` prints. The first line says that it is an emulator. A signal ends it with status 0."""
    environment = {**bare.environment, "HOME": os.fspath(tmp_path), "XDG_DATA_HOME": os.fspath(tmp_path / "share")}
    said: list[str] = []
    with bare.start("serve", "--port", "0", env=environment) as process:
        assert process.stdout is not None
        while not said or not said[-1].startswith("# Ctrl-C"):
            said.append(process.stdout.readline().decode())
            assert said[-1], "it ended"
        script = "".join(said) + 'echo "$WA_BASE_URL $WA_PHONE_NUMBER_ID $CLOUD_API_ACCESS_TOKEN"'
        sourced = subprocess.run(
            ["/bin/sh", "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        base_url, phone_number_id, access_token = sourced.stdout.split()
        options = ("--base-url", base_url, "--phone-number-id", phone_number_id, "--api-version", "24")
        done = bare.run("upload", SAMPLES["photo.jpg"], *options, CLOUD_API_ACCESS_TOKEN=access_token)
        assert done.returncode == 0, done.stderr
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert re.fullmatch(rb"\d\d:\d\d:\d\d POST /v24\.0/\d+/media: 200, \d\.\d{3} s\n", errors)
    assert "emulator" in said[0]
    assert any("curl" in line and "$CLOUD_API_ACCESS_TOKEN" in line for line in said)
    assert any(os.fspath(tmp_path) in line for line in said), "the default folder is not printed"


@pytest.mark.slow
@needs_posix
def test_serve_with_tls(bare: Shell) -> None:
    """`serve --tls` prints the variables by which clients trust it. `--url` names the host of the URLs, and must lead there."""
    folder = bare.folder / "with blank"
    with bare.start("serve", "--tls", "--port", "0", "--data", folder) as process:
        assert process.stdout is not None
        script = b"".join(iter(process.stdout.readline, b"# Ctrl-C ends it.\n"))
        program = shlex.join(command("upload", SAMPLES["photo.jpg"]))
        for line in (program, 'test -f "$NODE_EXTRA_CA_CERTS" && test -f "$REQUESTS_CA_BUNDLE"'):
            done = subprocess.run(
                ["/bin/sh", "-ec", script.decode() + line], env=bare.environment, timeout=PATIENCE, check=False
            )
            assert done.returncode == 0
        process.terminate()
        process.communicate(timeout=PATIENCE)
    with bare.start("serve", "--url", "https://graph.facebook.com", "--port", "0", "--data", folder) as process:
        assert process.stdout is not None
        said = b"".join(iter(process.stdout.readline, b"# Ctrl-C ends it.\n")).decode()
        assert "WA_BASE_URL=https://graph.facebook.com\n" in said
        assert re.search(
            r"# It listens on http://127\.0\.0\.1:\d+, and https://graph\.facebook\.com must lead there\.", said
        )
        process.terminate()
        process.communicate(timeout=PATIENCE)
    done = bare.run("serve", "--url", "https://graph.facebook.com/v25.0", "--data", folder)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1)
    assert b"url must be a scheme and a host" in done.stderr


@pytest.mark.slow
def test_serve_that_cannot_start(bare: Shell) -> None:
    """A port in use, a folder in use, a folder that cannot be one, and a damaged one: one sentence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = bare.run("serve", "--port", str(taken.getsockname()[1]), "--data", "data")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, b"", 1)
    assert b"could not listen on 127.0.0.1" in done.stderr
    assert b"Address already in use: choose another port, 0 for a free one" in done.stderr
    (bare.folder / "file").touch()
    (bare.folder / "broken").mkdir()
    (bare.folder / "broken" / "emulator.sqlite3").write_bytes(b"not a database" * 100)
    with bare.serving("--data", "used"):
        failures = [bare.run("serve", "--port", "0", "--data", name) for name in ("used", "file", "broken")]
    for failed, status, why in zip(
        failures, (2, 1, 2), (b"another emulator uses it", b"could not keep data in", b"is damaged"), strict=True
    ):
        assert (failed.returncode, len(failed.stderr.splitlines())) == (status, 1)
        assert why in failed.stderr


@pytest.mark.slow
def test_serve_beyond_loopback_warns(bare: Shell) -> None:
    """An address that other machines can reach gets a warning."""
    with bare.start("serve", "--host", "0.0.0.0", "--port", "0", "--data", "data") as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"warning: listening on 0.0.0.0")
        process.terminate()
        process.communicate(timeout=PATIENCE)


@pytest.mark.slow
def test_serve_with_faults(bare: Shell) -> None:
    """`serve --faults` injects the faults of the file into the first requests that they match, and then none."""
    (bare.folder / "faults.toml").write_text(
        '[[fault]]\noperation = "get_info"\ntimes = 2\nkind = "html"\nstatus = 502\n'
        '[[fault]]\noperation = "any"\nat = "head"\nend = "reset"\n'
    )
    with bare.start("serve", "--port", "0", "--data", "data", "--faults", "faults.toml", "--json") as process:
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            url = f"{told['WA_BASE_URL']}/v25.0/{told['WA_PHONE_NUMBER_ID']}"
            headers = {"authorization": f"Bearer {told['CLOUD_API_ACCESS_TOKEN']}"}
            with httpx.Client(headers=headers, trust_env=False) as client:
                assert [client.get(url).status_code for _ in range(2)] == [502, 502]
                with pytest.raises(httpx.TransportError):
                    client.get(url)
                assert client.get(url).status_code == 200
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=PATIENCE)
    assert errors.startswith(b"faults planned: 2\n")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        ("[[fault", "the file is not TOML: "),
        ('[[fault]]\noperation = "any"\nstauts = 500', "fault 1: there is no 'stauts'"),
    ],
    ids=["missing", "no TOML", "wrong key"],
)
def test_faults_that_cannot_be_read(bare: Shell, content: str | None, why: str) -> None:
    """A wrong file of faults: status 2 and one sentence, before anything is started."""
    if content is not None:
        (bare.folder / "faults.toml").write_text(content)
    done = bare.run("serve", "--port", "0", "--data", "data", "--faults", "faults.toml")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1)
    assert f"faults.toml cannot be used as a file of faults: {why}" in done.stderr.decode()
    assert not (bare.folder / "data").exists()


def test_check(bare: Shell) -> None:
    """An accepted file has its type, kind and limit; a refused one has the reason and makes the status 1."""
    fine = bare.run("check", *SAMPLES.values())
    assert (fine.returncode, fine.stderr, fine.stdout.count(b": accepted: ")) == (0, b"", len(SAMPLES))
    (bare.folder / "moving.gif").write_bytes(GIF)
    (bare.folder / "huge.png").write_bytes(SAMPLES["drawing.png"].read_bytes() + bytes(6 * 2**20))
    files: list[str | Path] = ["moving.gif", SAMPLES["photo.jpg"], "huge.png", "missing.png"]
    mixed = bare.run("check", *files)
    gif, photo, huge, missing = words_of(mixed)
    assert mixed.returncode == 1
    assert gif.startswith("moving.gif: refused: 'moving.gif' is 'image/gif'")
    assert photo.endswith("photo.jpg: accepted: image/jpeg (image), 4,346 of at most 5,242,880 bytes")
    assert "6,293,695 bytes" in huge
    assert missing == "missing.png: refused: could not open 'missing.png': No such file or directory"
    told = lines(bare.run("check", *files, "--json").stdout)
    assert [found["accepted"] for found in told] == [False, True, False, False]
    assert (told[1]["kind"], told[1]["limit"], told[1]["size"]) == ("image", 5 * 2**20, 4346)
    assert (told[2]["error"]["type"], told[2]["error"]["limit"]) == ("FileTooLargeError", 5 * 2**20)


def test_check_has_remarks(bare: Shell) -> None:
    """What may not play on some phones is told on standard error, and in JSON; --quiet prints verdicts only."""
    files: list[str | Path] = ["high.mp4", "main.mp4", "opus.m4a", "large.mp4"]
    for name in files[:3]:
        (bare.folder / name).write_bytes((MEDIA / name).read_bytes())
    (bare.folder / "large.mp4").write_bytes((MEDIA / "high.mp4").read_bytes() + bytes(2**24))
    done, quiet, told = (bare.run("check", *files, *option) for option in ((), ("--quiet",), ("--json",)))
    assert (done.returncode, [line.partition(": ")[2][:8] for line in words_of(done)]) == (
        1,
        ["accepted", "accepted", "refused:", "refused:"],
    )
    remark = "H.264 High profile, B-frames and the index (moov) at the end may keep it from playing on some phones: re-"
    assert done.stderr.decode().startswith(f"high.mp4: remark: {remark}encode it (ffmpeg -i IN -c:v libx264 ")
    assert done.stderr.count(b"\n") == 1
    assert (quiet.stdout, quiet.stderr) == (done.stdout, b"")
    assert told.stderr == b""
    high, main, opus, large = lines(told.stdout)
    assert (high["remarks"][0].partition("encode")[0], main["remarks"], large["remarks"]) == (remark, [], [])
    assert "remarks" not in opus


@needs_posix
def test_check_reads_only_the_head(bare: Shell) -> None:
    """A sparse file of a terabyte is refused at once."""
    with (bare.folder / "huge.pdf").open("wb") as file:
        file.write(SAMPLES["report.pdf"].read_bytes())
        file.truncate(2**40)
    started = time.monotonic()
    done = bare.run("check", "huge.pdf")
    assert (done.returncode, b"1,099,511,627,776 bytes" in done.stdout) == (1, True)
    assert time.monotonic() - started < PATIENCE / 2


@pytest.mark.slow
def test_standard_input_has_no_name(bare: Shell) -> None:
    """Without `--filename`, a sentence about standard input names no file."""
    done = bare.spawn("check", "-", stdin=GIF)
    assert (done.returncode, b"<stdin>" in done.stdout) == (1, False)


@pytest.mark.parametrize(
    ("options", "status"), [([], 0), (["--mime-type", "image/png"], 1), (["--filename", "a.png"], 0)]
)
def test_check_of_standard_input(bare: Shell, options: list[str], status: int) -> None:
    """`-` is checked as it will be declared."""
    done = bare.run("check", "-", *options, stdin=SAMPLES["photo.jpg"].read_bytes())
    assert (done.returncode, done.stdout[:3]) == (status, b"-: ")
