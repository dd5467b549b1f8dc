"""
Forks children that download, to be killed by those who asked for them.

Reads a line of JSON for each child. The child prints its process id and what became of its download, the parent how the
child ended. Everything is imported, and a connection was made, before the first child: it has its parent's client, and
must find its own way.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import sys
from typing import Any

from meta_media import InboundMedia, MediaApi, Settings
from tests.support.sabotage import Sabotage


def said(*words: object) -> None:
    """Tell the parent, in one piece."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def live(api: MediaApi, order: dict[str, Any]) -> None:
    """Download, and then wait for the end; or live no longer than until some file operation."""
    said("born", os.getpid())
    die = functools.partial(os.kill, os.getpid(), signal.SIGKILL)
    doom = Sabotage(order["folder"], order.get("operation", 0), die, late=order.get("late", False))
    media = InboundMedia(id="7", kind="image", **order["media"])
    with doom.watching():
        saved = asyncio.run(api.download(media, order["destination"], overwrite=order["overwrite"]))
    said("done", saved.size)
    while "operation" not in order:
        signal.pause()


async def warm(api: MediaApi, url: str) -> None:
    """Make a connection and threads, which no child may use."""
    await api.read(url)


def main() -> None:
    """Serve until the end of the input."""
    settings = json.loads(sys.stdin.readline())
    url = settings.pop("warm")
    api = MediaApi("a-token", "1", settings=Settings(**settings))
    asyncio.run(warm(api, url))
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                live(api, json.loads(line))
            finally:  # never a second parent
                if failure := sys.exception():
                    said("failed", repr(failure))
                os._exit(0)
        said("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
