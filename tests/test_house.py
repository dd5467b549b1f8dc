"""The package as a whole: what an import loads, which names are public, how large a file or a function may be."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import meta_media
from meta_media import errors

HOUSE = Path(meta_media.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))

EXTRAS = {
    "cyclopts",
    "obstore",
    "opentelemetry",
    "pydantic",
    "pytest",
    "python_multipart",
    "redis",
    "rich",
    "starlette",
    "taskiq",
    "trustme",
    "uvicorn",
}
LAZY = {"cattrs", "h11", "httpx", "sqlite3"}  # imported on a thread, at first need
CORE = ("protocol", "http", "transfer", "bulk", "library", "integrations")


def modules() -> list[str]:
    """Name the modules of the core rooms."""
    files = [file for file in FILES if file.relative_to(HOUSE).parts[0] in CORE and file.name != "__init__.py"]
    return [".".join(("meta_media", *file.relative_to(HOUSE).with_suffix("").parts)) for file in files]


def name_of(file: Path) -> str:
    """Show a file in a test's name."""
    return str(file.relative_to(HOUSE))


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


@pytest.mark.parametrize("name", ["meta_media", "meta_media.api", "meta_media.errors", *modules()])
def test_modules_list_their_public_names(name: str) -> None:
    """Every module of the core has an `__all__` of names that exist, each once."""
    module = importlib.import_module(name)
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
    """The root has at most 33 names, so that its documentation fits in a head."""
    assert len(meta_media.__all__) <= 33


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


VAGUE = re.compile(r"\b(whoever|whomever|nobody|somebody|so many|said to be|of ours)\b", re.IGNORECASE)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_docstrings_are_plain(file: Path) -> None:
    """No docstring has one of the phrases that make a sentence hard to follow."""
    nodes = ast.walk(ast.parse(file.read_bytes()))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node, clean=False) or "" for node in nodes if isinstance(node, documented)]
    assert [found for text in docstrings for found in VAGUE.findall(text)] == []


def test_hints_name_extras_that_exist() -> None:
    """A sentence that says what to install names an extra of this project, and no package of an index."""
    extras = tomllib.loads((HOUSE.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    hints = [hint for file in FILES for hint in re.findall(r"pip install [^)]{,40}", file.read_text())]
    named = [re.match(r"pip install '\.\[(\w+)\]' in a checkout", hint) for hint in hints]
    assert (
        {match and match[1] for match in named}
        == {"cli", "emulator", "otel", "redis", "starlette", "storage", "taskiq"}
        <= set(extras)
    )
