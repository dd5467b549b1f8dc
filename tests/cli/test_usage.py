"""Wrong usage, help, and the standard streams."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.shell import PATIENCE, SAMPLES, TOKEN, Shell, bare_environment, command, lines, needs_posix

COMMANDS = ("demo", "samples", "serve", "receive", "check", "upload", "info", "download", "delete", "send")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["info"], "ID"),
        (["info", "a/b"], "the media id must be digits"),
        (["info", "1", "--base-url", "nonsense:"], "base_url"),
        (["info", "1", "--base-url", "http://example.com"], "http"),
        (["info", "1", "--api-version", "newest"], "api_version"),
        (["info", "1", "--token", "x"], "unknown option: --token"),
        (["explode"], "explode"),
        (["serve", "--port", "65536"], "65535"),
        (["check", "-", "-"], "standard input can be checked only once"),
        (["upload"], "there is nothing to do: pass files, or a list of them with --from"),
        (["upload", "-", "-"], "standard input can be read only once"),
        (["upload", "-", "--from", "-"], "standard input can be read only once: as one file, or as the list"),
        (["upload", "a.jpg", "b.jpg", "--filename", "c.jpg"], "--filename is for a single file"),
        (["upload", "--from", "list", "--filename", "a.jpg"], "--filename is for a single file"),
        (["upload", "-r", "photos", "--filename", "a.jpg"], "--filename is for a single file"),
        (["upload", "a.jpg", "--phone-number-id", "../x"], "phone_number_id"),
        (["upload", "a.jpg", "--reuse", "--journal", "j"], "--reuse needs no --journal"),
        (["upload", "a.jpg", "--library", "l", "--use-case", "x"], "--reuse does not work with --use-case"),
        (["upload", "a.jpg", "--concurrency", "0"], 'invalid value "0" for --concurrency: must be >= 1'),
        (
            ["upload", "a.jpg", "--concurrency", "99999999"],
            'invalid value "99999999" for --concurrency: must be <= 1000',
        ),
        (["upload", "a.jpg", "--rate", "inf"], "--rate must be a positive number, not inf"),
        (["check", "a.jpg", "b.jpg", "--filename", "c.jpg"], "--filename is for a single file"),
        (["serve", "now"], "unexpected argument: 'now'"),
        (["send", "-", "--to", "+15550001111"], 'upload standard input first, by "meta-media upload -"'),
        (["upload", "a.jpg", "--rate", "0"], 'invalid value "0.0" for --rate: must be > 0'),
        (["upload", "a.jpg", "--rate", "-1"], 'invalid value "-1.0" for --rate: must be > 0'),
        (["upload", "a.jpg", "--rate", "nan"], 'invalid value "nan" for --rate: must be > 0'),
        (["upload", "-rf.txt"], 'unknown option: "-rf.txt"'),
        (["upload", "a.jpg", "-x"], 'unknown option: "-x"'),
        (["check", "-rf.txt"], 'unknown option: "-rf.txt"'),
        (["upload", "a.jpg", "--verfiy"], 'unknown option: "--verfiy"'),
        (["upload", "a.jpg", "--ttl", "5m"], "--ttl must be from one hour to thirty days, such as 12h or 30d"),
        (["upload", "a.jpg", "--ttl", "soon"], "soon"),
        (["upload", "--from", "nowhere.txt"], "nowhere.txt cannot be used as a list: No such file or directory"),
        (["delete"], "pass ids, or a list of them with --from"),
        (["delete", "1", "--null"], "--null describes the list of --from: pass --from, too"),
        (["delete", "--from", "."], ". cannot be used as a list: Is a directory"),
        (["delete", "--from", "endless"], "endless is no list: a name in it has more than 65,536 bytes"),
        (["upload", "--from", "zero"], "zero is no list: a name in it has a NUL: pass --null if each ends with one"),
        (["delete", "1", "--journal", "text"], "'text' is no journal, but some other file"),
        (["download", "--to", "x"], "pass ids, or a list of them with --from"),
        (["download", "1", "2", "3"], "several ids go to a folder: pass --to FOLDER"),
        (["download", "1045500012345678", "1045500012345679"], "1045500012345679 looks like another id"),
        (["download", "1", "--journal", "j"], "--journal is for downloads to a folder"),
        (["download", "1", "--overwirte"], 'unknown option: "--overwirte"'),
        (["send", "--to", "+15550001111"], "ID|FILE"),
        (["send", "1"], "pass --to, or a list of them with --recipients"),
        (["send", "1", "--to", "nobody", "--kind", "image"], "recipient"),
        (["send", "1", "--to", "+15550001111", "--kind", "song"], "song"),
        (["send", "1", "--to", "+15550001111", "--kind", "sticker", "--caption", "x"], "--caption is for --kind"),
        (["send", "1", "--to", "+15550001111", "--null"], "--null describes the list of --recipients"),
        (["send", "1", "--recipients", "nowhere.txt"], "nowhere.txt cannot be used as a list"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@needs_posix
def test_wrong_usage(shell: Shell, arguments: list[str], why: str) -> None:
    """Wrong usage is one sentence, an object with `--json`, and status 2. No file is made, nothing is sent."""
    (shell.folder / "endless").write_bytes(b"1" * 2**17)
    (shell.folder / "zero").write_bytes(b"a.jpg\0b.jpg\0")
    (shell.folder / "text").write_bytes(b"a text that is no database, and long enough to be looked at" * 100)
    done = shell.run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert re.fullmatch(f"meta-media: .*{re.escape(why)}.*(?<!\\.)\n", done.stderr.decode())
    assert not re.match("meta-media: [A-Z][a-z]", done.stderr.decode()), "sentences begin as the others do"
    assert {path.name for path in shell.folder.iterdir()} == {"endless", "text", "zero"}
    assert lines(shell.run(*arguments, "--json").stdout)[-1]["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "status", "why"),
    [
        (
            ["song.mp3", "--voice"],
            2,
            "--voice is for Opus in Ogg only, not for audio/mpeg: leave it out, or convert the file",
        ),
        (["clip.mp4", "--voice"], 2, '--voice is for --kind "audio" only, not for "video"'),
        (
            ["photo.jpg", "--kind", "sticker"],
            2,
            "--kind sticker is not for image/jpeg: pass --kind image, or leave it out",
        ),
        (["note.ogg", "--caption", "x"], 2, '--caption is for --kind "document" or "image" or'),
        (["photo.jpg", "--caption", "x" * 1025], 2, "a caption must have at most 1024 characters, not 1025"),
        (["photo.jpg", "--to", "one", "--to", "two"], 2, "or a group id with --group, not 'one'"),
        (["note.gif"], 1, "'note.gif' is 'image/gif'"),
        (["photos"], 1, "could not open 'photos': Is a directory; pass the files in it"),
        (["photo.gif"], 1, "could not open 'photo.gif': No such file or directory"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
@needs_posix
def test_messages_that_cannot_be_sent(shell: Shell, arguments: list[str], status: int, why: str) -> None:
    """What would fail each message is found before the file is uploaded: no server is asked."""
    for name in ("clip.mp4", "note.ogg", "photo.jpg", "song.mp3"):
        (shell.folder / name).write_bytes(SAMPLES[name].read_bytes())
    (shell.folder / "note.gif").write_bytes(b"GIF89a\1\0\1\0")
    (shell.folder / "photos").mkdir()
    to = [] if "--to" in arguments else ["--to", "+15550001111"]
    done = shell.run("send", *arguments, *to, WA_BASE_URL="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (status, b"")
    assert re.fullmatch(f"meta-media: .*{re.escape(why)}.*\n", done.stderr.decode())


def test_the_name_that_is_sent(bare: Shell) -> None:
    """`check` says under which name a file is sent, if its own has another type's extension or is not safe."""
    names = {"photo.jpg": "photo.jpg", "fake.png": "fake.jpg", "a b:c.jpeg": "a b_c.jpeg", "plain": "plain.jpg"}
    for name in names:
        (bare.folder / name).write_bytes(SAMPLES["photo.jpg"].read_bytes())
    done = bare.run("check", *names)
    said = [
        f"{name}: remark: it is sent as {sent}, which is image/jpeg" for name, sent in names.items() if name != sent
    ]
    assert (done.returncode, done.stderr.decode().splitlines()) == (0, said)
    assert [line["filename"] for line in lines(bare.run("check", *names, "--json").stdout)] == list(names.values())
    piped = bare.run("check", "-", "--json", stdin=SAMPLES["photo.jpg"].read_bytes())
    named = bare.run("check", "photo.jpg", "--filename", "holiday", "--json")
    assert [line["filename"] for line in lines(piped.stdout + named.stdout)] == ["media.jpg", "holiday.jpg"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["check", "voice.webm"], "if it is only sound, pass --repackage"),
        (["check", "photo.jpg", "--mime-type", "image/png"], "pass --mime-type image/jpeg or send the right file"),
        (["check", "bytes"], "pass its type as --mime-type"),
        (["check", "photos"], "Is a directory; pass the files in it"),
        (["check", "nothing"], "could not open 'nothing': No such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@needs_posix
def test_advice_is_about_options(bare: Shell, arguments: list[str], why: str) -> None:
    """A sentence that names keywords of Python to those who call a function names options here."""
    (bare.folder / "photo.jpg").write_bytes(SAMPLES["photo.jpg"].read_bytes())
    (bare.folder / "voice.webm").write_bytes((Path(__file__).parents[1] / "media" / "voice.webm").read_bytes())
    (bare.folder / "bytes").write_bytes(bytes(range(256)))
    (bare.folder / "photos").mkdir()
    done = bare.run(*arguments)
    assert re.search(f"{re.escape(why)}(,|\n)", done.stdout.decode()), done.stdout


@pytest.mark.parametrize(
    ("name", "value"),
    [("CLOUD_API_ACCESS_TOKEN", ""), ("CLOUD_API_ACCESS_TOKEN", "two words"), ("WA_PHONE_NUMBER_ID", "")],
)
def test_credentials_that_are_missing(shell: Shell, name: str, value: str) -> None:
    """A missing or impossible token or number is status 2, and one sentence."""
    done = shell.with_variables({name: value}).run("upload", SAMPLES["photo.jpg"])
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, b"", 1)


def test_token_on_the_command_line(shell: Shell) -> None:
    """There is no option for the token, and the error does not repeat its value."""
    for attempt in (["--access-token=EAAGcanary"], ["--access-token", "EAAGcanary"], ["--token=EAAGcanary", "--json"]):
        for arguments in (["info", "1", *attempt], ["upload", *attempt, "photo.jpg"], [*attempt, "info", "1"]):
            done = shell.run(*arguments)
            assert (done.returncode, b"canary" in done.stdout + done.stderr) == (2, False), done


def test_wrong_token(shell: Shell) -> None:
    """A token that Meta refuses is status 1 with code 190, and is never shown."""
    done = shell.run("upload", SAMPLES["photo.jpg"], "--json", CLOUD_API_ACCESS_TOKEN=TOKEN)
    (told,) = lines(done.stdout)
    assert (done.returncode, told["error"]["type"], told["error"]["code"]) == (1, "AuthenticationError", 190)


def test_version_and_help(bare: Shell) -> None:
    """`--version` and `--help` go to stdout with status 0, and every command explains itself in 80 columns."""
    assert re.fullmatch(r"meta-media \d+\.\d+\S*\s*", bare.run("--version").stdout.decode())
    for arguments in ([], *([name] for name in COMMANDS)):
        done = bare.run(*arguments, "--help", COLUMNS="80")
        assert (done.returncode, done.stderr) == (0, b"")
        assert re.search(r"Usage: meta-media( \S+)* (COMMAND|\[OPTIONS\])", done.stdout.decode())
        assert not arguments or f"Example: meta-media {arguments[0]}" in done.stdout.decode()
        assert max(map(len, done.stdout.decode().splitlines())) <= 80


@pytest.mark.slow
@needs_posix
@pytest.mark.parametrize(
    "arguments", [["upload", "--json"], *(pytest.param([name], marks=pytest.mark.slow) for name in ("check", "demo"))]
)
def test_hostile_names(shell: Shell, arguments: list[str]) -> None:
    """Names cannot move the cursor, break lines, act as markup or, where they are not Unicode, stop the program."""
    names = [b"\x1b[31mred\x1b[0m\n.pdf", b"[bold]x[bold] :smile:.pdf", b"\xff\xfe.pdf", "\u202efdp.exe.pdf".encode()]
    for name in names:
        Path(os.fsdecode(os.fsencode(shell.folder) + b"/" + name)).write_bytes(SAMPLES["report.pdf"].read_bytes())
    files = sorted(path.name for path in shell.folder.iterdir())
    done = shell.spawn(*arguments, *files, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).isascii()
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\\x1b[31mred" in done.stdout or b"\\u001b[31mred" in done.stdout
    if "--json" in arguments:
        assert {line["file"] for line in lines(done.stdout)} == set(files)
    missing = shell.run("upload", "\x1b]0;title\x07\nfile.png")
    assert (len(missing.stderr.splitlines()), b"\x1b" in missing.stderr) == (1, False)


@needs_posix
@pytest.mark.parametrize("download", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["results", "a download"])
def test_output_that_cannot_be_written(shell: Shell, download: bool) -> None:
    """A full disk is one sentence and status 1. A closed pipe is status 1, without a sentence for results."""
    large = shell.folder / "large.txt"
    large.write_bytes(b"A line of text.\n" * 2**18)
    arguments: tuple[str | Path, ...] = ("check", *SAMPLES.values())
    if download:
        arguments = ("download", shell.run("upload", large).stdout.decode().strip(), "-")
    with Path("/dev/full").open("wb") as full, shell.start(*arguments, stdout=full) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, len(errors.splitlines())) == (1, 1), errors
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed, shell.start(*arguments, stdout=closed) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, len(errors.splitlines())) == (1, int(download)), errors


@pytest.mark.slow
def test_closed_streams(shell: Shell) -> None:
    """The work is done also where the parent process has closed the standard streams."""
    code = "import os, sys; [os.close(n) for n in (0, 1, 2)]; os.execv(sys.executable, sys.argv[1:])"
    arguments = [sys.executable, "-c", code, *command("download", shell.upload("photo.jpg"), "copy.jpg")]
    done = subprocess.run(arguments, cwd=shell.folder, env=shell.environment, timeout=PATIENCE, check=False)
    assert (done.returncode, (shell.folder / "copy.jpg").stat().st_size) == (0, 4346)


@pytest.mark.slow
@needs_posix
@pytest.mark.parametrize("arguments", [["upload", "photo.jpg"], ["send", "1", "--to", "+15550001111"]])
def test_ids_are_not_lost_with_a_closed_stream(shell: Shell, arguments: list[str]) -> None:
    """Where standard output is closed, what has ids as its result does nothing, and says why."""
    (shell.folder / "photo.jpg").write_bytes(SAMPLES["photo.jpg"].read_bytes())
    code = "import os, sys; os.close(1); os.execv(sys.executable, sys.argv[1:])"
    closed = [sys.executable, "-c", code, *command(*arguments)]
    done = subprocess.run(
        closed, cwd=shell.folder, env=shell.environment, stderr=subprocess.PIPE, timeout=PATIENCE, check=False
    )
    said = b"meta-media: standard output is closed, and the ids would be lost: redirect it to a file\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.slow
@needs_posix
def test_ids_that_cannot_be_written(shell: Shell) -> None:
    """On a full disk the ids of what was uploaded go to standard error."""
    with Path("/dev/full").open("wb") as full:
        process = shell.start("upload", SAMPLES["photo.jpg"], "--json", stdout=full)
        _, errors = process.communicate(timeout=PATIENCE)
    result, sentence = errors.splitlines()
    assert (process.returncode, sentence) == (1, b"meta-media: could not write the results: No space left on device")
    assert shell.stored([lines(result)[0]["id"]]) == [hashlib.sha256(SAMPLES["photo.jpg"].read_bytes()).hexdigest()]


@pytest.mark.slow
def test_completion_edits_no_start_up_file(bare: Shell, tmp_path: Path) -> None:
    """The completion script is written to its own place; no file of the shell is edited, and the help says so."""
    (tmp_path / ".bashrc").write_text("mine\n")
    done = bare.spawn("--install-completion", "--shell", "bash", HOME=os.fspath(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".bashrc").read_text() == "mine\n"
    assert (tmp_path / ".local/share/bash-completion/completions/meta-media").exists()
    assert b"No start-up file is edited" in b" ".join(bare.run("--help", COLUMNS="200").stdout.split())


def test_missing_extra() -> None:
    """Without its packages, the program prints in one sentence what to install."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(sys.argv.pop(1).split()))\n"
    code = blocked + "from meta_media.cli import main; sys.exit(main())"
    for missing in ("cyclopts", "rich"):
        done = subprocess.run(
            [sys.executable, "-c", code, missing, "demo"],
            env=bare_environment(),
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr == b"meta-media: the command line needs more packages: pip install '.[cli]' in a checkout\n"
