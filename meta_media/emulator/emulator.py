"""The emulator's public face: it starts everything, ends everything, and lets a test look inside."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import hmac
import json
import os
import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.to_thread

from meta_media import MediaApi, Settings, inbound_media
from meta_media.emulator.app import Application, ReceivedRequest
from meta_media.emulator.customer import post_webhook
from meta_media.emulator.download import UrlSigner
from meta_media.emulator.faults import Fault, FaultOperation, FaultQueue, PlannedFault
from meta_media.emulator.messages import Kind, default_kind, webhook
from meta_media.emulator.responses import BUSINESS_ACCOUNT_ID
from meta_media.emulator.server import Server
from meta_media.emulator.settings import Clock, EmulatorSettings
from meta_media.emulator.state import IncomingFile, State
from meta_media.emulator.upload import is_animated_webp

__all__ = ["Emulator"]


class Emulator:
    """
    WhatsApp Cloud API's media endpoints on a real socket of this machine.

    ```python
    async with Emulator() as emulator:
        async with emulator.api() as media:
            uploaded = await media.upload("photo.jpg")
    ```

    A second start on the same data folder has the same number, token, secret, media and URLs, except for the port.

    Args:
        data: The data folder. None: a temporary folder that is removed at the end.
        host: Address to listen on. Any but a loopback address is open to other machines.
        port: 0 for a free one.
        accounts: Phone number ids, each with its access token or tokens; the first is the default. None: one is made.
        settings: The behaviour where Meta's is unknown.
        webhook: URL of an application, to which `deliver` posts webhooks.

    Attributes:
        clock: The time by which tokens, URLs and media expire.
        settings: As given.
        base_url: Scheme, host and port.
        phone_number_id: The default number.
        access_token: The default number's token.
        business_account_id: The WhatsApp Business Account that all numbers belong to.
        app_secret: The key of webhooks' signatures and of `appsecret_proof`.
        webhook: As given.

    Raises:
        RuntimeError: At the start: another emulator uses the folder, or the event loop is not asyncio's.
        ValueError: `webhook` is no http or https URL.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        accounts: Mapping[str, str | Sequence[str]] | None = None,
        settings: EmulatorSettings | None = None,
        webhook: str | None = None,
    ) -> None:
        self.clock = Clock()
        if webhook is not None and not re.match(r"https?://[^/]", webhook):
            raise ValueError("the webhook must be a URL such as http://127.0.0.1:8000/webhook")
        self.webhook = webhook
        self.settings = settings or EmulatorSettings()
        self.base_url = self.phone_number_id = self.access_token = self.app_secret = ""
        self.business_account_id = BUSINESS_ACCOUNT_ID
        self._data = None if data is None else Path(data)
        self._address = (host, port)
        self._accounts = [
            (str(number), token)
            for number, tokens in (accounts or {}).items()
            for token in ((tokens,) if isinstance(tokens, str) else tokens)
        ]
        self._faults = FaultQueue()
        self._throttle: PlannedFault | None = None
        self._application: Application | None = None
        self._exit = contextlib.AsyncExitStack()

    def __repr__(self) -> str:
        return f"Emulator({self.base_url or 'not running'})"

    async def __aenter__(self) -> Self:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "the emulator needs asyncio, and this is another event loop such as trio's: run it in a thread, as the"
                " fixture media_emulator does"
            ) from None
        try:
            with anyio.CancelScope(shield=True):
                await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._exit.aclose()

    async def serve_forever(self) -> None:
        """Wait for SIGINT or SIGTERM."""
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in handlers:
            with contextlib.suppress(NotImplementedError):  # Windows; there, Ctrl-C cancels the caller
                loop.add_signal_handler(number, stopped.set)
        try:
            await stopped.wait()
        finally:
            for number, handler in handlers.items():
                with contextlib.suppress(NotImplementedError):  # Windows, as above
                    loop.remove_signal_handler(number)
                    signal.signal(number, handler)

    def api(self, **settings: Any) -> MediaApi:
        """Return a client of the default number; `settings` are fields of `Settings`."""
        # The environment's WA_APP_SECRET is another app's.
        configured = Settings(**{"base_url": self.base_url, "app_secret": self.app_secret, **settings})
        return MediaApi(self.access_token, self.phone_number_id, settings=configured)

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The latest requests, the newest last."""
        return list(self._running.requests)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The latest accepted messages, the newest last, each with `message_id` and `phone_number_id`."""
        return list(self._running.messages)

    def add_account(self, phone_number_id: str, access_token: str) -> None:
        """Let a token act for a phone number. A token that has expired or is forbidden is valid again."""
        self._running.state.add_token(str(phone_number_id), access_token)

    def expire_token(self, access_token: str, *, after: float = 0) -> None:
        """Let a token expire, `after` seconds from now."""
        self._running.state.expire_token(access_token, after)

    def forbid(self, access_token: str, *, code: int = 200) -> None:
        """Take a token's permissions away: every request with it fails with 403 and this code, 200 or 10."""
        self._running.state.forbid_token(access_token, code)

    def throttle(self, requests: int) -> None:
        """Refuse the next `requests` requests to the Graph API with code 130429. Replaces an earlier call."""
        if self._throttle is not None:
            self._faults.withdraw(self._throttle)
        if requests:
            fault = Fault.throttle(status=self.settings.throttle_status, retry_after=self.settings.retry_after)
            self._throttle = PlannedFault(operation="graph", fault=fault, times=requests)
            self._faults.add(self._throttle)

    def fail(
        self, operation: FaultOperation, fault: Fault, *, times: int | None = 1, probability: float = 1.0, seed: int = 0
    ) -> None:
        """
        Plan a fault. May be called from any thread, also before the emulator runs.

        A request meets the first planned fault of its operation that is not used up.

        Args:
            operation: `"upload"`, `"get_info"`, `"download"`, `"delete"` or `"send"`; `"graph"` for all of these but
                downloads; `"any"` for every request.
            fault: The fault.
            times: How many requests it happens to; None for all.
            probability: How likely it happens to a request: above 0, at most 1.
            seed: Chooses the requests for a probability below 1; the same requests in each run.

        Raises:
            ValueError: An argument is wrong.
        """
        self.plan([PlannedFault(operation=operation, fault=fault, times=times, probability=probability, seed=seed)])

    def plan(self, faults: Iterable[PlannedFault]) -> None:
        """Plan faults, as from a file; see `fail` and `read_faults`."""
        for planned in faults:
            self._faults.add(planned)

    def clear_faults(self) -> None:
        """Remove every fault that has not happened."""
        self._faults.clear()

    heal = clear_faults

    @property
    def faults(self) -> list[PlannedFault]:
        """The faults that have not happened yet, in order, each with how often it still will."""
        return self._faults.left()

    async def receive(
        self,
        content: bytes | str | os.PathLike[str],
        mime_type: str,
        *,
        kind: Kind | None = None,
        filename: str | None = None,
        caption: str | None = None,
        sender: str | None = None,
        group_id: str | None = None,
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
            group_id: The group that the message was sent to, if any.
            phone_number_id: The number that gets it. Default: the default number.
        """
        running = self._running
        if not isinstance(content, bytes):
            filename = filename or Path(content).name
            content = await running.state.in_thread(Path(content).read_bytes)
        number = str(phone_number_id or self.phone_number_id)
        now = self.clock.now()
        async with IncomingFile(running.state) as incoming:
            await incoming.write([content])
            media = await incoming.keep(number, mime_type, filename, now + self.settings.inbound_lifetime)
        expires = int(now) + self.settings.webhook_url_lifetime
        url = running.signer.url(self.base_url, media.id, "webhook", expires)
        kind = kind or default_kind(mime_type)
        people = {"sender": sender, "group_id": group_id}
        body = webhook(media, kind, url, caption, animated=is_animated_webp(content[:32]), now=int(now), **people)
        return body, "sha256=" + hmac.new(self.app_secret.encode(), body, hashlib.sha256).hexdigest()

    async def deliver(self, body: bytes, signature: str) -> int:
        """
        Post a webhook of `receive` to the URL `webhook`. Meta repeats a webhook now and then: call this twice to try it.

        Returns:
            The HTTP status of the response; 0 if there was none.
        """
        if self.webhook is None:
            raise RuntimeError("the emulator has no webhook to post to: pass Emulator(webhook=URL)")
        return await post_webhook(self.webhook, body, signature)

    async def _play_customer(self, content: bytes, mime_type: str, *, twice: bool, **given: Any) -> dict[str, Any]:
        body, signature = await self.receive(content, mime_type, **given)
        posts = (1 + twice) * (self.webhook is not None)
        statuses = [await self.deliver(body, signature) for _ in range(posts)]
        return {"id": inbound_media(json.loads(body))[0].id, "webhook": self.webhook, "statuses": statuses}

    @property
    def _running(self) -> Application:
        if self._application is None:
            raise RuntimeError("the emulator is not running: use `async with Emulator() as emulator`")
        return self._application

    async def _start(self) -> None:
        folder = self._data
        if folder is None:
            folder = Path(await anyio.to_thread.run_sync(tempfile.mkdtemp, "", "meta-media-emulator-"))
            self._exit.push_async_callback(anyio.to_thread.run_sync, functools.partial(shutil.rmtree, folder))
        state = await self._exit.enter_async_context(State(folder, self.clock))
        fresh = {
            "phone_number_id": str(10**14 + secrets.randbelow(9 * 10**14)),
            "access_token": "EAAG" + secrets.token_hex(40),
            "url_secret": secrets.token_hex(32),
            "app_secret": secrets.token_hex(16),
        }
        kept = await state.in_thread(state.settings, fresh)
        accounts = self._accounts or [(kept["phone_number_id"], kept["access_token"])]
        self.phone_number_id, self.access_token = accounts[0]
        for number, token in accounts:
            if not state.has_token(number, token):
                state.add_token(number, token)
        self.app_secret = self.settings.app_secret or kept["app_secret"]
        signer = UrlSigner(kept["url_secret"])
        application = Application(
            state, signer, self.clock, self.settings, self.app_secret, self._faults, self._play_customer
        )
        server = Server(application)
        self.base_url = application.base_url = await server.start(*self._address)
        self._exit.push_async_callback(server.stop)
        self._application = application
