"""The emulator's public face: it starts everything, ends everything, and lets a test look inside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.to_thread
import attrs

from meta_media import MediaApi, Settings
from meta_media.emulator.accounts import Accounts
from meta_media.emulator.app import Application, ReceivedRequest
from meta_media.emulator.download import UrlSigner
from meta_media.emulator.fault_queue import FaultOperation, Faults, PlannedFault
from meta_media.emulator.faults import Fault
from meta_media.emulator.inbound import Kind, default_kind, media_object, sign, webhook
from meta_media.emulator.server import Server
from meta_media.emulator.settings import Clock, EmulatorSettings
from meta_media.emulator.store import Store
from meta_media.emulator.upload import is_animated_webp
from meta_media.emulator.upload_file import IncomingFile

__all__ = ["Emulator"]


@attrs.frozen(kw_only=True)
class _Parts:
    store: Store
    accounts: Accounts
    signer: UrlSigner
    application: Application


class Emulator:
    """
    WhatsApp Cloud API's media endpoints on a real socket of this machine.

    ```python
    async with Emulator() as emulator:
        async with emulator.api() as media:
            uploaded = await media.upload("photo.jpg")
    ```

    The same data folder gives the same number, token, secret, media and URLs again, except for the port.

    Args:
        data: Where everything is kept; None for a temporary folder that is removed at the end.
        host: Where to listen. Anything but a loopback address lets others in.
        port: 0 for a free one.
        accounts: Phone number ids, each with its access token or tokens; the first is the default. None: one is made.
        settings: How to behave where Meta's behaviour is unknown.

    Attributes:
        clock: What tokens, URLs and media expire by.
        settings: As given.
        base_url: Scheme, host and port.
        phone_number_id: The default number.
        access_token: The default number's token.
        app_secret: Signs webhooks; `appsecret_proof` is checked with it.
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        accounts: Mapping[str, str | Sequence[str]] | None = None,
        settings: EmulatorSettings | None = None,
    ) -> None:
        self.clock = Clock()
        self.settings = settings or EmulatorSettings()
        self.base_url = self.phone_number_id = self.access_token = self.app_secret = ""
        self._data = None if data is None else Path(data)
        self._address = (host, port)
        self._given = _pairs(accounts or {})
        self._faults = Faults()
        self._throttle: PlannedFault | None = None
        self._parts: _Parts | None = None
        self._exit = contextlib.AsyncExitStack()

    def __repr__(self) -> str:
        return f"Emulator({self.base_url or 'not running'})"

    async def __aenter__(self) -> Self:
        try:
            with anyio.CancelScope(shield=True):
                await self._start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._exit.aclose()

    async def serve_forever(self) -> None:
        """Wait for SIGINT or SIGTERM."""
        told = asyncio.Event()
        loop = asyncio.get_running_loop()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in handlers:
            with contextlib.suppress(NotImplementedError):  # Windows; there, Ctrl-C cancels the caller
                loop.add_signal_handler(number, told.set)
        try:
            await told.wait()
        finally:
            for number, handler in handlers.items():
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(number)
                    signal.signal(number, handler)

    def api(self, **settings: Any) -> MediaApi:
        """
        Make a client of the default number.

        Args:
            settings: Fields of `Settings` beside `base_url`.
        """
        configured = Settings(base_url=self.base_url, **settings)
        return MediaApi(self.access_token, self.phone_number_id, settings=configured)

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The latest requests, the newest last."""
        return list(self._running.application.requests)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The latest messages that were accepted, the newest last, each with `message_id` and `phone_number_id`."""
        return list(self._running.application.messages)

    def add_account(self, phone_number_id: str, access_token: str) -> None:
        """Let a token, which is new or revived by this, act for a phone number."""
        parts = self._running
        parts.store.keep_token(parts.accounts.add(phone_number_id, access_token))

    def expire_token(self, access_token: str, *, after: float = 0) -> None:
        """Let a token die, some seconds from now."""
        parts = self._running
        parts.store.keep_token(parts.accounts.expire(access_token, after))

    def forbid(self, access_token: str, *, code: int = 200) -> None:
        """Take a token's permissions away: everything is refused with 403 and this code, 200 or 10."""
        parts = self._running
        parts.store.keep_token(parts.accounts.forbid(access_token, code))

    def throttle(self, requests: int) -> None:
        """Refuse the next so many requests to the Graph API with code 130429; an earlier call counts no more."""
        if self._throttle is not None:
            self._faults.withdraw(self._throttle)
        if requests:
            status, retry_after = self.settings.throttle_status, self.settings.retry_after
            fault = Fault.throttle(status=status, retry_after=retry_after)
            self._throttle = PlannedFault(operation="graph", fault=fault, times=requests)
            self.plan([self._throttle])

    def fail(
        self,
        operation: FaultOperation,
        fault: Fault,
        *,
        times: int | None = 1,
        probability: float = 1.0,
        seed: int = 0,
    ) -> None:
        """
        Let something go wrong. May be called from any thread, also before the emulator runs.

        A request meets the first fault that was planned for its operation and has not been used up.

        Args:
            operation: `"upload"`, `"get_info"`, `"download"`, `"delete"` or `"send"`; `"graph"` for all of these but
                downloads; `"any"` for every request.
            fault: What happens.
            times: To how many requests; None for all that will come.
            probability: How likely it happens to a request: above 0, at most 1.
            seed: Chooses the requests that a probability below 1 happens to; the same ones in each run.

        Raises:
            ValueError: Something of this cannot be.
        """
        planned = PlannedFault(operation=operation, fault=fault, times=times, probability=probability, seed=seed)
        self.plan([planned])

    def plan(self, faults: Iterable[PlannedFault]) -> None:
        """Let things go wrong that were planned elsewhere, as in a file; see `fail` and `read_faults`."""
        for planned in faults:
            self._faults.add(planned)

    def clear_faults(self) -> None:
        """Forget every fault that has not happened."""
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
        phone_number_id: str | None = None,
    ) -> tuple[bytes, str]:
        """
        Let a customer send media, and return the webhook about it: the body, and the value of `X-Hub-Signature-256`.

        Args:
            content: The bytes, or a path.
            mime_type: Whatever the customer's phone said: inbound media may be of more types than uploads.
            kind: How WhatsApp shows it; by default what fits the type.
            filename: Documents have one; by default the name of the path.
            caption: The text below it.
            phone_number_id: Who gets it; by default the default number.
        """
        parts = self._running
        if not isinstance(content, bytes):
            filename = filename or Path(content).name
            content = await parts.store.in_thread(Path(content).read_bytes)
        kind = kind or default_kind(mime_type)
        number = phone_number_id or self.phone_number_id
        now = self.clock.now()
        async with IncomingFile(parts.store) as incoming:
            await incoming.write([content])
            lifetime = self.settings.inbound_lifetime
            media = await incoming.keep(number, mime_type, filename=filename, expires_at=now + lifetime)
        expires = int(now) + self.settings.webhook_url_lifetime
        url = parts.signer.url(self.base_url, media.id, "webhook", expires)
        described = media_object(media, kind, url, caption, animated=is_animated_webp(content[:32]))
        body = webhook(number, kind, described, int(now))
        return body, sign(self.app_secret, body)

    @property
    def _running(self) -> _Parts:
        if self._parts is None:
            raise RuntimeError("the emulator is not running: use `async with Emulator() as emulator`")
        return self._parts

    async def _start(self) -> None:
        store = Store(await self._folder())
        self._exit.push_async_callback(store.close)
        await store.open(self.clock.now())
        accounts = await self._accounts(store)
        signer = UrlSigner(await store.setting("url_secret", secrets.token_hex(32)))
        kept_secret = await store.setting("app_secret", secrets.token_hex(16))
        self.app_secret = self.settings.app_secret or kept_secret
        application = Application(
            store=store,
            accounts=accounts,
            signer=signer,
            clock=self.clock,
            settings=self.settings,
            app_secret=self.app_secret,
            faults=self._faults,
        )
        server = Server(application)
        self.base_url = application.base_url = await server.start(*self._address)
        self._exit.push_async_callback(server.stop)
        self._parts = _Parts(store=store, accounts=accounts, signer=signer, application=application)

    async def _folder(self) -> Path:
        if self._data is not None:
            return self._data
        folder = await anyio.to_thread.run_sync(tempfile.mkdtemp, "", "meta-media-emulator-")
        self._exit.push_async_callback(anyio.to_thread.run_sync, lambda: shutil.rmtree(folder))
        return Path(folder)

    async def _accounts(self, store: Store) -> Accounts:
        tokens = await store.tokens()
        accounts = Accounts(self.clock, tokens)
        number = await store.setting("phone_number_id", str(10**14 + secrets.randbelow(9 * 10**14)))
        token = await store.setting("access_token", "EAAG" + secrets.token_hex(40))
        pairs = self._given or [(number, token)]
        self.phone_number_id, self.access_token = pairs[0]
        for number, token in pairs:
            if token not in tokens or number not in tokens[token].numbers:
                store.keep_token(accounts.add(number, token))
        return accounts


def _pairs(accounts: Mapping[str, str | Sequence[str]]) -> list[tuple[str, str]]:
    return [
        (number, token)
        for number, tokens in accounts.items()
        for token in ((tokens,) if isinstance(tokens, str) else tokens)
    ]
