"""
Sends one media to many people with a journal, until it is done or killed.

Its arguments are the server, the journal, and the number of people. It prints a line for each outcome, with what became
of the message and the person; and now and then how many of Python's objects it holds.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys

from meta_media import MediaApi, Outcome, SentMessage, Settings


def said(*words: object) -> None:
    """Tell the parent, in one piece."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def result_of(outcome: Outcome[SentMessage]) -> str:
    """Name what became of a message."""
    if outcome.error is None:
        return "skipped" if outcome.skipped else "sent"
    return "unknown" if getattr(outcome.error, "maybe_applied", False) else type(outcome.error).__name__


async def main(base_url: str, journal: str, count: str) -> None:
    """Send, and acknowledge each outcome."""
    people = (f"+1555{number:07}" for number in range(int(count)))
    async with (
        MediaApi("a-token", "1", settings=Settings(base_url=base_url)) as api,
        api.send_many(people, "7", kind="image", journal=journal, in_order=True) as run,
    ):
        async for outcome in run:
            if outcome.index % (int(count) // 10) == 0:
                gc.collect()
                said("held", sys.getallocatedblocks())
            said(result_of(outcome), outcome.source.removeprefix("+"))


asyncio.run(main(*sys.argv[1:]))
