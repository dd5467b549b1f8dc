"""The whole public API as typed code uses it: read by mypy and pyright, never run."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, assert_type

import aiofiles
import httpx
from obstore.store import AzureStore, LocalStore, MemoryStore, S3Store

from meta_media import (
    BulkReport,
    BulkRun,
    DeletedMedia,
    DownloadedMedia,
    InboundFailure,
    InboundMedia,
    LibraryEntry,
    MediaApi,
    MediaError,
    MediaInfo,
    MediaLibrary,
    MediaStream,
    MessageStatus,
    ObjectDestination,
    Outcome,
    Progress,
    Recipient,
    SentMessage,
    Settings,
    Source,
    UploadedMedia,
    UploadHandle,
    Webhook,
    __version__,
    inbound_media,
    parse_webhook,
    verify_signature,
    verify_subscription,
)
from meta_media.emulator import Emulator, EmulatorSettings
from meta_media.errors import ApiError, InvalidMediaError, NetworkError

version: str = __version__


async def token() -> str:
    """Ask a key store."""
    return "EAAG"


async def pieces() -> AsyncIterator[bytes]:
    """Give bytes as they come."""
    yield b"a"


def plain(progress: Progress) -> None:
    """Show progress."""
    assert_type(progress.transferred, int)
    assert_type(progress.total, int | None)


async def awaited(progress: Progress) -> None:
    """Show progress, slowly."""


async def clients(theirs: httpx.AsyncClient) -> None:
    """Make clients and copies."""
    settings = Settings(
        base_url="https://graph.facebook.com", media_hosts=["example.com"], read_timeout=60, chunk_size=2
    )
    media = MediaApi("EAAG", "1", settings=settings, http_client=theirs)
    assert_type(MediaApi(token), MediaApi)
    assert_type(media.settings, Settings)
    assert_type(media.with_options(access_token=token, phone_number_id="2", read_timeout=1.5), MediaApi)
    async with media as entered:
        assert_type(entered, MediaApi)
    await media.aclose()


async def elsewhere(media: MediaApi) -> None:
    """Files of the public internet, and a number that 360dialog hosts."""
    source = Source.url("https://files.example/a.jpg", max_size=2**20, headers={"Authorization": "Bearer key"})
    assert_type(source, Source)
    assert_type(await media.upload(source), UploadedMedia)
    settings = Settings.for_360dialog(api_key="key", read_timeout=5)
    assert_type(settings, Settings)
    assert_type(MediaApi(settings=settings), MediaApi)
    async with Emulator(settings=EmulatorSettings(provider="360dialog")) as emulator:
        assert_type(emulator.api(), MediaApi)


async def uploads(media: MediaApi, response: httpx.Response) -> None:
    """Upload from anything."""
    assert_type(await media.upload_handle("a.jpg", app_id="1", progress=plain), UploadHandle)
    uploaded = await media.upload(
        "a.jpg",
        filename="b.jpg",
        mime_type="image/jpeg",
        size=5,
        validate=False,
        verify=True,
        ttl=timedelta(hours=2),
        use_case="call_voicemail_announcement",
        phone_number_id="2",
        progress=plain,
        repackage=True,
    )
    assert_type(uploaded, UploadedMedia)
    assert_type(uploaded.id, str)
    assert_type(uploaded.mime_type, str | None)
    assert_type(uploaded.file_size, int | None)
    assert_type(uploaded.sha256, str | None)
    assert_type(uploaded.extra, Mapping[str, Any])
    for source in (
        Path("a.jpg"),
        b"a",
        bytearray(b"a"),
        memoryview(b"a"),
        [b"a"],
        io.BytesIO(b"a"),
        pieces(),
        response,
    ):
        await media.upload(source, progress=awaited)
    async with aiofiles.open("a.jpg", "rb") as handle:
        await media.upload(handle)
        await media.upload(Source.handle(handle, name="a.jpg", size=5))
    for made in (Source.path("a.jpg"), Source.bytes(b"a", name="a"), Source.stream(pieces(), name="a", size=5)):
        assert_type(made, Source)
        await media.upload(made)
    async with media.uploaded(b"a", filename="a.txt") as short_lived:
        assert_type(short_lived, UploadedMedia)


async def lookups(media: MediaApi) -> MediaInfo:
    """Look up and delete."""
    known = await media.get_info("1", phone_number_id="2")
    assert_type(known, MediaInfo)
    assert_type(known.url, str)
    assert_type(known.mime_type, str)
    assert_type(known.sha256, str | None)
    assert_type(known.file_size, int | None)
    assert_type(known.url_expires_at, datetime | None)
    deleted = await media.delete("1", missing_ok=True, phone_number_id="2")
    assert_type(deleted, DeletedMedia)
    assert_type(deleted.success, bool)
    return known


async def downloads(media: MediaApi, what: str | MediaInfo | InboundMedia) -> None:
    """Download to anything."""
    saved = await media.download(what, "a.jpg", overwrite=False, progress=awaited)
    assert_type(saved, DownloadedMedia)
    assert_type(saved.path, Path | None)
    assert_type(saved.size, int)
    assert_type(saved.sha256, str)
    assert_type(saved.media_id, str | None)
    await media.download(what, Path("a.jpg"), progress=plain)
    await media.download(what, io.BytesIO())
    async with aiofiles.open("a.jpg", "wb") as handle:
        await media.download(what, handle)
    assert_type(await media.read(what, max_size=5), bytes)
    async with media.stream(what) as stream:
        assert_type(stream, MediaStream)
        assert_type(stream.info, MediaInfo | None)
        assert_type(stream.mime_type, str)
        assert_type(stream.size, int | None)
        assert_type(stream.filename, str)
        assert_type(stream.sha256, str)
        assert_type(stream.verified, bool)
        assert_type(await stream.read(5), bytes)
        async for chunk in stream:
            assert_type(chunk, bytes)
        await media.upload(stream, size=stream.size)
    assert_type(media.stream(what, start=1, end=2), MediaStream)
    async for chunk in media.stream(what):
        assert_type(chunk, bytes)


async def buckets(media: MediaApi, s3: S3Store, azure: AzureStore, local: LocalStore) -> None:
    """Move between buckets."""
    for store in (s3, azure, local, MemoryStore()):
        assert_type(Source.object(store, "a.jpg", name="b.jpg", mime_type="image/jpeg"), Source)
        saved = await media.download("1", ObjectDestination(store, "a.jpg"), overwrite=False)
        assert_type(saved.key, str | None)
        run = media.download_many(["1"], ObjectDestination(store, key="inbox/"), journal="a")
        assert_type(run, BulkRun[DownloadedMedia])
    listing = (Source.object(s3, entry["path"]) for batch in s3.list("inbox") for entry in batch)
    assert_type(media.upload_many(listing), BulkRun[UploadedMedia])


async def messages(media: MediaApi) -> None:
    """Send."""
    sent = await media.send("+15550001111", "1", kind="document", caption="a", filename="a.pdf", reply_to="wamid.x")
    assert_type(sent, SentMessage)
    assert_type(sent.id, str)
    assert_type(sent.wa_id, str | None)
    assert_type(sent.user_id, str | None)
    assert_type(sent.input, str | None)
    assert_type(sent.status, str | None)
    await media.send("+15550001111", "1", kind="audio", voice=True, phone_number_id="2")
    for to in (Recipient.phone("+15550001111"), Recipient.user("US.1"), Recipient.group("Y2Fw")):
        assert_type(to, Recipient)
        await media.send(to, await media.upload(b"a"), extra={"biz_opaque_callback_data": "7"})


async def ids(media: MediaApi, entry: LibraryEntry, inbound: InboundMedia, known: MediaInfo) -> None:
    """Pass whatever has a media id."""
    for what in (entry, inbound, known, UploadedMedia(id="1")):
        assert_type(await media.get_info(what), MediaInfo)
        assert_type(await media.read(what), bytes)
        assert_type(await media.delete(what), DeletedMedia)


async def runs(media: MediaApi, library: MediaLibrary, webhook: Webhook) -> None:
    """Work on many items."""
    async with media.upload_many(["a.jpg", b"a"], filename="a.jpg", ttl=timedelta(hours=2), journal="run") as run:
        assert_type(run, BulkRun[UploadedMedia])
        async for outcome in run:
            assert_type(outcome, Outcome[UploadedMedia])
            assert_type(outcome.result().id, str)
            assert_type(outcome.value, UploadedMedia | None)
    assert_type(await run.report(), BulkReport)
    media.upload_many([b"a"], concurency=3)  # type: ignore[call-arg]  # the misspelt keyword is found
    media.upload_many([b"a"], filename=3)  # type: ignore[arg-type]  # and so is the wrong type
    await run  # type: ignore[misc]  # a run is not awaited
    assert_type([outcome.result().path async for outcome in media.download_many(["1"], "inbox")], list[Path | None])
    assert_type([outcome.result().success async for outcome in media.delete_many(["1"])], list[bool])
    assert_type(await media.move("1", "2", phone_number_id="3", progress=plain), UploadedMedia)
    sends = media.send_many(["+15550001111", ("+15550001112", {"caption": "a"})], "1", kind="image", caption="b")
    assert_type(sends, BulkRun[SentMessage])
    media.send_many(["+15550001111"], "1", capton="b")  # type: ignore[call-arg]  # the misspelt keyword is found
    entries = library.ensure_many([b"a"], verify=True, mime_type="text/plain", repackage=True)
    assert_type([outcome.result() async for outcome in entries], list[LibraryEntry])
    assert_type(await library.ensure(b"a", verify=True, progress=plain), LibraryEntry)
    sent = await library.send("+15550001111", b"a", caption="b", filename="a.pdf", verify=True, progress=plain)
    assert_type(sent, SentMessage)
    await library.send("+15550001111", b"a", capton="b")  # type: ignore[call-arg]  # the misspelt keyword is found
    assert_type([await library.failed(status) for status in webhook.statuses], list[LibraryEntry | None])
    library.ensure_many([b"a"], use_case="a")  # type: ignore[call-arg]  # a library has no use_case


def webhooks(payload: bytes | str | dict[str, Any], body: bytes, header: str | None, query: Mapping[str, str]) -> None:
    """Read what Meta posts."""
    for inbound in inbound_media(payload):
        assert_type(inbound, InboundMedia)
        assert_type(inbound.url, str | None)
        assert_type(inbound.timestamp, datetime | None)
        assert_type(inbound.voice, bool)
        assert_type(inbound.mime_type, str | None)
        assert_type(inbound.reply_address, Recipient | None)
        assert_type(inbound.message, Mapping[str, Any])
    webhook = parse_webhook(payload)
    assert_type(webhook, Webhook)
    assert_type(webhook.unread, int)
    for status in webhook.statuses:
        assert_type(status, MessageStatus)
        assert_type(status.recipient, Recipient | None)
        assert_type(status.errors, tuple[ApiError, ...])
    for failure in webhook.failures:
        assert_type(failure, InboundFailure)
    assert_type(verify_signature([b"secret", "new"], body.decode(), header), bool)
    assert_type(verify_signature("secret", body, header), bool)
    assert_type(verify_subscription(query, "token"), str)


async def errors(media: MediaApi) -> None:
    """Tell errors apart."""
    try:
        await media.upload(b"a")
    except InvalidMediaError as error:
        assert_type(error.limit, int | str | None)
        assert_type(error.answer, ApiError | None)
    except ApiError as error:
        assert_type(error.status, int | None)
        assert_type(error.code, int | None)
        assert_type(error.retry_after, float | None)
        assert_type(error.fbtrace_id, str | None)
    except NetworkError as error:
        assert_type(error.maybe_applied, bool)
    except MediaError as error:
        assert_type(error.attempts, int)
        assert_type(error.elapsed, float)
        assert_type(error.media_id, str | None)


async def emulated() -> None:
    """Run the emulator."""
    async with Emulator(accounts={"1": "EAAG"}, settings=EmulatorSettings(url_lifetime=5)) as emulator:
        assert_type(emulator, Emulator)
        assert_type(emulator.api(read_timeout=5), MediaApi)
        assert_type(emulator.base_url, str)
        assert_type(await emulator.receive(b"a", "image/jpeg"), tuple[bytes, str])
