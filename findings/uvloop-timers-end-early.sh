#!/usr/bin/env bash
# Whether a timer has ended before it was due, by the clock that it was set by.
#   - uvloop 0.23.0 counts in whole milliseconds: it rounds a delay up or down, and its clock down. A timer of `loop.call_later`, and
#     `asyncio.sleep`, end up to 1.5 ms early by time.monotonic(), which is asyncio's clock. A delay below 0.5 ms is none at all.
#   - A timer of `loop.call_at(when)` runs while `loop.time()` is still below `when`.
#   - asyncio never calls early: its selector rounds up.
# A task that is woken by its timer and asks the clock again ("is it time?") hears that it is not. It has to believe the timer, to
# ask with a margin, or to set the timer again.
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q uvloop==0.23.0
cat >"$folder/try.py" <<'PYTHON'
import asyncio
import time

import uvloop

DELAYS = [0.005 + number % 20 * 0.0001 for number in range(400)]  # seconds

async def called_early(delay):
    loop = asyncio.get_running_loop()
    due = loop.time() + delay
    called = loop.create_future()
    loop.call_at(due, lambda: called.set_result(loop.time() < due))
    return await called

async def slept(delay):
    start = time.monotonic()
    await asyncio.sleep(delay)
    return time.monotonic() - start

async def main():
    name = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    print(f"{name}: call_at calls early: {any([await called_early(delay) for delay in DELAYS])}")
    missing = max([delay - await slept(delay) for delay in DELAYS])
    print(f"{name}: sleep ends early: {missing > 0}, by more than 0.5 ms: {missing > 0.0005}, by more than 1.5 ms: {missing > 0.0015}")
    print(f"{name}: sleep(0.0004) sleeps: {min([await slept(0.0004) for _ in range(100)]) >= 0.0004}")

asyncio.run(main())
uvloop.run(main())
PYTHON
cat >"$folder/expected" <<'EXPECTED'
asyncio: call_at calls early: False
asyncio: sleep ends early: False, by more than 0.5 ms: False, by more than 1.5 ms: False
asyncio: sleep(0.0004) sleeps: True
uvloop: call_at calls early: True
uvloop: sleep ends early: True, by more than 0.5 ms: True, by more than 1.5 ms: False
uvloop: sleep(0.0004) sleeps: False
EXPECTED
"$folder/env/bin/python" "$folder/try.py" | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
