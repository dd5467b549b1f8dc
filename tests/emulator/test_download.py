"""The emulator's download URLs and their bytes, its data folder, and each of its switches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_media.emulator import Emulator, EmulatorSettings
from meta_media.emulator.download import requested_range
from meta_media.emulator.responses import ACCEPTED_TYPES, GraphError
from meta_media.emulator.upload import FilePart, FormReader
from meta_media.protocol.media_types import ACCEPTED

CONTENT = bytes(range(256)) * 5000  # more than the emulator reads at once


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    """A plain client that sends the default token."""
    async with client(emulator) as connected:
        yield connected


def client(emulator: Emulator) -> httpx.AsyncClient:
    """Make a plain client."""
    headers = {"authorization": f"Bearer {emulator.access_token}"}
    return httpx.AsyncClient(base_url=emulator.base_url, headers=headers, trust_env=False)


async def upload(
    http: httpx.AsyncClient,
    emulator: Emulator,
    content: bytes = CONTENT,
    filename: str = "a.mp4",
    mime_type: str = "video/mp4",
) -> httpx.Response:
    """Upload as a form."""
    path = f"/v25.0/{emulator.phone_number_id}/media"
    return await http.post(path, data={"messaging_product": "whatsapp"}, files={"file": (filename, content, mime_type)})


async def url_of(http: httpx.AsyncClient, uploaded: httpx.Response) -> str:
    """Ask for the download URL."""
    return str((await http.get(f"/v25.0/{uploaded.json()['id']}")).json()["url"])


def problem(status: int, title: str) -> dict[str, Any]:
    """The body of a refused download."""
    return {"title": title, "detail": title, "status": status}


async def test_a_token_is_needed(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """Without a valid token the response is a problem document and not the Graph API's envelope."""
    url = await url_of(http, await upload(http, emulator))
    refused = problem(401, "Authentication Error")
    for headers in ({}, {"authorization": "Bearer unknown"}):
        async with httpx.AsyncClient(headers=headers, trust_env=False) as other:
            response = await other.get(url)
            assert (response.status_code, response.json()) == (401, refused)
            assert response.headers["x-fb-trace-id"].startswith("A")
            assert response.text == '{"title":"Authentication Error","detail":"Authentication Error","status":401}'
    emulator.expire_token(emulator.access_token)
    assert (await http.get(url)).json() == refused


async def test_urls_expire(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """A URL works for five minutes; then a new one is to be asked for."""
    uploaded = await upload(http, emulator)
    url = await url_of(http, uploaded)
    emulator.clock.advance(298)
    assert (await http.get(url)).status_code == 200
    emulator.clock.advance(3)
    assert (await http.get(url)).status_code == 404
    assert (await http.get(await url_of(http, uploaded))).status_code == 200


async def test_urls_cannot_be_made_up(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """Every part of the query is signed."""
    url = await url_of(http, await upload(http, emulator))
    other = await url_of(http, await upload(http, emulator))
    query = dict(httpx.URL(url).params)
    changes = [
        {"mid": httpx.URL(other).params["mid"]},
        {"ext": str(int(query["ext"]) + 1)},
        {"ext": "never"},
        {"source": "webhook"},
        {"hash": query["hash"][:-1]},
        {"hash": "é"},
        {"hash": ""},
    ]
    for change in changes:
        assert (await http.get(url, params=query | change)).status_code == 404
    assert (await http.get(url, params=query)).status_code == 200
    assert (await http.get(url.partition("?")[0])).status_code == 404


async def test_ranges(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """A range is answered with 206, its exact place, and exactly its bytes."""
    url = await url_of(http, await upload(http, emulator))
    for header, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=5-", 5, None),
        ("bytes=-7", -7, None),
        ("bytes=100-1000000", 100, 1_000_001),
        ("bytes=1279999-", 1_279_999, None),
        ("bytes=0-99999999", 0, None),
        ("bytes=-99999999", 0, None),
    ):
        response = await http.get(url, headers={"range": header})
        first, stop, _ = slice(start, end).indices(len(CONTENT))
        assert (response.status_code, response.content) == (206, CONTENT[start:end])
        assert response.headers["content-range"] == f"bytes {first}-{stop - 1}/{len(CONTENT)}"
        assert response.headers["content-length"] == str(stop - first)
        assert response.headers["accept-ranges"] == "bytes"


async def test_other_ranges(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """A range without a byte is answered with 416 and the size; an invalid one, several, and other units are ignored."""
    url = await url_of(http, await upload(http, emulator))
    for header in ("bytes=1280000-", "bytes=-0", "bytes=9999999999-"):
        response = await http.get(url, headers={"range": header})
        assert (response.status_code, response.content) == (416, b"")
        assert response.headers["content-range"] == f"bytes */{len(CONTENT)}"
    for header in ("bytes=5-4", "bytes=0-1,3-4", "lines=1-2", "bytes=-", "bytes=a-b", ""):
        response = await http.get(url, headers={"range": header})
        assert (response.status_code, response.content) == (200, CONTENT)


@given(first=st.none() | st.integers(0, 40), last=st.none() | st.integers(0, 40), size=st.integers(0, 30))
def test_ranges_select_what_they_say(first: int | None, last: int | None, size: int) -> None:
    """A range selects the positions from first to last that exist, or the last n."""
    written = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    part = requested_range(written, size)
    if first is None:
        wanted = [] if last is None else list(range(size))[max(0, size - last) :]
    else:
        wanted = [position for position in range(size) if position >= first and (last is None or position <= last)]
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        assert part is None
    elif isinstance(part, tuple):
        assert wanted == list(range(*part)) != []
    else:
        assert (part, wanted) == ("unsatisfiable", [])


async def test_head(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """HEAD returns the size, and ignores a range."""
    url = await url_of(http, await upload(http, emulator))
    response = await http.head(url, headers={"range": "bytes=0-0"})
    assert (response.status_code, response.headers["content-length"], response.content) == (200, str(len(CONTENT)), b"")


async def test_empty_file(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """An empty file can be stored and fetched, as the service does not look into files."""
    url = await url_of(http, await upload(http, emulator, b""))
    response = await http.get(url)
    assert (response.status_code, response.content, response.headers["content-length"]) == (200, b"", "0")
    assert (await http.get(url, headers={"range": "bytes=0-"})).status_code == 416


async def test_a_client_that_leaves(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """A download that is abandoned ends; the next one is not disturbed."""
    url = await url_of(http, await upload(http, emulator, bytes(16 * 2**20)))
    async with client(emulator) as other, other.stream("GET", url) as response:
        async for _ in response.aiter_raw():
            break
    assert len((await http.get(url)).content) == 16 * 2**20


async def test_two_requests_on_one_connection(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """Connections are kept alive after uploads, downloads and refusals alike."""
    url = await url_of(http, await upload(http, emulator))
    reader, writer = await asyncio.open_connection(*_address(emulator))
    target = url.removeprefix(emulator.base_url)
    for authorization, status in (
        (emulator.access_token, b"200"),
        ("unknown", b"401"),
        (emulator.access_token, b"200"),
    ):
        head = f"GET {target} HTTP/1.1\r\nHost: x\r\nUser-Agent: me\r\nAuthorization: Bearer {authorization}\r\n\r\n"
        writer.write(head.encode())
        response = await reader.readuntil(b"\r\n\r\n")
        assert response.split()[1] == status
        length = next(int(line.split()[1]) for line in response.split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()


def _address(emulator: Emulator) -> tuple[str, int]:
    parts = urlsplit(emulator.base_url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


async def test_the_url_leads_to_where_the_client_came_from(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """A client that reaches the emulator under another name or port gets URLs of that; a bad name is not repeated."""
    media_id = (await upload(http, emulator)).json()["id"]
    for host, expected in (("media.test:8080", "http://media.test:8080/"), ("a b/@c", emulator.base_url + "/")):
        response = await http.get(f"/v25.0/{media_id}", headers={"host": host})
        assert response.json()["url"].startswith(expected)


@pytest.mark.parametrize("missing", [True, False])
async def test_files_that_were_changed(tmp_path: Path, missing: bool) -> None:
    """A stored file that vanished is not found; one that was cut short breaks the connection instead of passing as whole."""
    async with Emulator(tmp_path) as emulator, client(emulator) as http:
        url = await url_of(http, await upload(http, emulator))
        path = anyio.Path(tmp_path) / "media" / httpx.URL(url).params["mid"]
        if missing:
            await path.unlink()
            assert (await http.get(url)).status_code == 404
            return
        await path.write_bytes(CONTENT[: 2**19])
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(url)


async def test_no_request_leaves_the_folder(emulator: Emulator) -> None:
    """Paths that climb, written in any way, find nothing."""
    for target in (
        "/v25.0/..%2f..%2fetc%2fpasswd",
        "/v25.0/../../../../etc/passwd",
        "/v25.0/%2e%2e/%2e%2e/etc/passwd",
        "/v25.0/%00",
        "/v25.0//etc/passwd",
        "/v25.0/%d9%a1%d9%a2",
        "/whatsapp_business/attachments/?mid=../emulator.sqlite3&source=getMedia&ext=9999999999&hash=AT",
        "/whatsapp_business/attachments/../../etc/passwd",
    ):
        reader, writer = await asyncio.open_connection(*_address(emulator))
        head = f"Host: x\r\nUser-Agent: me\r\nAuthorization: Bearer {emulator.access_token}\r\nConnection: close"
        writer.write(f"GET {target} HTTP/1.1\r\n{head}\r\n\r\n".encode())
        response = await reader.read()
        assert response.split()[1] in {b"400", b"404"}
        assert b"root:" not in response
        assert b"SQLite" not in response
        writer.close()
        await writer.wait_closed()


async def test_names_are_only_names(tmp_path: Path) -> None:
    """However a client names its file, it is stored under its id, and sent back without a path or a trick in its name."""
    settings, ids = EmulatorSettings(content_disposition=True), []
    async with Emulator(tmp_path / "data", settings=settings) as emulator, client(emulator) as http:
        for filename in (
            "../../escaped.txt",
            "/etc/passwd",
            "C:\\evil.exe",
            "a" * 3000,
            "x\x00y",
            "emulator.sqlite3",
            "\r\n",
            "\u202egnp.exe",
        ):
            uploaded = await upload(http, emulator, b"x", filename)
            ids.append(uploaded.json()["id"])
            response = await http.get(await url_of(http, uploaded))
            assert response.content == b"x"
            disposition = response.headers["content-disposition"].partition(";")[2]
            assert not set("/\\\x00\u202e") & set(disposition)
        names = sorted([path.name async for path in anyio.Path(tmp_path).rglob("*")])
    assert names == sorted(["data", "emulator.sqlite3", "emulator.sqlite3-wal", "media", *ids])


async def test_switch_content_disposition(tmp_path: Path) -> None:
    """The name comes back when switched on, and when there was one."""
    settings = EmulatorSettings(content_disposition=True)
    async with Emulator(tmp_path, settings=settings) as emulator, client(emulator) as http:
        response = await http.get(await url_of(http, await upload(http, emulator, b"x", 'a "b" ü.mp4')))
        expected = "attachment; filename=\"a %22b%22 ?.mp4\"; filename*=UTF-8''a%20%2522b%2522%20%C3%BC.mp4"
        assert response.headers["content-disposition"] == expected
        body, _ = await emulator.receive(b"x", "image/png")
        url = body.decode().replace("\\/", "/").partition('"url":"')[2].partition('"')[0]
        assert "content-disposition" not in (await http.get(url)).headers


async def test_switch_range_requests(tmp_path: Path) -> None:
    """Ranges can be switched off, and so can their announcement."""
    settings = EmulatorSettings(range_requests=False, accept_ranges=False)
    async with Emulator(tmp_path, settings=settings) as emulator, client(emulator) as http:
        response = await http.get(await url_of(http, await upload(http, emulator)), headers={"range": "bytes=1-2"})
        assert (response.status_code, response.content) == (200, CONTENT)
        assert "accept-ranges" not in response.headers


async def test_switch_etag(emulator: Emulator, http: httpx.AsyncClient, tmp_path: Path) -> None:
    """With an ETag a range can be asked for on condition; without, such a condition never holds."""
    headers = {"range": "bytes=1-2", "if-range": '"abc"'}
    response = await http.get(await url_of(http, await upload(http, emulator)), headers=headers)
    assert response.status_code == 200
    assert "etag" not in response.headers
    async with Emulator(tmp_path, settings=EmulatorSettings(etag=True)) as tagging, client(tagging) as other:
        url = await url_of(other, await upload(other, tagging))
        etag = (await other.get(url)).headers["etag"]
        assert (await other.get(url, headers=headers)).status_code == 200
        assert (await other.get(url, headers=headers | {"if-range": etag})).status_code == 206


async def test_switch_missing_user_agent(emulator: Emulator, http: httpx.AsyncClient, tmp_path: Path) -> None:
    """A download without a User-Agent fails, as reported for .NET; a switch lets it pass."""
    url = await url_of(http, await upload(http, emulator))
    http.headers.pop("user-agent")
    response = await http.get(url)
    assert (response.status_code, response.json()) == (400, problem(400, "Bad Request"))
    settings = EmulatorSettings(missing_user_agent_status=None)
    async with Emulator(tmp_path, settings=settings) as lenient, client(lenient) as other:
        other.headers.pop("user-agent")
        assert (await other.get(await url_of(other, await upload(other, lenient)))).status_code == 200


async def test_switch_expired_url(tmp_path: Path) -> None:
    """An expired URL can be answered as the fbcdn hosts do, or with another status."""
    for status, text in (
        (403, "URL signature expired"),
        (410, '{"title":"Not Found","detail":"Not Found","status":410}'),
    ):
        settings = EmulatorSettings(expired_url_status=status, url_lifetime=0)
        async with Emulator(tmp_path, settings=settings) as emulator, client(emulator) as http:
            response = await http.get(await url_of(http, await upload(http, emulator)))
            assert (response.status_code, response.text) == (status, text)


async def test_switch_oversize(tmp_path: Path) -> None:
    """A file that is too large can be refused by a proxy instead; limits can be the service's only, and KB be 1,000 bytes."""
    settings = EmulatorSettings(oversize_reply="proxy", megabyte=10**6)
    async with Emulator(tmp_path, settings=settings) as emulator, client(emulator) as http:
        assert (await upload(http, emulator, bytes(10**5), mime_type="image/webp")).status_code == 200
        response = await upload(http, emulator, bytes(10**5 + 1), mime_type="image/webp")
        assert (response.status_code, response.text) == (413, "Request Entity Too Large")
        other = await http.post(f"/v25.0/{emulator.phone_number_id}/media")
        assert other.json()["error"]["code"] == 100
    settings = EmulatorSettings(size_limits="service")
    async with Emulator(tmp_path, settings=settings) as emulator, client(emulator) as http:
        assert (await upload(http, emulator, bytes(10**5 + 1), mime_type="image/webp")).status_code == 200


@pytest.mark.parametrize(
    ("mime_type", "settings", "limit"),
    [
        ("application/pdf", EmulatorSettings(), 100 * 2**20),
        ("application/pdf", EmulatorSettings(megabyte=10**6), 10**8),
        ("image/webp", EmulatorSettings(megabyte=10**6), 10**5),
        ("image/webp", EmulatorSettings(size_limits="service"), 100 * 2**20),
    ],
)
def test_limits(mime_type: str, settings: EmulatorSettings, limit: int) -> None:
    """Documents may have 100 MB, KB follows MB, and every type has 100 MB when only the service's limit counts."""
    part = FilePart(mime_type, "a", settings)
    part.add(memoryview(bytes(limit)))
    with pytest.raises(GraphError, match="Invalid parameter"):
        part.add(memoryview(b"\0"))


async def test_switches_of_the_graph_api(tmp_path: Path) -> None:
    """The other switches: missing file, second delete, another's number, file_size, throttling, proof."""
    settings = EmulatorSettings(
        missing_file_text="(#100) No file",
        repeated_delete="success",
        wrong_number="ignore",
        file_size_as_string=True,
        throttle_status=429,
        retry_after=7,
    )
    async with Emulator(tmp_path, settings=settings) as emulator, client(emulator) as http:
        data = {"messaging_product": (None, b"whatsapp")}
        response = await http.post(f"/v25.0/{emulator.phone_number_id}/media", files=data)
        assert response.json()["error"]["message"] == "(#100) No file"
        media_id = (await upload(http, emulator)).json()["id"]
        info = await http.get(f"/v25.0/{media_id}", params={"phone_number_id": "1"})
        assert info.json()["file_size"] == str(len(CONTENT))
        assert [(await http.delete(f"/v25.0/{media_id}")).json() for _ in range(2)] == [{"success": True}] * 2
        emulator.throttle(1)
        response = await http.get(f"/v25.0/{media_id}")
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")


async def test_switches_of_lifetimes(tmp_path: Path) -> None:
    """Uploaded and inbound media, and a webhook's URL, live as long as set."""
    settings = EmulatorSettings(media_lifetime=50, inbound_lifetime=30, webhook_url_lifetime=10)
    async with Emulator(tmp_path, settings=settings) as emulator, client(emulator) as http:
        uploaded = (await upload(http, emulator)).json()["id"]
        body, _ = await emulator.receive(b"x", "image/png")
        image = json.loads(body)["entry"][0]["changes"][0]["value"]["messages"][0]["image"]
        paths = (image["url"], f"/v25.0/{image['id']}", f"/v25.0/{uploaded}")
        statuses = []
        for seconds in (5, 10, 20, 20):
            emulator.clock.advance(seconds)
            statuses.append([(await http.get(path)).status_code for path in paths])
        assert statuses == [[200, 200, 200], [404, 200, 200], [404, 400, 200], [404, 400, 400]]


async def test_switch_appsecret_proof(tmp_path: Path) -> None:
    """A proof can be demanded, and the app's secret be given."""
    settings = EmulatorSettings(require_appsecret_proof=True, app_secret="hush")
    async with Emulator(tmp_path, settings=settings) as emulator, client(emulator) as http:
        assert emulator.app_secret == "hush"
        error = (await http.get(f"/v25.0/{emulator.phone_number_id}")).json()["error"]
        text = "API calls from the server require an appsecret_proof argument"
        assert (error["message"], error["type"], error["code"]) == (text, "GraphMethodException", 100)


async def test_switch_require_content_length(tmp_path: Path) -> None:
    """Uploads of unknown length are taken, unless the switch says otherwise."""

    async def body() -> AsyncIterator[bytes]:
        yield b'--B\r\nContent-Disposition: form-data; name="messaging_product"\r\n\r\nwhatsapp\r\n'
        yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: text/plain\r\n\r\nx'
        yield b"\r\n--B--\r\n"

    for strict, status in ((False, 200), (True, 411)):
        settings = EmulatorSettings(require_content_length=strict)
        async with Emulator(tmp_path, settings=settings) as emulator, client(emulator) as http:
            headers = {"content-type": "multipart/form-data; boundary=B"}
            path = f"/v25.0/{emulator.phone_number_id}/media"
            assert (await http.post(path, content=body(), headers=headers)).status_code == status
            assert emulator.requests[-1].transfer_encoding == "chunked"


async def test_switch_remembered(tmp_path: Path) -> None:
    """Only the latest requests are remembered."""
    async with Emulator(tmp_path, settings=EmulatorSettings(remembered=2)) as emulator, client(emulator) as http:
        for path in ("/a", "/b", "/c"):
            await http.get(path)
        assert [request.path for request in emulator.requests] == ["/b", "/c"]


@given(content=st.binary(max_size=60) | st.just(b"\r\n--B\r\n--Bx\r\n-\r"), cuts=st.sets(st.integers(1, 220)))
def test_a_form_may_be_cut_anywhere(content: bytes, cuts: set[int]) -> None:
    """However a form is cut into pieces, the file and the fields come out the same."""
    content = content.replace(b"\r\n--B", b"")
    form = (
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: text/plain\r\n\r\n'
        + content
        + b'\r\n--B\r\nContent-Disposition: form-data; name="messaging_product"\r\n\r\nwhatsapp\r\n--B--\r\n'
    )
    reader = FormReader(b"B", EmulatorSettings())
    edges = [0, *sorted(cuts), len(form)]
    file = b"".join(bytes(piece) for start, end in pairwise(edges) for piece in reader.feed(form[start:end]))
    assert (file, reader.fields, reader.file_ended) == (content, {"messaging_product": "whatsapp"}, True)


def test_the_client_knows_the_same_types() -> None:
    """What the client side of this library accepts is what the emulator accepts, except for the undocumented one."""
    accepted = {mime_type: row.kind for mime_type, row in ACCEPTED.items()}
    assert dict(ACCEPTED_TYPES) == accepted | {"audio/opus": "audio"}
