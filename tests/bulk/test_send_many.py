"""`send_many`: one media to many recipients, each of whom gets it once."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from meta_media import MediaApi, SentMessage
from meta_media.emulator import Emulator
from meta_media.errors import (
    AccountRestrictedError,
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    MediaError,
    MediaNotFoundError,
    NetworkError,
)
from tests.bulk.helpers import client, outcomes, refusal
from tests.bulk.journal_helpers import serving
from tests.support.servers import Received, Server, cut, info, json_response, silence, wait_until

SENT = json_response({"messages": [{"id": "wamid.1"}], "contacts": [{"input": "1", "wa_id": "15550001111"}]})
SENDER: Final = Path(__file__).parents[1] / "scripts" / "bulk_sender.py"
MANY: Final = 10_000
BAD: Final = {f"1555{number:07}" for number in range(0, 1000, 10)}
PEOPLE = ["+15550001111", "+15550001112", "+15550001113"]


def recipients(server: Server) -> list[str]:
    """List the recipients of the requests."""
    return [json.loads(request.body)["to"].removeprefix("+") for request in server.requests]


def refusing(number: str, code: int, **headers: str) -> Any:
    """Make a step that refuses one recipient."""

    async def step(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(refusal(code, 400, "no", **headers) if json.loads(request.body)["to"] == number else SENT)

    return step


async def test_a_bad_number_stops_nobody(server: Server, api: MediaApi) -> None:
    """Each recipient has an outcome. Keywords for all are those of `send`, and a recipient's own win."""
    server.script = [SENT]
    people: list[Any] = [PEOPLE[0], "no number", (PEOPLE[1], {"caption": "Ada"}), (PEOPLE[2], {"capton": "Bob"})]
    good, bad, own, misspelt = await outcomes(api.send_many(people, "7", kind="image", caption="all"))
    assert isinstance(good.result(), SentMessage)
    assert good.result().id == own.result().id == "wamid.1"
    assert isinstance(bad.error, ConfigurationError)
    assert str(misspelt.error) == "send takes no keyword named capton"
    assert (good.attempts, bad.attempts) == (1, 0)
    sent = [json.loads(request.body) for request in server.requests]
    assert {message["to"]: message["image"]["caption"] for message in sent} == {PEOPLE[0]: "all", PEOPLE[1]: "Ada"}


@pytest.mark.parametrize("code", [131026, 131056, 130497])
async def test_a_refusal_stops_nobody(server: Server, api: MediaApi, code: int) -> None:
    """A recipient whom Meta refuses does not disturb the others, however long Meta asks to wait with this recipient."""
    server.script = [refusing(PEOPLE[1], code, retry_after="5000")]
    found = await outcomes(api.send_many(PEOPLE, "7", kind="image", concurrency=1))
    assert [outcome.error is None for outcome in found] == [True, False, True]
    assert isinstance(found[1].error, MediaError)


async def test_meta_is_asked_for_the_type_once(media: MediaApi, emulator: Emulator) -> None:
    """The type of a bare id is looked up once for all recipients; that of an upload is known."""
    uploaded = await media.upload(b"some text", filename="a.txt")
    for what, lookups in ((uploaded, 0), (uploaded.id, 1)):
        before = len(emulator.requests)
        report = await media.send_many([*PEOPLE, ("+15550001114", {"caption": "b"})], what).report()
        assert (report.succeeded, len(emulator.requests) - before) == (4, 4 + lookups)
    with pytest.raises(MediaNotFoundError):
        await media.send_many(PEOPLE, "404").report()


@pytest.mark.parametrize(
    ("first", "failed", "kind"),
    [
        (refusal(190, 401), 1, AuthenticationError),
        (refusal(368), 1, AccountRestrictedError),
        (cut(b""), 10, NetworkError),
    ],
)
async def test_a_type_that_cannot_be_looked_up(
    server: Server, api: MediaApi, first: Any, failed: int, kind: type
) -> None:
    """A dead token ends a run in the same way, whether it is met at the look-up of the type or at a message."""
    server.script = [first]
    report = await api.send_many(PEOPLE * 10, "7", concurrency=1).report()
    assert (report.failed, report.not_tried, type(report.ended_by)) == (failed, 30 - failed, kind)
    assert not any(request.body for request in server.requests), "a message was sent"


async def test_a_look_up_that_fails_once(server: Server, api: MediaApi) -> None:
    """A look-up that fails at first is done again for the first recipient, once for all. One's own kind needs none."""
    server.script = [refusal(2, 500), info("https://lookaside.fbsbx.com/7", media_id="7"), SENT]
    people = [*PEOPLE, ("+15550001114", {"kind": "document"})]
    report = await api.send_many(people, "7", concurrency=1).report()
    assert (report.succeeded, len(server.requests)) == (4, 2 + 4)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"capton": "a"}, "^send takes no keyword named capton$"),
        ({"caption": 5}, "^caption must be"),
        ({"phone_number_id": "no/id"}, "phone_number_id"),
    ],
)
async def test_wrong_keywords(api: MediaApi, wrong: dict[str, Any], sentence: str) -> None:
    """A keyword that cannot work is refused at once, for all recipients; so is a wrong id."""
    with pytest.raises(ConfigurationError, match=sentence):
        api.send_many(PEOPLE, "7", **wrong)
    with pytest.raises(ConfigurationError, match="media id must be"):
        api.send_many(PEOPLE, "no/id")


async def test_one_recipient_that_is_no_list(api: MediaApi) -> None:
    """A single number is not taken for a list of digits."""
    with pytest.raises(ConfigurationError, match="pass a list or an iterator of items, not one str"):
        api.send_many(PEOPLE[0], "7")


async def test_at_most_concurrency_at_a_time(server: Server) -> None:
    """An endless list of recipients is read as it is sent to."""
    async with client(server, concurrency=3) as api:
        server.script = [silence]
        async with api.send_many((f"+1555000{number}" for number in range(1000, 9999)), "7", kind="image"):
            await wait_until(lambda: len(server.requests) == 3)
            await asyncio.sleep(0.05)  # in which a fourth would come
    assert len(server.requests) == 3


async def test_a_journal_sends_once(tmp_path: Path) -> None:
    """With a journal, a recipient gets one message: in one run, in the next one, and whatever is sent."""
    journal = tmp_path / "run.sqlite"
    async with serving(SENT) as (server, api):
        first = await outcomes(api.send_many([PEOPLE[0], "1 (555) 000-1111"], "7", kind="image", journal=journal))
        again = await outcomes(api.send_many(PEOPLE[:2], "8", kind="image", caption="b", journal=journal))
        other = await outcomes(api.send_many(PEOPLE[:1], "8", kind="image", phone_number_id="2", journal=journal))
    assert recipients(server) == ["15550001111", "15550001112", "15550001111"]
    assert sorted(outcome.skipped for outcome in first) == [False, True]
    assert [(outcome.skipped, outcome.result().id) for outcome in again] == [(True, "wamid.1"), (False, "wamid.1")]
    assert [outcome.skipped for outcome in other] == [False]


async def test_what_may_have_been_sent_is_not_sent_again(tmp_path: Path) -> None:
    """A message that was in progress when a run ended is an error in the next ones, and is not sent again."""
    journal = tmp_path / "run.sqlite"
    async with serving(silence) as (server, api):
        async with api.send_many(PEOPLE[:1], "7", kind="image", journal=journal):
            await wait_until(lambda: len(server.requests) == 1)
        server.script = [SENT]
        for _ in range(2):
            unknown, new = await outcomes(api.send_many(PEOPLE[:2], "7", kind="image", journal=journal))
            assert isinstance(unknown.error, MediaError)
            assert unknown.error.maybe_applied
            assert "an earlier run was sending to this recipient when it ended" in str(unknown.error)
            assert new.result().id == "wamid.1"
    assert recipients(server) == ["15550001111", "15550001112"]


@pytest.mark.parametrize(
    ("failing", "error", "sent_again"), [(refusal(100), InvalidRequestError, True), (cut(b""), NetworkError, False)]
)
async def test_failures_that_may_have_been_none(tmp_path: Path, failing: Any, error: type, sent_again: bool) -> None:
    """After a refusal, the next run sends again; after a lost response, it does not."""
    journal = tmp_path / "run.sqlite"
    async with serving(failing) as (server, api):
        (failed,) = await outcomes(api.send_many(PEOPLE[:1], "7", kind="image", journal=journal))
        server.script = [SENT]
        (again,) = await outcomes(api.send_many(PEOPLE[:1], "7", kind="image", journal=journal))
    assert isinstance(failed.error, error)
    assert (again.error is None, len(server.requests)) == (sent_again, 1 + sent_again)


async def test_a_message_that_waited_is_sent_by_the_next_run(tmp_path: Path) -> None:
    """A message that was cancelled before it was sent is sent by the next run."""
    journal = tmp_path / "run.sqlite"
    async with serving(silence) as (server, api):
        blockers = [asyncio.ensure_future(api.get_info("1")) for _ in range(4)]
        await wait_until(lambda: len(server.requests) == 4)
        async with api.send_many(PEOPLE[:1], "7", kind="image", journal=journal) as run:
            await wait_until(lambda: any(item.call for item in run._in_progress))
        for blocker in blockers:
            blocker.cancel()
        await asyncio.wait(blockers)
        server.script = [SENT]
        (sent,) = await outcomes(api.send_many(PEOPLE[:1], "7", kind="image", journal=journal))
    assert sent.result().id == "wamid.1"


class Phones:
    """A server that takes each message at once, and its time to say so. Some people cannot be reached."""

    def __init__(self) -> None:
        self.messages: Counter[str] = Counter()  # by person
        self._dice = random.Random(0)

    async def step(self, request: Received, writer: asyncio.StreamWriter) -> None:
        """Take a message, or refuse it."""
        number = json.loads(request.body)["to"].removeprefix("+")
        bad = number in BAD
        self.messages[number] += not bad
        await asyncio.sleep(self._dice.uniform(0, 0.005))  # in which it has arrived and is not acknowledged
        writer.write(refusal(131026) if bad else SENT)


async def sending(base_url: str, folder: Path, kill_at: Callable[[], bool] | None = None) -> dict[str, list[str]]:
    """Send in a process of its own, to the end or until it is killed. Return who was named with each result, in order."""
    order = [base_url, str(folder / "run.sqlite"), str(MANY)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with (folder / "told").open("w+") as told:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(SENDER), *order, stdout=told, env=environment
        )
        if kill_at is not None:
            await wait_until(kill_at)
            process.kill()
        assert await process.wait() == (0 if kill_at is None else -signal.SIGKILL)
        told.seek(0)
        results: dict[str, list[str]] = {}
        for result, who in map(str.split, told):
            results.setdefault(result, []).append(who)
    return results


@pytest.mark.slow
async def test_ten_thousand_people_of_whom_a_hundred_are_bad(tmp_path: Path) -> None:
    """Killed half way and resumed, a run sends to each person once. It names those who may have got it, and holds no more."""
    phones = Phones()
    async with Server(phones.step) as server:
        before = await sending(server.base_url, tmp_path, lambda: phones.messages.total() >= MANY // 2)
        assert "unknown" not in before
        after = await sending(server.base_url, tmp_path)
    got, good = set(+phones.messages), {f"1555{number:07}" for number in range(MANY)} - BAD
    assert set(phones.messages.values()) == {0, 1}, "somebody has two messages"
    assert set(before["sent"]) <= set(after["skipped"]), "a message was acknowledged, and then forgotten"
    assert 0 < len(after["unknown"]) <= 16, "only messages under way may be unknown"
    assert got - set(after["unknown"]) == {*after["skipped"], *after["sent"]} == good - set(after["unknown"])
    assert set(before["InvalidRequestError"]) == set(after["InvalidRequestError"]) == BAD
    held = [int(blocks) for blocks in after["held"][2:]]  # the first hundred failures are kept
    sys.stdout.write(f"{len(before['sent'])} before, {len(after['unknown'])} unknown; objects held: {held}\n")
    assert held[-1] - held[0] < MANY, "an outcome that is kept is at least five objects"  # meanwhile, httpx is imported
