"""The commands that call Meta, each with one or a few items."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.support.shell import PATIENCE, SAMPLES, Shell, lines, needs_posix, words_of

PERSON = "US.13491208655302741918"  # a user id
GROUP = "Y2FwaV9ncm91cDoxMjM"


def test_the_program_itself(shell: Shell) -> None:
    """As a process: one id per line in the order of the files, with status 0 and a remark on stderr."""
    names = ["photo.jpg", "report.pdf", "song.mp3", "note.txt", "clip.mp4", "sticker.webp"]
    done = shell.spawn("upload", *(SAMPLES[name] for name in names))
    ids = words_of(done)
    assert (done.returncode, len(ids)) == (0, 6)
    assert done.stderr == f"6 of 6 files uploaded{os.linesep}".encode()
    assert shell.stored(ids) == [hashlib.sha256(SAMPLES[name].read_bytes()).hexdigest() for name in names]


def test_upload_json(shell: Shell) -> None:
    """`--json` prints an object for each file, failures too, and one failure makes the status 1."""
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


@pytest.mark.slow
def test_upload_of_standard_input(shell: Shell) -> None:
    """`-` uploads what comes through a pipe, of any length, and what is redirected from a file."""
    content = SAMPLES["report.pdf"].read_bytes() + bytes(3 * 2**20)
    for run in (shell.spawn, shell.run):
        done = run("upload", "--verify", "--json", "-", "--filename", "a.pdf", stdin=content)
        (uploaded,) = lines(done.stdout)
        assert (done.returncode, uploaded["file"]) == (0, "-")
        assert (uploaded["file_size"], uploaded["mime_type"]) == (len(content), "application/pdf")
        assert uploaded["sha256"] == hashlib.sha256(content).hexdigest()


def test_upload_options(shell: Shell) -> None:
    """`--mime-type` is checked against the bytes, `--no-validate` sends any file, `--ttl` reads durations."""
    (shell.folder / "moving.gif").write_bytes(b"GIF89a\x01\x00\x01\x00")
    assert shell.run("upload", "moving.gif", "--mime-type", "image/png").returncode == 1
    done = shell.run("upload", "moving.gif", "--mime-type", "image/png", "--no-validate")
    assert (done.returncode, done.stdout.strip().isdigit()) == (0, True)
    assert shell.run("upload", SAMPLES["photo.jpg"], "--ttl", "90m").returncode == 0


def test_quiet(shell: Shell) -> None:
    """`--quiet` and `-q` leave results and errors, and nothing else."""
    for option in ("--quiet", "-q"):
        done = shell.run("upload", SAMPLES["photo.jpg"], "missing.png", option)
        assert [bool(line) for line in words_of(done)] == [True, False]
        assert done.stderr == b"meta-media: could not open 'missing.png': No such file or directory\n"


def test_a_file_that_looks_like_an_option(shell: Shell) -> None:
    """A file whose name begins with hyphens goes after `--`."""
    (shell.folder / "--verfiy").write_bytes(SAMPLES["photo.jpg"].read_bytes())
    assert shell.run("upload", "--", "--verfiy").returncode == 0


def test_info(shell: Shell) -> None:
    """`info` shows what Meta stores, without the signature in the URL."""
    media_id = shell.upload("photo.jpg")
    done = shell.run("info", media_id)
    assert done.returncode == 0
    facts = dict(line.split(maxsplit=1) for line in words_of(done))
    assert (facts["id"], facts["mime_type"], facts["file_size"]) == (media_id, "image/jpeg", "4346")
    assert facts["url"].endswith("?…")
    assert facts["url_expires_at"].endswith("+00:00")
    assert "received_at" not in facts


@pytest.mark.parametrize("arguments", [["info"], ["download"], ["delete"], ["send", "--to", "+15550001111"]])
def test_unknown_id(shell: Shell, arguments: list[str]) -> None:
    """An id that Meta does not know is one sentence, status 1, and an object with Meta's code."""
    done = shell.run(*arguments, "404")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, b"", 1)
    failed = shell.run(*arguments, "404", "--json")
    (told,) = lines(failed.stdout)
    assert (failed.returncode, told["error"]["code"]) == (1, 100)
    assert told["error"]["message"] in failed.stderr.decode()
    assert list(shell.folder.iterdir()) == []


def test_signed_url_in_the_wrong_place(shell: Shell) -> None:
    """A signed URL is accepted by `download` only, for Meta's hosts only, and its query is never shown."""
    url = "https://cdn.example.com/media?hash=canary&ext=1"
    for name, status in (("download", 1), ("info", 2), ("delete", 2)):
        for options in ([], ["--json"]):
            done = shell.run(name, url, *options)
            assert done.returncode == status
            assert b"cdn.example.com" in done.stderr
            assert b"canary" not in done.stdout + done.stderr


def test_a_token_in_the_place_of_a_file(shell: Shell) -> None:
    """A token that was passed as a name, alone or among others, is not printed."""
    token = "EAAG0123456789abcdefcanary"
    for arguments in (["upload", token], ["upload", token, "x"], ["download", token], ["info", token]):
        done = shell.run(*arguments)
        assert done.returncode > 0
        assert b"access token" in done.stderr
        assert b"canary" not in done.stdout + done.stderr


def test_download_to_a_folder(shell: Shell) -> None:
    """By default the current folder gets a file under a free name, whose path is printed."""
    media_id = shell.upload("report.pdf")
    names = [shell.run("download", media_id).stdout.decode().strip() for _ in range(2)]
    assert names == [f"{media_id}.pdf", f"{media_id} (2).pdf"]
    for name in names:
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


def test_download_to_a_folder_that_is_missing(shell: Shell) -> None:
    """A name that ends in a separator is a folder, and is made; so is that of `--to`. Nothing there is replaced."""
    media_id = shell.upload("photo.jpg")
    for arguments in ([media_id, "new/inbox/"], [media_id, "./new/inbox"], [media_id, "--to", "new/inbox"]):
        done = shell.run("download", *arguments)
        assert (done.returncode, Path(words_of(done)[0]).parent) == (0, Path("new/inbox"))
    names = {f"{media_id}.jpg", f"{media_id} (2).jpg", f"{media_id} (3).jpg"}
    assert {path.name for path in (shell.folder / "new" / "inbox").iterdir()} == names
    assert words_of(shell.run("download", media_id, "--to", "other")) == [f"other/{media_id}.jpg"]
    assert words_of(shell.run("download", media_id, "file")) == ["file"]
    assert (shell.folder / "file").is_file()
    taken = shell.run("download", media_id, "--to", "file")
    assert (taken.returncode, len(taken.stderr.splitlines())) == (1, 1)
    assert b"file" in taken.stderr


@pytest.mark.slow
def test_download_to_standard_output(shell: Shell) -> None:
    """`-` gives the bytes and nothing else on stdout. With `--json`, the result goes to stderr."""
    media_id = shell.upload("clip.mp4")
    done = shell.spawn("download", media_id, "-", "--json")
    assert (done.returncode, done.stdout) == (0, SAMPLES["clip.mp4"].read_bytes())
    assert lines(done.stderr)[0]["size"] == len(done.stdout)
    assert shell.run("download", media_id, "-").stderr == b""


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_download_leaves_nothing(shell: Shell, slow: str, number: signal.Signals) -> None:
    """A signal during a download: status 128 and its number, no file, no temporary file, no traceback."""
    with shell.start("download", "77", "copy.jpg", "--base-url", slow) as process:
        deadline = time.monotonic() + PATIENCE
        while not any(path.stat().st_size for path in shell.folder.iterdir()):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)  # there is no event: it is another process
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert errors == b"meta-media: interrupted\n"
    assert list(shell.folder.iterdir()) == []


def test_delete(shell: Shell) -> None:
    """`delete` prints the deleted ids. An unknown id disturbs no other, and is no error with `--missing-ok`."""
    media_id = shell.upload("photo.jpg")
    done = shell.run("delete", "404", media_id)
    assert (done.returncode, words_of(done)) == (1, [media_id])
    again = shell.run("delete", media_id, "--missing-ok", "--json")
    (told,) = lines(again.stdout)
    assert (again.returncode, told["id"], told["success"]) == (0, media_id, False)


def test_send_to_several(shell: Shell) -> None:
    """One id goes to several recipients, as the kind that fits its type. Each message's id is printed."""
    media_id = shell.upload("photo.jpg")
    done = shell.run("send", media_id, "--to", "+15550001111", "--to", "+1 555 000-2222", "--caption", "Hello")
    assert (done.returncode, done.stderr) == (0, b"2 of 2 messages sent\n")
    assert [line[:6] for line in words_of(done)] == ["wamid."] * 2
    done = shell.run("send", media_id, "--to", "+15550001111", "--kind", "document", "--json")
    [told] = lines(done.stdout)
    assert (told["to"], told["wa_id"], done.stderr) == ("+15550001111", "15550001111", b"")
    assert shell.run("send", shell.upload("note.ogg"), "--to", "+15550001111", "--voice").returncode == 0


def test_send_to_people_without_a_number_and_to_groups(shell: Shell) -> None:
    """People come first, then groups, then the list, in which a group is `group:ID`, as it is in the output."""
    (shell.folder / "list.txt").write_text(f"{PERSON}\ngroup:{GROUP}\ngroup:a b\n")
    options = ("--group", GROUP, "--to", PERSON, "--recipients", "list.txt")
    done = shell.run("send", shell.upload("photo.jpg"), *options, "--json")
    told = lines(done.stdout)
    assert [one["to"] for one in told] == [PERSON, f"group:{GROUP}", PERSON, f"group:{GROUP}", "group:a b"]
    assert [one.get("user_id") for one in told[:4]] == [PERSON, None, PERSON, None]
    assert [one["input"] for one in told[:4]] == [PERSON, GROUP, PERSON, GROUP]
    assert (done.returncode, told[4]["error"]["type"]) == (1, "ConfigurationError")


def test_send_a_file(shell: Shell) -> None:
    """A file is uploaded first, once for each journal; a file whose name could be an id is a file. A typo sends nothing."""
    (shell.folder / "report").write_bytes(SAMPLES["report.pdf"].read_bytes())
    options = ("--to", "+15550001111", "--journal", "run.sqlite")
    first = shell.run("send", "report", *options)
    again = shell.run("send", "report", *options, WA_BASE_URL="http://127.0.0.1:9")  # where nothing can be sent
    assert (first.returncode, again.returncode, words_of(again)) == (0, 0, words_of(first))
    missing = shell.run("send", "reprot.pdf", *options)
    assert (missing.returncode, missing.stdout) == (1, b"")
    assert missing.stderr == b"meta-media: could not open 'reprot.pdf': No such file or directory\n"


def test_nothing_is_uploaded_for_a_list_without_recipients(shell: Shell) -> None:
    """An empty list, and one that cannot be read, are known before the file is looked for."""
    (shell.folder / "list.txt").write_text("\n")
    done = shell.run("send", "nowhere.jpg", "--recipients", "list.txt")
    assert (done.returncode, done.stderr) == (0, b"there was nothing to do: no recipients\n")
    done = shell.run("send", "nowhere.jpg", "--recipients", "no.txt")
    assert (done.returncode, b"no.txt cannot be used as a list" in done.stderr) == (2, True)


def test_unplugged_server(shell: Shell) -> None:
    """Where nothing listens: status 1, and one sentence."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = shell.run("info", "1", "--json", WA_BASE_URL=base_url)
    assert (done.returncode, lines(done.stdout)[0]["error"]["type"]) == (1, "NetworkError")
    assert (len(done.stderr.splitlines()), b"could not connect" in done.stderr) == (1, True)
