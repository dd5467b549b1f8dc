"""The command line with many files: folders, lists, journals, the library, interruptions, and what a person sees."""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
import re
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest
from rich.cells import cell_len

from meta_media import BulkReport
from meta_media.cli.summaries import Labels, Summary
from tests.cli.test_cli import PATIENCE, SAMPLES, Shell, lines
from tests.cli.test_demo import bare_environment, command, serving

PHOTO = SAMPLES["photo.jpg"].read_bytes()
needs_posix = pytest.mark.skipif(
    os.name == "nt", reason="signals, pseudo-terminals and odd file names are POSIX matters"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An emulator in a process of its own, as the variables that lead to it."""
    folder = tmp_path_factory.mktemp("served")
    with serving("--port", "0", "--data", folder / "data", folder=folder) as (_, told):
        yield bare_environment() | {name: value for name, value in told.items() if name.isupper()}


@pytest.fixture
def shell(served: dict[str, str], tmp_path: Path) -> Shell:
    """An empty folder to stand in, with the emulator's variables; a library of its own, too."""
    folder = tmp_path / "here"
    folder.mkdir()
    return Shell(folder=folder, environment={**served, "XDG_CACHE_HOME": str(tmp_path / "cache")})


def photos(shell: Shell, count: int, *, folder: str = "photos") -> list[str]:
    """Make so many different photos, and return their names."""
    (shell.folder / folder).mkdir(parents=True, exist_ok=True)
    names = [f"{folder}/{number:03}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        (shell.folder / name).write_bytes(PHOTO + number.to_bytes(4) + os.urandom(4))
    return names


def words_of(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """Return the lines on standard output."""
    return done.stdout.decode().splitlines()


def table_of(said: bytes) -> dict[str, str]:
    """Read the table at the end of what was said to people."""
    found = re.findall(r"^ ([a-z ]+?) {2,}(\S.*)$", said.decode(), re.MULTILINE)
    return dict(found)


def stored(shell: Shell, ids: Sequence[str]) -> list[str]:
    """Ask which bytes the server has under these ids."""
    return [found["sha256"] for found in lines(shell.run("info", *ids, "--json").stdout)]


def sha256(shell: Shell, names: Sequence[str]) -> list[str]:
    """Hash files of the shell's folder."""
    return [hashlib.sha256((shell.folder / name).read_bytes()).hexdigest() for name in names]


# What to work on


@needs_posix
def test_a_folder_is_walked_in_order(shell: Shell) -> None:
    """`--recursive` takes files by name, sub-folders after them; no hidden ones, no pipes, and no circles of links."""
    below, above = photos(shell, 2, folder="photos/below"), photos(shell, 2)
    (shell.folder / "photos" / ".hidden.jpg").write_bytes(PHOTO)
    photos(shell, 1, folder="photos/.thumbnails")
    (shell.folder / "photos" / "circle").symlink_to(shell.folder / "photos")
    (shell.folder / "photos" / "itself").symlink_to("itself")
    (shell.folder / "photos" / "link.jpg").symlink_to(SAMPLES["drawing.png"])
    os.mkfifo(shell.folder / "photos" / "pipe.jpg")

    done = shell.run("upload", "--recursive", "photos", "--json")

    assert done.returncode == 0, done.stderr
    assert [told["file"] for told in lines(done.stdout)] == [*above, "photos/link.jpg", *below]
    assert done.stderr == b"5 of 5 files uploaded\n"
    assert shell.run("upload", "-r", "photos/below").stdout.count(b"\n") == 2


def test_a_folder_without_recursive(shell: Shell) -> None:
    """A folder is one sentence that says what to pass, and disturbs no other file."""
    photos(shell, 3)
    done = shell.run("upload", "photos", SAMPLES["photo.jpg"])
    assert (done.returncode, len(words_of(done))) == (1, 1)
    sentence, counted = done.stderr.decode().splitlines()
    assert sentence == "meta-media: 'photos' is a folder: pass --recursive to upload the files in it"
    assert counted == "1 of 2 files uploaded"


def test_an_empty_folder_and_an_empty_list(shell: Shell) -> None:
    """Nothing to do is no failure, and said."""
    (shell.folder / "empty").mkdir()
    (shell.folder / "list.txt").write_bytes(b"\r\n\n")
    for arguments in (["--recursive", "empty"], ["--from", "list.txt"]):
        done = shell.run("upload", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"there was nothing to do: no files\n")


@needs_posix
def test_a_folder_that_cannot_be_read(shell: Shell) -> None:
    """A sub-folder that the system refuses, here for the length of its path, is a failure, and the others are uploaded."""
    photos(shell, 1, folder="photos/a")
    photos(shell, 1, folder="photos/b")
    deeper = os.open(shell.folder / "photos" / "a", os.O_RDONLY)
    for _ in range(20):  # 250 bytes each; a path has 4,096 at most
        os.mkdir("d" * 250, dir_fd=deeper)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=deeper)
        os.close(deeper)
        deeper = inner
    os.close(deeper)
    done = shell.run("upload", "--recursive", "photos", "--json")
    shutil.rmtree(shell.folder / "photos")
    first, refused, last = lines(done.stdout)
    assert (done.returncode, first["file"], last["file"]) == (1, "photos/a/000.jpg", "photos/b/000.jpg")
    assert refused["error"]["message"].startswith("could not read the folder 'photos/a/ddd")
    assert refused["error"]["message"].endswith("': File name too long")


def test_a_list_in_a_file(shell: Shell) -> None:
    """`--from` takes one name per line, as any editor on any system writes them, after the arguments."""
    names = photos(shell, 4)
    (shell.folder / "list.txt").write_bytes(
        b"\xef\xbb\xbf" + "\r\n\r\n".join(names[1:3]).encode() + b"\n" + names[3].encode()
    )
    done = shell.run("upload", names[0], "--from", "list.txt", "--concurrency", "2")
    assert (done.returncode, stored(shell, words_of(done))) == (0, sha256(shell, names))


@needs_posix
def test_a_list_of_names_with_newlines(shell: Shell) -> None:
    """`-0` takes what `find -print0` writes, whatever is in a name, and nothing of it harms the terminal."""
    names = ["a\nb.jpg", " c .jpg", "\x1b[31mred.jpg", "-", "--json"]
    for name in names:
        (shell.folder / name).write_bytes(PHOTO + name.encode())
    missing = "\x1b]0;title\x07\nno.jpg"
    listed = "\0".join([*(f"./{name}" for name in names), "-", missing, ""]).encode()
    done = shell.run("upload", "--from", "-", "-0", "--json", stdin=listed)
    told = lines(done.stdout)
    assert (done.returncode, [one["file"] for one in told[:6]]) == (1, [*(f"./{name}" for name in names), "./-"])
    assert all(one["id"].isdecimal() for one in told[:6]), "in a list, a hyphen is no more than a name"
    assert len(done.stderr.splitlines()) == 2
    assert b"\x1b" not in done.stdout + done.stderr


def test_a_list_is_worked_on_as_it_comes(shell: Shell) -> None:
    """Whoever writes the list into a pipe may wait for each id before the next name."""
    names = photos(shell, 3)
    with shell.start("upload", "--from", "-") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ids = []
        for name in names:
            process.stdin.write(f"{name}\n".encode())
            process.stdin.flush()
            ids.append(process.stdout.readline().decode().strip())
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (0, b"3 of 3 files uploaded\n")
    assert stored(shell, ids) == sha256(shell, names)


def test_a_list_is_read_no_further_than_needed(shell: Shell) -> None:
    """An endless list costs nothing: when the run is over, the rest is left where it is, and nobody waits for its writer."""
    (name,) = photos(shell, 1)
    environment = {**shell.environment, "CLOUD_API_ACCESS_TOKEN": "EAAGcanary0123456789"}
    with attrs.evolve(shell, environment=environment).start("upload", "--from", "-", "--concurrency", "1") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        written = 0
        with contextlib.suppress(BrokenPipeError):
            while True:
                written += process.stdin.write(f"{name}\n".encode() * 1000)
                assert written < 2**24, "all of it was read"
        status = process.wait(PATIENCE)
        said = process.stderr.read().decode()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdin = None
    assert status == 1
    assert "the rest of the files were not tried" in said
    assert said.count("code 190") == 1


def test_nobody_waits_for_a_silent_list(shell: Shell) -> None:
    """A dead token ends the program although the pipe with the list stays open and silent."""
    (name,) = photos(shell, 1)
    environment = {**shell.environment, "CLOUD_API_ACCESS_TOKEN": "EAAGcanary0123456789"}
    with attrs.evolve(shell, environment=environment).start("upload", "--from", "-") as process:
        assert process.stdin is not None
        process.stdin.write(f"{name}\n".encode())
        process.stdin.flush()
        assert process.wait(PATIENCE) == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["upload"], "there is nothing to do: pass files, or a list of them with --from"),
        (["download", "--to", "x"], "pass ids, or a list of them with --from"),
        (["delete"], "pass ids, or a list of them with --from"),
        (["delete", "1", "--null"], "--null says how --from is to be read"),
        (["upload", "-", "--from", "-"], "standard input can be uploaded only once, or be the list"),
        (["upload", "--from", "list", "--filename", "a.jpg"], "--filename is for one file"),
        (["upload", "-r", "photos", "--filename", "a.jpg"], "--filename is for one file"),
        (["upload", "a.jpg", "--reuse", "--journal", "j"], "--reuse needs no --journal"),
        (["upload", "a.jpg", "--library", "l", "--use-case", "x"], "--reuse does not go with --use-case"),
        (["upload", "a.jpg", "--concurrency", "0"], "concurrency must be a whole number above zero, not 0"),
        (["upload", "a.jpg", "--rate", "0"], "uploads_per_second must be a positive number"),
        (["upload", "--from", "nowhere.txt"], "nowhere.txt cannot be used as a list: No such file or directory"),
        (["delete", "--from", "."], ". cannot be used as a list: Is a directory"),
        (["delete", "--from", "endless"], "endless is no list: it has a name that does not end"),
        (["download", "1", "2", "3"], "several ids go to a folder: pass --to FOLDER"),
        (["download", "1045500012345678", "1045500012345679"], "1045500012345679 looks like another id"),
        (["download", "1", "--journal", "j"], "--journal is for downloads to a folder"),
        (["download", "1", "--overwirte"], 'Unknown option: "--overwirte"'),
        (["delete", "1", "--journal", "text"], "'text' is no journal, but some other file"),
    ],
)
@needs_posix
def test_wrong_usage(shell: Shell, arguments: list[str], why: str) -> None:
    """What cannot be meant is one sentence and status 2; nothing is made, nothing is sent."""
    (shell.folder / "endless").write_bytes(b"1" * 2**17)
    (shell.folder / "text").write_bytes(b"a text that is no database, and long enough to be looked at" * 100)
    done = shell.run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert len(done.stderr.splitlines()) == 1
    assert why in done.stderr.decode()
    assert {path.name for path in shell.folder.iterdir()} == {"endless", "text"}


# What comes of them


def test_json_of_many(shell: Shell) -> None:
    """Each outcome is an object that says its place, its source, what came of it, and how it went."""
    names = photos(shell, 12)
    (shell.folder / names[5]).write_bytes(b"")
    done = shell.run("upload", *names, "--json")
    told = lines(done.stdout)
    assert done.returncode == 1
    assert [(one["index"], one["file"]) for one in told] == list(enumerate(names))
    assert {(one["skipped"], one["tried"]) for one in told} == {(False, True)}
    assert [one["attempts"] for one in told] == [1] * 5 + [0] + [1] * 6
    assert all(one["seconds"] >= 0 for one in told)
    assert told[5]["error"]["type"] == "CorruptedMediaError"
    expected = {"files": "12", "uploaded": "11", "skipped": "0", "failed": "1", "not tried": "0"}
    table = table_of(done.stderr)
    assert {name: table[name] for name in expected} == expected
    assert table["bytes"].endswith(" kB")
    assert re.fullmatch(r"[\d.]+ s", table["time"])
    assert re.fullmatch(r"[\d.,]+ files/s, [\d.]+ [kM]?B/s", table["rate"].replace("bytes", "B"))
    assert "✗" not in done.stderr.decode(), "a log has the failure already"


def test_a_dead_token(shell: Shell) -> None:
    """One sentence, however many files there are, and every one of them has its object."""
    names = photos(shell, 40)
    environment = {**shell.environment, "CLOUD_API_ACCESS_TOKEN": "EAAGcanary0123456789"}
    done = attrs.evolve(shell, environment=environment).run("upload", *names, "--json", "--concurrency", "4", "--quiet")
    told = lines(done.stdout)
    assert (done.returncode, [one["file"] for one in told]) == (1, names)
    tried = [one for one in told if one["tried"]]
    assert 1 <= len(tried) <= 4
    assert {one["error"]["code"] for one in told} == {190}
    said = done.stderr.decode().splitlines()
    assert sum("code 190" in line for line in said) == 1
    stopped = f"stopped, because the others would meet the same: {40 - len(tried)} of 40 files were not tried"
    assert said[-1] == f"meta-media: {stopped}"
    same = [line.partition("the same ")[2] for line in said if "the same (" in line]
    assert same == ([f"({len(tried) - 1} more)"] if len(tried) > 1 else [])


def test_an_unplugged_server(shell: Shell) -> None:
    """Nobody there is said once, and for how many files it is the same."""
    names = photos(shell, 14)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = shell.run("upload", *names, "--concurrency", "14", "--quiet", WA_BASE_URL=base_url)
    assert (done.returncode, done.stdout) == (1, b"")
    first, others = done.stderr.decode().splitlines()
    assert first.startswith(f"meta-media: {names[0]}: ")
    assert "could not connect" in first
    assert others == f"meta-media: {names[1]} to {names[13]}: the same (13 more)"


def test_a_wrong_id_in_a_list_is_a_failure_like_others(shell: Shell) -> None:
    """`delete --from` goes on, tells each sentence, and ends with status 1, not 2, because something was done."""
    ids = shell.run("upload", *photos(shell, 2)).stdout.decode().split()
    listed = f" {ids[0]} \nno/id\n{'4' * 15}\n{ids[1]}\n".encode()
    done = shell.run("delete", "--from", "-", stdin=listed)
    assert (done.returncode, words_of(done)) == (1, ids)
    wrong, unknown, counted = done.stderr.decode().splitlines()
    assert "the media id must be digits, not 'no/id'" in wrong
    assert "4" * 15 in unknown
    assert counted == "2 of 4 ids deleted"


def test_a_reader_that_left(shell: Shell) -> None:
    """A closed pipe ends the run with status 1 and without words."""
    names = photos(shell, 20)
    with shell.start("upload", *names) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, b"meta-media:" in said) == (1, False), said


# Again


def test_a_journal_skips_what_is_done(shell: Shell) -> None:
    """The same command again prints the same ids, uploads nothing twice, and says so; what failed is tried again."""
    names = photos(shell, 12)
    content = (shell.folder / names[3]).read_bytes()
    (shell.folder / names[3]).write_bytes(b"")
    first = shell.run("upload", "-r", "photos", "--journal", "run.sqlite")
    (shell.folder / names[3]).write_bytes(content)
    again = shell.run("upload", "-r", "photos", "--journal", "run.sqlite", "--json")
    assert (first.returncode, again.returncode) == (1, 0)
    ids = [one["id"] for one in lines(again.stdout)]
    assert [one for index, one in enumerate(ids) if index != 3] == words_of(first)
    assert [one["skipped"] for one in lines(again.stdout)] == [index != 3 for index in range(12)]
    assert table_of(again.stderr)["skipped"] == "11  done by an earlier run"
    assert shell.run("upload", *names[:2], "--journal", "run.sqlite").stderr.decode() == (
        "2 of 2 files uploaded, 2 of them by an earlier run\n"
    )


def test_a_journal_of_downloads_and_deletes(shell: Shell) -> None:
    """A download is skipped while its file is there; a delete is skipped for good."""
    names = photos(shell, 3)
    ids = shell.run("upload", *names).stdout.decode().split()
    first = shell.run("download", *ids, "--to", "got/here", "--journal", "run.sqlite")
    paths = words_of(first)
    assert (first.returncode, sha256(shell, paths)) == (0, sha256(shell, names))
    assert {str(Path(path).parent) for path in paths} == {"got/here"}
    (shell.folder / paths[1]).unlink()
    again = shell.run("download", *ids, "--to", "got/here", "--journal", "run.sqlite", "--json")
    assert [one["skipped"] for one in lines(again.stdout)] == [True, False, True]
    assert [one["path"] for one in lines(again.stdout)] == paths
    for skipped in (False, True):
        done = shell.run("delete", *ids, "--journal", "run.sqlite", "--json")
        assert (done.returncode, {one["skipped"] for one in lines(done.stdout)}) == (0, {skipped})


def test_reuse(shell: Shell) -> None:
    """`--reuse` gives the same id for the same bytes, across runs; `--library` names the file, for others to share."""
    names = photos(shell, 2)
    first = shell.run("upload", *names, "--reuse")
    (shell.folder / "copy.jpg").write_bytes((shell.folder / names[1]).read_bytes())
    again = shell.run("upload", names[0], "copy.jpg", "--reuse", "--json")
    assert [one["id"] for one in lines(again.stdout)] == words_of(first)
    assert [one["reused"] for one in lines(again.stdout)] == [True, True]
    assert again.stderr == b"2 of 2 files uploaded, 2 of them reused\n"
    other = shell.run("upload", *names, "--library", "mine.sqlite")
    assert set(words_of(other)) & set(words_of(first)) == set()
    broken = shell.run("upload", *names, "--library", "photos")
    assert (broken.returncode, len(broken.stderr.splitlines())) == (1, 1)


def test_download_of_a_list(shell: Shell) -> None:
    """`download --from` goes to the folder one stands in, each file under a free name; an unknown id disturbs no other."""
    ids = shell.run("upload", *photos(shell, 2)).stdout.decode().split()
    (shell.folder / "ids.txt").write_text("\n".join([ids[0], "404", ids[1], ids[0]]))
    done = shell.run("download", "--from", "ids.txt")
    assert done.returncode == 1
    first, second, third = words_of(done)  # in the order of the list; of the same id twice, either may come first
    assert (second, sorted((first, third))) == (f"{ids[1]}.jpg", [f"{ids[0]} (2).jpg", f"{ids[0]}.jpg"])
    assert done.stderr.decode().splitlines()[1] == "3 of 4 files downloaded"


# Interrupted


@needs_posix
def test_interrupted_and_resumed(shell: Shell) -> None:
    """Ctrl-C says how far it came and how to go on; the same command does, and no file is uploaded twice."""
    names = photos(shell, 30)
    options = ("upload", "-r", "photos", "--journal", "run.sqlite")
    with shell.start(*options, "--rate", "2", "--concurrency", "2") as process:
        assert process.stdout is not None
        began = [process.stdout.readline().decode().strip() for _ in range(3)]
        os.kill(process.pid, signal.SIGINT)
        more, said = process.communicate(timeout=PATIENCE)
    acknowledged = [*began, *more.decode().split()]
    *_, how, last = said.decode().splitlines()
    assert (process.returncode, last) == (130, "meta-media: interrupted")
    assert how == "run the same command again, and it goes on from there"
    table = table_of(said)
    assert (table["files"], table["uploaded"]) == ("30", str(len(acknowledged)))
    assert table["not tried"] == str(30 - len(acknowledged)) != "0"
    again = shell.run(*options, "--json")
    ids = [one["id"] for one in lines(again.stdout)]
    assert (again.returncode, len(set(ids))) == (0, 30)
    assert set(acknowledged) <= set(ids)
    skipped = [one["id"] for one in lines(again.stdout) if one["skipped"]]
    assert set(acknowledged) <= set(skipped)
    assert stored(shell, ids) == sha256(shell, names)


def entries(library: Path) -> int:
    """Count what a library has, from outside."""
    with contextlib.closing(sqlite3.connect(library)) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM entries").fetchone()[0])
        except sqlite3.OperationalError:  # not made yet
            return 0


@needs_posix
def test_interrupted_tells_what_was_finished(shell: Shell) -> None:
    """Ids that wait for an earlier file are told before the end, for nobody else knows them."""
    names = photos(shell, 3)
    library = shell.folder / "library.sqlite"
    with shell.start("upload", "-", *names, "--json", "--library", library) as process:
        deadline = time.monotonic() + PATIENCE
        while entries(library) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)  # there is no event: it is another process
        time.sleep(0.5)  # from there to the outcome it has nothing to wait for, but the machine may be busy
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(PATIENCE) == 143  # and standard input is still open and silent
        output, said = process.communicate(timeout=PATIENCE)
    told = lines(output)
    assert [(one["index"], one["file"]) for one in told] == [(1, names[0]), (2, names[1]), (3, names[2])]
    assert stored(shell, [one["id"] for one in told]) == sha256(shell, names)
    counted, how, last = said.decode().splitlines()
    assert counted == "3 of 4 files uploaded"
    assert how == "run the same command again: what has been uploaded is reused"
    assert last == "meta-media: interrupted"


@needs_posix
def test_interrupted_without_a_journal(shell: Shell) -> None:
    """Whoever had no journal is told what it is for."""
    with shell.start("upload", "-", "missing.jpg") as process:
        assert process.stdin is not None
        process.stdin.write(SAMPLES["report.pdf"].read_bytes() + bytes(2**20))  # once it is written, somebody reads
        process.stdin.flush()
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "with --journal FILE, the same command run again would go on from there" in said.decode()


# On a terminal


class Screen:
    """What a terminal of so many columns shows, as far as its program uses the few controls that bars need."""

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._rows: list[str] = [""]
        self._row = self._column = 0
        self.widest = 0

    def feed(self, text: str) -> None:
        """Take what the program wrote."""
        for argument, control, character in re.findall(r"\x1b\[([0-9;?]*)([A-Za-z])|([^\x1b])", text):
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
                if character in "━╸╺":
                    self.widest = max(self.widest, len(self._rows[self._row]))

    @property
    def lines(self) -> list[str]:
        """The rows, also those that have scrolled away."""
        return [row.rstrip() for row in self._rows]


@attrs.frozen(kw_only=True)
class Seen:
    """What somebody at a terminal saw."""

    status: int
    screen: Screen
    received: str


def watch(shell: Shell, *arguments: str | Path, columns: int = 80, until: str = "", **variables: str) -> Seen:
    """Run the program on a terminal; when it shows something for which one waits, press Ctrl-C."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = shell.environment | {"TERM": "xterm-256color"} | variables
    # setsid: the terminal is the program's own, so that Ctrl-C is what the terminal makes of the key
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command(*arguments)],
        cwd=shell.folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    screen, received, pressed = Screen(columns), "", not until
    decoder = codecs.getincrementaldecoder("utf-8")()
    with contextlib.closing(os.fdopen(ours, "r+b", buffering=0)) as terminal, process:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 0.1)[0]:
                continue
            try:
                chunk = decoder.decode(terminal.read(65536))
            except OSError:  # Linux says EIO when nobody has the other end any more
                break
            received += chunk
            if not pressed and re.search(until, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", received)):
                terminal.write(b"\x03")
                pressed = True
        status = process.wait(PATIENCE)
    screen.feed(received)
    return Seen(status=status, screen=screen, received=received)


def mixed(shell: Shell) -> list[str]:
    """Make a folder of fifty files, of which two are bad, and name a third that is missing."""
    photos(shell, 47)
    (shell.folder / "photos" / "empty.jpg").touch()
    (shell.folder / "photos" / "moving.gif").write_bytes(b"GIF89a\x01\x00\x01\x00")
    return ["photos", "missing.png"]


@needs_posix
@pytest.mark.parametrize("columns", [40, 80, 120])
def test_fifty_files_on_a_terminal(shell: Shell, columns: int) -> None:
    """Bars while it runs, one for all; then ids with their files, a table, and the three that are bad, broken at words."""
    seen = watch(shell, "upload", "--recursive", *mixed(shell), "--rate", "40", "--concurrency", "1", columns=columns)
    said = seen.screen.lines
    assert seen.status == 1
    assert len([line for line in said if re.fullmatch(r"\d{16}  photos/\d{3}\.jpg", line)]) == 47
    table = table_of("\n".join(said).encode())
    shown = {name: table[name] for name in ("files", "uploaded", "skipped", "failed", "not tried")}
    assert shown == {"files": "50", "uploaded": "47", "skipped": "0", "failed": "3", "not tried": "0"}
    end = said[next(index for index, line in enumerate(said) if line.startswith(" rate")) + 1 :]
    assert len([line for line in end if line.startswith("✗ ")]) == 3
    assert max(map(cell_len, end)) < columns
    assert any(line.startswith("✗ could not open 'missing.png'") for line in end)
    assert "━" in seen.received
    assert re.search(r"\b\d/50\b", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.received))
    assert seen.screen.widest <= columns - 3
    assert not any("━" in line for line in said), "the bars were left behind"
    assert seen.received.count("\x1b[?25l") == seen.received.count("\x1b[?25h") > 0, "the cursor was not given back"


@needs_posix
def test_bars_of_transfers(shell: Shell) -> None:
    """Each upload and each download under way has a bar of its own, with its name and how far it is."""
    name = "large.txt"
    (shell.folder / name).write_bytes(b"A line of text.\n" * 2**21)
    media_id = ""
    for arguments, label in ((("upload", name, "missing.jpg"), "↑ large.txt"), (("download", "404"), "↓ ")):
        extra = (media_id, "--to", "got") if label == "↓ " else ()
        seen = watch(shell, *arguments, *extra)
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.received)
        assert seen.status == 1
        assert re.search(re.escape(f"{label}{media_id}") + r" +━\S* +[\d.]+/[\d.]+ MB", plain), plain
        assert re.search(r"\ball ━\S* [01]/2 ", plain)
        media_id = next(line for line in seen.screen.lines if line[:1].isdecimal() or "got/" in line).split()[0]


@needs_posix
def test_a_dumb_terminal(shell: Shell) -> None:
    """Where nothing can be redrawn there are no controls, and everything is said."""
    seen = watch(shell, "upload", "--recursive", *mixed(shell), TERM="dumb")
    assert seen.status == 1
    assert "\x1b" not in seen.received
    assert len([line for line in seen.screen.lines if line.startswith("✗ ")]) == 3


@needs_posix
def test_ctrl_c_on_a_terminal(shell: Shell) -> None:
    """The key ends it with the bars gone, the cursor back, and a word on how to go on."""
    photos(shell, 30)
    seen = watch(shell, "upload", "-r", "photos", "--rate", "2", "--journal", "run.sqlite", until=r"\d{16}  photos/")
    said = "\n".join(seen.screen.lines)
    assert seen.status == 130
    assert "run the same command again, and it goes on from there\nmeta-media: interrupted" in said
    assert "━" not in said
    assert seen.received.count("\x1b[?25l") == seen.received.count("\x1b[?25h") > 0
    again = watch(shell, "upload", "-r", "photos", "--journal", "run.sqlite")
    assert (again.status, table_of("\n".join(again.screen.lines).encode())["files"]) == (0, "30")


def test_a_tally_in_words() -> None:
    """Long runs, unknown ends, perhaps-duplicates and many failures read well."""
    words = Labels(key="file", items="files", done="uploaded")
    report = BulkReport(succeeded=20_000, skipped=5, failed=30, not_tried=2, bytes=5_000_000, seconds=3725.4)
    table = table_of("\n".join(Summary(report=report, reused=3, twice=1, unread=True).lines(words)).encode())
    assert table == {
        "files": "20,037+",
        "uploaded": "19,997",
        "reused": "3",
        "skipped": "5  done by an earlier run",
        "failed": "30",
        "not tried": "2",
        "perhaps twice": "1",
        "bytes": "5.0 MB",
        "time": "1:02:05",
        "rate": "5.4 files/s, 1.3 kB/s",
    }
    assert list(Summary(report=BulkReport(succeeded=3), unread=True).lines(words)) == ["3 files uploaded"]
    few = BulkReport(succeeded=2, failed=1, seconds=125.0)
    assert list(Summary(report=few, twice=1).lines(words)) == ["2 of 3 files uploaded, 1 of them perhaps twice"]
    assert " time           2:05 min" in list(Summary(report=few, total=11).lines(words))
    assert Summary(report=report).further == 20
    assert list(Summary(report=few).lines(Labels(key="to"))) == []
