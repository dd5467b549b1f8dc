"""What Meta's error codes mean for media. The code decides the class of an error; without a known code, the status."""

from __future__ import annotations

import re
from typing import Final

import attrs

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
    Scope,
    ServerError,
    UnsupportedMediaTypeError,
    UploadRejectedError,
)

__all__ = ["Meaning", "meaning_of"]

# Sources: the Cloud API's page "Error codes" (developers.facebook.com,
# documentation/business-messaging/whatsapp/support/error-codes) and the Graph API's page "Handle errors".
# Meta's advice is to build on codes, not on subcodes, titles or HTTP statuses.
_CODES: Final[dict[int | None, type[ApiError]]] = {
    code: kind
    for kind, codes in (
        (AuthenticationError, (0, 104, 190)),
        (PermissionDeniedError, (3, 10, *range(200, 300), 131005)),
        (InvalidRequestError, (33, 100, 131008, 131009, 131021, 131026, 131030, 131037, 131045, 131047, 131049)),
        (InvalidRequestError, (130472, 130501, 131050, 131051, *range(131060, 131064), 131065, 132012, 137000, 2500)),
        (RateLimitError, (4, 17, 32, 613, 80007, 80008, 130429, 131048, 131056, 131064, 133016)),
        (AccountRestrictedError, (368, 130497, 131031, 131042)),
        (ServerError, (1, 2, 131000, 131016, 131057, 133004)),
        (UploadRejectedError, (131052, 131053)),
    )
    for code in codes
}
_STATUSES: Final[dict[int, type[ApiError]]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    408: ServerError,  # the server timed out while it waited for the request
    429: RateLimitError,
}
_UPLOAD_STATUSES: Final[dict[int, type[ApiError]]] = {413: UploadRejectedError, 415: UploadRejectedError}
_MEDIA_STATUSES: Final[dict[int, type[ApiError]]] = {404: MediaNotFoundError, 410: MediaNotFoundError}

# What a limit or a restriction is about: Graph's pages "Rate limits" and "Error codes". 130497 is about the recipient's
# country, 17 about the user of a token. All other rate limits are about one phone number.
_SCOPES: Final[dict[int | None, Scope]] = {
    **dict[int | None, Scope].fromkeys((130497, 131056), "recipient"),
    **dict[int | None, Scope].fromkeys((17, 80007, 80008, 131064), "account"),
    4: "app",
}
# Rate limits that do not end soon: spam protection, templates of a wrong category, a limit of registrations per week.
_PERMANENT: Final = frozenset({131048, 131064, 133016})
_PASSING: Final = re.compile(r"weblink failed with http code (?:408|429|5\d\d)")  # 131053 of a link: a busy host

# Codes with several meanings, and the texts that distinguish them: (operation or any, text, class).
_AMBIGUOUS: Final = frozenset({None, 100, 2500})
_TEXTS: Final[tuple[tuple[Operation | None, str, type[ApiError]], ...]] = (
    (None, "access token", AuthenticationError),
    (None, "appsecret_proof", AuthenticationError),
    (None, "url signature expired", MediaNotFoundError),
    ("send", "is not a valid whatsapp business account media attachment id", MediaNotFoundError),
    ("upload", "param file must be a file with one of the following types", UploadRejectedError),
    ("upload", "file too large", UploadRejectedError),
    (None, "exceeded the endpoint rate limit", RateLimitError),  # this text and those below are 360dialog's own
    (None, "lack of payment", AccountRestrictedError),
    (None, "whatsapp for business api has been disabled", AccountRestrictedError),
)

# Meaning of three codes on an upload, as documented by meta-cloud-api. Meta's own table gives these codes other meanings,
# which apply where the response has one of the words listed here.
_UPLOAD_CODES: Final[dict[int | None, tuple[type[InvalidMediaError], str, tuple[str, ...]]]] = {
    131031: (FileTooLargeError, "the file is too large for its type: send a smaller one", ("locked", "account")),
    131042: (UnsupportedMediaTypeError, "the file's type is not accepted: convert it", ("payment", "eligibility")),
    131051: (CorruptedMediaError, "the file is corrupted: send the original", ("message type",)),
}

_ADVICE: Final[dict[type[ApiError], str]] = {
    AuthenticationError: "the access token is not valid: make a new one, or pass an async function that returns one",
    MediaNotFoundError: "{media} is not there: expired, deleted, or of another phone number",
}
_URL_ADVICE: Final = (
    "nothing is at the URL of {media}, which lives for five minutes: pass the media's id, or get its info again"
)
_CODE_ADVICE: Final[dict[int | None, str]] = {
    130501: "messages of this type cannot go to a group: send another type, or send to its members",
    131047: "the recipient has not written for 24 hours: send a template first",
    130497: "this account may not send to the recipient's country",
    131056: "too many messages to this recipient in a short time: send it later",
    131062: "this kind of message cannot go to a user id: send it to a phone number",
    131064: "the messaging limit is used up because templates are in a wrong category: Meta lifts it later",
    137000: "the recipient's identity has changed: send without recipient_identity_key_hash, or with the new one",
}


@attrs.frozen
class Meaning:
    """The meaning of an error response."""

    error: type[ApiError | InvalidMediaError]
    advice: str = ""  # what is wrong and what to do, where Meta's text does not say it; `{media}` stands for the media
    retryable: bool = False  # whether the same request may succeed later
    scope: Scope | None = None  # what a limit or a restriction is about


def meaning_of(operation: Operation, status: int | None, code: int | None, subcode: int | None, text: str) -> Meaning:
    """Look up the meaning of an error response. `text`, all its texts, counts only where the code is ambiguous."""
    text = text.lower()
    if operation == "upload" and code in _UPLOAD_CODES:
        error, advice, others = _UPLOAD_CODES[code]
        if not any(word in text for word in others):
            return Meaning(error, advice)
    kind = _class_of(operation, status or 0, code, subcode, text)
    # A redirect without a target is a ServerError below 400; a retry would meet it again.
    temporary = issubclass(kind, (RateLimitError, ServerError)) and code not in _PERMANENT
    temporary |= code == 131053 and _PASSING.search(text) is not None
    retryable = temporary and (code is not None or (status or 0) >= 400)
    scope: Scope | None = _SCOPES.get(code) or ("number" if kind is RateLimitError else None)
    return Meaning(kind, _advice(operation, kind, code, subcode, text), retryable, scope)


def _class_of(operation: Operation, status: int, code: int | None, subcode: int | None, text: str) -> type[ApiError]:
    about_media = operation in {"get_info", "download", "delete"}
    if operation == "download" and status in _MEDIA_STATUSES:  # whatever envelope the download host puts around it
        return _MEDIA_STATUSES[status]
    if code in _AMBIGUOUS:
        for verb, phrase, kind in _TEXTS:
            if verb in {None, operation} and phrase in text:
                return kind
        if code == 100 and subcode == 33 and about_media:
            return MediaNotFoundError
    if code in _CODES:
        return _CODES[code]
    special = _MEDIA_STATUSES if about_media else _UPLOAD_STATUSES if operation in {"upload", "upload_handle"} else {}
    return (_STATUSES | special).get(status, InvalidRequestError if 400 <= status < 500 else ServerError)


def _advice(operation: Operation, kind: type[ApiError], code: int | None, subcode: int | None, text: str) -> str:
    if operation == "download" and kind is MediaNotFoundError:
        return _URL_ADVICE
    if kind is AuthenticationError and "appsecret_proof" in text:
        return "the app secret does not fit the access token: check WA_APP_SECRET"
    # on upload and send, the path's id is the number; the text is that of a `phone_number_id` in a query
    if kind is InvalidRequestError and code == 100 and (subcode == 33 or "param phone_number_id" in text):
        if operation == "upload_handle":
            return "the app id is not one that the access token may use: check WA_APP_ID"
        if operation in {"get_info", "delete"}:  # Meta refuses it for media from webhooks
            return "the media was not uploaded on this phone number id: leave phone_number_id out"
        return "the phone number id is not one that the access token may use: check WA_PHONE_NUMBER_ID"
    return _CODE_ADVICE.get(code) or _ADVICE.get(kind, "")
