"""
Forks children that upload a folder with a journal, to be killed by those who asked for them.

Reads a line of JSON for each child. The child prints its process id, then a line for each outcome that it was handed; the
parent prints how the child ended. Everything is imported and has been used once before the first child, so that children
are quick to make; each has a client of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from meta_media import MediaApi, Settings, UploadedMedia


def said(*words: object) -> None:
    """Tell the parent, in one piece, at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def listing(folder: str) -> list[Path]:
    """List files in the order of their numbers."""
    return sorted(Path(folder).iterdir(), key=lambda path: int(path.stem))


async def run(settings: dict[str, Any], order: dict[str, Any]) -> None:
    """Upload all files of a folder, and acknowledge each as soon as there is an outcome."""
    async with (
        MediaApi("a-token", "1", settings=Settings(**settings)) as api,
        api.upload_many(listing(order["folder"]), journal=order["journal"]) as outcomes,
    ):
        async for outcome in outcomes:
            if isinstance(outcome.value, UploadedMedia):
                flags = (int(outcome.skipped), int(outcome.value.maybe_duplicate))
                said("acknowledged", outcome.index, outcome.value.id, *flags)
            else:
                said("failed", outcome.index, repr(outcome.error))


def live(settings: dict[str, Any], order: dict[str, Any]) -> None:
    """Work; and then wait to be killed, if that is how it is to end."""
    said("born", os.getpid())
    asyncio.run(run(settings, order))
    said("over")
    while order["doomed"]:
        signal.pause()


def main() -> None:
    """Serve until the end of the input; the first order is carried out here, without a child."""
    settings = json.loads(sys.stdin.readline())
    asyncio.run(run(settings, json.loads(sys.stdin.readline())))
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                live(settings, json.loads(line))
            finally:  # never a second parent
                if failure := sys.exception():
                    said("broken", repr(failure))
                os._exit(0)
        said("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
