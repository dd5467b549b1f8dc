"""Responses as values and errors. `replies/` has recorded responses of Meta, with invented ids and hashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meta_media.errors import (
    AccountRestrictedError,
    ApiError,
    AuthenticationError,
    FileTooLargeError,
    InvalidMediaError,
    InvalidRequestError,
    MediaError,
    MediaNotFoundError,
    Operation,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UploadRejectedError,
)
from meta_media.protocol.models import DeletedMedia, MediaInfo, SentMessage, UploadedMedia
from meta_media.protocol.requests import Request, graph_request
from meta_media.protocol.responses import disposition_filename, from_json, parse_error, parse_response
from meta_media.protocol.secrets import masked
from meta_media.protocol.settings import Settings

REPLIES = Path(__file__).parents[1] / "replies"
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
TYPES = {".json": "application/json; charset=UTF-8", ".txt": "text/plain", ".html": "text/html; charset=utf-8"}
ID = "1045500012345678"
MEDIA_URL = f"https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid={ID}&ext=1795342300&hash=ATz0"


def parsed(name: str, operation: Operation, status: int) -> MediaError:
    """Parse a recorded error response."""
    path = REPLIES / name
    return parse_error(operation, status, {"content-type": TYPES[path.suffix]}, path.read_bytes())


def parsed_json(value: object, operation: Operation = "get_info", status: int = 400) -> Any:
    """Parse an invented error response."""
    return parse_error(operation, status, {}, json.dumps(value).encode())


TOKEN = "the access token is not valid: make a new one, or pass an async function that returns one. Meta: "
URL = "nothing is at the URL of the media, which lives for five minutes: pass the media's id, or get its info again. Meta: "
MEDIA = "the media is not there: expired, deleted, or of another phone number. Meta: "
NUMBER = "the phone number id is not one that the access token may use: check WA_PHONE_NUMBER_ID. Meta: "
PROOF = "the app secret does not fit the access token: check WA_APP_SECRET. Meta: "
RECORDED: list[tuple[str, Operation, int, type[MediaError], str]] = [
    ("rate_limit.json", "upload", 400, RateLimitError, "(#130429) Rate limit hit"),
    ("rate_limit.json", "get_info", 429, RateLimitError, "(#130429) Rate limit hit"),
    ("app_quota.json", "get_info", 429, RateLimitError, "(#4) Application request limit reached"),
    ("app_quota.json", "delete", 400, RateLimitError, "(#4) Application request limit reached"),
    ("not_found.json", "get_info", 400, MediaNotFoundError, f"{MEDIA}Unsupported get request."),
    ("not_found.json", "delete", 400, MediaNotFoundError, f"{MEDIA}Unsupported get request."),
    ("not_found.json", "download", 400, MediaNotFoundError, f"{URL}Unsupported get request."),
    ("not_found.json", "upload", 400, InvalidRequestError, f"{NUMBER}Unsupported get request."),
    ("not_found.json", "send", 400, InvalidRequestError, f"{NUMBER}Unsupported get request."),
    ("unsupported_type_2024.json", "upload", 400, UploadRejectedError, "(#100) Param file must be a file"),
    ("unsupported_type_2025.json", "upload", 400, UploadRejectedError, "(#100) Param file must be a file"),
    ("no_messaging_product.json", "upload", 400, InvalidRequestError, "(#100) The parameter messaging_product"),
    ("file_too_large.json", "upload", 400, UploadRejectedError, "(#100) Invalid parameter"),
    ("token_expired.json", "get_info", 401, AuthenticationError, f"{TOKEN}Error validating access token: Session has"),
    ("token_unreadable.json", "upload", 401, AuthenticationError, f"{TOKEN}Invalid OAuth access token - Cannot parse"),
    ("token_unreadable.json", "upload", 400, AuthenticationError, f"{TOKEN}Invalid OAuth access token - Cannot parse"),
    ("no_permission.json", "send", 403, PermissionDeniedError, "(#10) Application does not have permission"),
    ("no_token.json", "delete", 400, AuthenticationError, f"{TOKEN}An active access token must be used"),
    ("unknown_version.json", "get_info", 400, InvalidRequestError, f"Unknown path components: /{ID}"),
    ("no_appsecret_proof.json", "get_info", 400, AuthenticationError, f"{PROOF}API calls from the server require an"),
    ("wrong_appsecret_proof.json", "upload", 400, AuthenticationError, f"{PROOF}Invalid appsecret_proof provided"),
    (
        "send_unknown_id.json",
        "send",
        400,
        MediaNotFoundError,
        f"{MEDIA}(#100) Param image['id'] is not a valid whatsapp",
    ),
    ("account_locked.json", "upload", 403, AccountRestrictedError, "(#131031) Business Account locked"),
    ("download_unauthorized.json", "download", 401, AuthenticationError, f"{TOKEN}Authentication Error (HTTP 401)"),
    ("url_signature_expired.txt", "download", 403, MediaNotFoundError, f"{URL}URL signature expired (HTTP 403)"),
    ("bad_gateway.html", "upload", 502, ServerError, "no explanation in the response (HTTP 502)"),
    ("bad_gateway.html", "download", 404, MediaNotFoundError, f"{URL}no explanation in the response (HTTP 404)"),
    ("bad_gateway.html", "get_info", 400, InvalidRequestError, "no explanation in the response (HTTP 400)"),
]


@pytest.mark.parametrize(("name", "operation", "status", "kind", "start"), RECORDED)
def test_recorded_errors(name: str, operation: Operation, status: int, kind: type[MediaError], start: str) -> None:
    """Each recorded error response becomes an error of its class: first the advice, then Meta's own text."""
    error = parsed(name, operation, status)
    assert type(error) is kind
    assert str(error).startswith(start)


def test_everything_in_the_envelope() -> None:
    """All facts of Graph's error object are attributes of the error, and part of its sentence."""
    error = parsed("rate_limit.json", "upload", 400)
    assert isinstance(error, RateLimitError)
    assert error.__dict__ == {
        "message": "(#130429) Rate limit hit",
        "advice": "",
        "status": 400,
        "code": 130429,
        "subcode": 2494055,
        "details": "Cloud API message throughput has been reached.",
        "fbtrace_id": "Az8or2yhqkZfEZ",
        "retry_after": None,
        "scope": "number",
        "retryable": True,
        "maybe_applied": False,
    }
    assert str(error) == (
        "(#130429) Rate limit hit: Cloud API message throughput has been reached."
        " (HTTP 400, code 130429, subcode 2494055, fbtrace_id Az8or2yhqkZfEZ)"
    )


def test_verdict_on_a_file() -> None:
    """On an upload, 131031 is a file too large, and the error has Meta's response as its `answer`."""
    error = parsed_json({"error": {"message": "(#131031) Invalid parameter", "code": 131031}}, "upload")
    assert type(error) is FileTooLargeError
    assert str(error) == (
        "the file is too large for its type: send a smaller one. Meta: (#131031) Invalid parameter (HTTP 400, code 131031)"
    )
    assert isinstance(error.answer, ApiError)
    assert (error.answer.status, error.answer.code) == (400, 131031)
    assert (error.retryable, str(error.answer)) == (False, str(error))


def test_verdict_words_may_be_in_the_details() -> None:
    """Meta's own meaning of such a code applies wherever the response states it."""
    error = parsed_json(
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
    """Details are those for developers, or else those for end users; `error_data` may be a plain text."""
    assert parsed_json({"error": {"message": "no", "code": 100, **facts}}).details == expected


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
        (999_999_999, 999_999_999),
        (10**9, None),
        (-(10**400), None),
        (1.0, None),
        (True, None),
        (None, None),
        ([100], None),
        ({}, None),
    ],
)
def test_codes_as_sent(value: object, expected: int | None) -> None:
    """A code is a number or digits in a text. Anything else counts as no code."""
    error = parsed_json({"error": {"message": "no", "code": value, "error_subcode": value}})
    assert (error.code, error.subcode) == (expected, expected)


ODD_BODIES: list[tuple[bytes, str]] = [
    (b"", "no explanation in the response"),
    (b"null", "no explanation in the response"),
    (b"[]", "no explanation in the response"),
    (b"7", "no explanation in the response"),
    (b'"text"', "no explanation in the response"),
    (b"{", "no explanation in the response"),
    (b"{}", "no explanation in the response"),
    (b"<html></html>", "no explanation in the response"),
    (b"\xff\xfe\x00", "no explanation in the response"),
    (b"[" * 200_000, "no explanation in the response"),
    (b'{"error":' * 200_000, "no explanation in the response"),
    (b'{"error":{"code":' + b"9" * 5000 + b"}}", "no explanation in the response"),
    (b'{"error":"just text"}', "just text"),
    (b'{"error":["a","b"]}', "no explanation in the response"),
    (b'{"error":null,"message":"m"}', "m"),
    (b'{"error":{}}', "no explanation in the response"),
    (b'{"error":{"message":""}}', "no explanation in the response"),
    (b'{"error":{"message":{"a":1}}}', "no explanation in the response"),
    (b'{"error":{"message":" m "}}', "m"),
    (b'{"title":"t","detail":"d"}', "d"),
    (b'{"title":"t"}', "t"),
    (b'\xef\xbb\xbf{"error":{"message":"m"}}', "m"),
    ('{"error":{"message":"m"}}'.encode("utf-16"), "m"),
]


@pytest.mark.parametrize(("body", "words"), ODD_BODIES, ids=lambda value: repr(value)[:40])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_odd_bodies(body: bytes, words: str, operation: Operation) -> None:
    """A body of any other shape gives an error of its status, with the text that it has."""
    error = parse_error(operation, 500, {}, body)
    assert type(error) is ServerError
    assert (error.message, error.status, error.code) == (words, 500, None)


@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=utf-8", "Text/Plain"])
def test_plain_text_is_quoted(content_type: str) -> None:
    """The first 500 bytes of a plain text are the message; bytes that are not UTF-8 are replaced."""
    error = parse_error("download", 500, {"content-type": content_type}, b"caf\xe9 " + b"x" * 1000)
    assert isinstance(error, ServerError)
    assert error.message == "caf\ufffd " + "x" * 495


@pytest.mark.parametrize("transient", [True, False, None, "true", 1])
@pytest.mark.parametrize(("code", "waits"), [(100, False), (190, False), (131048, False), (2, True)])
def test_is_transient(transient: object, code: int, waits: bool) -> None:
    """`is_transient` true makes an error retryable; anything else leaves it to the code."""
    error = parsed_json({"error": {"message": "no", "code": code, "is_transient": transient}})
    assert error.retryable is (waits or transient is True)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("status", [400, 429, 500, 503])
def test_maybe_applied(operation: Operation, status: int) -> None:
    """Only a server error on a verb that changes something may have been applied."""
    expected = operation in {"upload", "upload_handle", "send", "delete"} and status >= 500
    assert parsed_json({}, operation, status).maybe_applied is expected


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
    """The trace id comes from the body, or else from the headers."""
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
        ("-0.0", "", None),
        ("9" * 400, "", 86400.0),
        ("9" * 5000, "", 86400.0),
        ("1_000", "", None),
        ("+5", "", None),
        ("5e1", "", None),
        ("nan", "", None),
        ("inf", "", None),
        ("1e999", "", None),
        ("-1e999", "", None),
        ("soon", NOW, None),
        ("", NOW, None),
        ("0x10", "", None),
        ("120, 60", "", 120.0),
        ("60 ,120,", "", None),
    ],
)
def test_retry_after(value: str, date: str, expected: float | None) -> None:
    """Retry-After is seconds, the longest of several, or a date that is compared with the response's own; at most a day."""
    error = parse_error("get_info", 429, {"retry-after": value, "date": date}, b"")
    assert isinstance(error, RateLimitError)
    assert error.retry_after == expected


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        ("5", 300.0),
        ("0.5", 30.0),
        ("1440", 86400.0),
        ("1441", 86400.0),
        ("9" * 400, 86400.0),
        ("1e999", 86400.0),
        ("Infinity", 86400.0),
        ("9" * 5000, None),
        ("-" + "9" * 400, None),
        ("0", None),
        ("NaN", None),
        ('"5"', None),
        ("null", None),
        ("[]", None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_time_to_regain_access(minutes: str, expected: float | None) -> None:
    """The minutes of the usage header become seconds, at most those of a day; what is no number is ignored."""
    usage = f'{{"1": [{{"estimated_time_to_regain_access": {minutes}}}, 7], "2": 7}}'
    error = parse_error("get_info", 429, {"x-business-use-case-usage": usage}, b"")
    assert isinstance(error, RateLimitError)
    assert error.retry_after == expected


def test_several_usage_headers() -> None:
    """Of several usage headers, which are joined as RFC 9110 has it, the longest wait counts."""
    usage = ", ".join(f'{{"{n}": [{{"estimated_time_to_regain_access": {n}}}]}}' for n in (2, 7, 3))
    assert parsed_headers({"x-business-use-case-usage": usage}).retry_after == 420.0
    assert parsed_headers({"x-business-use-case-usage": f"7, {usage}"}).retry_after == 420.0
    assert parsed_headers({"x-business-use-case-usage": "{}, {"}).retry_after is None


def parsed_headers(headers: dict[str, str]) -> RateLimitError:
    """Parse a refusal that has nothing but headers."""
    error = parse_error("get_info", 429, headers, b"")
    assert isinstance(error, RateLimitError)
    return error


def test_no_retry_after() -> None:
    """Without the header, `retry_after` is None."""
    assert parsed_json({}, "upload", 429).retry_after is None


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (f"no {MEDIA_URL} now", "no https://lookaside.fbsbx.com/whatsapp_business/attachments/?… now"),
        ("HTTP://a.example/?s=canary", "HTTP://a.example/?…"),
        ("'https://a.test/?s=canary', <https://b.test/?s=canary>", "'https://a.test/?…', <https://b.test/?…>"),
        ("see https://developers.facebook.com/docs/graph-api", "see https://developers.facebook.com/docs/graph-api"),
        ("what? no url", "what? no url"),
    ],
)
def test_urls_in_messages_lose_their_query(said: str, shown: str) -> None:
    """A signed URL that Meta quotes, anywhere in its response, loses its signature."""
    error = parsed_json({"error": {"message": said, "error_data": {"details": said}, "code": 100, "fbtrace_id": said}})
    text = parse_error("download", 404, {"content-type": "text/plain"}, said.encode())
    assert (error.message, error.details, error.fbtrace_id, text.message) == (shown,) * 4
    assert "canary" not in f"{error}{error!r}{text!r}{error.__dict__}"


def test_long_messages_are_cut() -> None:
    """A message is cut after 2,000 characters."""
    assert parsed_json({"error": {"message": "x" * 10_000}}).message == "x" * 2000


NUMBERS = st.integers() | st.integers(1, 4299).map(lambda digits: 10**digits - 1) | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
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
        "retry-after": st.text() | NUMBERS.map(str) | st.from_regex(r"\w{3}, \d+ Jan \d+ \d+:\d+:\d+ [+-]?\w+"),
        "date": st.text() | st.just(NOW),
        "x-fb-trace-id": st.text(),
        "x-business-use-case-usage": NUMBERS.map(
            lambda number: json.dumps({"1": [{"estimated_time_to_regain_access": number}]})
        ),
    },
)


def check_error(error: MediaError, status: int) -> None:
    """Check what holds for every error of Meta: its status, a sentence, and a sane time to wait."""
    answer = error.answer if isinstance(error, InvalidMediaError) else error
    assert isinstance(answer, ApiError)
    assert answer.status == status
    assert str(error).strip()
    assert answer.retry_after is None or 0 <= answer.retry_after < float("inf")


@given(st.sampled_from(OPERATIONS), st.integers(100, 599), HEADERS, st.binary())
@example("upload", 500, {"content-type": "text/plain"}, b"\xff" * 600)
def test_any_bytes_give_an_error(operation: Operation, status: int, headers: dict[str, str], body: bytes) -> None:
    """Any bytes and headers give an error of this library."""
    check_error(parse_error(operation, status, headers, body), status)


@given(st.sampled_from(OPERATIONS), st.integers(100, 599), HEADERS, JSON | st.dictionaries(KEYS, JSON))
def test_any_json_gives_an_error(operation: Operation, status: int, headers: dict[str, str], facts: object) -> None:
    """Any JSON, bare or in Graph's error object, gives an error of this library."""
    for value in (facts, {"error": facts}):
        check_error(parse_error(operation, status, headers, json.dumps(value).encode()), status)


def request(operation: Operation = "get_info", method: str = "GET") -> Request:
    """Build a request for a response to parse."""
    return graph_request(operation, method, Settings(), ID)


@pytest.mark.parametrize(
    ("name", "request_", "cls", "expected"),
    [
        ("uploaded.json", request("upload", "POST"), UploadedMedia, UploadedMedia(id=ID)),
        ("deleted.json", request("delete", "DELETE"), DeletedMedia, DeletedMedia(success=True)),
        (
            "sent.json",
            request("send", "POST"),
            SentMessage,
            SentMessage(id="wamid.HBgLMTU1NTAwMDExMTE", wa_id="15550001111", input="+15550001111"),
        ),
    ],
)
def test_successes(name: str, request_: Request, cls: type[Any], expected: object) -> None:
    """A response with any status from 200 to 299 gives its value."""
    body = (REPLIES / name).read_bytes()
    assert [parse_response(request_, cls, status, {}, body) for status in (200, 201, 299)] == [expected] * 3


@pytest.mark.parametrize("status", [199, 300, 302, 400, 500])
def test_other_statuses_are_errors(status: int) -> None:
    """Any other status is an error, even with the body of a success."""
    with pytest.raises(ApiError) as caught:
        parse_response(request(), UploadedMedia, status, {}, b'{"id":"1"}')
    assert caught.value.status == status


UNEXPECTED = [
    (b"", "is not a JSON object"),
    (b"[]", "is not a JSON object"),
    (b"<!DOCTYPE html>", "is not a JSON object"),
    (b"[" * 200_000, "is not a JSON object"),
    (b"{}", "is not valid: 'id' is missing @ response.id"),
    (b'{"id":null}', "is not valid: expected str, got None @ response.id"),
    (b'{"id":7}', "is not valid: expected str, got 7 @ response.id"),
]


@pytest.mark.parametrize(("body", "what"), UNEXPECTED, ids=lambda value: repr(value)[:30])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_unexpected_successes(body: bytes, what: str, method: str) -> None:
    """An invalid success is a ServerError: a GET may be retried, and anything else may have been applied."""
    with pytest.raises(ServerError) as caught:
        parse_response(request(method=method), UploadedMedia, 200, {"content-length": str(len(body))}, body)
    error = caught.value
    assert str(error) == f"Meta's response {what} (HTTP 200)"
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
def test_incomplete_responses(operation: Any, headers: dict[str, str], body: bytes, retryable: bool) -> None:
    """An invalid response without a length, and an empty one to an upload, count as incomplete: a retry is safe."""
    method = "GET" if operation == "get_info" else "POST"
    with pytest.raises(ServerError) as caught:
        parse_response(request(operation=operation, method=method), UploadedMedia, 200, headers, body)
    assert (caught.value.retryable, caught.value.maybe_applied) == (retryable, method == "POST")


def test_error_in_a_success() -> None:
    """An error object counts under every status; without a code it is a ServerError."""
    with pytest.raises(RateLimitError):
        parse_response(request(), MediaInfo, 200, {}, (REPLIES / "rate_limit.json").read_bytes())
    with pytest.raises(ServerError, match="just text"):
        parse_response(request(), MediaInfo, 200, {}, b'{"error":"just text","id":"1"}')


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()), st.integers(100, 599), HEADERS)
def test_any_response_gives_a_value_or_an_error(body: bytes, status: int, headers: dict[str, str]) -> None:
    """Any response gives a value or an error of this library."""
    try:
        assert parse_response(request(), UploadedMedia, status, headers, body).id
    except ApiError as error:
        check_error(error, status)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("attachment", None),
        ("attachment; filename=", None),
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
    """The name is found in all spellings of Content-Disposition; an empty or malformed one gives None."""
    assert disposition_filename({} if value is None else {"content-disposition": value}) == expected


DISPOSITIONS = st.text() | st.lists(
    st.sampled_from(
        [
            *("attachment", ";", "filename", "filename*", "filename*0", "filename*0*", "filename*1", "=", '"', "'"),
            *("''", "\\"),
            *("utf-8", "idna", "hex", "%e2", "%", "a", " ", "\x00", "\n", "é", "9" * 20),
        ]
    ),
    max_size=14,
).map("".join)


@given(DISPOSITIONS)
def test_any_disposition(value: str) -> None:
    """Any header gives a text or None."""
    assert isinstance(disposition_filename({"content-disposition": value}), str | None)


TOKENS = st.text(st.sampled_from("ab'\"\\/"), min_size=8, max_size=9)


@given(TOKENS.flatmap(lambda token: st.tuples(st.just(token), _json_with(token))))
def test_echoes_are_masked_in_any_json(given: tuple[str, Any]) -> None:
    """No echo of a token is overlooked, however JSON or Python write its characters."""
    token, value = given
    assert from_json(json.dumps(value).replace("/", "\\/"), token) == masked(value, token)


def _json_with(token: str) -> st.SearchStrategy[Any]:
    texts = st.sampled_from([token, f"x{token}", f"'{token}", f"\"{token}'", "x", token[:-1]])
    return st.recursive(texts | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(texts, inner))
