"""What every test stands on: asyncio, a blocking-call detector, no credentials from outside, a real emulator."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
import importlib
import inspect
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any, cast

import anyio
import coverage
import hypothesis
import pytest
from anyio.from_thread import start_blocking_portal
from blockbuster import BlockBuster
from pytest_markdown_docs._runners import DefaultRunner, register_runner
from pytest_markdown_docs.definitions import FenceTestDefinition
from pytest_markdown_docs.plugin import MarkdownDocstringCodeModule

from meta_media import MediaApi, samples
from meta_media.emulator import Emulator
from tests.support.servers import Server

# Programs that are started. Imported here, they would bring modules of tests under a second name.
collect_ignore = ["corpus/makers", "corpus/voice", "scripts"]

# Where a container forbids it, each program that tests start would compile the whole package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A shell's background job ignores Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """
    Send requests directly, as outside of pytest: our own plugin would let all pass `media.client`.

    Fewer examples of each property are tried where only the quick tests run, except in the gate. `TEST_LOOP=uvloop` runs the
    tests on the event loop of that module.
    """
    if loop := os.environ.get("TEST_LOOP"):
        asyncio.set_event_loop_policy(importlib.import_module(loop).EventLoopPolicy())
    MediaApi.through_client = False
    quick = config.getoption("markexpr").startswith("not slow") and not os.environ.get("CI")
    hypothesis.settings.register_profile("meta_media", max_examples=25 if quick else 100, deadline=None)
    hypothesis.settings.load_profile("meta_media")


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Look for examples in documents only: for those in docstrings each module of tests would be imported once more."""
    found = yield
    return [collector for collector in found if not isinstance(collector, MarkdownDocstringCodeModule)]


def pytest_collection_finish() -> None:
    """Spare the garbage collector what lives as long as the tests do: it would look at it again and again."""
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name long bytes by their length: archives hold the time, and workers of pytest-xdist must agree on names."""
    return f"{len(val)} bytes" if isinstance(val, bytes) and len(val) > 32 else None


blocking_calls = BlockBuster("meta_media")


def watch_blocking_calls() -> None:
    """Let calls raise that block an event loop."""
    blocking_calls.activate()
    if coverage.Coverage.current() is not None:  # it takes a lock of its own in any line of a thread
        blocking_calls.functions["threading.Lock.acquire"].deactivate()


@pytest.fixture(scope="session", autouse=True)
def blocking_calls_raise() -> Iterator[None]:
    """A call that blocks the event loop anywhere below our package is an error."""
    watch_blocking_calls()
    yield
    blocking_calls.deactivate()


@pytest.fixture(scope="session", autouse=True)
def no_credentials_from_outside() -> Iterator[None]:
    """Tests mean the same whatever the environment says."""
    names = ("CLOUD_API_ACCESS_TOKEN", "CLOUD_API_VERSION", "WA_APP_ID", "WA_APP_SECRET", "WA_BASE_URL")
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    with pytest.MonkeyPatch.context() as environment:
        for name in (*names, "WA_BUSINESS_ACCOUNT_ID", "WA_PHONE_NUMBER_ID", *proxies, *map(str.lower, proxies)):
            environment.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for every name of this machine, which nobody trusts, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"]
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    subprocess.run([openssl, "req", "-x509", *made, *name, *files], check=True, capture_output=True)
    return folder / "certificate", folder / "key"


@pytest.fixture
def tls(tls_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server needs to speak TLS 1.3 as this machine; the environment says that it is to be trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(*tls_files)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls_files[0]))
    return context


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator on a real socket, with an empty folder."""
    async with Emulator() as running:
        yield running


@pytest.fixture
async def media(emulator: Emulator) -> AsyncIterator[MediaApi]:
    """A client for the emulator."""
    async with emulator.api() as api:
        yield api


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """A scripted server, whose script the test gives."""
    async with Server() as running:
        yield running


@register_runner(default=True)
class ReadmeRunner(DefaultRunner):
    """Runs an example of the README as its reader would: sample files around it, credentials in the environment."""

    def runtest(self, test: FenceTestDefinition, args: Any, **_: Any) -> None:
        """Run it, awaiting at the top level where it does."""
        code = compile(test.source, str(test.source_path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.chdir(folder),
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(Emulator()) as emulator,
            pytest.MonkeyPatch.context() as environment,
            contextlib.ExitStack() as context,
        ):
            for sample in (*samples.paths(), Path(__file__).parent / "media" / "voice.webm"):
                shutil.copy(sample, folder)
            environment.setattr(MediaApi, "through_client", True)  # as the plugin does for readers' own tests
            environment.setenv("WA_BASE_URL", emulator.base_url)
            environment.setenv("WA_PHONE_NUMBER_ID", emulator.phone_number_id)
            environment.setenv("CLOUD_API_ACCESS_TOKEN", emulator.access_token)
            environment.setenv("WA_APP_ID", emulator.app_id)
            blocking_calls.deactivate()  # an example is a program of its own, in a folder named meta_media
            context.callback(watch_blocking_calls)
            if code.co_flags & inspect.CO_COROUTINE:
                anyio.run(lambda: cast("Any", eval(code, args)))
            else:
                exec(code, args)
