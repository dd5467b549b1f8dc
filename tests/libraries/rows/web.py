"""What a web framework gives for a file in a form, and for a request's body."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import httpx

from tests.libraries import frameworks
from tests.libraries.driver import Trial, lib
from tests.libraries.frameworks import Framework
from tests.libraries.servers import free_port, process
from tests.libraries.table import NAMELESS, PHOTO, AnyOf, Refused, Table, Wanted

__all__ = ["TABLE"]

TABLE: Final = Table()
Take = Callable[[Any], Awaitable[Any]]


async def post(trial: Trial, url: str, form: bool, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(timeout=50) as browser:
        if form:
            return await browser.post(url, files={"file": ("photo.jpg", trial.content, "image/jpeg")}, **options)
        return await browser.post(url, content=trial.content, headers={"Content-Type": "image/jpeg"}, **options)


def given(name: str, wanted: Wanted, framework: Framework, *, form: bool = True) -> Callable[[Take], None]:
    def decorate(take: Take) -> None:
        async def run(trial: Trial) -> None:
            async def handle(request: Any) -> None:
                await trial.upload(await take(request))

            async with framework(handle) as url:
                await post(trial, url, form)

        TABLE.row(name, wanted)(run)

    return decorate


def body(name: str, wanted: Wanted, framework: Framework, take: Callable[[Any], Any]) -> None:
    async def taken(request: Any) -> Any:
        return take(request)

    given(name, wanted, framework, form=False)(taken)


body("Starlette: request.stream()", NAMELESS, frameworks.starlette, lambda request: request.stream())
body("Litestar: request.stream()", NAMELESS, frameworks.litestar, lambda request: request.stream())
body("Quart: request.body", NAMELESS, frameworks.quart, lambda request: request.body)
body("Falcon: req.stream", NAMELESS, frameworks.falcon, lambda request: request.stream)
body("BlackSheep: request.stream()", NAMELESS, frameworks.blacksheep, lambda request: request.stream())
body("aiohttp: request.content", NAMELESS, frameworks.aiohttp, lambda request: request.content)
body("aiohttp: web.Request", NAMELESS, frameworks.aiohttp, lambda request: request)
body("Sanic: request.stream", NAMELESS, frameworks.sanic, lambda request: request.stream)
body("Django: the request", NAMELESS, frameworks.django, lambda request: request)
body("Starlette: the request", AnyOf((NAMELESS, Refused(r"Request|mapping"))), frameworks.starlette, lambda request: request)


@given("Starlette: UploadFile", PHOTO, frameworks.starlette)
async def _(request: Any) -> Any:
    return (await request.form())["file"]


@given("Starlette: UploadFile, of which 512 bytes were read", PHOTO, frameworks.starlette)
async def _(request: Any) -> Any:
    file = (await request.form())["file"]
    await file.read(512)
    return file


@given("FastAPI: UploadFile", PHOTO, frameworks.fastapi)
async def _(file: Any) -> Any:
    return file


@given("Litestar: UploadFile", PHOTO, frameworks.litestar)
async def _(request: Any) -> Any:
    return (await request.form())["file"]


@given("Quart: FileStorage", PHOTO, frameworks.quart)
async def _(request: Any) -> Any:
    return (await request.files)["file"]


@given("Django: UploadedFile (in memory, or temporary)", PHOTO, frameworks.django)
async def _(request: Any) -> Any:
    return request.FILES["file"]


@given("Django: UploadedFile.chunks()", NAMELESS, frameworks.django)
async def _(request: Any) -> Any:
    return request.FILES["file"].chunks()


@given("BlackSheep: FormPart", PHOTO, frameworks.blacksheep)
async def _(request: Any) -> Any:
    return (await request.files("file"))[0]


@given("BlackSheep: StreamedFormPart", PHOTO, frameworks.blacksheep)
async def _(request: Any) -> Any:
    return await anext(aiter(request.multipart_stream()))


@given("Falcon: BodyPart", PHOTO, frameworks.falcon)
async def _(request: Any) -> Any:
    return await anext(aiter(await request.get_media()))


@given("aiohttp: FileField", PHOTO, frameworks.aiohttp)
async def _(request: Any) -> Any:
    return (await request.post())["file"]


@given("aiohttp: BodyPartReader", PHOTO, frameworks.aiohttp)
async def _(request: Any) -> Any:
    return await anext(await request.multipart())


@given("Sanic: File", PHOTO, frameworks.sanic)
async def _(request: Any) -> Any:
    return request.files["file"][0]


@given("Tornado: HTTPFile", AnyOf((PHOTO, Refused(r"mapping|dict|HTTPFile"))), frameworks.tornado)
async def _(request: Any) -> Any:
    return request.request.files["file"][0]


def _django_file(trial: Trial, make: Callable[[], Any]) -> Any:
    frameworks.django_settings()
    return make()


TABLE.source("Django: ContentFile", PHOTO, lambda t: _django_file(t, lambda: lib("django.core.files.base").ContentFile(t.content, name="photo.jpg")))
TABLE.source(
    "Django: storage.open()",
    PHOTO,
    lambda t: _django_file(t, lambda: t.enter(lib("django.core.files.storage").FileSystemStorage(location=t.folder).open("photo.jpg", "rb"))),
)


@TABLE.row("python-multipart: File", PHOTO)
async def _(trial: Trial) -> None:
    await trial.upload(_parsed(trial))


@TABLE.row("python-multipart: File.file_object, which stands at its end", Refused(r"at its end.*seek\(0\)"))
async def _(trial: Trial) -> None:
    await trial.upload(_parsed(trial).file_object, filename="photo.jpg")


def _parsed(trial: Trial) -> Any:
    request = httpx.Request("POST", "http://host/", files={"file": ("photo.jpg", trial.content, "image/jpeg")})
    files: list[Any] = []
    headers = {name.title(): value.encode() for name, value in request.headers.items()}
    parser = lib("python_multipart").create_form_parser(headers, lambda _: None, files.append)
    parser.write(request.read())
    parser.finalize()
    return files[0]


def robyn(name: str, wanted: Wanted, path: str, *, form: bool, data: str | None = None) -> None:
    async def run(trial: Trial) -> None:
        port = free_port()
        environment = {
            **os.environ,
            "CLOUD_API_ACCESS_TOKEN": trial.emulator.access_token,
            "WA_PHONE_NUMBER_ID": trial.emulator.phone_number_id,
            "WA_BASE_URL": trial.emulator.base_url,
        }
        script = Path(__file__).parent.parent / "robyn_app.py"
        async with process((sys.executable, script, str(port)), port, env=environment):
            url = f"http://127.0.0.1:{port}{path}"
            if data is None:
                seen = (await post(trial, url, form)).json()
            else:
                async with httpx.AsyncClient() as browser:
                    seen = (await browser.post(url, content=data.replace("PATH", str(trial.path)))).json()
            trial.seen = json.loads(seen) if isinstance(seen, str) else seen
            if trial.seen["result"] == "done":
                trial.seen |= await trial.stored(trial.seen["id"])

    TABLE.row(name, wanted)(run)


robyn("Robyn: files, bytes by file name", PHOTO, "/files", form=True)
robyn("Robyn: body, which is a str of content", Refused(r"encode\(\)", "MediaError"), "/body", form=False, data="line\nline\n" * 9)
robyn("Robyn: body, a str that names a file, str_paths=False", Refused("path"), "/strict", form=False, data="PATH")
