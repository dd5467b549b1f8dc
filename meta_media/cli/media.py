"""The commands about a few media: info and send."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from meta_media.cli.many import Reporter, in_order
from meta_media.cli.options import Connection, Ids, Report
from meta_media.cli.output import printable, result_object
from meta_media.cli.summaries import Labels
from meta_media.protocol.media_types import ACCEPTED, Kind, normalise
from meta_media.protocol.models import MediaInfo, SentMessage

__all__ = ["info", "send"]

_CONNECTION = Connection()
_REPORT = Report()


async def info(
    ids: Ids,
    /,
    *,
    connection: Connection = _CONNECTION,
    report: Report = _REPORT,
) -> int:
    """
    Show what Meta knows of media: type, size, SHA-256, and until when its URL lives.

    Args:
        ids: Media ids, from an upload or a webhook.
        connection: Whom to talk to.
        report: How to say it.
    """
    output = report.output()
    async with connection.client() as media:

        async def work(media_id: str) -> MediaInfo:
            return await media.get_info(media_id, phone_number_id=connection.phone_number_id)

        def told(_: str, found: MediaInfo) -> tuple[str, dict[str, Any]]:
            facts = {**result_object(found), "url_expires_at": found.url_expires_at}
            lines = [f"{name:<18}{printable(str(value))}" for name, value in facts.items() if value is not None]
            return "\n".join(lines) + "\n" * (len(ids) > 1), facts

        await Reporter(output=output, words=Labels(key="id", items="ids"), told=told).tell(in_order(ids, work))
    return output.status


async def send(
    to: Annotated[list[str], Parameter(name="TO", negative=())],
    /,
    *,
    media_id: Annotated[str, Parameter(name="--id")],
    kind: Kind | None = None,
    caption: str | None = None,
    filename: str | None = None,
    voice: Annotated[bool | None, Parameter(negative="--no-voice")] = None,
    reply_to: str | None = None,
    connection: Connection = _CONNECTION,
    report: Report = _REPORT,
) -> int:
    """
    Send uploaded media to people, and print the ids of the messages, in the order of the people.

    Args:
        to: Phone numbers with country code, such as +15550001111.
        media_id: The media id, from an upload on the same number.
        kind: The sort of message. Default: Meta is asked for the media's type, which decides.
        caption: The text below an image, video or document.
        filename: What a document is called.
        voice: Whether an audio is shown as a voice note.
        reply_to: The id of the message that this one answers.
        connection: Whom to talk to.
        report: How to say it.
    """
    output = report.output()
    extras: dict[str, Any] = {"caption": caption, "filename": filename, "voice": voice, "reply_to": reply_to}
    async with connection.client(needs_number=True) as media:
        decided = kind or _kind((await media.get_info(media_id)).mime_type)

        async def work(number: str) -> SentMessage:
            return await media.send(number, media_id, kind=decided, **extras)

        def told(_: str, sent: SentMessage) -> tuple[str, dict[str, Any]]:
            return printable(sent.id), result_object(sent)

        await Reporter(output=output, words=Labels(key="to", items="messages"), told=told).tell(in_order(to, work))
    return output.status


def _kind(mime_type: str) -> Kind:
    """Return the sort of message that shows a type; whatever else customers sent goes as a document."""
    row = ACCEPTED.get(normalise(mime_type))
    return row.kind if row else "document"
