"""What the constructor and `with_options` are given: each mistake is one sentence, before anything is sent."""

from __future__ import annotations

import copy
import functools
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import httpx
import httpx2
import pytest

from meta_media import MediaApi, Settings
from meta_media.errors import ConfigurationError, MediaNotFoundError, TransferTimeoutError
from tests.support.servers import Server, json_response, page, silence

TOKEN = "EAAG" + "canary0token" * 12


async def coroutine() -> str:
    """Return a token."""
    return TOKEN


class Session:
    """Has some methods of an async client."""

    async def aclose(self) -> None:
        """Do nothing."""


ID = ": it is the id of the number at Meta, not the number"
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"access_token": 5}, "access_token must be a str or an async function that returns one, not int"),
    ({"access_token": b"EAAG"}, "access_token must be a str or an async function that returns one, not bytes"),
    ({"access_token": Settings()}, "access_token must be a str or an async function that returns one, not Settings"),
    ({"access_token": f"Bearer {TOKEN}"}, 'the access token starts with "Bearer ": leave out "Bearer "'),
    ({"access_token": f"bearer {TOKEN}"}, 'the access token starts with "Bearer ": leave out "Bearer "'),
    (
        {"access_token": "106540352242922", "phone_number_id": TOKEN},
        "phone_number_id is an access token: the token comes first, then the id",
    ),
    ({"phone_number_id": "x" * 200}, f"phone_number_id must be digits, not '…'{ID}"),
    ({"phone_number_id": "+1 555 000 1111"}, f"phone_number_id must be digits, not '+1 555 000 1111'{ID}"),
    (
        {"phone_number_id": Settings},
        f"phone_number_id must be digits, not <class 'meta_media.protocol.settings.Settings'>{ID}",
    ),
    ({"settings": {"read_timeout": 3}}, "settings must be a Settings, not dict: Settings(read_timeout=3)"),
    ({"settings": Settings}, "settings must be a Settings, not type: Settings(read_timeout=3)"),
    ({"http_client": httpx.Client()}, "http_client must be an httpx.AsyncClient, not Client"),
    ({"http_client": httpx2.Client()}, "http_client must be an httpx.AsyncClient, not Client"),
    ({"http_client": httpx.AsyncClient}, "http_client must be an httpx.AsyncClient, not the class AsyncClient"),
    ({"http_client": httpx.AsyncHTTPTransport()}, "http_client must be an httpx.AsyncClient, not AsyncHTTPTransport"),
    ({"http_client": Session()}, "http_client must be an httpx.AsyncClient, not Session"),
    ({"http_client": "http://proxy"}, "http_client must be an httpx.AsyncClient, not str"),
]


@pytest.mark.parametrize(("given", "sentence"), MISTAKES, ids=[sentence[:60] for _, sentence in MISTAKES])
def test_mistakes(given: dict[str, Any], sentence: str) -> None:
    """A wrong argument is refused by the constructor, and a token is not shown."""
    with pytest.raises(ConfigurationError) as caught:
        MediaApi(**{"access_token": "token", "phone_number_id": "1"} | given)
    assert str(caught.value) == sentence


async def test_a_session_of_aiohttp() -> None:
    """A client of another kind is refused at once."""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigurationError, match=r"^http_client must be an httpx\.AsyncClient, not ClientSession$"):
            MediaApi("token", "1", http_client=session)  # type: ignore[arg-type]


def test_a_coroutine_is_no_token() -> None:
    """Whoever calls the function instead of passing it is told so."""
    called = coroutine()
    with pytest.raises(ConfigurationError, match=r"not coroutine, which it returns: pass the function itself$"):
        MediaApi(called)  # type: ignore[arg-type]
    called.close()


TOKEN_FUNCTIONS: list[tuple[Callable[[], Any], str]] = [
    (lambda: "abc", "access_token must be a str or an async function: this function is not async"),
    (lambda: None, "access_token must be a str or an async function: this function is not async"),
    (lambda: coroutine, "access_token must be a str or an async function: this function is not async"),
]


@pytest.mark.parametrize(("function", "sentence"), TOKEN_FUNCTIONS)
async def test_functions_that_are_not_async(function: Any, sentence: str) -> None:
    """A function that is not async is refused when it is called, which nothing but a call can tell."""
    async with MediaApi(function, "1") as media:
        with pytest.raises(ConfigurationError) as caught:
            await media.get_info("1")
    assert (str(caught.value), caught.value.attempts) == (sentence, 0)


class Vault:
    """An object with an async `__call__`."""

    async def __call__(self) -> str:
        """Return a token."""
        return TOKEN


async def of(vault: object) -> str:
    """Return a token of a vault."""
    return TOKEN


@pytest.mark.parametrize(
    "function", [coroutine, Vault(), functools.partial(of, "vault")], ids=["function", "object", "partial"]
)
async def test_whatever_returns_an_awaitable(function: Callable[[], Awaitable[str]]) -> None:
    """A token function is anything that can be called and awaited."""
    async with (
        Server(json_response({"success": True})) as server,
        MediaApi(function, "1", settings=Settings(base_url=server.base_url)) as media,
    ):
        await media.delete("1")
    assert server.requests[0].header("authorization") == f"Bearer {TOKEN}"


@pytest.mark.parametrize("flavour", [httpx, httpx2])
async def test_clients_that_fit(flavour: Any) -> None:
    """Httpx's client is taken, and one like it, and a subclass."""

    class Own(flavour.AsyncClient):  # type: ignore[misc]
        """A subclass."""

    for client in (flavour.AsyncClient(), Own()):
        assert MediaApi("token", "1", http_client=client).client is client
        await client.aclose()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"settings": Settings()}, "with_options takes the settings themselves: with_options(read_timeout=3)"),
        ({"http_client": None}, "http_client belongs to the connections, which a copy shares: make a new MediaApi"),
        ({"proxy": "http://proxy"}, "proxy belongs to the connections, which a copy shares: make a new MediaApi"),
        ({"memory": 3}, "memory belongs to the connections, which a copy shares: make a new MediaApi"),
        ({"concurrency": 3}, "concurrency belongs to the connections, which a copy shares: make a new MediaApi"),
        ({"x" * 500: 1}, f"there is no setting named {'x' * 80}: see help(Settings)"),
        ({"access_token": 5}, "access_token must be a str or an async function that returns one, not int"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_options(changes: dict[str, Any], sentence: str) -> None:
    """The same for a copy."""
    with pytest.raises(ConfigurationError) as caught:
        MediaApi("token", "1").with_options(**changes)
    assert str(caught.value) == sentence


def test_a_client_is_copied_by_with_options_only() -> None:
    """`copy.copy` would make a second owner of the connections."""
    with pytest.raises(ConfigurationError, match="is not pickled"):
        copy.copy(MediaApi("token", "1"))


# Sentences about responses


UNKNOWN = {"message": "Unsupported get request. Object with ID '777' does not exist", "code": 100, "error_subcode": 33}


@pytest.mark.parametrize("verb", ["get_info", "delete", "read"])
async def test_an_unknown_id(verb: str) -> None:
    """What is wrong comes first, with the id; Meta's text follows."""
    async with (
        Server(json_response({"error": UNKNOWN}, 400)) as server,
        MediaApi("token", "1", settings=Settings(base_url=server.base_url)) as media,
    ):
        with pytest.raises(MediaNotFoundError) as caught:
            await getattr(media, verb)("777")
    assert str(caught.value).startswith(
        "media 777 is not there: expired, deleted, or of another phone number. Meta: Unsupported get request. "
    )


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (
            UNKNOWN,
            "the phone number id is not one that the access token may use: check WA_PHONE_NUMBER_ID. Meta: Unsupp",
        ),
        (
            {
                "message": "(#100) Param phone_number_id is not a valid whatsapp business phone number id ID",
                "code": 100,
            },
            "the phone number id is not one that the access token may use: check WA_PHONE_NUMBER_ID. Meta: (#100) Param",
        ),
        (
            {"message": "Session has expired", "code": 190, "error_subcode": 463},
            "the access token is not valid: make a new one, or pass an async function that returns one. Meta: Session has",
        ),
        (
            {"message": "(#131064) Limit", "code": 131064},
            "the messaging limit is used up because templates are in a wrong",
        ),
        (
            {"message": "(#130497) Restricted", "code": 130497},
            "this account may not send to the recipient's country. Meta",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_our_sentence_first(error: dict[str, Any], start: str) -> None:
    """What to do comes first, and Meta's own text follows."""
    async with (
        Server(json_response({"error": error}, 400)) as server,
        MediaApi("token", "1", settings=Settings(base_url=server.base_url, max_retries=0)) as media,
    ):
        with pytest.raises(Exception, match=r"Meta: ") as caught:
            await media.upload(b"text")
    assert str(caught.value).startswith(start)


async def test_a_deadline_tells_its_length() -> None:
    """A missed deadline is told with its seconds, where it ends a wait and where it leaves none for a retry."""
    async with Server(silence) as server:
        settings = Settings(base_url=server.base_url, deadline=0.05, backoff=1000)
        async with MediaApi("token", "1", settings=settings) as media:
            with pytest.raises(TransferTimeoutError, match=r"it took longer than its deadline of 0\.05 s$"):
                await media.get_info("7")
            server.script[:] = [page("", 503, retry_after="1")]
            with pytest.raises(
                TransferTimeoutError, match=r"its deadline of 0\.05 s leaves no time for another attempt$"
            ):
                await media.get_info("7")


async def test_a_copy_has_headers_of_its_own() -> None:
    """The headers of a copy follow its own settings and token from its first request on, and the original keeps its own."""
    found = json_response({"id": "7", "url": "https://lookaside.fbsbx.com/x", "mime_type": "image/jpeg"})
    async with Server(*[found] * 3) as first, Server(found) as second:
        hosts = [first.base_url] * 3 + [second.base_url]
        async with MediaApi("token-one", "1", settings=Settings(base_url=first.base_url)) as media:
            await media.get_info("7")
            twin = media.with_options(user_agent_suffix="acme/1.0", access_token="token-two")
            await twin.get_info("7")
            await media.with_options(base_url=second.base_url).get_info("7")
            await media.get_info("7")
    sent = [dict(one.headers) for one in first.requests + second.requests]
    assert [headers["user-agent"].endswith(" acme/1.0") for headers in sent] == [False, True, False, False]
    assert [headers["authorization"] for headers in sent] == [f"Bearer token-{n}" for n in ("one", "two", "one", "one")]
    assert [f"http://{headers['host']}" for headers in sent] == hosts
