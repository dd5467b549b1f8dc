"""`MediaLibrary.send`: a source is uploaded once and sent as often as asked, and no recipient gets two messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from meta_media import MediaLibrary, MemoryStore, Recipient, samples
from meta_media.emulator import Emulator, Fault
from meta_media.errors import ConfigurationError, MediaError, MediaNotFoundError, NetworkError
from tests.library.helpers import CONTENT, SMALL, HookedStore, client_of, fail
from tests.support.servers import Server, json_response
from tests.support.stepping import LeanServer, Stepper, settled_at

TO = "+15550001111"
UNKNOWN = {
    "message": "(#100) Param document['id'] is not a valid whatsapp business account media attachment ID",
    "type": "OAuthException",
    "code": 100,
}
SAMPLES = {path.name: path for path in samples.paths()}
SENT = {"messaging_product": "whatsapp", "contacts": [], "messages": [{"id": "wamid.1"}]}


def uploads(emulator: Emulator) -> int:
    """Count the uploads."""
    return sum(request.path.endswith("/media") for request in emulator.requests)


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    """Yield a content once."""
    yield content


async def test_uploaded_once(emulator: Emulator, library: MediaLibrary, path: Path) -> None:
    """A file is uploaded for its first message only, and shown under its name."""
    first = await library.send(TO, path, caption="Hello")
    second = await library.send(
        Recipient.user("US.1349"), path, reply_to=first.id, extra={"biz_opaque_callback_data": "x"}
    )
    assert first.id != second.id
    assert uploads(emulator) == 1
    entry = await library.get(path)
    assert entry is not None
    one, two = emulator.messages
    assert (one["to"], one["type"]) == (TO, "document")
    assert one["document"] == {"id": entry.id, "filename": "note.txt", "caption": "Hello"}
    assert (two["recipient"], two["biz_opaque_callback_data"]) == ("US.1349", "x")
    assert two["context"] == {"message_id": first.id}


@pytest.mark.parametrize(("name", "kind"), [("photo.jpg", "image"), ("note.ogg", "audio"), ("sticker.webp", "sticker")])
async def test_kinds(emulator: Emulator, library: MediaLibrary, name: str, kind: str) -> None:
    """The kind of message is the one for the type of the source."""
    await library.send(TO, SAMPLES[name])
    (message,) = emulator.messages
    assert message["type"] == kind


async def test_other_number(emulator: Emulator, library: MediaLibrary) -> None:
    """The message is sent from the number that has the media."""
    emulator.add_account("200", emulator.access_token)
    await library.send(TO, CONTENT, phone_number_id="200")
    assert [request.path.split("/")[-2:] for request in emulator.requests] == [["200", "media"], ["200", "messages"]]


async def test_names(emulator: Emulator, library: MediaLibrary, tmp_path: Path) -> None:
    """The same bytes under another name are shown under that name; without one, under the name of their upload."""
    for name in ("one.txt", "two.csv"):
        (tmp_path / name).write_bytes(CONTENT)
        await library.send(TO, tmp_path / name, mime_type="text/plain")
    await library.send(TO, CONTENT)
    await library.send(TO, CONTENT, filename="../three?.txt")
    shown = [message["document"].get("filename") for message in emulator.messages]
    assert shown == ["one.txt", "two.csv", "one.txt", "three_.txt"]
    assert uploads(emulator) == 1


async def test_nameless(emulator: Emulator, library: MediaLibrary) -> None:
    """Bytes without a name are sent without one."""
    await library.send(TO, CONTENT)
    assert set(emulator.messages[0]["document"]) == {"id"}


@pytest.mark.parametrize(
    ("to", "keywords"),
    [
        ("nobody", {}),
        (TO, {"caption": "x" * 1025}),
        (TO, {"voice": True}),
        (TO, {"kind": "audio", "caption": "no"}),
        (TO, {"kind": "letter"}),
        (TO, {"extra": {"to": TO}}),
        (TO, {"use_case": "call_voicemail_announcement"}),
        (TO, {"ttl": timedelta(seconds=1)}),
    ],
    ids=str,
)
async def test_refused_before_the_upload(
    emulator: Emulator, library: MediaLibrary, to: str, keywords: dict[str, Any]
) -> None:
    """What no message of this kind may have is refused before anything is uploaded."""
    with pytest.raises(ConfigurationError):
        await library.send(to, CONTENT, **keywords)
    assert emulator.requests == []


async def test_no_voice_note(emulator: Emulator, library: MediaLibrary) -> None:
    """Sound that cannot be a voice note is refused before the upload, and by its type where it is uploaded."""
    song = SAMPLES["song.mp3"]
    with pytest.raises(ConfigurationError, match="voice is for Opus in Ogg only, not for audio/mpeg"):
        await library.send(TO, song, voice=True)
    assert emulator.requests == []
    async with emulator.api() as media:
        uploaded = await media.upload(song)
        with pytest.raises(ConfigurationError, match="voice is for Opus in Ogg only, not for audio/mpeg"):
            await media.send(TO, uploaded, voice=True)
        with pytest.raises(ConfigurationError, match="voice is for Opus in Ogg only, not for audio/mpeg"):
            await media.send(TO, uploaded.id, voice=True)
        await media.send(TO, uploaded)
    assert len(emulator.messages) == 1


# Ids that Meta no longer knows


@pytest.mark.parametrize("once", [True, False])
async def test_unknown_id(emulator: Emulator, library: MediaLibrary, once: bool) -> None:
    """An id that Meta no longer knows is uploaded once more, also from a source that can be read once; one message is sent."""
    entry = await library.ensure(CONTENT)
    async with emulator.api() as other:
        await other.delete(entry.id)
    sent = await library.send(TO, pieces(CONTENT) if once else CONTENT, mime_type="text/plain")
    (message,) = emulator.messages
    assert message["document"]["id"] != entry.id
    assert sent.id
    assert uploads(emulator) == 2
    assert (await library.ensure(CONTENT)).id == message["document"]["id"]


async def test_unknown_to_many(emulator: Emulator, library: MediaLibrary) -> None:
    """Many messages with an id that Meta no longer knows lead to one upload, and are all sent once."""
    entry = await library.ensure(CONTENT)
    async with emulator.api() as other:
        await other.delete(entry.id)
    recipients = [f"+1555000{number:04}" for number in range(20)]
    await asyncio.gather(*(library.send(to, CONTENT) for to in recipients))
    assert sorted(message["to"] for message in emulator.messages) == recipients
    assert len({message["document"]["id"] for message in emulator.messages}) == 1
    assert uploads(emulator) == 2


async def test_unknown_at_once() -> None:
    """An id that Meta does not know right after its upload is an error: another upload would not help."""
    script = json_response({"id": "7"}), json_response({"error": UNKNOWN}, 400)
    async with Server(*script) as server, client_of(server) as api:
        with pytest.raises(MediaNotFoundError) as caught:
            await MediaLibrary(api, MemoryStore()).send(TO, SMALL)
        assert (caught.value.operation, caught.value.media_id) == ("send", "7")
        assert len(server.requests) == 2


async def test_unknown_again() -> None:
    """An id that Meta does not know either after the second upload is an error: there is no third."""
    uploaded = [json_response({"id": str(number)}) for number in (7, 8)]
    unknown = json_response({"error": UNKNOWN}, 400)
    async with Server(uploaded[0], unknown, uploaded[1], unknown) as server, client_of(server) as api:
        library = MediaLibrary(api, MemoryStore())
        await library.ensure(SMALL)
        with pytest.raises(MediaNotFoundError) as caught:
            await library.send(TO, SMALL)
        assert caught.value.media_id == "8"
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("fault", "maybe_applied"),
    [
        (Fault(end="reset", at="reply"), True),
        (Fault.error(131000, 500, applied=True), True),
        (Fault.error(131026), False),
        (Fault.error(131053), False),
    ],
)
async def test_no_second_message(emulator: Emulator, library: MediaLibrary, fault: Fault, maybe_applied: bool) -> None:
    """Any other failure is an error, and leads to no second try: the message may have been sent."""
    entry = await library.ensure(CONTENT)
    emulator.fail("send", fault)
    with pytest.raises(MediaError) as caught:
        await library.send(TO, CONTENT)
    assert caught.value.maybe_applied == maybe_applied
    assert len(emulator.messages) == maybe_applied
    assert uploads(emulator) == 1
    assert (await library.ensure(CONTENT)).id == entry.id


async def test_upload_that_is_lost(emulator: Emulator, library: MediaLibrary) -> None:
    """If the upload fails, its error is raised, and nothing is sent."""
    emulator.fail("upload", Fault(end="close", at="request"), times=None)
    with pytest.raises(NetworkError) as caught:
        await library.send(TO, CONTENT)
    assert caught.value.operation == "upload"
    assert emulator.messages == []


async def test_message_that_is_not_stored(
    emulator: Emulator, library: MediaLibrary, store: HookedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """A message whose id cannot be stored is sent all the same: an error would have it sent again. The log says so."""
    store.before["put_message"] = fail
    sent = await library.send(TO, CONTENT)
    assert len(emulator.messages) == 1
    (record,) = caplog.records
    assert record.getMessage() == (
        f"message {sent.id} is sent, but a status of it will not lead to its file: the store is away"
    )


def graph(method: str, target: str) -> bytes:
    """Respond as Meta does."""
    return json_response(SENT if target.endswith("/messages") else {"id": "7"})


@pytest.mark.parametrize("late", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["before", "after"])
async def test_cancelled_at_every_await(late: bool) -> None:
    """A call that is cancelled at any await leaves nothing behind, and has sent at most one message."""
    async with LeanServer(graph) as server:
        at, going = 0, True
        while going:
            at += 1
            before = len(server.requests)
            async with client_of(server) as api:
                library, stepper = MediaLibrary(api, MemoryStore()), Stepper(at, late=late)
                task = await stepper.run(lambda library=library: library.send(TO, SMALL))  # type: ignore[misc]
                going = stepper.reached
                assert task.cancelled() or task.result().id == "wamid.1"
                await settled_at([], lambda stepper=stepper: stepper.alive)  # type: ignore[misc]
                assert library._locks == {}
            sent = [target for _, target in server.requests[before:] if target.endswith("/messages")]
            assert len(sent) <= 1
    assert at > 6
