"""The commands that move media, as a person or a script runs them: the real program against a real emulator."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest

from meta_media import samples

PATIENCE = 60
SAMPLES = {path.name: path for path in samples.paths()}
needs_posix = pytest.mark.skipif(os.name == "nt", reason="signals, /dev/full and odd file names are POSIX matters")


@attrs.frozen(kw_only=True)
class Shell:
    """A folder to stand in and an environment, from which the program is run."""

    folder: Path
    environment: dict[str, str]

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the program's command line."""
        return [sys.executable, "-m", "meta_media", *(os.fspath(argument) for argument in arguments)]

    def run(self, *arguments: str | Path, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
        """Run the program to its end."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env=self.environment | variables,
            timeout=PATIENCE,
            check=False,
        )
        said = done.stdout + done.stderr
        assert b"Traceback" not in said
        token = (self.environment | variables).get("CLOUD_API_ACCESS_TOKEN", "")
        assert not token or token.encode() not in said
        assert not re.search(rb"[?&](hash|ext|sig)[^ ]*=", said), "a signed query was shown"
        return done

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start the program."""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.command(*arguments), cwd=self.folder, env=self.environment, **(pipes | options))

    def upload(self, name: str) -> str:
        """Upload a sample and return its id."""
        return self.run("upload", SAMPLES[name]).stdout.decode().strip()


def lines(output: bytes) -> list[dict[str, Any]]:
    """Decode JSON lines."""
    return [json.loads(line) for line in output.splitlines()]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An emulator in a process of its own, as the variables that lead to it."""
    folder = tmp_path_factory.mktemp("served")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("WA_", "CLOUD_API_"))}
    shell = Shell(folder=folder, environment=bare)
    with shell.start("serve", "--port", "0", "--data", folder / "data", "--json") as process:
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            yield bare | {name: value for name, value in told.items() if name.isupper()}
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)


@pytest.fixture
def shell(served: dict[str, str], tmp_path: Path) -> Shell:
    """An empty folder, and the environment that `serve` told to export."""
    return Shell(folder=tmp_path, environment=dict(served))


class SlowServer(socketserver.ThreadingTCPServer):
    """Promises a file and sends half of it, then nothing."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False


class SlowHandler(socketserver.StreamRequestHandler):
    """Answers a look-up with a URL on the same server, and that URL slowly."""

    def handle(self) -> None:
        """Serve one connection."""
        while line := self.rfile.readline():
            while self.rfile.readline().strip():
                pass
            if b"/file" in line:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: 8000000\r\n\r\n")
                self.wfile.write(bytes(4_000_000))
                time.sleep(2 * PATIENCE)
                return
            port = self.request.getsockname()[1]
            info = {"id": "77", "url": f"http://127.0.0.1:{port}/file?hash=secret", "mime_type": "image/jpeg"}
            body = json.dumps(info | {"messaging_product": "whatsapp"}).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)


@pytest.fixture
def slow() -> Iterator[str]:
    """The base URL of a server that never finishes a download."""
    with SlowServer(("127.0.0.1", 0), SlowHandler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_upload_prints_ids_in_order(shell: Shell) -> None:
    """One id per line, in the order of the files, with status 0 and a remark on stderr."""
    names = ["photo.jpg", "report.pdf", "song.mp3", "note.txt", "clip.mp4", "sticker.webp"]
    done = shell.run("upload", *(SAMPLES[name] for name in names))
    ids = done.stdout.decode().split()
    assert (done.returncode, len(ids)) == (0, 6)
    assert done.stderr == f"6 of 6 files uploaded{os.linesep}".encode()
    found = lines(shell.run("info", *ids, "--json").stdout)
    assert [info["sha256"] for info in found] == [hashlib.sha256(SAMPLES[n].read_bytes()).hexdigest() for n in names]


def test_upload_json(shell: Shell) -> None:
    """`--json` prints an object per file, failures included, and the status tells of the failure."""
    (shell.folder / "moving.gif").write_bytes(b"GIF89a\x01\x00\x01\x00")
    done = shell.run("upload", "moving.gif", SAMPLES["photo.jpg"], "missing.png", "--json", "--verify")
    refused, uploaded, missing = lines(done.stdout)
    assert done.returncode == 1
    assert refused["error"]["type"] == "UnsupportedMediaTypeError"
    assert (refused["file"], refused["error"]["actual"]) == ("moving.gif", "image/gif")
    assert uploaded["id"].isdecimal()
    assert uploaded["sha256"] == hashlib.sha256(SAMPLES["photo.jpg"].read_bytes()).hexdigest()
    assert (missing["error"]["type"], missing["error"]["errno"]) == ("StorageError", 2)
    assert len(done.stderr.splitlines()) == 3


def test_upload_of_standard_input(shell: Shell) -> None:
    """`-` uploads what is piped in, of any length, and what is redirected from a file."""
    content = SAMPLES["report.pdf"].read_bytes() + bytes(3 * 2**20)
    done = shell.run("upload", "--verify", "--json", "-", stdin=content)
    (uploaded,) = lines(done.stdout)
    assert (done.returncode, uploaded["file_size"], uploaded["mime_type"]) == (0, len(content), "application/pdf")
    assert uploaded["sha256"] == hashlib.sha256(content).hexdigest()
    with SAMPLES["note.txt"].open("rb") as file, shell.start("upload", "-", "--json", stdin=file) as process:
        output, _ = process.communicate(timeout=PATIENCE)
    assert lines(output)[0]["file_size"] == SAMPLES["note.txt"].stat().st_size


def test_standard_input_only_once(shell: Shell) -> None:
    """Standard input has one end, so naming it twice is wrong usage."""
    assert shell.run("upload", "-", "-", stdin=b"text").returncode == 2
    assert shell.run("check", "-", "-", stdin=b"text").returncode == 2


def test_forced_upload(shell: Shell) -> None:
    """`--mime-type` is checked against the bytes; `--no-validate` sends whatever it is."""
    (shell.folder / "moving.gif").write_bytes(b"GIF89a\x01\x00\x01\x00")
    assert shell.run("upload", "moving.gif", "--mime-type", "image/png").returncode == 1
    done = shell.run("upload", "moving.gif", "--mime-type", "image/png", "--no-validate")
    assert (done.returncode, done.stdout.strip().isdigit()) == (0, True)


def test_upload_for_a_while(shell: Shell) -> None:
    """`--ttl` reads durations, and too short a one is wrong usage."""
    assert shell.run("upload", SAMPLES["photo.jpg"], "--ttl", "90m").returncode == 0
    assert shell.run("upload", SAMPLES["photo.jpg"], "--ttl", "5m").returncode == 2
    assert shell.run("upload", SAMPLES["photo.jpg"], "--ttl", "soon").returncode == 2


def test_quiet(shell: Shell) -> None:
    """`--quiet` leaves results and errors, and nothing else."""
    done = shell.run("upload", SAMPLES["photo.jpg"], "missing.png", "--quiet")
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.decode().splitlines() == ["meta-media: could not open 'missing.png': No such file or directory"]


@needs_posix
def test_hostile_names(shell: Shell) -> None:
    """Names cannot move the cursor, break lines, act as markup or stop the program by not being Unicode."""
    names = [b"\x1b[31mred\x1b[0m\n.pdf", b"[bold]x[bold] :smile:.pdf", b"\xff\xfe.pdf", "\u202efdp.exe.pdf".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(shell.folder) + b"/" + name)).write_bytes(SAMPLES["report.pdf"].read_bytes())
    files = sorted(path.name for path in shell.folder.iterdir())
    for command in (["upload", "--json"], ["check"], ["check", "--json"], ["demo"]):
        done = shell.run(*command, *files, PYTHONIOENCODING="ascii")
        assert done.returncode == 0, done.stderr
        assert (done.stdout + done.stderr).isascii()
        assert b"\x1b" not in done.stdout + done.stderr
        assert b"\\x1b[31mred" in done.stdout or b"\\u001b[31mred" in done.stdout
        if command[-1] == "--json":
            assert {line["file"] for line in lines(done.stdout)} == set(files)
    missing = shell.run("upload", "\x1b]0;title\x07\nfile.png")
    assert len(missing.stderr.splitlines()) == 1
    assert b"\x1b" not in missing.stderr


def test_options_and_files_are_told_apart(shell: Shell) -> None:
    """A mistyped option is wrong usage; a file whose name looks like one goes after `--`."""
    done = shell.run("upload", "--verfiy", SAMPLES["photo.jpg"])
    assert (done.returncode, b'"--verfiy"' in done.stderr) == (2, True)
    (shell.folder / "--verfiy").write_bytes(SAMPLES["photo.jpg"].read_bytes())
    assert shell.run("upload", "--", "--verfiy").returncode == 0


def test_info(shell: Shell) -> None:
    """`info` shows what Meta knows, without the signature in the URL."""
    media_id = shell.upload("photo.jpg")
    done = shell.run("info", media_id)
    assert done.returncode == 0
    facts = dict(line.split(maxsplit=1) for line in done.stdout.decode().splitlines())
    assert (facts["id"], facts["mime_type"], facts["file_size"]) == (media_id, "image/jpeg", "4346")
    assert facts["url"].endswith("?…")
    assert facts["url_expires_at"].endswith("+00:00")
    assert "received_at" not in facts


def test_unknown_id(shell: Shell) -> None:
    """What Meta does not know is one sentence, status 1, and an object with Meta's code for machines."""
    for command in (["info", "404"], ["download", "404"], ["delete", "404"], ["send", "+15550001111", "--id", "404"]):
        done = shell.run(*command)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, b"", 1)
        failed = shell.run(*command, "--json")
        (told,) = lines(failed.stdout)
        assert (failed.returncode, told["error"]["code"]) == (1, 100)
        assert told["error"]["message"] in failed.stderr.decode()
    assert list(shell.folder.iterdir()) == []


def test_signed_url_in_the_wrong_place(shell: Shell) -> None:
    """A signed URL may stand for an id in `download` only, only for Meta's hosts, and its query is shown nowhere."""
    url = "https://cdn.example.com/media?hash=canary&ext=1"
    for name, status in (("download", 1), ("info", 2), ("delete", 2)):
        for options in ([], ["--json"]):
            done = shell.run(name, url, *options)
            assert done.returncode == status
            assert b"cdn.example.com" in done.stderr
            assert b"canary" not in done.stdout + done.stderr


def test_one_unknown_id_disturbs_no_other(shell: Shell) -> None:
    """The others are still done, and the status is 1."""
    media_id = shell.upload("photo.jpg")
    done = shell.run("delete", "404", media_id)
    assert (done.returncode, done.stdout.decode().split()) == (1, [media_id])


def test_download_to_a_folder(shell: Shell) -> None:
    """By default the current folder gets a file under a free name, whose path is printed."""
    media_id = shell.upload("report.pdf")
    first, second = (shell.run("download", media_id).stdout.decode().strip() for _ in range(2))
    assert (first, second) == (f"{media_id}.pdf", f"{media_id} (2).pdf")
    for name in (first, second):
        assert (shell.folder / name).read_bytes() == SAMPLES["report.pdf"].read_bytes()


def test_download_to_a_file(shell: Shell) -> None:
    """A file is replaced, except with `--no-overwrite`."""
    media_id = shell.upload("photo.jpg")
    target = shell.folder / "copy.jpg"
    target.write_bytes(b"old")
    refused = shell.run("download", media_id, "copy.jpg", "--no-overwrite")
    assert (refused.returncode, target.read_bytes()) == (1, b"old")
    done = shell.run("download", media_id, "copy.jpg", "--json")
    (told,) = lines(done.stdout)
    assert (done.returncode, told["path"], told["id"]) == (0, "copy.jpg", media_id)
    assert hashlib.sha256(target.read_bytes()).hexdigest() == told["sha256"]


def test_download_to_standard_output(shell: Shell) -> None:
    """`-` gives the bytes and nothing else on stdout; with `--json` the result goes to stderr."""
    media_id = shell.upload("clip.mp4")
    done = shell.run("download", media_id, "-", "--json")
    assert (done.returncode, done.stdout) == (0, SAMPLES["clip.mp4"].read_bytes())
    assert lines(done.stderr)[0]["size"] == len(done.stdout)
    assert shell.run("download", media_id, "-").stderr == b""


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_download_leaves_nothing(shell: Shell, slow: str, number: signal.Signals) -> None:
    """Ctrl-C in the middle of a download: status 130 (143 for SIGTERM), no file, no temporary file, no traceback."""
    with shell.start("download", "77", "copy.jpg", "--base-url", slow) as process:
        deadline = time.monotonic() + PATIENCE
        while not any(path.stat().st_size for path in shell.folder.iterdir()):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert errors == b"meta-media: interrupted\n"
    assert list(shell.folder.iterdir()) == []


@needs_posix
def test_interrupted_while_standard_input_is_silent(shell: Shell) -> None:
    """Ctrl-C ends an upload that waits for input which never comes."""
    with shell.start("upload", "-") as process:
        assert process.stdin is not None
        # More than a pipe holds: once it is written, somebody reads.
        process.stdin.write(SAMPLES["report.pdf"].read_bytes() + bytes(2**20))
        process.stdin.flush()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 130


def test_delete(shell: Shell) -> None:
    """`delete` prints the ids that are gone; `--missing-ok` makes a second time no error."""
    media_id = shell.upload("photo.jpg")
    done = shell.run("delete", media_id)
    assert (done.returncode, done.stdout.decode().split()) == (0, [media_id])
    assert shell.run("delete", media_id).returncode == 1
    again = shell.run("delete", media_id, "--missing-ok", "--json")
    (told,) = lines(again.stdout)
    assert (again.returncode, told["id"], told["success"]) == (0, media_id, False)


def test_send_to_several(shell: Shell) -> None:
    """One id goes to several people, as what its type says; each message's id is printed."""
    media_id = shell.upload("photo.jpg")
    done = shell.run("send", "+15550001111", "+1 555 000-2222", "--id", media_id, "--caption", "Hello")
    assert done.returncode == 0
    assert [line[:6] for line in done.stdout.decode().splitlines()] == ["wamid."] * 2
    told = lines(shell.run("send", "+15550001111", "--id", media_id, "--kind", "document", "--json").stdout)
    assert (told[0]["to"], told[0]["wa_id"]) == ("+15550001111", "15550001111")


def test_send_options_are_checked(shell: Shell) -> None:
    """What a kind of message does not take is wrong usage, before anything is sent."""
    assert shell.run("send", "+15550001111", "--id", "1", "--kind", "sticker", "--caption", "x").returncode == 2
    assert shell.run("send", "nobody", "--id", "1", "--kind", "image").returncode == 2
    assert shell.run("send", "+15550001111", "--id", "1", "--kind", "song").returncode == 2
    voice = shell.run("upload", SAMPLES["note.ogg"]).stdout.decode().strip()
    assert shell.run("send", "+15550001111", "--id", voice, "--voice").returncode == 0


def test_wrong_token(shell: Shell) -> None:
    """A token that Meta refuses is status 1 with code 190, and is never shown."""
    done = shell.run("upload", SAMPLES["photo.jpg"], "--json", CLOUD_API_ACCESS_TOKEN="EAAGcanary0123456789")
    (told,) = lines(done.stdout)
    assert (done.returncode, told["error"]["type"], told["error"]["code"]) == (1, "AuthenticationError", 190)


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        ({"CLOUD_API_ACCESS_TOKEN": ""}, ["info", "1"]),
        ({"CLOUD_API_ACCESS_TOKEN": "two words"}, ["info", "1"]),
        ({"WA_PHONE_NUMBER_ID": ""}, ["upload", "photo.jpg"]),
        ({"WA_PHONE_NUMBER_ID": "../x"}, ["upload", "photo.jpg"]),
        ({"WA_BASE_URL": "http://example.com"}, ["info", "1"]),
        ({}, ["info", "1", "--base-url", "nonsense:"]),
        ({}, ["info", "1", "--api-version", "newest"]),
        ({}, ["info", "a/b"]),
        ({}, ["info"]),
        ({}, ["info", "1", "--token", "x"]),
        ({}, ["explode"]),
        ({}, ["serve", "--port", "65536"]),
        ({}, ["upload", "a.jpg", "b.jpg", "--filename", "c.jpg"]),
    ],
)
def test_wrong_usage(shell: Shell, variables: dict[str, str], arguments: list[str]) -> None:
    """Wrong usage, or a token or number that is missing or cannot be one: status 2 and one sentence."""
    shell = attrs.evolve(shell, environment=shell.environment | variables)
    done = shell.run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(b"meta-media: ")
    told = lines(shell.run(*arguments, "--json").stdout)
    assert told[-1]["error"]["message"]


def test_serve_with_faults(shell: Shell) -> None:
    """`serve --faults` does what the file says to the first requests it is about, and then serves them as ever."""
    (shell.folder / "faults.toml").write_text(
        '[[fault]]\noperation = "get_info"\ntimes = 2\nkind = "html"\nstatus = 502\n'
        '[[fault]]\noperation = "any"\nat = "head"\nend = "reset"\n'
    )
    arguments = ("--port", "0", "--data", shell.folder / "data", "--faults", shell.folder / "faults.toml", "--json")
    with shell.start("serve", *arguments) as process:
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
    assert errors == b"faults planned: 2\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        ("[[fault", "the file is not TOML: "),
        ('[[fault]]\noperation = "any"\nstauts = 500', "fault 1: there is no 'stauts'; there are operation, times, "),
    ],
)
def test_faults_that_cannot_be_read(shell: Shell, content: str | None, why: str) -> None:
    """A wrong file of faults: status 2 and one sentence, before anything is started."""
    file = shell.folder / "faults.toml"
    if content is not None:
        file.write_text(content)
    done = shell.run("serve", "--port", "0", "--data", shell.folder / "data", "--faults", file)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1)
    assert f"faults.toml cannot be used as a file of faults: {why}" in done.stderr.decode()
    assert not (shell.folder / "data").exists()


def test_token_on_the_command_line(shell: Shell) -> None:
    """There is no option for the token, and whoever tries does not see it repeated."""
    for attempt in (["--access-token=EAAGcanary"], ["--access-token", "EAAGcanary"], ["--token=EAAGcanary", "--json"]):
        for arguments in (["info", "1", *attempt], ["upload", *attempt, "photo.jpg"], [*attempt, "info", "1"]):
            done = shell.run(*arguments)
            assert (done.returncode, b"canary" in done.stdout + done.stderr) == (2, False), done


def test_unplugged_server(shell: Shell) -> None:
    """Nothing listens: status 1, in one sentence."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = shell.run("upload", SAMPLES["photo.jpg"], WA_BASE_URL=base_url)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, b"", 1)
        assert b"could not connect" in done.stderr
        assert (
            lines(shell.run("info", "1", "--json", WA_BASE_URL=base_url).stdout)[0]["error"]["type"] == "NetworkError"
        )


@needs_posix
def test_results_that_cannot_be_written(shell: Shell) -> None:
    """A full disk is one sentence and status 1; a reader that left is status 1 without words."""
    with Path("/dev/full").open("wb") as full, shell.start("check", SAMPLES["photo.jpg"], stdout=full) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, len(errors.splitlines())) == (1, 1)
    with shell.start("check", *SAMPLES.values()) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (1, b"")


@needs_posix
@pytest.mark.parametrize("name", ["photo.jpg", "large.txt"])
def test_download_that_cannot_be_written(shell: Shell, name: str) -> None:
    """Standard output on a full disk, or whose reader left, is one sentence and status 1, whatever the size."""
    (shell.folder / "large.txt").write_bytes(b"A line of text.\n" * 2**18)
    media_id = (
        shell.run("upload", shell.folder / name if name == "large.txt" else SAMPLES[name]).stdout.decode().strip()
    )
    with Path("/dev/full").open("wb") as full, shell.start("download", media_id, "-", stdout=full) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, len(errors.splitlines())) == (1, 1), errors
    with shell.start("download", media_id, "-") as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, len(errors.splitlines())) == (1, 1), errors


def test_closed_streams(shell: Shell) -> None:
    """A parent may have closed the standard streams: the work is done all the same."""
    code = "import os, sys; [os.close(n) for n in (0, 1, 2)]; os.execv(sys.executable, sys.argv[1:])"
    arguments = [sys.executable, "-c", code, *shell.command("download", shell.upload("photo.jpg"), "copy.jpg")]
    done = subprocess.run(arguments, cwd=shell.folder, env=shell.environment, timeout=PATIENCE, check=False)
    assert (done.returncode, (shell.folder / "copy.jpg").stat().st_size) == (0, 4346)


def test_version_and_help(shell: Shell) -> None:
    """`--version` and `--help` go to stdout with status 0, and every command explains itself."""
    assert re.fullmatch(r"meta-media \d+\.\d+\S*\s*", shell.run("--version").stdout.decode())
    for arguments in (
        [],
        *([name] for name in ["demo", "serve", "check", "upload", "info", "download", "delete", "send"]),
    ):
        done = shell.run(*arguments, "--help", COLUMNS="80")
        assert (done.returncode, done.stderr) == (0, b"")
        assert "Usage: meta-media" in done.stdout.decode()
        assert max(map(len, done.stdout.decode().splitlines())) <= 80
