"""Every place in which webhooks have media: whole, with each field damaged, all in one POST, and any JSON at all."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from meta_media.errors import InvalidWebhookError
from meta_media.protocol.models import InboundMedia
from meta_media.protocol.recipient import Recipient
from meta_media.protocol.webhooks import inbound_media, parse_webhook
from tests.protocol.webhook_samples import EXPECTED, ID, SAMPLES, Sample, webhook

MAX_BODY_SIZE = 3 * 2**20  # bytes; Meta's page "Webhooks"


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_samples(sample: Sample) -> None:
    """Each place in which media stands is read: the file, the person, the message, the number and where to reply."""
    (media,) = parse_webhook(json.dumps(sample.payload)).media
    expected = {**EXPECTED, "timestamp": datetime(2026, 11, 22, 10, 6, 40, tzinfo=UTC), **sample.more}
    assert (media.carrier, media.kind, media.sender) == (sample.carrier, sample.kind, sample.sender)
    assert {name: getattr(media, name) for name in expected} == expected
    assert media.reply_address == sample.reply_address
    assert media.message["id"] == "wamid.1"


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_nothing_else_is_in_a_sample(sample: Sample) -> None:
    """What is read as media is neither a failure nor unread."""
    found = parse_webhook(sample.payload)
    assert (found.statuses, found.failures, found.unread) == ((), (), 0)


def places(value: object) -> Iterator[tuple[Any, Any]]:
    """List all places of a JSON value, as their container and key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from places(inner)


REMOVED = object()
DAMAGES: tuple[object, ...] = (REMOVED, None, 7, -1.5, "x", "", [], {}, True, [None], {"x": {}}, 10**5000)


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_a_media_is_lost_only_with_its_id(sample: Sample) -> None:
    """Each field removed, nulled or of another type, one at a time: as long as the id stands, the media is found."""
    for number in range(len(list(places(sample.payload)))):
        for damage in DAMAGES:
            payload = sample.payload
            container, key = list(places(payload))[number]
            if damage is REMOVED:
                del container[key]
            else:
                container[key] = damage
            try:
                found = [media.id for media in inbound_media(payload)]
            except InvalidWebhookError:
                found = []
            stands = any(media_id_in(value) for value in places(payload))
            assert found == [ID] if stands else ID not in found, (key, damage)


def media_id_in(place: tuple[Any, Any]) -> bool:
    """Return whether the sample's media id stands at a place, as a value of its own or in the JSON of a Flow."""
    value = place[0][place[1]]
    return value == ID or (isinstance(value, str) and f'"id": "{ID}"' in value)


def test_all_in_one_post() -> None:
    """Several entries, changes, messages and statuses of one POST are read in their order, each with its own people."""
    names = list(SAMPLES)
    statuses = [{"id": f"wamid.{status}", "status": status} for status in ("sent", "delivered", "read", "played")]
    changes = [SAMPLES[name].change for name in names]
    more = {"field": "messages", "value": {"statuses": statuses}}
    together = webhook(*changes, more)
    together["entry"] += webhook(*reversed(changes))["entry"]
    found = parse_webhook(json.dumps(together))
    expected = [(SAMPLES[name].carrier, SAMPLES[name].reply_address) for name in names]
    assert [(media.carrier, media.reply_address) for media in found.media] == expected + expected[::-1]
    assert [(status.message_id, status.status) for status in found.statuses] == [
        ("wamid.sent", "sent"),
        ("wamid.delivered", "delivered"),
        ("wamid.read", "read"),
        ("wamid.played", "played"),
    ]
    assert (found.failures, found.unread) == ((), 0)


def test_threads_of_a_history_have_their_own_people() -> None:
    """In a history, the person of one thread is not taken for that of another; a thread may have no context."""
    sample = SAMPLES["history"].payload
    (history,) = sample["entry"][0]["changes"][0]["value"]["history"]
    (thread,) = history["threads"]
    message = {name: value for name, value in thread["messages"][0].items() if name != "from_user_id"}
    other = {"context": {"user_id": "US.2", "username": "@other"}, "messages": [message | {"from": "15550002222"}]}
    history["threads"] = [thread, other, {"messages": [message]}, {"context": "x", "messages": [message]}]
    found = inbound_media(sample)
    assert [media.username for media in found] == ["@zoe", "@other", None, None]
    assert [media.user_id for media in found][1:] == ["US.2", None, None]


def test_a_history_that_is_declined() -> None:
    """A business that does not share its history has the reason as a failure."""
    error = {"code": 2593109, "title": "History sync is turned off by the business from the WhatsApp Business App"}
    found = parse_webhook(webhook({"field": "history", "value": {"history": [{"errors": [error]}]}}))
    ((failure,), unread) = (found.failures, found.unread)
    assert ([error.code for error in failure.errors], failure.reply_address, unread) == ([2593109], None, 0)


def anything(seed: random.Random, depth: int = 0) -> Any:
    """Make a JSON value, whose keys and texts are mostly Meta's own."""
    kind = seed.randrange(9 if depth < 7 else 5)
    if kind >= 7:
        return {seed.choice(WORDS): anything(seed, depth + 1) for _ in range(seed.randrange(6))}
    if kind >= 5:
        return [anything(seed, depth + 1) for _ in range(seed.randrange(4))]
    return seed.choice((None, True, seed.randrange(-9, 10**9), seed.random() * 1e300, seed.choice(WORDS), "\ud800"))


WORDS = sorted({key for sample in SAMPLES.values() for _, key in places(sample.payload) if isinstance(key, str)})
WORDS += [
    "",
    "x",
    "image",
    "statuses",
    "status",
    "errors",
    "code",
    "error_data",
    "details",
    "recipient_id",
    ID,
    "1" * 30,
]


@pytest.mark.parametrize("count", [1000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_random_values(count: int) -> None:
    """Random JSON, alone and at any place of a sample, raises nothing but InvalidWebhookError."""
    seed, samples, webhooks = random.Random(13), list(SAMPLES.values()), 0
    for number in range(count):
        payload = anything(seed) if number % 4 == 0 else seed.choice(samples).payload
        for _ in range(seed.randrange(4) if number % 4 else 0):
            container, key = seed.choice(list(places(payload)) or [([0], 0)])
            container[key] = anything(seed)
        try:
            found = parse_webhook(payload if number % 3 else json.dumps(payload))
        except InvalidWebhookError:
            continue
        webhooks += 1
        addresses = [media.reply_address for media in found.media] + [one.reply_address for one in found.failures]
        assert all(isinstance(address, Recipient | None) for address in addresses)
        assert all(repr(part) for part in (*found.media, *found.failures, *found.statuses))
    assert webhooks > count / 2


def wide(part: str) -> Callable[[], str]:
    """Make a webhook of 3 MB, of many equal messages."""
    head, tail = '{"entry":[{"changes":[{"value":{"messages":[', "{}]}}]}]}"
    return lambda: head + (part + ",") * ((MAX_BODY_SIZE - len(head) - len(tail)) // (len(part) + 1)) + tail


LARGE: dict[str, Callable[[], str]] = {
    "brackets": lambda: "[" * MAX_BODY_SIZE,
    "objects": lambda: '{"entry":' * (MAX_BODY_SIZE // 9),
    "a deep value": lambda: '{"entry":' + "[" * (MAX_BODY_SIZE // 2) + "]" * (MAX_BODY_SIZE // 2) + "}",
    "a deep media": lambda: '{"entry":[{"changes":[{"value":{"messages":[' + '{"image":' * 300_000,
    "a long number": lambda: '{"entry":' + "1" * MAX_BODY_SIZE + "}",
    "one text": lambda: json.dumps(webhook({"value": {"messages": [{"type": "x" * MAX_BODY_SIZE}]}})),
    "empty messages": wide("{}"),
    "media": wide('{"image":{"id":"1"}}'),
    "misfits": wide('{"image":{"id":"1","url":7,"voice":7},"from":7}'),
    "contacts and threads": lambda: json.dumps(
        webhook({"value": {"contacts": [{}] * 500_000, "history": [{"threads": [{}] * 500_000}]}})
    ),
}


DEEP = ("brackets", "objects", "a deep value", "a deep media", "a long number")  # no JSON, or deeper than Python goes


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in DEEP)) for name in LARGE])
def test_large_bodies(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The largest body that Meta sends, deep or wide, is read or refused."""
    caplog.set_level("ERROR")  # the misfits are logged one by one
    body = LARGE[name]()
    if name in DEEP:
        with pytest.raises(InvalidWebhookError):
            parse_webhook(body)
    else:
        found = parse_webhook(body)
        assert len(found.media) + found.unread > 0 or "threads" in name


def test_unread_parts_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """However many parts are unread, one record says how many they are, and what the first is."""
    parse_webhook(webhook({"value": {"messages": [{"type": "x" * 5000}, {}, {"image": {"id": "../1"}}]}}))
    (record,) = caplog.records
    assert record.getMessage().startswith("a webhook has a message of type ")
    assert record.getMessage().endswith(" without media, which is not read; unread parts: 3")
    assert len(record.getMessage()) < 200


@pytest.mark.parametrize(
    "body", [b'{"entry":"\xff"}', b'{"entry":[{"changes":[{"value":{"messages":[{"id":"\xc3"}]}}]}]}']
)
def test_bad_utf_8(body: bytes) -> None:
    """A body that is not UTF-8 is no webhook."""
    with pytest.raises(InvalidWebhookError):
        parse_webhook(body)


def test_half_a_character() -> None:
    """Text that ends in the half of a surrogate pair, as some program may cut it, loses no media."""
    body = json.dumps(SAMPLES["image"].payload).replace("leaf", r"\ud83c")
    assert [(media.id, media.caption) for media in inbound_media(body)] == [(ID, "\ud83c")]


@pytest.mark.parametrize(
    "wrong",
    ["1/../2", "1?fields=x", "https://a.example/1", "1\n", " 1", "", "1" * 129, pytest.param(10**5000, id="long")],
)
def test_ids_that_are_none(wrong: object) -> None:
    """An id that could lead a request elsewhere is none, in any carrier; the media is counted as unread."""
    for sample in SAMPLES.values():
        payload = sample.payload
        for container, key in list(places(payload)):
            if container[key] == ID:
                container[key] = wrong
            elif isinstance(container[key], str) and ID in container[key] and key == "response_json":
                container[key] = container[key].replace(f'"{ID}"', json.dumps(wrong if wrong != 10**5000 else "/"))
        found = parse_webhook(payload)
        assert (found.media, found.unread) == ((), 1)


def test_values_are_as_they_came() -> None:
    """Reading changes nothing of a decoded payload."""
    for sample in SAMPLES.values():
        payload = sample.payload
        parse_webhook(payload)
        assert payload == sample.payload


def test_an_echo_is_by_the_number_of_the_business() -> None:
    """Without its metadata, a history's message that says whom it went to is still replied to there."""
    payload = SAMPLES["history, of the business"].payload
    del payload["entry"][0]["changes"][0]["value"]["metadata"]
    (media,) = inbound_media(payload)
    assert (media.carrier, media.reply_address) == ("history", Recipient.phone("15550001111"))
    assert InboundMedia(id="1", kind="image", sender="15550001111").reply_address == media.reply_address
