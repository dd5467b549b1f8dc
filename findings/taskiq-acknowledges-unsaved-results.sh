#!/usr/bin/env bash
# What taskiq's acknowledgement "when_saved" does with a task whose result the result backend could not save.
#   - taskiq 0.13.0 logs "Can't set result in result backend." and acknowledges the task. The broker forgets it, nothing has its
#     result, and its caller waits for ever. A worker whose result backend is away empties a queue in this way.
#   - For comparison: if the backend raises CancelledError, which is no Exception, the task is not acknowledged.
# A result backend that tries again until it can save loses nothing.
# Output seen: see EXPECTED below.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"; "$folder/env/bin/pip" install -q taskiq==0.13.0
cat >"$folder/try.py" <<'PYTHON'
import asyncio
import logging

from taskiq import AckableMessage, AsyncResultBackend, InMemoryBroker
from taskiq.message import TaskiqMessage
from taskiq.receiver import Receiver

logging.disable()

class Away(AsyncResultBackend):
    error = ConnectionError

    async def set_result(self, task_id, result):
        raise self.error

    async def is_result_ready(self, task_id):
        return False

    async def get_result(self, task_id, with_logs=False):
        raise LookupError

broker = InMemoryBroker().with_result_backend(Away())

@broker.task("work", ack_type="when_saved")
async def work():
    return 1

async def deliver(error):
    Away.error = error
    acknowledged = []
    labels = {"ack_type": "when_saved"}
    message = broker.formatter.dumps(TaskiqMessage(task_id="1", task_name="work", labels=labels, args=[], kwargs={}))
    delivery = AckableMessage(data=message.message, ack=lambda: acknowledged.append(1))
    await asyncio.gather(Receiver(broker, max_async_tasks=1).callback(delivery), return_exceptions=True)
    print(f"{error.__name__}: acknowledged {bool(acknowledged)}")

for error in (ConnectionError, TimeoutError, asyncio.CancelledError):
    asyncio.run(deliver(error))
PYTHON
cat >"$folder/expected" <<'EXPECTED'
ConnectionError: acknowledged True
TimeoutError: acknowledged True
CancelledError: acknowledged False
EXPECTED
"$folder/env/bin/python" "$folder/try.py" | tee "$folder/seen"
diff "$folder/expected" "$folder/seen"
