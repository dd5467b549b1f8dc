"""Values, rows and large objects of databases."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any, Final

from tests.libraries import servers
from tests.libraries.driver import Trial, lib
from tests.libraries.table import NAMELESS, AnyOf, Done, Refused, Table

__all__ = ["TABLE"]

TABLE: Final = Table()
PICK: Final = Refused("pass|pick")  # a row of several values is no file
source = TABLE.source


async def asyncpg(trial: Trial, columns: str) -> Any:
    connection = await lib("asyncpg").connect(await trial.server(servers.postgres))
    trial.stack.push_async_callback(connection.close)
    return await connection.fetchrow(f"SELECT {columns} FROM (SELECT $1::bytea AS photo) AS photos", trial.content)


async def asyncpg_value(trial: Trial) -> Any:
    return (await asyncpg(trial, "photo"))["photo"]


async def psycopg(trial: Trial) -> Any:
    url = await trial.server(servers.postgres)
    return await trial.aenter(await lib("psycopg").AsyncConnection.connect(url, autocommit=True))


async def psycopg_row(trial: Trial, columns: str, factory: str = "tuple_row") -> Any:
    connection = await psycopg(trial)
    connection.row_factory = getattr(lib("psycopg.rows"), factory)
    cursor = await connection.execute(f"SELECT {columns} FROM (SELECT %b::bytea AS photo) AS photos", [trial.content])
    return await cursor.fetchone()


async def psycopg_value(trial: Trial) -> Any:
    return (await psycopg_row(trial, "photo"))[0]


async def copy(trial: Trial) -> Any:
    cursor = (await psycopg(trial)).cursor()
    lines = trial.content.decode().splitlines()
    await cursor.execute("CREATE TEMPORARY TABLE note (line text)")
    async with cursor.copy("COPY note FROM STDIN") as writing:
        await writing.write(trial.content)
    assert len(lines) > 0
    return await trial.aenter(cursor.copy("COPY note TO STDOUT"))


async def psycopg2(trial: Trial) -> Any:
    connection = await asyncio.to_thread(lib("psycopg2").connect, await trial.server(servers.postgres))
    trial.stack.callback(connection.close)
    return connection


async def psycopg2_value(trial: Trial) -> Any:
    cursor = (await psycopg2(trial)).cursor()
    cursor.execute("SELECT %s::bytea", [trial.content])
    return cursor.fetchone()[0]


async def large_object(trial: Trial) -> Any:
    connection = await psycopg2(trial)
    written = connection.lobject(0, "wb")
    written.write(trial.content)
    written.close()
    return connection.lobject(written.oid, "rb")


def sqlite(trial: Trial, **options: Any) -> Any:
    connection = sqlite3.connect(":memory:", **options)
    trial.stack.callback(connection.close)
    connection.execute("CREATE TABLE photos (photo BLOB)")
    connection.execute("INSERT INTO photos VALUES (?)", [trial.content])
    return connection


def blob(trial: Trial, **options: Any) -> Any:
    return trial.enter(sqlite(trial, **options).blobopen("photos", "photo", 1, readonly=True))


def sqlite_row(trial: Trial, columns: str, factory: Any = None) -> Any:
    connection = sqlite(trial)
    connection.row_factory = factory
    return connection.execute(f"SELECT {columns} FROM photos").fetchone()


async def aiosqlite(trial: Trial) -> Any:
    connection = await trial.aenter(lib("aiosqlite").connect(":memory:"))
    return (await (await connection.execute("SELECT ?", [trial.content])).fetchone())[0]


async def sqlalchemy(trial: Trial, *, scalar: bool, columns: int = 1) -> Any:
    module = lib("sqlalchemy")
    engine = lib("sqlalchemy.ext.asyncio").create_async_engine("sqlite+aiosqlite://")
    trial.stack.push_async_callback(engine.dispose)
    connection = await trial.aenter(engine.connect())
    photos = [module.literal(trial.content).label(f"photo{number}") for number in range(columns)]
    result = await connection.execute(module.select(*photos))
    return result.scalar_one() if scalar else result.one()


async def redis(trial: Trial, **options: Any) -> Any:
    client = await trial.aenter(lib("redis.asyncio").from_url(await trial.server(servers.redis), **options))
    await client.set("photo", "line one\nline two\n" if options else trial.content)
    return await client.get("photo")


async def fakeredis(trial: Trial) -> Any:
    client = await trial.aenter(lib("fakeredis").FakeAsyncRedis())
    await client.set("photo", trial.content)
    return await client.get("photo")


source("asyncpg: bytes", NAMELESS, asyncpg_value)
source("asyncpg: a row of one column", AnyOf((NAMELESS, PICK)), lambda t: asyncpg(t, "photo"))
source("asyncpg: a row of two columns", PICK, lambda t: asyncpg(t, "photo, photo AS again"))
source("psycopg: bytes", NAMELESS, psycopg_value)
source("psycopg: a row of one column", AnyOf((NAMELESS, PICK)), lambda t: psycopg_row(t, "photo"))
source("psycopg: a row of two columns", PICK, lambda t: psycopg_row(t, "photo, photo AS again"))
source("psycopg: a dict row", PICK, lambda t: psycopg_row(t, "photo", "dict_row"))
source("psycopg: AsyncCopy", Done(None, "text/plain"), copy, kind="text")
source("psycopg2: memoryview", NAMELESS, psycopg2_value)
source("psycopg2: lobject", NAMELESS, large_object)
source("sqlite3: bytes", NAMELESS, lambda t: sqlite_row(t, "photo")[0])
source("sqlite3: a row of two columns", PICK, lambda t: sqlite_row(t, "photo, photo"))
source("sqlite3: Row of two columns", PICK, lambda t: sqlite_row(t, "photo, photo AS again", sqlite3.Row))
source("sqlite3: Blob", AnyOf((NAMELESS, Refused("thread|read"))), blob)
source("sqlite3: Blob, check_same_thread=False", NAMELESS, lambda t: blob(t, check_same_thread=False))
source("aiosqlite: bytes", NAMELESS, aiosqlite)
source("SQLAlchemy: bytes", NAMELESS, lambda t: sqlalchemy(t, scalar=True))
source("SQLAlchemy: a row of one column", AnyOf((NAMELESS, PICK)), lambda t: sqlalchemy(t, scalar=False))
source("SQLAlchemy: a row of two columns", PICK, lambda t: sqlalchemy(t, scalar=False, columns=2))
source("redis: bytes", NAMELESS, redis)
source("redis: decode_responses=True, a str of content", Refused(r"encode\(\)", "MediaError"), lambda t: redis(t, decode_responses=True))
source("fakeredis: bytes", NAMELESS, fakeredis)
