"""The meaning of Meta's error codes: each row of its table on each verb, codes with several meanings, statuses alone."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_media.errors import (
    AccountRestrictedError,
    ApiError,
    AuthenticationError,
    CorruptedMediaError,
    FileTooLargeError,
    InvalidMediaError,
    InvalidRequestError,
    MediaNotFoundError,
    Operation,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnsupportedMediaTypeError,
    UploadRejectedError,
)
from meta_media.protocol.error_codes import Meaning, meaning_of

OPERATIONS: tuple[Operation, ...] = get_args(Operation)
STATUSES = (200, 302, 400, 401, 403, 404, 410, 413, 415, 429, 500, 503)

# Meta's pages "Error codes" (Cloud API) and "Handle errors" (Graph API): code, title, class, whether waiting may help.
TABLE: list[tuple[int, str, type[ApiError], bool]] = [
    (0, "AuthException", AuthenticationError, False),
    (1, "API Unknown", ServerError, True),
    (2, "API Service", ServerError, True),
    (3, "API Method", PermissionDeniedError, False),
    (4, "API Too Many Calls", RateLimitError, True),
    (10, "Permission Denied", PermissionDeniedError, False),
    (17, "User request limit reached", RateLimitError, True),
    (32, "Page request limit reached", RateLimitError, True),
    (33, "Parameter value is not valid", InvalidRequestError, False),
    (100, "Invalid parameter", InvalidRequestError, False),
    (104, "An access token is required to request this resource", AuthenticationError, False),
    (190, "Access token has expired", AuthenticationError, False),
    (200, "This operation requires additional permissions", PermissionDeniedError, False),
    (250, "API Permission", PermissionDeniedError, False),
    (299, "API Permission", PermissionDeniedError, False),
    (368, "Temporarily blocked for policies violations", AccountRestrictedError, False),
    (613, "Calls to this api have exceeded the rate limit", RateLimitError, True),
    (2500, "Unknown path components: /x", InvalidRequestError, False),
    (80007, "Rate limit issues", RateLimitError, True),
    (80008, "There have been too many calls to this WhatsApp Business account", RateLimitError, True),
    (130429, "Rate limit hit", RateLimitError, True),
    (130472, "User's number is part of an experiment", InvalidRequestError, False),
    (130497, "Business account is restricted from messaging users in this country", AccountRestrictedError, False),
    (130501, "Message type is not supported in groups", InvalidRequestError, False),
    (131000, "Something went wrong", ServerError, True),
    (131005, "Access denied", PermissionDeniedError, False),
    (131008, "Required parameter is missing", InvalidRequestError, False),
    (131009, "Parameter value is not valid", InvalidRequestError, False),
    (131016, "Service unavailable", ServerError, True),
    (131021, "Recipient cannot be sender", InvalidRequestError, False),
    (131026, "Message undeliverable", InvalidRequestError, False),
    (131030, "Recipient phone number not in allowed list", InvalidRequestError, False),
    (131031, "Account has been locked", AccountRestrictedError, False),
    (131037, "The display name of the number is not approved", InvalidRequestError, False),
    (131042, "Business eligibility payment issue", AccountRestrictedError, False),
    (131045, "Incorrect certificate", InvalidRequestError, False),
    (131047, "Re-engagement message", InvalidRequestError, False),
    (131048, "Spam rate limit hit", RateLimitError, False),
    (131049, "Not delivered, to maintain a healthy ecosystem", InvalidRequestError, False),
    (131050, "The user has stopped marketing messages", InvalidRequestError, False),
    (131051, "Unsupported message type", InvalidRequestError, False),
    (131052, "Media download error", UploadRejectedError, False),
    (131053, "Media upload error", UploadRejectedError, False),
    (131056, "Pair rate limit hit", RateLimitError, True),
    (131057, "Account in maintenance mode", ServerError, True),
    (131060, "This message is unavailable", InvalidRequestError, False),
    (131061, "Maximum price", InvalidRequestError, False),
    (131062, "Business-scoped user ID is not supported", InvalidRequestError, False),
    (131063, "Marketing templates are switched off", InvalidRequestError, False),
    (131064, "Messaging limit used up by misclassified templates", RateLimitError, False),
    (131065, "Maximum price", InvalidRequestError, False),
    (132012, "Template Parameter Format Mismatch", InvalidRequestError, False),
    (133004, "Server Temporarily Unavailable", ServerError, True),
    (133016, "Account register deregister rate limit exceeded", RateLimitError, False),
    (137000, "Identity key mismatch", InvalidRequestError, False),
]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("code", "title", "kind", "retryable"), TABLE, ids=lambda value: str(value)[:40])
def test_code_decides(code: int, title: str, kind: type[ApiError], retryable: bool, operation: Operation) -> None:
    """A code of Meta's table has the same meaning under every HTTP status: throttles come as 400 and as 429."""
    statuses = [status for status in STATUSES if operation != "download" or status not in {404, 410}]
    found = [meaning_of(operation, status, code, None, f"(#{code}) {title}") for status in statuses]
    assert [(meaning.error, meaning.retryable) for meaning in found] == [(kind, retryable)] * len(statuses)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (130497, "country"),
        (130501, "cannot go to a group"),
        (131047, "send a template first"),
        (131056, "send it later"),
        (131062, "send it to a phone number"),
        (131064, "Meta lifts it later"),
        (137000, "recipient_identity_key_hash"),
    ],
)
def test_what_to_do(code: int, advice: str) -> None:
    """Where Meta's text does not say what to do, the error does."""
    assert advice in meaning_of("send", 400, code, None, "no").advice


@pytest.mark.parametrize(
    ("reason", "retryable"),
    [
        ("http code 429, status message Too Many Requests, ratelimit reason: Request ratelimit by fwdproxy", True),
        ("http code 503, status message Service Unavailable", True),
        ("http code 408, status message Request Timeout", True),
        ("http code 404, status message Not Found", False),
        ("http code 5, status message x", False),
    ],
)
def test_a_link_that_meta_could_not_fetch(reason: str, retryable: bool) -> None:
    """Media that Meta could not fetch by its link may succeed later if the link's host was busy."""
    text = f"Media upload error Downloading media from weblink failed with {reason}"
    meaning = meaning_of("send", 400, 131053, None, text)
    assert (meaning.error, meaning.retryable) == (UploadRejectedError, retryable)
    assert not meaning_of("send", 400, 131052, None, text).retryable


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("code", [None, *(code for code, *_ in TABLE)])
def test_what_a_download_host_does_not_have(status: int, code: int | None) -> None:
    """A 404 or a 410 from the download host is about the media, whatever its envelope says."""
    meaning = meaning_of("download", status, code, None, "x")
    assert (meaning.error, meaning.retryable) == (MediaNotFoundError, False)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("code", "kind"), [(code, kind) for code, _, kind, _ in TABLE] + [(None, RateLimitError)])
def test_scopes(code: int | None, kind: type[ApiError], operation: Operation) -> None:
    """A limit is about a pair, an account or an app where its code says so, else about a number; no other error has a scope."""
    scopes = (
        dict.fromkeys((131056, 130497), "recipient") | dict.fromkeys((17, 80007, 80008, 131064), "account") | {4: "app"}
    )
    expected = scopes.get(code or 0, "number" if kind is RateLimitError else None)
    assert meaning_of(operation, 429, code, None, "account locked, payment, message type").scope == expected


@pytest.mark.parametrize("code", range(198, 302))
def test_permissions_are_a_range(code: int) -> None:
    """All codes from 200 to 299 are permissions; their neighbours are not."""
    meaning = meaning_of("get_info", 400, code, None, "(#200) Permissions error")
    assert (meaning.error is PermissionDeniedError) is (200 <= code <= 299)


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("upload", InvalidRequestError),
        ("get_info", MediaNotFoundError),
        ("download", MediaNotFoundError),
        ("delete", MediaNotFoundError),
        ("send", InvalidRequestError),
    ],
)
def test_missing_object(operation: Operation, kind: type[ApiError]) -> None:
    """Code 100 with subcode 33 is missing media where the path has a media id; elsewhere it is the phone number."""
    text = "Unsupported request. Object with ID '1' does not exist, cannot be loaded due to missing permissions"
    meaning = meaning_of(operation, 400, 100, 33, text)
    assert meaning.error is kind
    expected = "URL of {media}" if operation == "download" else "{media} is not there"
    assert (expected if kind is MediaNotFoundError else "check WA_PHONE_NUMBER_ID") in meaning.advice
    assert meaning_of(operation, 400, 100, 34, text) == Meaning(InvalidRequestError)
    assert meaning_of(operation, 400, 33, None, text) == Meaning(InvalidRequestError)


@pytest.mark.parametrize(
    ("operation", "advice"),
    [
        ("get_info", "leave phone_number_id out"),
        ("delete", "leave phone_number_id out"),
        ("upload", "WA_PHONE_NUMBER_ID"),
    ],
)
def test_a_number_that_media_does_not_have(operation: Operation, advice: str) -> None:
    """Meta refuses a `phone_number_id` for media from webhooks. The sentence says to leave it out."""
    text = "(#100) Param phone_number_id is not a valid whatsapp business phone number id ID"
    meaning = meaning_of(operation, 400, 100, None, text)
    assert (meaning.error, advice in meaning.advice) == (InvalidRequestError, True)


VERDICTS = [
    (131031, FileTooLargeError, AccountRestrictedError, "Account has been locked"),
    (131031, FileTooLargeError, AccountRestrictedError, "Business Account locked"),
    (131042, UnsupportedMediaTypeError, AccountRestrictedError, "Business eligibility payment issue"),
    (131042, UnsupportedMediaTypeError, AccountRestrictedError, "There was an error related to your payment method"),
    (131051, CorruptedMediaError, InvalidRequestError, "Unsupported message type"),
    (131051, CorruptedMediaError, InvalidRequestError, "Message type unknown"),
]


@pytest.mark.parametrize(("code", "verdict", "kind", "metas_text"), VERDICTS)
def test_upload_verdicts(code: int, verdict: type[InvalidMediaError], kind: type[ApiError], metas_text: str) -> None:
    """On an upload three codes are about the file, unless the response has a word of Meta's own meaning, in any case."""
    plain = meaning_of("upload", 400, code, None, f"(#{code}) Invalid parameter")
    own = [meaning_of("upload", 400, code, None, text) for text in (metas_text, metas_text.upper())]
    assert (plain.error, plain.advice.startswith("the file"), plain.retryable) == (verdict, True, False)
    assert own == [Meaning(kind)] * 2


@pytest.mark.parametrize("operation", [operation for operation in OPERATIONS if operation != "upload"])
@pytest.mark.parametrize(("code", "kind", "metas_text"), [(code, *row) for code, _, *row in VERDICTS])
def test_verdicts_are_for_uploads_only(code: int, kind: type[ApiError], metas_text: str, operation: Operation) -> None:
    """On other verbs these codes have Meta's meaning under every text."""
    found = {meaning_of(operation, 400, code, None, text) for text in (metas_text, "(#1) Invalid parameter", "")}
    assert found == {Meaning(kind)}


TOKEN_TEXTS = [
    (None, "Invalid OAuth access token"),
    (100, "Invalid appsecret_proof provided in the API argument"),
    (100, "API calls from the server require an appsecret_proof argument"),
    (2500, "An active access token must be used to query information about the current user."),
]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("code", "text"), TOKEN_TEXTS)
def test_token_texts(code: int | None, text: str, operation: Operation) -> None:
    """A refused token or proof is recognised by its text where the code is ambiguous, on every verb."""
    found = [meaning_of(operation, 400, code, None, said) for said in (text, text.upper())]
    assert [meaning.error for meaning in found] == [AuthenticationError] * 2
    variable = "check WA_APP_SECRET" if "proof" in text else "make a new one, or pass an async function"
    assert all(variable in meaning.advice for meaning in found)


NOT_VALID = "(#100) Param image['id'] is not a valid whatsapp business account media attachment ID"
TEMPLATE = "Param template['components'][0]['parameters'][0]['image']['id'] is not a valid whatsapp business account media attachment ID"
TYPES = "(#100) Param file must be a file with one of the following types: audio/aac, audio/mp4."


@pytest.mark.parametrize(
    ("operation", "text", "kind"),
    [
        ("send", NOT_VALID, MediaNotFoundError),
        ("send", TEMPLATE, MediaNotFoundError),
        ("upload", NOT_VALID, InvalidRequestError),
        ("upload", TYPES, UploadRejectedError),
        ("upload", f"{TYPES} Received file of type 'text/csv'.", UploadRejectedError),
        ("send", TYPES, InvalidRequestError),
        ("upload", "(#100) Invalid parameter File Too Large", UploadRejectedError),
        ("delete", "(#100) Invalid parameter File Too Large", InvalidRequestError),
        ("upload", "(#100) The parameter messaging_product is required.", InvalidRequestError),
    ],
)
def test_texts_of_code_100(operation: Operation, text: str, kind: type[ApiError]) -> None:
    """Code 100 has many meanings; Meta's own sentences distinguish them, each on its verb."""
    assert meaning_of(operation, 400, 100, None, text).error is kind


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("code", "title", "kind"),
    [(code, title, kind) for code, title, kind, _ in TABLE if code not in {100, 2500, 131031, 131042, 131051}],
    ids=lambda value: str(value)[:40],
)
def test_texts_do_not_overrule_clear_codes(code: int, title: str, kind: type[ApiError], operation: Operation) -> None:
    """Where a code is clear, a text that mentions tokens or sizes changes nothing."""
    text = f"{title}: access token, appsecret_proof, url signature expired, file too large, account locked"
    assert meaning_of(operation, 400, code, None, text).error is kind


BY_STATUS: list[tuple[int, dict[Operation, type[ApiError]], type[ApiError]]] = [
    (400, {}, InvalidRequestError),
    (401, {}, AuthenticationError),
    (403, {}, PermissionDeniedError),
    (404, dict.fromkeys(("get_info", "download", "delete"), MediaNotFoundError), InvalidRequestError),
    (405, {}, InvalidRequestError),
    (410, dict.fromkeys(("get_info", "download", "delete"), MediaNotFoundError), InvalidRequestError),
    (413, dict.fromkeys(("upload", "upload_handle"), UploadRejectedError), InvalidRequestError),
    (415, dict.fromkeys(("upload", "upload_handle"), UploadRejectedError), InvalidRequestError),
    (429, {}, RateLimitError),
    (499, {}, InvalidRequestError),
    (500, {}, ServerError),
    (503, {}, ServerError),
    (599, {}, ServerError),
    (200, {}, ServerError),
    (302, {}, ServerError),
    (100, {}, ServerError),
]


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("status", "special", "usual"), BY_STATUS, ids=[str(row[0]) for row in BY_STATUS])
def test_status_decides_without_a_known_code(
    status: int, special: dict[Operation, type[ApiError]], usual: type[ApiError], operation: Operation
) -> None:
    """Without a code, or with an unknown one, the HTTP status decides; an odd status is a ServerError."""
    for code in (None, 131035, 999999, -1):
        meaning = meaning_of(operation, status, code, None, "no")
        assert meaning.error is special.get(operation, usual)
        assert meaning.retryable is (usual in {RateLimitError, ServerError} and (status >= 400 or code is not None))


def test_no_status_at_all() -> None:
    """A response without even a status is a ServerError."""
    assert meaning_of("get_info", None, None, None, "no") == Meaning(ServerError)


@given(
    st.sampled_from(OPERATIONS),
    st.none() | st.integers(),
    st.none() | st.integers(),
    st.none() | st.integers(),
    st.text(),
)
def test_everything_has_a_meaning(
    operation: Operation, status: int | None, code: int | None, subcode: int | None, text: str
) -> None:
    """Any status, code and text give a class of error."""
    assert issubclass(meaning_of(operation, status, code, subcode, text).error, ApiError | InvalidMediaError)
