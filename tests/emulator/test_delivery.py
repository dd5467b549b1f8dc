"""Webhooks on their way to an application: the handshake, and posts that are repeated until the status is 200."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from meta_media import parse_webhook
from meta_media.emulator import Emulator, delivery
from meta_media.emulator.customer import play_customer
from meta_media.errors import ConfigurationError, MediaError, NetworkError
from tests.support.servers import Received, Server, cut, page, wait_until


def challenge_of(request: Received) -> str:
    """Return the challenge of a handshake."""
    return parse_qs(urlsplit(request.target).query)["hub.challenge"][0]


def carrier_of(request: Received) -> str:
    """Return the carrier of the media in a webhook."""
    return parse_webhook(request.body).media[0].carrier


async def test_the_handshake(server: Server) -> None:
    """It is Meta's: a GET with mode, challenge and token beside the URL's own query, from Meta's user agent."""

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(page(challenge_of(request)))

    server.script = [answer, answer]
    async with Emulator(webhook=f"{server.base_url}/hook?key=1", verify_token="a b&c") as emulator:
        await emulator.verify_webhook()
        assert emulator.verify_token == "a b&c"
    [request] = server.requests
    query = parse_qs(urlsplit(request.target).query)
    assert (request.method, query.pop("hub.challenge")[0].isdecimal()) == ("GET", True)
    assert query == {"key": ["1"], "hub.mode": ["subscribe"], "hub.verify_token": ["a b&c"]}
    assert request.header("user-agent") == "facebookplatform/1.0 (+http://developers.facebook.com)"


async def test_the_verify_token_that_is_made(tmp_path: Any) -> None:
    """Where none is given, one is made: the same for the same data folder, and none of the other secrets."""
    tokens = []
    for folder in ("a", "a", "b"):
        async with Emulator(tmp_path / folder) as emulator:
            tokens.append(emulator.verify_token)
            assert emulator.verify_token not in {"", emulator.app_secret, emulator.access_token}
    assert tokens[0] == tokens[1] != tokens[2]


async def quoted(request: Received, writer: asyncio.StreamWriter) -> None:
    """Respond with the challenge as JSON, which is a framework's default."""
    writer.write(page(f'"{challenge_of(request)}"'))


@pytest.mark.parametrize(
    ("step", "error", "sentence"),
    [
        (page(b"no", 403), ConfigurationError, "with HTTP 403: let it compare hub.verify_token with the verify token"),
        (page(b"no", 404), ConfigurationError, "with HTTP 404: pass the path of its webhook, too"),
        (page(b"no", 405), ConfigurationError, "with HTTP 405: let its webhook take GET, too"),
        (page(b"", 307, location="/"), ConfigurationError, "with HTTP 307: let it respond with status 200 and hub"),
        (page(b"ok"), ConfigurationError, "with another body than hub.challenge: let it respond with hub.challenge al"),
        (page(b"1" * 5000), ConfigurationError, "with another body than hub.challenge"),
        (quoted, ConfigurationError, "with hub.challenge in quotes, as JSON: let it respond with plain text"),
        (cut(b""), NetworkError, r"did not answer the handshake \(Server disconnected .*\): start the application"),
    ],
    ids=["403", "404", "405", "redirect", "other", "long", "quoted", "nothing"],
)
async def test_a_handshake_that_fails(server: Server, step: Any, error: type[MediaError], sentence: str) -> None:
    """One sentence says what was wrong with the application's response, and what to do."""
    server.script = [step]
    async with Emulator(webhook=f"{server.base_url}/?key=canary") as emulator:
        with pytest.raises(error, match=sentence) as caught:
            await emulator.verify_webhook()
        assert "canary" not in str(caught.value)
        assert emulator.verify_token not in str(caught.value)
    async with Emulator() as emulator:
        with pytest.raises(ConfigurationError, match=r"pass Emulator\(webhook=URL\)"):
            await emulator.verify_webhook()


async def test_repeats(server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook is posted again, the same bytes, until the status is 200; others go on in the meantime."""
    monkeypatch.setattr(delivery, "_PAUSES", (0.01, 0.02))
    steps = iter([page(b"", 204), page(b"busy", 503), page(b"", 201), page()])

    async def respond(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(page() if carrier_of(request) == "edit" else next(steps))

    server.script = [respond]
    async with Emulator(webhook=server.base_url) as emulator, emulator.api() as media:
        given = {"phone_number_id": emulator.phone_number_id}
        with caplog.at_level(logging.INFO, "meta_media.emulator"):
            first = await play_customer(media, emulator.access_token, b"1", "text/plain", given)
            second = await play_customer(media, emulator.access_token, b"2", "text/plain", given | {"carrier": "edit"})
            await wait_until(lambda: len(caplog.messages) >= 7)
    assert (first["statuses"], second["statuses"]) == ([204], [200])
    repeated = [request.body for request in server.requests if carrier_of(request) == "message"]
    assert (len(server.requests), len(repeated), len(set(repeated))) == (5, 4, 1)
    said = [line for line in caplog.messages if line.startswith("webhook (message)")]
    assert [re.sub(r", \d\.\d{3} s", "", line) for line in said] == [
        "webhook (message): HTTP 204; it is posted again in 0.01 s",
        "webhook (message): HTTP 503; it is posted again in 0.02 s",
        "webhook (message): HTTP 201; it is posted again in 0.02 s",
        "webhook (message): HTTP 200",
    ]


async def test_the_end_ends_repeats(server: Server) -> None:
    """The emulator's end does not wait for an application that never takes a webhook, and posts nothing after it."""
    server.script = [page(b"", 500)]
    async with Emulator(webhook=server.base_url) as emulator, emulator.api() as media:
        uploaded = await media.upload(b"hello", filename="a.txt")
        await media.send("+15550001111", uploaded)
        await wait_until(lambda: len(server.requests) >= 3)
        assert emulator._deliveries._tasks
    assert not emulator._deliveries._tasks


async def test_the_queue_is_bounded(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that takes nothing costs a bounded amount of memory: later webhooks are dropped, with a line."""
    monkeypatch.setattr(delivery, "_WAITING", 2)
    server.script = [page(b"", 500)]
    async with Emulator(webhook=server.base_url) as emulator, emulator.api() as media:
        uploaded = await media.upload(b"hello", filename="a.txt")
        for _ in range(4):
            await media.send("+15550001111", uploaded)
        assert len(emulator._deliveries._tasks) <= 2
        assert len(emulator.statuses) == 12
    assert "webhook: 2 wait for the application, so that this one is dropped" in caplog.messages


async def test_a_webhook_that_is_taken_away(server: Server) -> None:
    """A webhook that is set while the emulator runs is posted to; once it is taken away, nothing is posted again."""
    server.script = [page(b"", 500)]
    async with Emulator() as emulator, emulator.api() as media:
        uploaded = await media.upload(b"hello", filename="a.txt")
        await media.send("+15550001111", uploaded)
        assert not emulator._deliveries._tasks
        emulator.webhook = server.base_url
        emulator.fail_delivery(131026)
        await media.send("+15550001111", uploaded)
        await wait_until(lambda: len(server.requests) == 1)
        emulator.webhook = None
        await wait_until(lambda: not emulator._deliveries._tasks)
    assert len(server.requests) == 1
