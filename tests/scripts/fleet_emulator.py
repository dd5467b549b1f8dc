"""
An emulator in a process of its own. It prints its address, token and phone number.

It stores an upload at once, and responds after a delay. Its arguments are the folder for its data and the seconds of delay.
"""

from __future__ import annotations

import asyncio
import sys

from meta_media.emulator import Emulator, Fault


async def main(folder: str, seconds: str) -> None:
    """Serve until the process ends."""
    async with Emulator(folder) as emulator:
        emulator.fail("upload", Fault(at="reply", delay=float(seconds)), times=None)
        sys.stdout.write(f"{emulator.base_url} {emulator.access_token} {emulator.phone_number_id}\n")
        sys.stdout.flush()
        await emulator.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
