"""
Clients of WhatsApp that others wrote do all that they can do with media against the emulator, as they are published.

They speak https to graph.facebook.com, and have no setting for another host. The emulator has that name in its certificate and
in its URLs; a hook in the process of the client leads connections to it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from meta_media import samples
from meta_media.emulator import Emulator

pytestmark = [pytest.mark.libraries, pytest.mark.timeout(1800)]

HERE = Path(__file__).parent / "clients"
KINDS = {
    "photo.jpg": "image",
    "note.ogg": "audio",
    "clip.mp4": "video",
    "report.pdf": "document",
    "sticker.webp": "sticker",
}
FILES = {path.name: path for path in samples.paths() if path.name in KINDS}
NODE = ("whatsapp-api-js", "@kapso/whatsapp-cloud-api", "whatsapp-business")


def command(client: str, folder: Path, interpreter: Path) -> list[str]:
    """Return the command that tours a client; skip without Node, except in CI."""
    if client not in NODE:
        return [str(interpreter), str(HERE / f"{client}_tour.py"), str(folder)]
    if not shutil.which("node") or not (interpreter.parents[1] / "node_modules" / client).exists():
        why = f"node and npm could not install {client} (Debian: apt-get install npm)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    return ["node", "--require", str(HERE / "lead.cjs"), str(HERE / "tour.mjs"), client, str(folder)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one file of each kind."""
    (tmp_path / "files").mkdir()
    for path in FILES.values():
        shutil.copy(path, tmp_path / "files")
    return tmp_path / "files"


@pytest.mark.parametrize("client", [*NODE, "heyoo"])
async def test_every_media_operation(client: str, interpreter: Path, folder: Path) -> None:
    """It uploads, looks up, downloads, sends and deletes each kind; a deleted id is gone, in the client's own words."""
    async with Emulator(tls=True, url="https://graph.facebook.com") as emulator:
        variables = {
            "ACCESS_TOKEN": emulator.access_token,
            "PHONE_NUMBER_ID": emulator.phone_number_id,
            "EMULATOR_PORT": emulator.local_url.rpartition(":")[2],
            "NODE_MODULES": str(interpreter.parents[1] / "node_modules"),
            **dict.fromkeys(("NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"), str(emulator.ca_file)),
        }
        process = await asyncio.create_subprocess_exec(
            *command(client, folder, interpreter), stdout=asyncio.subprocess.PIPE, env=os.environ | variables
        )
        output, _ = await process.communicate()
        sent = [(message["type"], message[message["type"]]["id"]) for message in emulator.messages]
    assert process.returncode == 0
    seen = {line["name"]: line for line in map(json.loads, output.splitlines())}
    assert seen.keys() == KINDS.keys()
    for name, kind in KINDS.items():
        one = seen[name]
        assert "error" not in one, one["error"]
        assert one["url"].startswith("https://graph.facebook.com/")
        assert one["sha256"] == hashlib.sha256(FILES[name].read_bytes()).hexdigest()
        assert one["message"].startswith("wamid."), one["message"]
        assert (kind, one["id"]) in sent
        assert one["removed"] is True
        assert any(word in one["gone"] for word in ("does not exist", "Invalid parameter")), one["gone"]
