"""The logger `meta_media`: what `META_MEDIA_LOG` shows of it in any program."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys
if "configured" in sys.argv:
    logging.basicConfig(format="theirs: %(message)s")
import meta_media
log = logging.getLogger("meta_media")
log.debug("a detail")
log.info("again")
log.warning("warned")
assert logging.getLogger().level == logging.WARNING and len(logging.getLogger().handlers) == len(sys.argv) - 1
"""


@pytest.mark.parametrize(
    ("variable", "configured", "expected"),
    [
        (None, False, ["warned"]),
        (
            "debug",
            False,
            ["TIME DEBUG meta_media: a detail", "TIME INFO meta_media: again", "TIME WARNING meta_media: warned"],
        ),
        ("INFO", False, ["TIME INFO meta_media: again", "TIME WARNING meta_media: warned"]),
        ("debug", True, ["theirs: a detail", "theirs: again", "theirs: warned"]),
        ("all", True, ["theirs: warned"]),
    ],
)
def test_the_variable(variable: str | None, configured: bool, expected: list[str]) -> None:
    """META_MEDIA_LOG shows the log on standard error, or in the program's own, once; the root logger stays as it was."""
    command = [sys.executable, "-c", PROGRAM, *(["configured"] if configured else [])]
    chosen = {} if variable is None else {"META_MEDIA_LOG": variable}
    done = subprocess.run(command, env=os.environ | chosen, capture_output=True, check=True)
    lines = re.sub(r"^[-0-9]+ [0-9:,]+", "TIME", done.stderr.decode(), flags=re.MULTILINE)
    assert (lines.splitlines(), done.stdout) == (expected, b"")
