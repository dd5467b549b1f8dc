"""The command `receive`: it plays a customer against a running `serve`."""

from __future__ import annotations

import mimetypes
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from meta_media import MediaError
from meta_media.cli.options import REPORT, Connection, Flag, Report
from meta_media.cli.output import FAILED, FINE, shown
from meta_media.errors import ConfigurationError
from meta_media.protocol.media_types import inspect_media, normalise
from meta_media.transfer.threads import run_in_thread, storage_errors

__all__ = ["receive"]

_CONNECTION: Final = Connection()
_TAKEN: Final = 200  # HTTP status of an application that has taken a webhook
_SENDER: Final = re.compile(r"\+?[0-9][0-9 ()-]*|[A-Z]{2}\.[A-Za-z0-9.]+")


async def receive(
    file: Path,
    /,
    *,
    caption: str | None = None,
    sender: Annotated[str | None, Parameter(name=("--from", "--sender"))] = None,
    username: str | None = None,
    group: str | None = None,
    carrier: str | None = None,
    failure: int | None = None,
    mime_type: str | None = None,
    filename: str | None = None,
    twice: Flag = False,
    connection: Connection = _CONNECTION,
    report: Report = REPORT,
) -> int:
    """
    Play a customer who sends a file to the emulator of `meta-media serve`, and print the id of the media.

    The emulator posts a signed webhook to the URL of `meta-media serve --webhook URL`, and posts it again until the
    application responds with status 200. The result of the first post is printed.

    Args:
        file: File to send. Any type will do.
        caption: Text below it.
        sender: Phone number of the customer, or the user id of one without a number. Default: 15550001111.
        username: Username of the customer.
        group: Id of the group that the message is sent to.
        carrier: Where the webhook has the media: message, edit, echo, history, standby, call_recording, call_transcript
            or flow. Default: message.
        failure: Code of a message that Meta cannot pass on: 131051 unsupported, 131052 too large, 131060 unavailable.
        mime_type: Type of the file. Default: detected from its bytes, else from its name.
        filename: Name of a document. Default: the name of the file.
        twice: Post the webhook twice, as Meta does now and then.
        connection: How to reach the emulator. It needs WA_BASE_URL or --base-url.
        report: How to print.
    """
    from meta_media.emulator.customer import play_customer

    if sender is not None and not _SENDER.fullmatch(sender):
        raise ConfigurationError("--from must be a phone number such as +15550001111, or a user id such as US.1349")
    output = report.output()
    with storage_errors(f"read {os.fspath(file)!r}"):
        content = await run_in_thread(file.read_bytes)
    if mime_type is None:
        mime_type = await run_in_thread(_type_of, content, file.name)
    normalise(mime_type)  # raises if it is none
    given = {"caption": caption, "sender": sender, "username": username, "group_id": group, "carrier": carrier}
    given |= {"filename": filename or file.name, "twice": "1" if twice else None}
    given["failure"] = None if failure is None else str(failure)
    async with connection.client(needs_number=True) as media:
        if media.settings.base_url.endswith("facebook.com"):
            raise ConfigurationError("receive needs an emulator: set WA_BASE_URL to what meta-media serve has printed")
        given["phone_number_id"] = connection.phone_number_id or os.environ["WA_PHONE_NUMBER_ID"]
        token = os.environ["CLOUD_API_ACCESS_TOKEN"]
        received = await play_customer(media, token, content, mime_type, given)
    await output.result(shown(str(received["id"] or "")), {"file": os.fspath(file), "mime_type": mime_type, **received})
    if not (statuses := received["statuses"]):
        await output.remark("no webhook was posted: start the emulator with meta-media serve --webhook URL")
    for status in statuses:
        answer = f"answered HTTP {status}" if status else "did not answer"
        again = "" if status == _TAKEN else ": Meta repeats a webhook until the status is 200, and so does the emulator"
        await output.remark(f"the webhook at {shown(str(received['webhook']))} {answer}{again}")
    return FINE if all(status == _TAKEN for status in statuses) else FAILED


def _type_of(content: bytes, name: str) -> str:
    with suppress(MediaError):
        found = inspect_media(content, filename=name, complete=True).mime_type
        return "audio/ogg; codecs=opus" if found == "audio/ogg" else found  # as a voice message has it
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
