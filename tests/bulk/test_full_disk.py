"""Disks that become full while a run goes on."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.bulk.journal_helpers import FULL, PHOTO, REFUSED, library, numbered
from tests.support.servers import Server, json_response
from tests.support.system import unshared


def item(body: bytes) -> int:
    """Tell which item an upload is of."""
    found = re.search(rb"This is item ([0-9]+)\.", body)
    assert found
    return int(found[1])


async def full_at(moment: str, folder: Path, *script: Any) -> tuple[list[dict[str, Any]], list[int]]:
    """Run in a process whose disk becomes full at a moment; return its outcomes, and the items in the order they were sent."""
    mount = 'mount -t tmpfs -o size=400k tmpfs "$1" && shift && exec "$@"'
    command = [*unshared(("-rm",), ("-m",)), "sh", "-c", mount, "sh", str(folder)]
    async with Server(*script) as server:
        if moment == "download":
            server.script = [library(server, PHOTO * 100)]
        order = {"folder": str(folder), "moment": moment, "base_url": server.base_url}
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = await anyio.run_process(
            [*command, sys.executable, str(FULL), json.dumps(order)], env=environment, stderr=None
        )
        return json.loads(done.stdout), [item(request.body) for request in server.requests if request.body]


def kinds(run: dict[str, Any]) -> list[Any]:
    """Say of each item what came of it."""
    return ["not tried" if not outcome["tried"] else outcome["error"] for outcome in run["outcomes"]]


async def test_full_when_an_upload_is_noted(tmp_path: Path) -> None:
    """An upload that cannot be noted as done ends the run; its error has the media id, and the next run flags it."""
    (first, second), sent = await full_at("done", tmp_path, numbered())
    assert kinds(first) == [None] * 4 + ["StorageError"] + ["not tried"] * 7
    failed = first["outcomes"][4]
    assert (failed["media_id"], failed["maybe_applied"], failed["attempts"]) == ("104", True, 1)
    assert failed["message"].endswith("failed: database or disk is full")
    assert (first["ended by"], first["integrity"]) == ("StorageError", "ok")
    assert kinds(second) == [None] * 12
    assert [outcome["skipped"] for outcome in second["outcomes"]] == [True] * 4 + [False] * 8
    assert [outcome["duplicate"] for outcome in second["outcomes"]] == [False] * 4 + [True] + [False] * 7
    assert sent == [*range(5), *range(4, 12)]


@pytest.mark.slow
async def test_full_when_an_upload_is_begun(tmp_path: Path) -> None:
    """An upload that cannot be noted as begun is not sent, and ends the run: none of the others could be, either."""
    (first, second), sent = await full_at("begin", tmp_path, numbered())
    assert kinds(first) == [None] * 4 + ["StorageError"] + ["not tried"] * 7
    failed = first["outcomes"][4]
    assert (failed["media_id"], failed["maybe_applied"], failed["attempts"]) == (None, False, 0)
    assert (first["ended by"], first["integrity"]) == ("StorageError", "ok")
    assert kinds(second) == [None] * 12
    assert [outcome["duplicate"] for outcome in second["outcomes"]] == [False] * 12
    assert sent == list(range(12))


@pytest.mark.slow
async def test_full_when_a_failure_is_noted(tmp_path: Path) -> None:
    """If it cannot be noted that nothing came of an upload, the run ends as well, and the next one flags it."""
    steps = [json_response({"id": str(number)}) for number in range(100, 112)]
    steps[4] = REFUSED
    (first, second), _ = await full_at("undo", tmp_path, *steps)
    assert kinds(first)[:4] == [None] * 4
    assert kinds(first)[4] in {"StorageError", "InvalidRequestError"}
    assert kinds(first)[5:] == ["not tried"] * 7
    assert first["integrity"] == "ok"
    assert [outcome["duplicate"] for outcome in second["outcomes"]] == [False] * 4 + [True] + [False] * 7


@pytest.mark.slow
async def test_full_while_downloads_are_made(tmp_path: Path) -> None:
    """A disk that is full ends a run of downloads: what there was room for is there, the rest was not tried."""
    (run,), _ = await full_at("download", tmp_path)
    assert run["ended by"] == "StorageError"
    assert kinds(run) == [None] * 5 + ["StorageError"] + ["not tried"] * 6
