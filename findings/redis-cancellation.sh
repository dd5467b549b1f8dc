#!/usr/bin/env bash
# Since version 8, redis-py has a socket_timeout of 5 seconds by default. With one, it sends each command by asyncio.wait_for. On
# Python 3.11, wait_for drops a cancellation that arrives when the command is written already: `task.cancel()` returns True, and
# the task goes on and returns the reply. Workers that are told to stop, and requests whose client has gone, do not end.
# Without a timeout the cancellation arrives, and with the wait_for of Python 3.12 and later.
# Output seen: see EXPECTED below (redis-py 8.1.0 and 7.4.1; Python 3.11.7, 3.12.1 and 3.13.0).
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cat >"$folder/try.py" <<'PYTHON'
import asyncio
import contextlib

import redis.asyncio


async def converse(reader, writer):
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(9999):
            writer.write(b"$-1\r\n" * data.count(b"*"))  # nil, for each command
    writer.close()


async def main():
    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for options in ({}, {"socket_timeout": 10}, {"socket_timeout": None}):
        client = redis.asyncio.Redis(port=port, protocol=2, **options)
        await client.get("key")
        task = asyncio.create_task(client.get("key"))
        await asyncio.sleep(0)  # sends the command
        assert task.cancel()
        await asyncio.wait({task})
        given = ", ".join(f"{name}={value}" for name, value in options.items()) or "defaults"
        print(f"{redis.__version__}, {given}: {'cancelled' if task.cancelled() else 'goes on'}")
        await client.aclose()
    server.close()

asyncio.run(main())
PYTHON
for version in 8.1.0 7.4.1; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install -q redis=="$version"
    "$folder/$version/bin/python" "$folder/try.py"
done | tee "$folder/seen"
dropped=$(python3 -c 'import sys; print("cancelled" if sys.version_info >= (3, 12) else "goes on")')
diff - "$folder/seen" <<EXPECTED
8.1.0, defaults: $dropped
8.1.0, socket_timeout=10: $dropped
8.1.0, socket_timeout=None: cancelled
7.4.1, defaults: cancelled
7.4.1, socket_timeout=10: $dropped
7.4.1, socket_timeout=None: cancelled
EXPECTED
