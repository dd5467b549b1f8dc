"""The emulator's page in a real browser: how it looks, by keyboard alone, with hostile names, with a thousand media."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import pytest_asyncio

from meta_media import MediaApi, inbound_media, samples
from meta_media.emulator import Clock, Emulator, Fault
from meta_media.emulator.state import State, StoredMedia
from tests.support.axe import faults_of
from tests.support.chromium import MARKS, complaints
from tests.support.servers import wait_until
from tests.support.system import free_port

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytest_plugins = ["tests.support.axe", "tests.support.chromium"]
pytestmark = MARKS

SAMPLES = {path.name: path for path in samples.paths()}
HOSTILE = (
    "<img src=x onerror=alert({n})>.jpg",
    '"><script>alert({n})</script>.png',
    "'-alert({n})-'.txt",
    "javascript:alert({n}).html",
    "{n}\u202egpj.exe",
    "{n}\u0000\u001b[31m\r\nSet-Cookie: a=b.pdf",
    "../../{n}/etc/passwd",
    "{{{{constructor.constructor('alert({n})')()}}}}.svg",
    "\U0001f600\u0301{n}" + "w\u0336" * 90 + ".webp",
    "x" * 5000 + "{n}.mp4",
)
TYPES = (
    "text/html",
    "image/svg+xml",
    "image/jpeg",
    "application/xhtml+xml",
    "text/javascript; charset=utf-8",
    "video/mp4",
)
SCRIPT = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><script>alert(1)</script></svg>"


@pytest_asyncio.fixture(loop_scope="module")
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator on the event loop that the tests of this module share."""
    async with Emulator() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def media(emulator: Emulator) -> AsyncIterator[MediaApi]:
    """A client for the emulator."""
    async with emulator.api() as api:
        yield api


@asynccontextmanager
async def opened(browser: Browser, emulator: Emulator, **options: Any) -> AsyncIterator[Page]:
    """Open the emulator's page until the block ends. It must not complain."""
    context = await browser.new_context(**options)
    page = await context.new_page()
    page.set_default_timeout(20_000)
    found = complaints(page)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    await page.goto(emulator.local_url + "/")
    await page.wait_for_selector("#live.on")
    yield page
    assert (found, dialogs) == ([], [])
    await context.close()


async def fill(emulator: Emulator, media: MediaApi, picture: str = "photo.jpg", mime_type: str = "image/jpeg") -> None:
    """Store a file of each kind, hold two conversations, and plan a fault."""
    for name in ("report.pdf", "sticker.webp", "song.mp3"):
        await media.upload(SAMPLES[name])
    await emulator.receive(SAMPLES["note.ogg"], "audio/ogg; codecs=opus", sender="+15550003333")
    await emulator.receive(b"<p>Hello</p>", "text/html", filename="page.html", sender="+15550003333")
    await emulator.receive(SAMPLES["clip.mp4"], "video/mp4")
    await emulator.receive(SAMPLES[picture], mime_type, caption="Is it this one?")
    photo = await media.upload(SAMPLES[picture])
    await media.send("+15550001111", photo, caption="Yes, here it is again.")
    emulator.fail_delivery(131053)
    await media.send("+15550003333", photo)
    emulator.fail("get_info", Fault.error(131000, 500))
    await media.get_info(photo.id)
    emulator.fail("download", Fault(end="reset"), times=3)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_how_it_looks(
    emulator: Emulator, media: MediaApi, chromium: Browser, screenshots: Path, axe_script: str, scheme: Any, width: int
) -> None:
    """Light and dark, wide and narrow, the page complains of nothing, nothing sticks out, and axe finds no fault."""
    await fill(emulator, media)
    size: Any = {"width": width, "height": 800}
    async with opened(chromium, emulator, viewport=size, color_scheme=scheme) as page:
        for part in ("media", "conversations", "activity") if width == 390 else ("media",):
            if width == 390:
                await page.click(f"nav a[href='#{part}']")
            await page.wait_for_selector(f"#{part} .list > *")
            await holds(
                page, f"[...document.querySelectorAll('#{part} img')].slice(0, 2).every(image => image.complete)"
            )
            await page.screenshot(path=screenshots / f"page-{part}-{width}-{scheme}.png")
            assert await page.evaluate("document.documentElement.scrollWidth") == width
            assert await faults_of(page, axe_script) == []
        await page.click("summary >> nth=0")
        if width == 390:
            await page.click("nav a[href='#media']")
        await page.click("text=Send >> nth=0")
        await page.screenshot(path=screenshots / f"page-dialog-{width}-{scheme}.png")
        assert await faults_of(page, axe_script) == []


async def holds(page: Page, expression: str, given: object = None) -> None:
    """Wait until a condition holds. Playwright's `wait_for_function` needs eval, which the policy of the page forbids."""
    for _ in range(400):
        if await page.evaluate(expression, given):
            return
        await asyncio.sleep(0.05)  # between two looks
    raise AssertionError(f"the page does not come to {expression}")


async def press(page: Page, *keys: str) -> None:
    """Press keys, one after another."""
    for key in keys:
        await page.keyboard.press(key)


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until the focus is on what a screen reader calls by this name."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        label = "e => e.ariaLabel || e.labels?.[0]?.innerText.trim() || e.innerText || e.value"
        if str(await page.evaluate(f"({label})(document.activeElement)")).startswith(name):
            outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"the focus on {name} cannot be seen"
            return
    raise AssertionError(f"Tab does not reach {name!r}")


async def said(page: Page, text: str) -> None:
    """Wait until the page says this where screen readers hear it."""
    await holds(page, "text => document.querySelector('#said').textContent.startsWith(text)", text)


@pytest.mark.parametrize("width", [1280, 390])
async def test_a_session_by_keyboard(emulator: Emulator, media: MediaApi, chromium: Browser, width: int) -> None:
    """Without a mouse a file is received, sent, expired and deleted, and a fault planned and healed; the focus is never lost."""
    await media.upload(SAMPLES["photo.jpg"])
    async with opened(chromium, emulator, viewport={"width": width, "height": 800}) as page:
        choosers: asyncio.Queue[Any] = asyncio.Queue()
        page.on("filechooser", choosers.put_nowait)
        await tab_to(page, "File")
        await press(page, "Space")
        await (await choosers.get()).set_files(SAMPLES["clip.mp4"])
        await tab_to(page, "Caption")
        await page.keyboard.type("by keyboard")
        await tab_to(page, "Receive")
        await press(page, "Enter")
        await said(page, "Received clip.mp4.")
        await tab_to(page, "Send clip.mp4")
        await press(page, "Enter")
        assert await page.evaluate("document.activeElement.name") == "to"
        await press(page, "Control+a")
        await page.keyboard.type("US.1349")
        await press(page, "Enter")
        await said(page, "Sent to US.1349.")
        assert await page.evaluate("document.activeElement.ariaLabel") == "Send clip.mp4"
        await tab_to(page, "Expire clip.mp4")
        await press(page, "Space")
        await said(page, "clip.mp4: expired.")
        await tab_to(page, "Delete clip.mp4")
        await press(page, "Space")
        await said(page, "clip.mp4: deleted.")
        await holds(page, "document.activeElement.ariaLabel === 'Delete photo.jpg'")
        if width == 390:
            await page.evaluate("document.activeElement.blur()")
            await tab_to(page, "Activity")
            await press(page, "Enter")
            assert await page.get_attribute("nav a[aria-current]", "href") == "#activity"
        await tab_to(page, "What happens")
        await press(page, "ArrowDown")
        await tab_to(page, "Plan fault")
        await press(page, "Enter")
        await page.wait_for_selector("#faults >> text=any: Too many requests")
        await tab_to(page, "Heal")
        await press(page, "Enter")
        await page.wait_for_selector("#faults:empty", state="attached")
    assert [message["recipient"] for message in emulator.messages] == ["US.1349"]


async def drop(page: Page, *paths: Path) -> None:
    """Drag files from outside of the browser over the page, and drop them."""
    session = await page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver"):
        await session.send("Input.dispatchDragEvent", {"type": kind, "x": 700, "y": 600, "data": data})
    await page.wait_for_selector("body.dropping")
    await session.send("Input.dispatchDragEvent", {"type": "drop", "x": 700, "y": 600, "data": data})
    await page.wait_for_selector("body:not(.dropping)")


async def test_files_are_dropped(emulator: Emulator, chromium: Browser, tmp_path: Path) -> None:
    """Files that are dropped anywhere come from the customer that is chosen; a folder, and a wrong number, are refused."""
    page = await chromium.new_page(viewport={"width": 1280, "height": 800})
    await page.goto(emulator.local_url + "/")
    await page.wait_for_selector("#live.on")
    await page.fill("[name=sender]", "+49 151 23456")
    await page.fill("[name=caption]", "two of them")
    await drop(page, SAMPLES["clip.mp4"], SAMPLES["photo.jpg"])
    await said(page, "Received photo.jpg.")
    names = "[...document.querySelectorAll('.card .name')].map(name => name.textContent).join()"
    await holds(page, f"{names} === 'photo.jpg,clip.mp4'")
    received = [emulator._running.feed.entry("message", key) or {} for key in emulator._running.feed.kept["message"]]
    assert [(entry["peer"], entry["text"]) for entry in received] == [("4915123456", "two of them")] * 2
    await holds(page, "document.querySelector('[name=to]').list.options[0].value === '4915123456'")
    await drop(page, tmp_path)
    await said(page, f"{tmp_path.name} cannot be read: choose a file.")
    await page.fill("[name=sender]", "my friend")
    await drop(page, SAMPLES["photo.jpg"])
    await said(page, "sender must be a phone number or a user id such as US.1349, not 'my friend'")
    assert await page.evaluate(names) == "photo.jpg,clip.mp4"


async def test_a_webhook_that_is_down(emulator: Emulator, chromium: Browser) -> None:
    """Where the application is not running, the page says that the webhook is posted again, and why."""
    emulator.webhook = f"http://127.0.0.1:{free_port()}"
    async with opened(chromium, emulator) as page:
        await page.set_input_files("[name=files]", SAMPLES["photo.jpg"])
        await page.click("#receive .main")
        await said(page, "Received photo.jpg. The webhook got no response, and is posted again.")
        await page.click("#log summary >> nth=0")
        assert await page.text_content("#log dd >> nth=0") == "All connection attempts failed"


async def test_hostile_names_in_two_tabs(emulator: Emulator, media: MediaApi, chromium: Browser) -> None:
    """200 media with hostile names and types stay text in two tabs; both see all, and each change of the other."""
    viewport: Any = {"width": 1280, "height": 800}
    async with (
        opened(chromium, emulator, viewport=viewport) as one,
        opened(chromium, emulator, viewport=viewport) as two,
    ):
        for number in range(200):
            name = HOSTILE[number % len(HOSTILE)].format(n=number)
            who: Any = {"sender": f"+1555{number:07}", "username": name[:50], "caption": name}
            await emulator.receive(SCRIPT, TYPES[number % len(TYPES)], filename=name, **who)
        for page in (one, two):
            await holds(page, "document.querySelectorAll('.card').length === 200")
            await page.evaluate("document.querySelectorAll('.card').forEach(card => card.filled || fill(card))")
            names = await page.eval_on_selector_all(".name", "found => found.map(node => node.textContent)")
            assert names[-1] == "<img src=x onerror=alert(0)>.jpg"
            assert names[-5] == "4\ufffdgpj.exe"
            assert max(map(len, names)) == 200
            await holds(page, "document.querySelectorAll('.verdict:empty').length === 0")
            tags = await page.evaluate(
                "[...new Set([...document.querySelectorAll('main *')].map(e => e.localName))].sort()"
            )
            assert not {"script", "svg", "iframe", "object"} & set(tags)
            assert await page.evaluate("document.documentElement.scrollWidth") == 1280
        await one.click("[data-do=delete] >> nth=0")
        await holds(two, "document.querySelectorAll('.card').length === 199")


async def test_a_tab_in_the_background(emulator: Emulator, media: MediaApi, chromium: Browser) -> None:
    """A tab that is hidden takes none of the browser's six connections, and is told what it has missed when it is seen again."""
    feed, page = emulator._running.feed, await chromium.new_page()
    await page.goto(emulator.local_url)
    await page.wait_for_selector("#live.on")
    await page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await wait_until(lambda: not feed._readers)
    uploaded = await media.upload(SAMPLES["photo.jpg"])
    await page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    await page.wait_for_selector(f"#m-{uploaded.id}")


async def test_a_ladder_keeps_the_focus(emulator: Emulator, media: MediaApi, chromium: Browser) -> None:
    """A message whose status changes keeps its link, and the focus on it."""
    uploaded = await media.upload(SAMPLES["photo.jpg"])
    async with opened(chromium, emulator) as page:
        await media.send("+15550001111", uploaded)
        await page.wait_for_selector(".ladder .read")
        await page.focus(".message a")
        feed = emulator._running.feed
        feed.climbed(next(iter(feed.kept["message"])), "played")
        await page.wait_for_selector(".ladder .played")
        assert await page.evaluate("document.activeElement.textContent") == "photo.jpg"


async def test_files_run_nothing(emulator: Emulator, chromium: Browser) -> None:
    """A document or a picture with a script is saved, not shown, when it is opened by its address."""
    page = await chromium.new_page()
    for mime_type in ("text/html", "image/svg+xml", "application/xhtml+xml"):
        body, _ = await emulator.receive(SCRIPT, mime_type, filename="script.html")
        await page.goto(emulator.local_url)
        async with page.expect_download() as download:
            await page.evaluate("id => { location = `/emulator/page/media/${id}`; }", inbound_media(body)[0].id)
        assert await anyio.Path(await (await download.value).path()).read_bytes() == SCRIPT


async def test_players(emulator: Emulator, chromium: Browser) -> None:
    """A video has its picture and seeks, and a voice note has its duration."""
    await emulator.receive(SAMPLES["clip.mp4"], "video/mp4")
    await emulator.receive(SAMPLES["note.ogg"], "audio/ogg; codecs=opus")
    async with opened(chromium, emulator) as page:
        for player, least in (("video", 0.5), ("audio", 1.0)):
            await holds(page, f"document.querySelector('{player}')?.duration > {least}")
        place = await page.evaluate("""async () => {
            const video = document.querySelector("video");
            await new Promise(done => { video.onseeked = done; video.currentTime = video.duration / 2; });
            return video.currentTime / video.duration;
        }""")
        assert place == pytest.approx(0.5, abs=0.01)


async def test_a_thousand_media(tmp_path: Path, chromium: Browser) -> None:
    """Of 1,100 media the newest 1,000 are listed. A new one is one new card: no other card is drawn again or loses its state."""
    async with State(tmp_path, Clock()) as state:
        await state.in_thread(make_media, state, 1100)
    async with Emulator(tmp_path) as emulator, emulator.api() as api, opened(chromium, emulator) as page:
        await holds(page, "document.querySelectorAll('.card').length === 1000")
        assert await page.text_content("#stored") == "1,000 newest of 1,100"
        assert await page.text_content(".card .name >> nth=0") == "1099.jpg"
        filled = await page.evaluate("[...document.querySelectorAll('.card')].filter(card => card.filled).length")
        assert 0 < filled < 50  # those that can be seen, and some beside them
        await page.evaluate("document.querySelector('#media').scrollTop = 1e6")
        await page.wait_for_selector(".card:last-child .verdict:not(:empty)")
        filled = await page.evaluate("[...document.querySelectorAll('.card')].filter(card => card.filled).length")
        assert filled < 100  # not those between
        await page.evaluate("document.querySelector('#media').scrollTop = 0")
        await page.evaluate("""() => {
            window.counted = {added: 0, removed: 0};
            new MutationObserver(records => records.forEach(({addedNodes, removedNodes}) => {
                counted.added += addedNodes.length;
                counted.removed += removedNodes.length;
            })).observe(document.querySelector("#cards"), {childList: true});
            document.querySelector("[data-do=delete]").focus();
        }""")
        focused = await page.evaluate("document.activeElement.ariaLabel")
        uploaded = await api.upload(SAMPLES["photo.jpg"])
        await page.wait_for_selector(f"#m-{uploaded.id}")
        assert await page.evaluate("window.counted") == {"added": 1, "removed": 1}
        assert await page.evaluate("document.activeElement.ariaLabel") == focused


def make_media(state: State, count: int) -> None:
    """Store media, one a second, the newest last."""
    photo = SAMPLES["photo.jpg"].read_bytes()
    for number in range(count):
        media_id = str(10**15 + number)
        state.path(media_id).write_bytes(photo)
        os.utime(state.path(media_id), (number, number))
        state.add(StoredMedia(media_id, "1", "image/jpeg", "0" * 64, len(photo), f"{number}.jpg", None))


async def test_a_restart(tmp_path: Path, chromium: Browser) -> None:
    """A page whose emulator ends says so, finds the next one at its address by itself, and shows what that one has."""
    async with Emulator(tmp_path / "one") as emulator, emulator.api() as api:
        port = int(emulator.local_url.rpartition(":")[2])
        await api.upload(SAMPLES["photo.jpg"])
        page = await chromium.new_page()
        await page.goto(emulator.local_url + "/")
        await page.wait_for_selector(".card")
        await page.wait_for_selector("#log li")
    await page.wait_for_selector("#live:not(.on) >> text=Not connected")
    async with Emulator(tmp_path / "two", port=port) as emulator:
        await emulator.receive(b"x", "text/plain", filename="new.txt")
        await page.wait_for_selector("#live.on")
        await page.wait_for_selector(".card >> text=new.txt")
        await holds(page, "document.querySelectorAll('.card').length === 1 && !document.querySelector('#log li')")
