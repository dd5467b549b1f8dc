"""The emulator against plain HTTP clients: uploads, metadata, deletion, tokens, messages and webhooks."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import os
import re
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.lowlevel
import httpx
import pytest
from python_multipart.exceptions import FormParserError

from meta_media.emulator import Emulator, EmulatorSettings
from meta_media.emulator.customer import PATH
from meta_media.emulator.upload import FormReader
from meta_media.errors import ConfigurationError, NetworkError, StorageError

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
REFUSAL = (
    "(#100) Param file must be a file with one of the following types: audio/aac, audio/mp4, audio/mpeg, audio/amr,"
    " audio/ogg, audio/opus, application/vnd.ms-powerpoint, application/msword,"
    " application/vnd.openxmlformats-officedocument.wordprocessingml.document,"
    " application/vnd.openxmlformats-officedocument.presentationml.presentation,"
    " application/vnd.openxmlformats-officedocument.spreadsheetml.sheet, application/pdf, text/plain,"
    " application/vnd.ms-excel, image/jpeg, image/png, image/webp, video/mp4, video/3gpp."
)
GONE = (
    "Unsupported {verb} request. Object with ID '{id}' does not exist, cannot be loaded due to missing permissions, or"
    " does not support this operation. Please read the Graph API documentation at"
    " https://developers.facebook.com/docs/graph-api"
)


@pytest.fixture
async def emulator(tmp_path: Path) -> AsyncIterator[Emulator]:
    """An emulator whose data folder tests can look into."""
    async with Emulator(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    """A plain client that sends the default token."""
    async with client(emulator) as connected:
        yield connected


def client(emulator: Emulator, token: str | None = None) -> httpx.AsyncClient:
    """Make a plain client."""
    headers = {"authorization": f"Bearer {token or emulator.access_token}"}
    return httpx.AsyncClient(base_url=emulator.base_url, headers=headers, trust_env=False)


async def upload(
    http: httpx.AsyncClient,
    number: str,
    content: bytes = PNG,
    mime_type: str = "image/png",
    filename: str = "photo.png",
    **fields: str,
) -> httpx.Response:
    """Upload as a form."""
    data = {"messaging_product": "whatsapp"} | fields
    return await http.post(f"/v25.0/{number}/media", data=data, files={"file": (filename, content, mime_type)})


def error_of(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    """Check what all errors have in common, and return the rest."""
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    error: dict[str, Any] = response.json()["error"]
    trace = error.pop("fbtrace_id")
    assert trace.startswith("A")
    assert response.headers["x-fb-trace-id"] == trace
    return error


def gone(verb: str, media_id: str) -> dict[str, Any]:
    """Return the error about an object that cannot be seen."""
    text = GONE.format(verb=verb, id=media_id)
    return {"message": text, "type": "GraphMethodException", "code": 100, "error_subcode": 33}


def invalid(message: str) -> dict[str, Any]:
    """Return the error about a parameter."""
    return {"message": message, "type": "OAuthException", "code": 100}


async def stored(tmp_path: Path) -> list[str]:
    """List the files that hold media."""
    return sorted([path.name async for path in anyio.Path(tmp_path / "data" / "media").iterdir()])


async def raw(emulator: Emulator, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send bytes as they are."""
    host, port = emulator.base_url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    await writer.drain()
    return reader, writer


def form_start(emulator: Emulator, mime_type: str = "image/png", length: int = 10**9) -> bytes:
    """Return the beginning of a large upload."""
    part = (
        '--B\r\nContent-Disposition: form-data; name="messaging_product"\r\n\r\nwhatsapp\r\n'
        f'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: {mime_type}\r\n\r\n'
    )
    head = (
        f"POST /v25.0/{emulator.phone_number_id}/media HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
        f"Authorization: Bearer {emulator.access_token}\r\nContent-Type: multipart/form-data; boundary=B\r\n\r\n"
    )
    return (head + part).encode()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds."""
    with anyio.fail_after(20):
        for _ in itertools.count():
            if await condition():
                return
            await anyio.sleep(0.01)  # another task's work shows only in the file system


async def test_upload_look_up_download_delete(emulator: Emulator, http: httpx.AsyncClient, tmp_path: Path) -> None:
    """An upload can be looked up, downloaded and deleted, and then it is gone."""
    uploaded = await upload(http, emulator.phone_number_id)
    assert uploaded.status_code == 200
    assert list(uploaded.json()) == ["id"]
    media_id = uploaded.json()["id"]
    assert re.fullmatch("[0-9]{15,17}", media_id)

    info = await http.get(f"/v25.0/{media_id}")
    url = info.json()["url"]
    assert list(info.json()) == ["url", "mime_type", "sha256", "file_size", "id", "messaging_product"]
    assert info.json() == {
        "url": url,
        "mime_type": "image/png",
        "sha256": hashlib.sha256(PNG).hexdigest(),
        "file_size": len(PNG),
        "id": media_id,
        "messaging_product": "whatsapp",
    }
    assert info.headers["facebook-api-version"] == "v25.0"
    assert info.headers["content-type"] == "application/json; charset=UTF-8"
    assert '"url":"http:\\/\\/' in info.text
    shape = (
        rf"{emulator.base_url}/whatsapp_business/attachments/\?mid={media_id}&source=getMedia&ext=(\d+)&hash=AT[\w-]+"
    )
    match = re.fullmatch(shape, url)
    assert match is not None
    assert abs(int(match[1]) - 300 - time.time()) < 60

    downloaded = await http.get(url)
    assert (downloaded.status_code, downloaded.content) == (200, PNG)
    assert downloaded.headers["content-type"] == "image/png"
    assert downloaded.headers["content-length"] == str(len(PNG))
    assert await stored(tmp_path) == [media_id]

    assert (await http.delete(f"/v25.0/{media_id}")).json() == {"success": True}
    assert await stored(tmp_path) == []
    assert error_of(await http.get(f"/v25.0/{media_id}")) == gone("get", media_id)
    assert error_of(await http.delete(f"/v25.0/{media_id}")) == gone("delete", media_id)
    assert (await http.get(url)).status_code == 404


async def test_fields_in_any_order(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """The file may come before messaging_product, and other fields, files and headers do not matter."""
    parts = [
        b'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n' + PNG,
        b'Content-Disposition: form-data; name="file"; filename="b.exe"\r\nContent-Type: a/b\r\n\r\nsecond',
        b'Content-Disposition: form-data; name="type"\r\nX-Other: 1\r\n\r\nvideo/mp4',
        b"Content-Disposition: form-data\r\n\r\nnameless",
        b'Content-Disposition: form-data; name="empty"\r\n\r\n',
        b'Content-Disposition: form-data; name="messaging_product"\r\n\r\nwhatsapp',
    ]
    body = b"".join(b"--xyz\r\n" + part + b"\r\n" for part in parts) + b"--xyz--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=xyz"}
    uploaded = await http.post(f"/v25.0/{emulator.phone_number_id}/media", content=body, headers=headers)
    info = (await http.get(f"/v25.0/{uploaded.json()['id']}")).json()
    assert (info["mime_type"], info["sha256"]) == ("image/png", hashlib.sha256(PNG).hexdigest())


async def test_pieces_of_any_size(emulator: Emulator) -> None:
    """A form may arrive byte by byte."""
    body = b'--B\r\nContent-Disposition: form-data; name="messaging_product"\r\n\r\nwhatsapp\r\n'
    body += b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: image/webp\r\n\r\n'
    body += b"RIFF\r\n--Bogus\r\n--B--\r\n"
    _, start = form_start(emulator).split(b"\r\n\r\n", 1)
    head = form_start(emulator, length=len(body)).removesuffix(start)
    reader, writer = await raw(emulator, head)
    for position in range(len(body)):
        writer.write(body[position : position + 1])
        await writer.drain()
        await anyio.lowlevel.checkpoint()  # lets each byte become a packet
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()


HEADERS = b"".join(b"X-Header-%d: 1\r\n" % number for number in range(40))


@pytest.mark.parametrize(
    ("preamble", "blanks", "headers"),
    [
        (b"This is a message in MIME format.\r\n", b"", b""),
        (b"\r\n", b"", b""),
        (b"--B2\r\n x --B\r\n\r\n", b"", b""),
        (b"", b" \t ", b""),
        (b"-" * 60_000 + b"\r\n", b" ", HEADERS),
        (b"", b"", b"X-Long: " + b"x" * 60_000 + b"\r\n"),
    ],
    ids=["preamble", "line break", "almost a delimiter", "blanks", "much of all", "a long header"],
)
@pytest.mark.parametrize("size", [10**9, 1], ids=["at once", "by bytes"])
def test_forms_as_the_rfc_allows_them(preamble: bytes, blanks: bytes, headers: bytes, size: int) -> None:
    """A preamble, blanks behind a delimiter, many headers and long ones are read (RFC 2046, section 5.1.1)."""
    disposition = b"Content-Disposition: form-data; name="
    body = preamble + b"--B" + blanks + b"\r\n" + headers + disposition + b'"messaging_product"\r\n\r\nwhatsapp'
    body += (
        b"\r\n--B"
        + blanks
        + b"\r\n"
        + headers
        + disposition
        + b'"file"; filename="a"\r\nContent-Type: image/png\r\n\r\n'
    )
    body += b"\x89PNG\r\n--Bogus\r\n--B--\r\nepilogue\r\n--B\r\n"
    step = size if size > 1 or len(body) < 10_000 else 1000
    form = FormReader(b"B", EmulatorSettings())
    content = b"".join(
        bytes(piece) for start in range(0, len(body), step) for piece in form.feed(body[start : start + step])
    )
    assert (form.fields, form.file_ended, content) == ({"messaging_product": "whatsapp"}, True, b"\x89PNG\r\n--Bogus")


@pytest.mark.parametrize(
    "start",
    [
        b"x" * 70_000 + b"\r\n--B\r\n",
        b"--B\r\n" + HEADERS * 2,
        b"--B\r\nX: " + b"x" * 70_000,
        b"--B\r\n" + (b"X: " + b"x" * 3000 + b"\r\n") * 30,
    ],
    ids=["preamble", "many headers", "a long header", "long headers"],
)
async def test_forms_beyond_the_limits(emulator: Emulator, http: httpx.AsyncClient, start: bytes) -> None:
    """A preamble, a header or the headers of a part without end are not kept: the form cannot be read."""
    with pytest.raises(FormParserError):
        FormReader(b"B", EmulatorSettings()).feed(start)
    headers = {"content-type": "multipart/form-data; boundary=B"}
    refused = await http.post(f"/v25.0/{emulator.phone_number_id}/media", content=start, headers=headers)
    assert error_of(refused) == invalid("(#100) The parameter messaging_product is required.")


@pytest.mark.parametrize(
    ("said", "scheme"),
    [(None, "http"), ("https", "https"), ("https, http", "https"), ("http", "http"), ("ftp", "http")],
)
async def test_urls_behind_tls(emulator: Emulator, http: httpx.AsyncClient, said: str | None, scheme: str) -> None:
    """Behind a proxy that speaks TLS, and says so in X-Forwarded-Proto, download URLs are https, at the proxy's host."""
    media_id = (await upload(http, emulator.phone_number_id)).json()["id"]
    headers = {"host": "media.example"} | ({} if said is None else {"x-forwarded-proto": said})
    url = (await http.get(f"/v25.0/{media_id}", headers=headers)).json()["url"]
    assert url.startswith(f"{scheme}://media.example/whatsapp_business/attachments/?mid={media_id}&")


async def test_accepted_types(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """Every type of Meta's text is accepted, with parameters too, and reported as it was declared."""
    for mime_type in (*re.findall(r"\w+/[\w.-]+\w", REFUSAL), "audio/ogg; codecs=opus", "Image/PNG"):
        uploaded = await upload(http, emulator.phone_number_id, b"anything", mime_type)
        info = await http.get(f"/v25.0/{uploaded.json()['id']}")
        assert info.json()["mime_type"] == mime_type


async def test_refused_types(emulator: Emulator, http: httpx.AsyncClient, tmp_path: Path) -> None:
    """The part's own type decides, whatever the field says, and nothing of a refused file stays."""
    for mime_type in ("application/octet-stream", "image/jpg", "video/3gp", "text/csv", "", "image/png\x7f/"):
        refused = await upload(http, emulator.phone_number_id, PNG, mime_type, type="image/png")
        shown = mime_type.replace("\x7f", "")
        assert error_of(refused) == invalid(f"{REFUSAL} Received file of type '{shown}'.")
    assert await stored(tmp_path) == []


async def test_part_without_type(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """A part that declares no type is application/octet-stream."""
    body = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\nx\r\n--B--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=B"}
    refused = await http.post(f"/v25.0/{emulator.phone_number_id}/media", content=body, headers=headers)
    assert error_of(refused)["message"].endswith("Received file of type 'application/octet-stream'.")


@pytest.mark.parametrize(
    ("mime_type", "start", "limit"),
    [
        ("image/jpeg", b"", 5 * 2**20),
        ("audio/opus", b"", 16 * 2**20),
        ("video/mp4", b"", 16 * 2**20),
        ("image/webp", b"RIFF____WEBPVP8 ", 100 * 2**10),
        ("image/webp", b"RIFF____WEBPVP8X\x0a\0\0\0\x02", 500 * 2**10),
        ("image/webp", b"RIFF____WEBPVP8X\x0a\0\0\0\x10", 100 * 2**10),
    ],
)
async def test_size_limits(
    emulator: Emulator, http: httpx.AsyncClient, tmp_path: Path, mime_type: str, start: bytes, limit: int
) -> None:
    """A file may be as large as the limit of its type and not a byte more."""
    content = start.ljust(limit, b"\0")
    assert (await upload(http, emulator.phone_number_id, content, mime_type)).status_code == 200
    refused = error_of(await upload(http, emulator.phone_number_id, content + b"\0", mime_type))
    assert refused == {
        "message": "(#100) Invalid parameter",
        "type": "OAuthException",
        "code": 100,
        "error_user_title": "File Too Large",
        "error_user_msg": "The file you uploaded is too large",
    }
    assert len(await stored(tmp_path)) == 1


@pytest.mark.parametrize(("mime_type", "sent"), [("text/csv", 0), ("image/png", 6 * 2**20)])
async def test_refused_before_the_end(emulator: Emulator, tmp_path: Path, mime_type: str, sent: int) -> None:
    """A refusal comes as soon as it is certain, while most of the body is still to be sent."""
    reader, writer = await raw(emulator, form_start(emulator, mime_type))
    writer.write(bytes(sent))
    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    writer.close()
    await writer.wait_closed()
    assert await stored(tmp_path) == []


@pytest.mark.parametrize("sent", [0, 100, 5 * 2**20])
async def test_hang_up(emulator: Emulator, http: httpx.AsyncClient, tmp_path: Path, sent: int) -> None:
    """A client that hangs up in the middle of an upload leaves nothing."""
    _, writer = await raw(emulator, form_start(emulator, "video/mp4") + bytes(sent))

    async def arrived() -> bool:
        return len(emulator.requests) == 1 and (sent < 2**20 or bool(await stored(tmp_path)))

    await until(arrived)
    writer.transport.abort()
    await writer.wait_closed()

    async def clean() -> bool:
        return not await stored(tmp_path)

    await until(clean)
    assert (await upload(http, emulator.phone_number_id)).status_code == 200


async def test_not_a_form(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """A body that cannot be read as a form has no fields, as recorded for a hand-made header."""
    for content_type, body in (
        ("multipart/form-data", b"--B--"),
        ("multipart/form-data; boundary=" + "B" * 100, b"--B--"),
        ("multipart/form-data; boundary=B", b"not a form"),
        ("multipart/form-data; boundary=B", b""),
        ("application/json", b'{"messaging_product":"whatsapp"}'),
        ("", b""),
    ):
        path, headers = f"/v25.0/{emulator.phone_number_id}/media", {"content-type": content_type}
        refused = await http.post(path, content=body, headers=headers)
        assert error_of(refused) == invalid("(#100) The parameter messaging_product is required.")


async def test_unfinished_form(emulator: Emulator, http: httpx.AsyncClient, tmp_path: Path) -> None:
    """A file without its end is no file, and neither is one in a form that breaks off."""
    url, headers = f"/v25.0/{emulator.phone_number_id}/media", {"content-type": "multipart/form-data; boundary=B"}
    _, _, start = form_start(emulator).partition(b"\r\n\r\n")
    for body in (start + b"abc", start + b"abc\r\n--B\r\nno header\r\n"):
        refused = await http.post(url, content=body, headers=headers)
        assert error_of(refused) == invalid("(#100) The parameter file is required.")
    assert await stored(tmp_path) == []


async def test_wrong_fields(emulator: Emulator, http: httpx.AsyncClient, tmp_path: Path) -> None:
    """messaging_product must be there and be whatsapp, and a file must be a file."""
    url = f"/v25.0/{emulator.phone_number_id}/media"
    file = {"file": ("a.png", PNG, "image/png")}
    required = "(#100) The parameter messaging_product is required."
    assert error_of(await http.post(url, files=file)) == invalid(required)
    refused = error_of(await http.post(url, files=file, data={"messaging_product": "signal"}))
    assert refused == invalid('(#100) Param messaging_product must be one of {WHATSAPP} - got "signal".')
    as_text = {"messaging_product": (None, b"whatsapp"), "file": (None, b"text")}
    assert error_of(await http.post(url, files=as_text)) == invalid("(#100) The parameter file is required.")
    assert await stored(tmp_path) == []


async def test_huge_forms(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """Too many fields and too long ones are cut off."""
    data = {f"field{number}": "x" * 2000 for number in range(100)} | {"messaging_product": "whatsapp"}
    refused = await http.post(f"/v25.0/{emulator.phone_number_id}/media", data=data, files={"file": b"x"})
    assert error_of(refused)["message"].startswith("(#100) Param file must be")
    refused = await http.post(f"/v25.0/{emulator.phone_number_id}/media", files=[(name, (None, b"x")) for name in data])
    assert error_of(refused)["message"] == "(#100) The parameter messaging_product is required."


async def test_lifetimes(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """Media lives for 30 days, or as many minutes as asked for, or for good in the one use case that is exempt."""
    number = emulator.phone_number_id
    day = 24 * 60 * 60
    short = (await upload(http, number, ttl_minutes="60")).json()["id"]
    usual = (await upload(http, number, use_case="another")).json()["id"]
    exempt = (await upload(http, number, b"x", "audio/ogg", use_case="call_voicemail_announcement")).json()["id"]
    statuses = []
    for seconds in (3599, 2, 30 * day - 3700, 200):
        emulator.clock.advance(seconds)
        statuses.append([(await http.get(f"/v25.0/{media_id}")).status_code for media_id in (short, usual, exempt)])
    assert statuses == [[200, 200, 200], [400, 200, 200], [400, 200, 200], [400, 400, 200]]
    assert error_of(await http.get(f"/v25.0/{short}")) == gone("get", short)


async def test_wrong_lifetimes(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """ttl_minutes is a number from 60 to 43200."""
    for minutes in ("59", "43201", "-60", "6e3", "", "٦٠", "9" * 5000):
        refused = await upload(http, emulator.phone_number_id, ttl_minutes=minutes)
        assert error_of(refused) == invalid("(#100) Param ttl_minutes must be a number from 60 to 43200")
    for minutes in ("60", "43200"):
        assert (await upload(http, emulator.phone_number_id, ttl_minutes=minutes)).status_code == 200


async def test_unknown_objects(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """Unknown numbers and ids, and verbs that an object does not know, get one and the same error."""
    assert error_of(await upload(http, "123")) == gone("post", "123")
    assert error_of(await http.post("/v25.0/123/messages", json={})) == gone("post", "123")
    assert error_of(await http.get("/v25.0/123")) == gone("get", "123")
    assert error_of(await http.delete("/v25.0/letters")) == gone("delete", "letters")
    assert error_of(await http.post("/v25.0/123")) == gone("post", "123")
    assert error_of(await http.put("/v25.0/123/media")) == gone("put", "123")


async def test_unknown_paths(http: httpx.AsyncClient) -> None:
    """A path that leads nowhere is unknown from the object's id on; a version that was never issued is such an id."""
    for path, unknown in (
        ("/", "/"),
        ("/v25.0", "/"),
        ("/v25.0/1/2/3", "/2/3"),
        ("/1/2", "/2"),
        ("/whatsapp_business/x", "/x"),
        *(
            (f"/{version}/123", "/123")
            for version in ("v99x", "v25", "v28.0", "v99.0", "v2.13", "v3.4", "v0.0", "v05.0")
        ),
    ):
        error = {"message": f"Unknown path components: {unknown}", "type": "OAuthException", "code": 2500}
        assert error_of(await http.get(path)) == error, path
    assert (await http.post("/whatsapp_business/attachments/")).status_code == 400


@pytest.mark.parametrize(
    "path", ["/{}", "/{}/", "/v1.0/{}", "/v2.12/{}", "/v3.3/{}", "/v14.0/{}", "/v20.0/{}", "/v21.0/{}"]
)
async def test_the_oldest_version(emulator: Emulator, http: httpx.AsyncClient, path: str) -> None:
    """Retired versions, and paths without one, are served by the oldest version that is left, and the response names it."""
    media_id = (await upload(http, emulator.phone_number_id)).json()["id"]
    response = await http.get(path.format(media_id))
    assert response.json()["id"] == media_id
    assert response.headers["facebook-api-version"] == "v21.0"
    assert (await http.delete(path.format(media_id))).json() == {"success": True}
    gone_now = await http.get(path.format(media_id))
    assert error_of(gone_now) == gone("get", media_id)
    assert gone_now.headers["facebook-api-version"] == "v21.0"
    assert emulator.requests[-1].path == path.format(media_id)


async def test_versions(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """Each version that Meta serves answers for itself, errors too, with and without a slash at the end."""
    for version in ("v21.0", "v25.0", "v26.0", "v27.0"):
        for slash in ("", "/"):
            response = await http.get(f"/{version}/{emulator.phone_number_id}{slash}")
            assert response.json()["id"] == emulator.phone_number_id
            unknown = await http.get(f"/{version}/1/2{slash}")
            assert error_of(unknown)["message"] == "Unknown path components: /2"
            for found in (response, unknown):
                assert found.headers["facebook-api-version"] == version


async def test_tokens(emulator: Emulator) -> None:
    """A missing, an unknown, an expired and a restricted token each have an error of their own, everywhere in the Graph API."""
    path = f"/v25.0/{emulator.phone_number_id}"
    async with httpx.AsyncClient(base_url=emulator.base_url, trust_env=False) as http:
        missing = {
            "message": "An access token is required to request this resource",
            "type": "OAuthException",
            "code": 104,
        }
        assert error_of(await http.get(path), 401) == missing
        assert error_of(await http.get(path, headers={"authorization": "Basic abc"}), 401) == missing
        active = "An active access token must be used to query information about the current user."
        assert error_of(await http.get("/v25.0/me")) == {"message": active, "type": "OAuthException", "code": 2500}
    async with client(emulator, "unknown") as http:
        unreadable = "Invalid OAuth access token - Cannot parse access token"
        for response in (await http.get(path), await upload(http, "1"), await http.delete("/v25.0/1")):
            assert error_of(response, 401) == {"message": unreadable, "type": "OAuthException", "code": 190}
    async with client(emulator) as http:
        emulator.expire_token(emulator.access_token, after=10)
        assert (await http.get(path)).status_code == 200
        emulator.clock.advance(11)
        expired = error_of(await http.get(path), 401)
        date = r"\w+day, \d\d-\w{3}-\d\d \d\d:\d\d:\d\d PST"
        text = rf"Error validating access token: Session has expired on {date}\. The current time is {date}\."
        assert re.fullmatch(text, expired.pop("message"))
        assert expired == {"type": "OAuthException", "code": 190, "error_subcode": 463}
        emulator.add_account(emulator.phone_number_id, emulator.access_token)
        assert (await http.get(path)).status_code == 200
        emulator.forbid(emulator.access_token)
        lacking = "This operation requires additional permissions"
        assert error_of(await http.get(path), 403) == {"message": lacking, "type": "OAuthException", "code": 200}
        emulator.forbid(emulator.access_token, code=10)
        lacking = "(#10) Application does not have permission for this action"
        assert error_of(await http.get(path), 403) == {"message": lacking, "type": "OAuthException", "code": 10}
    with pytest.raises(ConfigurationError, match="add_account"):
        emulator.expire_token("unknown")


async def test_token_in_the_query(emulator: Emulator) -> None:
    """The Graph API takes a token as a parameter too, and under the scheme OAuth; the download host wants a header."""
    path = f"/v25.0/{emulator.phone_number_id}"
    async with httpx.AsyncClient(base_url=emulator.base_url, trust_env=False) as http:
        assert (await http.get(path, params={"access_token": emulator.access_token})).status_code == 200
        headers = {"authorization": f"OAuth {emulator.access_token}"}
        media_id = (
            await http.post(
                path + "/media",
                data={"messaging_product": "whatsapp"},
                files={"file": ("a", b"x", "text/plain")},
                headers=headers,
            )
        ).json()["id"]
        url = (await http.get(f"/v25.0/{media_id}", headers=headers)).json()["url"]
        assert (await http.get(url, params={"access_token": emulator.access_token})).status_code == 401


async def test_parameters_in_the_query(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """What a form may hold may stand in the query as well; where both have it, the form wins."""
    url, file = f"/v25.0/{emulator.phone_number_id}/media", {"file": ("a", b"x", "audio/ogg")}
    query = {"messaging_product": "whatsapp", "type": "audio/ogg", "ttl_minutes": "60"}
    short = (await http.post(url, params=query, files=file)).json()["id"]
    long = (await http.post(url, params=query, files=file, data={"ttl_minutes": "120"})).json()["id"]
    kept = {"messaging_product": "whatsapp", "use_case": "call_voicemail_announcement"}
    exempt = (await http.post(url, params=kept, files=file)).json()["id"]
    refused = error_of(await http.post(url, params=query | {"ttl_minutes": "1"}, files=file))
    assert refused == invalid("(#100) Param ttl_minutes must be a number from 60 to 43200")
    statuses = []
    for minutes in (61, 60, 31 * 24 * 60):
        emulator.clock.advance(minutes * 60)
        statuses.append([(await http.get(f"/v25.0/{media_id}")).status_code for media_id in (short, long, exempt)])
    assert statuses == [[400, 200, 200], [400, 400, 200], [400, 400, 200]]


async def test_token_in_the_form(emulator: Emulator, tmp_path: Path) -> None:
    """The Graph API takes a token as a field of a form or of a JSON body; a wrong one, or none, leaves nothing."""
    url, file = f"/v25.0/{emulator.phone_number_id}", {"file": ("a.png", PNG, "image/png")}
    fields = {"messaging_product": "whatsapp", "access_token": emulator.access_token}
    async with httpx.AsyncClient(base_url=emulator.base_url, trust_env=False) as http:
        for data, code in (({"messaging_product": "whatsapp"}, 104), (fields | {"access_token": "x"}, 190)):
            assert error_of(await http.post(url + "/media", data=data, files=file), 401)["code"] == code
        assert await stored(tmp_path) == []
        uploaded = await http.post(url + "/media", data=fields, files=file)
        assert await stored(tmp_path) == [uploaded.json()["id"]]
        message = fields | {"to": "15550001111", "type": "image", "image": uploaded.json()}
        assert (await http.post(url + "/messages", json=message)).status_code == 200
        assert error_of(await http.post(url + "/messages", json=message | {"access_token": 5}), 401)["code"] == 190
        elsewhere = await http.post("/v25.0/123/media", data=fields, files=file)
        assert error_of(elsewhere) == gone("post", "123")
    assert "access_token" not in emulator.messages[-1]


async def test_proof_in_the_form(tmp_path: Path) -> None:
    """A required proof may come in the form, beside a token in the header; a wrong one fails wherever it stands."""
    settings = EmulatorSettings(require_appsecret_proof=True)
    async with Emulator(tmp_path / "strict", settings=settings) as emulator, client(emulator) as http:
        proof = hmac.new(emulator.app_secret.encode(), emulator.access_token.encode(), hashlib.sha256).hexdigest()
        number = emulator.phone_number_id
        assert (await upload(http, number, appsecret_proof=proof)).status_code == 200
        assert error_of(await upload(http, number))["message"].endswith("require an appsecret_proof argument")
        message = {"messaging_product": "whatsapp", "to": "1", "text": {"body": "hi"}, "appsecret_proof": proof}
        assert (await http.post(f"/v25.0/{number}/messages", json=message)).status_code == 200
        assert "appsecret_proof" not in emulator.messages[-1]
    async with Emulator(tmp_path / "data") as emulator, client(emulator) as http:
        wrong, number = "Invalid appsecret_proof provided in the API argument", emulator.phone_number_id
        assert error_of(await upload(http, number, appsecret_proof="x"))["message"] == wrong
        assert await stored(tmp_path) == []
        for proof in ("x", "\ud800"):  # half of a surrogate pair, which UTF-8 cannot encode
            refused = await http.post(f"/v25.0/{number}/messages", content=json.dumps({"appsecret_proof": proof}))
            assert error_of(refused)["message"] == wrong


async def test_several_accounts(tmp_path: Path) -> None:
    """A token sees the media of its own numbers only; a number may have several tokens, and a token several numbers."""
    accounts = {"111": ("first", "shared"), "222": "second"}
    async with Emulator(tmp_path, accounts=accounts) as emulator:
        assert (emulator.phone_number_id, emulator.access_token) == ("111", "first")
        emulator.add_account("222", "shared")
        async with (
            client(emulator) as first,
            client(emulator, "second") as second,
            client(emulator, "shared") as shared,
        ):
            media_id = (await upload(first, "111")).json()["id"]
            assert (await shared.get(f"/v25.0/{media_id}")).status_code == 200
            assert error_of(await second.get(f"/v25.0/{media_id}")) == gone("get", media_id)
            assert error_of(await second.delete(f"/v25.0/{media_id}")) == gone("delete", media_id)
            assert error_of(await upload(second, "111")) == gone("post", "111")
            assert (await upload(shared, "222")).status_code == 200
            url = (await first.get(f"/v25.0/{media_id}")).json()["url"]
            assert [(await http.get(url)).status_code for http in (first, second, shared)] == [200, 404, 200]
            message = {
                "messaging_product": "whatsapp",
                "to": "+15550001111",
                "type": "image",
                "image": {"id": media_id},
            }
            refused = error_of(await shared.post("/v25.0/222/messages", json=message))
            attachment = "(#100) Param image['id'] is not a valid whatsapp business account media attachment ID"
            assert refused == invalid(attachment)
            assert (await shared.post("/v25.0/111/messages", json=message)).status_code == 200


async def test_phone_number_parameter(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """phone_number_id must be the number of the media, when it is given."""
    media_id = (await upload(http, emulator.phone_number_id)).json()["id"]
    right, wrong = {"phone_number_id": emulator.phone_number_id}, {"phone_number_id": "1"}
    assert (await http.get(f"/v25.0/{media_id}", params=right)).status_code == 200
    assert error_of(await http.get(f"/v25.0/{media_id}", params=wrong)) == gone("get", media_id)
    assert error_of(await http.delete(f"/v25.0/{media_id}", params=wrong)) == gone("delete", media_id)
    assert (await http.delete(f"/v25.0/{media_id}", params=right)).json() == {"success": True}


async def test_appsecret_proof(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """A proof may be classic or timed, but not wrong or old."""

    def proof(text: str) -> str:
        return hmac.new(emulator.app_secret.encode(), text.encode(), hashlib.sha256).hexdigest()

    async def refused(**params: str) -> bool:
        response = await http.get(f"/v25.0/{emulator.phone_number_id}", params=params)
        if response.status_code == 200:
            return False
        text = "Invalid appsecret_proof provided in the API argument"
        assert error_of(response) == {"message": text, "type": "GraphMethodException", "code": 100}
        return True

    token = emulator.access_token
    now, old = str(int(time.time())), str(int(time.time()) - 400)
    assert not await refused(appsecret_proof=proof(token))
    assert not await refused(appsecret_proof=proof(f"{token}|{now}"), appsecret_time=now)
    assert await refused(appsecret_proof=proof(f"{token}|{old}"), appsecret_time=old)
    assert await refused(appsecret_proof=proof(f"{token}|x"), appsecret_time="x")
    assert await refused(appsecret_proof=proof(token), appsecret_time=now)
    assert await refused(appsecret_proof="é")


async def test_throttle(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """As many requests as a test says are throttled, and then no more."""
    emulator.throttle(2)
    path = f"/v25.0/{emulator.phone_number_id}"
    responses = [await http.get(path) for _ in range(3)]
    assert [response.status_code for response in responses] == [400, 400, 200]
    assert error_of(responses[0]) == {
        "message": "(#130429) Rate limit hit",
        "type": "OAuthException",
        "code": 130429,
        "error_data": {"messaging_product": "whatsapp", "details": "Cloud API message throughput has been reached."},
    }
    assert "retry-after" not in responses[0].headers


async def test_receive(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """A webhook about received media is signed as sent, and leads to the bytes in both ways."""
    for mime_type, kind, more in (
        ("image/jpeg", "image", {}),
        ("video/mp4", "video", {}),
        ("audio/ogg; codecs=opus", "audio", {"voice": True}),
        ("audio/mpeg", "audio", {"voice": False}),
        ("application/x-anything", "document", {"filename": "file"}),
        ("image/webp", "sticker", {"animated": False}),
    ):
        body, signature = await emulator.receive(PNG, mime_type, caption="leaf / é")
        assert signature == "sha256=" + hmac.new(emulator.app_secret.encode(), body, hashlib.sha256).hexdigest()
        assert b"\\/" in body
        assert body.isascii()
        payload = json.loads(body)
        assert payload["object"] == "whatsapp_business_account"
        value = payload["entry"][0]["changes"][0]["value"]
        assert value["metadata"]["phone_number_id"] == emulator.phone_number_id
        message = value["messages"][0]
        assert message["type"] == kind
        media = message[kind]
        served = {name: media[name] for name in ("sha256", "id", "url")}
        assert media == served | {"mime_type": mime_type, "caption": "leaf / é"} | more
        assert b64decode(media["sha256"]) == hashlib.sha256(PNG).digest()
        expires = int(message["timestamp"]) + 301
        assert f"?mid={media['id']}&source=webhook&ext={expires}&hash=AR" in media["url"]
        assert (await http.get(media["url"])).content == PNG
        assert (await http.get(f"/v25.0/{media['id']}")).json()["sha256"] == hashlib.sha256(PNG).hexdigest()
    emulator.clock.advance(7 * 24 * 60 * 60)
    assert (await http.get(f"/v25.0/{media['id']}")).status_code == 400


@pytest.mark.parametrize(
    ("sender", "person", "known"),
    [
        (None, {"from": "15550001111"}, {"wa_id": "15550001111"}),
        ("+1 555 000 3333", {"from": "15550003333"}, {"wa_id": "15550003333"}),
        ("US.1349", {}, {"user_id": "US.1349"}),
        ("US.ENT.1349", {}, {"user_id": "US.ENT.1349"}),
    ],
)
async def test_receive_from(
    emulator: Emulator, sender: str | None, person: dict[str, str], known: dict[str, str]
) -> None:
    """Every customer has a user id, the same each time; who has nothing else has no phone number."""
    for group_id in (None, "Y2FwaV9n"):
        body, _ = await emulator.receive(PNG, "image/png", sender=sender, group_id=group_id)
        value = json.loads(body)["entry"][0]["changes"][0]["value"]
        (message,), (contact,) = value["messages"], value["contacts"]
        assert message["from_user_id"] == contact["user_id"]
        assert {name: message[name] for name in ("from", "group_id") if name in message} == (
            person if group_id is None else person | {"group_id": group_id}
        )
        assert contact.items() >= known.items()
        assert ("wa_id" in contact) == ("from" in message)


async def test_receive_a_path(emulator: Emulator, http: httpx.AsyncClient, tmp_path: Path) -> None:
    """A path gives the document its name; kind and number can be chosen; a sticker says whether it is animated."""
    path = anyio.Path(tmp_path / "order.pdf")
    await path.write_bytes(b"RIFF____WEBPVP8X\x0a\0\0\0\x02")
    emulator.add_account("222", emulator.access_token)
    body, _ = await emulator.receive(str(path), "application/pdf", phone_number_id="222")
    value = json.loads(body)["entry"][0]["changes"][0]["value"]
    document = value["messages"][0]["document"]
    assert (value["metadata"]["phone_number_id"], document["filename"]) == ("222", "order.pdf")
    assert "caption" not in document
    assert (await http.get(document["url"])).content == await path.read_bytes()
    body, _ = await emulator.receive(path, "image/webp", kind="sticker")
    assert json.loads(body)["entry"][0]["changes"][0]["value"]["messages"][0]["sticker"]["animated"] is True


WRONG: list[tuple[Callable[[Emulator], Any], str]] = [
    (lambda _: Emulator(cast("Any", 5)), "data must be a path, not int"),
    (lambda _: Emulator(webhook=cast("Any", 5)), "webhook must be text, not int"),
    (lambda _: Emulator(settings=cast("Any", {"etag": True})), "settings must be EmulatorSettings, not dict"),
    (lambda _: Emulator(accounts=cast("Any", ["111"])), "accounts must be a mapping of numbers to tokens, not list"),
    (lambda _: Emulator(accounts=cast("Any", {"111": 5})), "accounts must be tokens by number, not int"),
    (lambda _: Emulator(accounts=cast("Any", {"111": b"EAAG"})), "access_token must be text, not int"),
    (lambda e: e.add_account("1", cast("Any", b"EAAG")), "access_token must be text, not bytes"),
    (lambda e: e.add_account("1", "\ud800"), "access_token has characters that UTF-8 cannot encode: replace them"),
    (lambda e: e.expire_token(e.access_token, after=cast("Any", "5")), "after must be a number of seconds, not str"),
    (lambda e: e.forbid(e.access_token, code=cast("Any", "10")), "code must be 200 or 10, not str"),
    (lambda e: e.receive(b"x", cast("Any", 5)), "mime_type must be text, not int"),
    (lambda e: e.receive(b"x", "jpeg\n" * 999), "mime_type must be a type such as image/jpeg, not 'jpeg"),
    (lambda e: e.receive(cast("Any", 5), "text/plain"), "content must be bytes or a path, not int"),
    (lambda e: e.receive(b"x", "text/plain", kind=cast("Any", "song")), "kind must be one of audio, document, image,"),
    (lambda e: e.receive(b"x", "text/plain", caption=cast("Any", 5)), "caption must be text, not int"),
    (lambda e: e.receive(b"x", "text/plain", filename=cast("Any", b"a")), "filename must be text, not bytes"),
    (lambda e: e.receive(b"x", "text/plain", sender="\ud800"), "sender has characters that UTF-8 cannot encode"),
    (
        lambda e: e.receive(b"x", "text/plain", sender="US."),
        "sender must be a phone number or a user id such as US.1349",
    ),
    (lambda e: e.receive(b"x", "text/plain", group_id=cast("Any", 5)), "group_id must be text, not int"),
    (lambda e: e.receive(b"x", "text/plain", phone_number_id="\ud800"), "phone_number_id has characters that UTF-8"),
    (lambda e: e.receive("missing.jpg", "image/jpeg"), "could not read 'missing.jpg': No such file or directory"),
    (lambda e: e.receive("\0", "image/jpeg"), r"could not read '\x00': embedded null byte"),
    (lambda e: e.receive(".", "image/jpeg"), "could not read '.': Is a directory"),
]


@pytest.mark.parametrize(("call", "sentence"), WRONG, ids=[sentence[:40] for _, sentence in WRONG])
async def test_wrong_arguments_are_one_sentence(call: Callable[[Emulator], Any], sentence: str) -> None:
    """An argument of a wrong kind is a typed error that names it, and shows none of it uncut."""
    async with Emulator(webhook="http://127.0.0.1:9") as emulator:

        async def called() -> None:
            found = call(emulator)
            if asyncio.iscoroutine(found):
                await found

        with pytest.raises((ConfigurationError, StorageError)) as caught:
            await called()
        assert str(caught.value).startswith(sentence)
        assert len(str(caught.value)) < 400
        for body, signature, why in (
            (5, "", "body must be bytes, not int"),
            (b"", 5, "signature must be text, not int"),
        ):
            with pytest.raises(ConfigurationError, match=why):
                await emulator.deliver(cast("Any", body), cast("Any", signature))


@pytest.mark.parametrize(
    "address",
    [
        {"port": 70_000},
        {"port": -1},
        {"port": "x"},
        {"host": 5},
        {"host": "192.0.2.1"},
        {"host": "é" * 99},
        {"host": "a\0b"},
    ],
    ids=repr,
)
async def test_wrong_addresses_are_one_sentence(address: dict[str, Any]) -> None:
    """What is no address of this machine is a typed error, and nothing stays open."""
    with pytest.raises(NetworkError, match=r"^the emulator could not listen on .*: choose another port, 0 for a free"):
        await Emulator(**address).__aenter__()


async def test_an_emulator_that_has_ended() -> None:
    """What has ended says so: no customer, no new account. What it has received can still be looked at."""
    async with Emulator() as ended:
        await ended.receive(b"x", "text/plain")
    with pytest.raises(ConfigurationError, match="the emulator is not running"):
        ended.add_account("1", "EAAG")
    with pytest.raises(ConfigurationError, match="the emulator is not running"):
        ended.expire_token(ended.access_token)
    with pytest.raises(ConfigurationError, match="the emulator is not running"):
        await ended.receive(b"x", "text/plain")
    assert ended.requests == []


@pytest.mark.skipif(os.name == "nt", reason="names of POSIX are bytes")
async def test_receive_a_path_that_is_not_utf_8(emulator: Emulator, tmp_path: Path) -> None:
    """A file whose name is not UTF-8 is a document with a question mark in its name."""
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.pdf")  # noqa: PTH118 - Path has no bytes
    await anyio.Path(os.fsdecode(path)).write_bytes(b"%PDF-")
    body, _ = await emulator.receive(os.fsdecode(path), "application/pdf")
    message = json.loads(body)["entry"][0]["changes"][0]["value"]["messages"][0]
    assert message["document"]["filename"] == "caf?.pdf"


async def test_a_customer_with_a_wrong_type(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """The request of another process with a type that is none is refused in Meta's form."""
    params = {"phone_number_id": emulator.phone_number_id}
    refused = await http.post(PATH, content=b"x", params=params, headers={"content-type": "jpeg"})
    assert error_of(refused) == invalid("(#100) Param mime_type must be a type such as image/jpeg, not 'jpeg'")


async def test_requests_are_remembered(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """Tests can see what arrived, but not the token."""
    await upload(http, emulator.phone_number_id)
    await http.get("/v25.0/1?phone_number_id=2", headers={"range": "bytes=1-", "user-agent": "me"})
    first, second = emulator.requests
    assert (first.method, first.path) == ("POST", f"/v25.0/{emulator.phone_number_id}/media")
    assert first.authorization
    assert first.content_length is not None
    assert first.content_length > len(PNG)
    assert (first.content_type or "").startswith("multipart/form-data; boundary=")
    assert (second.query, second.range, second.user_agent) == ({"phone_number_id": "2"}, "bytes=1-", "me")
    assert (second.content_length, second.transfer_encoding) == (None, None)
    assert emulator.access_token not in repr(emulator.requests)


async def test_dates_follow_the_clock(emulator: Emulator, http: httpx.AsyncClient) -> None:
    """Every response is dated by the emulator's clock."""
    emulator.clock.advance(100 * 365 * 24 * 60 * 60)
    assert int((await http.get("/")).headers["date"].split()[3]) > time.gmtime().tm_year + 90


async def test_not_running() -> None:
    """What needs the emulator says so when it does not run, and its repr never shows the token."""
    emulator = Emulator()
    assert repr(emulator) == "Emulator(not running)"
    with pytest.raises(ConfigurationError, match="async with"):
        _ = emulator.requests
    with pytest.raises(ConfigurationError, match="async with"):
        emulator.api()
    async with emulator:
        assert repr(emulator) == f"Emulator({emulator.base_url})"


async def test_a_failure_is_metas_failure(
    emulator: Emulator, http: httpx.AsyncClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When the emulator itself fails, here for want of its folder, it answers like the Graph API does."""
    await anyio.Path(tmp_path / "data" / "media").rmdir()
    response = await upload(http, emulator.phone_number_id)
    broken = {"message": "An unknown error occurred", "type": "OAuthException", "code": 1, "is_transient": True}
    assert error_of(response, 500) == broken
    assert "FileNotFoundError" in caplog.text
    response = await upload(http, emulator.phone_number_id, bytes(3 * 2**20), "video/mp4")
    assert error_of(response, 500) == broken


def test_settings_are_checked() -> None:
    """A switch has no other positions than its own."""
    switches: tuple[tuple[str, Any, str], ...] = (
        ("provider", "twilio", "one of meta, 360dialog"),
        ("megabyte", 5, "one of 1048576, 1000000"),
        ("size_limits", "x", "one of by_type, service"),
        ("oversize_reply", "x", "one of graph, proxy"),
        ("repeated_delete", 1, "one of error, success"),
        ("url_lifetime", -1, "a number of at least 0, not -1"),
        ("remembered", "5", "a number of at least 0, not '5'"),
    )
    for name, value, must_be in switches:
        with pytest.raises(ConfigurationError, match=f"^{name} must be {must_be}$"):
            EmulatorSettings(**{name: value})
    assert "hush" not in repr(EmulatorSettings(app_secret="hush"))
