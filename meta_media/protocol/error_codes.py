"""What Meta's error codes mean for media: the tables that give an answer its class. Codes decide, then HTTP status."""

from __future__ import annotations

from typing import Final

from meta_media.errors import (
    AccountRestrictedError,
    ApiError,
    AuthenticationError,
    CorruptedMediaError,
    FileTooLargeError,
    InvalidMediaError,
    InvalidRequestError,
    MediaError,
    MediaNotFoundError,
    Operation,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    UnsupportedMediaTypeError,
    UploadRejectedError,
)

__all__ = ["error_from_response"]

# What Meta's codes mean for media, from the Cloud API's page "Error codes" (developers.facebook.com,
# documentation/business-messaging/whatsapp/support/error-codes) and the Graph API's "Handle errors".
# Meta: build on codes, not on subcodes, titles or HTTP statuses.
_CODES: Final[dict[int | None, type[ApiError]]] = {
    code: kind
    for kind, codes in (
        (AuthenticationError, (0, 104, 190)),
        (PermissionDeniedError, (3, 10, *range(200, 300), 131005)),
        (InvalidRequestError, (33, 100, 131008, 131009, 131051, 132012, 2500)),
        (RateLimitError, (4, 17, 32, 613, 80007, 80008, 130429, 131048, 131056, 133016)),
        (AccountRestrictedError, (368, 131031, 131042)),
        (ServerError, (1, 2, 131000, 131016, 131057, 133004)),
        (UploadRejectedError, (131052, 131053)),
    )
    for code in codes
}
_STATUSES: Final[dict[int, type[ApiError]]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    408: ServerError,  # it gave up waiting for the request
    429: RateLimitError,
}
_UPLOAD_STATUSES: Final[dict[int, type[ApiError]]] = {413: UploadRejectedError, 415: UploadRejectedError}
_MEDIA_STATUSES: Final[dict[int, type[ApiError]]] = {404: MediaNotFoundError, 410: MediaNotFoundError}

# Rate limits that waiting does not cure: spam protection, and a week's worth of registrations.
_PERMANENT: Final = frozenset({131048, 133016})

# Codes that Meta uses for several meanings, and the words that tell them apart: (operation or any, words, class).
_AMBIGUOUS: Final = frozenset({None, 100, 2500})
_WORDS: Final[tuple[tuple[Operation | None, str, type[ApiError]], ...]] = (
    (None, "access token", AuthenticationError),
    (None, "appsecret_proof", AuthenticationError),
    (None, "url signature expired", MediaNotFoundError),
    ("send", "is not a valid whatsapp business account media attachment id", MediaNotFoundError),
    ("upload", "param file must be a file with one of the following types", UploadRejectedError),
    ("upload", "file too large", UploadRejectedError),
)

# On an upload, meta-cloud-api documents these codes as verdicts on the file. Meta's own table gives them other meanings,
# and a reply in words of that meaning is taken at its word.
_UPLOAD_VERDICTS: Final[dict[int | None, tuple[type[InvalidMediaError], str, tuple[str, ...]]]] = {
    131031: (FileTooLargeError, "Meta says that the file is too large", ("locked", "account")),
    131042: (UnsupportedMediaTypeError, "Meta says that the file's type is not accepted", ("payment", "eligibility")),
    131051: (CorruptedMediaError, "Meta says that the file is corrupted", ("message type",)),
}


def error_from_response(operation: Operation, answer: ApiError, *, words: str, transient: bool = False) -> MediaError:
    """
    Give an answer of Meta's the class that its code, then its status, calls for.

    Args:
        operation: The verb that was answered: some codes mean different things to different verbs.
        answer: Everything the reply said.
        words: All text of the reply; consulted only where a code alone is ambiguous.
        transient: Whether the reply called itself transient.
    """
    words = words.lower()
    if operation == "upload" and answer.code in _UPLOAD_VERDICTS:
        verdict, sentence, contrary = _UPLOAD_VERDICTS[answer.code]
        if not any(word in words for word in contrary):
            return verdict(f"{sentence}: {answer}", answer=answer)
    kind = _class_of(operation, answer, words)
    waits = issubclass(kind, (RateLimitError, ServerError)) and answer.code not in _PERMANENT
    waits = waits and (
        answer.code is not None or (answer.status or 0) >= 400
    )  # a redirect that leads nowhere stays one
    error = kind(answer.message)
    error.__dict__.update(answer.__dict__)
    error.retryable = waits or transient
    return error


def _class_of(operation: Operation, answer: ApiError, words: str) -> type[ApiError]:
    about_media = operation in {"get_info", "download", "delete"}
    if answer.code in _AMBIGUOUS:
        for verb, phrase, kind in _WORDS:
            if verb in {None, operation} and phrase in words:
                return kind
        if answer.code == 100 and answer.subcode == 33 and about_media:
            return MediaNotFoundError
    if answer.code in _CODES:
        return _CODES[answer.code]
    status = answer.status or 0
    by_status = (
        _STATUSES | (_MEDIA_STATUSES if about_media else {}) | (_UPLOAD_STATUSES if operation == "upload" else {})
    )
    return by_status.get(status, InvalidRequestError if 400 <= status < 500 else ServerError)
