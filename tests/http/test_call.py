"""The one room that sends: whose token goes where, what every failure becomes, and what is never shown."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import logging
import os
import pickle
import re
import socket
import ssl
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import httpcore
import httpx
import pytest

from meta_media import MediaApi, MediaInfo, Settings
from meta_media.emulator import Emulator
from meta_media.errors import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequestError,
    MediaError,
    MediaNotFoundError,
    NetworkError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    TransferTimeoutError,
)
from meta_media.http.exceptions import map_exception
from meta_media.protocol.responses import MAX_RESPONSE_SIZE
from tests.support.servers import (
    Received,
    Server,
    Step,
    cut,
    endless,
    info,
    json_response,
    page,
    reset,
    silence,
    stalled,
    wait_until,
)

CANARY = "EAAGcanaryTOKENcanary"
DEAD = json_response(
    {"error": {"message": "Session has expired", "type": "OAuthException", "code": 190, "error_subcode": 463}}, 401
)
Connect = Callable[..., Any]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Start scripted servers, each with a client that takes it for the Graph API."""
    async with AsyncExitStack() as stack:

        async def connected(*script: Any, token: Any = CANARY, client: Any = None, **settings: Any) -> Any:
            server = await stack.enter_async_context(Server(*script))
            configured = Settings(base_url=server.base_url, **{"max_retries": 0} | settings)
            api = MediaApi(token, "1", settings=configured, http_client=client)
            return server, await stack.enter_async_context(api)

        yield connected


def media_info(server: Server, media_id: str = "7") -> bytes:
    """Answer about a media."""
    return info(f"{server.base_url}/media?hash=SIGNATURE", b"x" * 9, media_id=media_id)


async def failed(api: MediaApi, kind: type[MediaError]) -> Any:
    """Ask about media, and return the error."""
    with pytest.raises(kind) as caught:
        await api.get_info("7")
    assert type(caught.value) is kind
    assert (caught.value.operation, caught.value.media_id) == ("get_info", "7")
    return caught.value


# Exceptions


def classes(module: Any) -> list[type[Exception]]:
    """List every exception class of a module."""
    return sorted(
        (value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, Exception)),
        key=lambda found: found.__name__,
    )


PHASES = {"ConnectTimeout": "connect", "PoolTimeout": "pool", "WriteTimeout": "write"}


@pytest.mark.parametrize(
    "kind", [*classes(httpx), *classes(httpcore)], ids=lambda kind: f"{kind.__module__}.{kind.__name__}"
)
@pytest.mark.parametrize("changes", [True, False])
def test_every_exception_of_the_stack(kind: type[Exception], changes: bool) -> None:
    """Every exception class of httpx and httpcore becomes a NetworkError or a timeout, with a sentence of our own."""
    made: Any = kind.__new__(kind)
    made.args = ("Bearer EAAGcanary https://host/?hash=s",)
    error = map_exception(made, "upload at host", changes=changes)
    timeout = kind.__name__.endswith(("Timeout", "TimeoutException"))
    assert type(error) is (TransferTimeoutError if timeout else NetworkError)
    if isinstance(error, TransferTimeoutError):
        assert error.phase == PHASES.get(kind.__name__, "read")
    not_sent = {"ConnectTimeout", "PoolTimeout", "ConnectError", "ProxyError", "UnsupportedProtocol"}
    assert error.maybe_applied is (changes and kind.__name__ not in not_sent)
    assert error.retryable is (kind.__name__ not in {"UnsupportedProtocol", "InvalidURL", "LocalProtocolError"})
    assert re.fullmatch(r"upload at host: [a-zA-Z ()]+", str(error))


def sentence(error: Exception, cause: BaseException | None = None) -> str:
    """Say what is said of an exception."""
    error.__context__ = cause
    return str(map_exception(error, "get_info at host", changes=False)).removeprefix("get_info at host: ")


def test_exceptions_of_others() -> None:
    """Whatever else comes out of the stack is a NetworkError that names its class, and nothing it says."""
    assert sentence(RuntimeError("Bearer EAAGcanary")) == "the connection failed (RuntimeError)"
    assert sentence(httpx.ConnectError("502 is no status here")) == "could not connect"
    assert sentence(httpx.ProxyError("502 Bad Gateway")) == "the proxy refused with status 502"
    assert sentence(httpx.ProxyError("407")) == "the proxy refused with status 407: check its user and password"


def test_what_the_system_says() -> None:
    """The system's own words are added, by its number; where there is none, or not the system's, those that came with it."""
    several = OSError("All connection attempts failed")
    several.__cause__ = ExceptionGroup("several", [OSError(113, "No route to host")])
    for cause, words in (
        (several, "No route to host"),
        (OSError(1, "connect call failed ('10.0.0.1', 443)"), "Operation not permitted"),
        (OSError(-2, "Name or service not known"), "Name or service not known"),
        (OSError(None, "it broke"), "it broke"),
        (OSError(0, "it broke"), "it broke"),
    ):
        assert sentence(httpx.ConnectError("x"), cause) == f"could not connect ({words})"


@pytest.mark.parametrize(
    ("reason", "text", "words"),
    [
        ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "[SSL: X] decryption failed (_ssl.c:2580)", None),
        ("SSLV3_ALERT_BAD_RECORD_MAC", "[SSL: X] sslv3 alert bad record mac (_ssl.c:2580)", None),
        (None, "EOF occurred in violation of protocol (_ssl.c:1006)", "eof occurred in violation of protocol"),
        (None, "[SSL] unknown error (_ssl.c:1006)", "unknown error"),
    ],
)
def test_what_tls_says(reason: str | None, text: str, words: str | None) -> None:
    """OpenSSL's reason is told in words; its error number is none of the system's, where 1 means "not permitted"."""
    cause = ssl.SSLError(1, text)
    cause.reason = reason  # type: ignore[assignment]  # it is None where OpenSSL has none
    words = words or str(reason).replace("_", " ").lower()
    assert (
        sentence(httpx.ReadError("x"), cause)
        == f"the connection was lost while waiting for the response (TLS: {words})"
    )
    assert sentence(cause) == f"the encrypted connection failed (TLS: {words})"


@pytest.mark.parametrize(("stage", "hopeful"), [(httpx.ConnectError, False), (httpx.ReadError, True)])
def test_no_tls(stage: type[httpx.TransportError], hopeful: bool) -> None:
    """A peer that does not begin with TLS never will; what is none later on was damaged on its way."""
    cause = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    cause.reason = "WRONG_VERSION_NUMBER"
    failed = stage("x")
    failed.__cause__ = cause
    error = map_exception(failed, "get_info at host", changes=False)
    assert (error.retryable, "does not speak TLS" in str(error)) == (hopeful, not hopeful)


@pytest.mark.parametrize("framed", [True, False])
async def test_replies_as_long_as_may_be(connect: Connect, framed: bool) -> None:
    """A response of MAX_RESPONSE_SIZE bytes is read; one byte more is a ServerError."""
    server, api = await connect()
    _, _, body = media_info(server).partition(b"\r\n\r\n")
    length: Any = -1 if framed else None
    server.script = [
        page(body.ljust(MAX_RESPONSE_SIZE), length=length),
        page(body.ljust(MAX_RESPONSE_SIZE + 1), length=length),
    ]
    assert (await api.get_info("7")).id == "7"
    error = await failed(api, ServerError)
    assert "Meta's response is longer than 1048576 bytes" in str(error)


async def test_connection_refused() -> None:
    """A port where nobody listens is a NetworkError of a request that was not sent."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        settings = Settings(base_url=f"http://127.0.0.1:{closed.getsockname()[1]}", max_retries=0)
        async with MediaApi(CANARY, "1", settings=settings) as api:
            error = await failed(api, NetworkError)
            assert "could not connect (" in str(error)
            with pytest.raises(NetworkError) as caught:
                await api.upload(b"text")
            assert (caught.value.maybe_applied, caught.value.retryable, caught.value.attempts) == (False, True, 1)


async def test_unknown_host() -> None:
    """A host that nobody knows is a NetworkError that says so."""
    async with MediaApi(CANARY, "1", settings=Settings(base_url="https://nobody.invalid")) as api:
        error = await failed(api, NetworkError)
    assert str(error).startswith("get_info at nobody.invalid: could not connect (")


async def test_connect_timeout(tls_files: tuple[Path, Path]) -> None:
    """A TLS handshake that is never answered is a TransferTimeoutError of the connect phase."""
    async with Server(silence) as server:
        settings = Settings(base_url=f"https://127.0.0.1:{server.port}", connect_timeout=0.3)
        async with MediaApi(CANARY, "1", settings=settings) as api:
            error = await failed(api, TransferTimeoutError)
    assert (error.phase, error.maybe_applied) == ("connect", False)
    assert server.requests == []


async def test_read_timeout(connect: Connect) -> None:
    """A reply that does not come in time is a TransferTimeoutError of the read phase, and says whether it matters."""
    _, api = await connect(silence, read_timeout=0.3)
    error = await failed(api, TransferTimeoutError)
    assert (error.phase, error.maybe_applied, error.retryable) == ("read", False, True)
    with pytest.raises(TransferTimeoutError) as caught:
        await api.delete("7")
    assert caught.value.maybe_applied is True


async def test_plain_port_spoken_to_in_tls() -> None:
    """A plain HTTP server behind an https URL is a NetworkError."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(page("", 400))
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        settings = Settings(base_url=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        async with MediaApi(CANARY, "1", settings=settings) as api:
            error = await failed(api, NetworkError)
    assert "could not connect" in str(error)


async def test_certificate_that_nobody_trusts(tls_files: tuple[Path, Path]) -> None:
    """A certificate that is not trusted is a NetworkError that trying again does not cure, and says why."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls_files)
    async with Server(page(), tls=context) as server:
        async with MediaApi(CANARY, "1", settings=Settings(base_url=server.base_url)) as api:
            error = await failed(api, NetworkError)
        assert (error.retryable, server.requests) == (False, [])
        assert re.search(r"could not connect: self.signed certificate", str(error))


async def test_certificate_that_the_environment_trusts(
    tls_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate named by SSL_CERT_FILE is trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*tls_files)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_files[0]))
    async with Server(b"", tls=context) as server:
        server.script[0] = media_info(server)
        async with MediaApi(CANARY, "1", settings=Settings(base_url=server.base_url)) as api:
            assert (await api.get_info("7")).id == "7"


REPLIES: dict[str, tuple[Step, type[MediaError], bool]] = {
    # reply to a question: class, retryable
    "garbage": (cut(b"\0\1\2 garbage"), NetworkError, True),
    "nothing": (cut(b""), NetworkError, True),
    "reset": (reset(), NetworkError, True),
    "half a head": (cut(b"HTTP/1.1 200 OK\r\nCont"), NetworkError, True),
    "half a body": (cut(page('{"id"', length=100)), NetworkError, True),
    "endless head": (endless(b"HTTP/1.1 200 OK\r\n", b"x-header: value\r\n" * 1000), NetworkError, True),
    "empty": (page(), ServerError, True),
    "list": (json_response([]), ServerError, True),
    "null": (json_response(None), ServerError, True),
    "text": (json_response("id"), ServerError, True),
    "no fields": (json_response({}), ServerError, True),
    "null fields": (json_response({"id": None, "url": None, "mime_type": None}), ServerError, True),
    "HTML": (page("<html>", content_type="text/html"), ServerError, True),
    "not UTF-8": (page(b'{"id": "\xff"}'), ServerError, True),
    "2 MiB": (page(b'{"id": "7", "url": "https://x", "mime_type": "' + b"a" * 2**21 + b'"}'), ServerError, True),
    "endless body": (endless(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 10**5), ServerError, True),
    "nested": (page(b'{"id":' * 200_000), ServerError, True),
    "compressed": (page(b"x", content_encoding="gzip"), ServerError, False),
    "error in a success": (json_response({"error": {"message": "no", "code": 200}}), PermissionDeniedError, False),
    "error text": (json_response({"error": "no"}, 400), InvalidRequestError, False),
    "error list": (json_response([1], 400), InvalidRequestError, False),
    "code is text": (json_response({"error": {"message": "no", "code": "abc"}}, 500), ServerError, True),
    "long error": (page(b" " * 2**21, 429), RateLimitError, True),
    "half an error": (cut(page("{", 404, length=99)), MediaNotFoundError, False),
    "redirect": (page("", 301), ServerError, False),
    "401": (page("", 401), AuthenticationError, False),
    "503": (page("<html>", 503, content_type="text/html"), ServerError, True),
}


@pytest.mark.parametrize("reply", REPLIES)
async def test_odd_replies(connect: Connect, reply: str) -> None:
    """An odd reply to a question is one of our errors; nothing is followed, and the client works on."""
    script, kind, retryable = REPLIES[reply]
    server, api = await connect(script, b"")
    server.script[1] = media_info(server)
    error = await failed(api, kind)
    assert (error.retryable, error.maybe_applied, error.attempts) == (retryable, False, 1)
    assert len(server.requests) == 1
    assert (await api.get_info("7")).id == "7"


async def test_retry_after(connect: Connect) -> None:
    """Meta's word on when to come back is on the error."""
    _, api = await connect(json_response({"error": {"message": "slow", "code": 130429}}, 400, retry_after="7"))
    assert (await failed(api, RateLimitError)).retry_after == 7.0


# Tokens


async def test_token_is_asked_for_once(connect: Connect) -> None:
    """A token callable is asked once for all who wait, and once more for all whom Meta refused with its token."""
    asked: list[str] = []

    async def ask() -> str:
        asked.append(f"token{len(asked)}")
        await asyncio.sleep(0.05)  # so that everybody is waiting by now
        return f" {asked[-1]}\n"

    server, api = await connect(b"", token=ask, concurrency=50)
    server.script[0] = media_info(server)
    await asyncio.gather(*(api.get_info("7") for _ in range(20)))
    assert asked == ["token0"]
    answer = media_info(server)

    async def judge(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(DEAD if request.header("authorization") == "Bearer token0" else answer)

    server.script.append(judge)
    results = await asyncio.gather(*(api.get_info("7") for _ in range(20)))
    assert {type(result) for result in results} == {MediaInfo}
    assert asked == ["token0", "token1"]
    assert {request.header("authorization") for request in server.requests} == {"Bearer token0", "Bearer token1"}


async def test_late_refusal_of_an_old_token(connect: Connect) -> None:
    """A refusal of a token that has been replaced meanwhile does not cost the new one."""
    asked: list[str] = []

    async def ask() -> str:
        asked.append(f"token{len(asked)}")
        return asked[-1]

    hold = asyncio.Event()
    server, api = await connect(stalled(b"", hold, DEAD), DEAD, b"", token=ask)
    server.script[2] = media_info(server)
    late = asyncio.ensure_future(api.get_info("7"))
    await wait_until(lambda: len(server.requests) == 1)
    await api.get_info("7")
    hold.set()
    assert (await late).id == "7"
    await api.get_info("7")
    assert asked == ["token0", "token1"]


async def test_refusal_of_a_download_renews_the_token(connect: Connect) -> None:
    """A download that is refused for its token asks for a new one and is tried once more with that."""
    asked: list[int] = []

    async def ask() -> str:
        asked.append(len(asked))
        return f"token{len(asked)}"

    server, api = await connect(page("", 401), token=ask)
    with pytest.raises(AuthenticationError) as caught:
        await api.read(f"{server.base_url}/media")
    assert (asked, caught.value.attempts) == ([0, 1], 2)
    assert [request.header("authorization") for request in server.requests] == ["Bearer token1", "Bearer token2"]


async def test_fixed_token_is_kept(connect: Connect) -> None:
    """A token that is a string is sent again after a refusal: there is nobody to ask."""
    server, api = await connect(DEAD)
    for _ in range(2):
        await failed(api, AuthenticationError)
    assert [request.header("authorization") for request in server.requests] == [f"Bearer {CANARY}"] * 2


async def test_token_callable_that_raises(connect: Connect) -> None:
    """What a token callable raises arrives unchanged, and the next call asks again."""
    own = ZeroDivisionError("mine")
    answers: list[Any] = [own, "token"]

    async def ask() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    server, api = await connect(b"", token=ask)
    server.script[0] = media_info(server)
    with pytest.raises(ZeroDivisionError) as caught:
        await api.get_info("7")
    assert caught.value is own
    assert (await api.get_info("7")).id == "7"


@pytest.mark.parametrize("token", ["", "  ", "to ken", "tok\nen", "tökén", "token\0", None], ids=repr)
@pytest.mark.parametrize("by", ["string", "callable", "environment"])
async def test_tokens_that_cannot_be(connect: Connect, monkeypatch: pytest.MonkeyPatch, token: Any, by: str) -> None:
    """A token that cannot be one is a ConfigurationError that does not show it, before any request."""

    async def ask() -> Any:
        return token

    if by == "environment" and token is not None and "\0" not in token:
        monkeypatch.setenv("CLOUD_API_ACCESS_TOKEN", token)

    async def call() -> None:
        _, api = await connect(page(), token={"string": token, "callable": ask}.get(by))
        await api.get_info("7")

    with pytest.raises(ConfigurationError, match="access token") as caught:
        await call()
    shown = str(caught.value)
    assert not token or not token.strip() or token.strip() not in shown
    assert caught.value.attempts == 0


async def test_token_from_the_environment(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that was not passed comes from the environment, without the newline that files put after it."""
    monkeypatch.setenv("CLOUD_API_ACCESS_TOKEN", f"{CANARY}\n")
    server, api = await connect(b"", token=None)
    server.script[0] = media_info(server)
    await api.get_info("7")
    assert server.requests[0].header("authorization") == f"Bearer {CANARY}"


# What is never shown


def everything_shown(error: BaseException) -> str:
    """Collect whatever an error, and each of its causes, would put into a log, a pickle or a note."""
    shown = [repr(pickle.dumps(error)), repr(vars(error)), repr(copy.copy(error)), *traceback.format_exception(error)]
    seen: BaseException | None = error
    while seen is not None:
        shown += [str(seen), repr(seen), *map(str, getattr(seen, "__notes__", []))]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(shown)


SECRETS = ("SIGNATURE", CANARY)


async def _many_failures(server: Server, api: MediaApi) -> AsyncIterator[BaseException]:
    """Fail in every way that has a token or a signature at hand."""
    quoted = json_response({"error": {"message": f"Malformed access token {CANARY}", "code": 190}}, 401)
    url = f"{server.base_url}/media?hash=SIGNATURE"
    known = MediaInfo(id="7", url=url, mime_type="image/png", sha256="0" * 64)
    redirected = page("", 302, location=f"https://evil.example/?hash=SIGNATURE&{CANARY}")
    script: list[tuple[Step, Callable[[], Any]]] = [
        (quoted, lambda: api.get_info("7")),
        (quoted, lambda: api.upload(b"text")),
        (page(f"see {url}", 400, content_type="text/plain"), lambda: api.delete("7")),
        (
            json_response({"error": {"message": f"see {url}", "code": 1}}, 500),
            lambda: api.send("+15550001111", "7", kind="image"),
        ),
        (reset(), lambda: api.read(url)),
        (page("", 404), lambda: api.read(url)),
        (page("other"), lambda: api.read(known)),
        (page("<p>", content_type="text/html"), lambda: api.read(known)),
        (redirected, lambda: api.read(url)),
        (page("", 302, location="/again?hash=SIGNATURE"), lambda: api.read(url)),
        (cut(b"garbage"), lambda: api.upload(b"text")),
    ]
    for step, call in script:
        server.script[:] = [step] * (len(server.requests) + 1)
        with pytest.raises(MediaError) as caught:
            await call()
        yield caught.value


@pytest.mark.parametrize("given", [False, True], ids=["ours", "httpx"])
async def test_nothing_secret_is_shown(connect: Connect, caplog: pytest.LogCaptureFixture, given: bool) -> None:
    """Neither the token nor a signed query is in any error, its causes, tracebacks, pickles, or any log at DEBUG."""
    caplog.set_level(logging.DEBUG)
    server, api = await connect(page(), client=httpx.AsyncClient() if given else None)
    async for error in _many_failures(server, api):
        shown = everything_shown(error)
        for secret in SECRETS:
            assert secret not in shown
    logged = "\n".join(record.getMessage() + repr(record.args) for record in caplog.records)
    assert ("send_request_headers.started" in logged) is given  # ours says nothing at all
    for secret in SECRETS:
        assert secret not in logged
    assert CANARY not in repr(api) + repr(api.settings) + repr(vars(api))


async def test_tracebacks_with_locals(connect: Connect) -> None:
    """A traceback that shows local variables, as error reporters make them, does not show the token."""
    _, api = await connect(reset())
    error = await failed(api, NetworkError)
    seen: traceback.TracebackException | None = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours: list[str] = []
    while seen is not None:
        ours += [str(frame.locals) for frame in seen.stack if f"{os.sep}meta_media{os.sep}" in frame.filename]
        seen = seen.__cause__ or seen.__context__
    assert len(ours) > 10
    assert CANARY not in "".join(ours)


@pytest.mark.parametrize("token", ["EAAGcanary", "with/slash+and=more"])
async def test_quoted_token_is_masked(connect: Connect, token: str) -> None:
    """Where Meta quotes the token in her message, with slashes escaped as she does, it is masked."""
    body = json.dumps({"error": {"message": f"Malformed access token {token}.", "code": 190}}).replace("/", "\\/")
    _, api = await connect(page(body, 401, content_type="application/json"), token=token)
    error = await failed(api, AuthenticationError)
    assert error.message == "Malformed access token ***."


async def test_concurrently_refused_tokens_are_masked(connect: Connect) -> None:
    """A quoted token is masked also when another call has made it forgotten meanwhile."""

    async def ask() -> str:
        return CANARY

    _, api = await connect(json_response({"error": {"message": f"Malformed {CANARY}", "code": 190}}, 401), token=ask)
    errors = await asyncio.gather(*(api.get_info("7") for _ in range(5)), return_exceptions=True)
    assert [error.message for error in errors if isinstance(error, AuthenticationError)] == ["Malformed ***"] * 5


async def test_logs_of_others_are_left_alone(connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
    """What somebody else sends with httpx in the same process is logged as ever."""
    caplog.set_level(logging.INFO)
    server, api = await connect(page())
    await failed(api, ServerError)
    async with httpx.AsyncClient() as client:
        await client.get(f"{server.base_url}/other?query=kept")
    assert f"{server.base_url}/other?query=kept" in caplog.text


# The client


async def test_injected_client(connect: Connect) -> None:
    """An injected client's headers, cookies, parameters and auth are not sent; it is as it was, and open."""
    given = {"authorization": "Basic eDp5", "x-api-key": "key", "cookie": "a=b", "host": "evil", "connection": "close"}
    async with httpx.AsyncClient(
        headers=given,
        cookies={"session": "secret"},
        params={"tracking": "1"},
        auth=("user", "password"),
        base_url="https://elsewhere.example/base",
        follow_redirects=True,
    ) as client:
        before = (dict(client.headers), dict(client.cookies), str(client.params), client.auth, client.timeout)
        server, api = await connect(json_response({"id": "42"}), client=client)
        async with api:
            await api.upload(b"text", filename="a.txt")
            server.script[:] = [*server.script, media_info(server), page("", 302)]
            await api.get_info("7")
            await failed(api, ServerError)
        assert (dict(client.headers), dict(client.cookies), str(client.params), client.auth, client.timeout) == before
        assert not client.is_closed
    for request in server.requests:
        headers = dict(request.headers)
        assert headers["authorization"] == f"Bearer {CANARY}"
        assert headers["host"] == f"127.0.0.1:{server.port}"
        assert not {"x-api-key", "cookie", "connection"} & set(headers)
        assert request.target in {"/v25.0/1/media", "/v25.0/7"}


async def test_injected_client_with_a_transport_of_its_own() -> None:
    """An injected client's transport is what sends, whatever it is."""

    async def answer(request: httpx.Request) -> httpx.Response:
        assert request.url == "https://graph.facebook.com/v25.0/7"
        return httpx.Response(200, json={"id": "7", "url": "https://x/", "mime_type": "image/png"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        assert (await MediaApi(CANARY, http_client=client).get_info("7")).mime_type == "image/png"


async def test_closed_client(connect: Connect) -> None:
    """After closing, once or twice, every call is a ConfigurationError; copies end with their original."""
    server, api = await connect(b"")
    server.script[0] = media_info(server)
    twin = api.with_options(api_version="v24.0")
    await api.get_info("7")
    await twin.aclose()
    assert (await api.get_info("7")).id == "7"
    await api.aclose()
    await api.aclose()
    for closed in (api, twin):
        error = await failed(closed, ConfigurationError)
        assert (str(error), error.attempts) == ("this MediaApi is closed: make a new one", 0)


async def test_closed_before_its_first_call(connect: Connect) -> None:
    """A client that was never used can be closed, and one that is closed while it opens leaves nothing behind."""
    _, unused = await connect(page())
    await unused.aclose()
    server, api = await connect(b"")
    server.script[0] = media_info(server)
    first = asyncio.ensure_future(api.get_info("7"))
    for _ in range(3):
        await asyncio.sleep(0)  # turns of the loop, in which the client begins to open
    await api.aclose()
    await asyncio.wait([first])
    assert first.exception() is None or isinstance(first.exception(), ConfigurationError | NetworkError)
    await failed(api, ConfigurationError)


async def test_entered_twice(connect: Connect) -> None:
    """A client may be entered again while it is open; leaving any of the blocks closes it."""
    server, api = await connect(b"")
    server.script[0] = media_info(server)
    async with api as one, api as two:
        assert one is two is api
        await api.get_info("7")
    await failed(api, ConfigurationError)


def test_made_outside_of_a_loop() -> None:
    """A client can be made before there is an event loop."""
    api = MediaApi(CANARY, "1", settings=Settings(base_url="http://127.0.0.1:9"))

    async def use() -> None:
        async with api:
            with pytest.raises(NetworkError):
                await api.get_info("7")

    asyncio.run(use())


async def test_copies_share_connections(connect: Connect) -> None:
    """Copies change what they say and nothing else, over the same connections."""
    server, api = await connect(json_response({"id": "42"}))
    twin = api.with_options(access_token="other", phone_number_id="2", api_version=24, user_agent_suffix="twin/1")
    for client in (api, twin, api):
        await client.upload(b"text")
    assert [request.target for request in server.requests] == ["/v25.0/1/media", "/v24.0/2/media", "/v25.0/1/media"]
    tokens = [request.header("authorization") for request in server.requests]
    assert tokens == [f"Bearer {CANARY}", "Bearer other", f"Bearer {CANARY}"]
    agents = [str(request.header("user-agent")).endswith(" twin/1") for request in server.requests]
    assert agents == [False, True, False]
    assert server.connections == 1
    assert api.with_options().settings == api.settings
    for wrong in ({"concurrency": 2}, {"no_such": 1}, {"phone_number_id": "a/b"}, {"access_token": ""}):
        with pytest.raises(ConfigurationError):
            api.with_options(**wrong)


async def test_copy_shares_the_token_callable(connect: Connect) -> None:
    """A copy with the original's token does not ask for it again."""
    asked: list[int] = []

    async def ask() -> str:
        asked.append(1)
        return "token"

    _server, api = await connect(json_response({"id": "42"}), token=ask)
    await api.upload(b"text")
    await api.with_options(phone_number_id="2").upload(b"text")
    assert asked == [1]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_concurrency(connect: Connect, concurrency: int) -> None:
    """No more requests are under way than was set, copies included, and all are answered."""

    async def slow(_: object, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.01)  # so that requests would overlap
        writer.write(json_response({"id": "42"}))

    server, api = await connect(slow, concurrency=concurrency)
    twin = api.with_options(phone_number_id="2")
    await asyncio.gather(*(client.upload(b"text") for client in [api, twin] * 15))
    assert (server.most_at_once, len(server.requests), server.connections) == (concurrency, 30, concurrency)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"access_token": 5}, "access_token must be a str"),
        ({"settings": {"read_timeout": 3}}, "settings must be a Settings, not dict"),
        ({"http_client": httpx.Client()}, "http_client must be an httpx.AsyncClient, not Client"),
    ],
)
def test_arguments_of_a_wrong_type(arguments: dict[str, Any], sentence: str) -> None:
    """An argument of a wrong type is a ConfigurationError that names the right one, at construction."""
    with pytest.raises(ConfigurationError, match=sentence):
        MediaApi(**arguments)


async def test_token_function_that_is_not_async() -> None:
    """A plain function as access_token is a ConfigurationError at the first call."""
    async with MediaApi(lambda: "token", "1") as api:  # type: ignore[arg-type,return-value]
        error = await failed(api, ConfigurationError)
    assert "not async" in str(error)


PROXIES = {"ALL_PROXY": "socks5://127.0.0.1:1", "HTTPS_PROXY": "nonsense://127.0.0.1", "SSL_CERT_FILE": "/no/such/file"}


@pytest.mark.parametrize("variable", PROXIES)
async def test_wrong_environment(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """An environment with which no client can be made is a ConfigurationError that names the variables to look at."""
    monkeypatch.setenv(variable, PROXIES[variable])
    async with MediaApi(CANARY, "1") as api:
        error = await failed(api, ConfigurationError)
    assert variable in str(error)
    assert PROXIES[variable] not in str(error)


async def test_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy is used for https, and never sees what goes to this machine over http."""
    async with Server(page("", 502)) as proxy, Server(b"") as server:
        server.script[0] = media_info(server)
        for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(variable, proxy.base_url)
        async with MediaApi(CANARY, "1", settings=Settings(base_url=server.base_url)) as api:
            await api.get_info("7")
        assert proxy.requests == []
        async with MediaApi(CANARY, "1", settings=Settings(max_retries=0)) as api:
            error = await failed(api, NetworkError)
        assert "the proxy refused" in str(error)
        assert [(request.method, request.target) for request in proxy.requests] == [
            ("CONNECT", "graph.facebook.com:443")
        ]
        assert proxy.requests[0].header("authorization") is None


async def test_one_user_agent(emulator: Emulator) -> None:
    """Exactly one User-Agent is sent, ours, with a suffix if one was set."""
    async with emulator.api(user_agent_suffix="shop/1.0") as media:
        uploaded = await media.upload(b"text")
        await media.read(uploaded.id)
    assert {str(request.user_agent).rpartition(" ")[2] for request in emulator.requests} == {"shop/1.0"}
    assert {request.authorization for request in emulator.requests} == {True}


# Cancellation


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_cancelled(connect: Connect, times: int) -> None:
    """A call that is cancelled while it waits for its reply is cancelled, and the client works on."""
    server, api = await connect(silence, b"")
    server.script[1] = media_info(server)
    task = asyncio.ensure_future(api.get_info("7"))
    await wait_until(lambda: len(server.requests) == 1)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)  # so that each arrives during the clean-up of the one before
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await api.get_info("7")).id == "7"


async def test_cancelled_while_waiting_for_a_place(connect: Connect) -> None:
    """A call that is cancelled before it had its turn takes nobody's place away."""
    hold = asyncio.Event()
    server, api = await connect(
        stalled(b"", hold, json_response({"id": "42"})), json_response({"id": "42"}), concurrency=1
    )
    first = asyncio.ensure_future(api.upload(b"text"))
    await wait_until(lambda: len(server.requests) == 1)
    waiting = [asyncio.ensure_future(api.upload(b"text")) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    hold.set()
    assert (await first).id == (await api.upload(b"text")).id == "42"
    assert len(server.requests) == 2


async def test_timeouts_of_the_caller(connect: Connect) -> None:
    """Asyncio's and anyio's timeouts around a call end it, and are theirs to report."""
    server, api = await connect(silence)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await api.get_info("7")
    with anyio.move_on_after(0.1) as scope:
        await api.get_info("7")
    assert scope.cancelled_caught
    server.script[:] = [media_info(server)]
    assert (await api.get_info("7")).id == "7"


def test_fresh_import_is_light() -> None:
    """Importing the package brings neither httpx nor aiofiles in: they are loaded off the loop, at first need."""
    code = "import sys, meta_media; sys.exit(any(name in sys.modules for name in ('httpx', 'aiofiles', 'cattrs')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
