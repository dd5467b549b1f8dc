"""Limits and namespaces of the operating system."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from typing import NoReturn

import pytest


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let the system refuse every larger file of this process, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def unshared(*wanted: tuple[str, ...]) -> list[str]:
    """Return the first of these ways into a namespace of one's own that this system allows."""
    for options in wanted:
        command = ["unshare", *options]
        with contextlib.suppress(FileNotFoundError):
            if subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0:
                return command
    return unavailable(f"this system allows no unshare {' or '.join(' '.join(options) for options in wanted)}")


def unavailable(reason: str) -> NoReturn:
    """Skip the test, or fail it if the variable CI is set: there, everything must be checked."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def executable(name: str, *folders: str) -> str:
    """Find a program, in these folders or on the PATH, in a package of Debian's of the same name; see `unavailable`."""
    found = [path for folder in (*folders, None) if (path := shutil.which(name, path=folder))]
    return found[0] if found else unavailable(f"there is no {name} (Debian: apt-get install {name})")


def free_port() -> int:
    """
    Return a port that is free now, for a server that binds it later.

    It is below those that the system gives to connections and to servers that bind port 0, of which other tests start many.
    """
    while True:
        port = 10_000 + secrets.randbelow(22_000)  # not of `random`, which pytest-randomly seeds alike in each process
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
