"""Limits and namespaces of the operating system."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator

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
    reason = f"this system allows no unshare {' or '.join(' '.join(options) for options in wanted)}"
    if os.environ.get("CI"):  # where everything must be checked
        pytest.fail(reason)
    pytest.skip(reason)
