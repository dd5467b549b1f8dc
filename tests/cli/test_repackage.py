"""`--repackage`: Opus of a browser is checked, uploaded and sent as a voice note."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from meta_media import repackage
from tests.support.shell import Shell, lines, words_of

MEDIA = Path(__file__).parents[1] / "media"
RECORDINGS = ["voice.webm", "voice.mp4", "stereo.ogg"]


@pytest.fixture(autouse=True)
def recordings(shell: Shell) -> None:
    """Copy the recordings into the folder of the shell."""
    for name in RECORDINGS:
        shutil.copy(MEDIA / name, shell.folder)


def test_check(shell: Shell) -> None:
    """Without it a recording is refused by a sentence that names it; with it, the voice note is judged."""
    done = shell.run("check", *RECORDINGS)
    assert done.returncode == 1
    assert [b"pass --repackage" in line for line in done.stdout.splitlines()] == [True] * 3
    done = shell.run("check", "--repackage", "--json", *RECORDINGS, "--mime-type", "audio/webm")
    assert done.returncode == 0
    for name, verdict in zip(RECORDINGS, lines(done.stdout), strict=True):
        assert (verdict["file"], verdict["mime_type"], verdict["limit"]) == (name, "audio/ogg", 16 * 2**20)
        assert verdict["size"] == len(b"".join(repackage((MEDIA / name).read_bytes())))


def test_upload_and_send(shell: Shell) -> None:
    """`upload` and `send` send the voice note, also from standard input and into a library."""
    note = hashlib.sha256(b"".join(repackage((MEDIA / "voice.webm").read_bytes()))).hexdigest()
    ids = words_of(shell.run("upload", "--repackage", "voice.webm", "voice.mp4"))
    ids += words_of(shell.run("upload", "--repackage", "-", stdin=(MEDIA / "voice.webm").read_bytes()))
    ids += words_of(shell.run("upload", "--repackage", "--reuse", "voice.webm"))
    assert shell.stored([ids[0], *ids[2:]]) == [note] * 3
    assert shell.run("send", "voice.webm", "--to", "+15550001111").returncode == 1
    done = shell.run("send", "voice.webm", "--to", "+15550001111", "--voice", "--repackage")
    assert (done.returncode, len(words_of(done))) == (0, 1)
