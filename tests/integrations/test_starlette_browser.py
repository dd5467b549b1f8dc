"""`MediaResponse` in a real browser: a form, players that seek, and documents of strangers whose scripts do not run."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fastapi
import pytest
import pytest_asyncio
from fastapi.responses import HTMLResponse

from meta_media import samples
from meta_media.emulator import Emulator
from meta_media.integrations.starlette import MediaResponse, media_lifespan
from tests.integrations.web import serving
from tests.support.chromium import MARKS, complaints
from tests.transfer.downloads import received

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytest_plugins = ["tests.support.chromium"]
pytestmark = MARKS
SAMPLES = {path.name: path for path in samples.paths()}
PADDING = 4 * 2**20  # bytes before a film's index, more than a browser reads ahead
FORM = """<!doctype html><title>Send a file</title><link rel=icon href=data:,>
<form method=post action=/media enctype=multipart/form-data>
<label>File <input type=file name=file></label> <button>Send</button></form>"""
PAGE = "<!doctype html><title>Media</title><link rel=icon href=data:,><{0} src=/media/{1} controls preload=auto></{0}>"


class Site:
    """An application with a form and a route for media, which are for people who are logged in; and who asked for what."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.asked: list[tuple[str, str | None, str | None]] = []  # method, `Range`, cookie
        self.app = fastapi.FastAPI(lifespan=media_lifespan(emulator.api))
        self.app.add_api_route("/", self.form)
        self.app.add_api_route("/media", self.take, methods=["POST"])
        self.app.add_api_route("/show/{tag}/{media_id}", self.show)
        self.app.add_api_route("/media/{media_id}", self.give, methods=["GET", "HEAD"])

    async def form(self) -> HTMLResponse:
        """Log the visitor in, and show the form."""
        page = HTMLResponse(FORM)
        page.set_cookie("session", "1", httponly=True, samesite="lax")
        return page

    async def take(self, request: fastapi.Request, file: fastapi.UploadFile) -> HTMLResponse:
        """Upload the form's file, and show it."""
        uploaded = await request.state.media.upload(file)
        return HTMLResponse(PAGE.format("img", uploaded.id))

    async def show(self, tag: str, media_id: str) -> HTMLResponse:
        """Show a media in an element."""
        return HTMLResponse(PAGE.format(tag, media_id))

    async def give(self, request: fastapi.Request, media_id: str) -> Any:
        """Respond with the media."""
        headers = request.headers
        self.asked.append((request.method, headers.get("range"), headers.get("cookie")))
        if "cookie" not in headers:
            return HTMLResponse("log in", 401)
        return MediaResponse(request.state.media, media_id)


@asynccontextmanager
async def visited(chromium: Browser, site: Site) -> AsyncIterator[tuple[Page, list[str]]]:
    """Serve a site, and open its form."""
    async with serving(site.app) as url:
        page = await chromium.new_page(base_url=url, viewport={"width": 800, "height": 500})
        faults = complaints(page)
        await page.goto("/")
        yield page, faults
        await page.context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator on the event loop that the tests of this module share."""
    async with Emulator() as running:
        yield running


@pytest.fixture
def site(emulator: Emulator) -> Site:
    """An application whose media is in the emulator."""
    return Site(emulator)


def far_index(film: Path) -> bytes:
    """Return a film whose index stands at the end, behind 4 MiB that a player must skip by `Range`."""
    boxes: dict[bytes, bytes] = {}
    rest = film.read_bytes()
    while rest:
        size, name = struct.unpack(">I4s", rest[:8])
        boxes[name], rest = rest[:size], rest[size:]
    before = film.read_bytes().index(boxes[b"mdat"])
    padding = struct.pack(">I4s", PADDING, b"free") + bytes(PADDING - 8)
    moved = len(boxes[b"ftyp"] + padding) - before
    index = bytearray(boxes[b"moov"])
    place = 0
    while (place := index.find(b"stco", place + 1)) > 0:  # the offsets of the chunks
        (count,) = struct.unpack_from(">I", index, place + 8)
        offsets = struct.unpack_from(f">{count}I", index, place + 12)
        struct.pack_into(f">{count}I", index, place + 12, *(offset + moved for offset in offsets))
    return boxes[b"ftyp"] + padding + boxes[b"mdat"] + bytes(index)


async def test_a_form_uploads_a_photo_and_shows_it(chromium: Browser, site: Site, screenshots: Path) -> None:
    """The photo that a visitor chose goes to Meta, and is on the next page."""
    async with visited(chromium, site) as (page, faults):
        await page.get_by_label("File").set_input_files(SAMPLES["photo.jpg"])
        await page.get_by_role("button", name="Send").click()
        await page.wait_for_function("document.querySelector('img')?.naturalWidth > 0")
        assert await page.evaluate("document.querySelector('img').naturalWidth") == 320
        await page.screenshot(path=screenshots / "form-photo.png")
        shown = await page.evaluate("document.querySelector('img').src")
    assert faults == []
    async with site.emulator.api() as media:
        assert await media.read(shown.rpartition("/")[2]) == SAMPLES["photo.jpg"].read_bytes()


async def test_a_film_seeks(chromium: Browser, site: Site, screenshots: Path) -> None:
    """A player finds the index of a film by `Range`, knows its duration, and goes to any time."""
    film = far_index(SAMPLES["clip.mp4"])
    inbound = await received(site.emulator, film, "video/mp4")
    async with visited(chromium, site) as (page, faults):
        statuses: list[int] = []
        page.on("response", lambda response: statuses.append(response.status))
        await page.goto(f"/show/video/{inbound.id}")
        video = "document.querySelector('video')"
        await page.wait_for_function(f"{video}.readyState >= 2")
        assert await page.evaluate(f"[{video}.duration, {video}.seekable.end(0)]") == [2, 2]
        await page.evaluate(f"new Promise(done => {{ {video}.onseeked = done; {video}.currentTime = 1.5 }})")
        assert await page.evaluate(f"{video}.currentTime") == 1.5
        await page.screenshot(path=screenshots / "video-seeks.png")
    assert [fault for fault in faults if "ERR_ABORTED" not in fault] == []  # it gives up what it skips
    assert set(statuses[1:]) == {206}
    starts = [int(asked.removeprefix("bytes=").partition("-")[0]) for _, asked, _ in site.asked if asked]
    assert max(starts) >= PADDING


async def test_a_voice_note_has_its_duration(chromium: Browser, site: Site, screenshots: Path) -> None:
    """A player knows how long an Ogg file is, for which it reads its end by `Range`."""
    note = SAMPLES["note.ogg"].read_bytes()
    inbound = await received(site.emulator, note, "audio/ogg; codecs=opus")
    async with visited(chromium, site) as (page, faults):
        await page.goto(f"/show/audio/{inbound.id}")
        audio = "document.querySelector('audio')"
        await page.wait_for_function(f"{audio}.readyState >= 2")
        assert 2 <= await page.evaluate(f"{audio}.duration") < 2.1
        await page.screenshot(path=screenshots / "voice-note.png")
    assert faults == []


@pytest.mark.parametrize(("name", "mime_type"), [("clip.mp4", "video/mp4"), ("note.ogg", "audio/ogg")])
async def test_a_player_in_a_tab_of_its_own(chromium: Browser, site: Site, name: str, mime_type: str) -> None:
    """The browser's own page for a film or a sound plays it: its further requests have the visitor's cookie."""
    inbound = await received(site.emulator, SAMPLES[name].read_bytes(), mime_type)
    async with visited(chromium, site) as (page, faults):
        await page.goto(f"/media/{inbound.id}")
        await page.wait_for_function("document.querySelector('video').readyState >= 2")
        assert await page.evaluate("document.contentType") == mime_type
    assert [fault for fault in faults if "favicon" not in fault and "404" not in fault] == []
    assert {cookie for _, _, cookie in site.asked} == {"session=1"}


RUNS = "document.title = window.top.document.title = window.ran = 'SCRIPT RAN'"
DOCUMENTS = {
    "text/html": f"<title>harmless</title><script>{RUNS}</script>",
    "image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg'><script>{RUNS}</script></svg>",
    "application/xhtml+xml": f"<html xmlns='http://www.w3.org/1999/xhtml'><script>{RUNS}</script></html>",
    "text/xml": f"<html xmlns='http://www.w3.org/1999/xhtml'><script>{RUNS}</script></html>",
    "text/javascript": RUNS,
    "image/jpeg": f"<script>{RUNS}</script>",
}


async def test_documents_of_strangers_run_no_script(chromium: Browser, site: Site, screenshots: Path) -> None:
    """Opened, framed or named as a script, a document that a stranger sent is saved or not shown, and never runs."""
    sent = {mime_type: await received(site.emulator, text.encode(), mime_type) for mime_type, text in DOCUMENTS.items()}
    async with visited(chromium, site) as (page, _):
        for mime_type, inbound in sent.items():
            url = f"/media/{inbound.id}"
            if mime_type == "image/jpeg":
                await page.goto(url)
            else:
                async with page.expect_download() as saving:
                    await page.evaluate("url => { location.href = url }", url)
                saved = await (await saving.value).path()
                assert saved.read_text() == DOCUMENTS[mime_type]
            assert await page.title() != "SCRIPT RAN"
            await page.goto("/")
            await page.evaluate(
                """url => Promise.all(['script', 'iframe', 'object', 'embed'].map(tag => new Promise(done => {
                    const element = document.createElement(tag)
                    element[tag === 'object' ? 'data' : 'src'] = url
                    element.onload = element.onerror = done
                    document.body.append(element)
                    if (tag !== 'script') setTimeout(done, 300)
                })))""",
                url,
            )
            assert await page.title() == "Send a file"
            assert await page.evaluate("window.ran") is None
        await page.screenshot(path=screenshots / "no-script.png")


async def test_the_scripts_would_run(chromium: Browser) -> None:
    """Served as they claim to be, the documents do run: what prevents it is the response."""

    async def give(index: int) -> fastapi.Response:
        mime_type, text = list(DOCUMENTS.items())[index]
        return fastapi.Response(text, media_type=mime_type)

    app = fastapi.FastAPI()
    app.add_api_route("/{index}", give)
    async with serving(app) as url:
        page = await chromium.new_page(base_url=url)
        for index, mime_type in enumerate(DOCUMENTS):
            if mime_type not in {"text/javascript", "image/jpeg"}:
                await page.goto(f"/{index}")
                assert await page.evaluate("window.ran") == "SCRIPT RAN", mime_type
        await page.goto(f"/{list(DOCUMENTS).index('text/html')}")
        await page.evaluate("window.ran = null")
        await page.add_script_tag(url=f"/{list(DOCUMENTS).index('text/javascript')}")
        assert await page.evaluate("window.ran") == "SCRIPT RAN"
        await page.context.close()
