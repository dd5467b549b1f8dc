"""`upload(repackage=True)`: Opus of a browser becomes a voice note, from any source; any other file stays as it is."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiofiles
import attrs
import httpx
import pytest
from starlette.datastructures import UploadFile

from meta_media import MediaApi, MediaLibrary, MemoryStore, Settings, Source, samples
from meta_media.emulator import Emulator
from meta_media.errors import CorruptedMediaError, FileTooLargeError, UnsupportedMediaTypeError
from tests.support.servers import Server, json_response, open_files, page
from tests.support.stepping import LeanServer, Stepper, descriptors, none_added
from tests.transfer.recordings import CAMERA, MEDIA, MP4, STEREO, WEBM, mp4, packets, voice, webm
from tests.transfer.uploads import joined, refused, slowly

LONG = b"".join(webm(packets(8_000, 200)))  # 1.7 MB: more than is kept in memory
MEDIUM = b"".join(webm(packets(1_300, 200)))  # 270 KB: more than a head
SAMPLES = {path: path.read_bytes() for path in samples.paths()}
PHOTO = next(content for path, content in SAMPLES.items() if path.name == "photo.jpg")


async def stored(media: MediaApi, source: object, **options: Any) -> bytes:
    """Upload with `repackage=True`, and return what Meta has now: a voice note."""
    uploaded = await media.upload(source, repackage=True, **options)
    content = await media.read(uploaded.id)
    assert (uploaded.mime_type, uploaded.file_size) == ("audio/ogg", len(content))
    assert (uploaded.filename or "").endswith(".ogg")
    return content


# What is repackaged


@pytest.mark.parametrize("recording", [WEBM, MP4, STEREO], ids=["webm", "mp4", "stereo"])
async def test_every_source(media: MediaApi, tmp_path: Path, recording: bytes) -> None:
    """A recording becomes the same voice note, whatever it is read from."""
    path, note = tmp_path / "voice.webm", voice(recording)
    path.write_bytes(recording)
    form = UploadFile(io.BytesIO(recording), size=len(recording), filename="blob")
    sources = [path, str(path), recording, bytearray(recording), io.BytesIO(recording), form, joined(recording, 100)]
    sources += [slowly(*joined(recording, 1_000)), Source.stream(joined(recording, 700), size=len(recording))]
    for source in sources:
        assert await stored(media, source) == note
    async with aiofiles.open(path, "rb") as file:
        assert await stored(media, file) == note
        assert await file.tell() == 0


class Trickle(io.BytesIO):
    """A file that gives a part of what is asked for, like a file system over a network."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to 1,000 bytes."""
        return super().read(min(1_000, size or -1) if size is not None and size >= 0 else 1_000)


async def test_a_handle_that_reads_less(media: MediaApi) -> None:
    """A read that is not the last one may return less than was asked for, and less than a packet."""
    recording = b"".join(webm(packets(60, 2_000)))
    assert await stored(media, Trickle(recording)) == voice(recording)


@pytest.mark.parametrize("name", ["voice.webm", "voice.mp4", "voice.m4a", "voice", "voice.ogg", "voice.WEBM"])
async def test_the_name_follows(media: MediaApi, tmp_path: Path, name: str) -> None:
    """The note is named after the recording, and ends in .ogg, in a library as well."""
    path = tmp_path / name
    path.write_bytes(MP4)
    form = UploadFile(io.BytesIO(MP4), filename=name)
    for source, given in ((path, None), (form, None), (MP4, name)):
        assert (await media.upload(source, filename=given, repackage=True)).filename == "voice.ogg"
    async with MediaLibrary(media, MemoryStore()) as library:
        assert (await library.ensure(path, repackage=True)).filename == "voice.ogg"
    assert (await media.upload(MP4, repackage=True)).filename == "media.ogg"


async def test_from_a_download_and_a_response(server: Server, media: MediaApi, emulator: Emulator) -> None:
    """A recording is repackaged as it comes from another server, also from Meta, with one connection at a time."""
    recorded = await media.upload(MP4, mime_type="audio/mp4", validate=False)
    async with emulator.api(concurrency=1) as single:
        assert await stored(single, single.stream(recorded)) == voice(MP4)
    server.script = [page(LONG, content_type="audio/webm")]
    async with httpx.AsyncClient() as client, client.stream("GET", server.base_url) as response:
        assert await stored(media, response) == voice(LONG)


@pytest.mark.parametrize("recording", [LONG, mp4(packets(8_000, 200))], ids=["webm", "mp4"])
async def test_long_recordings(media: MediaApi, tmp_path: Path, nothing_stays_open: None, recording: bytes) -> None:
    """More than is kept in memory is repackaged from and to a temporary file, also where the index is behind the sound."""
    assert await stored(media, slowly(*joined(recording, 10_000))) == voice(recording)
    (tmp_path / "voice").write_bytes(recording)
    assert await stored(media, tmp_path / "voice") == voice(recording)


async def test_what_is_declared_is_of_the_recording(media: MediaApi, emulator: Emulator) -> None:
    """Type and size are those of the recording: a wrong size, or another kind of file, is refused before any request."""
    for size in (len(WEBM) + 1, len(voice(WEBM))):
        await refused(media, emulator, WEBM, CorruptedMediaError, size=size, repackage=True)
    declared = {"mime_type": "image/jpeg", "repackage": True}
    assert "image/jpeg" in str(await refused(media, emulator, WEBM, UnsupportedMediaTypeError, **declared))
    for mime_type in ("audio/webm;codecs=opus", "video/webm", "audio/ogg", None):
        assert await stored(media, WEBM, mime_type=mime_type, size=len(WEBM)) == voice(WEBM)


# What is not


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
async def test_other_files_stay_as_they_are(media: MediaApi, path: Path) -> None:
    """A file that WhatsApp takes is sent as it is, by the same name and type, from a path, a form and a stream."""
    content = SAMPLES[path]
    plain = await media.upload(path)
    form = UploadFile(io.BytesIO(content), filename=path.name)
    stream = Source.stream([content], name=path.name, mime_type=plain.mime_type, size=len(content))
    for source in (path, form, stream):
        same = await media.upload(source, repackage=True)
        assert (same.mime_type, same.filename) == (plain.mime_type, plain.filename)
        assert await media.read(same.id) == content


async def test_a_stream_of_another_type_is_not_spooled(server: Server, scripted: MediaApi) -> None:
    """A stream that cannot be Opus is sent as it comes, and one whose bytes are not those of its SHA-256 is not sent."""
    large = PHOTO + bytes(300_000)
    before = await asyncio.to_thread(open_files, "/tmp")

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in joined(large, 50_000):
            assert await asyncio.to_thread(open_files, "/tmp") == before
            yield chunk

    server.script = [json_response({"id": "1"})]
    await scripted.upload(Source.stream(chunks(), size=len(large)), repackage=True)
    assert large in server.requests[-1].body
    expecting = attrs.evolve(Source.bytes(PHOTO), sha256="0" * 64)
    with pytest.raises(CorruptedMediaError, match="SHA-256"):
        await scripted.upload(expecting, repackage=True)


@pytest.mark.parametrize("recording", [WEBM, MP4, STEREO], ids=["webm", "mp4", "stereo"])
async def test_off_by_default(media: MediaApi, emulator: Emulator, recording: bytes) -> None:
    """Without `repackage=True` a recording is refused, by a sentence that names it."""
    assert "pass repackage=True" in str(await refused(media, emulator, recording, UnsupportedMediaTypeError))


async def test_what_cannot_be(media: MediaApi, emulator: Emulator) -> None:
    """A film, a codec other than Opus and a damaged recording are refused by one sentence, before any request."""
    assert "re-encode it as MP4" in str(
        await refused(media, emulator, CAMERA, UnsupportedMediaTypeError, repackage=True)
    )
    for name, words in (("clip.mkv", "A_AAC"), ("vorbis.ogg", "Vorbis"), ("hevc.mp4", "HEVC")):
        error = await refused(media, emulator, MEDIA / name, UnsupportedMediaTypeError, repackage=True)
        assert words in str(error)
    for cut in (LONG[:-100], WEBM[:500], b"".join(webm([b"\xe0 2.5 ms, less than a player leaves out"]))):
        assert "damaged" in str(await refused(media, emulator, cut, CorruptedMediaError, repackage=True))


async def test_the_name_of_what_cannot_be(media: MediaApi, emulator: Emulator, tmp_path: Path) -> None:
    """The sentence names the file, whatever it is read from; without a name it is "the file"."""
    path = tmp_path / "voice.webm"
    for content, kind, why in ((WEBM[:500], CorruptedMediaError, "damaged"), (CAMERA, UnsupportedMediaTypeError, "")):
        path.write_bytes(content)
        form = UploadFile(io.BytesIO(content), filename="voice.webm")
        for source, given in ((path, None), (form, None), (content, "a/voice.webm")):
            error = await refused(media, emulator, source, kind, repackage=True, filename=given)
            assert str(error).startswith(f"'voice.webm' is {why}")
        assert str(await refused(media, emulator, content, kind, repackage=True)).startswith(f"the file is {why}")


async def test_the_limit_is_that_of_the_note(media: MediaApi, emulator: Emulator) -> None:
    """No more than 16 MiB of a note are computed."""
    recording = io.BytesIO(b"".join(webm(packets(130, 2**17))))
    error = await refused(media, emulator, recording, FileTooLargeError, repackage=True)
    assert isinstance(error, FileTooLargeError)
    assert (error.limit, error.kind) == (16 * 2**20, "audio")


@pytest.mark.slow
async def test_endless_recordings(media: MediaApi, emulator: Emulator, nothing_stays_open: None) -> None:
    """No more than 100 MiB of a stream are read."""
    read = 0

    def counted(recording: Any) -> Any:
        nonlocal read
        for chunk in recording:
            read += len(chunk)
            yield chunk

    sound = list(packets(100, 2**17))
    endless = counted(webm(packet for _ in range(10_000) for packet in sound))
    error = await refused(media, emulator, endless, FileTooLargeError, repackage=True)
    assert isinstance(error, FileTooLargeError)
    assert error.limit == 100 * 2**20
    assert read < 101 * 2**20


# How it is sent


async def test_retries_send_the_same_note(tmp_path: Path) -> None:
    """After an error of the server the note is sent again, as it was, also if the source can be read only once."""
    script = [page("busy", 503), json_response({"id": "1"})] * 2
    async with Server(*script) as server:
        settings = Settings(base_url=server.base_url, backoff=0.001)
        async with MediaApi("token", "1", settings=settings) as media:
            for recording in (WEBM, LONG):
                uploaded = await media.upload(slowly(recording), repackage=True)
                assert uploaded.attempts == 2
                first, second = server.requests[-2:]
                assert first.body == second.body
                assert voice(recording) in second.body


async def test_the_same_recording_is_uploaded_once(media: MediaApi, emulator: Emulator, tmp_path: Path) -> None:
    """A library and a journal know a recording by its note, which is always the same."""
    async with MediaLibrary(media, MemoryStore()) as library:
        first = await library.ensure(WEBM, filename="a.webm", repackage=True)
        again = await library.ensure(slowly(WEBM), repackage=True)
        as_note = await library.ensure(voice(WEBM))
    assert (first.reused, again.reused, as_note.reused) == (False, True, True)
    assert first.id == again.id == as_note.id
    path = tmp_path / "voice.mp4"
    path.write_bytes(MP4)
    items = [path, (MP4, {"filename": "other"})]
    for _ in range(2):
        report = await media.upload_many(items, journal=tmp_path / "run.sqlite", repackage=True).report()
        assert (report.failed, report.succeeded + report.skipped) == (0, 2)
    assert len(emulator.requests) == 2


async def test_nothing_is_computed_on_the_event_loop(media: MediaApi) -> None:
    """The containers are read on other threads."""
    on_the_loop: set[str] = set()
    sys.setprofile(lambda frame, _event, _arg: on_the_loop.add(Path(frame.f_code.co_filename).name))
    try:
        await media.upload(MEDIUM, repackage=True)
    finally:
        sys.setprofile(None)
    assert "repackaging.py" in on_the_loop
    assert on_the_loop.isdisjoint({"matroska.py", "ogg.py", "opus.py", "repackage.py"})


def _files() -> set[tuple[str, str]]:
    return {one for one in descriptors() if not one[1].startswith("socket:")}  # a connection is closed, or kept


@pytest.mark.parametrize("recording", [lambda: slowly(*joined(MEDIUM, 2**16)), lambda: WEBM], ids=["stream", "memory"])
async def test_cancelled_anywhere(recording: Callable[[], Any]) -> None:
    """An upload that is cancelled at any of its awaits leaves no file open, and no task."""
    async with LeanServer(lambda _, __: json_response({"id": "1"})) as server:
        settings = Settings(base_url=server.base_url, max_retries=0)
        async with MediaApi("token", "1", settings=settings) as media:
            await media.upload(WEBM, repackage=True)
            before, at = _files(), 0
            while True:
                at += 1
                stepper = Stepper(at)
                task = await stepper.run(lambda: media.upload(recording(), repackage=True))
                assert stepper.alive == []
                await none_added(before, _files)
                if not stepper.reached:
                    break
                assert task.cancelled() or task.done()
            assert at > 5
    await asyncio.sleep(0)
