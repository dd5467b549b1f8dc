"""`WebhookEndpoint` and `media_lifespan` on a real socket: who is answered, what is handed over, and what a shutdown does."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastapi
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from meta_media import InboundFailure, InboundMedia, MediaApi, MessageStatus
from meta_media.emulator import Emulator
from meta_media.errors import ConfigurationError
from meta_media.integrations.starlette import WebhookEndpoint, media_lifespan
from tests.integrations.web import serving
from tests.support.servers import wait_until
from tests.transfer.downloads import JPEG, PHOTO, listing

SECRET = "a secret of the tests"
TOKEN = "verify me"


class Taken:
    """A handler that keeps what it gets, once the event is set."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.clients: list[MediaApi] = []
        self.begun = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self, media: MediaApi, item: Any) -> None:
        """Handle an item."""
        self.begun += 1
        self.clients.append(media)
        await self.go_on.wait()
        self.items.append(item)

    @property
    def ids(self) -> list[str]:
        """The ids of what came, in its order."""
        return [item.id for item in self.items]


@pytest.fixture
def taken() -> Taken:
    """A handler."""
    return Taken()


def application(endpoint: WebhookEndpoint, **options: Any) -> Starlette:
    """Make an application with this one route."""
    return Starlette(routes=[Route("/webhook", endpoint)], lifespan=media_lifespan(client, **options))


def client() -> MediaApi:
    """Make the application's client."""
    return MediaApi("EAAGscripted", "106540352242922")


def endpoint(on_media: Any, **options: Any) -> WebhookEndpoint:
    """Make an endpoint with the secrets of the tests."""
    return WebhookEndpoint(on_media, **({"app_secret": SECRET, "verify_token": TOKEN} | options))


@asynccontextmanager
async def post_to(app: Any) -> AsyncIterator[Callable[..., Awaitable[int]]]:
    """Serve an application, and yield a function that posts a webhook as Meta does, and returns the status."""
    async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as meta:

        async def post(body: bytes, secret: str = SECRET, **more: Any) -> int:
            return (await meta.post("/webhook", content=body, headers=signed(body, secret), **more)).status_code

        yield post


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    """Return the header of a signature."""
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={digest}"}


def webhook(*ids: str, statuses: tuple[str, ...] = (), failures: tuple[str, ...] = ()) -> bytes:
    """Write a webhook with a photo, the progress of a message, or a failure for each of these."""
    messages: list[Any] = [
        {"id": f"wamid.{media_id}", "from": "15550001111", "type": "image", "image": {"id": media_id}}
        for media_id in ids
    ]
    errors = [{"code": 131051, "title": "Unsupported"}]
    messages += [{"id": message_id, "type": "unsupported", "errors": errors} for message_id in failures]
    value = {
        "messaging_product": "whatsapp",
        "messages": messages,
        "statuses": [{"id": "wamid.sent", "status": status} for status in statuses],
    }
    return json.dumps({"entry": [{"changes": [{"field": "messages", "value": value}]}]}).encode()


# Who is answered


def test_the_verification_of_the_url(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta's GET is answered with the bare challenge, for this verify token only; by default it is the environment's."""
    asked = {"hub.mode": "subscribe", "hub.verify_token": TOKEN, "hub.challenge": "1158201444"}
    for given in (TOKEN, None):
        if given is None:
            monkeypatch.setenv("WEBHOOK_VERIFICATION_TOKEN", TOKEN)
        with TestClient(application(endpoint(taken, verify_token=given))) as meta:
            right = meta.get("/webhook", params=asked)
            wrong = meta.get("/webhook", params=asked | {"hub.verify_token": "another"})
        assert (right.status_code, right.text) == (200, "1158201444")
        assert right.headers["Content-Type"].startswith("text/plain")
        assert (wrong.status_code, wrong.text) == (403, "")


def test_no_verify_token(taken: Taken) -> None:
    """Without a verify token anyone could subscribe: the error names the variable."""
    app = application(endpoint(taken, verify_token=None))
    with TestClient(app) as browser, pytest.raises(ConfigurationError, match="WEBHOOK_VERIFICATION_TOKEN"):
        browser.get("/webhook")


def test_no_app_secret(taken: Taken) -> None:
    """Without an app secret anyone could post: the error names the variable."""
    app = application(endpoint(taken, app_secret=None))
    with TestClient(app) as browser, pytest.raises(ConfigurationError, match="WA_APP_SECRET"):
        browser.post("/webhook", content=webhook("1"))


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE"])
def test_other_methods(taken: Taken, method: str) -> None:
    """Only GET and POST are answered."""
    with TestClient(application(endpoint(taken))) as browser:
        response = browser.request(method, "/webhook")
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, POST")


@pytest.mark.parametrize(
    ("body", "secret", "status"),
    [
        (webhook("1"), "another secret", 403),
        (b"not JSON", SECRET, 400),
        (b"{}", SECRET, 400),
        (b"not JSON", "another secret", 403),
    ],
    ids=["not signed", "not JSON", "not a webhook", "neither"],
)
async def test_what_is_refused(
    taken: Taken, caplog: pytest.LogCaptureFixture, body: bytes, secret: str, status: int
) -> None:
    """What Meta did not sign, and what is no webhook, is refused, logged, and handed to no handler."""
    async with post_to(application(endpoint(taken))) as post:
        assert await post(body, secret) == status
    assert taken.items == []
    [message] = [record.getMessage() for record in caplog.records if record.name == "meta_media"]
    assert f"HTTP {status}" in message
    assert SECRET not in message


async def test_several_secrets(taken: Taken) -> None:
    """While a secret is changed, both are taken; by default it is the client's."""
    async with post_to(application(endpoint(taken, app_secret=["new", SECRET]))) as post:
        assert [await post(webhook("1")), await post(webhook("2"), "new"), await post(webhook("3"), "old")] == [
            200,
            200,
            403,
        ]


async def test_a_large_body_is_not_read(taken: Taken) -> None:
    """A body above 3 MB is refused by its length, before any of it has come."""
    async with serving(application(endpoint(taken))) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
        writer.write(b"POST /webhook HTTP/1.1\r\nhost: x\r\ncontent-length: 3145729\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
        writer.close()


async def test_a_large_body_of_unknown_length(taken: Taken) -> None:
    """A body without a length is refused as soon as it is above 3 MB; the largest one is taken."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield bytes(50_000)

    largest = webhook("1").ljust(3 * 2**20)
    app = application(endpoint(taken))
    async with serving(app) as url, httpx.AsyncClient(base_url=url, trust_env=False) as meta:
        assert (await meta.post("/webhook", content=pieces())).status_code == 413
        assert (await meta.post("/webhook", content=largest, headers=signed(largest))).status_code == 200


async def test_a_client_that_leaves_in_its_body(taken: Taken, caplog: pytest.LogCaptureFixture) -> None:
    """A body that breaks off is no error of the application's."""
    async with serving(application(endpoint(taken))) as url:
        _, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
        writer.write(b"POST /webhook HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


# What is handed over


async def test_the_response_comes_first(taken: Taken) -> None:
    """Meta has its 200 while the handler still works, on the same connection, too; the client is the application's."""
    taken.go_on.clear()
    async with post_to(application(endpoint(taken))) as post:
        assert [await post(webhook("1", "2")), await post(webhook("3"))] == [200, 200]
        await wait_until(lambda: taken.begun == 2)  # of each webhook one after another
        assert taken.items == []
        taken.go_on.set()
        await wait_until(lambda: len(taken.items) == 3)
    assert sorted(taken.ids) == ["1", "2", "3"]
    assert len(set(map(id, taken.clients))) == 1
    assert taken.clients[0].closed


async def test_a_repeated_webhook(taken: Taken) -> None:
    """What a repeated webhook has is handled once; what is new beside it is handled."""
    async with post_to(application(endpoint(taken))) as post:
        for body in (webhook("1"), webhook("1"), webhook("1", "2", "2")):
            assert await post(body) == 200
        await wait_until(lambda: len(taken.items) == 2)
    assert taken.ids == ["1", "2"]


async def test_the_memory_of_ids_is_bounded(taken: Taken) -> None:
    """The last 10,000 ids are known; a repetition renews an id."""
    one = endpoint(taken)
    for number in (*range(10_000), 0, 10_000):
        await one._is_new(str(number))
    assert [bool(await one._is_new(key)) for key in ("0", "10000", "9999", "1")] == [False, False, False, True]


async def test_a_store_of_ids(taken: Taken) -> None:
    """With `is_new`, several processes know each other's ids."""
    known: set[str] = set()

    async def is_new(key: str) -> bool:
        return key not in known and not known.add(key)  # type: ignore[func-returns-value]  # it is None

    for _ in range(2):
        async with post_to(application(endpoint(taken, is_new=is_new))) as post:
            assert await post(webhook("1", statuses=("sent",))) == 200
    assert taken.ids == ["1"]
    assert known == {"wamid.1 1"}  # nothing handles the status


async def test_a_store_that_fails(taken: Taken) -> None:
    """Meta posts again what a store could not record; what it did record is handled, and once."""
    known: set[str] = set()
    away = True

    async def is_new(key: str) -> bool:
        if away and known:
            raise ConnectionError("the store is away")
        return key not in known and not known.add(key)  # type: ignore[func-returns-value]  # it is None

    async with post_to(application(endpoint(taken, is_new=is_new))) as post:
        assert await post(webhook("1", "2")) == 500
        await wait_until(lambda: taken.ids == ["1"])
        away = False
        assert await post(webhook("1", "2")) == 200
    assert taken.ids == ["1", "2"]


async def test_statuses_and_failures(taken: Taken) -> None:
    """Each kind of item has its handler, and is known by its own ids; a failure without a message is always new."""
    statuses, failures = Taken(), Taken()
    one = endpoint(taken, on_status=statuses, on_failure=failures)
    nameless = json.loads(webhook())
    nameless["entry"][0]["changes"][0]["value"]["errors"] = [{"code": 130429, "title": "Limit"}]
    async with post_to(application(one)) as post:
        for _ in range(2):
            assert await post(webhook("1", statuses=("sent", "read"), failures=("wamid.2",))) == 200
            assert await post(json.dumps(nameless).encode()) == 200
    assert [type(item) for item in taken.items] == [InboundMedia]
    assert [(type(item), item.status) for item in statuses.items] == [(MessageStatus, "sent"), (MessageStatus, "read")]
    assert [type(item) for item in failures.items] == [InboundFailure] * 3
    assert sorted(item.message_id or "" for item in failures.items) == ["", "", "wamid.2"]


async def test_a_handler_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """An error of a handler is logged with the ids of the item, and the next item follows."""
    handled: list[str] = []

    async def handle(_: MediaApi, inbound: InboundMedia) -> None:
        handled.append(inbound.id)
        if inbound.id == "1":
            raise LookupError("mine")

    async with post_to(application(endpoint(handle))) as post:
        assert await post(webhook("1", "2")) == 200
    assert handled == ["1", "2"]
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (record.levelname, record.getMessage()) == (
        "ERROR",
        "the handler of a webhook failed: InboundMedia 'wamid.1 1'",
    )
    assert record.exc_info
    assert record.exc_info[0] is LookupError


async def test_too_much_work(taken: Taken) -> None:
    """While 1,000 webhooks are at work, a further one is refused and not recorded, so that Meta posts it again."""
    taken.go_on.clear()
    app = application(endpoint(taken))
    async with app.router.lifespan_context(app) as state:
        for number in range(1000):
            assert await posted(app, state, webhook(str(number))) == 200
        assert await posted(app, state, webhook("1000")) == 503
        taken.go_on.set()
        await wait_until(lambda: len(taken.items) == 1000)
        assert await posted(app, state, webhook("1000")) == 200
    assert len(taken.items) == 1001


async def test_with_the_emulator(emulator: Emulator, tmp_path: Path) -> None:
    """A customer's photo is saved and sent back once, by a FastAPI application, though the webhook comes twice."""

    async def answer(media: MediaApi, inbound: InboundMedia) -> None:
        saved = await media.download(inbound, tmp_path)
        assert inbound.reply_address is not None
        assert saved.path is not None
        await media.send(inbound.reply_address, await media.upload(saved.path), reply_to=inbound.message_id)

    one = WebhookEndpoint(answer, verify_token=emulator.verify_token)
    app = fastapi.FastAPI(routes=[Route("/webhook", one)], lifespan=media_lifespan(emulator.api))
    body, signature = await emulator.receive(PHOTO, JPEG)
    async with serving(app) as url:
        emulator.webhook = f"{url}/webhook"
        await emulator.verify_webhook()
        assert [await emulator.deliver(body, signature) for _ in range(2)] == [200, 200]
        assert await emulator.deliver(body, signature[:-1] + "x") == 403
        await wait_until(lambda: len(emulator.messages) == 1)
        await wait_until(lambda: not emulator._deliveries._tasks)
    assert list(listing(tmp_path).values()) == [PHOTO]
    assert len(emulator.messages) == 1


# The application's start and end


async def test_shutdown_waits_for_the_handlers(taken: Taken) -> None:
    """At shutdown the handlers end before the client is closed."""
    taken.go_on.clear()
    open_at_the_end: list[bool] = []

    async def handle(media: MediaApi, inbound: InboundMedia) -> None:
        await taken(media, inbound)
        open_at_the_end.append(not media.closed)

    app = application(endpoint(handle))
    async with app.router.lifespan_context(app) as state:
        await posted(app, state, webhook("1", "2"))
        asyncio.get_running_loop().call_later(0.05, taken.go_on.set)
    assert (taken.ids, open_at_the_end) == (["1", "2"], [True, True])


@pytest.mark.parametrize("drain_timeout", [0.0, 0.05])
async def test_shutdown_waits_no_longer(taken: Taken, caplog: pytest.LogCaptureFixture, drain_timeout: float) -> None:
    """What is not done after `drain_timeout` is cancelled, and each item that was not handled is logged."""
    taken.go_on.clear()
    app = application(endpoint(taken), drain_timeout=drain_timeout)
    async with app.router.lifespan_context(app) as state:
        await posted(app, state, webhook("1", "2"))
    assert taken.items == []
    assert [(record.levelname, record.getMessage().rpartition(": ")[2]) for record in caplog.records] == [
        ("ERROR", "InboundMedia 'wamid.1 1'"),
        ("ERROR", "InboundMedia 'wamid.2 2'"),
    ]
    assert [task for task in asyncio.all_tasks() if "starlette/webhook.py" in repr(task)] == []


async def test_a_shutdown_that_is_cancelled(taken: Taken) -> None:
    """A second Ctrl-C ends the wait for the handlers, and they are cancelled."""
    taken.go_on.clear()
    app = application(endpoint(taken), drain_timeout=60)

    async def run() -> None:
        async with app.router.lifespan_context(app) as state:
            await posted(app, state, webhook("1"))
            await wait_until(lambda: taken.begun == 1)

    running = asyncio.ensure_future(run())
    await wait_until(lambda: taken.begun == 1)
    await asyncio.sleep(0)  # it waits for the handler now
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert [task for task in asyncio.all_tasks() if "starlette/webhook.py" in repr(task)] == []


async def posted(app: Starlette, state: Any, body: bytes) -> int:
    """Post a webhook without a server, and return the status."""
    unread = [{"type": "http.request", "body": body}]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return unread.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.lower().encode(), value.encode()) for name, value in signed(body).items()]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/webhook",
        "headers": headers,
        "query_string": b"",
        "state": state,
    }
    await app(scope, receive, send)
    return int(sent[0]["status"])


def test_an_app_that_starts_twice(taken: Taken) -> None:
    """Each start has a client of its own, so that several tests can start one application."""
    app = application(endpoint(taken))
    for media_id in ("1", "2"):
        body = webhook(media_id)
        with TestClient(app) as meta:
            assert meta.post("/webhook", content=body, headers=signed(body)).status_code == 200
    assert taken.ids == ["1", "2"]
    assert taken.clients[0] is not taken.clients[1]


def test_the_client_of_a_route(taken: Taken) -> None:
    """The client is `request.state.media`, also in an application below another one, and beside the state of others."""

    async def give(request: Request) -> JSONResponse:
        return JSONResponse([type(request.state.media).__name__, request.state.mine])

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        async with media_lifespan(client)(app) as state:
            yield {**state, "mine": 1}

    inner = Starlette(routes=[Route("/", give), Route("/webhook", endpoint(taken))])
    app = Starlette(routes=[Mount("/inner", inner)], lifespan=lifespan)
    with TestClient(app) as browser:
        assert browser.get("/inner/").json() == ["MediaApi", 1]
        body = webhook("1")
        assert browser.post("/inner/webhook", content=body, headers=signed(body)).status_code == 200
    assert taken.ids == ["1"]


def test_an_app_without_the_lifespan(taken: Taken) -> None:
    """Without the lifespan there is no client, and the error says how to get one."""
    app = Starlette(routes=[Route("/webhook", endpoint(taken))])
    with TestClient(app) as meta, pytest.raises(ConfigurationError, match=r"lifespan=media_lifespan\(\)"):
        meta.post("/webhook", content=webhook("1"), headers=signed(webhook("1")))


def test_a_client_in_place_of_a_function() -> None:
    """A client could serve one start only: the error asks for a function."""
    given: Any = client()
    with pytest.raises(ConfigurationError, match="pass a function"):
        media_lifespan(given)


def test_handlers_that_are_none() -> None:
    """A handler that cannot be called is refused when the endpoint is made, not at the first webhook."""
    with pytest.raises(ConfigurationError, match=r"^on_media must be an async function, not NoneType$"):
        endpoint(None)
    with pytest.raises(ConfigurationError, match=r"^on_status must be an async function, not str$"):
        endpoint(Taken(), on_status="status")
