#!/usr/bin/env bash
# obstore 0.12.1: a program that ends right after it has awaited an operation is aborted now and then (SIGABRT, status 134),
# although the operation has succeeded. It needs no server: a MemoryStore is enough.
#   - A thread of obstore's sets the result, and is then still in the interpreter. CPython up to 3.13 ends such a thread by
#     unwinding its stack, which Rust does not allow. Nothing is printed that names obstore.
#   - One millisecond of sleep after the last operation is enough.
# Seen on Python 3.11.7, Linux x86-64, two cores: 19 of 60 programs aborted with a MemoryStore, 7 of 60 with a LocalStore, 4 of
# 40 after a write to S3; 0 of 40 with the sleep. Which ones is chance, so that only "some" and "none" are compared.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q obstore==0.12.1
cat >"$folder/at-once.py" <<'PYTHON'
import asyncio

from obstore.store import MemoryStore

asyncio.run(MemoryStore().put_async("key", b"bytes"))
PYTHON
cat >"$folder/later.py" <<'PYTHON'
import asyncio

from obstore.store import MemoryStore


async def main():
    await MemoryStore().put_async("key", b"bytes")
    await asyncio.sleep(0.001)


asyncio.run(main())
PYTHON
aborted() {  # aborted PROGRAM: how many of 100
    local count=0 status
    for _ in $(seq 100); do
        status=0; "$folder/env/bin/python" "$folder/$1" 2>/dev/null || status=$?
        [ "$status" = 134 ] && count=$((count + 1))
    done
    echo "$count"
}
at_once=$(aborted at-once.py); later=$(aborted later.py)
echo "aborted, of 100: $at_once at once, $later with a sleep"
[ "$at_once" -gt 0 ] && [ "$later" = 0 ]
