"""The command line as tests use it: run in this process, started as a process of its own, or watched on a terminal."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import io
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest

from meta_media import samples
from meta_media.cli.app import run

PATIENCE = 60  # seconds that a process may take
SAMPLES = {path.name: path for path in samples.paths()}
TOKEN = "EAAGcanary0123456789"  # one that no emulator accepts
_ABSENT = ("WA_", "CLOUD_API_", "COLUMNS", "LINES")  # pytest-xdist sets the last two, which hide a terminal's own size
needs_posix = pytest.mark.skipif(os.name == "nt", reason="signals, pseudo-terminals and odd file names are POSIX")


def bare_environment() -> dict[str, str]:
    """Return this process's environment without credentials, addresses and the size of a terminal."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_ABSENT)}


def command(*arguments: str | Path) -> list[str]:
    """Return the program's command line."""
    return [sys.executable, "-m", "meta_media", *(os.fspath(argument) for argument in arguments)]


@attrs.frozen(kw_only=True)
class Shell:
    """A current folder and an environment, in which the program is run."""

    folder: Path
    environment: dict[str, str] = attrs.field(factory=bare_environment)

    def run(self, *arguments: str | Path, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command in this process, under the detector of blocking calls, with files as its standard streams."""
        environment = self.environment | variables
        tokens = [os.fspath(argument) for argument in arguments]
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            files[0].write(stdin)
            files[0].seek(0)
            streams = [io.TextIOWrapper(file) for file in files]
            for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
                stack.enter_context(mock.patch.object(sys, name, stream))
            stack.enter_context(mock.patch.dict(os.environ, environment, clear=True))
            stack.enter_context(contextlib.chdir(self.folder))
            status = run(tokens)
            for stream, file in zip(streams[1:], files[1:], strict=True):
                stream.flush()
                file.seek(0)
            output, errors = (file.read() for file in files[1:])
        done = subprocess.CompletedProcess(tokens, status, output, errors)
        return self.checked(done, environment)

    def checked(
        self, done: subprocess.CompletedProcess[bytes], environment: dict[str, str]
    ) -> subprocess.CompletedProcess[bytes]:
        """Assert what holds for each command: no traceback, no token, no signed query."""
        said = done.stdout + done.stderr
        token = environment.get("CLOUD_API_ACCESS_TOKEN", "")
        assert b"Traceback" not in said
        assert not token or token.encode() not in said
        assert not re.search(rb"[?&](hash|ext|sig)[^ ]*=", said), "a signed query was shown"
        return done

    def spawn(self, *arguments: str | Path, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command in a process of its own, with pipes as its standard streams."""
        environment = self.environment | variables
        done = subprocess.run(
            command(*arguments),
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env=environment,
            timeout=PATIENCE,
            check=False,
        )
        return self.checked(done, environment)

    def start(self, *arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command in a process of its own."""
        defaults = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        settings: dict[str, Any] = {**defaults, "cwd": self.folder, "env": self.environment, **options}
        return subprocess.Popen(command(*arguments), **settings)

    def with_variables(self, variables: Mapping[str, str]) -> Shell:
        """Return a shell in the same folder with more environment variables."""
        return attrs.evolve(self, environment={**self.environment, **variables})

    def upload(self, name: str) -> str:
        """Upload a sample and return its id."""
        return self.run("upload", SAMPLES[name]).stdout.decode().strip()

    def photos(self, count: int, *, folder: str = "photos") -> list[str]:
        """Make different photos, and return their names."""
        photo = SAMPLES["photo.jpg"].read_bytes()
        (self.folder / folder).mkdir(parents=True, exist_ok=True)
        names = [f"{folder}/{number:03}.jpg" for number in range(count)]
        for number, name in enumerate(names):
            (self.folder / name).write_bytes(photo + number.to_bytes(4) + os.urandom(4))
        return names

    def stored(self, ids: Sequence[str]) -> list[str]:
        """Return the SHA-256 that the server has under these ids."""
        return [found["sha256"] for found in lines(self.run("info", *ids, "--json").stdout)]

    def sha256(self, names: Sequence[str]) -> list[str]:
        """Hash files of the folder."""
        return [hashlib.sha256((self.folder / name).read_bytes()).hexdigest() for name in names]

    @contextlib.contextmanager
    def serving(self, *arguments: str | Path) -> Iterator[dict[str, str]]:
        """Run `serve` on a free port for as long as a block lasts, and yield the variables that it prints."""
        with self.start("serve", "--port", "0", *arguments, "--json", stderr=None) as process:
            assert process.stdout is not None
            try:
                told = json.loads(process.stdout.readline())
                yield {name: value for name, value in told.items() if name.isupper()}
            finally:
                process.terminate()
                process.communicate(timeout=PATIENCE)

    def watch(self, *arguments: str | Path, columns: int = 80, until: str = "", **variables: str) -> Seen:
        """Run a command on a terminal of its own. Ctrl-C is pressed when it shows the pattern `until`."""
        import fcntl
        import pty
        import struct
        import termios

        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        # setsid gives the program a terminal of its own, which turns the key into a signal.
        process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *command(*arguments)],
            cwd=self.folder,
            env={**self.environment, "TERM": "xterm-256color", **variables},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        received, pressed = "", not until
        decoder = codecs.getincrementaldecoder("utf-8")()
        deadline = time.monotonic() + PATIENCE
        with process, contextlib.closing(os.fdopen(ours, "r+b", buffering=0)) as terminal:
            while time.monotonic() < deadline:
                if not select.select([terminal], [], [], 0.1)[0]:
                    continue
                try:
                    received += decoder.decode(terminal.read(65536))
                except OSError:  # Linux says EIO when the other end is closed
                    break
                if not pressed and re.search(until, visible(received)):
                    terminal.write(b"\x03")
                    pressed = True
            status = process.wait(PATIENCE)
        screen = Screen()
        screen.feed(received)
        return Seen(status=status, screen=screen, received=received)


def lines(output: bytes) -> list[dict[str, Any]]:
    """Decode JSON lines."""
    return [json.loads(line) for line in output.splitlines()]


def words_of(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """Return the lines on standard output."""
    return done.stdout.decode().splitlines()


def table_of(text: str) -> dict[str, str]:
    """Read the table of a summary."""
    return dict(re.findall(r"^ ([a-z ]+?) {2,}(\S.*)$", text, re.MULTILINE))


def visible(received: str) -> str:
    """Return what a terminal received without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", received).replace("\r\n", "\n")


class Screen:
    """What a terminal shows, for a program that uses the few controls that bars need."""

    def __init__(self) -> None:
        self._rows: list[str] = [""]
        self._row = self._column = 0
        self.widest = 0  # columns of the widest line with a bar

    def feed(self, text: str) -> None:
        """Take what the program wrote."""
        for argument, control, character in re.findall(r"\x1b\[([0-9;?]*)([A-Za-z])|([^\x1b])", text):
            if control or character in "\r\n":
                row = self._rows[self._row].rstrip()
                self.widest = max(self.widest, len(row) if "━" in row else 0)
            if control == "A":
                self._row -= int(argument or 1)
                assert self._row >= 0
            elif control == "K":
                self._rows[self._row] = ""
            elif character == "\r":
                self._column = 0
            elif character == "\n":
                self._row += 1
                self._rows += [""] * (self._row + 1 - len(self._rows))
            elif character:
                row = self._rows[self._row].ljust(self._column)
                self._rows[self._row] = row[: self._column] + character + row[self._column + 1 :]
                self._column += 1

    @property
    def lines(self) -> list[str]:
        """The rows, also those that have scrolled away."""
        return [row.rstrip() for row in self._rows]


@attrs.frozen(kw_only=True)
class Seen:
    """What a terminal received."""

    status: int  # of the program's exit
    screen: Screen  # at the end
    received: str  # with control sequences

    @property
    def text(self) -> str:
        """The screen as one text."""
        return "\n".join(self.screen.lines)

    def assert_clean(self) -> None:
        """Assert that no bar is left on the screen, and that the cursor is visible again."""
        assert "━" not in self.text
        assert self.received.count("\x1b[?25l") == self.received.count("\x1b[?25h") > 0
