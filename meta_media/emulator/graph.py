"""What requests have in common: version, operation, parameters, and the access token with its proof; and what is kept of each."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import time
from collections.abc import Mapping
from typing import Any, Final, Self

import attrs
from starlette.requests import Request

from meta_media.emulator.download import PATH
from meta_media.emulator.responses import GraphError
from meta_media.emulator.state import State, Token
from meta_media.errors import Operation

__all__ = ["CREDENTIALS", "Access", "ReceivedRequest", "bearer", "graph_path", "operation_of", "read_parameters"]

# All that were ever issued (the changelog of the Graph API): v27.0 since 4 November 2026.
_VERSION: Final = re.compile(r"v(1\.0|2\.([0-9]|1[0-2])|3\.[0-3]|([4-9]|1[0-9]|2[0-7])\.0)")
_OLDEST: Final = 21  # v20.0 ended on 24 September 2026
_SECONDS: Final = re.compile(r"[0-9]{1,12}")
_PROOF_LIFETIME: Final = 300  # seconds; Meta's page "Login security", section appsecret_proof
_MAX_JSON_SIZE: Final = 2**20
CREDENTIALS: Final = frozenset({"access_token", "appsecret_proof", "appsecret_time"})  # names of parameters


@attrs.frozen(kw_only=True)
class ReceivedRequest:
    """
    A request that the emulator received; headers are kept as sent.

    Attributes:
        path: Without the query.
        query: Without repeated names.
        authorization: Whether there was one. Its value is not kept.
        content_length: As declared.
    """

    method: str
    path: str
    query: Mapping[str, str] = attrs.field(repr=False)
    authorization: bool
    user_agent: str | None
    range: str | None
    content_type: str | None
    content_length: int | None
    transfer_encoding: str | None

    @classmethod
    def of(cls, request: Request) -> Self:
        """Return what is kept of a request."""
        headers = request.headers
        length = headers.get("content-length")
        return cls(
            method=request.method,
            path=request.scope["state"].get("path", request.scope["path"]),  # as the client has sent it
            query=dict(request.query_params),
            authorization="authorization" in headers,
            user_agent=headers.get("user-agent"),
            range=headers.get("range"),
            content_type=headers.get("content-type"),
            content_length=int(length) if length else None,
            transfer_encoding=headers.get("transfer-encoding"),
        )


def graph_path(path: str) -> tuple[str, str]:
    """
    Return the version that serves a path, and the path below it, without a slash at the end.

    The oldest version that is left serves the retired ones, and paths without a version (Meta's page "Platform Versioning").
    What was never issued is no version, but an object's id: the recorded error names only what comes after it.
    """
    first, _, rest = path[1:].partition("/")
    issued = _VERSION.fullmatch(first)
    number = max(int(first[1:].partition(".")[0]), _OLDEST) if issued else _OLDEST
    return f"v{number}.0", "/" + (rest if issued else path[1:]).rstrip("/")


def operation_of(method: str, path: str) -> Operation | None:
    """Return the operation that a request is of, or None."""
    if path == PATH:
        return "download"
    match method, graph_path(path)[1].split("/")[1:]:
        case "POST", [_, "media"]:
            return "upload"
        case "POST", [_, "messages"]:
            return "send"
        case _, [node, *rest] if node.startswith("upload:") or rest == ["uploads"]:
            return "upload_handle"
        case "GET" | "HEAD", [object_id] if object_id:
            return "get_info"
        case "DELETE", [_]:
            return "delete"
    return None


async def read_parameters(request: Request) -> dict[str, Any]:
    """
    Return the parameters in the query and in a JSON body. null is no value, and a number is text, as in a form.

    A body that is not a JSON object, or is far too long, has no parameters.
    """
    given: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        given = json.loads(await _small_body(request), object_hook=_without_nulls)
    body = given if isinstance(given, dict) else {}
    return dict(request.query_params) | {
        name: str(value) if type(value) is int else value for name, value in body.items()
    }


def bearer(request: Request) -> str | None:
    """Return the access token in the header `Authorization`, or None."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() in {"bearer", "oauth"} else None


@attrs.frozen
class Access:
    """Tells who may ask: by the access token in the header or among the parameters, and by `appsecret_proof`."""

    state: State
    app_secret: str = attrs.field(repr=False)
    proof_required: bool

    def check_early(self, request: Request) -> None:
        """Refuse an upload before its form is read, unless the form may hold what is missing."""
        query = request.query_params
        has_token = bearer(request) or "access_token" in query
        if has_token and (not self.proof_required or "appsecret_proof" in query):
            self.number(request, query)

    def token(self, request: Request, given: Mapping[str, Any]) -> Token:
        """Return the token of a request, if it is valid; otherwise raise its `GraphError`."""
        value = bearer(request) or str(given.get("access_token", ""))
        if not value and request.path_params["object_id"] == "me":
            raise GraphError.of("no_user")
        token = self.state.authenticate(value)
        self._check_proof(token.value, given)
        return token

    def number(self, request: Request, given: Mapping[str, Any]) -> str:
        """Return the number that a request is to; a `GraphError` unless its token may act for it."""
        number = str(request.path_params["object_id"])
        if number not in self.token(request, given).numbers:
            raise GraphError.of("gone", verb=request.method.lower(), id=number)
        return number

    def _check_proof(self, access_token: str, given: Mapping[str, Any]) -> None:
        """Check `appsecret_proof`, in its timed form and in the classic one."""
        proof, issued = given.get("appsecret_proof"), given.get("appsecret_time")
        if proof is None:
            if self.proof_required:
                raise GraphError.of("missing_proof")
            return
        signed = access_token if issued is None else f"{access_token}|{issued}"
        expected = hmac.new(self.app_secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
        fresh = issued is None or (  # by the real time: a client does not know of `clock.advance`
            _SECONDS.fullmatch(str(issued)) is not None and abs(time.time() - int(issued)) <= _PROOF_LIFETIME
        )
        if not fresh or not hmac.compare_digest(expected.encode(), str(proof).encode(errors="replace")):
            raise GraphError.of("wrong_proof")


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {name: inner for name, inner in value.items() if inner is not None}


async def _small_body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body = (body + piece)[: _MAX_JSON_SIZE + 1]
    return body if len(body) <= _MAX_JSON_SIZE else b""
