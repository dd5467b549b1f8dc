"""Spans and metrics of OpenTelemetry, as an SDK with exporters in memory gets them."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.utils import suppress_instrumentation

from meta_media import MediaApi, MediaInfo, MediaLibrary, MemoryStore, Settings, Source, samples
from meta_media.emulator import Emulator
from meta_media.errors import ConfigurationError, DownloadError, InvalidMediaError, MediaError, NetworkError
from tests.support.internet import internet
from tests.support.servers import Server, cut, info, json_response, page, silence, wait_until
from tests.support.telemetry import Telemetry, Tree, instrumented

[PHOTO] = (path for path in samples.paths() if path.name == "photo.jpg")
TEXT = b"text" * 1000
UPLOADED = json_response({"id": "7"})


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """What is exported while spans and metrics are on."""
    with instrumented() as recorded:
        yield recorded


@pytest.fixture
async def scripted(server: Server) -> AsyncIterator[MediaApi]:
    """A client of the scripted server, which waits for no retry."""
    settings = Settings(base_url=server.base_url, backoff=0.0)
    async with MediaApi("token", "1", settings=settings) as media:
        yield media


async def stream(media: MediaApi, media_id: str) -> None:
    """Stream a download to its end."""
    async with media.stream(media_id) as opened:
        async for _ in opened:
            pass


async def upload_for_a_moment(media: MediaApi, _: str) -> None:
    """Upload, and delete at the end of a block."""
    async with media.uploaded(PHOTO):
        pass


GET, POST, DELETE = ("GET", 200), ("POST", 200), ("DELETE", 200)
VERBS: dict[str, tuple[Callable[[MediaApi, str], Awaitable[object]], Tree]] = {
    "upload": (lambda media, _: media.upload(PHOTO), [("upload", "", [POST])]),
    "upload and verify": (lambda media, _: media.upload(PHOTO, verify=True), [("upload", "", [POST, GET])]),
    "uploaded": (upload_for_a_moment, [("upload", "", [POST]), ("delete", "", [DELETE])]),
    "upload_handle": (lambda media, _: media.upload_handle(PHOTO), [("upload_handle", "", [POST, POST])]),
    "get_info": (lambda media, known: media.get_info(known), [("get_info", "", [GET])]),
    "read": (lambda media, known: media.read(known), [("download", "", [GET, GET])]),
    "stream": (stream, [("download", "", [GET, GET])]),
    "send": (lambda media, known: media.send("+15550001111", known, kind="document"), [("send", "", [POST])]),
    "send an image, which the emulator judges": (
        lambda media, known: media.send("+15550001111", known),
        [("send", "", [GET, POST])],
    ),
    "delete": (lambda media, known: media.delete(known), [("delete", "", [DELETE])]),
    "upload_many": (
        lambda media, _: media.upload_many([PHOTO, PHOTO]).report(),
        [("upload", "", [POST]), ("upload", "", [POST])],
    ),
    "move": (
        lambda media, known: media.move(known, "222"),
        [("get_info", "", [GET]), ("upload", "", [POST, GET]), ("download", "", [GET])],
    ),
    "download_many": (lambda media, known: media.download_many([known], ".").report(), [("download", "", [GET, GET])]),
    "send_many": (
        lambda media, known: media.send_many(["+15550001111"], known, kind="document").report(),
        [("send", "", [POST])],
    ),
    "ensure": (lambda media, _: MediaLibrary(media, MemoryStore()).ensure(PHOTO), [("upload", "", [POST])]),
    "delete_many": (lambda media, known: media.delete_many([known]).report(), [("delete", "", [DELETE])]),
}


@pytest.mark.parametrize("name", VERBS)
async def test_each_verb(
    name: str,
    emulator: Emulator,
    media: MediaApi,
    telemetry: Telemetry,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A call has a span, in which each of its requests has one; both have their metrics; no secret is in them, or in the log."""
    caplog.set_level(logging.DEBUG, "meta_media")
    monkeypatch.chdir(tmp_path)
    emulator.add_account("222", emulator.access_token)
    verb, expected = VERBS[name]
    known = await media.with_options().upload(PHOTO)
    before = telemetry.tree
    await verb(media, known.id)
    assert telemetry.tree[len(before) :] == expected
    assert telemetry.points("meta_media.client.operation.duration")
    count = sum(count for _, count in telemetry.points("http.client.request.duration"))
    assert count == len(telemetry.requests()) == sum(len(requests) for _, _, requests in telemetry.tree)
    records = [record for record in caplog.records if record.levelno == logging.DEBUG]
    assert len(records) == count
    shown = telemetry.shown() + "".join(f"{vars(record)} {record.getMessage()}" for record in records)
    queries = [query for request in emulator.requests for query in request.query.values()]
    assert [
        value for value in {emulator.access_token, emulator.app_secret, *queries} if len(value) > 20 and value in shown
    ] == []
    assert "?" not in shown


async def test_a_request(emulator: Emulator, media: MediaApi, telemetry: Telemetry, tmp_path: Path) -> None:
    """A request's span has the attributes of the conventions, and the name by which Meta's support finds it."""
    uploaded = await media.upload(PHOTO)
    await media.download(uploaded, tmp_path / "copy.jpg")
    call, download = telemetry.calls
    assert (call.kind, call.parent) == (trace.SpanKind.INTERNAL, None)
    assert call.attributes == {"meta_media.operation": "upload", "meta_media.attempts": 1}
    [span] = telemetry.requests(call)
    attributes = dict(span.attributes or {})
    assert str(attributes.pop("meta_media.fbtrace_id")).startswith("A")
    port = int(emulator.base_url.rpartition(":")[2])
    expected = {
        "http.request.method": "POST",
        "server.address": "127.0.0.1",
        "server.port": port,
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
    }
    path = f"{media.settings.api_version}/{emulator.phone_number_id}/media"
    assert attributes == expected | {"url.full": f"{emulator.base_url}/{path}"}
    assert telemetry.points("http.client.request.duration")[0] == (expected, 1)
    urls = [(each.attributes or {})["url.full"] for each in telemetry.requests(download)]
    assert urls[-1] == f"{emulator.base_url}/whatsapp_business/attachments/"
    assert telemetry.sum("http.client.response.body.size") > PHOTO.stat().st_size
    assert telemetry.sum("http.client.request.body.size") > PHOTO.stat().st_size


async def wrong_source() -> AsyncIterator[bytes]:
    """Fail, as a caller's own source may."""
    yield b"text" * 50_000
    raise ValueError("a secret of the caller")


RESET, NOT_THERE = cut(b""), json_response({"error": {"code": 100, "error_subcode": 33}}, 400)
BUSY = json_response({"error": {"code": 131000, "fbtrace_id": "AbC"}}, 500)
REFUSED, SENT = ("GET", 400), "meta_media.errors"
FAILURES: dict[str, tuple[list[Any], Callable[[MediaApi], Awaitable[object]], Tree]] = {
    "refused": (
        [NOT_THERE],
        lambda media: media.get_info("7"),
        [("get_info", f"{SENT}.MediaNotFoundError", [REFUSED])],
    ),
    "missing, as may be": (
        [NOT_THERE],
        lambda media: media.delete("7", missing_ok=True),
        [("delete", "", [("DELETE", 400)])],
    ),
    "busy, and then not": (
        [BUSY, UPLOADED],
        lambda media: media.upload(TEXT),
        [("upload", "", [("POST", 500), ("POST", 200)])],
    ),
    "no response": (
        [RESET],
        lambda media: media.with_options(max_retries=1).get_info("7"),
        [("get_info", f"{SENT}.NetworkError", [("GET", None), ("GET", None)])],
    ),
    "garbage": ([page("<p>")], lambda media: media.get_info("7"), [("get_info", f"{SENT}.ServerError", [GET] * 2)]),
    "a file that WhatsApp does not take": (
        [UPLOADED],
        lambda media: media.upload(b"GIF89a\1\0\1\0", mime_type="image/gif"),
        [("upload", f"{SENT}.UnsupportedMediaTypeError", [])],
    ),
    "the caller's own source": (
        [UPLOADED],
        lambda media: media.upload(wrong_source(), size=400_000, mime_type="text/plain"),
        [("upload", "builtins.ValueError", [("POST", None)])],
    ),
    "wrong bytes": (
        [page("other")],
        lambda media: media.read(
            MediaInfo(id="7", url=f"{media.settings.base_url}/7", sha256="0" * 64, mime_type="text/plain")
        ),
        [("download", f"{SENT}.IntegrityError", [GET, GET])],
    ),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_failures(name: str, server: Server, scripted: MediaApi, telemetry: Telemetry) -> None:
    """A span says how its call or its request failed, and the metrics do; a call that succeeds in the end has not failed."""
    server.script, call, expected = FAILURES[name][0], *FAILURES[name][1:]
    caught: Exception | None = None
    try:
        await call(scripted)
    except (MediaError, ValueError) as error:
        caught = error
    assert telemetry.tree == expected
    failed = [span.status.description for span in telemetry.calls if span.status.description]
    assert failed == ([str(caught)] if isinstance(caught, MediaError) else [])
    [(attributes, count)] = telemetry.points("meta_media.client.operation.duration")
    assert (attributes.get("error.type", ""), count) == (expected[0][1], 1)
    for span in telemetry.requests():
        facts = dict(span.attributes or {})
        status = facts.get("http.response.status_code", 0)
        assert isinstance(status, int)
        if status >= 400:  # the status says it all
            assert (facts["error.type"], span.status.description) == (str(status), None)
    counted = [(each.get("error.type"), count) for each, count in telemetry.points("http.client.request.duration")]
    types = [(span.attributes or {}).get("error.type") for span in telemetry.requests()]
    assert sorted(counted, key=str) == sorted(((kind, types.count(kind)) for kind in set(types)), key=str)
    assert "a secret of the caller" not in telemetry.shown()


async def test_resends(server: Server, scripted: MediaApi, telemetry: Telemetry) -> None:
    """A retry and a redirect have the number of the resend; another request of the same call has none."""
    url = f"{server.base_url}/media?hash=secret"
    server.script = [BUSY, info(url, b"text"), page("", 302, location="/elsewhere"), page("text")]
    assert await scripted.read("1") == b"text"
    resends = [(span.attributes or {}).get("http.request.resend_count") for span in telemetry.requests()]
    assert resends == [None, 1, None, 1]
    assert telemetry.calls[0].attributes == {"meta_media.operation": "download", "meta_media.attempts": 4}
    trace_ids = [(span.attributes or {}).get("meta_media.fbtrace_id") for span in telemetry.requests()]
    assert trace_ids == ["AbC", None, None, None]


@pytest.mark.parametrize("verb", ["get_info", "stream"])
async def test_a_cancelled_call(verb: str, server: Server, scripted: MediaApi, telemetry: Telemetry) -> None:
    """A cancellation is no error, as the conventions say; the spans end with it, and are marked."""
    server.script = [silence]
    task = asyncio.ensure_future(stream(scripted, "7") if verb == "stream" else scripted.get_info("7"))
    await wait_until(lambda: bool(server.requests))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert telemetry.tree == [("get_info" if verb == "get_info" else "download", "", [("GET", None)])]
    assert [(span.attributes or {}).get("meta_media.cancelled") for span in telemetry.spans] == [True, True]
    assert [span.status.status_code.name for span in telemetry.spans] == ["UNSET", "UNSET"]
    assert ["error.type" in attributes for attributes, _ in telemetry.points("http.client.request.duration")] == [False]


STABLE = {
    "http.client.request.duration": "s",
    "http.client.request.body.size": "By",
    "http.client.response.body.size": "By",
    "meta_media.client.operation.duration": "s",
}
OLD = {"http.client.duration": "ms", "http.client.request.size": "By", "http.client.response.size": "By"}


@pytest.mark.parametrize("opt_in", [None, "http", "http/dup", "database/dup, http/dup,http"])
async def test_names_of_both_conventions(opt_in: str | None, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is new has the stable names; `http/dup` adds the old ones, to spans and as metrics of their own."""
    if opt_in is not None:
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", opt_in)
    server.script = [BUSY, UPLOADED]
    with instrumented() as telemetry:
        async with MediaApi("token", "1", settings=Settings(base_url=server.base_url, backoff=0.0)) as media:
            await media.upload(TEXT)
    both = opt_in is not None and "dup" in opt_in
    assert telemetry.metrics() == STABLE | (OLD if both else {})
    last = dict(telemetry.requests()[-1].attributes or {})
    port, body = server.port, len(server.requests[0].body)
    old_metric = {
        "http.method": "POST",
        "net.peer.name": "127.0.0.1",
        "net.peer.port": port,
        "http.status_code": 200,
        "net.protocol.version": "1.1",
    }
    old = old_metric | {
        "http.url": f"{server.base_url}/{media.settings.api_version}/1/media",
        "http.resend_count": 1,
        "http.request_content_length": body,
        "http.response_content_length": 11,
    }
    assert {name: value for name, value in last.items() if name in old} == (old if both else {})
    assert last["http.request.resend_count"] == 1
    assert telemetry.points("http.client.duration")[1:] == ([(old_metric, 1)] if both else [])
    if both:
        seconds = telemetry.sum("http.client.request.duration")
        assert telemetry.sum("http.client.duration") == pytest.approx(seconds * 1000)


def test_the_usual_port_has_no_old_name(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of old, the port was an attribute only if it was not the scheme's own."""
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http/dup")

    async def main() -> None:
        async with httpx.AsyncClient(
            transport=httpx.MockTransport(lambda _: httpx.Response(200, json={"id": "7"}))
        ) as client:
            await MediaApi("token", "1", settings=Settings(), http_client=client).upload(TEXT)

    with instrumented() as recorded:
        asyncio.run(main())
    [span] = recorded.requests()
    attributes = dict(span.attributes or {})
    assert (attributes["server.port"], attributes["net.peer.name"]) == (443, "graph.facebook.com")
    assert "net.peer.port" not in attributes


@pytest.fixture
def httpx_instrumented(telemetry: Telemetry) -> Iterator[Telemetry]:
    """The instrumentation of httpx, beside ours."""
    instrumentor = HTTPXClientInstrumentor()
    instrumentor.instrument(tracer_provider=telemetry.tracer_provider, meter_provider=telemetry.meter_provider)
    yield telemetry
    instrumentor.uninstrument()


@pytest.mark.parametrize("flavour", ["ours", "hooked", "injected"])
async def test_beside_the_instrumentation_of_httpx(flavour: str, server: Server, httpx_instrumented: Telemetry) -> None:
    """A request is counted once over any client, and has no header of a trace; what else the client sends is counted as ever."""
    server.script = [UPLOADED]

    async def hook(_: httpx.Request) -> None:
        assert trace.get_current_span().get_span_context().is_valid  # it runs in the span of its request

    async with httpx.AsyncClient() as client:
        settings = Settings(base_url=server.base_url)
        given = client if flavour == "injected" else None
        async with MediaApi("token", "1", settings=settings, http_client=given) as media:
            if flavour == "hooked":
                media.client.event_hooks["request"].append(hook)
            await media.upload(TEXT)
        assert httpx_instrumented.tree == [("upload", "", [POST])]
        assert len(httpx_instrumented.spans) == 2
        await client.get(server.base_url)
    assert len(httpx_instrumented.spans) == 3
    [ours, theirs] = server.requests
    assert (ours.header("traceparent"), theirs.header("traceparent") is None) == (None, False)


async def test_items_of_a_run(media: MediaApi, telemetry: Telemetry) -> None:
    """The calls of a run are children of what was current when it began, also where outcomes are taken under another span."""
    with telemetry.tracer.start_as_current_span("began") as began:
        run = media.upload_many([PHOTO] * 3, concurrency=3)
        async with run:
            with telemetry.tracer.start_as_current_span("takes"):
                assert [outcome.error async for outcome in run] == [None] * 3
    parents = {call.parent.span_id for call in telemetry.calls if call.parent}
    assert parents == {began.get_span_context().span_id}
    assert len(telemetry.calls) == 3


async def test_the_caller_s_context(media: MediaApi, telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    """What the caller does between the chunks of a stream, or after a call, is no child of it; tasks may pass streams on."""
    uploaded = await media.upload(PHOTO)
    assert not trace.get_current_span().get_span_context().is_valid
    with telemetry.tracer.start_as_current_span("mine") as mine:
        async with media.with_options(chunk_size=2**16).stream(uploaded) as opened:
            assert trace.get_current_span() is mine
            async for _ in opened:
                assert trace.get_current_span() is mine
        left = media.stream(uploaded)
        await anext(aiter(left))
        await asyncio.create_task(left.aclose())
        dropped = media.stream(uploaded)
        await asyncio.create_task(dropped.read(1))
        await dropped.aclose()
        assert trace.get_current_span() is mine
    calls = telemetry.calls[1:]
    assert [(call.name, call.status.status_code.name) for call in calls] == [("meta_media.download", "UNSET")] * 3
    assert [call.parent.span_id for call in calls if call.parent] == [mine.get_span_context().span_id] * 3
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_stream_that_resumes(server: Server, scripted: MediaApi, telemetry: Telemetry) -> None:
    """A request that a stream sends between two chunks is part of its call, whatever span the caller is in."""
    content = bytes(2**17)
    promised = info(f"{server.base_url}/media", content, sha256=hashlib.sha256(content).hexdigest())
    half = len(content) // 2
    rest = page(content[half:], 206, content_range=f"bytes {half}-{len(content) - 1}/{len(content)}")
    server.script = [promised, cut(page(content)[:-half]), rest]
    async with scripted.with_options(chunk_size=2**16).stream("1") as opened:
        with telemetry.tracer.start_as_current_span("mine"):
            assert sum([len(chunk) async for chunk in opened]) == len(content)
    [call] = telemetry.calls
    assert [span.name for span in telemetry.requests(call)] == ["GET"] * 3
    broken = telemetry.requests(call)[1].attributes or {}
    assert (broken["http.response.status_code"], broken["error.type"]) == (200, f"{SENT}.NetworkError")


async def test_the_caller_s_code_in_a_call(emulator: Emulator, media: MediaApi, telemetry: Telemetry) -> None:
    """What a token function or a source does is a child of the call."""

    async def token() -> str:
        with telemetry.tracer.start_as_current_span("token"):
            return emulator.access_token

    async def source() -> AsyncIterator[bytes]:
        with telemetry.tracer.start_as_current_span("source"):
            yield TEXT

    copy = media.with_options(access_token=token)
    await copy.upload(source(), mime_type="text/plain")
    [call] = telemetry.calls
    assert {span.name for span in telemetry.children(call)} == {"POST", "source", "token"}


REMOTE = "https://files.example/canary/photo.jpg?X-Signature=canary"


async def test_the_requests_of_a_url(
    emulator: Emulator, telemetry: Telemetry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Each request for a file at a URL has a span and its metrics, and the call that reads the file is its parent.

    Neither token, nor signature, path or query of the URL are shown.
    """
    caplog.set_level(logging.DEBUG, "meta_media")
    moved, photo = page("", 302, location="/canary/2?sig=canary"), page(PHOTO.read_bytes())
    async with (
        internet(tmp_path, int(emulator.base_url.rpartition(":")[2])) as world,
        emulator.api(backoff=0.0) as media,
    ):
        server = await world.serve("files.example", page("", 503), moved, photo)
        await media.upload(Source.url(REMOTE, headers={"Authorization": "canary"}))
        [fetched, again, redirected, sent] = telemetry.requests(*telemetry.calls)
        server.script = [page("", 404)]
        with pytest.raises(DownloadError):
            await media.upload(Source.url(REMOTE))
        server.script = [photo]
        await MediaLibrary(media, MemoryStore()).ensure(Source.url(REMOTE))
        with suppress_instrumentation():
            await media.upload(Source.url(REMOTE))
    statuses = [(span.attributes or {})["http.response.status_code"] for span in (fetched, again, redirected, sent)]
    assert statuses == [503, 302, 200, 200]
    size = PHOTO.stat().st_size
    known = {"http.request.method": "GET", "server.address": "files.example", "server.port": 443}
    assert dict(redirected.attributes or {}) == known | {
        "url.full": "https://files.example",
        "http.request.resend_count": 2,
        "http.response.status_code": 200,
        "network.protocol.version": "1.1",
    }
    failed = f"{SENT}.DownloadError"
    expected: Tree = [("upload", "", [("GET", 503), ("GET", 302), GET, POST]), ("upload", failed, [("GET", 404)])]
    assert telemetry.tree == [*expected, ("upload", "", [POST])]
    assert [span.parent for span in telemetry.requests() if span not in telemetry.requests(*telemetry.calls)] == [None]
    counts = [
        count for facts, count in telemetry.points("http.client.request.duration") if facts.items() >= known.items()
    ]
    assert sum(counts) == 5
    assert telemetry.sum("http.client.response.body.size") > 2 * size
    shown = telemetry.shown() + "".join(f"{vars(record)} {record.getMessage()}" for record in caplog.records)
    assert [secret for secret in ("canary", emulator.access_token, "?") if secret in shown] == []


async def test_off(server: Server, scripted: MediaApi) -> None:
    """Nothing is seen under `suppress_instrumentation`, nor after `uninstrument`; a call in progress keeps its span."""
    server.script = [UPLOADED]
    with instrumented() as telemetry:
        with suppress_instrumentation():
            await scripted.upload(TEXT)
        assert telemetry.spans == []
        server.script = [silence]
        task = asyncio.ensure_future(scripted.with_options(read_timeout=0.05, max_retries=0).get_info("7"))
        await wait_until(lambda: len(server.requests) == 2)
    with pytest.raises(NetworkError):
        await task
    assert [name for name, _, _ in telemetry.tree] == ["get_info"]
    assert MediaApi.observer is None


async def test_before_the_first_request(telemetry: Telemetry) -> None:
    """A call that cannot begin, as its client is closed, has a span as well."""
    media = MediaApi("token", "1")
    await media.aclose()
    with pytest.raises(ConfigurationError):
        await media.get_info("7")
    with pytest.raises(InvalidMediaError):
        async with MediaApi("token", "1") as other:
            await other.upload(b"")
    assert [(name, status) for name, status, _ in telemetry.tree] == [
        ("get_info", f"{SENT}.ConfigurationError"),
        ("upload", f"{SENT}.CorruptedMediaError"),
    ]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, its name is in the error."""
    monkeypatch.delitem(sys.modules, "meta_media.integrations.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ModuleNotFoundError) as missing:
        import meta_media.integrations.otel  # noqa: F401 - raises
    assert str(missing.value) == "meta_media.integrations.otel needs a package: pip install '.[otel]' in a checkout"


async def test_without_other_instrumentations(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that all others need is not needed, over an injected client either."""
    for name in ("meta_media.integrations.otel", "opentelemetry.instrumentation.utils"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation", None)
    alone = importlib.import_module("meta_media.integrations.otel")
    server.script = [UPLOADED]
    telemetry = Telemetry()
    alone.MediaInstrumentor().instrument(tracer_provider=telemetry.tracer_provider)
    try:
        async with httpx.AsyncClient() as client:
            settings = Settings(base_url=server.base_url)
            await MediaApi("token", "1", settings=settings, http_client=client).upload(TEXT)
    finally:
        alone.MediaInstrumentor().uninstrument()
    assert telemetry.tree == [("upload", "", [POST])]
