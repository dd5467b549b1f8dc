"""
Webhooks on their way to an application, as Meta posts them: the handshake, the signature, and repeats.

A webhook is posted again until the status of the response is 200. Meta does so for 7 days; the emulator does it with
shorter pauses, until it ends.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import itertools
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Final

import anyio
import anyio.to_thread
import httpx

from meta_media.emulator.feed import Feed
from meta_media.emulator.settings import Clock
from meta_media.emulator.webhooks import Failure, statuses
from meta_media.errors import ConfigurationError, NetworkError

__all__ = ["LOGGER", "Deliveries", "sign", "verify_subscription"]

LOGGER: Final = logging.getLogger("meta_media.emulator")
_TIMEOUT: Final = 30.0  # seconds that an application may take to respond
# Recorded.
_AGENTS: Final = {"GET": "facebookplatform/1.0 (+http://developers.facebook.com)", "POST": "facebookexternalua"}
_PAUSES: Final = (0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)  # seconds before a webhook is posted again; the last one repeats
_LONGEST_CHALLENGE: Final = 1000  # bytes of a response to the handshake that are read
_TLS_CONTEXT: Final = functools.cache(functools.partial(httpx.create_ssl_context, trust_env=False))  # reads files
_AT_ONCE: Final = 8  # posts
_WAITING: Final = 10_000  # webhooks that wait for a post at most; later ones are dropped
_BEFORE_SENT: Final = 0.05  # seconds, so that the response to a message comes before its first status, as with Meta
_HINTS: Final = {
    403: "let it compare hub.verify_token with the verify token of the emulator",
    404: "pass the path of its webhook, too",
    405: "let its webhook take GET, too",
}


def sign(app_secret: str, body: bytes) -> str:
    """Return the value of `X-Hub-Signature-256` for a body."""
    return "sha256=" + hmac.new(app_secret.encode(), body, hashlib.sha256).hexdigest()


async def verify_subscription(url: str, verify_token: str) -> None:
    """
    Do the handshake that Meta does before it posts webhooks to a URL.

    Raises:
        ConfigurationError: The response is not the challenge.
        NetworkError: There is no response.
    """
    challenge = str(secrets.randbelow(10**10))
    query = {"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": verify_token}
    status, body = await _exchange("GET", url, query=query)
    if not isinstance(status, int):
        raise NetworkError(f"the webhook did not answer the handshake ({status}): start the application")
    if status != 200:
        hint = _HINTS.get(status, "let it respond with status 200 and hub.challenge")
        raise ConfigurationError(f"the webhook answered the handshake with HTTP {status}: {hint}")
    if body != challenge.encode():
        hint = "with another body than hub.challenge: let it respond with hub.challenge alone"
        if body == f'"{challenge}"'.encode():
            hint = "with hub.challenge in quotes, as JSON: let it respond with plain text"
        raise ConfigurationError(f"the webhook answered the handshake {hint}")


async def _exchange(
    method: str, url: str, *, query: Mapping[str, str] | None = None, content: bytes = b"", headers: Any = None
) -> tuple[int | str, bytes]:
    """Return the status and the first bytes of a response; or why there is none, which shows no query."""
    body, context = b"", await anyio.to_thread.run_sync(_TLS_CONTEXT)
    try:
        with anyio.fail_after(_TIMEOUT):
            async with (
                httpx.AsyncClient(verify=context, timeout=_TIMEOUT, trust_env=False) as client,
                client.stream(
                    method,
                    httpx.URL(url).copy_merge_params(query or {}),
                    content=content,
                    headers={"user-agent": _AGENTS[method], **(headers or {})},
                ) as response,
            ):
                if method == "GET":
                    async for piece in response.aiter_bytes():
                        if len(body := body + piece) > _LONGEST_CHALLENGE:
                            break
                return response.status_code, body
    except TimeoutError:
        return f"no response within {_TIMEOUT:.0f} s", b""
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return str(error) or type(error).__name__, b""


class Deliveries:
    """What an emulator posts by itself: the statuses of accepted messages, and each webhook again until it is taken."""

    def __init__(self, clock: Clock, target: Callable[[], tuple[str | None, str]], remembered: int, feed: Feed) -> None:
        self._clock, self._feed = clock, feed
        self._target = target  # returns the URL, if there is one, and the app secret
        self._accepted: deque[tuple[Mapping[str, Any], Failure | None, int]] = deque(maxlen=remembered)
        self._failures: deque[Failure] = deque()  # of the next messages
        self._failure: Failure | None = None  # of all others
        self._tasks: set[asyncio.Task[Any]] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def fail(self, failure: Failure, times: int | None) -> None:
        """Plan a failure for the next messages; None for all."""
        if times is None:
            self._failure = failure
        else:
            self._failures.extend([failure] * times)

    def clear(self) -> None:
        """Remove every failure that is planned."""
        self._failures.clear()
        self._failure = None

    @property
    def statuses(self) -> list[tuple[bytes, str]]:
        """The webhooks about the latest accepted messages, each a body and its signature."""
        secret = self._target()[1]
        return [(body, sign(secret, body)) for accepted in list(self._accepted) for _, body in statuses(*accepted)]

    def accept(self, message: Mapping[str, Any], failure: Failure | None) -> None:
        """Begin to post the statuses of a message that was accepted, and fails by itself or as planned."""
        failure = self._failures.popleft() if self._failures else self._failure or failure
        accepted = (message, failure, int(self._clock.now()))
        self._accepted.append(accepted)
        entry = self._feed.sent(message, failure)
        if self._target()[0] is not None:
            self._start(self._climb(statuses(*accepted), entry))
        else:
            for status, _ in statuses(*accepted):
                self._feed.climbed(entry, status)

    async def post(self, body: bytes, what: str) -> int:
        """Post a webhook, and return the HTTP status of the response. If it is not 200, post it again later."""
        status = await self._post(body, what, _PAUSES[0])
        if status != 200:
            self._start(self._repeat(body, what))
        return status

    async def aclose(self) -> None:
        """End everything that is being posted, or waits for it."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _climb(self, steps: Iterator[tuple[str, bytes]], entry: str) -> None:
        await asyncio.sleep(_BEFORE_SENT)
        for status, body in steps:
            self._feed.climbed(entry, status)
            await self.post(body, f"status {status}")

    async def _repeat(self, body: bytes, what: str) -> None:
        for pause, following in itertools.pairwise(itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1]))):
            await asyncio.sleep(pause)
            if await self._post(body, what, following) == 200:
                return

    async def _post(self, body: bytes, what: str, pause: float) -> int:
        async with self._slots:
            url, secret = self._target()
            again = f"; it is posted again in {pause:g} s"
            return 200 if url is None else await self.post_once(url, body, sign(secret, body), what, again)

    async def post_once(self, url: str, body: bytes, signature: str, what: str = "", again: str = "") -> int:
        """Post a webhook once, and return the HTTP status of the response; 0 if there is none."""
        started = time.monotonic()
        headers = {"content-type": "application/json", "x-hub-signature-256": signature}
        status, _ = await _exchange("POST", url, content=body, headers=headers)
        seconds = time.monotonic() - started
        how = f"HTTP {status}, {seconds:.3f} s" if isinstance(status, int) else status
        level, again = (logging.INFO, "") if status == 200 else (logging.WARNING, again)
        LOGGER.log(level, "webhook%s: %s%s", what and f" ({what})", how, again)
        self._feed.posted(what, body, status, seconds)
        return status if isinstance(status, int) else 0

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._tasks) >= _WAITING:
            LOGGER.warning("webhook: %d wait for the application, so that this one is dropped", _WAITING)
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
