"""What users write: a broker, and our tasks on it. Workers import it, and so does whoever gives them work."""

from __future__ import annotations

import os
from typing import Any

from taskiq import TaskiqDepends
from taskiq.context import Context
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from meta_media import RedisStore
from meta_media.library.taskiq import media_tasks

URL = os.environ["FLEET_REDIS"]
NAME = os.environ["FLEET_NAME"]  # keeps tests on one server apart
IDLE = int(os.environ["FLEET_IDLE"])  # milliseconds
_CONTEXT = TaskiqDepends(Context)

# In seconds: a worker that is stopped for a while goes on as if nothing had been.
PATIENT: dict[str, Any] = {"socket_timeout": 60}

results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(URL, prefix_str=NAME, **PATIENT)
broker = RedisStreamBroker(
    URL, queue_name=NAME, consumer_id="0", idle_timeout=IDLE, xread_count=4, xread_block=500, **PATIENT
).with_result_backend(results)
tasks = media_tasks(broker, store=lambda: RedisStore(URL, prefix=NAME), claim_seconds=IDLE / 1000)


@broker.task("size")
async def size(media_id: str, context: Context = _CONTEXT) -> int:
    """A task of the user's own: it uses the client of the worker that it runs in."""
    return len(await context.state.media_api.read(media_id))
