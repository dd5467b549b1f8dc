"""
Mutation testing of the rooms that keep bytes, tokens and files safe; on demand, because it takes hours.

    pip install cosmic-ray
    python tests/mutation/run.py                    # all rooms of rooms.toml
    python tests/mutation/run.py pacing drafts      # some of them

Each room's code is changed in one place at a time, in a copy of the repository, and its tests run until the first fails.
What no test notices has survived: it is printed as a diff, with a count of each room's, and belongs either killed by a new
test or into README.md with its reason.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import functools
import importlib
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

import attrs

REPOSITORY: Final = Path(__file__).resolve().parents[2]
IGNORED: Final = shutil.ignore_patterns(".*", "__pycache__", "benchmarks")
AT_ONCE: Final = 2  # rooms
MUTANT_SECONDS: Final = 300  # for a file: what spins without an await is not stopped by its own timeout
WARM: Final = (  # what tests import that is not ours, once for all mutants; only pytest-randomly's list of plugins stays cold
    "pytest",
    "aiohttp",
    "anyio._backends._asyncio",
    "anyio.pytest_plugin",
    "blockbuster",
    "cattrs",
    "httpx",
    "hypothesis.strategies",
    "pytest_markdown_docs.plugin",
    "pytest_timeout",
    "starlette.testclient",
    "uvicorn.protocols.http.h11_impl",
)

# One operator becomes one or two others: what no test tells from these, no test tells from the rest of them either.
REPLACED: Final = {
    "BinaryOperator": {"Add": "Sub", "Sub": "Add", "Mul": "Div", "Div": "Mul", "Pow": "Mul", "BitOr": "BitAnd", "BitAnd": "BitOr"},
    "ComparisonOperator": {
        "Eq": "NotEq",
        "NotEq": "Eq",
        "Lt": "LtE GtE",
        "LtE": "Lt Gt",
        "Gt": "GtE LtE",
        "GtE": "Gt Lt",
        "Is": "IsNot",
        "IsNot": "Is",
    },
}  # fmt: skip
OPERATORS: Final = [
    *(f"core/Replace{kind}_{old}_{new}" for kind, all_of in REPLACED.items() for old in all_of for new in all_of[old].split()),
    "core/ReplaceUnaryOperator_Delete_Not",
    "core/ReplaceUnaryOperator_USub_UAdd",
    "core/AddNot",
    "core/ReplaceTrueWithFalse",
    "core/ReplaceFalseWithTrue",
    "core/ReplaceAndWithOr",
    "core/ReplaceOrWithAnd",
    "core/ReplaceBreakWithContinue",
    "core/ExceptionReplacer",
    "core/NumberReplacer",
    "core/RemoveDecorator",
    "core/ZeroIterationForLoop",
    "ours/DropStatement",
    "ours/DropKeyword",
    "ours/SwapIn",
]  # fmt: skip


class _Operator:
    """What Cosmic Ray asks of an operator: at most one change of a node of parso's."""

    @staticmethod
    def arguments() -> Sequence[object]:
        """It has none."""
        return ()

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """Say where the node would change."""
        if self.applies(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, _: int) -> Any:
        """Change it."""
        tree = importlib.import_module("parso.python.tree")
        return tree.Name(self.instead(node), node.start_pos, prefix=node.get_first_leaf().prefix)

    def applies(self, node: Any) -> bool:
        """Tell whether it changes such a node."""
        raise NotImplementedError

    def instead(self, node: Any) -> str:
        """Write what stands there then."""
        raise NotImplementedError


class DropStatement(_Operator):
    """Leaves out a call, an `await`, a `raise`, or what changes an attribute or a count."""

    def applies(self, node: Any) -> bool:
        """Tell whether it changes such a node."""
        if node.parent is None or node.parent.type != "simple_stmt":
            return False
        if node.type == "expr_stmt":
            return node.children[0].type == "atom_expr" or (
                node.children[1].type == "operator" and len(node.children[1].value) == 2
            )
        return node.type in {"atom_expr", "await_expr", "raise_stmt"}

    def instead(self, node: Any) -> str:
        """Write what stands there then."""
        return "pass"


class DropKeyword(_Operator):
    """Leaves out one `name=value` of a call."""

    def applies(self, node: Any) -> bool:
        """Tell whether it changes such a node."""
        return node.type == "argument" and len(node.children) == 3 and node.children[1] == "="

    def instead(self, node: Any) -> str:
        """Write what stands there then."""
        return "**{}"


class SwapIn(_Operator):
    """Turns `in` into `not in`, and the other way round."""

    def applies(self, node: Any) -> bool:
        """Tell whether it changes such a node."""
        return (
            node.parent is not None
            and node.parent.type == "comparison"
            and self._words(node) in (["in"], ["not", "in"])
        )

    def instead(self, node: Any) -> str:
        """Write what stands there then."""
        return "not in" if self._words(node) == ["in"] else "in"

    @staticmethod
    def _words(node: Any) -> list[str]:
        return str(node.get_code()).split()


OURS: Final = {kind.__name__: kind for kind in (DropStatement, DropKeyword, SwapIn)}


@attrs.frozen
class Room:
    """
    A piece of code and its tests.

    Attributes:
        module: Path of its file.
        tests: Names of test files.
        definitions: Classes and functions at the top of the file; none for all of it.
    """

    name: str
    module: str
    tests: list[str]
    definitions: list[str] = attrs.field(factory=list)

    def ranges(self, tree: ast.Module) -> list[tuple[int, int]]:
        """Return the lines of its code, from and to."""
        if not self.definitions:
            return [(1, sys.maxsize)]
        named = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found = {node.name: node for node in tree.body if isinstance(node, named)}
        nodes = [found[name] for name in self.definitions]  # a KeyError: rooms.toml is out of date
        return [(node.lineno, node.end_lineno or 0) for node in nodes]


def spans(nodes: Iterable[ast.AST | None]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Say from where to where pieces of code go."""
    present = [node for node in nodes if isinstance(node, ast.stmt | ast.expr)]
    return [((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)) for node in present]


def annotations_of(tree: ast.Module) -> Iterator[ast.expr | None]:
    """Yield what nobody evaluates, so that no test can tell it apart."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.returns
        elif isinstance(node, ast.arg | ast.AnnAssign):
            yield node.annotation


def mutants(room: Room, module: Path) -> Iterator[Any]:
    """Yield what is to be tried of a room; a number grows by one, but none of the constants that are a matter of taste."""
    source = module.read_text()
    tree = ast.parse(source)
    lines, unread = room.ranges(tree), spans(annotations_of(tree))
    constants = spans(node for node in tree.body if isinstance(node, ast.Assign | ast.AnnAssign))
    for item in importlib.import_module("cosmic_ray.commands.init")._all_work_items([module], {}):
        mutation = item.mutations[0]
        line, column = mutation.start_pos
        if mutation.operator_name not in OPERATORS or not any(first <= line <= last for first, last in lines):
            continue
        number = mutation.operator_name == "core/NumberReplacer"
        if number and (mutation.occurrence % 2 or any(start <= (line, column) < end for start, end in constants)):
            continue
        separator = source.splitlines()[line - 1][column:].startswith("*,")  # of a signature
        if not separator and not any(start <= (line, column) < end for start, end in unread):
            yield mutation


def tests_of(room: Room, copy: Path) -> list[str]:
    """Name a room's test files; one that does not exist yet is none."""
    return [f"tests/{name}.py" for name in room.tests if (copy / f"tests/{name}.py").exists()]


def test(copy: Path, file: str, seconds: float) -> None:
    """Run tests until the first of them fails, in a process of its own; its exit code says whether one did."""
    os.setsid()  # what the tests started goes with them
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)
    sys.path.insert(0, str(copy))
    with Path(os.devnull).open("r+b", buffering=0) as nothing:
        for standard in range(3):
            os.dup2(nothing.fileno(), standard)
    hypothesis, pytest = importlib.import_module("hypothesis"), importlib.import_module("pytest")
    hypothesis.settings.register_profile("hasty", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
    hypothesis.settings.load_profile("hasty")  # any counterexample will do, a large one, too
    options = [
        "-x",
        "-q",
        "--assert=plain",
        "--tb=no",
        f"--timeout={seconds}",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
    ]
    sys.exit(int(pytest.main([*options, "-p", "no:randomly", "-p", "no:cacheprovider", file])))


def survives(copy: Path, files: list[str], seconds: float) -> bool:
    """Tell whether all tests succeed in time, one file after the other."""
    return all(succeeds(copy, file, seconds) for file in files)


def succeeds(copy: Path, file: str, seconds: float) -> bool:
    """Tell whether a file's tests succeed in time."""
    process = multiprocessing.get_context("fork").Process(target=test, args=(copy, file, seconds))
    process.start()
    process.join(MUTANT_SECONDS)
    if process.exitcode is None:
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
    return process.exitcode == 0


def run(room: Room, folder: Path, only: str, seconds: float) -> str:
    """Try all of a room's mutants; return what there is to say of them."""
    mutating = importlib.import_module("cosmic_ray.mutating")
    copy = folder / room.name
    shutil.copytree(REPOSITORY, copy, ignore=IGNORED)
    files = tests_of(room, copy)
    if not survives(copy, files, seconds):
        return f"## {room.name}: its tests fail without any mutant"
    sys.dont_write_bytecode = True  # two mutants of a second and of a size would be taken for each other
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    tried, survivors = 0, list[str]()
    for mutation in mutants(room, copy / room.module):
        what = f"{room.module}:{mutation.start_pos[0]} {mutation.operator_name}"
        if not re.search(only, what):
            continue
        operator = importlib.import_module("cosmic_ray.plugins").get_operator(mutation.operator_name)()
        with mutating.use_mutation(mutation.module_path, operator, mutation.occurrence) as (before, after):
            survived = survives(copy, files, seconds)
        tried += 1
        if survived:
            changed = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "-+"]
            survivors.append("\n".join([what, *changed]))
        sys.stderr.write(f"{survivors[-1] if survived else f'{what} killed'}\n")
    share = 100 * (tried - len(survivors)) / max(tried, 1)
    return "\n".join([f"## {room.name}: {tried - len(survivors)} of {tried} killed ({share:.1f} %)", *survivors])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rooms that are named, or all."""
    with Path(__file__).with_name("rooms.toml").open("rb") as file:
        rooms = {name: Room(name, **facts) for name, facts in tomllib.load(file).items()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", metavar="room", help=f"any of {', '.join(rooms)}")
    parser.add_argument(
        "--only", default="", metavar="pattern", help="of `module:line operator`, such as `:12. .*Drop`"
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="for one test, so that a mutant that waits for ever is noticed"
    )
    chosen = parser.parse_args(arguments)
    wanted = [rooms[name] for name in chosen.rooms] or list(rooms.values())
    importlib.import_module("cosmic_ray.plugins").OPERATOR_PROVIDERS["ours"] = OURS
    for name in WARM:
        importlib.import_module(name)
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(AT_ONCE, mp_context=fork) as pool:
        for report in pool.map(
            functools.partial(run, folder=Path(folder), only=chosen.only, seconds=chosen.seconds), wanted
        ):
            sys.stdout.write(f"{report}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
