"""
Recordings by Debian's Chromium and Firefox, without a driver: they open `recorder.html`, which posts what it records.

    apt-get install chromium firefox-esr pulseaudio
    npm install --prefix tests/corpus/voice
    python -m tests.corpus.voice.browsers FOLDER

Recorded with Chromium 156.0.8078.108 and Firefox 153.8.0esr. Firefox needs a sound server, or its AudioContext never starts.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).parent
_TIMEOUT: Final = 240.0  # seconds for all recordings of a browser
_PREFERENCES: Final = """
user_pref("media.autoplay.default", 0);
user_pref("media.autoplay.blocking_policy", 0);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("app.update.enabled", false);
user_pref("network.proxy.type", 0);
"""


class _Handler(SimpleHTTPRequestHandler):
    """Serves the page and its modules, and stores what it posts."""

    folder: Path
    done: threading.Event

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, directory=str(_HERE), **options)

    def do_POST(self) -> None:
        """Store a recording; "done" says that it was the last one, and errors are collected in one file."""
        name = Path(self.path).name
        content = self.rfile.read(int(self.headers["Content-Length"]))
        with (self.folder / name).open("ab" if name.endswith(".txt") else "wb") as file:
            file.write(content)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if name.endswith("-done"):
            (self.folder / name).unlink()
            self.done.set()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Print nothing."""


@contextlib.contextmanager
def _running(command: list[str], **environment: str) -> Iterator[None]:
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _chromium(url: str, scratch: Path) -> Iterator[None]:
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    with _running(["chromium", *flags, f"--user-data-dir={scratch / 'chromium'}", url]):
        yield


@contextlib.contextmanager
def _firefox(url: str, scratch: Path) -> Iterator[None]:
    profile, socket = scratch / "firefox", scratch / "pulse"
    profile.mkdir()
    (profile / "user.js").write_text(_PREFERENCES)
    modules = ["-L", "module-null-sink", "-L", f"module-native-protocol-unix auth-anonymous=1 socket={socket}"]
    server = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", *modules]
    home, address = {"HOME": str(scratch)}, f"unix:{socket}"
    with (
        _running(server, **home),
        _running(["firefox-esr", "--headless", "--profile", str(profile), url], PULSE_SERVER=address, **home),
    ):
        yield


def main(folder: Path) -> int:
    """Record with both browsers. Return the exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    status = 0
    for browser in (_chromium, _firefox):
        _Handler.folder, _Handler.done = folder, threading.Event()
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/recorder.html"
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, browser(url, Path(scratch)):
            if not _Handler.done.wait(_TIMEOUT):
                sys.stderr.write(f"{browser.__name__[1:]} has not finished within {_TIMEOUT:g} s\n")
                status = 1
        server.shutdown()
        server.server_close()
    return status


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
