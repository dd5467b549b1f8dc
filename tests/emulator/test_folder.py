"""The emulator's data folder: folders of others are refused untouched, and a database is read as input."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from meta_media import MediaError
from meta_media.emulator import Clock, Emulator
from meta_media.emulator.state import State
from meta_media.errors import ConfigurationError, StorageError
from tests.support.shell import Shell

DATABASE = "emulator.sqlite3"
START = """
import asyncio, sys
from meta_media.emulator import Emulator
from meta_media.errors import ConfigurationError

async def main():
    sys.stdin.readline()
    try:
        async with Emulator(sys.argv[1]):
            print("started", flush=True)
            sys.stdin.readline()
    except ConfigurationError as error:
        print(error, flush=True)

print("ready", flush=True)
asyncio.run(main())
"""
needs_posix = pytest.mark.skipif(os.name == "nt", reason="links and pipes of POSIX")


@pytest.fixture
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """An empty folder of its own, and an environment without credentials."""
    return Shell(folder=tmp_path_factory.mktemp("here"))


def contents(folder: Path) -> dict[str, bytes | str]:
    """Return everything below a folder: files with their bytes, links with their targets, and all else by its type."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        name = str(path.relative_to(folder))
        found[name] = str(path.readlink()) if stat.S_ISLNK(mode) else str(stat.S_IFMT(mode))
        if stat.S_ISREG(mode):
            found[name] = path.read_bytes()
    return found


async def filled(folder: Path, media: int = 3) -> tuple[str, list[str]]:
    """Make a data folder with media and tokens, and return its number and the media's ids."""
    async with Emulator(folder) as emulator, emulator.api() as api:
        emulator.add_account("222", "second")
        emulator.expire_token("second", after=5.5)
        ids = [(await api.upload(b"%d" % number, filename="café.txt")).id for number in range(media)]
        return emulator.phone_number_id, ids


async def refusal(folder: Path, kind: type[MediaError] = ConfigurationError) -> str:
    """Return the sentence of an emulator that refuses a folder."""
    with pytest.raises(kind) as caught:
        await Emulator(folder).__aenter__()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 700
    return sentence


@pytest.mark.parametrize(
    "files",
    [
        {"media/holiday.jpg": b"mine", "media/1234567890123456": b"mine"},
        {"notes.txt": b"mine"},
        {"media/1234567890123456.part": b"mine"},
        {f"{DATABASE}-wal": b"mine"},
        {"media/1234567890123456": b"mine", DATABASE: b""},
        {"notes.txt": b"mine", DATABASE: b""},
    ],
    ids=["media", "a file", "a part", "a log", "an empty database beside media", "an empty database beside a file"],
)
def test_folders_of_others_are_refused_untouched(tmp_path: Path, shell: Shell, files: dict[str, bytes]) -> None:
    """A folder with files and without the emulator's database is refused in one sentence, and stays as it is."""
    for name, content in files.items():
        path = tmp_path / "theirs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    before = contents(tmp_path / "theirs")
    sentence = asyncio.run(refusal(tmp_path / "theirs"))
    assert "theirs" in sentence
    assert "use an" in sentence
    assert contents(tmp_path / "theirs") == before
    done = shell.run("serve", "--port", "0", "--data", str(tmp_path / "theirs"))
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", f"meta-media: {sentence}\n")
    assert contents(tmp_path / "theirs") == before


@needs_posix
async def test_only_what_the_emulator_made_is_swept(tmp_path: Path) -> None:
    """Of the files that the database does not know, those with the form of the emulator's names go, and nothing else does."""
    _, ids = await filled(tmp_path / "data")
    media, target = tmp_path / "data" / "media", tmp_path / "target"
    target.write_bytes(b"mine")
    theirs = [
        ".hidden",
        "123",
        "1234567890123456.jpg",
        "12345678901234567",
        "1234567890123456.PART",
        "0234567890123456",
    ]
    for name in theirs:
        (media / name).write_bytes(b"mine")
    (media / "1111111111111111").mkdir()
    (media / "2222222222222222").symlink_to(target)
    (media / "3333333333333333.part").symlink_to(tmp_path)
    os.mkfifo(media / "4444444444444444")
    before = contents(tmp_path)
    for name in ("5555555555555555", "5555555555555555.part"):
        (media / name).write_bytes(b"left by a kill")
    async with Emulator(tmp_path / "data"):
        pass
    after = contents(tmp_path)
    for found in (before, after):
        del found[f"data/{DATABASE}"]
    assert after == before
    assert {f"data/media/{name}" for name in ids + theirs} < set(after)


@needs_posix
async def test_a_file_that_may_not_be_deleted_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is gone when it is swept, or may not be deleted, does not keep the emulator from starting."""
    await filled(tmp_path)
    for name in ("5555555555555555", "6666666666666666.part"):
        (tmp_path / "media" / name).touch()
    unlink, refused = Path.unlink, [PermissionError(1, "no"), FileNotFoundError(2, "gone")]

    def refusing(path: Path, *args: Any, **options: Any) -> None:
        if refused and path.parent.name == "media":
            raise refused.pop()
        unlink(path, *args, **options)

    monkeypatch.setattr(Path, "unlink", refusing)
    async with Emulator(tmp_path):
        assert refused == []


@needs_posix
@pytest.mark.parametrize("name", ["media", DATABASE])
async def test_links_in_the_folder_are_not_followed(tmp_path: Path, name: str) -> None:
    """A link in the place of the database or of the media's folder leads elsewhere: it is refused, and so nothing there goes."""
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    await filled(data)
    elsewhere.mkdir()
    (data / name).rename(elsewhere / name)
    (data / name).symlink_to(elsewhere / name)
    if name == "media":
        (elsewhere / name / "1234567890123456").write_bytes(b"mine")
    before = contents(elsewhere)
    assert str(data / name) in await refusal(data)
    assert contents(elsewhere) == before


async def test_a_link_to_the_folder_itself(tmp_path: Path) -> None:
    """The folder may be named by a link, as any path of the caller's."""
    number, _ = await filled(tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    async with Emulator(tmp_path / "link") as emulator:
        assert emulator.phone_number_id == number


def edit(*statements: str) -> Callable[[Path], None]:
    """Return an edit of a database by SQL."""

    def run(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in statements:
                connection.execute(statement)

    return run


def scribble(path: Path) -> None:
    """Write over the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 4096)


def lose_a_row(path: Path) -> None:
    """Let the page of the media count one row fewer than it has (SQLite's "Database File Format", section 1.6)."""
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'media'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    count = (page - 1) * size + 3
    content[count : count + 2] = (int.from_bytes(content[count : count + 2]) - 1).to_bytes(2)
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no database": (lambda path: path.write_bytes(b"not a database" * 100), "is damaged"),
    "cut": (lambda path: os.truncate(path, path.stat().st_size // 2), "is damaged"),
    "empty": (lambda path: os.truncate(path, 0), "is not an emulator's"),
    "scribbled": (scribble, "is damaged"),
    "a lost row": (lose_a_row, "is damaged"),
    "later": (edit("PRAGMA user_version = 2"), "is of a later version"),
    "earlier": (edit("PRAGMA user_version = 0"), "is of an earlier version"),
    "another program's": (edit("PRAGMA application_id = 7"), "is not an emulator's"),
    "no tables": (edit("DROP TABLE media", "DROP TABLE token", "DROP TABLE setting"), "it lacks media.checksum"),
    "no media": (edit("DROP TABLE media"), "it lacks media.checksum"),
    "no tokens": (edit("DROP TABLE token"), "it lacks token.access_token"),
    "no column": (edit("ALTER TABLE media DROP COLUMN filename"), "it lacks media.filename"),
    "another value": (edit("UPDATE media SET file_size = file_size + 1"), "row 1 of its table media has changed"),
    "another type": (edit("UPDATE media SET file_size = CAST(file_size AS TEXT)"), "of its table media has changed"),
    "another id": (
        edit("UPDATE media SET id = '1234567890123456' WHERE id = (SELECT min(id) FROM media)"),
        "has changed",
    ),
    "no checksum": (edit("UPDATE token SET checksum = NULL"), "row 1 of its table token has changed"),
    "not UTF-8": (edit("UPDATE setting SET value = CAST(x'ff' AS TEXT) WHERE name = 'app_secret'"), "is damaged"),
    "a lost setting": (edit("DELETE FROM setting WHERE name = 'url_secret'"), "its table setting lacks url_secret"),
    "lost settings": (edit("DELETE FROM setting"), "its table setting lacks access_token"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_database_is_one_sentence(tmp_path: Path, shell: Shell, name: str) -> None:
    """A database that is damaged, of another version or incomplete is refused with its name, and no media is deleted."""
    damage, why = DAMAGE[name]
    asyncio.run(filled(tmp_path))
    (tmp_path / "media" / "1234567890123456").write_bytes(b"not in the database")
    damage(tmp_path / DATABASE)
    before = contents(tmp_path)
    sentence = asyncio.run(refusal(tmp_path))
    assert str(tmp_path / DATABASE) in sentence
    assert why in sentence
    assert sentence.endswith("use another folder: Emulator(FOLDER), serve --data FOLDER")
    done = shell.run("serve", "--port", "0", "--data", str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr.decode()) == (2, b"", f"meta-media: {sentence}\n")
    assert contents(tmp_path) == before


async def test_a_column_of_a_later_version_is_ignored(tmp_path: Path) -> None:
    """A table or column that this version does not know changes nothing."""
    number, ids = await filled(tmp_path)
    edit("ALTER TABLE media ADD COLUMN colour TEXT DEFAULT 'red'", "CREATE TABLE mine (a)")(tmp_path / DATABASE)
    async with Emulator(tmp_path) as emulator, emulator.api() as api:
        assert emulator.phone_number_id == number
        assert [await api.read(media_id) for media_id in ids] == [b"0", b"1", b"2"]
        await api.upload(b"new", filename="a.txt")


def replace_database(folder: Path, content: bytes) -> None:
    """Write another database, without a log."""
    for path in folder.glob(f"{DATABASE}*"):
        path.unlink()
    (folder / DATABASE).write_bytes(content)


@pytest.mark.parametrize("flips", [60, pytest.param(400, marks=pytest.mark.slow)])
async def test_flipped_bits(tmp_path: Path, flips: int) -> None:
    """A flipped bit of the database is one sentence, or harmless: no raw error, nothing of another id, nothing deleted."""
    _, ids = await filled(tmp_path, media=12)
    whole, files, choose = (tmp_path / DATABASE).read_bytes(), contents(tmp_path / "media"), random.Random(12)
    async with State(tmp_path, Clock()) as state:
        stored = [await state.find(media_id) for media_id in ids]
    assert None not in stored
    refused: list[str] = []
    for _ in range(flips):
        position, bit = choose.randrange(len(whole)), choose.randrange(8)
        flipped = bytearray(whole)
        flipped[position] ^= 1 << bit
        replace_database(tmp_path, bytes(flipped))
        try:
            async with State(tmp_path, Clock()) as state:
                assert [await state.find(media_id) for media_id in ids] == stored
        except (ConfigurationError, StorageError) as error:
            refused.append(str(error))
        assert contents(tmp_path / "media") == files, f"byte {position}, bit {bit}"
    assert 0 < len(refused) < flips
    assert all(str(tmp_path) in sentence for sentence in refused)
    sys.stdout.write(f"{flips} flips: {len(refused)} refused, the rest harmless\n")


async def started(folder: Path) -> asyncio.subprocess.Process:
    """Start a process that is ready to run an emulator on a folder."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", START, str(folder)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    assert await process.stdout.readline() == b"ready\n"
    return process


async def told(process: asyncio.subprocess.Process) -> str:
    """Let a process go on, and return what it says next."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(b"\n")
    return (await process.stdout.readline()).decode().strip()


@pytest.mark.slow
async def test_a_refused_emulator_leaves_the_lock(tmp_path: Path) -> None:
    """A folder in use stays in use when a second emulator of the same process was refused: another process is refused, too."""
    async with Emulator(tmp_path) as emulator, emulator.api() as api:
        part = tmp_path / "media" / "1234567890123456.part"
        part.write_bytes(b"an upload under way")
        assert "another emulator uses it" in await refusal(tmp_path)
        process = await started(tmp_path)
        assert "another emulator uses it" in await told(process)
        assert await process.wait() == 0
        assert part.exists()
        assert (await api.upload(b"x", filename="a.txt")).id


@pytest.mark.slow
@pytest.mark.parametrize("rounds", [1, pytest.param(3, marks=pytest.mark.slow)])
async def test_of_two_that_start_at_once_one_runs(tmp_path: Path, rounds: int) -> None:
    """Two emulators that start at the same time on a new folder: one runs, and the other says why it does not."""
    for number in range(rounds):
        processes = [await started(tmp_path / str(number)) for _ in range(2)]
        said = await asyncio.gather(*map(told, processes))
        assert sorted(words == "started" for words in said) == [False, True], said
        assert any("another emulator uses it" in words for words in said), said
        for process in processes:
            process.kill()
            await process.wait()


async def test_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no temporary folder can be made, one sentence says so."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(StorageError, match="could not keep data in 'a temporary folder': No such file"):
        await Emulator().__aenter__()


async def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    """A path that cannot be a folder is a storage error with its number, and a long one is cut."""
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in await refusal(tmp_path / "file", StorageError)
    with pytest.raises(StorageError) as caught:
        await Emulator(tmp_path / ("x" * 5000)).__aenter__()
    assert caught.value.errno
    assert len(str(caught.value)) < 400
