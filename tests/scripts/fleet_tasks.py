"""A user's module: a broker with the media tasks. The workers and their client import it."""

from __future__ import annotations

import os
from typing import Any

from redis.driver_info import DriverInfo
from taskiq import AsyncBroker, TaskiqDepends
from taskiq.context import Context
from taskiq_aio_pika import AioPikaBroker
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from meta_media import RedisStore
from meta_media.library.taskiq import media_tasks

URL = os.environ["FLEET_REDIS"]
NAME = os.environ["FLEET_NAME"]  # prefix of this test
IDLE = int(os.environ["FLEET_IDLE"])  # milliseconds
RABBITMQ = os.environ.get("FLEET_RABBITMQ")  # its URL, if it is the broker
_CONTEXT = TaskiqDepends(Context)

# Seconds: a worker that a test has stopped for a while can go on. Without `driver_info`, redis-py reads a file for each
# new connection, on the event loop.
OPTIONS: dict[str, Any] = {"socket_timeout": 60, "driver_info": DriverInfo()}

results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(URL, prefix_str=NAME, **OPTIONS)
broker: AsyncBroker = (
    AioPikaBroker(RABBITMQ, qos=4)
    if RABBITMQ
    else RedisStreamBroker(
        URL, queue_name=NAME, consumer_id="0", idle_timeout=IDLE, xread_count=4, xread_block=500, **OPTIONS
    )
).with_result_backend(results)
tasks = media_tasks(broker, store=lambda: RedisStore(URL, prefix=NAME), claim_seconds=IDLE / 1000)


@broker.task("size")
async def size(media_id: str, context: Context = _CONTEXT) -> int:
    """A user's task, which uses the worker's client."""
    return len(await context.state.media_api.read(media_id))
