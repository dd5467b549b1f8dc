"""The type comes from the bytes, wherever they lie, and the names of what is sent and saved follow it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiofiles
import pytest

from meta_media import InboundMedia, MediaApi, MediaLibrary, MemoryStore, Settings, Source, samples
from meta_media.emulator import Emulator
from meta_media.errors import UnsupportedMediaTypeError
from tests.support.boxes import box, mp4, sound, video
from tests.support.containers import archive
from tests.support.servers import Server, json_response

SAMPLES = {path.name: path.read_bytes() for path in samples.paths()}
FILM = mp4(video(b"hvc1"), sound(), media=300_000, last=True)
PLAYED, FAST = (mp4(video(), sound(), media=300_000, last=last) for last in (True, False))
SPEECH = mp4(sound(), media=300_000, last=True)


@pytest.fixture
async def api(server: Server) -> AsyncIterator[MediaApi]:
    """A client for a server that accepts every upload."""
    server.script = [json_response({"id": "42"})]
    async with MediaApi("token", "1", settings=Settings(base_url=server.base_url)) as client:
        yield client


def sent(server: Server) -> tuple[str, str]:
    """Return the name and the type of the newest upload."""
    found = re.search(rb'filename="(.*?)"\r\nContent-Type: (.*?)\r\n', server.requests[-1].body)
    assert found is not None
    return found[1].decode(), found[2].decode()


# Names that are sent


@pytest.mark.parametrize(
    ("sample", "name", "expected"),
    [
        ("note.ogg", "voice-note.mp4", "voice-note.ogg"),
        ("note.ogg", "note.opus", "note.ogg"),
        ("report.pdf", "cotizacion", "cotizacion.pdf"),
        ("report.pdf", "invoice.html", "invoice.pdf"),
        ("report.pdf", None, "media.pdf"),
        ("photo.jpg", "PHOTO.JPG", "PHOTO.JPG"),
        ("photo.jpg", "photo.jpg.exe", "photo.jpg.exe.jpg"),
    ],
)
async def test_names_that_are_sent(
    server: Server, api: MediaApi, tmp_path: Path, sample: str, name: str | None, expected: str
) -> None:
    """Meta gets a name with an extension of the type of the bytes, from memory and from a path."""
    await api.upload(SAMPLES[sample], filename=name)
    assert sent(server)[0] == expected
    if name is not None:
        (tmp_path / name).write_bytes(SAMPLES[sample])
        await api.upload(tmp_path / name)
        assert sent(server)[0] == expected


async def test_names_of_what_is_declared(server: Server, api: MediaApi) -> None:
    """A declared type decides the extension, too; without validation an unknown one changes nothing."""
    await api.upload(b"a,b\n1,2\n", filename="data.csv", mime_type="text/plain")
    assert sent(server) == ("data.txt", "text/plain")
    await api.upload(b"a,b\n1,2\n", filename="data.csv", mime_type="x/y", validate=False)
    assert sent(server) == ("data.csv", "x/y")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("data.csv", "data.csv"),
        ("data", "data.txt"),
        ("config.yaml", "config.yaml.txt"),
        ("page.html", "page.html.txt"),
    ],
)
async def test_names_of_text_documents(emulator: Emulator, media: MediaApi, name: str, shown: str) -> None:
    """A table that is sent as text may be shown as a table, but not as what a browser runs."""
    uploaded = await media.upload(b"a,b\n1,2\n", filename=name, mime_type="text/plain")
    await media.send("+15550001111", uploaded, filename=name)
    assert emulator.messages[-1]["document"]["filename"] == shown


# Names that are saved


@pytest.mark.parametrize(
    ("given", "mime_type", "expected"),
    [
        ("Fatura 05", "application/pdf", "Fatura 05.pdf"),
        ("Fatura 05.2026", "application/pdf", "Fatura 05.2026.pdf"),
        ("table.csv", "text/plain", "table.csv"),
        ("invoice.html", "application/pdf", "invoice.html.pdf"),
        ("invoice.pdf.exe", "application/pdf", "invoice.pdf.exe.pdf"),
        ("voice", "audio/ogg; codecs=opus", "voice.ogg"),
    ],
)
async def test_names_that_are_saved(
    emulator: Emulator, media: MediaApi, tmp_path: Path, given: str, mime_type: str, expected: str
) -> None:
    """A folder gets a name with an extension, in which the sender's own known one stays."""
    uploaded = await media.upload(b"any bytes", mime_type=mime_type, validate=False)
    inbound = InboundMedia(id=uploaded.id, kind="document", mime_type=mime_type, filename=given)
    saved = await media.download(inbound, tmp_path)
    assert saved.path is not None
    assert saved.path.name == expected
    async with media.stream(inbound) as stream:
        assert stream.filename == expected


# Types


def _path(data: bytes, folder: Path) -> Any:
    path = folder / "recording"
    path.write_bytes(data)
    return path


def _handle(data: bytes, folder: Path) -> Any:
    handle = _path(b"before" + data, folder).open("rb")
    handle.seek(6)
    return handle


@pytest.mark.parametrize(
    "make",
    [lambda data, _: data, lambda data, _: memoryview(data), _path, _handle],
    ids=["bytes", "view", "path", "handle"],
)
async def test_what_lies_behind_the_media_decides(
    server: Server, api: MediaApi, tmp_path: Path, make: Callable[[bytes, Path], Any]
) -> None:
    """The tracks at the end of an MP4 decide, if the source can be read there, and all bytes are sent."""
    with contextlib.ExitStack() as stack:
        for data, expected in ((SPEECH, ("recording.m4a", "audio/mp4")), (FILM, None)):
            source = make(data, tmp_path)
            if hasattr(source, "tell"):
                stack.enter_context(source)
            if expected:
                await api.upload(source, filename="recording")
                assert sent(server) == expected
                assert data in server.requests[-1].body
            else:
                with pytest.raises(UnsupportedMediaTypeError, match=r"MP4 with H\.265"):
                    await api.upload(source, filename="film.mp4")
            assert not hasattr(source, "tell") or source.tell() == 6


async def test_what_lies_behind_the_media_decides_in_an_async_handle(
    server: Server, api: MediaApi, tmp_path: Path
) -> None:
    """An async handle that can seek is read at its end, too, and its position is restored."""
    (tmp_path / "film").write_bytes(FILM)
    async with aiofiles.open(tmp_path / "film", "rb") as handle:
        with pytest.raises(UnsupportedMediaTypeError, match=r"MP4 with H\.265"):
            await api.upload(handle)
        assert await handle.tell() == 0
    assert server.requests == []


MACROS = archive(
    ("xl/media/a.png", bytes(100_000)),
    ("xl/workbook.xml", b"<x/>"),
    ("[Content_Types].xml", b'<Override ContentType="application/vnd.ms-excel.sheet.macroEnabled.main+xml"/>'),
    method=0,
)


@pytest.mark.parametrize("before", [b"", b"before"])
async def test_the_end_of_a_file_decides(server: Server, api: MediaApi, tmp_path: Path, before: bytes) -> None:
    """An archive has its list of contents at its end, which is read from a path, memory, a handle and a spooled stream."""
    path = tmp_path / "table.xlsx"
    path.write_bytes(before + MACROS)
    with path.open("rb") as handle:
        handle.seek(len(before))
        for source in (handle, MACROS, pieces(MACROS), *([] if before else [path])):
            with pytest.raises(UnsupportedMediaTypeError, match=r"sheet.macroenabled.12.*: save it as \.xlsx"):
                await api.upload(source, filename="table.xlsx")
    assert server.requests == []


async def test_places_that_no_disk_has_are_not_read(server: Server, api: MediaApi, tmp_path: Path) -> None:
    """A file that points at exabytes beyond its end goes by its name: a disk would refuse to seek there."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(box(b"ftyp", b"isom", bytes(4)) + b"\0\0\0\1free" + (2**62).to_bytes(8, "big") + bytes(100_000))
    await api.upload(path)
    assert sent(server) == ("clip.mp4", "video/mp4")


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """Yield bytes once."""
    for start in range(0, len(data), 70_000):
        yield data[start : start + 70_000]


async def test_a_stream_of_declared_size_is_judged_by_its_head(server: Server, api: MediaApi) -> None:
    """What cannot be seen in a stream is no reason to refuse it: its name decides."""
    await api.upload(pieces(FILM), filename="film.mp4", size=len(FILM))
    assert sent(server) == ("film.mp4", "video/mp4")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: PLAYED, ["'film.mp4': the index (moov) at the end may keep it from playing"]),
        (lambda: pieces(PLAYED), ["'film.mp4': the index (moov) at the end may keep it from playing"]),
        (
            lambda: Source.stream(pieces(PLAYED), size=len(PLAYED)),
            ["'film.mp4': it is judged by its first 65,536 bytes"],
        ),
        (lambda: Source.stream(pieces(FAST), size=len(FAST)), []),
        (lambda: FAST, []),
    ],
    ids=["bytes", "stream", "stream of declared size", "stream whose head shows all", "good"],
)
async def test_the_log_has_the_remarks(
    api: MediaApi, caplog: pytest.LogCaptureFixture, make: Callable[[], Any], said: list[str]
) -> None:
    """What is accepted but may not play is logged, and of a stream that its head alone was judged."""
    with caplog.at_level("INFO", "meta_media"):
        await api.upload(make(), filename="film.mp4")
    infos = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert [info[: len(start)] for info, start in zip(infos, said, strict=True)] == said


async def test_a_spooled_stream_is_judged_by_all_of_it(server: Server, api: MediaApi) -> None:
    """A stream that is spooled can be read at its end before it is sent."""
    await api.upload(pieces(SPEECH), filename="recording.mp4")
    assert sent(server) == ("recording.m4a", "audio/mp4")
    assert SPEECH in server.requests[-1].body
    with pytest.raises(UnsupportedMediaTypeError, match=r"MP4 with H\.265"):
        await api.upload(pieces(FILM), filename="film.mp4")
    assert len(server.requests) == 1


async def test_a_library_keeps_what_is_sent(emulator: Emulator, media: MediaApi) -> None:
    """A library, which reads a source twice, records the type that Meta gets."""
    async with MediaLibrary(media, MemoryStore()) as library:
        entry = await library.ensure(Source.stream(pieces(SPEECH), name="a.mp4", size=len(SPEECH)))
        info = await media.get_info(entry.id)
        assert entry.mime_type == info.mime_type == "audio/mp4"
