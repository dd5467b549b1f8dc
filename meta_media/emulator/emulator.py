"""The emulator's public face: it starts everything, ends everything, and lets a test look inside."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import anyio.to_thread
import httpx

from meta_media import MediaApi, Settings
from meta_media.emulator.app import Application
from meta_media.emulator.arguments import of_type, origin, text
from meta_media.emulator.customer import Customers
from meta_media.emulator.delivery import sign
from meta_media.emulator.dialog360 import Dialog360
from meta_media.emulator.download import UrlSigner
from meta_media.emulator.faults import Fault, FaultOperation, FaultQueue, PlannedFault
from meta_media.emulator.folder import folder_errors
from meta_media.emulator.graph import ReceivedRequest
from meta_media.emulator.page.app import Page
from meta_media.emulator.responses import BUSINESS_ACCOUNT_ID
from meta_media.emulator.resumable import APP_ID, ResumableUpload
from meta_media.emulator.server import Server
from meta_media.emulator.settings import Clock, EmulatorSettings
from meta_media.emulator.state import State
from meta_media.emulator.tls import CA_FILE, certify
from meta_media.errors import ConfigurationError

__all__ = ["Emulator"]

_PATH: Final = (str, os.PathLike)
_META_MEDIA_HOST: Final = "https://lookaside.fbsbx.com"  # of the media URLs that 360dialog passes on


class Emulator(Customers):
    """
    WhatsApp Cloud API's media endpoints on a real socket of this machine.

    ```python
    async with Emulator() as emulator:
        async with emulator.api() as media:
            uploaded = await media.upload("photo.jpg")
    ```

    A second start on the same data folder has the same number, token, secret, media and URLs, except for the port.

    Args:
        data: The data folder: one of an emulator's, an empty one, or a new one. None: a temporary folder that is removed at
            the end.
        host: Address to listen on. Any but a loopback address is open to other machines.
        port: 0 for a free one.
        accounts: Phone number ids, each with its access token or tokens; the first is the default. None: one is made.
        settings: The behaviour where Meta's is unknown.
        webhook: URL of an application. The statuses of messages are posted to it, and the webhooks of `deliver`.
        verify_token: Token of the handshake, see `verify_webhook`. None: one is made, the same for the same data folder.
        tls: Whether to speak https, with a certificate that it makes.
        url: Public name that download URLs have, such as `"https://graph.facebook.com"`. It must lead clients to the address,
            those of `api`, too. None: the address itself.

    Attributes:
        clock: The time by which tokens, URLs and media expire.
        settings: As given.
        base_url: Scheme, host and port: `url`, or the address.
        local_url: The address, with its scheme.
        ca_file: File of the certificates that a client must trust, as of `SSL_CERT_FILE`; None without TLS.
        phone_number_id: The default number.
        access_token: The default number's token.
        business_account_id: The WhatsApp Business Account that all numbers belong to.
        app_id: The Meta app, for `upload_handle`.
        app_secret: The key of webhooks' signatures and of `appsecret_proof`.
        verify_token: The token of the handshake.
        webhook: As given. May be set, or changed, while the emulator runs.

    Raises:
        ConfigurationError: An argument is wrong. At the start: the folder holds other files, its database is damaged, of a later
            version or in use, or the event loop is not asyncio's. Then nothing in the folder has been changed.
        NetworkError: At the start: the address is in use, or is not one of this machine.
        StorageError: At the start: the folder cannot be written to.
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
        verify_token: str | None = None,
        tls: bool = False,
        url: str | None = None,
    ) -> None:
        self.clock = Clock()
        self.settings = of_type("settings", settings or EmulatorSettings(), EmulatorSettings, "EmulatorSettings")
        super().__init__(self.clock, self.settings, webhook, verify_token)
        self.base_url = self.local_url = self.phone_number_id = self.access_token = self.app_secret = ""
        self.ca_file: Path | None = None
        self._tls, self._public_url = tls, None if url is None else origin("url", url)
        self._client: httpx.AsyncClient | None = None  # of `api`: it trusts the certificate
        self.business_account_id, self.app_id = BUSINESS_ACCOUNT_ID, APP_ID
        self._data = None if data is None else Path(os.fsdecode(of_type("data", data, _PATH, "a path")))
        self._address = (host, port)
        self._accounts = [
            (text("phone_number_id", str(number)), text("access_token", token))
            for number, tokens in of_type("accounts", accounts or {}, Mapping, "a mapping of numbers to tokens").items()
            for token in (
                (tokens,) if isinstance(tokens, str) else of_type("accounts", tokens, Sequence, "tokens by number")
            )
        ]
        self._faults = FaultQueue()
        self._throttle: PlannedFault | None = None
        self._exit = contextlib.AsyncExitStack()

    def __repr__(self) -> str:
        return f"Emulator({self.base_url or 'not running'})"

    async def __aenter__(self) -> Self:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
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
        _ = self._running  # raises while there is no address yet
        # The environment's WA_APP_SECRET is another app's.
        own: dict[str, Any] = {"base_url": self.base_url, "app_secret": self.app_secret, "app_id": self.app_id}
        if self.settings.provider == "360dialog":
            configured = Settings.for_360dialog(api_key=self.access_token, **own | settings)
            return MediaApi(settings=configured, http_client=self._client)
        configured = Settings(**own | settings)
        return MediaApi(self.access_token, self.phone_number_id, settings=configured, http_client=self._client)

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The latest requests, the newest last."""
        return list(self._running.requests)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The latest accepted messages, the newest last, each with `message_id` and `phone_number_id`."""
        return list(self._running.messages)

    @property
    def handles(self) -> list[ResumableUpload]:
        """The latest resumable uploads, the newest last. A complete one has its `handle`."""
        return list(self._running.resumable.by_id.values())

    def add_account(self, phone_number_id: str, access_token: str) -> None:
        """Let a token act for a phone number. A token that has expired or is forbidden is valid again."""
        number, token = text("phone_number_id", str(phone_number_id)), text("access_token", access_token)
        self._running.state.add_token(number, token)

    def expire_token(self, access_token: str, *, after: float = 0) -> None:
        """Let a token expire, `after` seconds from now."""
        self._running.state.expire_token(access_token, of_type("after", after, (int, float), "a number of seconds"))

    def forbid(self, access_token: str, *, code: int = 200) -> None:
        """Take a token's permissions away: every request with it fails with 403 and this code, 200 or 10."""
        self._running.state.forbid_token(access_token, int(of_type("code", code, int, "200 or 10")))

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
            operation: `"upload"`, `"upload_handle"`, `"get_info"`, `"download"`, `"delete"` or `"send"`; `"graph"` for
                all of these but downloads; `"any"` for every request.
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
        """Remove every fault and every failed delivery that has not happened."""
        self._faults.clear()
        self._deliveries.clear()

    heal = clear_faults

    @property
    def faults(self) -> list[PlannedFault]:
        """The faults that have not happened yet, in order, each with how often it still will."""
        return self._faults.left()

    async def _start(self) -> None:
        folder = self._data
        if folder is None:
            with folder_errors(Path("a temporary folder")):
                folder = Path(await anyio.to_thread.run_sync(tempfile.mkdtemp, "", "meta-media-emulator-"))
            self._exit.push_async_callback(anyio.to_thread.run_sync, functools.partial(shutil.rmtree, folder))
        state = await self._exit.enter_async_context(State(folder, self.clock))
        kept = state.settings
        accounts = self._accounts or [(kept["phone_number_id"], kept["access_token"])]
        self.phone_number_id, self.access_token = accounts[0]
        for number, token in accounts:
            if not state.has_token(number, token):
                state.add_token(number, token)
        self.app_secret = self.settings.app_secret or kept["app_secret"]
        self.verify_token = self.verify_token or sign(self.app_secret, b"hub.verify_token").removeprefix("sha256=")[:32]
        is_360dialog = self.settings.provider == "360dialog"
        signer = UrlSigner(kept["url_secret"], _META_MEDIA_HOST if is_360dialog else None)
        application = Application(
            *(state, signer, self.clock, self.settings, self.app_secret, self._faults),
            *(self._play_customer, self._deliveries.accept, self._feed, self._public_url),
        )
        application.page, state.on_change = Page(self, application), self._feed.media_changed
        certificate = None
        if self._tls:
            certificate, client = await certify(state, folder, self._address[0], self._public_url)
            self._client, self.ca_file = await self._exit.enter_async_context(client), (folder / CA_FILE).absolute()
        front = Dialog360(application, state, self.clock) if is_360dialog else application
        server = Server(front, certificate)
        self.local_url = await server.start(*self._address)
        application.page.local_url = str(httpx.URL(self.local_url))  # as browsers write it: without the port 80 or 443
        self.base_url = application.base_url = self._public_url or self.local_url
        self._exit.push_async_callback(server.stop)
        self._exit.push_async_callback(self._deliveries.aclose)
        self._application = application
