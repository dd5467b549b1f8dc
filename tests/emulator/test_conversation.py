"""Whole conversations: a customer writes, an application on a real server answers, and hears what became of its answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from meta_media import (
    InboundMedia,
    MediaApi,
    MessageStatus,
    Recipient,
    parse_webhook,
    verify_signature,
    verify_subscription,
)
from meta_media.emulator import Emulator
from meta_media.errors import PermissionDeniedError, UploadRejectedError
from tests.support.servers import wait_until

PERSON, GROUP = "US.13491208655302741918", "Y2FwaV9ncm91cDoxNzA1NTU1MDEzOTox"


@attrs.define
class Bot:
    """An application that sends each file back to where it came from, once, and keeps the statuses of its messages."""

    emulator: Emulator
    media: MediaApi
    known: dict[str, InboundMedia] = attrs.field(factory=dict)
    saved: list[bytes] = attrs.field(factory=list)
    statuses: list[MessageStatus] = attrs.field(factory=list)

    @property
    def app(self) -> Starlette:
        """The application; its routes are those of one webhook."""
        routes = [Route("/webhook", self._verify, methods=["GET"]), Route("/webhook", self._take, methods=["POST"])]
        return Starlette(routes=routes)

    async def _verify(self, request: Request) -> Response:
        try:
            return PlainTextResponse(verify_subscription(request.query_params, self.emulator.verify_token))
        except PermissionDeniedError as error:
            return PlainTextResponse(str(error), 403)

    async def _take(self, request: Request) -> Response:
        body = await request.body()
        if not verify_signature(self.emulator.app_secret, body, request.headers.get("x-hub-signature-256")):
            return Response(status_code=401)
        webhook = parse_webhook(body)
        self.statuses += webhook.statuses
        new = [inbound for inbound in webhook.media if inbound.message_id not in self.known]
        self.known |= {str(inbound.message_id): inbound for inbound in new}
        return Response(background=BackgroundTask(self._answer, new))

    async def _answer(self, new: list[InboundMedia]) -> None:
        for inbound in new:
            assert inbound.reply_address is not None
            self.saved.append(await self.media.read(inbound))
            uploaded = await self.media.upload(self.saved[-1], mime_type=inbound.mime_type)
            await self.media.send(inbound.reply_address, uploaded, caption="yours", reply_to=inbound.message_id)


@pytest.fixture
async def bot() -> AsyncIterator[Bot]:
    """The application on a free port, registered at an emulator by Meta's handshake."""
    async with Emulator() as emulator, emulator.api() as media:
        bot = Bot(emulator, media)
        server = uvicorn.Server(uvicorn.Config(bot.app, port=0, log_level="critical", lifespan="off"))
        with contextlib.suppress(asyncio.CancelledError):
            serving = asyncio.create_task(server.serve())
            await wait_until(lambda: server.started)
            port = server.servers[0].sockets[0].getsockname()[1]
            emulator.webhook = f"http://127.0.0.1:{port}/webhook"
            await emulator.verify_webhook()
            yield bot
            await wait_until(lambda: not emulator._deliveries._tasks)
            server.should_exit = True
            await serving


@pytest.mark.parametrize(
    ("customer", "address", "status_from"),
    [
        ({"sender": PERSON, "username": "anna"}, {"recipient": PERSON}, Recipient.user(PERSON)),
        ({"sender": PERSON, "group_id": GROUP}, {"to": GROUP, "recipient_type": "group"}, Recipient.group(GROUP)),
        ({"sender": "+49 171 2345678"}, {"to": "491712345678"}, Recipient.phone("491712345678")),
    ],
    ids=["a person without a number", "a group", "a number"],
)
async def test_a_conversation(
    bot: Bot, customer: dict[str, Any], address: dict[str, str], status_from: Recipient
) -> None:
    """From the webhook to the delivered answer; a webhook that comes twice is answered once."""
    body, signature = await bot.emulator.receive(b"\xff\xd8\xff hello", "image/jpeg", caption="look", **customer)
    assert [await bot.emulator.deliver(body, signature) for _ in range(2)] == [200, 200]
    assert await bot.emulator.deliver(body, signature[:-1] + "x") == 401
    await wait_until(lambda: len(bot.statuses) == 3)
    [inbound] = bot.known.values()
    assert bot.saved == [b"\xff\xd8\xff hello"]
    assert (inbound.sender is None) == (customer["sender"] == PERSON)
    assert inbound.user_id == PERSON or inbound.sender == "491712345678"
    assert inbound.username == ("@anna" if "username" in customer else "@customer" if inbound.sender is None else None)
    [message] = bot.emulator.messages
    assert {name: message[name] for name in ("to", "recipient") if name in message} | {
        name: message[name] for name in ("recipient_type",) if message[name] == "group"
    } == address
    assert message["context"] == {"message_id": inbound.message_id}
    assert [status.status for status in bot.statuses] == ["sent", "delivered", "read"]
    assert {(status.message_id, status.recipient) for status in bot.statuses} == {(message["message_id"], status_from)}


async def test_an_answer_that_fails(bot: Bot) -> None:
    """An answer whose media Meta refuses has one status, whose typed error has the chosen code; the next one arrives."""
    bot.emulator.fail_delivery(131053, details="Stickers must be 512x512.")
    for _ in range(2):
        await bot.emulator.deliver(*await bot.emulator.receive(b"\xff\xd8\xff", "image/jpeg", sender=PERSON))
    await wait_until(lambda: len(bot.statuses) == 4)
    failed = [status for status in bot.statuses if status.status == "failed"]
    assert [(status.recipient, type(status.errors[0]), status.errors[0].code) for status in failed] == [
        (Recipient.user(PERSON), UploadRejectedError, 131053)
    ]
    assert "512x512" in str(failed[0].errors[0])
    assert len({status.message_id for status in bot.statuses}) == 2
