"""The logger `meta_media`: a DEBUG record for each request, and what `META_MEDIA_LOG` shows of the log in any program."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from meta_media import MediaApi, Settings, Source
from meta_media.emulator import Emulator
from meta_media.errors import NetworkError
from meta_media.http import log
from tests.support.internet import internet
from tests.support.servers import Server, cut, json_response, page, silence, wait_until

TEXT = b"text" * 1000
FORBIDDEN = json_response({"error": {"message": "no", "code": 10, "fbtrace_id": "AbC"}}, 403)


def facts(record: logging.LogRecord) -> dict[str, object]:
    """The attributes that a record has beside those of every record, without the time it took."""
    usual = {*vars(logging.makeLogRecord({})), "message"}
    found = {name: value for name, value in vars(record).items() if name not in usual}
    assert found.pop("seconds") >= 0
    return found


async def test_a_record_for_each_request(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """It has operation, attempt, URL, status, bytes, seconds and Meta's trace id, as text and as attributes."""
    caplog.set_level(logging.DEBUG, "meta_media")
    server.script = [cut(b""), json_response({"id": "7"}, x_fb_trace_id="AtR"), FORBIDDEN]
    async with MediaApi(
        "token", "1", settings=Settings(base_url=server.base_url, backoff=0.0, app_secret="s")
    ) as media:
        await media.upload(TEXT)
        with pytest.raises(Exception, match="no") as refused:
            await media.get_info("7")
    failed, again, uploaded, looked_up = caplog.records
    assert again.levelno == logging.INFO
    url = f"{server.base_url}/{media.settings.api_version}"
    size = len(server.requests[0].body)
    expected = {"operation": "upload", "attempt": 1, "method": "POST", "url": f"{url}/1/media", "bytes_sent": size}
    none: dict[str, object] = {"status": None, "bytes_received": 0, "fbtrace_id": None}
    assert facts(failed) == expected | none | {"error_type": "meta_media.errors.NetworkError"}
    done = {"attempt": 2, "status": 200, "bytes_received": 11, "fbtrace_id": "AtR", "error_type": None}
    assert facts(uploaded) == expected | done
    said = re.sub(r"\d\.\d{3} s", "TIME", uploaded.getMessage())
    assert said == f"upload: attempt 2: POST {url}/1/media: 200, {size} bytes sent, 11 received, TIME, fbtrace_id AtR"
    assert "no response, " in failed.getMessage()
    assert facts(looked_up)["error_type"] == "meta_media.errors.PermissionDeniedError"
    assert looked_up.getMessage().endswith(f"fbtrace_id AbC: {refused.value}")


async def test_the_end_of_a_response(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """A download's record comes with its last byte, with its failure, or when it is left; then it has what was received."""
    caplog.set_level(logging.DEBUG, "meta_media")
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"
    server.script = [page("all of it"), cut(head + b"some"), page("all of it"), silence]
    async with MediaApi("token", "1", settings=Settings(base_url=server.base_url, max_retries=0)) as media:
        url = f"{server.base_url}/media?hash=signature"
        assert await media.read(url) == b"all of it"
        with pytest.raises(NetworkError):
            await media.read(url)
        async with media.stream(url) as opened:
            await opened.read(1)
        task = asyncio.ensure_future(media.read(url))
        await wait_until(lambda: len(server.requests) == 4)
        task.cancel()
        await asyncio.wait([task])
    ends = [(record.status, record.bytes_received, record.error_type) for record in caplog.records]  # type: ignore[attr-defined] # extra
    assert ends == [
        (200, 9, None),
        (200, 4, "meta_media.errors.NetworkError"),
        (200, 9, None),
        (None, 0, "asyncio.exceptions.CancelledError"),
    ]
    assert {record.url for record in caplog.records} == {f"{server.base_url}/media"}  # type: ignore[attr-defined] # extra


async def test_a_file_of_the_internet(tmp_path: Path, emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    """A request of `Source.url` has a record as well, with no path, because the paths of strangers may be secret."""
    caplog.set_level(logging.DEBUG, "meta_media")
    async with internet(tmp_path, int(emulator.base_url.rpartition(":")[2])) as world, emulator.api() as media:
        await world.serve("files.example", page(TEXT, content_type="text/plain"))
        await media.upload(Source.url("https://files.example/bot-secret/text.txt?signature=secret"))
        with pytest.raises(NetworkError):
            await media.with_options(max_retries=0).upload(Source.url("https://nowhere.example/secret"))
    uploaded, fetched, failed = (record for record in caplog.records if record.name == "meta_media")
    assert {"url": "https://files.example", "status": 200, "bytes_received": len(TEXT)}.items() <= facts(
        fetched
    ).items()
    assert facts(uploaded)["operation"] == "upload"
    lost = {"url": "https://nowhere.example", "status": None, "error_type": "meta_media.errors.NetworkError"}
    assert lost.items() <= facts(failed).items()
    assert "secret" not in "".join(f"{vars(record)} {record.getMessage()}" for record in caplog.records)


def say() -> None:
    """Log a line at each of three levels."""
    logger = logging.getLogger("meta_media")
    logger.debug("a detail")
    logger.info("again")
    logger.warning("warned")


@pytest.mark.parametrize(
    ("variable", "configured", "expected"),
    [
        (
            "debug",
            False,
            ["TIME DEBUG meta_media: a detail", "TIME INFO meta_media: again", "TIME WARNING meta_media: warned"],
        ),
        ("INFO", False, ["TIME INFO meta_media: again", "TIME WARNING meta_media: warned"]),
        ("debug", True, ["theirs: a detail", "theirs: again", "theirs: warned"]),
        ("all", True, ["theirs: warned"]),
        ("all", False, ["warned"]),
    ],
)
def test_the_variable(
    variable: str,
    configured: bool,
    expected: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """META_MEDIA_LOG shows the log on standard error, or in the program's own, once; the root logger stays as it was."""
    root, logger = logging.getLogger(), logging.getLogger("meta_media")
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setenv("META_MEDIA_LOG", variable)
    if configured:
        logging.basicConfig(format="theirs: %(message)s")
    handlers = root.handlers[:]
    try:
        importlib.reload(log)
        say()
    finally:
        logger.setLevel(logging.NOTSET)
    assert (root.level, root.handlers) == (logging.WARNING, handlers)
    shown = re.sub(r"^[-0-9]+ [0-9:,]+", "TIME", capsys.readouterr().err, flags=re.MULTILINE)
    assert shown.splitlines() == expected


def test_the_variable_of_a_program() -> None:
    """The import of the package is enough."""
    program = "import logging, meta_media; logging.getLogger('meta_media').info('again')"
    environment = os.environ | {"META_MEDIA_LOG": "info"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True)
    assert done.stderr.endswith(b" INFO meta_media: again\n")
