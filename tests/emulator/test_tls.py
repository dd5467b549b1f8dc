"""The emulator behind TLS, and under a public name: the certificate, who trusts it, and where URLs lead."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import stat
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from meta_media import MediaApi, Settings, inbound_media
from meta_media.emulator import Emulator, Fault
from meta_media.errors import ConfigurationError, NetworkError, StorageError

GRAPH = "https://graph.facebook.com"


def address(emulator: Emulator) -> tuple[str, int]:
    """Return where an emulator listens."""
    return "127.0.0.1", int(emulator.local_url.rpartition(":")[2])


async def content(path: anyio.Path) -> bytes:
    """Return the bytes of a file; of a folder, none."""
    return await path.read_bytes() if await path.is_file() else b""


def distrust(address: tuple[str, int]) -> None:
    """Shake hands as a client that trusts the usual authorities only, and that says why it gives up: asyncio's does not."""
    with socket.create_connection(address, timeout=30) as plain:
        ssl.create_default_context().wrap_socket(plain, server_hostname="localhost").close()


async def test_a_client_that_trusts_the_file_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own client needs `SSL_CERT_FILE` only; every URL is https."""
    async with Emulator(tmp_path / "data", tls=True) as emulator:
        assert emulator.base_url == emulator.local_url
        assert emulator.base_url.startswith("https://127.0.0.1:")
        settings = Settings(base_url=emulator.base_url, max_retries=0)
        async with MediaApi(emulator.access_token, emulator.phone_number_id, settings=settings) as stranger:
            with pytest.raises(NetworkError, match="SSL_CERT_FILE"):
                await stranger.upload(b"hello")
        monkeypatch.setenv("SSL_CERT_FILE", str(emulator.ca_file))
        async with MediaApi(emulator.access_token, emulator.phone_number_id, settings=settings) as media:
            uploaded = await media.upload(b"hello")
            assert (await media.get_info(uploaded.id)).url.startswith(emulator.base_url)
            assert await media.read(uploaded.id) == b"hello"
            body, _ = await emulator.receive(b"answer", "text/plain")
            (inbound,) = inbound_media(json.loads(body))
            assert inbound.url is not None
            assert inbound.url.startswith(emulator.base_url)
            assert await media.read(inbound) == b"answer"
            assert (await media.delete(uploaded.id)).success


async def test_its_own_client_needs_no_variable() -> None:
    """`api()` trusts the certificate, large files pass, and faults happen behind TLS as they do without."""
    content = os.urandom(3 * 2**20)
    async with Emulator(tls=True) as emulator, emulator.api(backoff=0.01) as media:
        uploaded = await media.upload(content, mime_type="application/pdf", validate=False)
        for fault in (Fault(at=100_000, end="reset"), Fault(at=2_000_000, end="close"), Fault(at="reply", end="reset")):
            emulator.fail("download", fault)
            assert await media.read(uploaded.id) == content
        assert emulator.faults == []


async def test_a_restart_is_trusted(tmp_path: Path) -> None:
    """The authority stays that of the folder, whatever the name is next; only its database holds the key."""
    files = []
    for url in (None, GRAPH):
        async with Emulator(tmp_path, tls=True, url=url) as emulator:
            assert emulator.ca_file == tmp_path / "ca.pem"
            files.append(await anyio.Path(emulator.ca_file).read_bytes())
            trusted = ssl.create_default_context(cafile=emulator.ca_file)
            for name in ("127.0.0.1", "localhost", *([] if url is None else ["graph.facebook.com"])):
                _, writer = await asyncio.open_connection(*address(emulator), ssl=trusted, server_hostname=name)
                writer.close()
                await writer.wait_closed()
    assert files[0] == files[1]
    assert b"PRIVATE" not in files[0]
    assert files[0].count(b"BEGIN CERTIFICATE") > 50  # those of certifi, too: other hosts stay within reach
    keys = [path async for path in anyio.Path(tmp_path).glob("*") if b"PRIVATE KEY" in await content(path)]
    assert keys
    assert {stat.S_IMODE((await path.stat()).st_mode) for path in keys} == {0o600}


async def test_the_public_name_is_in_every_url(tmp_path: Path) -> None:
    """A client that is led to the emulator by a name gets URLs with that name: from Graph, and from webhooks."""
    async with Emulator(tmp_path, tls=True, url=GRAPH + "/") as emulator:
        assert emulator.base_url == GRAPH
        body, _ = await emulator.receive(b"x", "image/jpeg")
        (inbound,) = inbound_media(json.loads(body))
        trusted = ssl.create_default_context(cafile=emulator.ca_file)
        headers = {"authorization": f"Bearer {emulator.access_token}", "host": "graph.facebook.com"}
        async with httpx.AsyncClient(verify=trusted, trust_env=False, headers=headers) as client:
            named = {"sni_hostname": "graph.facebook.com"}
            found = await client.get(f"{emulator.local_url}/v25.0/{inbound.id}", extensions=named)
        for url in (inbound.url, found.json()["url"]):
            assert url is not None
            assert url.startswith(GRAPH + "/")


async def test_a_public_name_without_tls() -> None:
    """Behind a proxy that speaks TLS, the name wins over what the proxy writes into `Host`."""
    async with Emulator(url="https://bot.example:8443") as emulator, emulator.api(base_url=emulator.local_url) as media:
        uploaded = await media.upload(b"hello")
        assert (await media.get_info(uploaded.id)).url.startswith("https://bot.example:8443/")


@pytest.mark.parametrize(
    "url", ["graph.facebook.com", "ftp://x", f"{GRAPH}/v25.0", f"{GRAPH}?a=1", "https://me:pass@x", "https://", "", 7]
)
def test_a_url_that_is_none(url: Any) -> None:
    """Anything but a scheme and a host is refused in one sentence, which does not repeat it."""
    with pytest.raises(ConfigurationError, match=r"^url must be ") as caught:
        Emulator(url=url)
    assert "pass@" not in str(caught.value)


async def test_a_name_that_no_certificate_can_have(tmp_path: Path) -> None:
    """One sentence says so, and nothing runs."""
    with pytest.raises(ConfigurationError, match="choose another host or url"):
        await Emulator(tmp_path, tls=True, url="https://-x-.example").__aenter__()
    (tmp_path / "ca.pem").unlink()
    (tmp_path / "ca.pem").mkdir()
    with pytest.raises(StorageError, match="could not keep data"):
        await Emulator(tmp_path, tls=True).__aenter__()


async def test_clients_that_fail_the_handshake(caplog: pytest.LogCaptureFixture) -> None:
    """One that does not trust the certificate and one that speaks plain HTTP get a line in the log; a silent one gets none."""
    async with Emulator(tls=True) as emulator:
        silent = await asyncio.open_connection(*address(emulator))
        _, hasty = await asyncio.open_connection(*address(emulator))
        hasty.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await anyio.to_thread.run_sync(distrust, address(emulator))
        reader, writer = await asyncio.open_connection(*address(emulator))
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not (await reader.read()).startswith(b"HTTP")
        writer.close()
        async with emulator.api() as media:
            await media.upload(b"hello")
    with contextlib.suppress(ConnectionResetError):
        assert await silent[0].read() == b""  # it has not been left open
    silent[1].close()
    said = [record.getMessage() for record in caplog.records if record.name == "meta_media.emulator"]
    failed = [line for line in said if "TLS" in line]
    assert len(failed) == 2
    assert "(TLSV1_ALERT_UNKNOWN_CA): let it use https:// and trust ca.pem" in failed[0]
    assert "(HTTP_REQUEST)" in failed[1]
