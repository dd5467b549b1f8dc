"""
One small application per web framework, on a real socket.

Each is `async with FRAMEWORK(handle) as url`. `handle` gets the framework's own request, for any GET or POST of `/`, and may
return the framework's own response; None is an empty one.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import types
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from tests.libraries.driver import lib
from tests.libraries.servers import free_port, listening, running

__all__ = ["Framework", "Handle", "django_settings"]

Handle = Callable[[Any], Awaitable[Any]]
Framework = Callable[[Handle], AbstractAsyncContextManager[str]]
_METHODS: Final = ["GET", "POST"]
_SANIC: Final[dict[str, Any]] = {}  # the port of its server, and what it does


@asynccontextmanager
async def _asgi(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application with uvicorn."""
    uvicorn = lib("uvicorn")
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="auto", http="h11"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await _until(lambda: server.started)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            await serving


def starlette(handle: Handle) -> AbstractAsyncContextManager[str]:
    """Starlette, under uvicorn."""

    async def view(request: Any) -> Any:
        return await handle(request) or lib("starlette.responses").Response()

    route = lib("starlette.routing").Route("/", view, methods=_METHODS)
    return _asgi(lib("starlette.applications").Starlette(routes=[route]))


def fastapi(handle: Handle) -> AbstractAsyncContextManager[str]:
    """FastAPI, under uvicorn. A POST gives its `UploadFile`, a GET the request."""

    async def take(file: Any) -> None:
        await handle(file)

    async def give(request: Any) -> Any:
        return await handle(request)

    take.__annotations__ = {"file": lib("fastapi").UploadFile}
    give.__annotations__ = {"request": lib("fastapi").Request}
    app = lib("fastapi").FastAPI()
    app.add_api_route("/", take, methods=["POST"])
    app.add_api_route("/", give, methods=["GET"], response_model=None)
    return _asgi(app)


def litestar(handle: Handle) -> AbstractAsyncContextManager[str]:
    """Litestar, under uvicorn."""

    async def view(request: Any) -> Any:
        return await handle(request)

    view.__annotations__ = {"request": lib("litestar").Request, "return": Any}
    route = lib("litestar").route("/", http_method=_METHODS, status_code=200)(view)
    return _asgi(lib("litestar").Litestar([route], request_max_body_size=None))


@asynccontextmanager
async def quart(handle: Handle) -> AsyncIterator[str]:
    """Quart, under hypercorn."""

    async def view() -> Any:
        return await handle(lib("quart").request) or ""

    app = lib("quart").Quart(__name__)
    app.add_url_rule("/", view_func=view, methods=_METHODS)
    config = lib("hypercorn.config").Config()
    port, stop = free_port(), asyncio.Event()
    config.bind, config.errorlog, config.accesslog = [f"127.0.0.1:{port}"], None, None
    serving = asyncio.create_task(lib("hypercorn.asyncio").serve(app, config, shutdown_trigger=stop.wait))
    await listening(port)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        stop.set()
        await serving


def django(handle: Handle) -> AbstractAsyncContextManager[str]:
    """Django's ASGI handler, under uvicorn."""
    django_settings()

    async def view(request: Any) -> Any:
        return await handle(request) or lib("django.http").HttpResponse()

    urls = types.ModuleType("urls")
    urls.urlpatterns = [lib("django.urls").path("", view)]  # type: ignore[attr-defined]  # Django's name
    lib("django.conf").settings.ROOT_URLCONF = urls
    lib("django.urls").clear_url_caches()
    lib("django.urls").set_urlconf(None)
    return _asgi(lib("django.core.handlers.asgi").ASGIHandler())


@functools.cache
def django_settings() -> None:
    """Configure Django, once for a process."""
    lib("django.conf").settings.configure(
        ALLOWED_HOSTS=["*"], SECRET_KEY="none", MIDDLEWARE=[], ROOT_URLCONF=None, DATA_UPLOAD_MAX_MEMORY_SIZE=None
    )
    lib("django").setup()


@asynccontextmanager
async def aiohttp(handle: Handle) -> AsyncIterator[str]:
    """Aiohttp's own server."""
    web = lib("aiohttp.web")

    async def view(request: Any) -> Any:
        return await handle(request) or web.Response()

    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/", view)
    async with running(app) as url:
        yield url


def falcon(handle: Handle) -> AbstractAsyncContextManager[str]:
    """Falcon's ASGI application, under uvicorn. What `handle` returns is the response's stream."""

    class Resource:
        async def on_get(self, request: Any, response: Any) -> None:
            response.stream = await handle(request)

        async def on_post(self, request: Any, _: Any) -> None:
            await handle(request)

    app = lib("falcon.asgi").App()
    forms = app.req_options.media_handlers["multipart/form-data"]
    forms.parse_options.max_body_part_buffer_size = 2**30
    app.add_route("/", Resource())
    return _asgi(app)


def blacksheep(handle: Handle) -> AbstractAsyncContextManager[str]:
    """BlackSheep, under uvicorn."""

    async def view(request: Any) -> Any:
        return await handle(request) or lib("blacksheep").Response(200)

    view.__annotations__ = {"request": lib("blacksheep").Request}
    app = lib("blacksheep").Application(router=lib("blacksheep").Router())
    app.router.add_post("/", view)
    app.router.add_get("/", view)
    return _asgi(app)


@asynccontextmanager
async def sanic(handle: Handle) -> AsyncIterator[str]:
    """Sanic's own server, which a process can start once. A form is read whole; another body is streamed."""
    if not _SANIC:
        module = lib("sanic")

        async def view(request: Any) -> Any:
            if request.headers.get("content-type", "").startswith("multipart/"):
                await request.receive_body()
            return await _SANIC["handle"](request) or module.response.empty()

        app = module.Sanic("rows", configure_logging=False)
        app.config.update({"REQUEST_MAX_SIZE": 2**30, "MOTD": False})
        app.add_route(view, "/", methods=_METHODS, stream=True)
        _SANIC["port"] = free_port()
        server = await app.create_server("127.0.0.1", _SANIC["port"], return_asyncio_server=True, access_log=False)
        await server.startup()
        await server.start_serving()
    _SANIC["handle"] = handle
    yield f"http://127.0.0.1:{_SANIC['port']}/"


@asynccontextmanager
async def tornado(handle: Handle) -> AsyncIterator[str]:
    """Tornado's own server."""

    class Handler(lib("tornado.web").RequestHandler):  # type: ignore[misc]  # Any
        async def post(self) -> None:
            await handle(self)

        get = post

    server = lib("tornado.web").Application([("/", Handler)]).listen(0, "127.0.0.1")
    (listener,) = server._sockets.values()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.stop()
        await server.close_all_connections()


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)  # until it listens
