"""
An emulator in a process of its own, which says where it is, and answers uploads only after a while: all is done by then.

Its arguments are the folder for its data and the seconds until the answer.
"""

from __future__ import annotations

import asyncio
import sys

from meta_media.emulator import Emulator, Fault


async def main(folder: str, seconds: str) -> None:
    """Serve until told to stop."""
    async with Emulator(folder) as emulator:
        emulator.fail("upload", Fault(at="reply", delay=float(seconds)), times=None)
        sys.stdout.write(f"{emulator.base_url} {emulator.access_token} {emulator.phone_number_id}\n")
        sys.stdout.flush()
        await emulator.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
