"""The pytest plugin, as another project's tests use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

APP = """
from meta_media import MediaApi


async def app(content):
    async with MediaApi() as media:
        return (await media.upload(content)).id


"""

PLAIN = f"""
import asyncio
import json
import os

import httpx
import pytest
import respx

from meta_media import inbound_media, parse_webhook
from meta_media.emulator import Fault
from meta_media.errors import MediaNotFoundError
{APP}
@pytest.mark.anyio
async def test_with_anyio(media_api, media_emulator):
    uploaded = await media_api.upload(b"hello")
    media_emulator.clock.advance(31 * 24 * 60 * 60)
    with pytest.raises(MediaNotFoundError):
        await media_api.get_info(uploaded.id)


def test_without_a_plugin(media_api, media_emulator):
    async def tour():
        body, _ = await media_emulator.receive(b"hello", "text/plain")
        [inbound] = inbound_media(json.loads(body))
        assert await media_api.read(inbound) == b"hello"

    asyncio.run(tour())


def test_of_a_failure(media_emulator):
    media_emulator.fail("get_info", Fault(status=503), times=2)
    with httpx.Client(base_url=media_emulator.base_url, trust_env=False) as client:
        client.headers["authorization"] = f"Bearer {{media_emulator.access_token}}"
        statuses = [client.get(f"/v25.0/{{media_emulator.phone_number_id}}").status_code for _ in range(3)]
    assert statuses == [503, 503, 200]
    assert media_emulator.faults == []


def test_of_statuses(media_api, media_emulator):
    async def tour():
        uploaded = await media_api.upload(b"hello")
        media_emulator.fail_delivery(131026)
        for _ in range(2):
            await media_api.send("US.1349", uploaded)

    asyncio.run(tour())
    statuses = [parse_webhook(body).statuses[0] for body, _ in media_emulator.statuses]
    assert [status.status for status in statuses] == ["failed", "sent", "delivered", "read"]
    assert statuses[0].errors[0].code == 131026


def test_of_an_app(media_environment):
    asyncio.run(app(b"hello"))
    [request] = media_environment.requests
    assert request.path.endswith(f"/{{media_environment.phone_number_id}}/media")
    assert os.environ["WEBHOOK_VERIFICATION_TOKEN"] == media_environment.verify_token
    assert MediaApi().settings.app_secret == media_environment.app_secret
    assert MediaApi().settings.business_account_id == media_environment.business_account_id
    assert MediaApi().settings.app_id == media_environment.app_id


def test_with_respx(monkeypatch):
    monkeypatch.setenv("CLOUD_API_ACCESS_TOKEN", "token")
    monkeypatch.setenv("WA_PHONE_NUMBER_ID", "1")
    with respx.mock(using="httpx") as router:
        route = router.post("https://graph.facebook.com/v25.0/1/media").respond(json={{"id": "777"}})
        assert asyncio.run(app(b"hello")) == "777"
    assert b"hello" in route.calls.last.request.content


@pytest.fixture
def anyio_backend():
    return "asyncio"
"""

ASYNCIO = f"""
import respx
{APP}
async def test_of_an_app(media_environment, media_api):
    assert await media_api.read(await app(b"hello")) == b"hello"


@respx.mock(using="httpx", assert_all_called=False)
async def test_nothing_reaches_meta(respx_mock, monkeypatch):
    monkeypatch.setenv("CLOUD_API_ACCESS_TOKEN", "token")
    monkeypatch.setenv("WA_PHONE_NUMBER_ID", "1")
    route = respx_mock.route(host="graph.facebook.com").respond(json={{"id": "777"}})
    assert await app(b"hello") == "777"
    assert route.call_count == 1
"""

BARE = """
import pytest

SENTENCE = "meta_media.emulator needs packages: pip install '.[emulator]' in a checkout"


def test_that_needs_no_emulator():
    from meta_media.emulator import EmulatorSettings

    assert EmulatorSettings().megabyte == 2**20
    with pytest.raises(ImportError) as caught:
        from meta_media.emulator import Emulator
    assert str(caught.value) == SENTENCE


def test_that_needs_one(media_environment):
    pass
"""

MAIN = "import sys, pytest; pytest.main(sys.argv[1:]); import meta_media; print(meta_media.MediaApi.through_client)"


def pytest_of(folder: Path, source: str, *options: str) -> list[str]:
    """Run another project's tests, and return the lines of the output; the last is what the plugin leaves behind."""
    (folder / "test_theirs.py").write_text(source)
    command = [sys.executable, "-c", MAIN, "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:randomly", *options]
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("source", "options", "count"),
    [
        pytest.param(PLAIN, ["-p", "no:asyncio"], 6, id="plain and anyio"),
        pytest.param(
            ASYNCIO,
            ["-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"],
            2,
            id="pytest-asyncio",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_fixtures_serve_any_project(tmp_path: Path, source: str, options: list[str], count: int) -> None:
    """The fixtures work with each async plugin and without; respx answers a default client; all is undone at the end."""
    *output, left = pytest_of(tmp_path, source, *options)
    assert (output[-1].split(" in ")[0], left) == (f"{count} passed", "False"), "\n".join(output)


@pytest.mark.slow
def test_without_the_packages_of_the_extra(tmp_path: Path) -> None:
    """Without Starlette pytest runs; only a test that needs the emulator fails, and says what to install."""
    (tmp_path / "starlette.py").write_text('raise ModuleNotFoundError("No module named starlette", name="starlette")')
    *output, _ = pytest_of(tmp_path, BARE, "-p", "no:asyncio")
    assert output[-1].split(" in ")[0] == "1 passed, 1 error", "\n".join(output)
    assert "meta_media.emulator needs packages: pip install '.[emulator]' in a checkout" in output
