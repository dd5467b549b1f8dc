"""
A customer who sends media, in this process or from another one.

`meta-media receive` sends the file to `PATH` of a running emulator, with the access token of the number that receives it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from meta_media import MediaApi, inbound_media
from meta_media.emulator.arguments import of_type, one_of, text
from meta_media.emulator.delivery import Deliveries, sign, verify_subscription
from meta_media.emulator.feed import Feed
from meta_media.emulator.folder import shown
from meta_media.emulator.settings import Clock, EmulatorSettings
from meta_media.emulator.state import NOT_RUNNING, IncomingFile, State, StoredMedia
from meta_media.emulator.upload import is_animated_webp
from meta_media.emulator.webhooks import (
    INBOUND_FAILURES,
    Carrier,
    Customer,
    Failure,
    Kind,
    default_kind,
    inbound_webhook,
)
from meta_media.errors import ConfigurationError, NetworkError, StorageError

if TYPE_CHECKING:
    from meta_media.emulator.app import Application

__all__ = ["PATH", "Customers", "play_customer"]

PATH: Final = "/emulator/receive"
_MIME_TYPE: Final = re.compile(r"[!-.0-:<-~]+/[!-.0-:<-~]+( *;[ -~]*)?")
_TIMEOUT: Final = 120.0  # seconds, in which the emulator posts two webhooks


class Customers:
    """The part of an `Emulator` that an application's webhook sees: customers, and the statuses of messages."""

    clock: Clock
    settings: EmulatorSettings
    base_url: str
    phone_number_id: str
    app_secret: str

    def __init__(self, clock: Clock, settings: EmulatorSettings, webhook: str | None, verify_token: str | None) -> None:
        if webhook is not None and not re.match(r"https?://[^/]", text("webhook", webhook)):
            raise ConfigurationError("the webhook must be a URL such as http://127.0.0.1:8000/webhook")
        self.webhook = webhook
        self._application: Application | None = None
        self.verify_token = "" if verify_token is None else text("verify_token", verify_token)
        self._feed = Feed()
        self._deliveries = Deliveries(clock, lambda: (self.webhook, self.app_secret), settings.remembered, self._feed)

    @property
    def _running(self) -> Application:
        if self._application is None:
            raise ConfigurationError(NOT_RUNNING)
        return self._application

    def fail_delivery(self, code: int, *, details: str | None = None, times: int | None = 1) -> None:
        """
        Let the next accepted messages fail: their only status is `failed`. May be called from any thread.

        Args:
            code: Meta's code, such as 131053 for media that Meta cannot process.
            details: Text of `error_data.details`. Default: the one of Meta's table.
            times: How many messages it happens to; None for all that have no other failure.
        """
        number = of_type("code", code, int, "a code such as 131053")
        failure = Failure(number, None if details is None else text("details", details))
        self._deliveries.fail(failure, times if times is None else of_type("times", times, int, "a number or None"))

    @property
    def statuses(self) -> list[tuple[bytes, str]]:
        """
        The webhooks with the statuses of the latest accepted messages, in order: each a body and its `X-Hub-Signature-256`.

        A message has `sent`, `delivered` and `read`, and `played` if it is a voice message; or `failed`. Where there is a
        `webhook`, they are posted to it.
        """
        return self._deliveries.statuses

    async def receive(
        self,
        content: bytes | str | os.PathLike[str],
        mime_type: str,
        *,
        kind: Kind | None = None,
        filename: str | None = None,
        caption: str | None = None,
        sender: str | None = None,
        username: str | None = None,
        group_id: str | None = None,
        carrier: Carrier = "message",
        failure: int | None = None,
        phone_number_id: str | None = None,
    ) -> tuple[bytes, str]:
        """
        Play a customer who sends media, and return the webhook about it: the body, and its `X-Hub-Signature-256`.

        Args:
            content: The bytes, or a path.
            mime_type: Any type: inbound media is not limited to the types of uploads.
            kind: The kind of message. Default: the kind that fits the type.
            filename: A document's name. Default: the name of the path.
            caption: The text below the media.
            sender: The customer's phone number; or the user id of a customer without one, such as `"US.1349"`.
            username: The customer's username.
            group_id: The group that the message was sent to, if any.
            carrier: Where the webhook has the media: `"message"`, `"edit"`, `"echo"`, `"history"`, `"standby"`,
                `"call_recording"`, `"call_transcript"` or `"flow"`.
            failure: 131051, 131052 or 131060: Meta could not pass the message on, and the webhook has this code in the
                place of the media.
            phone_number_id: The number that gets it. Default: the default number.

        Raises:
            ConfigurationError: An argument is wrong, or the emulator is not running.
            StorageError: The file cannot be read.
        """
        running = self._running
        if not _MIME_TYPE.fullmatch(text("mime_type", mime_type)):
            raise ConfigurationError(f"mime_type must be a type such as image/jpeg, not {shown(mime_type)}")
        kind = one_of("kind", kind or default_kind(mime_type), Kind)
        people = {"sender": sender and str(sender), "username": username, "group_id": group_id}
        customer = Customer(**{name: value and text(name, value) for name, value in people.items()})
        if customer.number == "":
            raise ConfigurationError(
                f"sender must be a phone number or a user id such as US.1349, not {shown(sender or '')}"
            )
        caption, filename = caption and text("caption", caption), filename and text("filename", filename)
        number = text("phone_number_id", str(phone_number_id or self.phone_number_id))
        described = {
            "kind": kind,
            "carrier": one_of("carrier", carrier, Carrier),
            "caption": caption,
            "animated": False,
        }
        what: StoredMedia | Failure
        now, url = int(self.clock.now()), ""
        if failure is None:
            lifetime = self.settings.inbound_lifetime
            what, start = await _keep(running.state, number, content, mime_type, filename, now + lifetime)
            described["animated"] = is_animated_webp(start)
            url = running.signer.url(self.base_url, what.id, "webhook", now + self.settings.webhook_url_lifetime)
        else:
            what = Failure(one_of("failure", failure, INBOUND_FAILURES))
        body = inbound_webhook(what, url, customer, number, now, **described)
        self._feed.received(what, customer, number, described)
        return body, sign(self.app_secret, body)

    async def deliver(self, body: bytes, signature: str) -> int:
        """
        Post a webhook once to the URL `webhook`. Meta repeats a webhook now and then: call this twice to try it.

        Returns:
            The HTTP status of the response; 0 if there was none.
        """
        return await self._deliveries.post_once(
            self._url, of_type("body", body, bytes, "bytes"), text("signature", signature)
        )

    async def verify_webhook(self) -> None:
        """
        Do the handshake that Meta does when a webhook is registered: a GET with `hub.challenge` and the `verify_token`.

        Raises:
            ConfigurationError: The application did not respond with the challenge; the sentence says what is wrong.
            NetworkError: The application did not respond.
        """
        await verify_subscription(self._url, self.verify_token)

    async def _play_customer(
        self, content: bytes, mime_type: str, *, twice: bool, failure: str | None = None, **given: Any
    ) -> dict[str, Any]:
        code = None if failure is None else {str(code): code for code in INBOUND_FAILURES}.get(failure, 0)
        body, _ = await self.receive(content, mime_type, failure=code, **given)
        posts = (1 + twice) * (self.webhook is not None)
        what = given.get("carrier", "message") if code is None else f"failure {code}"
        statuses = [await self._deliveries.post(body, what) for _ in range(posts)]
        media = inbound_media(body)
        return {"id": media[0].id if media else None, "webhook": self.webhook, "statuses": statuses}

    @property
    def _url(self) -> str:
        if self.webhook is None:
            raise ConfigurationError("the emulator has no webhook to post to: pass Emulator(webhook=URL)")
        return self.webhook


async def play_customer(
    media: MediaApi, access_token: str, content: bytes, mime_type: str, given: Mapping[str, str | None]
) -> Mapping[str, Any]:
    """
    Have the emulator at the client's `base_url` receive media; `given` are the route's other parameters.

    Returns:
        `id`, the id of the media, or None of a message that failed; `webhook`, the URL that it was posted to, or None; and
        `statuses`, one for each post.
    """
    base_url = media.settings.base_url
    headers = {"authorization": f"Bearer {access_token}", "content-type": mime_type}
    params = {name: value for name, value in given.items() if value is not None}
    try:
        response = await media.client.post(
            base_url + PATH, content=content, headers=headers, params=params, timeout=_TIMEOUT
        )
    except httpx.HTTPError as error:
        raise NetworkError(f"no emulator answers at {base_url}: start one with meta-media serve") from error
    try:
        reply = response.json()
        if response.status_code == 200 and (reply["id"] or given.get("failure")):
            return dict(reply)
        why = f"the emulator at {base_url} refused it: {reply['error']['message']}"
    except (ValueError, LookupError, TypeError):
        why = f"{base_url} is no emulator: set WA_BASE_URL to the address that meta-media serve has printed"
    raise ConfigurationError(why)


async def _keep(
    state: State,
    number: str,
    content: bytes | str | os.PathLike[str],
    mime_type: str,
    filename: str | None,
    expires_at: float,
) -> tuple[StoredMedia, bytes]:
    """Keep a customer's media, given as bytes or a path. Return it, and its first bytes."""
    if not isinstance(content, bytes):
        path = Path(os.fsdecode(of_type("content", content, (str, os.PathLike), "bytes or a path")))
        filename = filename or path.name.encode(errors="replace").decode()
        try:
            content = await state.in_thread(path.read_bytes)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            why = getattr(error, "strerror", None) or error
            raise StorageError(f"could not read {shown(path)}: {why}", errno=getattr(error, "errno", None)) from error
    async with IncomingFile(state) as incoming:
        await incoming.write([content])
        return await incoming.keep(number, mime_type, filename, expires_at), content[:32]
