"""One rule for folders: a path that ends in a separator, or a folder that exists, is one; any other path is a file's."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from meta_media import MediaApi
from meta_media.emulator import Emulator
from meta_media.errors import ConfigurationError, StorageError
from tests.support.servers import Server, page
from tests.transfer.downloads import CONTENT, JPEG, PHOTO, client, known

Save = Callable[[MediaApi, str], Awaitable[Any]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tree(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def many(media: MediaApi, media_id: str) -> None:
    """Download by a run."""
    report = await media.download_many([media_id], "x").report()
    assert report.ok


SPELLINGS: dict[str, tuple[Save, bool]] = {
    "x": (lambda media, media_id: media.download(media_id, "x"), False),
    "x/": (lambda media, media_id: media.download(media_id, f"x{os.sep}"), True),
    "./x": (lambda media, media_id: media.download(media_id, "./x"), False),
    'Path("x")': (lambda media, media_id: media.download(media_id, Path("x")), False),
    "x/, no overwrite": (lambda media, media_id: media.download(media_id, "x/", overwrite=False), True),
    "x/y/": (lambda media, media_id: media.download(media_id, "x/y/"), True),
    "x/, ending in two": (lambda media, media_id: media.download(media_id, "x//"), True),
    "download_many": (many, True),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a_folder_that_is_missing(emulator: Emulator, media: MediaApi, folder: Path, spelling: str) -> None:
    """A missing folder is made where the path says that it is one; a path without a separator is a file's, and replaced."""
    save, is_folder = SPELLINGS[spelling]
    contents = [PHOTO, b"some text"]
    ids = [(await media.upload(content)).id for content in contents]
    for media_id in ids:
        await save(media, media_id)
    inside = "x/y" if spelling == "x/y/" else "x"
    expected = (
        {f"{inside}/{ids[0]}.jpg": PHOTO, f"{inside}/{ids[1]}.txt": contents[1]} if is_folder else {"x": contents[1]}
    )
    assert tree(folder) == expected


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_a_folder_that_exists(media: MediaApi, folder: Path, spelling: str) -> None:
    """In a folder that exists no file is replaced, whatever the spelling."""
    save, _ = SPELLINGS[spelling]
    media_id = (await media.upload(PHOTO)).id
    inside = folder / ("x/y" if spelling == "x/y/" else "x")
    inside.mkdir(parents=True)
    for number in range(1, 4):
        await save(media, media_id)
        assert len(list(inside.iterdir())) == number
    assert set(tree(folder).values()) == {PHOTO}


async def test_a_file_is_kept_without_overwrite(media: MediaApi, folder: Path) -> None:
    """Without overwrite, the second download to a file's path is refused."""
    media_id = (await media.upload(PHOTO)).id
    for spelling in ("x", "./x"):
        await media.download(media_id, "x") if spelling == "x" else None
        with pytest.raises(StorageError, match="exists already, and overwrite is off"):
            await media.download(media_id, spelling, overwrite=False)
    assert tree(folder) == {"x": PHOTO}


async def test_a_parent_that_is_missing(server: Server, folder: Path) -> None:
    """A file's path in a missing folder is refused before any request, with what to do."""
    async with client(server) as media:
        for path in ("missing/photo.jpg", Path("missing/photo.jpg")):
            with pytest.raises(StorageError, match=r"there is no folder 'missing': make it first, or .* 'inbox/'"):
                await media.download(known(server), path)
    assert (server.requests, tree(folder)) == ([], {})


@pytest.mark.parametrize("url", ["s3://bucket/a.jpg", "s3://bucket/", "https://bucket.test/a.jpg?signature=canary"])
async def test_a_url_is_no_folder_of_this_machine(server: Server, folder: Path, url: str) -> None:
    """A URL as a destination is refused before any request, and no folder is named after its scheme."""
    async with client(server) as media:
        for save in (media.download(known(server), url), media.download_many([known(server)], url).report()):
            with pytest.raises(ConfigurationError, match=r"is a URL, not a path: for a bucket, pass Obj") as caught:
                await save
            assert "canary" not in str(caught.value)
    assert (server.requests, tree(folder)) == ([], {})


async def test_a_file_where_the_folder_should_be(server: Server, folder: Path) -> None:
    """A file in the place of the folder is kept, and refused before any request."""
    (folder / "x").write_bytes(b"mine")
    async with client(server) as media:
        with pytest.raises(StorageError, match="could not make the folder 'x/': File exists"):
            await media.download(known(server), "x/")
    assert (server.requests, tree(folder)) == ([], {"x": b"mine"})


async def test_a_folder_that_vanishes_during_a_run(server: Server, folder: Path) -> None:
    """A run whose folder is removed makes it again: it never becomes a file that the next download replaces."""
    server.script = [page(CONTENT, content_type=JPEG)]
    urls = (f"{server.base_url}/{number}" for number in range(9))
    async with client(server, concurrency=1) as media, media.download_many(urls, "x") as run:
        async for outcome in run:
            assert outcome.error is None or isinstance(outcome.error, StorageError)
            await anyio.to_thread.run_sync(shutil.rmtree, "x", True)
    assert not (folder / "x").is_file()


async def test_a_folder_that_vanishes_once_it_is_made(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that another program removes at once is told as missing, and does not become a file."""
    make = Path.mkdir

    def make_and_remove(self: Path, **options: Any) -> None:
        make(self, **options)
        self.rmdir()

    async with client(server) as media:
        monkeypatch.setattr(Path, "mkdir", make_and_remove)
        with pytest.raises(StorageError, match="there is no folder 'x': make it first"):
            await media.download(known(server), "x/")
    assert tree(folder) == {}


async def test_a_path_that_is_long_is_shortened(media: MediaApi, folder: Path) -> None:
    """A message shows at most 80 characters of a path."""
    path = "/".join(itertools.repeat("folder", 60))
    with pytest.raises(StorageError) as caught:
        await media.download("1", f"{path}/photo.jpg")
    assert len(str(caught.value)) < 250
