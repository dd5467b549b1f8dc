"""
Install the programs of the corpus, and make its files: `python -m tests.corpus.make FOLDER [WORD ...]`.

With words, only the rows are made whose name or program contains one of them. Files that exist are not made again.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.corpus.table import Input, Program, Row, modules

_MAKERS: Final = Path(__file__).parent / "makers"
_TIMEOUT: Final = 600  # seconds for one file, or for one run of a script that makes many


def _run(command: Iterable[str], **options: Any) -> None:
    command = list(command)
    print("+", shlex.join(command)[:300], flush=True)
    subprocess.run(command, check=True, **options)


def _install(folder: Path, programs: list[Program]) -> None:
    """Install what is missing: into the folder, or with apt."""
    names = [name for program in programs for name in program.apt]
    if missing := [name for name in names if not _installed(name)]:
        options = ["-y", "-q", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=900"]
        _run(["apt-get", "install", *options, *missing], env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    wanted: dict[str, list[str]] = {}
    for program in programs:
        wanted.setdefault(program.env, []).extend(program.pip)
    uv = shutil.which("uv")
    for name, pins in wanted.items():
        python = folder / name / "bin/python"
        if pins and not python.exists():
            _run([uv, "venv", "-q", str(folder / name)] if uv else [sys.executable, "-m", "venv", str(folder / name)])
        if pins:
            pip = [uv, "pip", "install", "-q", "-p", str(python)] if uv else [str(python), "-m", "pip", "install", "-q"]
            _run([*pip, *dict.fromkeys(pins)])
    if pins := [pin for program in programs for pin in program.npm]:
        _run(["npm", "install", "--silent", "--no-save", "--no-audit", "--prefix", str(folder), *dict.fromkeys(pins)])


def _installed(package: str) -> bool:
    seen = subprocess.run(["dpkg-query", "-Wf", "${Status}", package], check=False, capture_output=True, text=True)
    return seen.stdout.endswith("ok installed")


def _environment(folder: Path, env: str) -> Mapping[str, str]:
    path = f"{folder / env}/bin:{folder}/node_modules/.bin:{os.environ['PATH']}"
    variables = {"PATH": path, "NODE_PATH": f"{folder}/node_modules", "MAKERS": str(_MAKERS), "IN": f"{folder}/inputs"}
    return {**os.environ, **variables, "FILES": f"{folder}/files", "HOME": str(folder), "LC_ALL": "C.UTF-8"}


def _make(path: Path, command: str, environment: Mapping[str, str]) -> str | None:
    """Make one file, which appears when it is complete. Return the problem, if there is one."""
    if path.exists():
        return None
    unfinished = path.with_name(f"part-{path.name}")
    unfinished.unlink(missing_ok=True)
    variables = {**environment, "OUT": str(unfinished)}
    options: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace", "stdin": subprocess.DEVNULL}
    try:
        seen = subprocess.run(
            ["bash", "-ec", command], check=False, cwd=path.parent, env=variables, timeout=_TIMEOUT, **options
        )
    except subprocess.TimeoutExpired:
        return f"it takes more than {_TIMEOUT} s"
    if seen.returncode or not unfinished.exists() or not unfinished.stat().st_size:
        return f"exit status {seen.returncode}: {(seen.stderr or seen.stdout)[-700:]}"
    unfinished.rename(path)
    return None


def _needed(commands: Iterable[str], inputs: Mapping[str, Input]) -> list[Input]:
    """Return the inputs that commands read, each behind those that it reads itself."""
    found: dict[str, Input] = {}
    for command in commands:
        for name in re.findall(r"\$IN/([\w.-]+)", command):
            found |= {one.name: one for one in _needed([inputs[name].command], inputs)} | {name: inputs[name]}
    return list(found.values())


def main(folder: Path, words: list[str]) -> int:
    """Make the files in `folder/files`, and return the exit status: 1 if one could not be made."""
    folder = folder.resolve()
    found = list(modules())
    programs = {program.name: program for module in found for program in module.PROGRAMS}
    rows: list[Row] = [
        row
        for module in found
        for row in module.TABLE
        if not words or any(word.lower() in f"{module.__name__} {row.program} {row.name}".lower() for word in words)
    ]
    inputs = _needed((row.command for row in rows), {one.name: one for module in found for one in module.INPUTS})
    used = dict.fromkeys(row.program for row in rows)
    needed = dict.fromkeys([*used, *(one.program for one in inputs)])
    needed |= dict.fromkeys(name for program in list(needed) for name in programs[program].needs)
    _install(folder, [programs[name] for name in needed])
    problems = {}
    for place, made in (("inputs", inputs), ("files", rows)):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for one in made:
            environment = _environment(folder, programs[one.program].env)
            problems[one.name] = _make(folder / place / one.name, one.command, environment)
    failed = {name: problem for name, problem in problems.items() if problem}
    for name, problem in failed.items():
        print(f"{name}: {problem}\n")
    print(f"{len(rows)} rows of {len(used)} programs, {len(failed)} problems")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2:]))
