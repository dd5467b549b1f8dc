#!/usr/bin/env bash
# Whether an idle taskiq worker ends on SIGTERM. Its broker waits for a task that does not come.
#   - taskiq 0.13.0: the worker is still there 10 seconds later. Its handler (signal.signal) sets an asyncio.Event, which does not
#     wake asyncio's selector: the worker ends after the next thing that happens on its loop.
#   - asyncio wakes up for every signal once loop.add_signal_handler was called for any: with one for SIGWINCH in a startup
#     handler, the worker ends at once.
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q taskiq==0.13.0
cat >"$folder/tasks.py" <<'PYTHON'
import asyncio
import os
import signal
from pathlib import Path

from taskiq import AsyncBroker, TaskiqEvents

class Idle(AsyncBroker):
    async def kick(self, message):
        pass

    async def listen(self):
        Path(os.environ["READY"]).touch()
        await asyncio.Event().wait()
        yield b""

broker = Idle()

if os.environ.get("WAKE"):

    @broker.on_event(TaskiqEvents.WORKER_STARTUP)
    async def wake(state):
        asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, lambda: None)
PYTHON
try() {  # try LABEL: start a worker, and tell it to end
    export READY="$folder/ready-$1"
    (cd "$folder" && exec env/bin/taskiq worker tasks:broker --workers 1 --no-configure-logging) >"$folder/log" 2>&1 &
    local manager=$!
    until [ -e "$READY" ]; do sleep 0.1; done
    sleep 1  # it is idle
    kill -TERM "$manager"
    for _ in $(seq 100); do
        kill -0 "$manager" 2>/dev/null || { echo "$1: ended"; return; }
        sleep 0.1
    done
    echo "$1: still there after 10 seconds"
    pkill -KILL -P "$manager" || true
    kill -KILL "$manager" && wait "$manager" 2>/dev/null || true
}
cat >"$folder/expected" <<'EXPECTED'
as it is: still there after 10 seconds
with a signal handler of the loop: ended
EXPECTED
{ try "as it is"; WAKE=1 try "with a signal handler of the loop"; } | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
