"""Models from JSON: the documented form, the recorded form, and everything else."""

from __future__ import annotations

import base64
import json
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meta_media.errors import ApiError, ConfigurationError
from meta_media.library import LibraryEntry
from meta_media.protocol.convert import structure, timestamp
from meta_media.protocol.models import (
    DeletedMedia,
    DownloadedMedia,
    InboundFailure,
    InboundMedia,
    MediaInfo,
    MessageStatus,
    Progress,
    SentMessage,
    UploadedMedia,
    Webhook,
    media_id_of,
)
from meta_media.protocol.recipient import Recipient
from meta_media.protocol.secrets import hide_query

REPLIES = Path(__file__).parents[1] / "replies"
HEX = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
BASE64 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
URL = "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1045500012345678&ext=1795342300&hash=ATz0"
INFO: dict[str, Any] = {"id": "1045500012345678", "url": URL, "mime_type": "image/jpeg", "sha256": HEX, "file_size": 3}
INBOUND = InboundMedia(id="1045500012345678", kind="image", mime_type="image/jpeg", url=URL, message={"a": URL})
WRONG: tuple[object, ...] = (None, 1, 1.5, True, [], ["x"], {}, {"a": 1})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
CLASSES: list[type[Any]] = [UploadedMedia, MediaInfo, DeletedMedia, SentMessage]


def recorded(name: str) -> Any:
    """Load a recorded response."""
    return json.loads((REPLIES / name).read_bytes())


@pytest.mark.parametrize(
    ("name", "cls", "expected"),
    [
        (
            "media_info_official.json",
            MediaInfo,
            MediaInfo(id="1045500012345678", url=URL, mime_type="image/jpeg", sha256=HEX, file_size=303833),
        ),
        (
            "media_info_recorded.json",
            MediaInfo,
            MediaInfo(
                id="1045500012345678",
                url=URL.replace("&ext", "&source=getMedia&ext"),
                mime_type="image/jpeg",
                sha256=HEX,
                file_size=49664,
            ),
        ),
        ("uploaded.json", UploadedMedia, UploadedMedia(id="1045500012345678")),
        ("deleted.json", DeletedMedia, DeletedMedia(success=True)),
        (
            "sent.json",
            SentMessage,
            SentMessage(id="wamid.HBgLMTU1NTAwMDExMTE", wa_id="15550001111", input="+15550001111"),
        ),
        (
            "sent_template.json",
            SentMessage,
            SentMessage(
                id="wamid.HBgLMTU1NTAwMDExMTE",
                wa_id="15550001111",
                input="+15550001111",
                status="held_for_quality_assessment",
            ),
        ),
    ],
)
def test_responses(name: str, cls: type[Any], expected: object) -> None:
    """The responses of Meta's guide and the recorded ones give the same values."""
    assert structure(cls, recorded(name)) == expected


@pytest.mark.parametrize(
    ("given_size", "expected"), [(0, 0), (49664, 49664), ("303833", 303833), ("0", 0), ("007", 7), (10**15, 10**15)]
)
def test_sizes(given_size: object, expected: int) -> None:
    """A size is a number or, as in Meta's guide, digits."""
    assert structure(MediaInfo, INFO | {"file_size": given_size}).file_size == expected


@pytest.mark.parametrize(
    "wrong", [-1, "-1", "", " 1", "1 ", "1\n", "1.0", "1e3", "0x1", "\u0661", "9" * 19, 1.0, True, [], {}]
)
def test_sizes_that_are_none(wrong: object) -> None:
    """Anything else as a size is an error with its path."""
    with pytest.raises(ValueError, match=r"expected a number of bytes, got .* @ response\.file_size$"):
        structure(MediaInfo, INFO | {"file_size": wrong})


@given(st.binary(min_size=32, max_size=32))
def test_digests(digest: bytes) -> None:
    """SHA-256 in hex of either case, or in base64, is the same 64 lower-case hex digits."""
    spellings = (digest.hex(), digest.hex().upper(), base64.b64encode(digest).decode())
    assert {structure(MediaInfo, INFO | {"sha256": text}).sha256 for text in spellings} == {digest.hex()}


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        "",
        "zz",
        HEX[:-1],
        HEX + "0",
        HEX + "\n",
        HEX[:-1] + "g",
        BASE64[:-1],
        BASE64 + "\n",
        base64.b64encode(bytes(31)).decode(),
        base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        "é" * 44,
        7,
        [HEX],
    ],
)
@pytest.mark.parametrize(("cls", "data"), [(MediaInfo, INFO), (UploadedMedia, {"id": "1"})])
def test_digests_that_are_none(cls: type[Any], data: dict[str, Any], wrong: object) -> None:
    """Anything else as a digest is an error."""
    with pytest.raises(ValueError, match=r"^expected a SHA-256 in hex or base64, got .* @ response\.sha256$"):
        structure(cls, data | {"sha256": wrong})


TEXT_NAMES = {"id", "url", "mime_type", "filename"}
TEXTS = [
    (UploadedMedia, {"id": "1"}, "id"),
    *((MediaInfo, INFO, name) for name in ("id", "url", "mime_type", "messaging_product")),
]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("cls", "data", "name"), TEXTS)
def test_text_is_text(cls: type[Any], data: dict[str, Any], name: str, wrong: object) -> None:
    """A null, number or container in place of a text is an error with its path."""
    with pytest.raises(ValueError, match=rf"^expected str, got .* @ response\.{name}$"):
        structure(cls, data | {name: wrong})


@pytest.mark.parametrize("given_value", [*WRONG, "", "7", "1" * 64, "AB" * 32, BASE64, -1, 10**18])
@pytest.mark.parametrize("name", [*INFO, "messaging_product"])
def test_usual_keys(name: str, given_value: object) -> None:
    """A response with the usual keys gives the value, or the error, of one that has another key as well."""
    usual, found = INFO | {"messaging_product": "whatsapp", name: given_value}, []
    for data in (usual, usual | {"other": 1}):
        try:
            found.append(str(structure(MediaInfo, data)))
        except ValueError as error:
            found.append(str(error))
    assert found[0] == found[1].replace("'other': 1", "")


@pytest.mark.parametrize("wrong", [*WRONG, "true"])
def test_truth_is_not_guessed(wrong: object) -> None:
    """Only true and false are booleans; a truthy text is an error."""
    if wrong is True:
        assert structure(DeletedMedia, {"success": wrong}).success is True
        return
    with pytest.raises(ValueError, match=r"^expected bool, got .* @ response\.success$"):
        structure(DeletedMedia, {"success": wrong})


def test_null_is_nothing_where_nothing_is_allowed() -> None:
    """An optional text that is null is None, and of a wrong type an error."""
    assert structure(UploadedMedia, {"id": "1", "filename": None}).filename is None
    with pytest.raises(ValueError, match=r"^expected str, got 7 @ response\.filename$"):
        structure(UploadedMedia, {"id": "1", "filename": 7})


@pytest.mark.parametrize(
    ("cls", "data", "sentence"),
    [
        (UploadedMedia, {}, "'id' is missing @ response.id"),
        (DeletedMedia, {}, "'success' is missing @ response.success"),
        (MediaInfo, {"mime_type": "image/png", "url": "u"}, "'id' is missing @ response.id"),
        (
            MediaInfo,
            {"mime_type": 3, "id": "1"},
            "'url' is missing @ response.url; expected str, got 3 @ response.mime_type",
        ),
        (UploadedMedia, [], "expected an object, got [] @ response"),
        (MediaInfo, "text", "expected an object, got 'text' @ response"),
        (MediaInfo, None, "expected an object, got None @ response"),
        (SentMessage, {}, "expected the id of one message @ response"),
    ],
)
def test_sentences(cls: type[Any], data: object, sentence: str) -> None:
    """The error is one sentence: the expected value, the found one, and its path."""
    with pytest.raises(ValueError, match="response") as caught:
        structure(cls, data)
    assert str(caught.value) == sentence


def test_sentences_stay_short() -> None:
    """An error quotes a wrong value in short, and no signature of a URL."""
    with pytest.raises(ValueError, match="expected str") as caught:
        structure(MediaInfo, INFO | {"url": [URL], "id": ["x" * 10_000]})
    assert len(str(caught.value)) < 200
    assert "ATz0" not in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "data"), [(UploadedMedia, {"id": "1"}), (MediaInfo, INFO), (DeletedMedia, {"success": True})]
)
def test_unknown_keys_are_kept(cls: type[Any], data: dict[str, Any]) -> None:
    """Unknown keys are kept in `extra`, and change nothing else."""
    more = {"new": {"nested": [1, None, "x"]}, "extra": "theirs", "": 0}
    value = structure(cls, data | more)
    assert value.extra == more
    assert value == structure(cls, data)
    assert structure(cls, data).extra == {}


def test_input_is_left_alone() -> None:
    """The JSON that was passed is not changed."""
    data = INFO | {"new": 1}
    structure(MediaInfo, data)
    assert data == INFO | {"new": 1}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"messages": [{"id": "w"}]}, SentMessage(id="w")),
        ({"messages": [{"id": "w"}, {"id": "x"}], "contacts": []}, SentMessage(id="w")),
        ({"messages": [{"id": "w", "message_status": "accepted"}]}, SentMessage(id="w", status="accepted")),
        ({"messages": [{"id": "w", "message_status": None}], "contacts": [None]}, SentMessage(id="w")),
        ({"messages": [{"id": "w"}], "contacts": [{"wa_id": 7, "user_id": [], "input": {}}]}, SentMessage(id="w")),
        (
            {"messages": [{"id": "w"}], "contacts": [{"input": "US.1", "user_id": "US.1"}]},
            SentMessage(id="w", user_id="US.1", input="US.1"),
        ),
        ({"messages": [{"id": "w"}], "contacts": {"wa_id": "1"}}, SentMessage(id="w")),
        ({"messages": [{"id": "w"}], "contacts": [{"wa_id": "1"}, {"wa_id": "2"}]}, SentMessage(id="w", wa_id="1")),
    ],
)
def test_sent_messages(data: object, expected: SentMessage) -> None:
    """A response to a send needs the message's id; other values of the wrong type are dropped."""
    assert structure(SentMessage, data) == expected


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "x",
        {},
        {"messages": None},
        {"messages": []},
        {"messages": ["w"]},
        {"messages": [{}]},
        {"messages": [{"id": 7}]},
    ],
)
def test_sent_messages_without_an_id(data: object) -> None:
    """A response to a send without an id is an error, because no webhook could be matched with it."""
    with pytest.raises(ValueError, match=r"^expected the id of one message @ response$"):
        structure(SentMessage, data)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (URL, datetime(2026, 11, 22, 10, 11, 40, tzinfo=UTC)),
        (f"{URL}&ext2=1", datetime(2026, 11, 22, 10, 11, 40, tzinfo=UTC)),
        ("https://a.example/?ext=1795342300", datetime(2026, 11, 22, 10, 11, 40, tzinfo=UTC)),
        ("https://a.example/?ext=1795342300999&mid=1", datetime(2026, 11, 22, 10, 11, 40, tzinfo=UTC)),
        ("https://a.example/?next=1795342300", None),
        ("https://a.example/?ext=179534230", None),
        ("https://a.example/?ext=17953423001", None),
        ("https://a.example/?ext=17953423000000", None),
        ("https://a.example/?ext=never", None),
        ("https://a.example/?ext=", None),
        ("https://a.example/ext=1795342300", None),
        ("https://a.example/", None),
        ("", None),
    ],
)
def test_expiry_of_urls(url: str, expected: datetime | None) -> None:
    """The expiry of a URL is its parameter `ext`, in seconds or milliseconds; None without a valid one."""
    info = MediaInfo(id="1", url=url, mime_type="image/png")
    inbound = InboundMedia(id="1", kind="image", url=url, mime_type="image/png")
    assert (info.url_expires_at, inbound.url_expires_at) == (expected, expected)


def test_expiry_without_a_url() -> None:
    """A webhook without a URL has no expiry."""
    assert InboundMedia(id="1", kind="image", mime_type="image/png").url_expires_at is None


@pytest.mark.parametrize(
    ("given_time", "expected"),
    [
        ("1795342000", datetime(2026, 11, 22, 10, 6, 40, tzinfo=UTC)),
        (1795342000, datetime(2026, 11, 22, 10, 6, 40, tzinfo=UTC)),
        ("0", datetime(1970, 1, 1, tzinfo=UTC)),
        ("99999999999", datetime(5138, 11, 16, 9, 46, 39, tzinfo=UTC)),
    ],
)
def test_timestamps(given_time: object, expected: datetime) -> None:
    """Meta's timestamps are unix seconds as text; here they are aware datetimes."""
    assert timestamp(given_time) == expected


@pytest.mark.parametrize("wrong", ["", "-1", "1.5", "1 ", "now", "9" * 12, 10**11, -1, 1.5, "\u0661", True, [], {}])
def test_timestamps_that_are_none(wrong: object) -> None:
    """Anything else as a timestamp is an error."""
    with pytest.raises(TypeError, match=r"^expected unix seconds, got "):
        timestamp(wrong)


@pytest.mark.parametrize("value", [structure(MediaInfo, INFO), INBOUND, [structure(MediaInfo, INFO)]])
def test_signatures_are_not_shown(value: object) -> None:
    """A repr shows the path of a URL and hides its query."""
    assert "https://lookaside.fbsbx.com/whatsapp_business/attachments/?…'" in repr(value)
    assert "ATz0" not in repr(value)
    assert "1795342300" not in f"{value}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example/b?c=d", "https://a.example/b?…"),
        ("https://a.example/b?", "https://a.example/b?…"),
        ("https://a.example/b?c?d", "https://a.example/b?…"),
        ("https://a.example/b", "https://a.example/b"),
        ("", ""),
    ],
)
def test_hide_query(url: str, expected: str) -> None:
    """A hidden query is replaced by `?…`."""
    assert hide_query(url) == expected


VALUES = [
    structure(UploadedMedia, {"id": "1"}),
    structure(MediaInfo, INFO),
    structure(DeletedMedia, {"success": True}),
    structure(SentMessage, {"messages": [{"id": "w"}]}),
    INBOUND,
    InboundFailure(errors=(ApiError("no"),)),
    MessageStatus(message_id="w", status="failed", recipient=Recipient.user("US.1"), errors=(ApiError("no"),)),
    Webhook(media=(INBOUND,)),
    DownloadedMedia(path=Path("x"), size=1, sha256=HEX, mime_type="image/png"),
    Progress(transferred=1),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_frozen(value: attrs.AttrsInstance) -> None:
    """A value cannot be changed, and takes no new attribute."""
    for name in (attrs.fields(type(value))[0].name, "another"):
        with pytest.raises(AttributeError):
            setattr(value, name, "other")


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_hashed_and_pickled(value: object) -> None:
    """Values can be hashed and pickled."""
    assert {value, pickle.loads(pickle.dumps(value))} == {value}


def outcome(cls: type[Any], data: object) -> Any:
    """Return the value or the documented error; any other exception fails the test."""
    try:
        return structure(cls, data)
    except ValueError as error:
        return error


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
@given(data=JSON)
def test_any_json_gives_a_value_or_a_sentence(cls: type[Any], data: object) -> None:
    """Any JSON gives a value of the class or a ValueError with a path."""
    value = outcome(cls, data)
    assert isinstance(value, cls) or "@ response" in str(value)


@pytest.mark.parametrize(
    "cls", [MediaInfo, *(pytest.param(cls, marks=pytest.mark.slow) for cls in (UploadedMedia, DeletedMedia))]
)
@settings(max_examples=50)
@given(data=st.data())
def test_any_values_under_the_right_keys(cls: type[Any], data: st.DataObject) -> None:
    """Any JSON under the documented keys gives a value with the same texts, or a ValueError with a path."""
    names = [field.name for field in attrs.fields(cls) if field.name != "extra"]
    fields = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(names, JSON)))
    value = outcome(cls, fields)
    if isinstance(value, ValueError):
        assert "@ response." in str(value)
    else:
        texts = {name: text for name, text in fields.items() if isinstance(text, str) and name in TEXT_NAMES}
        assert {name: getattr(value, name) for name in texts} == texts


NOW = datetime(2026, 11, 28, tzinfo=UTC)
ENTRY = LibraryEntry(
    id="7", sha256=HEX, mime_type="", phone_number_id="1", uploaded_at=NOW, expires_at=NOW, used_at=NOW
)


@pytest.mark.parametrize(
    "value",
    ["7", 7, UploadedMedia(id="7"), MediaInfo(id="7", url="", mime_type=""), InboundMedia(id="7", kind="image"), ENTRY],
    ids=lambda value: type(value).__name__,
)
def test_media_ids(value: object) -> None:
    """An id, or a value that has one, may be passed as a media id."""
    assert media_id_of(value) == "7"


class Theirs:
    """An object of another library."""

    id = "7"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "the media id must be digits, not None: upload the file first, and pass the result"),
        (True, "the media id must be digits, not True: upload the file first, and pass the result"),
        (b"7", "the media id must be digits, not b'7': upload the file first, and pass the result"),
        ("wamid.x", "the media id must be digits, not 'wamid.x': upload the file first, and pass the result"),
        ({"id": "7"}, "the media id must be a str, or a value that has one such as UploadedMedia, not dict"),
        (
            SentMessage(id="wamid.x"),
            "the media id must be a str, or a value that has one such as UploadedMedia, not SentMessage",
        ),
        (
            DownloadedMedia(path=None, size=1, sha256="", mime_type="", media_id="7"),
            "the media id must be a str, or a value that has one such as UploadedMedia, not DownloadedMedia: pass its media_id",
        ),
        (
            Theirs(),
            "the media id must be a str, or a value that has one such as UploadedMedia, not Theirs: pass its id",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_media_id(value: object, sentence: str) -> None:
    """Anything else is refused in a sentence that names the attribute to pass, if there is one."""
    with pytest.raises(ConfigurationError) as caught:
        media_id_of(value)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"sender": "15550001111", "user_id": "US.1"}, Recipient.phone("15550001111")),
        ({"user_id": "US.1"}, Recipient.user("US.1")),
        ({"parent_user_id": "US.ENT.1"}, Recipient.user("US.ENT.1")),
        ({"sender": "15550001111", "group_id": "Y2FwaV9n=="}, Recipient.group("Y2FwaV9n==")),
        ({"sender": "15550001111", "group_id": "no group"}, Recipient.phone("15550001111")),
        ({"sender": "somebody"}, None),
        (
            {"carrier": "echo", "sender": "15550009999", "message": {"to": "15550001111"}},
            Recipient.phone("15550001111"),
        ),
        ({"carrier": "echo", "sender": "15550009999", "message": {"recipient": "US.1"}}, Recipient.user("US.1")),
        ({"carrier": "echo", "sender": "15550009999", "user_id": "US.1"}, Recipient.user("US.1")),
        ({"carrier": "echo", "sender": "15550009999"}, None),
    ],
)
def test_reply_addresses(fields: dict[str, Any], expected: Recipient | None) -> None:
    """A reply goes to the group, else to the number, else to the user id; never to the business that sent an echo."""
    assert InboundMedia(id="7", kind="image", **fields).reply_address == expected


def test_where_to_ask_again() -> None:
    """A message that could not be received has an address, too."""
    assert InboundFailure(errors=(), user_id="US.1").reply_address == Recipient.user("US.1")
