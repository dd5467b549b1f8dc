"""Arrays, pictures, mail, mocks, and objects of people's own that look like files."""

from __future__ import annotations

import array
import functools
import io
from collections.abc import Callable
from email.message import EmailMessage
from typing import Any, Final
from unittest import mock

from tests.libraries.driver import Trial, lib
from tests.libraries.table import NAMELESS, PHOTO, AnyOf, Refused, Table

__all__ = ["TABLE"]

TABLE: Final = Table()
source = TABLE.source


def picture(_: Trial) -> Any:
    return lib("PIL.Image").new("RGB", (64, 64), "red")


def saved(trial: Trial) -> Any:
    buffer = io.BytesIO()
    picture(trial).save(buffer, "JPEG")
    return buffer


def attachment(trial: Trial) -> Any:
    message = EmailMessage()
    message.add_attachment(trial.content, maintype="image", subtype="jpeg", filename="photo.jpg")
    return next(message.iter_attachments())


def logged(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapper(*arguments: Any) -> Any:
        return call(*arguments)

    return wrapper


class Wrapped:
    """A handle whose `read` is plain and returns an awaitable."""

    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    @logged
    async def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


def mocked(trial: Trial) -> Any:
    upload = mock.AsyncMock()
    upload.read.side_effect = io.BytesIO(trial.content).read
    return upload


async def coroutine() -> bytes:
    return b""


source("numpy: array of bytes", NAMELESS, lambda t: lib("numpy").frombuffer(t.content, dtype="uint8"))
source("numpy: array with two dimensions", NAMELESS, lambda t: lib("numpy").frombuffer(t.content, dtype="uint8").reshape(-1, 2), sizes=("small",))
source("array.array", NAMELESS, lambda t: array.array("B", t.content))
source("memoryview", NAMELESS, lambda t: memoryview(t.content))
source("Pillow: Image", Refused("Image|save"), picture)
source("Pillow: a buffer after save()", Refused(r"at its end.*seek\(0\)"), saved)
source("EmailMessage part", AnyOf((PHOTO, Refused(r"EmailMessage"))), attachment)
source("a mapping of bytes", Refused(r"dict|mapping"), lambda t: {b"key": t.content})
source("a tuple of bytes", Refused(r"tuple"), lambda t: (t.content, t.content))
source("an int", Refused(r"int\b"), lambda _: 5)
source("a list of ints", Refused(r"int\b"), lambda t: list(t.content[:100]))
source("a function", Refused(r"call it|function"), lambda _: coroutine)
source("read() is plain and returns an awaitable", NAMELESS, lambda t: Wrapped(t.content))
source("MagicMock", Refused("Mock|bytes"), lambda _: mock.MagicMock())
source("AsyncMock", Refused("Mock|bytes"), lambda _: mock.AsyncMock())
source("AsyncMock whose read() gives bytes", NAMELESS, mocked)


@TABLE.row("a coroutine", Refused(r"await"))
async def _(trial: Trial) -> None:
    work = coroutine()
    trial.stack.callback(work.close)
    await trial.upload(work)


@TABLE.row("our own stream, in its block", PHOTO)
async def _(trial: Trial) -> None:
    async with trial.media.stream(await trial.sent()) as stream:
        await trial.upload(stream)


@TABLE.row("our own stream, as it is", PHOTO)
async def _(trial: Trial) -> None:
    await trial.upload(trial.media.stream(await trial.sent()))
