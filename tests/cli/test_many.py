"""Commands with many files: folders, lists, journals, the library, interruptions."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
from pathlib import Path

import pytest

from meta_media import BulkReport
from meta_media.cli.reporter import Labels, Summary
from tests.support.shell import PATIENCE, SAMPLES, TOKEN, Shell, lines, needs_posix, table_of, words_of

PHOTO = SAMPLES["photo.jpg"].read_bytes()


# What to work on


@needs_posix
def test_a_folder_is_walked_in_order(shell: Shell) -> None:
    """`--recursive` takes files by name, then sub-folders: no hidden ones, no pipes, and no circles of links."""
    below, above = shell.photos(2, folder="photos/below"), shell.photos(2)
    (shell.folder / "photos" / ".hidden.jpg").write_bytes(PHOTO)
    shell.photos(1, folder="photos/.thumbnails")
    (shell.folder / "photos" / "circle").symlink_to(shell.folder / "photos")
    (shell.folder / "photos" / "itself").symlink_to("itself")
    (shell.folder / "photos" / "link.jpg").symlink_to(Path("below", "000.jpg"))
    os.mkfifo(shell.folder / "photos" / "pipe.jpg")
    done = shell.run("upload", "--recursive", "photos", "--json")
    assert done.returncode == 0, done.stderr
    assert [told["file"] for told in lines(done.stdout)] == [*above, "photos/link.jpg", *below]
    assert done.stderr == b"5 of 5 files uploaded\n"


@needs_posix
def test_links_out_of_a_folder_are_not_followed(shell: Shell) -> None:
    """A link that leaves the folder, to a file or a folder, is skipped and counted; one that is named is followed."""
    names = shell.photos(1)
    secret = shell.folder / "photos-private" / "secret.txt"
    secret.parent.mkdir()
    secret.write_text("a secret")
    links = ("photos/innocent.txt", "photos/album", "photos/deep.txt", "photos/broken.txt")
    targets = (str(secret), str(secret.parent), "../photos-private/secret.txt", "/no/such/file")
    for link, target in zip(links, targets, strict=True):
        (shell.folder / link).symlink_to(target)
    done = shell.run("upload", "-r", "photos", "--json")
    assert (done.returncode, [told["file"] for told in lines(done.stdout)]) == (0, names)
    assert done.stderr == b"skipped 4 links that lead out of the folder\n"
    (shell.folder / "list.txt").write_text("photos\n")
    for link in links[1:]:
        (shell.folder / link).unlink()
    for arguments in (["--from", "list.txt"], ["photos", *names]):
        done = shell.run("upload", "-r", *arguments)
        assert done.stderr.decode().splitlines()[-1] == "skipped 1 link that leads out of the folder"
    assert shell.run("upload", "-r", "photos", "-q").stderr == b""
    (shell.folder / "link").symlink_to("photos-private")
    named = shell.run("upload", "-r", "link", links[0], "--json")
    assert [told["file"] for told in lines(named.stdout)] == ["link/secret.txt", links[0]]


@pytest.mark.slow
@needs_posix
def test_own_files_are_not_uploaded(shell: Shell) -> None:
    """`upload -r .` takes neither its journal, its library, its list, nor the files that its output is written to."""
    names = ["a.jpg", "z.jpg"]
    for name in names:
        (shell.folder / name).write_bytes(PHOTO + name.encode())
    (shell.folder / "list.txt").write_text(".\n")
    for options in (["--journal", "run.sqlite"], ["--library", "./library.sqlite"]):
        for _ in range(2):
            with (shell.folder / "ids.txt").open("wb") as results, (shell.folder / "log.txt").open("wb") as log:
                results.write(b"so that it is not empty\n")
                log.write(b"nor is this\n")
                results.flush()
                log.flush()
                process = shell.start("upload", "-r", "--from", "list.txt", *options, stdout=results, stderr=log)
                with process:
                    assert process.wait(PATIENCE) == 0
            ids = (shell.folder / "ids.txt").read_text().splitlines()[1:]
            assert shell.stored(ids) == shell.sha256(names), (shell.folder / "log.txt").read_text()
        (shell.folder / options[1]).unlink()


def test_line_n_is_about_item_n(shell: Shell) -> None:
    """Where something fails, its line on standard output is empty, so that lines and items match."""
    first, last = shell.photos(2)
    done = shell.run("upload", "no.jpg", first, "neither.jpg", last)
    assert done.returncode == 1
    none, one, no_other, two = words_of(done)
    assert (none, no_other) == ("", "")
    assert shell.stored([one, two]) == shell.sha256([first, last])
    got = shell.run("download", one, "404", two, "--to", "got")
    assert [bool(line) for line in words_of(got)] == [True, False, True]
    sent = shell.run("send", one, "--to", "+15550001111", "--to", "nobody", "--kind", "image")
    assert [line[:6] for line in words_of(sent)] == ["wamid.", ""]
    assert shell.run("upload", "no.jpg").stdout == b""


def test_a_folder_without_recursive(shell: Shell) -> None:
    """A folder is one sentence that says what to pass, and disturbs no other file."""
    shell.photos(3)
    done = shell.run("upload", "photos", SAMPLES["photo.jpg"])
    assert (done.returncode, words_of(done)[0]) == (1, "")
    assert done.stderr.decode().splitlines() == [
        "meta-media: 'photos' is a folder: pass --recursive to upload the files in it",
        "1 of 2 files uploaded",
    ]


def test_an_empty_folder_and_an_empty_list(shell: Shell) -> None:
    """Nothing to do is no failure, but a remark."""
    (shell.folder / "empty").mkdir()
    (shell.folder / "list.txt").write_bytes(b"\r\n\n")
    for arguments in (["--recursive", "empty"], ["--from", "list.txt"]):
        done = shell.run("upload", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"there was nothing to do: no files\n")


@needs_posix
def test_a_folder_that_cannot_be_read(shell: Shell) -> None:
    """A sub-folder that the system refuses, here for the length of its path, fails. The others are uploaded."""
    shell.photos(1, folder="photos/a")
    shell.photos(1, folder="photos/b")
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
    names = shell.photos(4)
    (shell.folder / "list.txt").write_bytes(
        b"\xef\xbb\xbf" + "\r\n\r\n".join(names[1:3]).encode() + b"\n" + names[3].encode()
    )
    done = shell.run("upload", names[0], "--from", "list.txt", "--concurrency", "2")
    assert (done.returncode, shell.stored(words_of(done))) == (0, shell.sha256(names))


@needs_posix
def test_a_list_of_names_with_newlines(shell: Shell) -> None:
    """`-0` takes the output of `find -print0`, with any character in a name, and none of them reaches the terminal."""
    names = ["a\nb.jpg", " c .jpg", "\x1b[31mred.jpg", "-", "--json"]
    for name in names:
        (shell.folder / name).write_bytes(PHOTO + name.encode())
    missing = "\x1b]0;title\x07\nno.jpg"
    listed = "\0".join([*(f"./{name}" for name in names), "-", missing, ""]).encode()
    done = shell.run("upload", "--from", "-", "-0", "--json", stdin=listed)
    told = lines(done.stdout)
    assert (done.returncode, [one["file"] for one in told[:6]]) == (1, [*(f"./{name}" for name in names), "./-"])
    assert all(one["id"].isdecimal() for one in told[:6]), "in a list, a hyphen is the name of a file"
    assert len(done.stderr.splitlines()) == 2
    assert b"\x1b" not in done.stdout + done.stderr


def test_a_list_is_worked_on_as_it_comes(shell: Shell) -> None:
    """A program that writes the list into a pipe may wait for each id before the next name."""
    names = shell.photos(3)
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
    assert shell.stored(ids) == shell.sha256(names)


@pytest.mark.slow
@pytest.mark.parametrize("endless", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["silent", "endless"])
def test_a_list_is_read_no_further_than_needed(shell: Shell, endless: bool) -> None:
    """A dead token ends the program although the list is endless, or its pipe stays open and silent."""
    (name,) = shell.photos(1)
    doomed = shell.with_variables({"CLOUD_API_ACCESS_TOKEN": TOKEN})
    with doomed.start("upload", "--from", "-", "--concurrency", "1") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        written = 0
        with contextlib.suppress(BrokenPipeError):
            while endless or not written:
                written += process.stdin.write(f"{name}\n".encode() * (1000 if endless else 1))
                process.stdin.flush()
                assert written < 2**24, "all of it was read"
        status = process.wait(PATIENCE)
        said = process.stderr.read().decode()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdin = None
    assert (status, said.count("code 190")) == (1, 1)
    assert "the rest of the files were not tried" in said


# What comes of them


def test_json_of_many(shell: Shell) -> None:
    """Each outcome is an object with its place, its source, its result and how it went; a table sums them up."""
    names = shell.photos(12)
    (shell.folder / names[5]).write_bytes(b"")
    done = shell.run("upload", *names, "--json")
    told = lines(done.stdout)
    assert done.returncode == 1
    assert [(one["index"], one["file"]) for one in told] == list(enumerate(names))
    assert {(one["skipped"], one["tried"]) for one in told} == {(False, True)}
    assert [one["attempts"] for one in told] == [1] * 5 + [0] + [1] * 6
    assert all(one["seconds"] >= 0 for one in told)
    assert told[5]["error"]["type"] == "CorruptedMediaError"
    table = table_of(done.stderr.decode())
    expected = {"files": "12", "uploaded": "11", "skipped": "0", "failed": "1", "not tried": "0"}
    assert {name: table[name] for name in expected} == expected
    assert table["bytes"].endswith(" kB")
    assert re.fullmatch(r"[\d.]+ s", table["time"])
    assert re.fullmatch(r"[\d.,]+ files/s, [\d.]+ [kM]?B/s", table["rate"].replace("bytes", "B"))
    assert "✗" not in done.stderr.decode(), "a log has the failure already"


def test_a_dead_token(shell: Shell) -> None:
    """A dead token is one sentence for any number of files, and every file has its object."""
    names = shell.photos(40)
    options = ("--json", "--concurrency", "4", "--quiet")
    done = shell.run("upload", *names, *options, CLOUD_API_ACCESS_TOKEN=TOKEN)
    told = lines(done.stdout)
    assert (done.returncode, [one["file"] for one in told]) == (1, names)
    tried = [one for one in told if one["tried"]]
    assert 1 <= len(tried) <= 4
    assert {one["error"]["code"] for one in told} == {190}
    said = done.stderr.decode().splitlines()
    assert sum("code 190" in line for line in said) == 1
    stopped = f"stopped, because the others would meet the same error: {40 - len(tried)} of 40 files were not tried"
    assert said[-1] == f"meta-media: {stopped}"
    same = [line.partition("the same error ")[2] for line in said if "the same error (" in line]
    assert same == ([f"({len(tried) - 1} more)"] if len(tried) > 1 else [])


def test_an_unplugged_server(shell: Shell) -> None:
    """An error that is not about the file is printed once, with the number of files that met it."""
    names = shell.photos(14)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = shell.run("upload", *names, "--concurrency", "14", "--quiet", WA_BASE_URL=base_url)
    assert (done.returncode, done.stdout) == (1, b"\n" * 14)
    first, others = done.stderr.decode().splitlines()
    assert first.startswith(f"meta-media: {names[0]}: ")
    assert "could not connect" in first
    assert others == f"meta-media: {names[1]} to {names[13]}: the same error (13 more)"


def test_a_wrong_id_in_a_list_is_a_failure_like_others(shell: Shell) -> None:
    """`delete --from` continues after a wrong id, and ends with status 1, not 2, because something was done."""
    ids = words_of(shell.run("upload", *shell.photos(2)))
    listed = f" {ids[0]} \nno/id\n{'4' * 15}\n{ids[1]}\n".encode()
    done = shell.run("delete", "--from", "-", stdin=listed)
    assert (done.returncode, words_of(done)) == (1, ids)
    wrong, unknown, counted = done.stderr.decode().splitlines()
    assert "the media id must be digits, not 'no/id'" in wrong
    assert "4" * 15 in unknown
    assert counted == "2 of 4 ids deleted"


def test_download_of_a_list(shell: Shell) -> None:
    """`download --from` goes to the current folder, each file under a free name. An unknown id disturbs no other."""
    ids = words_of(shell.run("upload", *shell.photos(2)))
    (shell.folder / "ids.txt").write_text("\n".join([ids[0], "404", ids[1], ids[0]]))
    done = shell.run("download", "--from", "ids.txt")
    assert done.returncode == 1
    first, unknown, second, third = words_of(
        done
    )  # in the order of the list; of the same id twice, either may come first
    assert (unknown, second, sorted((first, third))) == ("", f"{ids[1]}.jpg", [f"{ids[0]} (2).jpg", f"{ids[0]}.jpg"])
    assert done.stderr.decode().splitlines()[1] == "3 of 4 files downloaded"


def test_a_summary_in_words() -> None:
    """Long runs, unknown ends, perhaps-duplicates and single items read well."""
    labels = Labels(key="file", items="files", done="uploaded")
    report = BulkReport(succeeded=20_000, skipped=5, failed=30, not_tried=2, bytes=5_000_000, seconds=3725.4)
    assert table_of("\n".join(Summary(report=report, reused=3, twice=1, unread=True).lines(labels))) == {
        "files": "20,037+",
        "uploaded": "19,997",
        "reused": "3",
        "skipped": "5  in the journal already",
        "failed": "30",
        "not tried": "2",
        "perhaps twice": "1",
        "bytes": "5.0 MB",
        "time": "1:02:05",
        "rate": "5.4 files/s, 1.3 kB/s",
    }
    assert list(Summary(report=BulkReport(succeeded=3), unread=True).lines(labels)) == ["3 files uploaded"]
    few = BulkReport(succeeded=2, failed=1, seconds=125.0)
    assert list(Summary(report=few, twice=1).lines(labels)) == ["2 of 3 files uploaded, 1 of them perhaps twice"]
    assert " time           0:02:05" in list(Summary(report=few, total=11).lines(labels))


# Again


def test_a_journal_skips_what_is_done(shell: Shell) -> None:
    """The same command again prints the same ids and uploads nothing twice. What failed is tried again."""
    names = shell.photos(12)
    content = (shell.folder / names[3]).read_bytes()
    (shell.folder / names[3]).write_bytes(b"")
    first = shell.run("upload", "-r", "photos", "--journal", "run.sqlite")
    (shell.folder / names[3]).write_bytes(content)
    again = shell.run("upload", "-r", "photos", "--journal", "run.sqlite", "--json")
    assert (first.returncode, again.returncode) == (1, 0)
    ids = [one["id"] for one in lines(again.stdout)]
    assert [one if index != 3 else "" for index, one in enumerate(ids)] == words_of(first)
    assert [one["skipped"] for one in lines(again.stdout)] == [index != 3 for index in range(12)]
    assert table_of(again.stderr.decode())["skipped"] == "11  in the journal already"
    third = shell.run("upload", *names[:2], "--journal", "run.sqlite")
    assert third.stderr == b"2 of 2 files uploaded, 2 of them in the journal already\n"


def test_a_journal_of_downloads_and_deletes(shell: Shell) -> None:
    """A download is skipped while its file is there; a delete is skipped for good."""
    names = shell.photos(3)
    ids = words_of(shell.run("upload", *names))
    first = shell.run("download", *ids, "--to", "got/here", "--journal", "run.sqlite")
    paths = words_of(first)
    assert (first.returncode, shell.sha256(paths)) == (0, shell.sha256(names))
    assert {str(Path(path).parent) for path in paths} == {"got/here"}
    (shell.folder / paths[1]).unlink()
    again = lines(shell.run("download", *ids, "--to", "got/here", "--journal", "run.sqlite", "--json").stdout)
    assert [one["skipped"] for one in again] == [True, False, True]
    assert [one["path"] for one in again] == paths
    for skipped in (False, True):
        done = shell.run("delete", *ids, "--journal", "run.sqlite", "--json")
        assert (done.returncode, {one["skipped"] for one in lines(done.stdout)}) == (0, {skipped})


def test_reuse(shell: Shell) -> None:
    """`--reuse` gives the same id for the same bytes, across runs; `--library` names its file."""
    names = shell.photos(2)
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


@pytest.mark.parametrize("options", [[], ["--library", "mine.sqlite"]], ids=["default", "named"])
def test_reuse_after_a_delete(shell: Shell, options: list[str]) -> None:
    """An id that `delete` has deleted, also one of a list, is not printed again by `upload --reuse`."""
    names = shell.photos(2)
    first = words_of(shell.run("upload", *names, "--reuse", *options))
    (shell.folder / "ids.txt").write_text(first[0])
    assert shell.run("delete", "--from", "ids.txt", *options).returncode == 0
    again = words_of(shell.run("upload", *names, "--reuse", *options))
    assert (again[0] != first[0], again[1] == first[1]) == (True, True)
    assert shell.stored(again) == shell.sha256(names)


def test_a_deleted_id_in_a_journal(shell: Shell) -> None:
    """`delete` strikes ids out of the journal of an upload, if it is told the journal; else `--verify` finds them."""
    names = shell.photos(2)
    upload = ("upload", *names, "--journal", "run.sqlite")
    first = words_of(shell.run(*upload))
    assert words_of(shell.run(*upload)) == first
    assert shell.run("delete", first[0], "--journal", "run.sqlite").returncode == 0
    second = words_of(shell.run(*upload))
    assert (second[0] == first[0], second[1] == first[1]) == (False, True)
    assert shell.run("delete", second[1]).returncode == 0
    third = words_of(shell.run(*upload, "--verify"))
    assert (third[0] == second[0], third[1] == second[1]) == (True, False)
    assert shell.run("info", *third).returncode == 0


# Interrupted


@needs_posix
def test_interrupted_and_resumed(shell: Shell) -> None:
    """Ctrl-C prints how far the run came and how to continue. The same command continues, and uploads no file twice."""
    names = shell.photos(30)
    options = ("upload", "-r", "photos", "--journal", "run.sqlite")
    with shell.start(*options, "--rate", "5", "--concurrency", "2") as process:
        assert process.stdout is not None
        began = [process.stdout.readline().decode().strip() for _ in range(11)]  # enough for a table
        os.kill(process.pid, signal.SIGINT)
        more, said = process.communicate(timeout=PATIENCE)
    acknowledged = [*began, *more.decode().split()]
    *_, how, last = said.decode().splitlines()
    assert (process.returncode, last) == (130, "meta-media: interrupted")
    assert how == "run the same command again to continue from here"
    table = table_of(said.decode())
    known = int(table["files"].removesuffix("+"))  # a busy machine may not have listed the folder to its end
    assert (known == 30) is not table["files"].endswith("+")
    assert table["uploaded"] == str(len(acknowledged)) != "30"
    assert table["not tried"] == str(known - len(acknowledged))
    again = shell.run(*options, "--json")
    ids = [one["id"] for one in lines(again.stdout)]
    assert (again.returncode, len(set(ids))) == (0, 30)
    assert set(acknowledged) <= {one["id"] for one in lines(again.stdout) if one["skipped"]}
    assert shell.stored(ids) == shell.sha256(names)


@pytest.mark.slow
@needs_posix
def test_interrupted_prints_what_was_finished(shell: Shell) -> None:
    """Ids that wait for an earlier file are printed before the end. Without them, the media could not be deleted."""
    names = shell.photos(3)
    os.mkfifo(shell.folder / "pipe")
    files = ("-", *names, "pipe")  # one at a time beside standard input: the pipe is opened once the others are done
    with shell.start("upload", *files, "--json", "--concurrency", "2", "--library", "library.sqlite") as process:
        with (shell.folder / "pipe").open("wb"):  # waits for a reader
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(PATIENCE) == 143  # and standard input is still open and silent
        output, said = process.communicate(timeout=PATIENCE)
    told = lines(output)
    assert [(one["index"], one["file"]) for one in told] == [(1, names[0]), (2, names[1]), (3, names[2])]
    assert shell.stored([one["id"] for one in told]) == shell.sha256(names)
    assert said.decode().splitlines() == [
        "3 of 5 files uploaded",
        "run the same command again: uploaded files are reused",
        "meta-media: interrupted",
    ]


@pytest.mark.slow
@needs_posix
def test_interrupted_before_the_first_name(shell: Shell) -> None:
    """A list of which no name was read is not said to be empty."""
    os.mkfifo(shell.folder / "list")
    with shell.start("upload", "--from", "list", "--journal", "run.sqlite") as process:
        with (shell.folder / "list").open("wb"):  # waits for a reader
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(PATIENCE) == 130
        _, said = process.communicate(timeout=PATIENCE)
    remark = "run the same command again to continue from here"
    assert said.decode().splitlines() == [remark, "meta-media: interrupted"]


@pytest.mark.slow
@needs_posix
def test_interrupted_without_a_journal(shell: Shell) -> None:
    """Without a journal, the last remark says what one is for. Silent standard input does not delay the end."""
    with shell.start("upload", "-", "missing.jpg") as process:
        assert process.stdin is not None
        # More than a pipe holds: once it is written, the program reads it.
        process.stdin.write(SAMPLES["report.pdf"].read_bytes() + bytes(2**20))
        process.stdin.flush()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        _, said = process.communicate(timeout=PATIENCE)
    assert "with --journal FILE, the same command could continue from here" in said.decode()


@needs_posix
@pytest.mark.slow
def test_a_message_that_was_under_way_is_not_sent_again(shell: Shell) -> None:
    """Killed while the server is silent, the same command names who may have got the message, and sends to the others."""
    (shell.folder / "list.txt").write_text("+15550001111\n")
    options = ("send", shell.upload("photo.jpg"), "--recipients", "list.txt", "--kind", "image", "--journal", "j")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        base_url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with shell.start(*options, "--base-url", base_url) as process, server.accept()[0] as connection:
            received = b""
            while b"+15550001111" not in received:
                received += connection.recv(2**16)
            process.kill()
    (shell.folder / "list.txt").write_text("+15550001111\n+15550002222\n")
    done = shell.run(*options, "--json")
    unknown, sent = lines(done.stdout)
    assert (done.returncode, unknown["to"], unknown["error"]["maybe_applied"]) == (1, "+15550001111", True)
    assert (sent["to"], sent["id"][:6]) == ("+15550002222", "wamid.")
