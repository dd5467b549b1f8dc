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
import shutil
import signal
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self, TypeVar, get_args

import anyio
import anyio.to_thread

from meta_media import MediaApi, Settings, inbound_media
from meta_media.emulator.app import Application, ReceivedRequest
from meta_media.emulator.customer import post_webhook
from meta_media.emulator.download import UrlSigner
from meta_media.emulator.faults import Fault, FaultOperation, FaultQueue, PlannedFault
from meta_media.emulator.folder import folder_errors, shown
from meta_media.emulator.responses import BUSINESS_ACCOUNT_ID
from meta_media.emulator.server import Server
from meta_media.emulator.settings import Clock, EmulatorSettings
from meta_media.emulator.state import NOT_RUNNING, IncomingFile, State
from meta_media.emulator.upload import is_animated_webp
from meta_media.emulator.webhooks import Kind, default_kind, webhook
from meta_media.errors import ConfigurationError, StorageError

__all__ = ["Emulator"]

_T = TypeVar("_T")
_PATH: Final = (str, os.PathLike)
_MIME_TYPE: Final = re.compile(r"[!-.0-:<-~]+/[!-.0-:<-~]+( *;[ -~]*)?")


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
        data: The data folder: one of an emulator's, an empty one, or a new one. None: a temporary folder that is removed at
            the end.
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
    ) -> None:
        self.clock = Clock()
        if webhook is not None and not re.match(r"https?://[^/]", _text("webhook", webhook)):
            raise ConfigurationError("the webhook must be a URL such as http://127.0.0.1:8000/webhook")
        self.webhook = webhook
        self.settings = _of("settings", settings or EmulatorSettings(), EmulatorSettings, "EmulatorSettings")
        self.base_url = self.phone_number_id = self.access_token = self.app_secret = ""
        self.business_account_id = BUSINESS_ACCOUNT_ID
        self._data = None if data is None else Path(os.fsdecode(_of("data", data, _PATH, "a path")))
        self._address = (host, port)
        self._accounts = [
            (_text("phone_number_id", str(number)), _text("access_token", token))
            for number, tokens in _of("accounts", accounts or {}, Mapping, "a mapping of numbers to tokens").items()
            for token in (
                (tokens,) if isinstance(tokens, str) else _of("accounts", tokens, Sequence, "tokens by number")
            )
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
        number, token = _text("phone_number_id", str(phone_number_id)), _text("access_token", access_token)
        self._running.state.add_token(number, token)

    def expire_token(self, access_token: str, *, after: float = 0) -> None:
        """Let a token expire, `after` seconds from now."""
        self._running.state.expire_token(access_token, _of("after", after, (int, float), "a number of seconds"))

    def forbid(self, access_token: str, *, code: int = 200) -> None:
        """Take a token's permissions away: every request with it fails with 403 and this code, 200 or 10."""
        self._running.state.forbid_token(access_token, int(_of("code", code, int, "200 or 10")))

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

        Raises:
            ConfigurationError: An argument is wrong, or the emulator is not running.
            StorageError: The file cannot be read.
        """
        running = self._running
        if not _MIME_TYPE.fullmatch(_text("mime_type", mime_type)):
            raise ConfigurationError(f"mime_type must be a type such as image/jpeg, not {shown(mime_type)}")
        kind = kind or default_kind(mime_type)
        if kind not in get_args(Kind):
            raise ConfigurationError(f"kind must be one of {', '.join(get_args(Kind))}")
        people = {
            "sender": sender and _text("sender", str(sender)),
            "group_id": group_id and _text("group_id", group_id),
        }
        caption = caption and _text("caption", caption)
        if not isinstance(content, bytes):
            path = Path(os.fsdecode(_of("content", content, _PATH, "bytes or a path")))
            filename = filename or path.name.encode(errors="replace").decode()
            try:
                content = await running.state.in_thread(path.read_bytes)
            except (OSError, ValueError) as error:  # ValueError: a NUL in the path
                why = getattr(error, "strerror", None) or error
                raise StorageError(
                    f"could not read {shown(path)}: {why}", errno=getattr(error, "errno", None)
                ) from error
        filename = filename and _text("filename", filename)
        number = _text("phone_number_id", str(phone_number_id or self.phone_number_id))
        now = self.clock.now()
        async with IncomingFile(running.state) as incoming:
            await incoming.write([content])
            media = await incoming.keep(number, mime_type, filename, now + self.settings.inbound_lifetime)
        expires = int(now) + self.settings.webhook_url_lifetime
        url = running.signer.url(self.base_url, media.id, "webhook", expires)
        body = webhook(media, kind, url, caption, animated=is_animated_webp(content[:32]), now=int(now), **people)
        return body, "sha256=" + hmac.new(self.app_secret.encode(), body, hashlib.sha256).hexdigest()

    async def deliver(self, body: bytes, signature: str) -> int:
        """
        Post a webhook of `receive` to the URL `webhook`. Meta repeats a webhook now and then: call this twice to try it.

        Returns:
            The HTTP status of the response; 0 if there was none.
        """
        if self.webhook is None:
            raise ConfigurationError("the emulator has no webhook to post to: pass Emulator(webhook=URL)")
        return await post_webhook(self.webhook, _of("body", body, bytes, "bytes"), _text("signature", signature))

    async def _play_customer(self, content: bytes, mime_type: str, *, twice: bool, **given: Any) -> dict[str, Any]:
        body, signature = await self.receive(content, mime_type, **given)
        posts = (1 + twice) * (self.webhook is not None)
        statuses = [await self.deliver(body, signature) for _ in range(posts)]
        return {"id": inbound_media(json.loads(body))[0].id, "webhook": self.webhook, "statuses": statuses}

    @property
    def _running(self) -> Application:
        if self._application is None:
            raise ConfigurationError(NOT_RUNNING)
        return self._application

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
        signer = UrlSigner(kept["url_secret"])
        application = Application(
            state, signer, self.clock, self.settings, self.app_secret, self._faults, self._play_customer
        )
        server = Server(application)
        self.base_url = application.base_url = await server.start(*self._address)
        self._exit.push_async_callback(server.stop)
        self._application = application


def _of(name: str, value: _T, kind: type | tuple[type, ...], expected: str) -> _T:
    """Return an argument; a `ConfigurationError` if it is of another kind."""
    if not isinstance(value, kind):
        raise ConfigurationError(f"{name} must be {expected}, not {type(value).__name__}")
    return value


def _text(name: str, value: str) -> str:
    """Return an argument; a `ConfigurationError` if it is no text, or has half of a surrogate pair."""
    try:
        return _of(name, value, str, "text").encode().decode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{name} has characters that UTF-8 cannot encode: replace them") from None
