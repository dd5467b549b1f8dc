"""Customers played against the emulator: webhooks that are posted, and the request of another process."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import httpx
import pytest

from meta_media import MediaApi, Settings, inbound_media, verify_signature
from meta_media.emulator import Emulator
from meta_media.emulator.customer import PATH, play_customer
from meta_media.errors import ConfigurationError, NetworkError
from tests.support.servers import Server, cut, json_response, page


async def test_webhooks_are_posted(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """`deliver` posts the body as it was signed, as often as it is called, and returns the status of the response."""
    server.script = [page(), page(b"busy", 503), cut(b"")]
    webhook = f"{server.base_url}/webhook?key=canary"
    with caplog.at_level(logging.INFO, "meta_media.emulator"):
        async with Emulator(webhook=webhook) as emulator, emulator.api() as media:
            body, signature = await emulator.receive(b"hello", "text/plain", caption="hi", sender="+49 171 2345678")
            statuses = [await emulator.deliver(body, signature) for _ in range(3)]
            [inbound] = inbound_media(json.loads(server.requests[0].body))
            assert await media.read(inbound) == b"hello"
    assert statuses == [200, 503, 0]
    assert (inbound.sender, inbound.caption) == ("491712345678", "hi")
    for request in server.requests:
        assert (request.method, request.target, request.body) == ("POST", "/webhook?key=canary", body)
        assert request.header("content-type") == "application/json"
        assert verify_signature(emulator.app_secret, request.body, request.header("x-hub-signature-256"))
    posts = [record for record in caplog.records if record.getMessage().startswith("webhook: ")]
    assert [record.levelname for record in posts] == ["INFO", "WARNING", "WARNING"]
    assert re.fullmatch(r"webhook: HTTP 503, \d\.\d{3} s", posts[1].getMessage())
    assert "canary" not in caplog.text


async def test_no_webhook() -> None:
    """Without a URL there is nothing to post to, and what is no URL is refused before the start."""
    async with Emulator() as emulator:
        with pytest.raises(ConfigurationError, match=r"pass Emulator\(webhook=URL\)"):
            await emulator.deliver(*await emulator.receive(b"x", "text/plain"))
    async with Emulator(webhook="http://[::1") as emulator:
        assert await emulator.deliver(b"", "") == 0
    for wrong in ("", "127.0.0.1:8000", "ftp://host/", "http://"):
        with pytest.raises(ConfigurationError, match="the webhook must be a URL such as"):
            Emulator(webhook=wrong)


async def test_another_process_plays_a_customer(server: Server) -> None:
    """The token of a number lets it receive media; the webhook is posted once, or twice as Meta does now and then."""
    server.script = [page()]
    async with Emulator(webhook=server.base_url) as emulator, emulator.api() as media:
        number, token = emulator.phone_number_id, emulator.access_token
        given: dict[str, Any] = {"phone_number_id": number, "caption": "a&b é", "filename": "r.txt", "sender": None}
        once = await play_customer(media, token, b"one", "text/plain", given)
        twice = await play_customer(media, token, b"two", "text/plain", given | {"twice": "1"})
        assert (once["webhook"], once["statuses"], twice["statuses"]) == (server.base_url, [200], [200, 200])
        assert [await media.read(reply["id"]) for reply in (once, twice)] == [b"one", b"two"]
        assert PATH not in {request.path for request in emulator.requests}
    bodies = [request.body for request in server.requests]
    assert bodies[1] == bodies[2] != bodies[0]
    [inbound] = inbound_media(json.loads(bodies[0]))
    assert (inbound.caption, inbound.filename, inbound.sender) == ("a&b é", "r.txt", "15550001111")


async def test_a_stranger_plays_no_customer(emulator: Emulator, media: MediaApi) -> None:
    """Without the token of the number nothing is stored, and the sentence says why."""
    async with httpx.AsyncClient(base_url=emulator.base_url, trust_env=False) as http:
        for headers in ({}, {"authorization": "Bearer other"}):
            refused = await http.post(
                PATH, content=b"x", params={"phone_number_id": emulator.phone_number_id}, headers=headers
            )
            assert refused.status_code == 401
    for token, number, why in (
        ("other", emulator.phone_number_id, "Invalid OAuth"),
        (emulator.access_token, "1", "'1'"),
    ):
        with pytest.raises(ConfigurationError, match="refused it: .*" + why):
            await play_customer(media, token, b"x", "text/plain", {"phone_number_id": number})


async def test_no_emulator_there(server: Server) -> None:
    """A server that is no emulator, and an address where nothing answers, are a sentence that says what to do."""
    async with MediaApi("token", "1", settings=Settings(base_url=server.base_url)) as media:
        for reply in (
            page(b"<html>"),
            json_response([]),
            json_response({"error": "x"}, 404),
            json_response({"id": ""}),
        ):
            server.script = [reply]
            with pytest.raises(ConfigurationError, match="is no emulator: set WA_BASE_URL"):
                await play_customer(media, "token", b"x", "text/plain", {})
        server.script = [cut(b"")]
        with pytest.raises(NetworkError, match="start one with meta-media serve"):
            await play_customer(media, "token", b"x", "text/plain", {})
