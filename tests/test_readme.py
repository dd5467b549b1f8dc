"""What the README promises outside of its Python examples, which are tests of their own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meta_media import samples

README = Path(__file__).parent.parent / "README.md"


def fences(language: str) -> list[str]:
    """The README's blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_two_commands_stand_first() -> None:
    """A newcomer meets the command that shows it at work, then the one that runs its tests, before anything else."""
    first, second = (fence.strip() for fence in fences("bash")[:2])

    assert first == "python3 -m venv .venv && .venv/bin/pip install '.[cli]' && .venv/bin/meta-media demo"
    assert second == "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/pytest"
    assert re.findall(r"^```(\w+)", README.read_text("utf-8"), re.MULTILINE)[:2] == ["bash", "bash"]


@contextmanager
def serving(folder: Path, port: int) -> Iterator[dict[str, str]]:
    """`meta-media serve`, and the environment that it tells people to export."""
    command = [sys.executable, "-m", "meta_media", "serve", "--data", str(folder), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        exports: dict[str, str] = {}
        try:
            while len(exports) < 3:
                line = server.stdout.readline()
                assert line, "the server ended before it said what to export"
                exports |= re.findall(r"^export (\w+)=(\S+)$", line)
            yield os.environ | exports
        finally:
            server.terminate()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_curl_tours_the_emulator_across_a_restart(tmp_path: Path) -> None:
    """The README's tour with curl works as written, also when the server is restarted after the upload."""
    [tour] = fences("bash tour")
    upload, rest = tour.split("# look up", 1)
    for sample in samples.paths():
        shutil.copy(sample, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def bash(script: str, environment: dict[str, str]) -> str:
        whole = f"set -euo pipefail\n{script}\ndeclare -p ID GRAPH AUTH > state"
        command = ["bash", "-c", whole]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=60
        ).stdout

    with serving(tmp_path / "data", port) as environment:
        bash(upload, environment)
    with serving(tmp_path / "data", port) as environment:
        printed = bash(f". ./state\n# look up{rest}", environment)

    photo = (tmp_path / "photo.jpg").read_bytes()
    assert (tmp_path / "copy.jpg").read_bytes() == photo
    assert (tmp_path / "first-100-bytes").read_bytes() == photo[:100]
    assert '"messages":[{"id":"wamid.' in printed
    assert printed.rstrip().endswith('{"success":true}')
