"""The emulator as a whole: starting, stopping, starting again on the same folder, memory, and curl."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import ssl
import stat
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import anyio
import anyio.to_thread
import attrs
import httpx
import psutil
import pytest
from anyio.from_thread import start_blocking_portal
from starlette.responses import Response

from meta_media import MediaApi, inbound_media
from meta_media.emulator import Emulator
from meta_media.emulator.server import Server
from meta_media.emulator.settings import Clock
from meta_media.emulator.state import State
from meta_media.errors import ConfigurationError, NetworkError

CURL = shutil.which("curl")
MEGABYTE = 2**20
SERVE = """
import asyncio, sys
from meta_media.emulator import Emulator

async def main():
    async with Emulator(sys.argv[1]) as emulator:
        print(emulator.base_url, emulator.access_token, emulator.phone_number_id, flush=True)
        await emulator.serve_forever()

asyncio.run(main())
"""
needs_curl = pytest.mark.skipif(CURL is None, reason="curl is not installed")
needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM")


@attrs.frozen(kw_only=True)
class Served:
    """An emulator in a process of its own."""

    process: asyncio.subprocess.Process
    base_url: str
    access_token: str
    phone_number_id: str

    @property
    def authorization(self) -> str:
        """The header's value."""
        return f"Bearer {self.access_token}"


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    """Run an emulator in a process of its own, and kill it if it is still there at the end."""
    arguments = (sys.executable, "-W", "error", "-X", "dev", "-c", SERVE, str(folder))
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    base_url, token, number = (await process.stdout.readline()).decode().split()
    try:
        yield Served(process=process, base_url=base_url, access_token=token, phone_number_id=number)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def curl(*arguments: str) -> bytes:
    """Run curl, and return what it printed."""
    assert CURL
    process = await asyncio.create_subprocess_exec(
        CURL, "-sS", "--noproxy", "*", *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output


def client(emulator: Emulator | Served) -> httpx.AsyncClient:
    """Make a plain client."""
    headers = {"authorization": f"Bearer {emulator.access_token}"}
    return httpx.AsyncClient(base_url=emulator.base_url, headers=headers, trust_env=False, timeout=30)


async def upload(http: httpx.AsyncClient, number: str, content: bytes = b"x", **fields: str) -> str:
    """Upload as a form, and return the id."""
    data, files = {"messaging_product": "whatsapp"} | fields, {"file": ("a.mp4", content, "video/mp4")}
    return str((await http.post(f"/v25.0/{number}/media", data=data, files=files)).json()["id"])


async def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    """The same folder gives the same number, token, secret, media and accounts; even URLs stay valid."""
    folder = tmp_path / "deep" / "data"
    async with Emulator(folder) as first, client(first) as http:
        media_id = await upload(http, first.phone_number_id, b"kept")
        info = (await http.get(f"/v25.0/{media_id}")).json()
        first.add_account("222", "second")
        first.add_account("333", "third")
        first.expire_token("second")
        first.forbid("third", code=10)
    async with Emulator(str(folder)) as again, client(again) as http:
        assert (again.phone_number_id, again.access_token) == (first.phone_number_id, first.access_token)
        assert again.app_secret == first.app_secret
        info_again = (await http.get(f"/v25.0/{media_id}")).json()
        assert info_again | {"url": ""} == info | {"url": ""}
        assert (await http.get(info["url"].replace(first.base_url, again.base_url))).content == b"kept"
        for token, code in (("second", 190), ("third", 10)):
            response = await http.get("/v25.0/222", headers={"authorization": f"Bearer {token}"})
            assert response.json()["error"]["code"] == code


async def test_given_accounts_are_kept(tmp_path: Path) -> None:
    """Accounts that are given join those in the folder, without reviving a token that has died there."""
    accounts = {"111": "first"}
    async with Emulator(tmp_path, accounts=accounts) as emulator:
        emulator.expire_token("first")
    async with Emulator(tmp_path, accounts=accounts | {"222": "second"}) as emulator:
        assert (emulator.phone_number_id, emulator.access_token) == ("111", "first")
        for token, status in (("first", 401), ("second", 200)):
            async with httpx.AsyncClient(headers={"authorization": f"Bearer {token}"}, trust_env=False) as http:
                assert (await http.get(f"{emulator.base_url}/v25.0/222")).status_code == status


@pytest.mark.slow
@needs_signals
async def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """After a kill in the middle of an upload, what was acknowledged is there and the rest is swept away."""
    async with served(tmp_path) as killed, client(killed) as http:
        media_id = await upload(http, killed.phone_number_id, b"kept")

        async def endless() -> AsyncIterator[bytes]:
            yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: video/mp4\r\n\r\n'
            yield bytes(2 * MEGABYTE)
            while len([path async for path in anyio.Path(tmp_path / "media").iterdir()]) < 2:
                yield b"\0"
                await anyio.sleep(0.01)  # the other process writes at its own pace
            killed.process.send_signal(signal.SIGKILL)
            await killed.process.wait()

        headers = {"content-type": "multipart/form-data; boundary=B"}
        with pytest.raises(httpx.TransportError):
            await http.post(f"/v25.0/{killed.phone_number_id}/media", content=endless(), headers=headers)
    async with Emulator(tmp_path) as emulator, client(emulator) as http:
        assert (await http.get(f"/v25.0/{media_id}")).json()["file_size"] == 4
        assert [path.name async for path in anyio.Path(tmp_path / "media").iterdir()] == [media_id]


async def test_expired_media_is_swept_away_at_the_start(tmp_path: Path) -> None:
    """Files of expired media go when the emulator starts."""
    async with Emulator(tmp_path) as emulator, client(emulator) as http:
        await upload(http, emulator.phone_number_id, ttl_minutes="60")
        kept = await upload(http, emulator.phone_number_id)
    later = Emulator(tmp_path)
    later.clock.advance(3601)
    async with later:
        assert [path.name async for path in anyio.Path(tmp_path / "media").iterdir()] == [kept]


async def test_one_emulator_per_folder(tmp_path: Path) -> None:
    """A folder that another emulator uses is refused, and free again afterwards."""
    async with Emulator(tmp_path):
        with pytest.raises(ConfigurationError, match="another emulator uses it"):
            await Emulator(tmp_path).__aenter__()
    async with Emulator(tmp_path):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
async def test_secrets_are_private(tmp_path: Path) -> None:
    """No other user of the machine can read the database or the media, whatever the umask."""
    old = os.umask(0)
    try:
        async with Emulator(tmp_path / "data") as emulator, client(emulator) as http:
            await upload(http, emulator.phone_number_id)
            names = ("emulator.sqlite3", "emulator.sqlite3-wal", "media")
            paths = [anyio.Path(tmp_path) / "data" / name for name in names]
            modes = [stat.S_IMODE((await path.stat()).st_mode) for path in paths]
    finally:
        os.umask(old)
    assert modes == [0o600, 0o600, 0o700]


async def test_a_temporary_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder of its own an emulator leaves nothing, and each start is a new world."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    emulator = Emulator()
    tokens = set()
    for _ in range(2):
        async with emulator, client(emulator) as http:
            await upload(http, emulator.phone_number_id)
            tokens.add(emulator.access_token)
            assert len([path async for path in anyio.Path(tmp_path).iterdir()]) == 1
        assert [path async for path in anyio.Path(tmp_path).iterdir()] == []
    assert len(tokens) == 2


async def test_stopping_with_transfers_in_flight(tmp_path: Path) -> None:
    """Leaving the block ends idle connections, uploads, downloads and threads, and removes what was unfinished."""
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    async with Emulator(tmp_path) as emulator:
        async with client(emulator) as http:
            media_id = await upload(http, emulator.phone_number_id, bytes(16 * MEGABYTE))
            url = (await http.get(f"/v25.0/{media_id}")).json()["url"]
        headers = f"Host: x\r\nUser-Agent: me\r\nAuthorization: Bearer {emulator.access_token}\r\n"
        start = '--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: video/mp4\r\n\r\n'
        form = "Content-Type: multipart/form-data; boundary=B\r\nContent-Length: 9000000\r\n"
        head = f"POST /v25.0/{emulator.phone_number_id}/media HTTP/1.1\r\n{headers}{form}\r\n{start}"
        requests = [
            b"",
            f"GET {url.removeprefix(emulator.base_url)} HTTP/1.1\r\n{headers}\r\n".encode(),
            head.encode() + bytes(3 * MEGABYTE),
            f"POST /v25.0/{emulator.phone_number_id}/messages HTTP/1.1\r\n{headers}Content-Length: 9\r\n\r\n".encode(),
        ]
        connections = []
        host, port = emulator.base_url.removeprefix("http://").split(":")
        for request in requests:
            connections.append(await asyncio.open_connection(host, int(port), limit=1000))
            connections[-1][1].write(request)
        for _ in range(2000):
            if (
                len(emulator.requests) == 5
                and len([path async for path in anyio.Path(tmp_path / "media").iterdir()]) == 2
            ):
                break
            await anyio.sleep(0.01)  # the transfers get under way, which shows only in the file system
    assert [path.name async for path in anyio.Path(tmp_path / "media").iterdir()] == [media_id]
    for reader, writer in connections:
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(20 * MEGABYTE)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    assert asyncio.all_tasks() == tasks
    left = {thread.name for thread in set(threading.enumerate()) - threads}
    assert not {name for name in left if "emulator" in name}


def test_from_another_thread() -> None:
    """An emulator that runs in a thread of its own can be used from another, by code with and without an event loop."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Emulator()) as emulator:
        emulator.add_account("222", "second")
        emulator.expire_token(emulator.access_token)
        emulator.forbid("second")
        emulator.throttle(1)
        codes = []
        for token in ("second", emulator.access_token, "second"):
            headers = {"authorization": f"Bearer {token}"}
            response = httpx.get(f"{emulator.base_url}/v25.0/222", headers=headers, trust_env=False)
            codes.append(response.json()["error"]["code"])
        assert codes == [130429, 190, 200]
        emulator.add_account(emulator.phone_number_id, "second")
        body, _ = asyncio.run(emulator.receive(b"hello", "text/plain"))
        url = json.loads(body)["entry"][0]["changes"][0]["value"]["messages"][0]["document"]["url"]
        assert httpx.get(url, headers=headers, trust_env=False).content == b"hello"
        assert len(emulator.requests) == 4


async def test_a_cancelled_write_is_waited_for(tmp_path: Path) -> None:
    """A cancellation during file work takes effect when the work is done, even if that fails."""
    begun, finish, done = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        finish.wait(20)
        done.append(True)
        raise OSError("too late to be of interest")

    async with State(tmp_path, Clock()) as state:
        task = asyncio.create_task(state.in_thread(work))
        await anyio.to_thread.run_sync(begun.wait, 20)
        task.cancel()
        await anyio.wait_all_tasks_blocked()
        assert not task.done()
        finish.set()
        await asyncio.wait({task})
    assert task.cancelled()
    assert done


async def test_two_at_once() -> None:
    """Emulators in one process share nothing."""
    async with Emulator() as one, Emulator() as other, client(one) as http, client(other) as elsewhere:
        one.clock.advance(60)
        assert one.clock.now() - other.clock.now() > 50
        media_id = await upload(http, one.phone_number_id)
        assert (await elsewhere.get(f"/v25.0/{media_id}")).status_code == 400
        assert (len(one.requests), len(other.requests)) == (1, 1)


async def test_replies_do_not_wait_for_acknowledgements() -> None:
    """Nagle's algorithm is off, or every small response would take 40 ms."""
    server = Server(Response("hello"))
    base_url = await server.start("127.0.0.1", 0)
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(base_url)).text == "hello"
        (connection,) = server._uvicorn.server_state.connections
        assert connection.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await server.stop()


async def test_nothing_global_is_touched(caplog: pytest.LogCaptureFixture) -> None:
    """The loggers of uvicorn stay as they were, and no signed URL or token gets into any log."""
    loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "uvicorn.access")]
    before = [(logger.level, logger.handlers[:], logger.propagate) for logger in loggers]
    with caplog.at_level(logging.DEBUG):
        async with Emulator() as emulator:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(emulator.base_url.rpartition(":")[2]))
            writer.write(
                f"GET /v25.0/1?access_token={emulator.access_token}&hash=canary HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            )
            assert (await reader.readline()).startswith(b"HTTP/1.1 400")
            writer.close()
            await writer.wait_closed()
    assert [(logger.level, logger.handlers[:], logger.propagate) for logger in loggers] == before
    [record] = [record for record in caplog.records if record.name == "meta_media.emulator"]
    assert (record.levelname, record.getMessage()[:20]) == ("INFO", "GET /v25.0/1: 400, 0")
    assert emulator.access_token not in caplog.text
    assert "canary" not in caplog.text


async def test_a_client_that_speaks_tls(caplog: pytest.LogCaptureFixture) -> None:
    """Who speaks TLS to it gets one sentence into the log; such bytes in the middle of a body are bytes."""
    async with Emulator() as emulator, client(emulator) as http:
        port = int(emulator.base_url.rpartition(":")[2])
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())
        media_id = await upload(http, emulator.phone_number_id, b"\x16\x03\x01" * MEGABYTE)
        assert (await http.get(f"/v25.0/{media_id}")).json()["file_size"] == 3 * MEGABYTE
    [warning] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning == "a client spoke TLS to the emulator: let it use http://, or start this with TLS"


def test_another_event_loop() -> None:
    """Outside of asyncio, as under trio, it says what it needs and leaves nothing."""
    starting = Emulator().__aenter__()
    with pytest.raises(ConfigurationError, match=r"the emulator needs asyncio, .* run it in a thread"):
        starting.send(None)


async def test_a_number_may_be_an_int() -> None:
    """Phone number ids given as numbers are the same as text."""
    first, second = cast("Any", 111), cast("Any", 222)
    async with Emulator(accounts={first: "token"}) as emulator, client(emulator) as http:
        emulator.add_account(second, "token")
        for number in (111, 222):
            assert (await http.get(f"/v25.0/{number}")).status_code == 200
        body, _ = await emulator.receive(b"x", "text/plain", phone_number_id=second)
        assert inbound_media(json.loads(body))[0].phone_number_id == "222"


async def test_a_cancelled_block_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator whose test is cancelled still ends in order."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with anyio.CancelScope() as scope:
        async with Emulator() as emulator:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert [path async for path in anyio.Path(tmp_path).iterdir()] == []
    with pytest.raises(OSError, match=r"(?i)connect"):
        await anyio.connect_tcp("127.0.0.1", int(emulator.base_url.rpartition(":")[2]))


async def test_a_taken_port_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken is an error, and nothing is left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(NetworkError, match="in use: choose another port, 0 for a free one"),
    ):
        await Emulator(port=taken.getsockname()[1]).__aenter__()
    assert [path async for path in anyio.Path(tmp_path).iterdir()] == []


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]")])
async def test_hosts(tmp_path: Path, host: str, shown: str) -> None:
    """The base URL can be connected to, whatever the host is called."""
    if ":" in host and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        emulator = await Emulator(tmp_path, host=host).__aenter__()
    except NetworkError as exc:
        if ":" not in host:
            raise
        pytest.skip(f"this machine has no IPv6: {exc}")
    async with client(emulator) as http:
        assert emulator.base_url.startswith(f"http://{shown}:")
        media_id = await upload(http, emulator.phone_number_id)
        url = (await http.get(f"/v25.0/{media_id}")).json()["url"]
        assert url.startswith(emulator.base_url)
        assert (await http.get(url)).content == b"x"
    await emulator.__aexit__(None, None, None)


async def test_the_library_itself(tmp_path: Path) -> None:
    """emulator.api() is a client of the default number, with the settings that were asked for."""
    async with Emulator(tmp_path) as emulator, emulator.api(chunk_size=65536) as api:
        assert isinstance(api, MediaApi)
        uploaded = await api.upload(b"hello", filename="hello.txt")
        assert await api.read(uploaded.id) == b"hello"
        assert (await api.delete(uploaded.id)).success


async def test_the_secret_of_another_app(media_api: MediaApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app secret in the environment, which is another app's, disturbs neither the emulator's clients nor the fixture's."""
    monkeypatch.setenv("WA_APP_SECRET", "another")
    async with Emulator() as emulator, emulator.api() as api:
        for client_of_ours in (api, media_api):
            uploaded = await client_of_ours.upload(b"hello", filename="hello.txt")
            assert await client_of_ours.read(uploaded.id) == b"hello"
        assert api.settings.app_secret == emulator.app_secret


@needs_signals
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
async def test_signals_end_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """A served emulator ends with status 0 at a signal, with a client still connected."""
    async with served(tmp_path) as emulator, client(emulator) as http:
        media_id = await upload(http, emulator.phone_number_id)
        emulator.process.send_signal(number)
        with anyio.fail_after(20):
            assert await emulator.process.wait() == 0
    left = {path.name async for path in anyio.Path(tmp_path).rglob("*")}
    assert left == {"emulator.sqlite3", "media", media_id}


async def test_the_state_alone(tmp_path: Path) -> None:
    """The state makes no path of anything but digits, and finds nothing before it is open."""
    state = State(tmp_path, Clock())
    for wrong in ("", "..", "../1", "1.part", "٣"):
        with pytest.raises(ValueError, match="digits"):
            state.path(wrong)
    with pytest.raises(ConfigurationError, match="is not running"):
        await state.find("1")
    await state.__aexit__()


async def test_signals_in_process(tmp_path: Path) -> None:
    """serve_forever returns when a signal comes, and gives the signals back."""
    before = signal.getsignal(signal.SIGTERM)
    async with Emulator(tmp_path) as emulator, anyio.create_task_group() as tasks:
        tasks.start_soon(emulator.serve_forever)
        await anyio.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


@needs_curl
async def test_curl(tmp_path: Path) -> None:
    """The commands of Meta's guide work as they are."""
    async with Emulator(tmp_path / "data") as emulator:
        path = anyio.Path(tmp_path / "photo.jpg")
        await path.write_bytes(b"\xff\xd8\xff" + bytes(3 * MEGABYTE))
        bearer = ("-H", f"Authorization: Bearer {emulator.access_token}")
        base = f"{emulator.base_url}/v25.0"
        form = ("-F", "messaging_product=whatsapp", "-F", f'file=@"{path}";type=image/jpeg')
        uploaded = json.loads(await curl(*bearer, *form, f"{base}/{emulator.phone_number_id}/media"))
        info = json.loads(await curl(*bearer, f"{base}/{uploaded['id']}"))
        copy = anyio.Path(tmp_path / "copy.jpg")
        await curl(*bearer, info["url"], "-o", str(copy))
        assert await copy.read_bytes() == await path.read_bytes()
        await curl(*bearer, info["url"], "-o", str(copy), "-r", "1-2", "-D", str(tmp_path / "headers"))
        assert await copy.read_bytes() == b"\xd8\xff"
        assert json.loads(await curl(*bearer, "-X", "DELETE", f"{base}/{uploaded['id']}")) == {"success": True}
        wrong = ("-F", "messaging_product=whatsapp", "-F", f'file=@"{path}";type=text/csv')
        refused = json.loads(await curl(*bearer, *wrong, f"{base}/{emulator.phone_number_id}/media"))
        assert refused["error"]["message"].endswith("Received file of type 'text/csv'.")


@pytest.mark.slow
@needs_curl
async def test_memory_stays_flat(tmp_path: Path) -> None:
    """100 MB up and down, several at once, need no more than 24 MiB."""
    path, content = anyio.Path(tmp_path / "large.pdf"), os.urandom(MEGABYTE) * 100
    await path.write_bytes(content)
    async with served(tmp_path / "data") as emulator:
        memory = psutil.Process(emulator.process.pid)
        bearer = ("-H", f"Authorization: {emulator.authorization}")
        base = f"{emulator.base_url}/v25.0"
        await curl(*bearer, f"{base}/{emulator.phone_number_id}")
        idle = peak = memory.memory_info().rss
        busy = True

        async def watch() -> None:
            nonlocal peak
            while busy:
                peak = max(peak, memory.memory_info().rss)
                await anyio.sleep(0.005)  # a sample now and then

        async def there_and_back(number: int) -> None:
            form = ("-F", "messaging_product=whatsapp", "-F", f"file=@{path};type=application/pdf")
            uploaded = json.loads(await curl(*bearer, *form, f"{base}/{emulator.phone_number_id}/media"))
            info = json.loads(await curl(*bearer, f"{base}/{uploaded['id']}"))
            assert info["sha256"] == hashlib.sha256(content).hexdigest()
            copy = anyio.Path(tmp_path / f"copy{number}.pdf")
            await curl(*bearer, info["url"], "-o", str(copy))
            assert await anyio.to_thread.run_sync(Path(copy).read_bytes) == content

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            async with anyio.create_task_group() as transfers:
                for number in range(2):
                    transfers.start_soon(there_and_back, number)
            busy = False
    assert peak - idle < 24 * MEGABYTE
