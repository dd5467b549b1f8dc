"""An environment with all libraries, made once; and the results of the rows, which run in it."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
_HERE: Final = Path(__file__).parent
_OLD: Final = "aiopath==0.6.11"  # it asks for anyio<4, which it does not need
_NPM: Final = (
    *("azurite@3.35.0", "@kapso/whatsapp-cloud-api@0.3.0", "whatsapp-api-js@6.3.0", "whatsapp-business@1.7.2"),
    *("axios@1.21.1", "form-data@4.0.6"),  # of whatsapp-business
)
Results = Callable[[str], dict[tuple[str, str], Any]]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process in at a time: the workers of pytest-xdist share the folder."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(folder: Path) -> None:
    """Make a virtual environment, with uv if there is one."""
    python, wanted = (
        str(folder / "bin/python"),
        ["-r", str(_HERE / "requirements.txt"), "-e", f"{ROOT}[emulator,redis]"],
    )
    environment = {**os.environ, "URLLIB3_NO_OVERRIDE": "1"}  # else niquests' fork takes the place of urllib3
    uv = shutil.which("uv")
    made = [uv, "venv", "-q", "--clear", "-p", sys.executable] if uv else [sys.executable, "-m", "venv"]
    install = [uv, "pip", "install", "-q", "-p", python] if uv else [python, "-m", "pip", "install", "-q"]
    subprocess.run([*made, str(folder)], check=True)
    subprocess.run([*install, "--no-binary", "urllib3-future", *wanted], check=True, env=environment)
    subprocess.run([*install, "--no-deps", _OLD], check=True)
    if shutil.which("npm"):
        subprocess.run(["npm", "install", "--silent", "--no-save", "--prefix", folder, *_NPM], check=False)


@pytest.fixture(scope="session")
def interpreter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Python that has the libraries. It is kept in pytest's cache folder (`-o cache_dir=…`), if there is one."""
    cache = getattr(request.config, "cache", None)
    shared = Path(cache.mkdir("libraries")) if cache else tmp_path_factory.getbasetemp()
    texts = (_HERE / "requirements.txt").read_bytes() + (ROOT / "pyproject.toml").read_bytes() + bytes(ROOT)
    folder = shared / hashlib.sha256(texts + sys.version.encode()).hexdigest()[:12]
    with _locked(shared / "lock"):
        if not (folder / "complete").exists():
            _install(folder)
            (folder / "complete").touch()
    return folder / "bin/python"


@pytest.fixture(scope="session")
def results(interpreter: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return a function that gives the results of a subject: by row and size. Each subject runs once."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    @functools.cache
    def run(subject: str) -> dict[tuple[str, str], Any]:
        found = shared / f"libraries-{subject}.jsonl"
        with _locked(shared / f"libraries-{subject}.lock"):
            if not found.exists():
                environment = {**os.environ, "PYTHONPATH": str(ROOT), "AZURITE": str(interpreter.parent.parent)}
                environment.pop("PYTEST_CURRENT_TEST", None)
                command = [str(interpreter), "-m", "tests.libraries.driver", subject, f"{found}.part"]
                subprocess.run(command, check=True, env=environment, cwd=base)
                Path(f"{found}.part").rename(found)
        seen = [json.loads(line) for line in found.read_text().splitlines()]
        return {(one["row"], one["of"]): one for one in seen}

    return run
