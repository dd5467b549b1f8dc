"""Requests before they are sent: their URLs, headers, hosts and messages."""

from __future__ import annotations

import json
import platform
import re
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meta_media import __version__
from meta_media.errors import ConfigurationError, UntrustedUrlError
from meta_media.protocol.recipient import Recipient
from meta_media.protocol.requests import (
    MediaMessage,
    Request,
    common_headers,
    graph_request,
    media_request,
    redirected_request,
)
from meta_media.protocol.settings import Settings

ID = "1045500012345678"
MEDIA_URL = f"https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid={ID}&ext=1795342300&hash=ATz0"
USER_AGENT = f"meta-media/{__version__} python/{platform.python_version()}"


def test_graph_requests() -> None:
    """A request to Graph has a versioned path, exactly our headers, and may carry the token."""
    settings = Settings(base_url="https://graph.example:8443", api_version=24)
    assert graph_request("delete", "DELETE", settings, ID, media_id=ID) == Request(
        operation="delete",
        method="DELETE",
        url=f"https://graph.example:8443/v24.0/{ID}",
        bearer=True,
        graph=True,
        media_id=ID,
    )


def test_more_headers() -> None:
    """A request has the headers of its verb, beside those that all requests have."""
    more = {"Content-Type": "application/json"}
    request = graph_request("send", "POST", Settings(), ID, "messages", headers=more)
    assert request.headers == {"Content-Type": "application/json"}


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
    """The number that restricts a lookup or delete goes into the query."""
    request = graph_request("get_info", "GET", Settings(), ID, phone_number_id=number)
    assert request.url == f"https://graph.facebook.com/v25.0/{ID}{query}"


@pytest.mark.parametrize(
    ("suffix", "expected"), [("", USER_AGENT), ("acme/1.0 (x)", f"{USER_AGENT} acme/1.0 (x)"), ("  ", USER_AGENT)]
)
def test_one_user_agent(suffix: str, expected: str) -> None:
    """Every request has exactly one User-Agent: Meta refuses requests without one and with two."""
    settings = Settings(user_agent_suffix=suffix)
    assert common_headers(settings) == {"User-Agent": expected, "Accept": "*/*", "Accept-Encoding": "identity"}
    for request in (graph_request("get_info", "GET", settings, ID), media_request(MEDIA_URL, settings)):
        assert not {"user-agent", "accept", "accept-encoding"} & {name.lower() for name in request.headers}


@pytest.mark.parametrize(
    "request_",
    [
        graph_request("get_info", "GET", Settings(), ID, phone_number_id="canary"),
        media_request(f"{MEDIA_URL}canary", Settings()),
    ],
)
def test_requests_hide_their_query(request_: Request) -> None:
    """The repr of a request has no query, and its headers have no token."""
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


def message(**fields: Any) -> MediaMessage:
    """Make a message."""
    return MediaMessage(to=Recipient.of(fields.pop("to", "+15550001111")), media_id=ID, **fields)


@pytest.mark.parametrize(("kind", "extras"), MESSAGES)
def test_messages(kind: str, extras: dict[str, Any]) -> None:
    """A message has the media under its kind, with the fields that are not None."""
    nothing = dict.fromkeys(("caption", "filename", "voice"))
    assert json.loads(message(**nothing | extras).body(kind)) == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "+15550001111",
        "type": kind,
        kind: {"id": ID, **extras},
    }


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("US.13491208655302741918", {"recipient_type": "individual", "recipient": "US.13491208655302741918"}),
        (Recipient.user("US.ENT.1"), {"recipient_type": "individual", "recipient": "US.ENT.1"}),
        (Recipient.phone("15550001111"), {"recipient_type": "individual", "to": "15550001111"}),
        (Recipient.group("Y2FwaV9n=="), {"recipient_type": "group", "to": "Y2FwaV9n=="}),
    ],
)
def test_addresses(to: object, expected: dict[str, str]) -> None:
    """A user id goes into `recipient`, never into `to`; a group has a type of its own."""
    body = json.loads(message(to=to).body("image"))
    assert {name: body[name] for name in body if name.startswith(("to", "recipient"))} == expected


def test_replies_to_messages() -> None:
    """A reply has the id of the message that it replies to."""
    body = json.loads(message(reply_to="wamid.HBgL").body("image"))
    assert body["context"] == {"message_id": "wamid.HBgL"}


def test_further_keys() -> None:
    """What Meta invents next can be passed, and the mapping is not changed."""
    extra = {"biz_opaque_callback_data": "order 7", "context": {"message_id": "wamid.x"}, "category": ["marketing"]}
    body = json.loads(message(extra=extra).body("image"))
    assert body.items() >= extra.items()
    assert body["image"] == {"id": ID}
    assert sorted(extra) == ["biz_opaque_callback_data", "category", "context"]


@pytest.mark.parametrize("name", ["messaging_product", "recipient_type", "to", "recipient", "type", "image", "context"])
@pytest.mark.parametrize("to", ["+15550001111", "US.1"])
def test_further_keys_replace_nothing(name: str, to: str) -> None:
    """A key that the message has already is refused; so is a second address, which Meta would take instead."""
    with pytest.raises(
        ConfigurationError, match=f"^extra must not have '{name}', which send itself writes: leave it out$"
    ):
        message(to=to, extra={"a": 1, name: "evil"}, reply_to="wamid.x").body("image")


@pytest.mark.parametrize("value", [{1}, b"1", float("nan"), {(1, 2): 3}])
def test_further_keys_are_json(value: object) -> None:
    """What JSON cannot hold is refused."""
    with pytest.raises(ConfigurationError, match=r"^extra must have JSON values only: "):
        message(extra={"new": value}).body("image")


def test_circular_values() -> None:
    """A value that contains itself is refused."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ConfigurationError, match=r"^extra must have JSON values only: "):
        message(extra={"new": circle}).body("image")


@pytest.mark.parametrize(
    ("kind", "extras", "sentence"),
    [
        ("sticker", {"caption": "x"}, 'caption is for kind="document" or "image" or "video" only, not for "sticker"'),
        ("image", {"voice": True}, 'voice is for kind="audio" only, not for "image"'),
        ("image", {"voice": False, "filename": "x"}, 'filename is for kind="document" only, not for "image"'),
        ("video", {"caption": "x" * 1025}, "a caption must have at most 1024 characters, not 1025"),
        ("text", {}, "kind must be one of audio, document, image, sticker, video, not 'text'"),
        (["image"], {}, "kind must be one of audio, document, image, sticker, video, not ['image']"),
        ("image", {"caption": 5}, "caption must be a str, not 5"),
        ("image", {"caption": b"x"}, "caption must be a str, not b'x'"),
        ("document", {"filename": 5}, "filename must be a str, not 5"),
        ("audio", {"voice": "yes"}, "voice must be True or False, not 'yes'"),
        ("audio", {"voice": 1}, "voice must be True or False, not 1"),
        ("image", {"reply_to": 5}, "reply_to must be a str, not 5"),
        ("image", {"extra": "x"}, "extra must be a mapping, not 'x'"),
        ("image", {"extra": [("a", 1)]}, "extra must be a mapping, not [('a', 1)]"),
    ],
)
def test_messages_that_meta_would_refuse(kind: Any, extras: dict[str, Any], sentence: str) -> None:
    """An argument of another type, or that a kind of message does not have, is refused."""
    with pytest.raises(ConfigurationError) as caught:
        message(**extras).body(kind)
    assert str(caught.value) == sentence


TRUSTED = Settings(
    token_hosts=("lookaside.fbsbx.com", "tokens.example:8443"),
    media_hosts=(".fbcdn.net", "files.example", ".alt.example:8443", "[2001:db8::1]"),
)


def test_media_request() -> None:
    """The request for a media URL has exactly that URL and our headers."""
    assert media_request(MEDIA_URL, TRUSTED, media_id=ID) == Request(
        operation="download", method="GET", url=MEDIA_URL, bearer=True, media_id=ID
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
    """Token hosts receive the token over https; media hosts and their subdomains do not."""
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
    """The host of `base_url` is trusted with its own scheme and port only."""
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
    """Any other host is refused, and the error names it and the setting that would allow it."""
    with pytest.raises(UntrustedUrlError) as caught:
        media_request(url, TRUSTED)
    assert caught.value.host == host
    assert str(caught.value) == (
        f"https://{host} is not trusted to serve media: if it should be, add it to Settings.media_hosts"
        " (or to token_hosts, if it needs the token)"
    )


@pytest.mark.parametrize(
    "host", ["lookaside.fbsbx.com", "a.fbcdn.net", "evil.com", "graph.facebook.com", "tokens.example:8443"]
)
def test_http_is_refused(host: str) -> None:
    """Http is refused for every host but a local `base_url`, and the error says so."""
    with pytest.raises(
        UntrustedUrlError, match=rf"^http://{re.escape(host)} is not .*: it is not https, .* Settings\.base_url"
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
    *("https://lookaside.fbsbx.com#@evil.com", "https://evil.com#.lookaside.fbsbx.com/"),
    *('https://lookaside.fbsbx.com/"',),
    *("https://lookaside\u3002fbsbx\u3002com/x", "https://\uff4cookaside.fbsbx.com/x"),
    *("https://loo\u212aaside.fbsbx.com/x",),
    *("https://lookaside.fbsbx.com\u2044x", "https://lookaside.fb\u017fbx.com/x"),
    *("https://l\u00f6\u00f6kaside.fbsbx.com/x",),
    *("https://[::1/x", "https://::1/x", "https://[::1]x/x", "https://[fe80::1%25eth0]/x", "https://[]/x"),
    *("https://[lookaside.fbsbx.com]/x", "https://lookaside.fbsbx.com[::1]/x"),
    *(None, b"https://lookaside.fbsbx.com/x", 7, ["https://lookaside.fbsbx.com/x"], {}),
]


@pytest.mark.parametrize("url", NO_URLS, ids=lambda value: ascii(value)[:60])
def test_urls_that_could_be_read_differently(url: object) -> None:
    """A URL in which another parser could find another host is not opened."""
    with pytest.raises(UntrustedUrlError, match="not a plain https URL, so it was not opened") as caught:
        media_request(url, TRUSTED)
    assert caught.value.host is None


PIECES = st.sampled_from(
    [
        *("https://", "http://", "https:", "//", "/", "\\", "@", ":", "?", "#", "%2f", "%40", ".", "..", "-", "_"),
        *("[", "]"),
        *("lookaside.fbsbx.com", "graph.facebook.com", "fbcdn.net", "evil.com", "files.example", "tokens.example", "a"),
        *("443", "80", "8443", "::1", "127.0.0.1", "[2001:db8::1]", " ", "\t", "\n", "\u3002", "\u212a", "é"),
        *("LOOKASIDE", ";"),
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
def test_parsers_find_the_same_host(url: str) -> None:
    """In every accepted URL, httpx and the standard library find the same trusted host, and no user."""
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
    """Only the three named hosts receive the token."""
    settings = Settings(token_hosts=("lookaside.fbsbx.com", "tokens.example"), media_hosts=(host,))
    assert media_request(f"https://{host}/x", settings).bearer is (
        host in {"lookaside.fbsbx.com", "tokens.example", "graph.facebook.com"}
    )


@pytest.mark.parametrize("location", ["https://[", "//[x]y/", "https://lookaside.fbsbx.com:port/"])
def test_redirects_to_no_url(location: str) -> None:
    """A redirect to a text that is not a URL is refused."""
    with pytest.raises(UntrustedUrlError):
        redirected_request(graph_request("get_info", "GET", Settings(), ID), 302, location, Settings())


def test_redirects_keep_the_request() -> None:
    """The request to a redirect's target keeps the operation, headers and media id."""
    request = graph_request("get_info", "GET", Settings(), ID, media_id=ID, headers={"X-More": "1"})
    following = redirected_request(request, 302, "/elsewhere?a=b", Settings())
    assert following.url == "https://graph.facebook.com/elsewhere?a=b"
    assert (following.operation, following.method, following.media_id) == ("get_info", "GET", ID)
    assert (following.headers, following.bearer) == (request.headers, True)


@pytest.mark.parametrize("mime_type", [None, "audio/ogg", "audio/ogg; codecs=opus", "audio/opus", "no type"])
def test_a_voice_note(mime_type: str | None) -> None:
    """Opus in Ogg may be a voice note, and so may media whose type is not known."""
    assert json.loads(message(voice=True).body("audio", mime_type))["audio"]["voice"] is True


@pytest.mark.parametrize("mime_type", ["audio/mpeg", "audio/MP4", "audio/amr; rate=8000"])
def test_what_is_no_voice_note(mime_type: str) -> None:
    """Sound of another type cannot be a voice note. As sound it can be sent."""
    with pytest.raises(
        ConfigurationError, match=r"^voice is for Opus in Ogg only, not for audio/[a-z0-9]+: leave it out"
    ):
        message(voice=True).body("audio", mime_type)
    message(voice=False).body("audio", mime_type)
