"""Requests before they are sent and replies after they came. `replies/` has Meta's own, with made-up ids and hashes."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meta_media import __version__
from meta_media.errors import (
    AccountRestrictedError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    FileTooLargeError,
    InvalidMediaError,
    InvalidRequestError,
    MediaError,
    MediaNotFoundError,
    Operation,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UntrustedUrlError,
    UploadRejectedError,
)
from meta_media.protocol.models import DeletedMedia, MediaInfo, SentMessage, UploadedMedia
from meta_media.protocol.requests import Request, graph_request, media_request, message_body, redirected_request
from meta_media.protocol.responses import MAX_REPLY, disposition_filename, parse_error, parse_response
from meta_media.protocol.settings import Settings

REPLIES = Path(__file__).parents[1] / "replies"
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
TYPES = {".json": "application/json; charset=UTF-8", ".txt": "text/plain", ".html": "text/html; charset=utf-8"}
ID = "1045500012345678"
MEDIA_URL = f"https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid={ID}&ext=1795342300&hash=ATz0"


def refused(name: str, operation: Operation, status: int) -> MediaError:
    """Decipher a recorded reply that is not a success."""
    path = REPLIES / name
    return parse_error(operation, status, {"content-type": TYPES[path.suffix]}, path.read_bytes())


def refused_json(value: object, operation: Operation = "get_info", status: int = 400) -> Any:
    """Decipher a made-up reply."""
    return parse_error(operation, status, {}, json.dumps(value).encode())


RECORDED: list[tuple[str, Operation, int, type[MediaError], str]] = [
    ("rate_limit.json", "upload", 400, RateLimitError, "(#130429) Rate limit hit"),
    ("rate_limit.json", "get_info", 429, RateLimitError, "(#130429) Rate limit hit"),
    ("app_quota.json", "get_info", 429, RateLimitError, "(#4) Application request limit reached"),
    ("app_quota.json", "delete", 400, RateLimitError, "(#4) Application request limit reached"),
    ("not_found.json", "get_info", 400, MediaNotFoundError, "Unsupported get request."),
    ("not_found.json", "delete", 400, MediaNotFoundError, "Unsupported get request."),
    ("not_found.json", "download", 400, MediaNotFoundError, "Unsupported get request."),
    ("not_found.json", "upload", 400, InvalidRequestError, "Unsupported get request."),
    ("not_found.json", "send", 400, InvalidRequestError, "Unsupported get request."),
    ("unsupported_type_2024.json", "upload", 400, UploadRejectedError, "(#100) Param file must be a file"),
    ("unsupported_type_2025.json", "upload", 400, UploadRejectedError, "(#100) Param file must be a file"),
    ("no_messaging_product.json", "upload", 400, InvalidRequestError, "(#100) The parameter messaging_product"),
    ("file_too_large.json", "upload", 400, UploadRejectedError, "(#100) Invalid parameter"),
    ("token_expired.json", "get_info", 401, AuthenticationError, "Error validating access token: Session has"),
    ("token_unreadable.json", "upload", 401, AuthenticationError, "Invalid OAuth access token - Cannot parse"),
    ("token_unreadable.json", "upload", 400, AuthenticationError, "Invalid OAuth access token - Cannot parse"),
    ("no_permission.json", "send", 403, PermissionDeniedError, "(#10) Application does not have permission"),
    ("no_token.json", "delete", 400, AuthenticationError, "An active access token must be used"),
    ("unknown_version.json", "get_info", 400, InvalidRequestError, f"Unknown path components: /{ID}"),
    ("no_appsecret_proof.json", "get_info", 400, AuthenticationError, "API calls from the server require an"),
    ("wrong_appsecret_proof.json", "upload", 400, AuthenticationError, "Invalid appsecret_proof provided"),
    ("send_unknown_id.json", "send", 400, MediaNotFoundError, "(#100) Param image['id'] is not a valid whatsapp"),
    ("account_locked.json", "upload", 403, AccountRestrictedError, "(#131031) Business Account locked"),
    ("download_unauthorized.json", "download", 401, AuthenticationError, "Authentication Error (HTTP 401)"),
    ("url_signature_expired.txt", "download", 403, MediaNotFoundError, "URL signature expired (HTTP 403)"),
    ("bad_gateway.html", "upload", 502, ServerError, "Meta answered with status 502 and no explanation"),
    ("bad_gateway.html", "download", 404, MediaNotFoundError, "Meta answered with status 404 and no explanation"),
    ("bad_gateway.html", "get_info", 400, InvalidRequestError, "Meta answered with status 400 and no explanation"),
]


@pytest.mark.parametrize(("name", "operation", "status", "kind", "start"), RECORDED)
def test_recorded_refusals(name: str, operation: Operation, status: int, kind: type[MediaError], start: str) -> None:
    """Every way in which Meta is known to say no has its class, and keeps Meta's words."""
    error = refused(name, operation, status)

    assert type(error) is kind
    assert str(error).startswith(start)


def test_everything_in_the_envelope() -> None:
    """All that Graph's envelope says is in the error's attributes and its one sentence."""
    error = refused("rate_limit.json", "upload", 400)

    assert isinstance(error, RateLimitError)
    assert error.__dict__ == {
        "message": "(#130429) Rate limit hit",
        "status": 400,
        "code": 130429,
        "subcode": 2494055,
        "details": "Cloud API message throughput has been reached.",
        "fbtrace_id": "Az8or2yhqkZfEZ",
        "retry_after": None,
        "retryable": True,
        "maybe_applied": False,
    }
    assert str(error) == (
        "(#130429) Rate limit hit: Cloud API message throughput has been reached."
        " (HTTP 400, code 130429, subcode 2494055, fbtrace_id Az8or2yhqkZfEZ)"
    )


def test_verdict_on_a_file() -> None:
    """An upload's 131031 without Meta's own wording is a file too large, with Meta's answer attached."""
    error = refused_json({"error": {"message": "(#131031) Invalid parameter", "code": 131031}}, "upload")

    assert type(error) is FileTooLargeError
    assert isinstance(error.answer, ApiError)
    assert (error.answer.status, error.answer.code) == (400, 131031)


def test_verdict_words_may_be_in_the_details() -> None:
    """Meta's own meaning of a code counts wherever the reply states it."""
    error = refused_json(
        {"error": {"message": "(#131042)", "code": 131042, "error_data": {"details": "Your payment failed"}}}, "upload"
    )

    assert type(error) is AccountRestrictedError


DETAILS: list[tuple[dict[str, Any], str | None]] = [
    ({"error_data": {"details": "d"}, "error_user_msg": "m", "error_user_title": "t"}, "d"),
    ({"error_data": "d", "error_user_msg": "m"}, "d"),
    ({"error_data": {"details": ""}, "error_user_msg": "m", "error_user_title": "t"}, "m"),
    ({"error_data": {"details": {"a": 1}}, "error_user_title": "t"}, "t"),
    ({"error_data": [1], "error_user_msg": 7}, None),
    ({"error_data": {}}, None),
    ({}, None),
]


@pytest.mark.parametrize(("facts", "expected"), DETAILS)
def test_details(facts: dict[str, Any], expected: str | None) -> None:
    """Details are Meta's for developers, else those for end users; `error_data` may be a plain text."""
    assert refused_json({"error": {"message": "no", "code": 100, **facts}}).details == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (100, 100),
        ("100", 100),
        ("-1", -1),
        ("abc", None),
        ("", None),
        ("1.0", None),
        ("100\n", None),
        ("\u0661", None),
        ("9" * 10, None),
        (1.0, None),
        (True, None),
        (None, None),
        ([100], None),
        ({}, None),
    ],
)
def test_codes_as_sent(value: object, expected: int | None) -> None:
    """A code may come as digits in a text; anything else is no code, and no exception."""
    error = refused_json({"error": {"message": "no", "code": value, "error_subcode": value}})

    assert (error.code, error.subcode) == (expected, expected)


ODD_BODIES: list[tuple[bytes, str]] = [
    (b"", "Meta answered with status 500 and no explanation"),
    (b"null", "Meta answered with status 500 and no explanation"),
    (b"[]", "Meta answered with status 500 and no explanation"),
    (b"7", "Meta answered with status 500 and no explanation"),
    (b'"text"', "Meta answered with status 500 and no explanation"),
    (b"{", "Meta answered with status 500 and no explanation"),
    (b"{}", "Meta answered with status 500 and no explanation"),
    (b"<html></html>", "Meta answered with status 500 and no explanation"),
    (b"\xff\xfe\x00", "Meta answered with status 500 and no explanation"),
    (b"[" * 200_000, "Meta answered with status 500 and no explanation"),
    (b'{"error":' * 200_000, "Meta answered with status 500 and no explanation"),
    (b'{"error":{"code":' + b"9" * 5000 + b"}}", "Meta answered with status 500 and no explanation"),
    (b'{"error":"just text"}', "just text"),
    (b'{"error":["a","b"]}', "Meta answered with status 500 and no explanation"),
    (b'{"error":null,"message":"m"}', "m"),
    (b'{"error":{}}', "Meta answered with status 500 and no explanation"),
    (b'{"error":{"message":""}}', "Meta answered with status 500 and no explanation"),
    (b'{"error":{"message":{"a":1}}}', "Meta answered with status 500 and no explanation"),
    (b'{"error":{"message":" m "}}', "m"),
    (b'{"title":"t","detail":"d"}', "d"),
    (b'{"title":"t"}', "t"),
    (b'\xef\xbb\xbf{"error":{"message":"m"}}', "m"),
    ('{"error":{"message":"m"}}'.encode("utf-16"), "m"),
]


@pytest.mark.parametrize(("body", "words"), ODD_BODIES, ids=lambda value: repr(value)[:40])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_odd_replies(body: bytes, words: str, operation: Operation) -> None:
    """A reply of any other shape is an error of its status, with whatever words it has."""
    error = parse_error(operation, 500, {}, body)

    assert type(error) is ServerError
    assert (error.message, error.status, error.code) == (words, 500, None)


@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=utf-8", "Text/Plain"])
def test_plain_text_is_quoted(content_type: str) -> None:
    """A reply in plain text is its own message, undecodable bytes and all, as far as it is reasonable."""
    error = parse_error("download", 500, {"content-type": content_type}, b"caf\xe9 " + b"x" * 1000)

    assert isinstance(error, ServerError)
    assert error.message == "caf\ufffd " + "x" * 495


@pytest.mark.parametrize("transient", [True, False, None, "true", 1])
@pytest.mark.parametrize(("code", "waits"), [(100, False), (190, False), (131048, False), (2, True)])
def test_is_transient(transient: object, code: int, waits: bool) -> None:
    """An answer that calls itself transient is retryable; one that says it is not is judged by its code."""
    error = refused_json({"error": {"message": "no", "code": code, "is_transient": transient}})

    assert error.retryable is (waits or transient is True)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_maybe_applied(operation: Operation, status: int) -> None:
    """Only a server that broke while changing something may have changed it."""
    expected = operation in {"upload", "send", "delete"} and status >= 500

    assert refused_json({}, operation, status).maybe_applied is expected


@pytest.mark.parametrize(
    ("facts", "headers", "expected"),
    [
        ({"fbtrace_id": "AbC"}, {"x-fb-trace-id": "header"}, "AbC"),
        ({}, {"x-fb-trace-id": "header"}, "header"),
        ({"fbtrace_id": 7}, {"x-fb-trace-id": "header"}, "header"),
        ({"fbtrace_id": ""}, {}, None),
    ],
)
def test_trace(facts: dict[str, Any], headers: dict[str, str], expected: str | None) -> None:
    """What Meta's support asks for is found in the body, else in the headers."""
    error = parse_error("get_info", 400, headers, json.dumps({"error": facts}).encode())

    assert isinstance(error, ApiError)
    assert error.fbtrace_id == expected


NOW = "Sun, 22 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("value", "date", "expected"),
    [
        ("0", "", 0.0),
        ("120", "", 120.0),
        (" 120 ", NOW, 120.0),
        ("1.5", "", 1.5),
        ("1000000000", "", 86400.0),
        ("Sun, 22 Nov 2026 10:00:30 GMT", NOW, 30.0),
        ("Sunday, 22-Nov-26 10:00:30 GMT", NOW, 30.0),
        ("Sun Nov 22 10:00:30 2026", NOW, None),
        ("Sun, 22 Nov 2026 10:00:00 GMT", NOW, 0.0),
        ("Sun, 22 Nov 2026 11:00:00 +0100", NOW, 0.0),
        ("Sun, 22 Nov 2026 09:59:59 GMT", NOW, None),
        ("Sun, 22 Nov 2026 10:00:30 GMT", "", None),
        ("Sun, 22 Nov 2026 10:00:30 GMT", "now", None),
        ("Fri, 01 Jan 99999 00:00:00 GMT", NOW, None),
        ("Fri, 99 Jan 2027 99:99:99 GMT", NOW, None),
        ("Fri, 01 Jan 2027 00:00:00 +99999999999999999999", NOW, None),
        ("-1", "", None),
        ("-0.0", "", 0.0),
        ("nan", "", None),
        ("inf", "", None),
        ("1e999", "", None),
        ("-1e999", "", None),
        ("soon", NOW, None),
        ("", NOW, None),
        ("0x10", "", None),
        ("60, 120", "", None),
    ],
)
def test_retry_after(value: str, date: str, expected: float | None) -> None:
    """Retry-After is seconds or a date against the reply's own; absurd values are as if there were none."""
    error = parse_error("get_info", 429, {"retry-after": value, "date": date}, b"")

    assert isinstance(error, RateLimitError)
    assert error.retry_after == expected


def test_no_retry_after() -> None:
    """Without the header there is nothing to wait for."""
    assert refused_json({}, "upload", 429).retry_after is None


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (
            f"cannot load {MEDIA_URL} now",
            "cannot load https://lookaside.fbsbx.com/whatsapp_business/attachments/?… now",
        ),
        ("HTTP://a.example/?s=canary", "HTTP://a.example/?…"),
        (
            "'https://a.example/?s=canary' and <https://b.example/?s=canary>",
            "'https://a.example/?…' and <https://b.example/?…>",
        ),
        ("see https://developers.facebook.com/docs/graph-api", "see https://developers.facebook.com/docs/graph-api"),
        ("what? no url", "what? no url"),
    ],
)
def test_urls_in_messages_lose_their_query(said: str, shown: str) -> None:
    """A signed URL that Meta quotes back, anywhere in its reply, is shown without its signature."""
    error = refused_json({"error": {"message": said, "error_data": {"details": said}, "code": 100, "fbtrace_id": said}})
    text = parse_error("download", 404, {"content-type": "text/plain"}, said.encode())

    assert (error.message, error.details, error.fbtrace_id, text.message) == (shown,) * 4
    assert "canary" not in f"{error}{error!r}{text!r}{error.__dict__}"


def test_long_messages_are_cut() -> None:
    """A message of unreasonable length is cut."""
    assert refused_json({"error": {"message": "x" * 10_000}}).message == "x" * 2000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["message", "code", "error_subcode", "error_data", "is_transient", "error_user_msg", "fbtrace_id", "type", "error"]
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.text() | st.just("text/plain"),
        "retry-after": st.text() | st.floats().map(str) | st.from_regex(r"\w{3}, \d+ Jan \d+ \d+:\d+:\d+ [+-]?\w+"),
        "date": st.text() | st.just(NOW),
        "x-fb-trace-id": st.text(),
    },
)


def check_refusal(error: MediaError, status: int) -> None:
    """Check what holds for every refusal: an answer with its status, a sentence, and a sane time to wait."""
    answer = error.answer if isinstance(error, InvalidMediaError) else error
    assert isinstance(answer, ApiError)
    assert answer.status == status
    assert str(error).strip()
    assert answer.retry_after is None or 0 <= answer.retry_after < float("inf")


@given(st.sampled_from(OPERATIONS), st.integers(100, 599), HEADERS, st.binary())
@example("upload", 500, {"content-type": "text/plain"}, b"\xff" * 600)
def test_any_bytes_are_refused(operation: Operation, status: int, headers: dict[str, str], body: bytes) -> None:
    """Whatever bytes and headers come, the refusal is an error of ours and nothing else."""
    check_refusal(parse_error(operation, status, headers, body), status)


@given(st.sampled_from(OPERATIONS), st.integers(100, 599), HEADERS, JSON | st.dictionaries(KEYS, JSON))
def test_any_json_is_refused(operation: Operation, status: int, headers: dict[str, str], facts: object) -> None:
    """Whatever JSON comes, bare or in Graph's envelope, the refusal is an error of ours and nothing else."""
    for value in (facts, {"error": facts}):
        check_refusal(parse_error(operation, status, headers, json.dumps(value).encode()), status)


def asked(operation: Operation = "get_info", method: str = "GET") -> Request:
    """Build a request whose reply is to be deciphered."""
    return graph_request(operation, method, Settings(), ID)


@pytest.mark.parametrize(
    ("name", "request_", "cls", "expected"),
    [
        ("uploaded.json", asked("upload", "POST"), UploadedMedia, UploadedMedia(id=ID)),
        ("deleted.json", asked("delete", "DELETE"), DeletedMedia, DeletedMedia(success=True)),
        (
            "sent.json",
            asked("send", "POST"),
            SentMessage,
            SentMessage(id="wamid.HBgLMTU1NTAwMDExMTE", wa_id="15550001111"),
        ),
    ],
)
def test_replies_are_deciphered(name: str, request_: Request, cls: type[Any], expected: object) -> None:
    """A success gives the value it carries, whatever the success is called."""
    body = (REPLIES / name).read_bytes()

    assert [parse_response(request_, cls, status, {}, body) for status in (200, 201, 299)] == [expected] * 3


@pytest.mark.parametrize("status", [199, 300, 302, 400, 500])
def test_other_statuses_are_refusals(status: int) -> None:
    """What is not a success is refused even if its body looks like one."""
    with pytest.raises(ApiError) as caught:
        parse_response(asked(), UploadedMedia, status, {}, b'{"id":"1"}')

    assert caught.value.status == status


UNEXPECTED = [
    (b"", "is not a JSON object"),
    (b"[]", "is not a JSON object"),
    (b"<!DOCTYPE html>", "is not a JSON object"),
    (b"[" * 200_000, "is not a JSON object"),
    (b"{}", "does not fit: 'id' is missing @ reply.id"),
    (b'{"id":null}', "does not fit: expected str, got None @ reply.id"),
    (b'{"id":7}', "does not fit: expected str, got 7 @ reply.id"),
]


@pytest.mark.parametrize(("body", "what"), UNEXPECTED, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_unexpected_successes(body: bytes, what: str, method: str) -> None:
    """A success that makes no sense is Meta's fault: asking again is safe, and what changes things may have done so."""
    with pytest.raises(ServerError) as caught:
        parse_response(asked(method=method), UploadedMedia, 200, {"content-length": str(len(body))}, body)

    error = caught.value
    assert str(error) == f"Meta's reply {what} (HTTP 200)"
    assert (error.retryable, error.maybe_applied) == (method == "GET", method != "GET")


@pytest.mark.parametrize(
    ("operation", "headers", "body", "retryable"),
    [
        ("delete", {}, b'{"succ', True),
        ("get_info", {}, b'{"id', True),
        ("upload", {}, b"<html>", True),
        ("upload", {"content-length": "0"}, b"", True),
        ("upload", {"transfer-encoding": "chunked"}, b" ", True),
        ("upload", {"transfer-encoding": "chunked"}, b"{", False),
        ("delete", {"content-length": "0"}, b"", False),
        ("delete", {}, b"{}", False),
    ],
)
def test_replies_that_broke_off(operation: Any, headers: dict[str, str], body: bytes, retryable: bool) -> None:
    """Where nobody can have seen where a reply ends, one that makes no sense is taken for one that broke off."""
    method = "GET" if operation == "get_info" else "POST"
    with pytest.raises(ServerError) as caught:
        parse_response(asked(operation=operation, method=method), UploadedMedia, 200, headers, body)
    assert (caught.value.retryable, caught.value.maybe_applied) == (retryable, method == "POST")


def test_error_in_a_success() -> None:
    """An error envelope counts whatever the status says; without a code it is Meta's fault."""
    with pytest.raises(RateLimitError):
        parse_response(asked(), MediaInfo, 200, {}, (REPLIES / "rate_limit.json").read_bytes())
    with pytest.raises(ServerError, match="just text"):
        parse_response(asked(), MediaInfo, 200, {}, b'{"error":"just text","id":"1"}')


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()), st.integers(100, 599), HEADERS)
def test_any_reply_is_deciphered(body: bytes, status: int, headers: dict[str, str]) -> None:
    """Whatever comes back, the outcome is a value or an error of ours."""
    try:
        assert parse_response(asked(), UploadedMedia, status, headers, body).id
    except ApiError as error:
        check_refusal(error, status)


def test_replies_have_a_limit() -> None:
    """A reply of JSON is never larger than what is worth parsing."""
    assert MAX_REPLY == 1048576


USER_AGENT = f"meta-media/{__version__} python/{platform.python_version()}"
HEADERS_ALWAYS = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"}


def test_graph_requests() -> None:
    """A request to Graph has a versioned path, exactly our headers, and goes to a host that may see the token."""
    settings = Settings(base_url="https://graph.example:8443", api_version=24)

    assert graph_request("delete", "DELETE", settings, ID, media_id=ID) == Request(
        operation="delete",
        method="DELETE",
        url=f"https://graph.example:8443/v24.0/{ID}",
        bearer=True,
        graph=True,
        headers=HEADERS_ALWAYS,
        media_id=ID,
    )


def test_more_headers() -> None:
    """What a verb adds is added, and what was passed in is not changed."""
    more = {"Content-Type": "application/json"}

    request = graph_request("send", "POST", Settings(), ID, "messages", headers=more)

    assert request.headers == HEADERS_ALWAYS | more
    assert more == {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("number", "query"),
    [
        (None, ""),
        ("", ""),
        ("106540352242922", "?phone_number_id=106540352242922"),
        ("a-b_c", "?phone_number_id=a-b_c"),
    ],
)
def test_phone_number_in_the_query(number: str | None, query: str) -> None:
    """The number that restricts a lookup or delete goes into the query, and only if there is one."""
    request = graph_request("get_info", "GET", Settings(), ID, phone_number_id=number)

    assert request.url == f"https://graph.facebook.com/v25.0/{ID}{query}"


@pytest.mark.parametrize(
    ("suffix", "expected"), [("", USER_AGENT), ("acme/1.0 (x)", f"{USER_AGENT} acme/1.0 (x)"), ("  ", USER_AGENT)]
)
def test_one_user_agent(suffix: str, expected: str) -> None:
    """Graph and the download hosts get exactly one User-Agent; Meta refuses none and appended ones alike."""
    settings = Settings(user_agent_suffix=suffix)

    for request in (graph_request("get_info", "GET", settings, ID), media_request(MEDIA_URL, settings)):
        assert [value for name, value in request.headers.items() if name.lower() == "user-agent"] == [expected]


@pytest.mark.parametrize(
    "request_",
    [
        graph_request("get_info", "GET", Settings(), ID, phone_number_id="canary"),
        media_request(f"{MEDIA_URL}canary", Settings()),
    ],
)
def test_requests_hide_their_query(request_: Request) -> None:
    """A request's representation has no query, and no request has a token in it."""
    assert "?…" in repr(request_)
    assert "canary" not in repr(request_)
    assert not {"authorization", "cookie"} & {name.lower() for name in request_.headers}


MESSAGES: list[tuple[str, dict[str, Any]]] = [
    ("audio", {"voice": True}),
    ("audio", {"voice": False}),
    ("document", {"caption": "Your order", "filename": "ordér.pdf"}),
    ("image", {"caption": "x" * 1024}),
    ("sticker", {}),
    ("video", {"caption": ""}),
]


@pytest.mark.parametrize(("kind", "extras"), MESSAGES)
def test_messages(kind: str, extras: dict[str, Any]) -> None:
    """A message names the media under its kind, with what was given and not what was left out."""
    nothing = dict.fromkeys(("caption", "filename", "voice"))

    assert json.loads(message_body("+15550001111", ID, kind, nothing | extras, None)) == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "+15550001111",
        "type": kind,
        kind: {"id": ID, **extras},
    }


def test_replies_to_messages() -> None:
    """A reply quotes the message it replies to."""
    body = json.loads(message_body("15550001111", ID, "image", {}, "wamid.HBgL"))

    assert body["context"] == {"message_id": "wamid.HBgL"}


@pytest.mark.parametrize(
    ("kind", "extras", "sentence"),
    [
        ("sticker", {"caption": "x"}, "a message of kind sticker takes no caption"),
        ("image", {"voice": False, "filename": "x"}, "a message of kind image takes no filename and no voice"),
        ("audio", {"caption": "x"}, "a message of kind audio takes no caption"),
        ("video", {"caption": "x" * 1025}, "a caption has at most 1024 characters, not 1025"),
        ("text", {}, "kind must be one of audio, document, image, sticker, video, not 'text'"),
    ],
)
def test_messages_that_meta_would_refuse(kind: str, extras: dict[str, Any], sentence: str) -> None:
    """What a kind of message does not take is refused before it is sent."""
    with pytest.raises(ConfigurationError) as caught:
        message_body("15550001111", ID, kind, extras, None)

    assert str(caught.value) == sentence


TRUSTED = Settings(
    token_hosts=("lookaside.fbsbx.com", "tokens.example:8443"),
    media_hosts=(".fbcdn.net", "files.example", ".alt.example:8443", "[2001:db8::1]"),
)


def test_fetch() -> None:
    """The request for a media URL has exactly that URL and our headers."""
    assert media_request(MEDIA_URL, TRUSTED, media_id=ID) == Request(
        operation="download", method="GET", url=MEDIA_URL, bearer=True, headers=HEADERS_ALWAYS, media_id=ID
    )


@pytest.mark.parametrize(
    ("url", "bearer"),
    [
        (MEDIA_URL, True),
        ("https://LOOKASIDE.FBSBX.COM/x", True),
        ("https://lookaside.fbsbx.com", True),
        ("https://lookaside.fbsbx.com:443/x", True),
        ("https://lookaside.fbsbx.com?mid=1", True),
        ("https://lookaside.fbsbx.com/@evil.example/", True),
        ("https://lookaside.fbsbx.com/x//y/../z;p=%2f?a[]=b|c", True),
        ("https://graph.facebook.com/x", True),
        ("https://tokens.example:8443/x", True),
        ("https://scontent.xx.fbcdn.net/v/t45.1?oe=6", False),
        ("https://a.fbcdn.net", False),
        ("https://files.example/x", False),
        ("https://a.alt.example:8443/x", False),
        ("https://[2001:DB8::1]/x", False),
    ],
)
def test_trusted_urls(url: str, bearer: bool) -> None:
    """Exact token hosts see the token over https; media hosts and their sub-domains serve without it."""
    assert media_request(url, TRUSTED).bearer is bearer


@pytest.mark.parametrize(
    ("base_url", "url", "bearer"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/x", True),
        ("http://localhost", "http://localhost:80/x", True),
        ("http://localhost:80", "http://LOCALHOST/x", True),
        ("https://graph.example:443", "https://graph.example/x", True),
        ("http://[::1]:8000", "http://[::1]:8000/x", True),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8001/x", None),
        ("http://127.0.0.1:8000", "https://127.0.0.1:8000/x", None),
        ("http://127.0.0.1:8000", "http://localhost:8000/x", None),
        ("http://127.0.0.1:443", "https://127.0.0.1/x", None),
        ("https://graph.example", "http://graph.example/x", None),
        ("https://graph.example", "http://graph.example:443/x", None),
        ("https://graph.example.", "https://graph.example/x", None),
    ],
)
def test_base_url_is_trusted_exactly(base_url: str, url: str, bearer: bool | None) -> None:
    """The host of `base_url` is trusted with its own scheme and port, and no other; http only where it is http."""
    settings = Settings(base_url=base_url)
    if bearer is None:
        with pytest.raises(UntrustedUrlError):
            media_request(url, settings)
    else:
        assert media_request(url, settings).bearer is bearer


HOSTS_REFUSED = [
    ("https://evillookaside.fbsbx.com/x", "evillookaside.fbsbx.com"),
    ("https://lookaside.fbsbx.com.evil.com/x", "lookaside.fbsbx.com.evil.com"),
    ("https://xlookaside-fbsbx.com/x", "xlookaside-fbsbx.com"),
    ("https://a.lookaside.fbsbx.com/x", "a.lookaside.fbsbx.com"),
    ("https://fbsbx.com/x", "fbsbx.com"),
    ("https://fbcdn.net/x", "fbcdn.net"),
    ("https://evilfbcdn.net/x", "evilfbcdn.net"),
    ("https://a.fbcdn.net.evil.com/x", "a.fbcdn.net.evil.com"),
    ("https://a.fbcdn.net:8443/x", "a.fbcdn.net:8443"),
    ("https://evilfiles.example/x", "evilfiles.example"),
    ("https://a.files.example/x", "a.files.example"),
    ("https://a.alt.example/x", "a.alt.example"),
    ("https://lookaside.fbsbx.com:8443/x", "lookaside.fbsbx.com:8443"),
    ("https://lookaside.fbsbx.com:80/x", "lookaside.fbsbx.com:80"),
    ("https://lookaside.fbsbx.com:0443/x", "lookaside.fbsbx.com:0443"),
    ("https://tokens.example/x", "tokens.example"),
    ("https://xn--lookaside-fbsbx.com/x", "xn--lookaside-fbsbx.com"),
    ("https://169.254.169.254/latest", "169.254.169.254"),
    ("https://127.0.0.1/x", "127.0.0.1"),
    ("https://2130706433/x", "2130706433"),
    ("https://0x7f.1/x", "0x7f.1"),
    ("https://[::1]/x", "[::1]"),
    ("https://[::ffff:127.0.0.1]:8443/x", "[::ffff:127.0.0.1]:8443"),
]


@pytest.mark.parametrize(("url", "host"), HOSTS_REFUSED)
def test_foreign_hosts_are_refused(url: str, host: str) -> None:
    """Any other host is refused, and the refusal names it and the setting that would admit it."""
    with pytest.raises(UntrustedUrlError) as caught:
        media_request(url, TRUSTED)

    assert caught.value.host == host
    assert str(caught.value) == (
        f"https://{host} is not trusted to serve media; if it should be, add it to Settings.media_hosts"
        " (or to token_hosts, if it needs the token)"
    )


@pytest.mark.parametrize(
    "host", ["lookaside.fbsbx.com", "a.fbcdn.net", "evil.com", "graph.facebook.com", "tokens.example:8443"]
)
def test_http_is_refused(host: str) -> None:
    """Without encryption nobody is trusted but a local `base_url`, and the refusal says so."""
    with pytest.raises(
        UntrustedUrlError, match=rf"^http://{re.escape(host)} is not .* not https, .* Settings\.base_url"
    ) as caught:
        media_request(f"http://{host}/x?hash=canary", TRUSTED)

    assert caught.value.host == host
    assert "canary" not in str(caught.value)


NO_URLS: list[object] = [
    *("", " ", "x", "/x", "//lookaside.fbsbx.com/x", "lookaside.fbsbx.com/x"),
    *("https:", "https:/", "https://", "https:///", "https:/lookaside.fbsbx.com/x", "https:///lookaside.fbsbx.com/x"),
    *("https:lookaside.fbsbx.com/x", "https:\\\\lookaside.fbsbx.com\\x", "https://:443/x", "https://?x", "https://#x"),
    *("HTTPS://lookaside.fbsbx.com/x", "ftp://lookaside.fbsbx.com/x", "file:///etc/passwd", "javascript:alert(1)"),
    *("https://user@lookaside.fbsbx.com/x", "https://user:pw@lookaside.fbsbx.com/x", "https://@lookaside.fbsbx.com/x"),
    *("https://lookaside.fbsbx.com@evil.com/x", "https://lookaside.fbsbx.com:443@evil.com/x"),
    *("https://lookaside.fbsbx.com\\@evil.com/x", "https://evil.com\\@lookaside.fbsbx.com/x"),
    *("https://lookaside.fbsbx.com\\.evil.com/x", "https://evil.com\\.lookaside.fbsbx.com/x"),
    *("https://lookaside.fbsbx.com%2f.evil.com/x", "https://lookaside.fbsbx.com%00.evil.com/x"),
    *("https://lookaside%2efbsbx.com/x", "https://lookaside.fbsbx.com./x", "https://lookaside.fbsbx.com..evil.com./"),
    *("https://.lookaside.fbsbx.com/x", "https://-lookaside.fbsbx.com/x", "https://look_aside.fbsbx.com/x"),
    *("https://lookaside.fbsbx.com:/x", "https://lookaside.fbsbx.com:443:80/x", "https://lookaside.fbsbx.com:x/x"),
    *("https://lookaside.fbsbx.com:-1/x", "https://lookaside.fbsbx.com:123456/x", "https://lookaside.fbsbx.com: 443/x"),
    *(" https://lookaside.fbsbx.com/x", "https://lookaside.fbsbx.com/x ", "https://lookaside.fbsbx.com/x\n"),
    *("https://look\taside.fbsbx.com/x", "https://look\naside.fbsbx.com/x", "https://lookaside.fbsbx.com\r\n/x"),
    *("https://lookaside.fbsbx.com/\tx", "https://lookaside.fbsbx.com/\nx", "https://lookaside.fbsbx.com/x\x00"),
    *("https://lookaside.fbsbx.com/x y", "https://lookaside.fbsbx.com/é", "https://lookaside.fbsbx.com/x#y"),
    *(
        "https://lookaside.fbsbx.com#@evil.com",
        "https://evil.com#.lookaside.fbsbx.com/",
        'https://lookaside.fbsbx.com/"',
    ),
    *(
        "https://lookaside\u3002fbsbx\u3002com/x",
        "https://\uff4cookaside.fbsbx.com/x",
        "https://loo\u212aaside.fbsbx.com/x",
    ),
    *(
        "https://lookaside.fbsbx.com\u2044x",
        "https://lookaside.fb\u017fbx.com/x",
        "https://l\u00f6\u00f6kaside.fbsbx.com/x",
    ),
    *("https://[::1/x", "https://::1/x", "https://[::1]x/x", "https://[fe80::1%25eth0]/x", "https://[]/x"),
    *("https://[lookaside.fbsbx.com]/x", "https://lookaside.fbsbx.com[::1]/x"),
    *(None, b"https://lookaside.fbsbx.com/x", 7, ["https://lookaside.fbsbx.com/x"], {}),
]


@pytest.mark.parametrize("url", NO_URLS, ids=lambda value: ascii(value)[:60])
def test_urls_that_could_be_read_differently(url: object) -> None:
    """What is not a plain URL, and could lead somebody after us to another host, is not opened at all."""
    with pytest.raises(UntrustedUrlError, match="not a plain https URL, so it was not opened") as caught:
        media_request(url, TRUSTED)

    assert caught.value.host is None


PIECES = st.sampled_from(
    [
        *(
            "https://",
            "http://",
            "https:",
            "//",
            "/",
            "\\",
            "@",
            ":",
            "?",
            "#",
            "%2f",
            "%40",
            ".",
            "..",
            "-",
            "_",
            "[",
            "]",
        ),
        *("lookaside.fbsbx.com", "graph.facebook.com", "fbcdn.net", "evil.com", "files.example", "tokens.example", "a"),
        *(
            "443",
            "80",
            "8443",
            "::1",
            "127.0.0.1",
            "[2001:db8::1]",
            " ",
            "\t",
            "\n",
            "\u3002",
            "\u212a",
            "é",
            "LOOKASIDE",
            ";",
        ),
    ]
)
URLS = (
    st.text()
    | st.lists(PIECES, max_size=8).map("".join)
    | st.lists(PIECES, max_size=6).map(lambda pieces: "https://" + "".join(pieces))
    | st.tuples(
        st.sampled_from(["https://lookaside.fbsbx.com", "https://a.fbcdn.net", "https://tokens.example:8443"]),
        st.sampled_from(["", "/", "?", ":", "@", ".", "\\", "#"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=127)),
    ).map("".join)
)


@given(URLS)
@example("https://lookaside.fbsbx.com/?a=@evil.com")
@example("https://lookaside.fbsbx.com//evil.com")
@example("https://[2001:DB8::1]/x")
@example("https://a.alt.example:8443?x")
def test_everybody_reads_the_same_host(url: str) -> None:
    """Of every URL that is accepted, httpx and the standard library read the same trusted host, and no user."""
    try:
        request = media_request(url, TRUSTED)
    except UntrustedUrlError:
        return

    parsed, split = httpx.URL(request.url), urlsplit(request.url)
    assert request.url == url
    assert (parsed.scheme, split.scheme) == ("https", "https")
    assert parsed.host.lower() == split.hostname
    assert (parsed.port or 443) == (split.port or 443)
    assert (parsed.userinfo, split.username, split.password) == (b"", None, None)
    address = (split.hostname, parsed.port or 443)
    if request.bearer:
        assert address in {("lookaside.fbsbx.com", 443), ("graph.facebook.com", 443), ("tokens.example", 8443)}
    else:
        assert (
            address in {("files.example", 443), ("2001:db8::1", 443)}
            or (parsed.host.endswith(".fbcdn.net") and address[1] == 443)
            or (parsed.host.endswith(".alt.example") and address[1] == 8443)
        )


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]+)*", fullmatch=True))
def test_the_token_is_for_exact_hosts(host: str) -> None:
    """No host but the three that were named gets the token, however it is spelt."""
    settings = Settings(token_hosts=("lookaside.fbsbx.com", "tokens.example"), media_hosts=(host,))

    assert media_request(f"https://{host}/x", settings).bearer is (
        host in {"lookaside.fbsbx.com", "tokens.example", "graph.facebook.com"}
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("attachment", None),
        ("attachment; filename=", ""),
        ("attachment; filename=photo.jpg", "photo.jpg"),
        ('attachment; filename="a b; c.jpg"', "a b; c.jpg"),
        ('ATTACHMENT; FILENAME="photo.jpg"', "photo.jpg"),
        (r'inline; filename="a\"b.jpg"', 'a"b.jpg'),
        ("attachment; filename*=UTF-8''%e2%82%ac%20rates.pdf", "€ rates.pdf"),
        ("attachment; filename=a.jpg; filename*=UTF-8''b.jpg; size=3", "b.jpg"),
        ("attachment; filename*=UTF-8''b.jpg; filename=a.jpg", "b.jpg"),
        ("attachment; filename*0=a; filename*1=b.jpg", "ab.jpg"),
        ("attachment; name=x; size=3", None),
        ('attachment; filename="../../x"', "../../x"),
        ("attachment; filename*=idna''abc", None),
        ("attachment; filename*=undefined''abc", None),
        ("attachment; filename*=punycode''%ff", None),
        ("attachment; filename*=utf-8\0''x", None),
        ("attachment; filename*=nonsense''abc", "abc"),
        ("attachment; filename*=a; filename*0=b", None),
        ("attachment; filename*" + "9" * 5000 + "=b", None),
    ],
    ids=lambda value: ascii(value)[:50],
)
def test_disposition_filename(value: str | None, expected: str | None) -> None:
    """The name in a Content-Disposition is found in all its spellings, and broken ones are as if there were none."""
    assert disposition_filename({} if value is None else {"content-disposition": value}) == expected


DISPOSITIONS = st.text() | st.lists(
    st.sampled_from(
        [
            *(
                "attachment",
                ";",
                "filename",
                "filename*",
                "filename*0",
                "filename*0*",
                "filename*1",
                "=",
                '"',
                "'",
                "''",
                "\\",
            ),
            *("utf-8", "idna", "hex", "%e2", "%", "a", " ", "\x00", "\n", "é", "9" * 20),
        ]
    ),
    max_size=14,
).map("".join)


@given(DISPOSITIONS)
def test_any_disposition(value: str) -> None:
    """Whatever the header holds, the answer is a text or None."""
    assert isinstance(disposition_filename({"content-disposition": value}), str | None)


@pytest.mark.parametrize("location", ["https://[", "//[x]y/", "https://lookaside.fbsbx.com:port/"])
def test_redirects_to_what_is_no_url(location: str) -> None:
    """A redirect to something that cannot even be a URL is refused like any other that is not trusted."""
    with pytest.raises(UntrustedUrlError):
        redirected_request(asked(method="GET"), 302, location, Settings())


def test_redirects_keep_what_was_asked() -> None:
    """What a redirect leads to is asked for the same purpose, by the same headers, of the same media."""
    request = graph_request("get_info", "GET", Settings(), ID, media_id=ID, headers={"X-More": "1"})
    following = redirected_request(request, 302, "/elsewhere?a=b", Settings())

    assert following.url == "https://graph.facebook.com/elsewhere?a=b"
    assert (following.operation, following.method, following.media_id) == ("get_info", "GET", ID)
    assert (following.headers, following.bearer) == (request.headers, True)
