"""
Each extra alone: a project outside of the repository installs the wheel with it, and does what the guide of the extra shows.

    python .ci/extras.py WHEEL UV
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from meta_media import samples  # noqa: E402 - the repository's own
from tests.support.redis_server import running_redis  # noqa: E402 - likewise
from tests.test_readme import serving  # noqa: E402 - likewise

OURS: Final = {"bench", "dev"}  # extras that are for this repository
BROUGHT: Final = {  # packages that a guide leaves to its reader
    "otel": ["opentelemetry-sdk"],
    "starlette": ["fastapi", "httpx2", "python-multipart"],
}
RUN: Final = """
import anyio, ast, inspect
code = compile(open("example.py", encoding="utf-8").read(), "example.py", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
names = {"__name__": "example"}
if code.co_flags & inspect.CO_COROUTINE:
    anyio.run(lambda: eval(code, names))
else:
    exec(code, names)
"""
GUIDES: Final = sorted(ROOT.glob("meta_media/**/README.md"))


def blocks(language: str, text: str) -> list[str]:
    """Return the blocks of one language in a text."""
    found = re.finditer(rf"^```{language}\n(?P<code>.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block["code"] for block in found]


def program(extra: str) -> str:
    """Return the examples of the section that says how an extra is installed, or else the first of its guide."""
    for guide in GUIDES:
        for section in re.split(r"^(?=## )", guide.read_text("utf-8"), flags=re.MULTILINE):
            if re.search(rf"`\[{extra}\]`|pip install '\.\[{extra}[\],]", section):
                found = blocks("python( continuation)?", section) or blocks("python", guide.read_text("utf-8"))[:1]
                alone = [block for block in found if extra == "emulator" or "meta_media.emulator" not in block]
                return "\n".join(alone)
    raise SystemExit(f"no guide says how to install the extra {extra!r}")


def sample(extra: str, folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Write the sample project of an extra; return its command, whose program is one of the project's environment."""
    if extra == "cli":
        return ["meta-media", "demo"]
    if extra == "testing":
        guide = (ROOT / "meta_media" / "emulator" / "README.md").read_text("utf-8")
        [tests] = [block for block in blocks("python notest", guide) if "async def test_expiry" in block]
        head = "import pytest\nfrom meta_media.errors import MediaNotFoundError\npytestmark = pytest.mark.anyio\n"
        (folder / "test_sample.py").write_text(head + tests[tests.index("async def test_expiry") :])
        return ["pytest", "-q"]
    source = program(extra)
    if extra == "redis":
        source = source.replace('SQLiteStore("library.sqlite")', f"RedisStore({environment['REDIS_URL']!r})")
        source = source.replace("SQLiteStore", "RedisStore")
    (folder / "example.py").write_text(source, "utf-8")
    return ["python", "-c", RUN]


def try_alone(extra: str, wheel: str, uv: str, environment: Mapping[str, str]) -> None:
    """Install the wheel with an extra into an environment of its own, and run the sample project there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in samples.paths():
            (folder / path.name).write_bytes(path.read_bytes())
        command = sample(extra, folder, environment)
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, "env"], cwd=folder, check=True)
        python = str(folder / "env" / "bin" / "python")
        packages = [f"meta-media[{extra}] @ file://{wheel}", *BROUGHT.get(extra, [])]
        subprocess.run([uv, "pip", "install", "-q", "--python", python, *packages], cwd=folder, check=True)
        program_path = str(folder / "env" / "bin" / command[0])
        plain = {name: value for name, value in environment.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        subprocess.run([program_path, *command[1:]], cwd=folder, env=plain, check=True, stdout=subprocess.DEVNULL)


def main(wheel: str, uv: str) -> None:
    """Try all extras, one after the other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with tempfile.TemporaryDirectory() as data, running_redis() as redis, serving(Path(data, "media"), 0) as variables:
        environment = os.environ | variables | {"REDIS_URL": redis.url}
        for extra in sorted(project["optional-dependencies"].keys() - OURS):
            began = time.monotonic()
            try_alone(extra, str(Path(wheel).resolve()), uv, environment)
            print(f"[{extra}] alone does what its guide shows: {time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
