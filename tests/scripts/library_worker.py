"""
One of several processes that share a library, or only its store.

Its argument is an order in JSON, from `library/test_processes.py`. It prints "ready", waits for a line, does its work, and
prints the result as JSON. A doomed process sends a part of its first content, prints "held", and waits to be killed.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from meta_media import LibraryEntry, MediaApi, MediaLibrary, Progress, RedisStore, Settings, SQLiteStore
from meta_media.library import Store

SIZE = 300_000  # bytes
LARGE = 3_000_000  # bytes of the first content, which is sent in part: more than the buffers hold


def write_line(line: str) -> None:
    """Write a line to the parent process."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def content(number: int) -> bytes:
    """Return one of the contents. They are the same in every process."""
    return f"Content number {number}, again and again.\n".encode() * ((SIZE if number else LARGE) // 38)


async def hold(progress: Progress) -> None:
    """Stop in the middle of an upload, when a part of it has certainly been sent."""
    if progress.transferred > LARGE // 2:
        write_line("held")
        await asyncio.Event().wait()


async def ensure_all(order: dict[str, Any], store: Store) -> list[Any]:
    """Ensure the contents concurrently, in random order."""
    settings = Settings(base_url=order["base_url"], chunk_size=65_536)
    wanted = [number % order["contents"] for number in range(order["calls"])]
    random.shuffle(wanted)
    async with (
        MediaApi(order["token"], order["number"], settings=settings) as media,
        MediaLibrary(media, store, claim_seconds=order["claim_seconds"]) as library,
    ):
        if order["doomed"]:
            await library.ensure(content(0), progress=hold)
        entries = await asyncio.gather(*(library.ensure(content(number)) for number in wanted))
    return [[number, entry.id, entry.reused] for number, entry in zip(wanted, entries, strict=True)]


async def hammer(order: dict[str, Any], store: Store) -> list[Any]:
    """Call every method of a store as fast as possible, half of the calls on keys that all processes share."""
    now = datetime.now(UTC)
    won = []

    async def use(number: int) -> None:
        shared = number % 2 == 0
        entry = LibraryEntry(
            id=f"{order['name']}-{number}",
            sha256=f"{number:064}",
            mime_type="text/plain",
            phone_number_id="all" if shared else order["name"],
            uploaded_at=now,
            expires_at=now + timedelta(days=1),
            used_at=now,
        )
        claim = await store.claim(entry.key, 600)
        if claim is not None and await store.get(entry.key) is None and await store.put(entry, claim):
            won.append(entry.id)
        elif claim is not None:
            await store.release(entry.key, claim)
        await store.touch(entry)
        if number % 10 == 0:
            [_ async for _ in store.entries()]

    for start in range(0, order["calls"], 20):
        await asyncio.gather(*(use(number) for number in range(start, min(start + 20, order["calls"]))))
    return won


async def main(order: dict[str, Any]) -> None:
    """Execute the order."""
    kind, *where = order["store"]
    store: Store = SQLiteStore(*where) if kind == "sqlite" else RedisStore(where[0], prefix=where[1])
    write_line("ready")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    result = await (hammer if order["work"] == "hammer" else ensure_all)(order, store)
    await store.aclose()
    write_line(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
