"""Downloads into object stores: an object appears whole, under a free name, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore, MemoryStore

import meta_media
from meta_media import MediaApi, ObjectDestination, Settings
from meta_media.emulator import Emulator, Fault
from meta_media.errors import ConfigurationError, IntegrityError, StorageError, TransferTimeoutError
from tests.support.object_stores import keys, multipart_uploads, s3_store
from tests.support.servers import Server, page, reset, silence

pytest_plugins = ["tests.support.object_stores"]

PDF = b"%PDF-1.7\n" + b"a page\n" * 30_000 + b"%%EOF\n"
SHA256 = hashlib.sha256(PDF).hexdigest()
OLD = b"what was there before"
ABSENT = page(status=404)
WRITTEN = page(etag='"1"')


@pytest.fixture
async def media_id(media: MediaApi) -> str:
    """A document at Meta."""
    return (await media.upload(PDF, filename="report.pdf")).id


async def content(store: Any, key: str) -> bytes:
    """Read an object."""
    return bytes(await (await store.get_async(key)).bytes_async())


async def test_an_object_has_the_bytes_the_type_and_the_digest(media: MediaApi, media_id: str, store: Any) -> None:
    """A download to a key writes the object, with Content-Type and SHA-256 where the store has attributes."""
    saved = await media.download(media_id, ObjectDestination(store, "a/report.pdf"))
    assert (saved.path, saved.key, saved.size, saved.sha256) == (None, "a/report.pdf", len(PDF), SHA256)
    found = await store.get_async("a/report.pdf")
    assert bytes(await found.bytes_async()) == PDF
    has_attributes = not isinstance(store, LocalStore)
    expected = {"Content-Type": "application/pdf", "sha256": SHA256} if has_attributes else {}
    assert found.attributes == expected


async def test_a_key_is_replaced_unless_overwrite_is_off(media: MediaApi, media_id: str, store: Any) -> None:
    """An object is replaced like a file. With `overwrite=False` it stays, and no byte is downloaded."""
    await store.put_async("b/a.pdf", OLD)
    with pytest.raises(StorageError, match=r"^'b/a.pdf' exists already, and overwrite is off: choose another name$"):
        await media.download(media_id, ObjectDestination(store, "b/a.pdf"), overwrite=False)
    assert await content(store, "b/a.pdf") == OLD
    await media.download(media_id, ObjectDestination(store, "b/a.pdf"))
    assert await content(store, "b/a.pdf") == PDF
    await media.download(media_id, ObjectDestination(store, "b/free.pdf"), overwrite=False)
    assert await content(store, "b/free.pdf") == PDF


@pytest.mark.parametrize("folder", ["", "in box/"])
async def test_a_folder_gets_names_that_are_free(media: MediaApi, media_id: str, folder: str) -> None:
    """In a folder, and in the root of a bucket, each download gets a name of its own, with a fitting extension."""
    store = MemoryStore()
    place = ObjectDestination(store, folder)
    saved = [await media.download(media_id, place) for _ in range(3)]
    names = [f"{folder}{media_id}{number}.pdf" for number in ("", " (2)", " (3)")]
    assert [each.key for each in saved] == names == sorted(keys(store), key=len)


async def test_no_object_is_replaced_by_a_run(emulator: Emulator, media: MediaApi, store: Any) -> None:
    """A run downloads into a folder of a bucket, where two of one name do not clash, whoever comes first."""
    received = [await emulator.receive(PDF, "application/pdf", filename="report.pdf") for _ in range(4)]
    items = [inbound for body, _ in received for inbound in meta_media.inbound_media(body)]
    report = await media.download_many(items, ObjectDestination(store, "run")).report()
    assert report.succeeded == 4
    names = {f"run/report{number}.pdf" for number in ("", " (2)", " (3)", " (4)")}
    assert {key for key in keys(store) if key.startswith("run/")} == names


async def test_names_of_strangers_are_safe(emulator: Emulator, media: MediaApi, store: Any) -> None:
    """Whatever a sender calls a file, its object lies in the folder, and is found again under the key that is returned."""
    names = (
        "../../etc/passwd.pdf",
        "100% \u00fc %20(1).pdf",
        "a#1.pdf",
        "con.pdf",
        "x\u202egpj.pdf",
        "~*[]{}^`|\\.pdf",
        " .pdf",
    )
    place = ObjectDestination(store, "names/")
    for name in names:
        body, _ = await emulator.receive(PDF, "application/pdf", filename=name)
        saved = await media.download(meta_media.inbound_media(body)[0], place)
        assert saved.key is not None
        assert saved.key.count("/") == 1
        assert await content(store, saved.key) == PDF
    assert len([key for key in keys(store) if key.startswith("names/")]) == len(names)


async def test_an_empty_download_is_an_empty_object(server: Server) -> None:
    """No bytes are an object of no bytes."""
    server.script = [page(content_type="text/plain")]
    store = MemoryStore()
    async with MediaApi("EAAG", "1", settings=Settings(base_url=server.base_url)) as media:
        await media.download(f"{server.base_url}/a", ObjectDestination(store, "empty"))
    assert keys(store) == {"empty": 0}


async def test_wrong_bytes_leave_nothing(emulator: Emulator, media_id: str, store: Any) -> None:
    """Bytes without the promised SHA-256 never reach the store, and those that are there stay."""
    await store.put_async("c/old.pdf", OLD)
    emulator.fail("download", Fault(flip_at=7), times=None)
    async with emulator.api(max_retries=1) as media:
        for key in ("c/old.pdf", "c/new.pdf", "c/"):
            with pytest.raises(IntegrityError):
                await media.download(media_id, ObjectDestination(store, key))
    assert {key: size for key, size in keys(store).items() if key.startswith("c/")} == {"c/old.pdf": len(OLD)}


async def test_wrong_bytes_are_fetched_again(emulator: Emulator, media: MediaApi, media_id: str) -> None:
    """Wrong bytes are taken back, and the right ones written."""
    store = MemoryStore()
    emulator.fail("download", Fault(flip_at=7))
    await media.download(media_id, ObjectDestination(store, "a.pdf"))
    assert await content(store, "a.pdf") == PDF


async def test_without_room_for_a_temporary_file(
    emulator: Emulator, media: MediaApi, media_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary file that cannot be made is found before anything is downloaded."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    before = len(emulator.requests)
    with pytest.raises(StorageError, match=r"^could not keep the download in a temporary file: No such file"):
        await media.download(media_id, ObjectDestination(MemoryStore(), "a.pdf"))
    assert len(emulator.requests) == before


# What a store raises. A scripted server is S3, so that the errors are those of obstore.


def scripted(server: Server, *script: Any) -> Any:
    """Make a store whose server gives these responses, and which asks once."""
    server.script = list(script)
    return s3_store(server.base_url, retry_config={"max_retries": 0})


@pytest.mark.parametrize(
    ("status", "sentence", "retryable"),
    [
        (403, "the store refuses it; look at the rights of its credentials", False),
        (401, "the store does not accept its credentials; renew them", False),
        (404, "there is no such object or bucket; look at the key and at the store's bucket", False),
        (500, r"the store failed \(GenericError\); try again later", True),
    ],
)
async def test_a_bucket_that_refuses(
    media: MediaApi, media_id: str, server: Server, status: int, sentence: str, retryable: bool
) -> None:
    """A refusal is one sentence that says what to do. It keeps the store's own error, without a URL's query."""
    for key in ("a.pdf", "folder/"):
        store = (
            scripted(server, ABSENT, page(status=status)) if key == "a.pdf" else scripted(server, page(status=status))
        )
        server.requests.clear()
        name = key if key == "a.pdf" else f"folder/{media_id}.pdf"
        with pytest.raises(StorageError, match=f"^could not write to '{name}': {sentence}$") as caught:
            await media.download(media_id, ObjectDestination(store, key))
        assert caught.value.retryable is retryable
        assert caught.value.__cause__ is not None


async def test_a_store_that_goes_away_in_the_middle(media: MediaApi, media_id: str, server: Server) -> None:
    """A store that hangs up instead of acknowledging an object is an error, which may be over soon."""
    store = scripted(server, ABSENT, reset())
    with pytest.raises(StorageError, match=r"^could not write to 'a.pdf': the store failed") as caught:
        await media.download(media_id, ObjectDestination(store, "a.pdf"))
    assert caught.value.retryable


async def test_a_store_that_is_away_is_found_before_any_request(
    emulator: Emulator, media: MediaApi, media_id: str
) -> None:
    """A key is looked up first, so that nothing is downloaded for a store that cannot be reached."""
    before = len(emulator.requests)
    async with Server() as gone:
        store = scripted(gone)
    with pytest.raises(StorageError, match=r"the store failed \(Connection refused\)") as caught:
        await media.download(media_id, ObjectDestination(store, "a.pdf"))
    assert caught.value.retryable
    assert len(emulator.requests) == before


async def test_who_may_only_write_can_write(media: MediaApi, media_id: str, server: Server) -> None:
    """A store that does not let its objects be looked up is written to all the same."""
    store = scripted(server, page(status=403), WRITTEN)
    assert (await media.download(media_id, ObjectDestination(store, "a.pdf"))).key == "a.pdf"
    assert [request.method for request in server.requests] == ["HEAD", "PUT"]
    assert server.requests[1].header("if-none-match") is None


async def test_a_store_without_conditions(media: MediaApi, media_id: str, server: Server) -> None:
    """A store that cannot create on the condition that nothing is there gets the object without one, where it may replace."""
    store = scripted(server, ABSENT, page(status=501), WRITTEN)
    server.script[1] = page(status=501).replace(b"501 Scripted", b"501 Not Implemented")
    await media.download(media_id, ObjectDestination(store, "a.pdf"))
    assert [request.header("if-none-match") for request in server.requests] == [None, "*", None]
    server.requests.clear()
    with pytest.raises(StorageError, match="the store failed"):
        await media.download(media_id, ObjectDestination(store, "a.pdf"), overwrite=False)


async def test_another_writer_comes_first(media: MediaApi, media_id: str, server: Server) -> None:
    """An object that appears meanwhile is replaced, or stays where it must not be; in a folder, another name is looked for."""
    taken = page(status=412)
    await media.download(media_id, ObjectDestination(scripted(server, ABSENT, taken, WRITTEN), "a.pdf"))
    assert [request.method for request in server.requests] == ["HEAD", "PUT", "PUT"]
    server.requests.clear()
    with pytest.raises(StorageError, match=r"^'a.pdf' exists already, and overwrite is off: choose another name$"):
        await media.download(media_id, ObjectDestination(scripted(server, ABSENT, taken), "a.pdf"), overwrite=False)
    server.requests.clear()
    store = scripted(server, taken, page(last_modified="Sun, 29 Nov 2026 13:00:00 GMT"), ABSENT, WRITTEN)
    saved = await media.download(media_id, ObjectDestination(store, "in/"))
    assert saved.key == f"in/{media_id} (3).pdf"
    assert [request.method for request in server.requests] == ["PUT", "HEAD", "HEAD", "PUT"], (
        "bytes are sent twice only"
    )


async def test_a_deadline_ends_a_store_that_does_not_respond(emulator: Emulator, media_id: str, server: Server) -> None:
    """`Settings.deadline` is the limit of the request that writes the object as well."""
    store = scripted(server, ABSENT, silence)
    async with emulator.api(deadline=0.5) as media:
        with pytest.raises(
            TransferTimeoutError, match=r"^'a.pdf' has not responded within the deadline of 0.5 s: look at its store"
        ):
            await media.download(media_id, ObjectDestination(store, "a.pdf"))


# Cancellation


DELETED = page(
    '<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Deleted><Key>a.pdf</Key></Deleted></DeleteResult>'
)


@pytest.mark.parametrize(("deleted", "notes"), [(DELETED, 0), (page(status=403), 1)])
async def test_a_cancelled_write_is_undone(
    media: MediaApi, media_id: str, server: Server, deleted: bytes, notes: int
) -> None:
    """A cancellation waits for the request that writes the object, and deletes what was not there before, or says so."""
    respond, reached = asyncio.Event(), asyncio.Event()

    async def slow(_: Any, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await respond.wait()
        writer.write(WRITTEN)

    store = scripted(server, ABSENT, slow, deleted)
    task = asyncio.ensure_future(media.download(media_id, ObjectDestination(store, "a.pdf")))
    await reached.wait()
    task.cancel()
    await asyncio.sleep(0.05)  # nothing says that it is waiting
    assert not task.done()
    respond.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert getattr(caught.value, "__notes__", []) == ["'a.pdf' is in its store, whole: it could not be deleted"] * notes
    assert [request.method for request in server.requests] == ["HEAD", "PUT", "POST"]
    assert b"<Key>a.pdf</Key>" in server.requests[2].body, "DeleteObjects"


@pytest.mark.parametrize("there", ["existed", "refused"])
async def test_what_was_there_before_is_not_deleted(media: MediaApi, media_id: str, server: Server, there: str) -> None:
    """A cancellation deletes neither an object that was replaced, nor one that another writer has made."""
    respond, reached = asyncio.Event(), asyncio.Event()
    first = page(last_modified="Sun, 29 Nov 2026 13:00:00 GMT") if there == "existed" else ABSENT
    last = WRITTEN if there == "existed" else page(status=412)

    async def slow(_: Any, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await respond.wait()
        writer.write(last)

    store = scripted(server, first, slow)
    task = asyncio.ensure_future(media.download(media_id, ObjectDestination(store, "a.pdf")))
    await reached.wait()
    task.cancel()
    respond.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [request.method for request in server.requests] == ["HEAD", "PUT"]


# Arguments


@pytest.mark.parametrize("key", ["/a", "a//b", "../a", "a/./b", "a\nb", "a/..", "\0", 5, None])
def test_keys_that_no_store_can_have(key: Any) -> None:
    """A key with empty parts, dots or control characters is refused at once."""
    with pytest.raises(ConfigurationError, match=r"cannot be the key of an object: pass text such as"):
        ObjectDestination(MemoryStore(), key)


@pytest.mark.parametrize("make", [ObjectDestination, meta_media.Source.object])
def test_what_is_no_store(make: Callable[[Any, str], Any]) -> None:
    """Anything but a store is refused, with the command that installs obstore."""
    with pytest.raises(
        ConfigurationError, match=r"not a str \(pip install '.\[storage\]' in a checkout brings obstore\)$"
    ):
        make("s3://bucket", "a")


@pytest.mark.slow
async def test_no_multipart_upload_is_ever_begun(media: MediaApi, s3_url: str) -> None:
    """A large download is one request, also over an object that is there: the ETag of several parts has a dash."""
    big = await media.upload(PDF * 100, filename="big.pdf")
    store = s3_store(s3_url)
    for _ in range(2):
        await media.download(big, ObjectDestination(store, "multipart/big.pdf"))
        assert "-" not in ((await store.head_async("multipart/big.pdf"))["e_tag"] or "-")
    assert multipart_uploads(s3_url) == 0
