"""A chat bot's side: `serve --webhook`, `receive`, and what `serve` prints about requests. And `samples`."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import attrs
import pytest

from meta_media import inbound_media, parse_webhook, verify_signature
from tests.support.shell import PATIENCE, SAMPLES, Shell, lines, words_of


@attrs.frozen
class Bot:
    """An application with a webhook."""

    url: str
    posts: list[tuple[bytes, str | None]]
    statuses: list[int]  # that it answers with; 200 once they are used up
    handshakes: list[dict[str, list[str]]]  # the queries of GETs, which it answers with their challenge


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # polling


@pytest.fixture(scope="module")
def bot() -> Iterator[Bot]:
    """Run one on a free port."""
    posts: list[tuple[bytes, str | None]] = []
    statuses: list[int] = []
    handshakes: list[dict[str, list[str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = statuses.pop(0) if statuses else 200
            handshakes.append(parse_qs(urlsplit(self.path).query))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(handshakes[-1]["hub.challenge"][0].encode())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            posts.append((body, self.headers["x-hub-signature-256"]))
            self.send_response(statuses.pop(0) if statuses else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Bot(f"http://127.0.0.1:{server.server_port}/webhook", posts, statuses, handshakes)
        server.shutdown()


@pytest.fixture(scope="module")
def chatting(bot: Bot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An emulator that posts to it, as the environment variables that lead to it."""
    folder = tmp_path_factory.mktemp("chatting")
    before = len(bot.handshakes)
    with Shell(folder=folder).serving("--data", "data", "--webhook", bot.url) as variables:
        eventually(lambda: len(bot.handshakes) > before)
        yield variables


@pytest.fixture
def customer(bare: Shell, chatting: dict[str, str], bot: Bot) -> Shell:
    """The shell of a customer; the bot has received nothing yet."""
    bot.posts.clear()
    return bare.with_variables(chatting)


def test_a_customer_sends_a_file(customer: Shell, bot: Bot, chatting: dict[str, str]) -> None:
    """The bot gets one webhook, signed with the printed secret, whose media can be downloaded."""
    done = customer.run("receive", SAMPLES["photo.jpg"], "--caption", "hi", "--sender", "+49 171 2345678")
    [media_id] = words_of(done)
    assert (done.returncode, done.stderr) == (0, f"the webhook at {bot.url} answered HTTP 200\n".encode())
    [(body, signature)] = bot.posts
    assert verify_signature(chatting["WA_APP_SECRET"], body, signature)
    [inbound] = inbound_media(json.loads(body))
    assert (inbound.id, inbound.mime_type, inbound.kind) == (media_id, "image/jpeg", "image")
    assert (inbound.caption, inbound.sender) == ("hi", "491712345678")
    assert customer.run("download", media_id, "copy.jpg").returncode == 0
    assert (customer.folder / "copy.jpg").read_bytes() == SAMPLES["photo.jpg"].read_bytes()


def test_twice(customer: Shell, bot: Bot) -> None:
    """`--twice` posts the same webhook twice; one that is refused makes the status 1, prints the id, and comes again."""
    bot.statuses[:] = [200, 500]
    done = customer.run("receive", SAMPLES["note.ogg"], "--twice", "--json", "--quiet")
    [told] = lines(done.stdout)
    assert (done.returncode, told["statuses"], done.stderr) == (1, [200, 500], b"")
    assert (told["id"].isdecimal(), told["webhook"], told["mime_type"]) == (True, bot.url, "audio/ogg; codecs=opus")
    eventually(lambda: len(bot.posts) == 3)
    assert bot.posts[0] == bot.posts[1] == bot.posts[2]


def test_a_customer_without_a_number(customer: Shell, bot: Bot) -> None:
    """The options say who writes, where, and in which carrier."""
    options = ("--from", "US.1349", "--username", "anna", "--group", "Y2Fw", "--carrier", "edit")
    assert customer.run("receive", SAMPLES["photo.jpg"], *options).returncode == 0
    [inbound] = inbound_media(bot.posts[-1][0])
    assert (inbound.sender, inbound.user_id, inbound.username) == (None, "US.1349", "@anna")
    assert (inbound.group_id, inbound.carrier) == ("Y2Fw", "edit")


def test_a_message_that_is_not_passed_on(customer: Shell, bot: Bot) -> None:
    """`--failure` posts a webhook without media: there is no id, so that the line is empty."""
    done = customer.run("receive", SAMPLES["photo.jpg"], "--failure", "131060")
    assert (done.returncode, done.stdout) == (0, b"\n")
    [failure] = parse_webhook(bot.posts[-1][0]).failures
    assert failure.errors[0].code == 131060


def test_a_message_is_answered(customer: Shell, bot: Bot) -> None:
    """Each message that is sent is reported to the bot: sent, delivered, read."""
    media_id = customer.upload("photo.jpg")
    [message_id] = words_of(customer.run("send", media_id, "--to", "+15550001111"))
    eventually(lambda: len(bot.posts) == 3)
    found = [status for body, _ in bot.posts for status in parse_webhook(body).statuses]
    assert [(status.message_id, status.status) for status in found] == [
        (message_id, status) for status in ("sent", "delivered", "read")
    ]


@pytest.mark.parametrize(
    ("name", "content", "options", "mime_type", "kind"),
    [
        ("moving.gif", b"GIF89a\x01\x00\x01\x00", [], "image/gif", "image"),
        ("thing.unknown", b"\x00\x01", [], "application/octet-stream", "document"),
        ("empty.pdf", b"", ["--filename", "bill.pdf"], "application/pdf", "document"),
        ("a.txt", b"hello", ["--mime-type", "video/mp4"], "video/mp4", "video"),
    ],
)
def test_a_customer_may_send_anything(
    customer: Shell, bot: Bot, name: str, content: bytes, options: list[str], mime_type: str, kind: str
) -> None:
    """A customer is not limited to the types that may be uploaded."""
    (customer.folder / name).write_bytes(content)
    assert customer.run("receive", name, *options).returncode == 0
    [inbound] = inbound_media(json.loads(bot.posts[-1][0]))
    assert (inbound.mime_type, inbound.kind) == (mime_type, kind)
    assert inbound.filename == ((options[1:] or [name])[0] if kind == "document" else None)


def test_without_a_webhook(shell: Shell) -> None:
    """Where `serve` has no webhook, the media is there, and a remark says how to get one."""
    done = shell.run("receive", SAMPLES["photo.jpg"])
    assert (done.returncode, done.stdout.strip().isdigit()) == (0, True)
    assert done.stderr == b"no webhook was posted: start the emulator with meta-media serve --webhook URL\n"


@pytest.mark.parametrize(
    ("arguments", "variables", "status", "why"),
    [
        (["photo.jpg"], {"WA_BASE_URL": ""}, 2, "receive needs an emulator: set WA_BASE_URL to what meta-media serve"),
        (["missing.jpg"], {}, 1, "could not read 'missing.jpg': No such file or directory"),
        (["photo.jpg", "--sender", "anna"], {}, 2, "--from must be a phone number such as"),
        (["photo.jpg", "--carrier", "pigeon"], {}, 2, "refused it: (#100) Param carrier must be one of message, edit"),
        (["photo.jpg", "--failure", "7"], {}, 2, "refused it: (#100) Param failure must be one of 131051, 131052"),
        (["photo.jpg", "--mime-type", "a\nb"], {}, 1, "is not a MIME type"),
        (["photo.jpg"], {"CLOUD_API_ACCESS_TOKEN": "other"}, 2, "refused it: Invalid OAuth access token"),
        (["photo.jpg", "--phone-number-id", "77"], {}, 2, "refused it: Unsupported post request"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list | dict) else "",
)
def test_a_customer_who_cannot_send(
    shell: Shell, arguments: list[str], variables: dict[str, str], status: int, why: str
) -> None:
    """Meta itself is no emulator, and whatever else is wrong is one sentence."""
    (shell.folder / "photo.jpg").write_bytes(SAMPLES["photo.jpg"].read_bytes())
    done = shell.with_variables(variables).run("receive", *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (status, b"", 1)
    assert why in done.stderr.decode()


def test_no_emulator_runs(shell: Shell) -> None:
    """Where nothing listens, the sentence says how to start one."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        done = shell.run("receive", SAMPLES["photo.jpg"], WA_BASE_URL=base_url)
    assert done.returncode == 1
    assert done.stderr.decode() == f"meta-media: no emulator answers at {base_url}: start one with meta-media serve\n"


def test_a_webhook_that_is_none(bare: Shell) -> None:
    """`serve` refuses a webhook that is no URL before it starts."""
    done = bare.run("serve", "--data", "data", "--webhook", "localhost:8000")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"the webhook must be a URL such as http://127.0.0.1:8000/webhook" in done.stderr
    assert not (bare.folder / "data").exists()


@contextlib.contextmanager
def served(bare: Shell, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, str]]]:
    """`serve` with some options, and the variables that it exports."""
    with bare.start("serve", "--port", "0", "--data", "data", *options) as process:
        assert process.stdout is not None
        exports: dict[str, str] = {}
        while len(exports) < 5:
            line = process.stdout.readline().decode()
            assert line.startswith("export ") or "--quiet" not in options, line
            assert line, "it ended"
            exports |= re.findall(r"^export (\w+)=(\S+)$", line)
        try:
            yield process, exports
        finally:
            process.kill()


@pytest.mark.slow
def test_serve_shows_requests(bare: Shell) -> None:
    """Each request is a line on standard error, without its query; a client that speaks TLS gets one sentence."""
    with served(bare) as (process, exports):
        shell = bare.with_variables(exports)
        media_id = shell.upload("photo.jpg")
        shell.run("download", media_id, "copy.jpg")
        with socket.create_connection(("127.0.0.1", int(exports["WA_BASE_URL"].rpartition(":")[2]))) as plain:
            context = ssl.create_default_context()
            with pytest.raises(ssl.SSLError), context.wrap_socket(plain, server_hostname="localhost"):
                pass
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE)
    said = errors.decode().splitlines()
    number = exports["WA_PHONE_NUMBER_ID"]
    for line, request in zip(
        said,
        [f"POST /v25.0/{number}/media", f"GET /v25.0/{media_id}", "GET /whatsapp_business/attachments/"],
        strict=False,
    ):
        assert re.fullmatch(rf"\d\d:\d\d:\d\d {re.escape(request)}: 200, \d\.\d{{3}} s", line)
    assert said[3:] == ["meta-media: a client spoke TLS to the emulator: let it use http://, or start this with TLS"]


def test_serve_with_a_webhook(bare: Shell, bot: Bot) -> None:
    """The handshake is done with the printed token, until it succeeds; each webhook is a line; all messages may fail."""
    bot.handshakes.clear()
    bot.posts.clear()
    bot.statuses[:] = [403, 403]
    options = ("--webhook", bot.url, "--verify-token", "tea", "--fail-delivery", "131053", "--json")
    with bare.start("serve", "--port", "0", "--data", "data", *options) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            told = json.loads(process.stdout.readline())
            eventually(lambda: len(bot.handshakes) == 3)
            shell = bare.with_variables({name: value for name, value in told.items() if name.isupper()})
            assert shell.run("send", shell.upload("photo.jpg"), "--to", "US.1349").returncode == 0
            said: list[str] = []
            while not any("webhook (" in line for line in said):
                said.append(process.stderr.readline().decode().rstrip("\n"))
                assert said[-1], "it ended"
            process.terminate()
            rest, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (told["WEBHOOK_VERIFICATION_TOKEN"], rest) == ("tea", b"")
    assert [query["hub.verify_token"] for query in bot.handshakes] == [["tea"]] * 3
    [failed] = parse_webhook(bot.posts[0][0]).statuses
    assert (failed.status, failed.errors[0].code) == ("failed", 131053)
    refused = (
        "the webhook answered the handshake with HTTP 403: let it compare hub.verify_token with the verify token of"
    )
    assert [line for line in said if "handshake" in line] == [
        f"{refused} the emulator; the handshake is tried again",
        "the webhook has answered the handshake",
    ]
    assert re.fullmatch(r"\d\d:\d\d:\d\d webhook \(status failed\): HTTP 200, \d\.\d{3} s", said[-1])


@pytest.mark.slow
def test_serve_quietly(bare: Shell) -> None:
    """With `--quiet`, `serve` prints the lines to export and nothing else, and no warnings."""
    with served(bare, "--quiet") as (process, exports):
        names = ["WA_BASE_URL", "WA_PHONE_NUMBER_ID", "CLOUD_API_ACCESS_TOKEN", "WA_APP_SECRET", "WA_APP_ID"]
        assert list(exports) == names
        bare.with_variables(exports).upload("photo.jpg")
        with socket.create_connection(("127.0.0.1", int(exports["WA_BASE_URL"].rpartition(":")[2]))) as plain:
            plain.sendall(b"\x16\x03\x01 hello")
            plain.recv(100)
        process.terminate()
        rest, errors = process.communicate(timeout=PATIENCE)
    assert (rest, errors) == (b"", b"")


def test_samples(bare: Shell) -> None:
    """`samples` makes the folder, writes every sample, may be repeated, and replaces no file of another content."""
    for _ in range(2):
        done = bare.run("samples", "new/folder")
        assert (done.returncode, done.stderr) == (0, b"")
        assert words_of(done) == [f"new/folder/{name}" for name in SAMPLES]
        assert [Path(bare.folder, path).read_bytes() for path in words_of(done)] == [
            sample.read_bytes() for sample in SAMPLES.values()
        ]
    (bare.folder / "photo.jpg").write_bytes(b"mine")
    done = bare.run("samples", ".")
    assert (done.returncode, len(words_of(done))) == (1, len(SAMPLES) - 1)
    assert done.stderr == b"meta-media: could not write 'photo.jpg': File exists\n"
    assert (bare.folder / "photo.jpg").read_bytes() == b"mine"


@pytest.mark.parametrize(("folder", "why"), [("file", "File exists"), ("file/in", "Not a directory")])
def test_samples_into_what_is_no_folder(bare: Shell, folder: str, why: str) -> None:
    """A file in the place of the folder is one sentence, not one for each sample, and stays as it is."""
    (bare.folder / "file").write_bytes(b"mine")
    done = bare.run("samples", folder)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"meta-media: could not make the folder {folder!r}: {why}\n"
    assert (bare.folder / "file").read_bytes() == b"mine"
