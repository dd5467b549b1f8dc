"""Do what heyoo can do with each file of a folder, and print a line of JSON for each: `python heyoo_tour.py FOLDER`."""

from __future__ import annotations

import hashlib
import importlib
import json
import mimetypes
import os
import sys
from pathlib import Path
from typing import Any, Final

_KINDS: Final = {".jpg": "image", ".ogg": "audio", ".mp4": "video", ".pdf": "document", ".webp": "sticker"}
mimetypes.add_type("image/webp", ".webp")  # not in every Python's table


def lead() -> None:
    """Let connections to Meta's host go to the port EMULATOR_PORT of this machine. The client is as published."""
    connections: Any = importlib.import_module("urllib3.util.connection")
    connect = connections.create_connection

    def create_connection(address: tuple[str, int], *given: Any, **more: Any) -> Any:
        here = ("127.0.0.1", int(os.environ["EMULATOR_PORT"]))
        return connect(here if address[0] == "graph.facebook.com" else address, *given, **more)

    connections.create_connection = create_connection


def tour(api: Any, path: Path) -> dict[str, Any]:
    """Upload a file, get its URL, download it, send it, and delete it."""
    kind, to = _KINDS[path.suffix], "15550001111"
    uploaded = api.upload_media(str(path))
    if uploaded is None:
        return {"error": "not uploaded"}
    media_id = uploaded["id"]
    url = api.query_media_url(media_id)
    copy = Path(api.download_media(url, mimetypes.guess_type(path)[0], str(path.parents[1] / "copy")))
    sent = getattr(api, f"send_{kind}")(media_id, to, link=False)
    return {
        "id": media_id,
        "url": url,
        "sha256": hashlib.sha256(copy.read_bytes()).hexdigest(),
        "message": sent["messages"][0]["id"] if "messages" in sent else json.dumps(sent),
        "removed": api.delete_media(media_id)["success"],
        "gone": "found" if api.query_media_url(media_id) else "does not exist",
    }


if __name__ == "__main__":
    lead()
    api = importlib.import_module("heyoo").WhatsApp(os.environ["ACCESS_TOKEN"], os.environ["PHONE_NUMBER_ID"])
    for path in Path(sys.argv[1]).iterdir():
        print(json.dumps({"name": path.name} | tour(api, path)))  # noqa: T201  it is read by the test
