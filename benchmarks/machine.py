"""Where and with what a run was made: figures mean nothing without it."""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
import ssl
import subprocess
from importlib import metadata
from pathlib import Path

import psutil

LIBRARIES = [
    "meta-media",
    "httpx",
    "httpcore",
    "h11",
    "httpx2",
    "httpcore2",
    "aiohttp",
    "pywa",
    "anyio",
    "aiofiles",
    "attrs",
    "cattrs",
]


def describe() -> dict[str, object]:
    """Return what the report says of the machine, its Python and its libraries; no name, address or path."""
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "processors": os.cpu_count() or 1,
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "openssl": ssl.OPENSSL_VERSION,
        "curl": _curl(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _curl() -> str | None:
    if shutil.which("curl") is None:
        return None
    said = subprocess.run(["curl", "--version"], capture_output=True, text=True, timeout=30, check=False)
    return " ".join(said.stdout.split()[:2])
