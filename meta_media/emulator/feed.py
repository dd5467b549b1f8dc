"""
What has happened in an emulator lately: requests, webhooks and messages, for those who read along.

Only the latest entries of each kind are kept. A reader learns the keys of what has changed, and looks the entries up when it
writes them down, so that a slow reader costs no more memory than a fast one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal

from meta_media.emulator.faults import Fault
from meta_media.emulator.graph import ReceivedRequest
from meta_media.emulator.messages import USER_ID, digits
from meta_media.emulator.state import StoredMedia
from meta_media.emulator.webhooks import Customer, Failure

__all__ = ["Feed", "FeedKind", "Reader"]

_Entry = dict[str, Any] | Callable[[], dict[str, Any]]
FeedKind = Literal["activity", "media", "message"]
_KEPT: Final = 200  # entries of a kind
_UNREAD: Final = 1000  # changes that wait for a reader; of more it is told at once, by `reset`
_LONGEST_TEXT: Final = 1000  # characters of a caption, a reason or a header
_LONGEST_BODY: Final = 4000  # bytes of a webhook


class Reader:
    """One who reads along, on the event loop of the emulator."""

    def __init__(self) -> None:
        self._changed: dict[tuple[FeedKind, str], None] = {}  # keys in their order
        self._reset = True
        self._woken = asyncio.Event()

    def note(self, kind: FeedKind, key: str) -> None:
        """Let the next `take` return this key."""
        if len(self._changed) >= _UNREAD:
            self._changed, self._reset = {}, True
        if not self._reset:
            self._changed[kind, key] = None
        self._woken.set()

    def take(self) -> list[tuple[FeedKind, str]] | None:
        """Return the keys that have changed since the last call; None if all have to be read, as at the first call."""
        changed, reset = self._changed, self._reset
        self._changed, self._reset = {}, False
        self._woken.clear()
        return None if reset else list(changed)

    async def wait(self, seconds: float) -> None:
        """Wait for a change, but no longer than this."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()


class Feed:
    """
    The latest requests and webhooks, which are activities, and the latest messages; and the readers.

    Attributes:
        kept: The entries of each kind by their keys, the newest last. Media is kept elsewhere.
    """

    def __init__(self) -> None:
        self.kept: dict[FeedKind, dict[str, _Entry]] = {"activity": {}, "message": {}}
        self._count = time.time_ns() // 1000  # so that no key is one of an emulator that ran before at this address
        self._readers: set[Reader] = set()
        self._loop: asyncio.AbstractEventLoop | None = None  # of the readers, if there are any

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """Read along until the block ends."""
        reader, self._loop = Reader(), asyncio.get_running_loop()
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    def entry(self, kind: FeedKind, key: str) -> dict[str, Any] | None:
        """Return an entry; None if it is not kept any more."""
        found = self.kept[kind].get(key)
        return found() if callable(found) else found

    def _keep(self, kind: FeedKind, entry: _Entry) -> str:
        self._count += 1
        kept, key = self.kept[kind], str(self._count)
        kept[key] = entry
        if len(kept) > _KEPT:
            del kept[next(iter(kept))]
        self.changed(kind, key)
        return key

    def changed(self, kind: FeedKind, key: str) -> None:
        """Let the readers know that an entry is new, other or gone."""
        for reader in self._readers:
            reader.note(kind, key)

    def media_changed(self, media_id: str) -> None:
        """Do the same for media, from any thread."""
        if self._readers and self._loop is not None:
            self._loop.call_soon_threadsafe(self.changed, "media", media_id)

    def requested(
        self, request: ReceivedRequest, path: str, status: int | str, seconds: float, fault: Fault | None
    ) -> None:
        """Keep a request to the Graph API, or a download. It is written down when it is read: most never are."""
        self._keep("activity", functools.partial(_activity, request, path, status, seconds, fault, time.time()))

    def posted(self, what: str, body: bytes, status: int | str, seconds: float) -> None:
        """Keep a webhook, with the status of the response, or why there is none."""
        self._keep("activity", functools.partial(_webhook, what, body[:_LONGEST_BODY], status, seconds, time.time()))

    def received(
        self, what: StoredMedia | Failure, customer: Customer, number: str, described: Mapping[str, Any]
    ) -> None:
        """Keep a customer's message, of media or of a failure."""
        failed = what.error["title"] if isinstance(what, Failure) else None
        kind, carrier = described["kind"], described["carrier"]
        entry = {
            "at": time.time(),
            "peer": customer.group_id or customer.number or customer.user_id,
            "number": number,
            "sent": False,
            "kind": kind if carrier == "message" else f"{kind}, {carrier}",
            "text": _cut(described["caption"]),
            "media": None if isinstance(what, Failure) else what.id,
            "error": failed,
        }
        self._keep("message", entry)

    def sent(self, message: Mapping[str, Any], failure: Failure | None) -> str:
        """Keep a message to a customer, and return its key."""
        to, kind = str(message.get("to") or message["recipient"]), str(message.get("type") or "text")
        content = message[kind] if isinstance(message.get(kind), dict) else {}
        plain = USER_ID.fullmatch(to) or message.get("recipient_type") == "group"
        texts = (content[name] for name in ("caption", "body", "emoji", "name") if content.get(name))
        entry = {
            "at": time.time(),
            "peer": to if plain else digits(to),
            "number": message["phone_number_id"],
            "sent": True,
            "kind": kind,
            "text": _cut(next(texts, None)),
            "media": content.get("id"),
            "error": failure and _cut(f"{failure.code}: {failure.error['error_data']['details']}"),
            "statuses": [],
        }
        return self._keep("message", entry)

    def climbed(self, key: str, status: str) -> None:
        """Add a status to a message that was sent."""
        if entry := self.entry("message", key):
            entry["statuses"].append(status)
            self.changed("message", key)


def _activity(
    request: ReceivedRequest, path: str, status: int | str, seconds: float, fault: Fault | None, at: float
) -> dict[str, Any]:
    """Write a request down, without its query, which may hold a token."""
    length = request.content_length
    details = {
        "user-agent": request.user_agent,
        "content-type": request.content_type,
        "content-length": None if length is None else str(length),
        "range": request.range,
    }
    told = {"what": request.method, "where": path[:_LONGEST_TEXT], "status": status, "seconds": seconds}
    cut = {name: value[:_LONGEST_TEXT] for name, value in details.items() if value}
    return {"at": at, **told, "fault": fault is not None, "details": cut}


def _webhook(what: str, body: bytes, status: int | str, seconds: float, at: float) -> dict[str, Any]:
    """Write a webhook down, with a body that people can read unless it has been cut."""
    text = body.decode(errors="replace")
    with contextlib.suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), indent=1, ensure_ascii=False)
    answer, why = (status, {}) if isinstance(status, int) else ("no response", {"reason": status[:_LONGEST_TEXT]})
    told = {"what": "webhook", "where": what, "status": answer, "seconds": seconds}
    return {"at": at, **told, "fault": False, "details": {**why, "body": text}}


def _cut(value: object) -> str | None:
    return None if value is None else str(value)[:_LONGEST_TEXT]
