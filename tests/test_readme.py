"""What the guides promise outside of their Python examples, which are tests of their own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import httpx
import pytest

from meta_media import samples
from meta_media.cli.app import make_app
from meta_media.emulator import Emulator
from tests.support.system import free_port

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
EMULATOR = ROOT / "meta_media" / "emulator" / "README.md"
COMMAND_LINE = ROOT / "meta_media" / "cli" / "README.md"
EXPORTS = ("WA_BASE_URL", "WA_PHONE_NUMBER_ID", "CLOUD_API_ACCESS_TOKEN", "WA_APP_SECRET", "WA_APP_ID")
GUIDES = [
    path
    for pattern in ("*.md", ".github/*.md", "meta_media/**/*.md", "benchmarks/*.md", "tests/**/*.md")
    for path in sorted(ROOT.glob(pattern))
    if path.name in {"README.md", "CONTRIBUTING.md"}
]


def named(path: Path) -> str:
    """Show a guide in a test's name."""
    return str(path.relative_to(ROOT))


def fences(language: str, file: Path = README) -> list[str]:
    """A guide's blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", file.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def bot() -> str:
    """The bot of README.md, which is a file."""
    [found] = [fence for fence in fences("python notest") if fence.startswith("# bot.py ")]
    return found


def test_the_two_commands_stand_first() -> None:
    """The first two blocks are the command that shows it at work, and the one that runs its tests."""
    first, second = (fence.strip() for fence in fences("bash")[:2])
    assert first == "python3 -m venv .venv && .venv/bin/pip install '.[cli]' && .venv/bin/meta-media demo"
    assert second == "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/pytest"
    assert re.findall(r"^```(\w+)", README.read_text("utf-8"), re.MULTILINE)[:2] == ["bash", "bash"]


def test_the_readme_is_short() -> None:
    """README.md has at most 260 lines, and the bot in it 40. Longer guides are README files in the folders that they are about."""
    assert len(README.read_text("utf-8").splitlines()) <= 260
    assert len(bot().splitlines()) <= 40


@pytest.mark.parametrize("guide", GUIDES, ids=named)
def test_lines_are_short(guide: Path) -> None:
    """No line of a guide has more than 110 characters."""
    assert [line for line in guide.read_text("utf-8").splitlines() if len(line) > 110] == []


@pytest.mark.parametrize("guide", GUIDES, ids=named)
def test_links_lead_somewhere(guide: Path) -> None:
    """Every relative link leads to a file of the repository."""
    links = re.findall(r"\]\(((?!https?:|#)[^)#]+)[^)]*\)", guide.read_text("utf-8"))
    assert [link for link in links if not (guide.parent / link).exists()] == []


@pytest.mark.parametrize("guide", GUIDES, ids=named)
def test_commands_and_options_exist(guide: Path) -> None:
    """Every `meta-media` command in a guide exists, and has the options that are shown with it."""
    app = make_app()
    text = guide.read_text("utf-8")
    shell = "\n".join(re.findall(r"^```bash[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    inline = "\n".join(re.findall(r"`(meta-media [^`]+)`", text))
    for command, rest in re.findall(r"meta-media (\w+)([^\n|#;)]*)", f"{shell}\n{inline}"):
        arguments = app[command].assemble_argument_collection()
        options = {name for argument in arguments for name in argument.names} | {"--help"}
        assert set(re.findall(r"(?<=\s)--?[a-z0][\w-]*", rest)) <= options, (command, rest)


@contextmanager
def serving(folder: Path, port: int, *options: str, log: TextIO | None = None) -> Iterator[dict[str, str]]:
    """`meta-media serve`, and the environment that it prints, with the program on the path."""
    command = [sys.executable, "-m", "meta_media", "serve", "--data", str(folder), "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server:
        assert server.stdout is not None
        exports: dict[str, str] = {}
        try:
            while (line := server.stdout.readline()) and not line.startswith("# Paste"):
                exports |= re.findall(r"^export (\w+)=(\S+)$", line)
            assert exports.keys() >= set(EXPORTS), "the server ended before it printed what to export"
            yield os.environ | exports
        finally:
            server.terminate()


def bash(script: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a script to its end, and return what it printed."""
    command = ["bash", "-c", f"set -euo pipefail\n{script}"]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the sample files."""
    for sample in samples.paths():
        shutil.copy(sample, tmp_path)
    return tmp_path


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
@pytest.mark.slow
def test_curl_tours_the_emulator_across_a_restart(folder: Path) -> None:
    """The emulator's tour with curl works as written, also when the server is restarted after the upload."""
    [tour] = fences("bash tour", EMULATOR)
    upload, rest = tour.split("# look up", 1)
    port = free_port()
    with serving(folder / "data", port) as environment:
        bash(f"{upload}\ndeclare -p ID GRAPH AUTH > state", folder, environment)
    with serving(folder / "data", port) as environment:
        printed = bash(f". ./state\n# look up{rest}", folder, environment)
    photo = (folder / "photo.jpg").read_bytes()
    assert (folder / "copy.jpg").read_bytes() == photo
    assert (folder / "first-100-bytes").read_bytes() == photo[:100]
    assert '"messages":[{"id":"wamid.' in printed
    assert printed.rstrip().endswith('{"success":true}')


@pytest.mark.slow
def test_the_tour_of_the_command_line(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The script of the command line's guide works as written."""
    [tour] = fences("bash tour", COMMAND_LINE)
    program = f'meta-media() {{ "{sys.executable}" -m meta_media "$@"; }}'
    other = tmp_path_factory.mktemp("other")
    with serving(other / "data", 0) as environment:
        printed = bash(f"{program}\n{tour}", folder, environment | {"XDG_CACHE_HOME": str(other)})
    once, again = re.findall(r"^((?:wamid\.\S+\n){2})", printed.rpartition("inbox/")[2], re.MULTILINE)
    assert once == again, "somebody got a second message"
    *_, first, second = re.findall(r"^\d{16}$", printed.partition("inbox/")[0], re.MULTILINE)
    assert first == second, "--reuse printed two ids"
    assert (folder / "copy.jpg").read_bytes() == (folder / "photo.jpg").read_bytes()
    assert len(list((folder / "inbox").iterdir())) == 2


@pytest.mark.slow
def test_examples_as_copied(tmp_path: Path) -> None:
    """In an empty folder and environment, each example of README.md works as a reader would paste it after its commands."""
    environment = {"PATH": os.defpath, "HOME": str(tmp_path)}
    (tmp_path / ".venv").symlink_to(sys.prefix)
    [commands] = fences("bash playground")
    set_up, serve = commands.split("meta-media serve")
    examples = fences("python")
    assert serve.count("\n") == 1
    assert len(examples) >= 5
    with serving(tmp_path / "data", 0) as served:
        exports = "\n".join(f"export {name}={served[name]}" for name in EXPORTS)
        session = "\n\n".join(examples) + "\n\nprint('the end')\n"
        script = f"{set_up}\n{exports}\nexec python -m asyncio 2>&1 <<'SESSION'\n{session}SESSION"
        printed = bash(script, tmp_path, environment)
    assert not re.search("Error|Warning|Traceback", printed), printed
    assert "the end" in printed


@pytest.mark.slow
def test_the_bot_answers_a_customer_once(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The commands below the bot work as written. It saves what a customer sends, answers once, and refuses other posts."""
    (folder / "bot.py").write_text(bot())
    port = free_port()
    [commands] = fences("bash bot")
    serve, uvicorn, receive = (line.split("#")[0] for line in commands.replace("8000", str(port)).splitlines())
    program = f'meta-media() {{ "{sys.executable}" -m meta_media "$@"; }}'
    data, log = tmp_path_factory.mktemp("other") / "data", folder / "log.txt"
    with log.open("w") as errors, serving(data, 0, *serve.split()[2:], log=errors) as environment:
        bot_process = subprocess.Popen([sys.executable, "-m", *uvicorn.split()], cwd=folder, env=environment)
        with bot_process:
            try:
                assert waited_for(log, "the webhook has answered the handshake", 1)
                [media_id] = bash(f"{program}\n{receive}", folder, environment).split()
                assert waited_for(log, "/messages: 200", 1)
                bash(f"{program}\nmeta-media receive note.ogg --from US.13491208655302741918", folder, environment)
                assert waited_for(log, "/messages: 200", 2)
                url = f"http://127.0.0.1:{port}/webhook"
                assert httpx.post(url, content=b"{}").status_code == 403
            finally:
                bot_process.terminate()  # it finishes what it has begun
    assert log.read_text().count("/messages: 200") == 2, "a repeated webhook was answered again"
    saved = {path.suffix: path.read_bytes() for path in (folder / "inbox").iterdir()}
    assert saved == {name[-4:]: (folder / name).read_bytes() for name in ("photo.jpg", "note.ogg")}
    assert (folder / "inbox" / f"{media_id}.jpg").exists()


async def test_the_bot_responds_before_it_works(
    emulator: Emulator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meta has its 200 before the media is fetched; the same webhook once more leads to no second message."""
    monkeypatch.chdir(folder)
    for name, value in zip((*EXPORTS, "WEBHOOK_VERIFICATION_TOKEN"), served_by(emulator), strict=True):
        monkeypatch.setenv(name, value)
    module: dict[str, Any] = {}
    exec(compile(bot(), "bot.py", "exec"), module)
    body, signature = await emulator.receive("photo.jpg", "image/jpeg", sender="US.13491208655302741918")
    headers = [(b"x-hub-signature-256", signature.encode())]
    requests_before: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: MutableMapping[str, Any]) -> None:
        assert message.get("status", 200) == 200
        requests_before.append(len(emulator.requests))

    app = module["app"]
    async with app.router.lifespan_context(app) as state:
        scope = {"type": "http", "method": "POST", "path": "/webhook", "query_string": b"", "state": state}
        for _ in range(2):
            await app(scope | {"headers": headers}, receive, send)
    assert (requests_before[1], len(emulator.messages), len(emulator.requests)) == (0, 1, 3)
    [saved] = (folder / "inbox").iterdir()
    assert saved.read_bytes() == (folder / "photo.jpg").read_bytes()


def served_by(emulator: Emulator) -> tuple[str, ...]:
    """What `serve` would print to export."""
    known = (emulator.base_url, emulator.phone_number_id, emulator.access_token, emulator.app_secret)
    return (*known, emulator.app_id, emulator.verify_token)


def waited_for(log: Path, text: str, count: int) -> bool:
    """Wait until a log has a text `count` times, and return whether it came to that."""
    end = time.monotonic() + 60
    while log.read_text().count(text) < count and time.monotonic() < end:
        time.sleep(0.05)  # polling
    return log.read_text().count(text) >= count
