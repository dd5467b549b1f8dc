"""The house itself: which room stands on which floor, what it may import, and how large anything may grow."""

from __future__ import annotations

import ast
import graphlib
import importlib
import importlib.util
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import meta_media
from meta_media import errors

HOUSE = Path(meta_media.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))

# README, "Architecture". A package is one room; the root is where api is handed out.
FLOORS = (
    {"_version", "codes", "entries", "errors", "filenames", "media_types", "models", "multipart", "outcomes"}
    | {"settings", "signatures", "webhooks", "wire"},
    {
        "addresses",
        "bodies",
        "caught",
        "clocks",
        "connections",
        "databases",
        "destinations",
        "drafts",
        "exchange",
        "failures",
        "feeds",
        "files",
        "guard",
        "http",
        "journals",
        "lanes",
        "logs",
        "network",
        "pacing",
        "progress",
        "proxies",
        "replies",
        "retries",
        "sources",
        "transport",
    },
    {"bulk", "downloads", "identities", "jobs", "lookups", "messages", "origins", "stores", "uploads"},
    {"__init__", "api", "client", "library"},
    {"__main__", "cli", "emulator", "integrations", "samples", "testing"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
CORE = sorted(room for room, floor in FLOOR_OF.items() if floor <= 3)
DEPENDENCIES = {"aiofiles", "anyio", "attrs", "attr", "cattrs", "h11", "httpx"}
IMPURE = {
    "aiofiles",
    "anyio",
    "asyncio",
    "concurrent",
    "h11",
    "httpx",
    "io",
    "selectors",
    "socket",
    "sqlite3",
    "ssl",
} | {
    "subprocess",
    "tempfile",
    "threading",
}
EXTRAS = {"cyclopts", "pydantic", "pytest", "python_multipart", "redis", "rich", "starlette", "taskiq", "uvicorn"}
LAZY = {"cattrs", "h11", "httpx", "sqlite3"}  # imported on a thread, at first need


def room_of(file: Path) -> str:
    """Name the room that a file belongs to."""
    return file.relative_to(HOUSE).parts[0].removesuffix(".py")


def imports_of(file: Path) -> Iterator[str]:
    """List the modules that a file imports anywhere, by absolute name; what is imported from the root with its name."""
    package = ".".join(("meta_media", *file.relative_to(HOUSE).parts[:-1]))
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" if module == "meta_media" else module for alias in node.names)


def rooms_entered(file: Path) -> Iterator[str]:
    """List the rooms of this house that a file imports from, its own excepted."""
    for name in imports_of(file):
        house, _, room = name.partition(".")
        if house == "meta_media":
            found = room.partition(".")[0]
            entered = found if found in FLOOR_OF else "__init__"
            if entered != room_of(file):
                yield entered


def strangers(file: Path) -> set[str]:
    """List the top-level packages of others that a file imports."""
    return {name.partition(".")[0] for name in imports_of(file)} - {"meta_media"}


def name_of(file: Path) -> str:
    """Show a file in a test's name."""
    return str(file.relative_to(HOUSE))


def test_every_room_has_a_floor() -> None:
    """No file or package is outside the plan, and the plan has no room that was torn down."""
    assert {room_of(file) for file in FILES} == set(FLOOR_OF)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_arrows_point_down(file: Path) -> None:
    """No room imports from a floor above its own."""
    floor = FLOOR_OF[room_of(file)]

    assert [room for room in rooms_entered(file) if FLOOR_OF[room] > floor] == []


def test_no_circles() -> None:
    """No two rooms need each other, also not on one floor and not inside a function."""
    graph: dict[str, set[str]] = {}
    for file in FILES:
        graph.setdefault(room_of(file), set()).update(rooms_entered(file))

    assert set(graphlib.TopologicalSorter(graph).static_order()) == set(FLOOR_OF)


@pytest.mark.parametrize("room", sorted(FLOORS[0]))
def test_ground_floor_is_pure(room: str) -> None:
    """Floor 0 decides and does nothing: no HTTP, no event loop, no files, sockets or threads, not even for a type."""
    assert strangers(HOUSE / f"{room}.py") & IMPURE == set()


@pytest.mark.parametrize("file", [file for file in FILES if room_of(file) in CORE], ids=name_of)
def test_core_needs_only_its_dependencies(file: Path) -> None:
    """Floors 0 to 3 import the standard library and what is always installed; one store imports what it is named after."""
    extra = {"redis"} if file.parts[-2:] == ("stores", "redis.py") else set()
    assert strangers(file) - sys.stdlib_module_names - DEPENDENCIES == extra


def test_errors_stand_alone() -> None:
    """The errors import nothing but typing: everybody can use them and nobody can break them."""
    assert set(imports_of(HOUSE / "errors.py")) == {"__future__", "typing"}


def test_only_the_sending_rooms_know_httpx() -> None:
    """Outside the rooms that connect and send, httpx is no more than the type of what a caller passes in."""
    at_run_time = {
        room_of(file)
        for file in FILES
        if room_of(file) in CORE
        for node in ast.parse(file.read_bytes()).body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        for inner in ast.walk(node)
        if isinstance(inner, ast.Import) and any(alias.name.startswith("httpx") for alias in inner.names)
    }

    assert at_run_time <= {"clocks", "connections", "exchange", "network", "proxies", "transport"}


def test_import_is_light() -> None:
    """A fresh `import meta_media` warns of nothing and loads no extra, and nothing that is imported at first need."""
    program = "import sys, meta_media; print(*{name.partition('.')[0] for name in sys.modules})"
    # Coverage, where it measures, loads sqlite3.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=plain)

    assert done.stderr == ""
    assert set(done.stdout.split()) & (EXTRAS | LAZY) == set()
    assert "meta_media" in done.stdout.split()


@pytest.mark.parametrize("room", [room for room in CORE if room != "_version"])
def test_rooms_say_what_they_hand_out(room: str) -> None:
    """Every room has an `__all__` of names that exist, each once."""
    module = importlib.import_module("meta_media" if room == "__init__" else f"meta_media.{room}")

    assert sorted(module.__all__) == sorted(set(module.__all__) & set(vars(module)))


@pytest.mark.parametrize("module", [meta_media, errors], ids=lambda module: module.__name__)
def test_public_names_are_listed(module: ModuleType) -> None:
    """The root's and the errors' `__all__` is sorted and names every public class and function, and nothing else."""
    public = {
        name
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith("meta_media")
    }

    assert module.__all__ == sorted(public | ({"__version__"} & set(vars(module))))


def test_root_stays_small() -> None:
    """The root has at most 25 names, so that its documentation fits in a head."""
    assert len(meta_media.__all__) <= 25


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_stay_short(file: Path) -> None:
    """No file has more than 350 lines."""
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 350


def bodies(file: Path) -> Iterator[tuple[str, int]]:
    """Count the lines of every function's body, without its docstring."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            if body:
                yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_functions_stay_short(file: Path) -> None:
    """No function's body has more than 40 lines."""
    assert [(name, lines) for name, lines in bodies(file) if lines > 40] == []
