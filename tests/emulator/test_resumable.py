"""The emulator's resumable uploads, as other people's clients ask for them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pywa_async.client import WhatsApp

from meta_media.emulator import Emulator, Fault
from tests.support.servers import wait_until
from tests.transfer.downloads import PHOTO

ABOUT = {"file_length": "10", "file_type": "image/jpeg", "file_name": "a.jpg"}
FILE = b"0123456789"


@pytest.fixture
async def graph(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    """A plain HTTP client with a token, for the emulator's newest version."""
    headers = {"Authorization": f"OAuth {emulator.access_token}"}
    async with httpx.AsyncClient(base_url=f"{emulator.base_url}/v25.0/", headers=headers) as client:
        yield client


async def begun(graph: httpx.AsyncClient, app: str = "app", **changes: str) -> str:
    """Begin a session, and return its path: httpx would take the id alone for a URL of the scheme `upload`."""
    response = await graph.post(f"{app}/uploads", params=ABOUT | changes)
    assert response.status_code == 200, response.text
    return f"/{response.json()['id']}"


async def offset(graph: httpx.AsyncClient, session: str) -> str:
    """Ask how much has arrived."""
    return str((await graph.get(session)).json()["file_offset"])


async def refusal(asked: Any) -> tuple[int, int, str]:
    """Return status, code and text of an error."""
    response = await asked
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]


async def test_pywa_asks_this_way(emulator: Emulator, graph: httpx.AsyncClient) -> None:
    """The app's id, everything in the query, Bearer, `file_offset: 0`: pywa 4.5."""
    graph.headers["Authorization"] = f"Bearer {emulator.access_token}"
    session = await begun(graph, emulator.app_id)
    encoded, _, signature = session.removeprefix("/upload:").partition("?sig=")
    about = base64.b64decode(encoded).decode()
    assert about.startswith("1:attachment:")
    assert about.endswith("?file_length=10&file_type=image/jpeg")
    assert signature
    response = await graph.post(session, headers={"file_offset": "0"}, content=FILE)
    assert response.json()["h"].startswith(f"4::{base64.b64encode(b'image/jpeg').decode()}:")
    (stored,) = emulator.handles
    assert (stored.handle, stored.filename, stored.file_offset) == (response.json()["h"], "a.jpg", 10)
    assert stored.digest.hexdigest() == hashlib.sha256(FILE).hexdigest()
    assert signature not in repr(stored)


async def test_pywa_sets_a_profile_picture(emulator: Emulator) -> None:
    """An unmodified pywa uploads a picture, and makes it the profile's."""
    async with httpx.AsyncClient() as session:
        pywa = WhatsApp(
            emulator.phone_number_id, token=emulator.access_token, app_id=int(emulator.app_id), session=session
        )
        session.base_url = httpx.URL(f"{emulator.base_url}/v26.0")  # it sets Meta's own, and offers no other way
        assert await pywa.update_business_profile(profile_picture=PHOTO)
    (stored,) = emulator.handles
    assert stored.digest.hexdigest() == hashlib.sha256(PHOTO).hexdigest()
    assert stored.handle is not None


async def test_meta_cloud_api_asks_this_way(emulator: Emulator, graph: httpx.AsyncClient) -> None:
    """The word `app`, a slash before the query, no `file_offset`, and JSON's type on the bytes: meta-cloud-api 3.1."""
    response = await graph.post("app/uploads/", params=ABOUT)
    session = f"/{response.json()['id']}"
    done = await graph.post(session, headers={"Content-Type": "application/json"}, content=FILE)
    assert done.json() == {"h": emulator.handles[0].handle}


async def test_parameters_in_json(graph: httpx.AsyncClient) -> None:
    """The parameters may stand in a JSON body, as everywhere in the Graph API."""
    assert (await graph.post("app/uploads", json=ABOUT | {"file_length": 10})).status_code == 200


async def test_resumed(emulator: Emulator, graph: httpx.AsyncClient) -> None:
    """What arrived before a cut stays; the rest is sent from the offset, which is text; the end may be asked for again."""
    session = await begun(graph)
    assert await offset(graph, session) == "0"
    _reader, writer = await asyncio.open_connection("127.0.0.1", int(emulator.base_url.rpartition(":")[2]))
    head = f"POST /v25.0{session} HTTP/1.1\r\nHost: x\r\nAuthorization: OAuth {emulator.access_token}\r\n"
    writer.write(f"{head}file_offset: 0\r\nContent-Length: 10\r\n\r\n0123".encode())
    await wait_until(lambda: emulator.handles[0].file_offset == 4)
    writer.close()
    assert (await graph.get(session)).json() == {"id": session[1:], "file_offset": "4"}
    part = await graph.post(session, headers={"file_offset": "4"}, content=b"45")
    assert part.json() == {"id": session[1:], "file_offset": "6"}
    done = await graph.post(session, headers={"file_offset": "6"}, content=b"6789")
    again = await graph.post(session, headers={"file_offset": "10"})
    assert done.json() == again.json() == {"h": emulator.handles[0].handle}
    assert emulator.handles[0].digest.hexdigest() == hashlib.sha256(FILE).hexdigest()


async def test_later_request_ends_an_earlier_one(emulator: Emulator, graph: httpx.AsyncClient) -> None:
    """Bytes that are still under way when the offset is told change the file no more."""
    session = await begun(graph)
    asked, more = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield FILE[:3]
        asked.set()
        await more.wait()
        yield FILE[3:]

    slow = asyncio.ensure_future(refusal(graph.post(session, content=slowly())))
    await asked.wait()
    await wait_until(lambda: emulator.handles[0].file_offset == 3)
    assert await offset(graph, session) == "3"
    more.set()
    assert await slow == (400, 100, "(#100) Param file_offset is now that of a later request")
    assert await offset(graph, session) == "3"


@pytest.mark.parametrize("given", ["1", "11", "-1", "zero", ""])
async def test_wrong_offset(graph: httpx.AsyncClient, given: str) -> None:
    """An offset at which the file does not stand is refused, and changes nothing."""
    session = await begun(graph)
    asked = graph.post(session, headers={"file_offset": given}, content=FILE)
    assert await refusal(asked) == (400, 100, "(#100) Param file_offset must be 0")
    assert await offset(graph, session) == "0"


async def test_more_than_was_announced(emulator: Emulator, graph: httpx.AsyncClient) -> None:
    """More bytes than announced are refused; the file is not complete."""
    session = await begun(graph)
    error = await refusal(graph.post(session, content=FILE + b"x"))
    assert error == (400, 100, "(#100) Param file_length is 10, but there are more bytes")
    assert emulator.handles[0].handle is None


async def test_session_of_another_account(emulator: Emulator, graph: httpx.AsyncClient) -> None:
    """A session is gone for the token of another account, with another signature, and if there is none of its name."""
    session = await begun(graph)
    emulator.add_account("777", "other")
    headers = {"Authorization": "Bearer other"}
    for asked in (
        graph.get(session, headers=headers),
        graph.post(session, headers=headers, content=FILE),
        graph.get(session + "x"),
        graph.get(session.partition("?")[0]),
        graph.get(session.replace("?", "%3F")),
        graph.get("/upload:7?sig=8"),
    ):
        status, code, text = await refusal(asked)
        assert (status, code) == (400, 100)
        assert "upload:" in text
    emulator.add_account(emulator.phone_number_id, "renewed")
    assert await offset(graph, session) == "0"
    assert (await graph.get(session, headers={"Authorization": "Bearer renewed"})).status_code == 200


async def test_token_in_the_query(emulator: Emulator, graph: httpx.AsyncClient) -> None:
    """The token may stand in the query of the first request, as on Meta's page, but not of those to the session."""
    del graph.headers["Authorization"]
    session = await begun(graph, access_token=emulator.access_token)
    error = await refusal(graph.post(f"{session}&access_token={emulator.access_token}", content=FILE))
    assert error[:2] == (401, 104)


@pytest.mark.parametrize(
    ("app", "changes", "text"),
    [
        ("1", {}, "Unsupported post request. Object with ID '1' does not exist"),
        ("app", {"file_length": None}, "(#100) The parameter file_length is required."),
        ("app", {"file_type": None}, "(#100) The parameter file_type is required."),
        ("app", {"file_length": "0"}, "(#100) Param file_length must match "),
        ("app", {"file_length": "ten"}, "(#100) Param file_length must match "),
        ("app", {"file_type": "image/webp"}, "(#100) Param file_type must match "),
    ],
)
async def test_sessions_that_cannot_begin(graph: httpx.AsyncClient, app: str, changes: Any, text: str) -> None:
    """Another app, a parameter that is missing or wrong: a session does not begin."""
    query = {name: value for name, value in (ABOUT | changes).items() if value is not None}
    status, code, message = await refusal(graph.post(f"{app}/uploads", params=query))
    assert (status, code) == (400, 100)
    assert message.startswith(text)


async def test_number_of_sessions(emulator: Emulator, graph: httpx.AsyncClient) -> None:
    """Of more than a thousand sessions, the oldest is dropped."""
    first, second = await begun(graph), await begun(graph)
    known = emulator._running.resumable.by_id
    known.update({f"upload:{number}?sig=s": emulator.handles[0] for number in range(998)})
    await begun(graph)
    assert (await graph.get(first)).status_code == 400
    assert await offset(graph, second) == "0"


async def test_faults(emulator: Emulator, graph: httpx.AsyncClient) -> None:
    """A fault of `upload_handle` meets each of the three requests; one of `graph` does, too."""
    session = await begun(graph)
    for operation in ("upload_handle", "graph", "any"):
        emulator.fail(operation, Fault(status=503), times=3)
        for asked in (graph.post("app/uploads", params=ABOUT), graph.get(session), graph.post(session, content=FILE)):
            assert (await asked).status_code == 503
    assert emulator.faults == []
    assert await offset(graph, session) == "0"
