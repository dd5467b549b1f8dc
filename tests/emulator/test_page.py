"""The emulator's page over HTTP: who may use it, what it serves, what it tells as it happens, and what its buttons do."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from meta_media import MediaApi, MediaError, inbound_media, samples
from meta_media.emulator import Clock, Emulator, EmulatorSettings, Fault
from meta_media.emulator.feed import Feed
from meta_media.emulator.page.guard import HEADER, refusal
from meta_media.emulator.server import Server
from meta_media.emulator.state import State
from meta_media.errors import MediaNotFoundError
from tests.support.servers import wait_until

PHOTO = next(path for path in samples.paths() if path.name == "photo.jpg").read_bytes()
HTML = {"accept": "text/html,*/*"}
BUTTON = {HEADER: "1"}
BASE = "/emulator/page/"
BIDI = "photo\u202egpj.exe"


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token, as a browser is."""
    async with httpx.AsyncClient(base_url=emulator.local_url, trust_env=False, timeout=30) as client:
        yield client


async def press(http: httpx.AsyncClient, path: str, given: Any = None, **more: Any) -> Any:
    """Do what a button does, and return the answer, which must be a success."""
    response = await http.post(BASE + path, json=given, headers=BUTTON, **more)
    assert response.status_code == 200, response.text
    return response.json()


class Events:
    """What a page has been told: the latest facts, and the entries of each kind by their keys."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self.facts: dict[str, Any] = {}
        self.entries: dict[str, dict[str, Any]] = {"media": {}, "message": {}, "activity": {}}
        self.stored = -1
        self.text = ""
        self._lines = lines

    async def read(self) -> None:
        """Wait for an event."""
        async for line in self._lines:
            if line.startswith("data: "):
                break
        self.text += line
        event = json.loads(line[6:])
        self.facts, self.stored = event.get("facts", self.facts), event.get("stored", self.stored)
        for kind, key, entry in event.get("changes", []):
            self.entries[kind][key] = entry

    async def until(self, condition: Any) -> None:
        """Read events until a condition holds."""
        while not condition():
            await self.read()


@asynccontextmanager
async def events(http: httpx.AsyncClient) -> AsyncIterator[Events]:
    """Read along as a page does; the first event has been read."""
    async with http.stream("GET", BASE + "events") as response:
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        found = Events(response.aiter_lines())
        await found.read()
        yield found


async def test_the_files(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """A browser gets the page at /, with a policy that allows its own files alone. A client of the API gets Graph's error."""
    page = await http.get("/", headers=HTML)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert f"script-src {emulator.local_url}/emulator/page/page.js;" in policy
    assert "unsafe" not in policy
    assert (
        re.findall(r"<script(?! src=)|\son\w+=|\sstyle=|<style|https?:", page.text) == []
    )  # nothing inline, nothing from elsewhere
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        assert f'"{BASE}{name}"' in page.text
        file = await http.get(BASE + name)
        assert file.headers["content-type"].partition(";")[0] == kind
        for response in (page, file):
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["cross-origin-resource-policy"] == "same-origin"
    assert (await http.get(BASE + "app.py")).status_code == 404
    assert (await http.get(BASE + "..%2fapp.py")).status_code == 404
    assert (await http.get("/")).json()["error"]["code"] == 2500
    assert [request.path for request in emulator.requests] == ["/"]


REFUSED = [
    ({"host": "evil.example"}, "another address"),
    ({"host": "localhost"}, "another address"),
    ({"sec-fetch-site": "cross-site"}, "another site"),
    ({"sec-fetch-site": "same-site"}, "another site"),
    ({"origin": "http://127.0.0.1:1"}, "another site"),
    ({"origin": "null"}, "another site"),
    ({"x-forwarded-for": "127.0.0.1"}, "without a proxy"),
    ({"via": "1.1 proxy"}, "without a proxy"),
]


@pytest.mark.parametrize(("headers", "why"), REFUSED, ids=str)
async def test_other_sites_are_refused(
    emulator: Emulator, media: MediaApi, http: httpx.AsyncClient, headers: dict[str, str], why: str
) -> None:
    """No route of the page serves a page of another site, a rebound name or a proxy: nothing is shown and nothing changes."""
    uploaded = await media.upload(PHOTO)
    own = f"{BASE}media/{uploaded.id}"
    for path in ("/", BASE + "page.js", BASE + "events", own, own + "/verdict"):
        refused = await http.get(path, headers=HTML | headers)
        assert refused.status_code == 403
        assert why in refused.text
        assert emulator.local_url in refused.text or "proxy" in why
        assert refused.headers["x-content-type-options"] == "nosniff"
    for path in (own + "/delete", own + "/expire", own + "/send", BASE + "receive", BASE + "fault", BASE + "heal"):
        refused = await http.post(path, headers=BUTTON | headers, json={"to": "+15550001111"})
        assert refused.status_code == 403
    assert (await media.get_info(uploaded.id)).id == uploaded.id
    assert (emulator.messages, emulator.faults) == ([], [])


async def test_a_form_of_another_site_changes_nothing(media: MediaApi, http: httpx.AsyncClient) -> None:
    """A request that changes something needs a header that no form can send; the preflight for it is not granted."""
    path = f"{BASE}media/{(await media.upload(PHOTO)).id}/delete"
    refused = await http.post(path, data={})
    assert (refused.status_code, HEADER in refused.text) == (403, True)
    asked = {"access-control-request-method": "POST", "access-control-request-headers": HEADER}
    preflight = await http.options(path, headers={"origin": "http://evil.example"} | asked)
    assert preflight.status_code == 403
    assert "access-control-allow-origin" not in preflight.headers
    assert (await http.get(path, headers=BUTTON)).status_code == 405


def test_other_machines_are_refused() -> None:
    """A client of another machine is refused also where it names the page's own address."""
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "scheme": "http", "server": ("x", 1)}
    headers = {"headers": [(b"host", b"127.0.0.1:4004")]}
    for client in (("192.0.2.7", 1), ("a unix socket", 1), None):
        why = refusal(Request({**scope, **headers, "client": client}), "http://127.0.0.1:4004")
        assert why is not None
        assert "own machine" in why
    for client in (("127.0.0.1", 1), ("::1", 1)):
        assert refusal(Request({**scope, **headers, "client": client}), "http://127.0.0.1:4004") is None
    other = {"headers": [(b"host", b"[::1]")], "client": ("::1", 1)}
    assert refusal(Request({**scope, **other}), "https://[::1]") is None


async def test_a_link_leads_to_the_page(http: httpx.AsyncClient) -> None:
    """A link on another site may open the page, which holds no data, but none of its data."""
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert (await http.get("/", headers=HTML | link)).status_code == 200
    assert (await http.get(BASE + "events", headers=link)).status_code == 403


async def test_with_tls() -> None:
    """Over https the page has the same address as the API, and its policy names it."""
    async with (
        Emulator(tls=True) as emulator,
        httpx.AsyncClient(verify=False, base_url=emulator.local_url, trust_env=False) as http,
    ):
        page = await http.get("/", headers=HTML | {"origin": emulator.local_url})
        assert page.status_code == 200
        assert f"script-src {emulator.local_url}/" in page.headers["content-security-policy"]


async def test_files_are_harmless(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """A picture has its type, all that could run is bytes to save, and a document of either is in a sandbox without rights."""
    for mime_type, served in (
        ("image/jpeg", "image/jpeg"),
        ("Image/JPEG; charset=utf-8", "image/jpeg"),
        ("audio/ogg; codecs=opus", "audio/ogg"),
        ("text/html", "application/octet-stream"),
        ("image/svg+xml", "application/octet-stream"),
        ("application/xhtml+xml", "application/octet-stream"),
        ("text/javascript", "application/octet-stream"),
    ):
        body, _ = await emulator.receive(b"<p>not markup</p>", mime_type, filename=BIDI)
        media_id = inbound_media(body)[0].id
        file = await http.get(f"{BASE}media/{media_id}")
        assert file.content == b"<p>not markup</p>"
        assert file.headers["content-type"] == served
        assert file.headers["content-disposition"].startswith('attachment; filename="photogpj.exe";')
        assert file.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert file.headers["x-content-type-options"] == "nosniff"


async def test_ranges(media: MediaApi, tmp_path: Path) -> None:
    """A player seeks by Range, also where the emulator's own downloads ignore it; a part that is not there is a 416."""
    del media
    async with (
        Emulator(tmp_path, settings=EmulatorSettings(range_requests=False, accept_ranges=False)) as emulator,
        emulator.api() as api,
        httpx.AsyncClient(base_url=emulator.local_url, trust_env=False) as http,
    ):
        path = f"{BASE}media/{(await api.upload(PHOTO)).id}"
        whole = await http.get(path)
        assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, PHOTO, "bytes")
        for asked, part in (("bytes=100-199", PHOTO[100:200]), ("bytes=4000-", PHOTO[4000:]), ("bytes=-5", PHOTO[-5:])):
            found = await http.get(path, headers={"range": asked, "if-range": whole.headers["etag"]})
            assert (found.status_code, found.content) == (206, part)
        beyond = await http.get(path, headers={"range": "bytes=9999-"})
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(PHOTO)}")
        assert (await http.get(path, headers={"range": "bytes=0-1", "if-range": '"other"'})).content == PHOTO
        assert (await http.head(path)).headers["content-length"] == str(len(PHOTO))
        assert (await http.get(f"{BASE}media/123")).status_code == 404
        assert (await http.get(f"{BASE}media/letters")).status_code == 404


async def test_media_as_it_comes_and_goes(emulator: Emulator, media: MediaApi, http: httpx.AsyncClient) -> None:
    """A page has what is stored at once, and hears of each upload, expiry and deletion, whoever does it."""
    first = await media.upload(PHOTO, filename="first.jpg")
    async with events(http) as page:
        assert page.stored == 1
        entry = page.entries["media"][first.id]
        assert (entry["name"], entry["type"], entry["shown"]) == ("first.jpg", "image/jpeg", "image")
        assert (entry["size"], entry["number"]) == (len(PHOTO), emulator.phone_number_id)
        assert entry["expires"] - entry["at"] == pytest.approx(30 * 86400, abs=60)
        second = await media.upload(b"text", filename="second.txt")
        await page.until(lambda: second.id in page.entries["media"])
        assert page.entries["media"][second.id]["shown"] is None
        await press(http, f"media/{first.id}/expire")
        await page.until(lambda: page.entries["media"][first.id]["expires"] <= emulator.clock.now())
        with pytest.raises(MediaNotFoundError):
            await media.get_info(first.id)
        await media.delete(second.id)
        await press(http, f"media/{first.id}/delete")
        await page.until(lambda: [*page.entries["media"].values()] == [None, None])
    gone = await http.post(f"{BASE}media/{first.id}/delete", headers=BUTTON)
    assert (gone.status_code, gone.json()) == (400, {"error": "there is no such media: it has been deleted"})


async def test_requests_as_they_come(emulator: Emulator, media: MediaApi, http: httpx.AsyncClient) -> None:
    """A request is told with its status, duration, fault and headers, and neither a token nor a query is."""
    emulator.fail("get_info", Fault.error(131000, 500))
    uploaded = await media.upload(PHOTO)
    async with events(http) as page:
        await http.get(f"/v25.0/{uploaded.id}", params={"access_token": emulator.access_token})
        await media.read(uploaded.id)
        await page.until(lambda: len(page.entries["activity"]) == 4)
        told = [(entry["what"], entry["status"], entry["fault"]) for entry in page.entries["activity"].values()]
        assert told == [("POST", 200, False), ("GET", 500, True), ("GET", 200, False), ("GET", 200, False)]
        assert next(iter(page.entries["activity"].values()))["details"]["content-type"].startswith(
            "multipart/form-data"
        )
        assert emulator.access_token not in page.text
        assert "hash" not in page.text
        assert page.facts["token"] == f"{emulator.access_token[:4]}…{emulator.access_token[-4:]}"
    assert len(emulator.requests) == 4


async def test_conversations(emulator: Emulator, media: MediaApi, http: httpx.AsyncClient) -> None:
    """A page shows what customers send and what they are sent, with the statuses; a failure has its code and reason."""
    await emulator.receive(PHOTO, "image/jpeg", caption="hello", sender="+1 555 000 1111")
    await emulator.receive(PHOTO, "image/jpeg", failure=131060, sender="US.1349")
    uploaded = await media.upload(PHOTO)
    await media.send("+15550001111", uploaded, caption="yes")
    emulator.fail_delivery(131026)
    await media.send("+15550001111", uploaded)
    async with events(http) as page:
        received, lost, sent, failed = page.entries["message"].values()
    assert (received["peer"], received["text"], received["sent"]) == ("15550001111", "hello", False)
    assert (lost["peer"], lost["media"], lost["error"]) == ("US.1349", None, "Message unavailable")
    assert (sent["peer"], sent["text"], sent["media"]) == ("15550001111", "yes", uploaded.id)
    assert sent["statuses"] == ["sent", "delivered", "read"]
    assert (failed["statuses"], failed["error"]) == (["failed"], "131026: Message undeliverable.")


async def test_webhooks(emulator: Emulator, media: MediaApi, http: httpx.AsyncClient) -> None:
    """Where there is a webhook, each post is told with its body, and a status is reached when it is posted."""
    held = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await held.wait()
        await Response()(scope, receive, send)

    server = Server(app)
    url = await server.start("127.0.0.1", 0)
    emulator.webhook = url.replace("//", "//user:secret@") + "/hook?key=secret"
    try:
        sent = await media.send("+15550001111", await media.upload(PHOTO))
        async with events(http) as page:
            assert page.facts["webhook"] == url + "/hook"
            await page.until(lambda: _statuses(page) == [["sent"]])
            held.set()
            await page.until(lambda: _statuses(page) == [["sent", "delivered", "read"]])
            await page.until(lambda: len(page.entries["activity"]) == 5)
            posts = [entry for entry in page.entries["activity"].values() if entry["what"] == "webhook"]
            assert [(post["where"], post["status"]) for post in posts] == [
                (f"status {status}", 200) for status in ("sent", "delivered", "read")
            ]
            assert json.loads(posts[0]["details"]["body"])["entry"][0]["changes"][0]["value"]["statuses"][0]["id"] == (
                sent.id
            )
            assert "secret" not in page.text
    finally:
        held.set()
        await server.stop()


def _statuses(page: Events) -> Any:
    return [entry["statuses"] for entry in page.entries["message"].values()]


async def test_receive_and_send(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """The buttons play a customer and answer one; what Meta refuses is refused with its sentence."""
    query = {"filename": BIDI, "mime_type": "audio/ogg", "sender": "US.1349", "caption": ""}
    got = await http.post(BASE + "receive", params=query, content=b"OggS", headers=BUTTON)
    assert got.json()["statuses"] == []
    media_id = got.json()["id"]
    async with events(http) as page:
        assert page.entries["media"][media_id]["type"] == "audio/ogg; codecs=opus"
        assert page.entries["media"][media_id]["name"] == BIDI
        sent = await press(http, f"media/{media_id}/send", {"to": "US.1349"})
        assert sent["contacts"] == [{"input": "US.1349", "user_id": "US.1349"}]
        assert emulator.messages[-1]["recipient"] == "US.1349"
    for given, why in (
        ({"to": ""}, "(#100) The parameter to is required."),
        ({"to": "nobody"}, "to takes a phone number; a business-scoped user id goes into recipient."),
        ({"to": "+15550001111", "caption": "x"}, '(#100) Unexpected key "caption" on param "audio".'),
    ):
        refused = await http.post(f"{BASE}media/{media_id}/send", json=given, headers=BUTTON)
        assert (refused.status_code, refused.json()["error"]) == (400, why)
    wrong = await http.post(BASE + "receive", params={"mime_type": "nonsense"}, content=b"x", headers=BUTTON)
    assert wrong.json()["error"].startswith("mime_type must be a type such as image/jpeg")


async def test_a_document_keeps_its_name(emulator: Emulator, media: MediaApi, http: httpx.AsyncClient) -> None:
    """A document is sent under the name that it was uploaded with."""
    uploaded = await media.upload(b"text", filename="a.txt")
    await press(http, f"media/{uploaded.id}/send", {"to": "+15550001111", "caption": "read this"})
    assert emulator.messages[-1]["document"] == {"id": uploaded.id, "caption": "read this", "filename": "a.txt"}


async def test_too_large_a_file(emulator: Emulator) -> None:
    """A customer's file beyond the limit, or of a size that is not declared, is refused before it arrives."""
    url = httpx.URL(emulator.local_url)
    for declared in (f"Content-Length: {100 * 2**20 + 1}", "Transfer-Encoding: chunked"):
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = f"POST {BASE}receive HTTP/1.1\r\nHost: {url.netloc.decode()}\r\n{HEADER}: 1\r\n{declared}\r\n\r\n"
        writer.write(head.encode())
        response = await reader.readuntil(b"}")
        assert response.startswith(b"HTTP/1.1 400 ")
        assert response.endswith(b'{"error": "the file has more than 100 MiB: choose a smaller one"}')
        writer.close()


async def test_faults(emulator: Emulator, media: MediaApi, http: httpx.AsyncClient) -> None:
    """A fault is planned, shown, met by a request but by none of the page's, and healed."""
    async with events(http) as page:
        for name in page.facts["choices"]["fault"]:
            await press(http, "fault", {"operation": "any", "fault": name, "times": "always"})
        await page.until(lambda: len(page.facts["faults"]) == len(page.facts["choices"]["fault"]))
        assert [fault["name"] for fault in page.facts["faults"]] == page.facts["choices"]["fault"]
        await press(http, "heal")
        await page.until(lambda: page.facts["faults"] == [])
        server_error = page.facts["choices"]["fault"][0]
        await press(http, "fault", {"operation": "upload", "fault": server_error, "times": "3"})
        emulator.fail("send", Fault.html(503))
        with pytest.raises(MediaError):
            await media.with_options(max_retries=0).upload(PHOTO)
        await page.until(lambda: [fault["times"] for fault in page.facts["faults"]] == [2, 1])
        assert page.facts["faults"][1] == {"operation": "send", "name": "HTTP 503", "times": 1}
        emulator.clock.advance(100)
        await page.until(lambda: page.facts["ahead"] == 100)
    for given in (
        {"fault": "unknown"},
        {"fault": server_error, "times": "0"},
        {"fault": server_error, "operation": "x"},
    ):
        refused = await http.post(BASE + "fault", json=given, headers=BUTTON)
        assert (refused.status_code, "error" in refused.json()) == (400, True)
    assert len(emulator.faults) == 2


async def test_verdicts(emulator: Emulator, media: MediaApi, http: httpx.AsyncClient) -> None:
    """A page tells what `check` would: whether a file could be uploaded, and what to do about one that could not."""
    fit = await media.upload(PHOTO)
    large_id = inbound_media((await emulator.receive(PHOTO + bytes(2**24), "image/jpeg"))[0])[0].id
    assert (await http.get(f"{BASE}media/{fit.id}/verdict")).json() == {"kind": "image", "refusal": None}
    assert "save it smaller" in (await http.get(f"{BASE}media/{large_id}/verdict")).json()["refusal"]
    assert (await http.get(f"{BASE}media/1/verdict")).status_code == 400


async def test_two_tabs(media: MediaApi, http: httpx.AsyncClient) -> None:
    """Two tabs are told the same, and one that is closed is forgotten while the other reads on."""
    async with events(http) as one:
        async with events(http) as other:
            first = await media.upload(PHOTO)
            for page in (one, other):
                await page.until(lambda page=page: first.id in page.entries["media"])
        second = await media.upload(PHOTO)
        await one.until(lambda: second.id in one.entries["media"])


async def test_the_end_with_a_tab_open(tmp_path: Path) -> None:
    """An emulator ends while pages read along, and no task of it is left."""
    tasks = asyncio.all_tasks()
    async with httpx.AsyncClient(trust_env=False) as http:
        async with Emulator(tmp_path) as emulator:
            request = http.build_request("GET", emulator.local_url + BASE + "events")
            response = await http.send(request, stream=True)
        with pytest.raises(httpx.HTTPError):
            await response.aread()
        await response.aclose()
    await wait_until(lambda: asyncio.all_tasks() == tasks)


def entry(feed: Feed, key: str) -> dict[str, Any]:
    """Return an activity that is kept."""
    found = feed.entry("activity", key)
    assert found is not None
    return found


async def test_memory_is_bounded() -> None:
    """The latest 200 entries of a kind are kept, and a reader that falls behind is told all there is instead of each change."""
    feed = Feed()
    with feed.reader() as reader:
        assert reader.take() is None  # at first, all there is
        for number in range(1000):
            feed.posted(f"post {number}", b"{}", 200, 0.1)
        assert [entry(feed, key)["where"] for key in feed.kept["activity"]] == [f"post {n}" for n in range(800, 1000)]
        assert len(reader.take() or ()) == 1000
        for _ in range(5000):
            feed.posted("post", b"x" * 10_000, 200, 0.1)
        assert reader.take() is None
        assert reader.take() == []
        assert max(len(str(entry(feed, key))) for key in feed.kept["activity"]) < 5000
        feed.climbed("unknown", "read")
        assert reader.take() == []


async def test_the_newest_media(tmp_path: Path) -> None:
    """Of more media than a page lists, it lists the newest, and knows how many there are."""
    async with State(tmp_path, Clock()) as state:
        for number in range(5):
            state.path(f"{number}").write_bytes(b"x")
            os.utime(state.path(f"{number}"), (number * 7 % 5, number * 7 % 5))
        assert await state.in_thread(state.newest, 3) == (["2", "4", "1"], 5)
