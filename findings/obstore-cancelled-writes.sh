#!/usr/bin/env bash
# obstore 0.12.1: what a cancelled put_async leaves in S3 (moto 5.2.5's server).
#   - Of a stream: the multipart upload stays, with the parts that were sent. No error says so, a listing does not show it, and a
#     bucket without a lifecycle rule keeps it for ever. An iterator that raises, and a writer whose block fails, abort it.
#   - With use_multipart=False: the object may appear after CancelledError has been raised. A head at once says that there is
#     none; seconds later there is one. Awaiting the cancelled call does not wait for the request.
# So who must know what a bucket has after a cancellation shields the call, and undoes it when it has ended.
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q obstore==0.12.1 'moto[s3,server]==5.2.5'
port=$("$folder/env/bin/python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$folder/env/bin/python" -m moto.server -H 127.0.0.1 -p "$port" >/dev/null 2>&1 & server=$!
cat >"$folder/try.py" <<'PYTHON'
import asyncio
import os
import sys
import time
import urllib.request

from obstore.store import S3Store

url = f"http://127.0.0.1:{sys.argv[1]}"
store = S3Store(
    "bucket", endpoint=url, access_key_id="a", secret_access_key="b", region="us-east-1", client_options={"allow_http": True}
)
MiB = 2**20


def make_bucket():
    for _ in range(300):
        try:
            return urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT"))
        except OSError:
            time.sleep(0.1)


def multipart_uploads():
    return urllib.request.urlopen(f"{url}/bucket?uploads").read().count(b"<UploadId>")


def there(key):
    return any(entry["path"] == key for batch in store.list() for entry in batch)


async def endless(started):
    while True:
        yield os.urandom(5 * MiB)
        started.set()
        await asyncio.sleep(0.1)


async def failing():
    for _ in range(4):
        yield os.urandom(5 * MiB)
    raise ValueError


async def cancelled(call):
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        return True
    return False


async def main():
    make_bucket()
    try:
        await store.put_async("failed", failing())
    except ValueError:
        print("an iterator that raises:", multipart_uploads(), "multipart uploads")
    started = asyncio.Event()
    call = asyncio.ensure_future(store.put_async("stream", endless(started)))
    await started.wait()
    while not multipart_uploads():
        await asyncio.sleep(0.1)
    await cancelled(call)
    await asyncio.sleep(3)
    print("a cancelled stream:", multipart_uploads(), "multipart upload; listed:", there("stream"))
    data, late = os.urandom(100 * MiB), False
    for tenth in range(1, 31):  # one of these moments is when the server has all bytes, and has not stored them yet
        key = f"whole-{tenth}"
        call = asyncio.ensure_future(store.put_async(key, data, use_multipart=False))
        await asyncio.sleep(tenth / 20)
        if not await cancelled(call):
            break
        at_once = there(key)
        await asyncio.sleep(3)
        late = late or (not at_once and there(key))
        if late:
            break
    print("a cancelled write of 100 MiB that appeared afterwards:", late)
    await asyncio.sleep(0.01)


asyncio.run(main())
PYTHON
cat >"$folder/expected" <<'EXPECTED'
an iterator that raises: 0 multipart uploads
a cancelled stream: 1 multipart upload; listed: False
a cancelled write of 100 MiB that appeared afterwards: True
EXPECTED
"$folder/env/bin/python" "$folder/try.py" "$port" | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
