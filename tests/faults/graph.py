"""What a correct server knows and answers: a small Graph API, and the requests that it has received."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from typing import Any

import attrs


@attrs.define(kw_only=True)
class Seen:
    """A request whose head has come."""

    method: str
    target: str  # path and query
    headers: Mapping[str, str]  # with names in lower case
    body: bytearray = attrs.field(factory=bytearray)  # what was taken of it
    came_at: float = attrs.field(factory=time.monotonic)  # when its head had come

    @property
    def length(self) -> int:
        """Bytes of body that it announced."""
        return int(self.headers.get("content-length", "0"))

    @property
    def whole(self) -> bool:
        """Whether all of its body has been taken."""
        return len(self.body) >= self.length

    @property
    def media_id(self) -> str:
        """The last part of its path."""
        return self.target.partition("?")[0].rpartition("/")[2]

    @property
    def secrets(self) -> set[str]:
        """The token and the values in the query."""
        values = {pair.partition("=")[2] for pair in self.target.partition("?")[2].split("&")}
        return {value for value in values if len(value) > 7} | {self.headers.get("authorization", "").split(" ")[-1]}


class Graph:
    """A small Graph API that responds correctly."""

    def __init__(self, content: bytes) -> None:
        self.content = content  # of every media
        self.stored: list[bytes] = []  # uploaded files
        self.deleted: set[str] = set()  # media ids
        self.sent = 0  # messages
        self.promises: set[str] = {"sha256", "file_size"}  # what it states of its media
        self.headers: dict[str, str] = {}  # of served media, beside their type

    def facts(self, base_url: str, media_id: str) -> dict[str, Any]:
        """Tell what is known of a media."""
        content = self.content_of(media_id)
        known = {"sha256": hashlib.sha256(content).hexdigest(), "file_size": len(content)}
        promised = {name: value for name, value in known.items() if name in self.promises}
        url = f"{base_url}/media/{media_id}?hash=SIGNATURE&ext=4102444800"
        return {"messaging_product": "whatsapp", "id": media_id, "url": url, "mime_type": "image/jpeg", **promised}

    def content_of(self, media_id: str) -> bytes:
        """Return the bytes of a media."""
        return self.stored[-1] if self.stored else self.content

    def served(self, media_id: str) -> bytes:
        """Return the bytes that are downloaded as a media, whatever was uploaded."""
        return self.content

    def id_of(self, stored: bytes) -> str:
        """Return the media id of what is uploaded."""
        return "7"

    def answer(self, request: Seen, base_url: str, *, applies: bool) -> tuple[int, dict[str, str], bytes]:
        """Do what a request asks, and answer it."""
        path = request.target.partition("?")[0]
        media_id = request.media_id
        if request.method == "POST":
            return self._posted(request, path, applies=applies)
        if request.method == "DELETE":
            if media_id in self.deleted:
                return json_response(
                    graph_error({"code": 100, "error_subcode": 33, "type": "GraphMethodException"}), 400
                )
            self.deleted |= {media_id} if applies else set()
            return json_response({"success": True})
        if path.startswith("/media/"):
            return 200, {"content-type": "image/jpeg", **self.headers}, self.served(media_id)
        return json_response(self.facts(base_url, media_id))

    def _posted(self, request: Seen, path: str, *, applies: bool) -> tuple[int, dict[str, str], bytes]:
        if path.endswith("/messages"):
            self.sent += applies
            return json_response({"messaging_product": "whatsapp", "messages": [{"id": "wamid.7"}]})
        if not applies:
            return json_response({"id": "7"})
        self.stored.append(_file_of(request))
        return json_response({"id": self.id_of(self.stored[-1])})


def _file_of(request: Seen) -> bytes:
    """Take the file out of a form, by a reader of its own."""
    boundary = re.search(r"boundary=(\S+)", request.headers["content-type"])
    assert boundary is not None
    mark = b"--" + boundary[1].strip('"').encode()
    parts = bytes(request.body).split(mark)
    assert parts[-1].strip() == b"--", "the form has no end"
    (file,) = (part for part in parts if b'name="file"' in part.partition(b"\r\n\r\n")[0])
    return file.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")


def graph_error(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return an error of the Graph API."""
    facts = {"message": "scripted", "type": "OAuthException", "fbtrace_id": "AbScriptedTrace"} | dict(changes)
    return {"error": facts}


def json_response(value: object, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a JSON response."""
    return status, {"content-type": "application/json"}, json.dumps(value).encode()
