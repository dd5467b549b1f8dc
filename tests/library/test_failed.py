"""`MediaLibrary.failed`: a status leads from a failed message back to its file, and an id that Meta refused is not used again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine

from meta_media import MediaApi, MediaLibrary, MessageStatus, RedisStore, SQLiteStore, parse_webhook, verify_signature
from meta_media.emulator import Emulator
from meta_media.errors import ConfigurationError, StorageError, UploadRejectedError
from meta_media.library.store import AsyncCloseable
from tests.library.helpers import CONTENT, HookedStore, entry_of, fail
from tests.support.redis_server import RedisServer
from tests.support.servers import Server, page, wait_until

pytest_plugins = ["tests.support.redis_server"]

TO = "+15550001111"
DETAILS = (
    "Video file uploaded with mimetype as video/mp4, however on processing it is of type application/octet-stream."
)
PREFIXES = (f"failed{number}" for number in itertools.count())


def status_of(message_id: str, code: int | None = 131053, status: str = "failed") -> MessageStatus:
    """Read the status of a message from a webhook of Meta's form."""
    error = {"code": code, "title": "Refused", "message": "Refused", "error_data": {"details": DETAILS}}
    told = {"id": message_id, "status": status, "timestamp": "1795342000", "recipient_id": "15550001111"}
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550002222", "phone_number_id": "1"},
        "statuses": [told | ({} if code is None else {"errors": [error]})],
    }
    change = {"field": "messages", "value": value}
    body = json.dumps({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]})
    (found,) = parse_webhook(body).statuses
    return found


async def test_refused_after_the_upload(emulator: Emulator, library: MediaLibrary, path: Path, server: Server) -> None:
    """A webhook with a status, its typed error, the file's name; and the next `ensure` uploads the file anew."""
    server.script = [page()]
    emulator.webhook = server.base_url
    emulator.fail_delivery(131053, details=DETAILS)
    sent = await library.send(TO, path)
    first = await library.get(path)
    await wait_until(lambda: len(server.requests) == 1)
    (request,) = server.requests
    assert verify_signature(emulator.app_secret, request.body, request.header("x-hub-signature-256"))
    (status,) = parse_webhook(request.body).statuses
    assert (status.message_id, status.status) == (sent.id, "failed")
    (error,) = status.errors
    assert isinstance(error, UploadRejectedError)
    assert (error.code, error.details) == (131053, DETAILS)
    entry = await library.failed(status)
    assert entry is not None
    assert entry == first
    assert entry.filename == path.name
    assert await library.get(path) is None
    again = await library.ensure(path)
    assert again.id != entry.id
    assert not again.reused
    assert await library.failed(status) == entry, "the webhook may be repeated"
    assert (await library.ensure(path)).id == again.id


@pytest.mark.parametrize(
    ("code", "kept"),
    [(131053, False), (131052, False), (131026, True), (131047, True), (131049, True), (130472, True), (131000, True)],
)
async def test_only_failures_of_media(library: MediaLibrary, code: int, kept: bool) -> None:
    """A failure that is about the recipient, or about Meta, leads to the file too, and its id stays in use."""
    sent = await library.send(TO, CONTENT, filename="a.txt")
    entry = await library.failed(status_of(sent.id, code))
    assert entry is not None
    assert entry.filename == "a.txt"
    assert (await library.get(CONTENT) == entry) is kept
    assert (await library.ensure(CONTENT)).reused is kept


@pytest.mark.parametrize("status", ["sent", "delivered", "read", "played"])
async def test_no_failure(library: MediaLibrary, store: HookedStore, status: str) -> None:
    """A status that is no failure leads to nothing, and the store is not asked."""
    sent = await library.send(TO, CONTENT)
    store.calls.clear()
    assert await library.failed(status_of(sent.id, None, status)) is None
    assert store.calls == []


async def test_without_a_reason(library: MediaLibrary) -> None:
    """A failure without an error leads to the file, whose id stays in use."""
    sent = await library.send(TO, CONTENT)
    assert await library.failed(status_of(sent.id, None)) == await library.get(CONTENT)


async def test_unknown_message(library: MediaLibrary) -> None:
    """A message that the library did not send leads to nothing."""
    entry = await library.ensure(CONTENT)
    assert await library.failed(status_of("wamid.unknown")) is None
    assert await library.get(CONTENT) == entry


@pytest.mark.parametrize("wrong", [None, "wamid.1", {"status": "failed"}], ids=str)
async def test_no_status(library: MediaLibrary, wrong: Any) -> None:
    """Anything but a status is an error that says what is needed."""
    with pytest.raises(ConfigurationError, match=r"^failed needs one of the statuses of parse_webhook, not "):
        await library.failed(wrong)


async def test_every_message_of_an_id(emulator: Emulator, library: MediaLibrary, tmp_path: Path) -> None:
    """Each of several messages with one id leads to its own file, also after the first has removed the entry."""
    names = ["one.txt", "two.txt", "three.txt"]
    sent = []
    for name in names:
        (tmp_path / name).write_bytes(CONTENT)
        sent.append(await library.send(TO, tmp_path / name))
    await library.failed(status_of(sent[0].id))
    newer = await library.ensure(CONTENT)
    found = [await library.failed(status_of(message.id)) for message in sent]
    assert [entry and entry.filename for entry in found] == names
    assert {entry and entry.id for entry in found} == {emulator.messages[0]["document"]["id"]}
    assert (await library.ensure(CONTENT)).id == newer.id, "the newer id is not the one that failed"


async def test_status_before_the_message_is_stored(
    emulator: Emulator, library: MediaLibrary, store: HookedStore
) -> None:
    """A status may come while `send` still stores its message: it is looked up again."""
    asked, sending = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        sending.set()
        await asked.wait()

    async def ask() -> None:
        if store.calls.count("get_message") == 2:
            asked.set()
            await send

    store.before.update(put_message=wait, get_message=ask)
    send = asyncio.create_task(library.send(TO, CONTENT, filename="a.txt"))
    await sending.wait()
    entry = await library.failed(status_of(emulator.messages[0]["message_id"]))
    assert entry is not None
    assert entry.filename == "a.txt"


async def test_store_that_fails(library: MediaLibrary, store: HookedStore) -> None:
    """A store that fails is an error. This process does not use the id any more all the same."""
    sent = await library.send(TO, CONTENT)
    store.before["get_message"] = fail
    with pytest.raises(StorageError):
        await library.failed(status_of(sent.id))
    del store.before["get_message"]
    store.before["remove"] = fail
    with pytest.raises(StorageError):
        await library.failed(status_of(sent.id))
    del store.before["remove"]
    assert not (await library.ensure(CONTENT)).reused


# Other stores and other processes


class Plain(AsyncCloseable):
    """A store of before there were messages, of another project: it has the nine methods alone."""

    def __init__(self) -> None:
        self._store = HookedStore()

    def __getattr__(self, name: str) -> Any:
        if name in {"find", "put_message", "get_message"}:
            raise AttributeError(name)
        return getattr(self._store, name)


async def test_store_without_messages(media: MediaApi) -> None:
    """With a store that keeps no messages, a library knows those that it has sent itself."""
    store: Any = Plain()
    library, other = MediaLibrary(media, store), MediaLibrary(media, store)
    sent = await library.send(TO, CONTENT)
    assert await other.failed(status_of(sent.id, 131026)) is None
    entry = await library.failed(status_of(sent.id))
    assert entry is not None
    assert await other.get(CONTENT) is None


@pytest.mark.slow
async def test_another_process(emulator: Emulator, media: MediaApi, tmp_path: Path) -> None:
    """A message that another process has sent leads to its file."""
    database = tmp_path / "library.sqlite"
    (tmp_path / "offer.txt").write_bytes(CONTENT)
    code = f"""
import asyncio, json
from meta_media import MediaApi, MediaLibrary, Settings, SQLiteStore

async def main():
    settings = Settings(base_url={emulator.base_url!r})
    async with (
        MediaApi({emulator.access_token!r}, {emulator.phone_number_id!r}, settings=settings) as media,
        SQLiteStore({str(database)!r}) as store,
    ):
        print((await MediaLibrary(media, store).send({TO!r}, {str(tmp_path / "offer.txt")!r})).id)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    async with SQLiteStore(database) as store:
        library = MediaLibrary(media, store)
        entry = await library.failed(status_of(output.decode().strip()))
        assert entry is not None
        assert entry.filename == "offer.txt"
        assert not (await library.ensure(CONTENT)).reused


async def test_another_machine(media: MediaApi, redis_server: RedisServer) -> None:
    """A message that another machine has sent leads to its file. Redis keeps it for eight days."""
    prefix = next(PREFIXES)
    async with RedisStore(redis_server.url, prefix=prefix) as one, RedisStore(redis_server.url, prefix=prefix) as two:
        sent = await MediaLibrary(media, one).send(TO, CONTENT, filename="a.txt")
        left = redis_server.command("TTL", f"{prefix}:message:{sent.id}")
        assert 7 * 86_400 < int(left[1:]) <= 8 * 86_400
        entry = await MediaLibrary(media, two).failed(status_of(sent.id))
        assert entry is not None
        assert entry.filename == "a.txt"
        assert await MediaLibrary(media, one).get(CONTENT) is None


# What is stored


async def test_old_messages_are_removed(tmp_path: Path) -> None:
    """A message is kept for eight days: Meta repeats a webhook for seven."""
    async with SQLiteStore(tmp_path / "library.sqlite") as store:
        await store.put_message("wamid.1", entry_of("1"))
        with time_machine.travel(datetime.now(UTC) + timedelta(days=7.9)):
            await store.put_message("wamid.2", entry_of("1"))
            assert await store.get_message("wamid.1") is not None
        with time_machine.travel(datetime.now(UTC) + timedelta(days=8.1)):
            await store.put_message("wamid.3", entry_of("1"))
            assert [await store.get_message(f"wamid.{number}") is None for number in (1, 2, 3)] == [True, False, False]


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store in memory keeps the last messages."""
    monkeypatch.setattr("meta_media.library.memory_store._MESSAGE_COUNT", 10)
    store = HookedStore()
    for number in range(15):
        await store.put_message(f"{number}", entry_of("1"))
    assert [await store.get_message(f"{number}") is not None for number in range(15)] == [False] * 5 + [True] * 10


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_damaged_message(
    media: MediaApi, tmp_path: Path, request: pytest.FixtureRequest, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A stored message that is damaged leads to nothing, and is named in the log."""
    path, prefix = tmp_path / "library.sqlite", next(PREFIXES)
    server: RedisServer | None = request.getfixturevalue("redis_server") if kind == "redis" else None
    store: Any = SQLiteStore(path) if server is None else RedisStore(server.url, prefix=prefix)
    async with store:
        library = MediaLibrary(media, store)
        sent = await library.send(TO, CONTENT)
        if server is None:
            with contextlib.closing(sqlite3.connect(path)) as other, other:
                other.execute("UPDATE messages SET entry = replace(entry, '\"text/plain\"', '\"text/plein\"')")
        else:
            server.command("SET", f"{prefix}:message:{sent.id}", "{}")
        with caplog.at_level(logging.WARNING, "meta_media"):
            assert await library.failed(status_of(sent.id, 131026)) is None
        assert sent.id in caplog.text
        assert (await library.ensure(CONTENT)).reused


async def test_an_earlier_file(tmp_path: Path, media: MediaApi) -> None:
    """A file of the version before gets the table of messages, and keeps its entries, which have no name."""
    path = tmp_path / "library.sqlite"
    async with SQLiteStore(path) as store:
        entry = await MediaLibrary(media, store).ensure(CONTENT)
    with contextlib.closing(sqlite3.connect(path)) as older, older:
        older.executescript("DROP TABLE messages; PRAGMA user_version = 2")
    async with SQLiteStore(path) as store:
        library = MediaLibrary(media, store)
        sent = await library.send(TO, CONTENT)
        found = await library.failed(status_of(sent.id))
        assert found == entry
        assert found.filename is None
