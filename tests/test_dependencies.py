"""
The declared dependencies: no lower bound admits a version with a published advisory.

The table below was looked up on 2026-11-29, in the PyPI Advisory Database (osv.dev) and the GitHub Advisory Database. Look
a package up again when it is added, and all of them before a release. `pip-audit` says what has become known since:

    uv pip compile --resolution lowest-direct --extra dev --extra bench pyproject.toml | pip-audit --no-deps -r /dev/stdin
"""

from __future__ import annotations

import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
# The first version without a known advisory, and the latest advisory; None where none is known for any version.
ADVISORIES: dict[str, tuple[str, str] | None] = {
    "aiofiles": None,
    "aiohappyeyeballs": None,
    "aiohttp": ("3.14.4", "PYSEC-2026-4369"),
    "anyio": None,
    "attrs": None,
    "blockbuster": None,
    "build": None,
    "cattrs": None,
    "coverage": None,
    "cyclopts": None,
    "fastapi": ("0.109.1", "CVE-2024-24762"),
    "h11": ("0.16.0", "CVE-2025-43859"),
    "h2": ("4.4.1", "CVE-2026-71554"),
    "hatchling": None,
    "httpx": ("0.23.0", "CVE-2021-41945"),
    "httpx2": ("2.12.0", "GHSA-8xx6-hgc6-gc2m"),
    "hypothesis": None,
    "import-linter": None,
    "moto": None,
    "mypy": None,
    "obstore": None,
    "opentelemetry-api": None,
    "opentelemetry-instrumentation-httpx": None,
    "opentelemetry-sdk": None,
    "playwright": ("1.56.0", "CVE-2025-9611"),
    "psutil": ("5.6.6", "CVE-2019-18874"),
    "pyright": None,
    "pytest": ("9.0.3", "CVE-2025-71176"),
    "pytest-asyncio": None,
    "pytest-markdown-docs": None,
    "pytest-randomly": None,
    "pytest-timeout": None,
    "pytest-xdist": None,
    "python-multipart": ("0.0.31", "CVE-2026-53540"),
    "pywa": None,
    "redis": ("4.5.5", "CVE-2023-28859"),
    "respx": None,
    "rich": None,
    "ruff": None,
    "starlette": ("1.3.1", "CVE-2026-54283"),
    "taskiq": None,
    "taskiq-aio-pika": None,
    "taskiq-redis": None,
    "time-machine": None,
    "trio": None,
    "trustme": None,
    "types-aiofiles": None,
    "types-psutil": None,
    "uvicorn": ("0.11.7", "CVE-2020-7694"),
    "uvloop": None,
    "werkzeug": ("3.1.6", "GHSA-29vq-49wr-vm6x"),
}


def declared() -> list[Requirement]:
    """Return all requirements: of the build, at run time, and of each extra."""
    groups = [PROJECT["build-system"]["requires"], PROJECT["project"]["dependencies"]]
    groups += PROJECT["project"]["optional-dependencies"].values()
    found = [Requirement(text) for group in groups for text in group]
    return [requirement for requirement in found if requirement.name != PROJECT["project"]["name"]]


def lower_bound(requirement: Requirement) -> Version:
    """Return the lowest version that a requirement admits."""
    (bound,) = [each.version for each in requirement.specifier if each.operator == ">="]
    return Version(bound)


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_no_bound_admits_a_version_with_an_advisory(requirement: Requirement) -> None:
    """Each requirement has a lower bound, and the table has its package: look a new one up before it is added."""
    bound = lower_bound(requirement)
    assert requirement.name in ADVISORIES, f"look up the advisories of {requirement.name}, and add it to the table"
    if (known := ADVISORIES[requirement.name]) is not None:
        first, advisory = known
        assert bound >= Version(first), (
            f"{requirement} admits versions with {advisory}: write {requirement.name}>={first}"
        )


def test_the_table_has_what_is_declared_only() -> None:
    """A package that is no longer declared leaves the table."""
    assert set(ADVISORIES) == {requirement.name for requirement in declared()}


def test_what_is_installed_has_no_known_advisory() -> None:
    """The versions that these tests run with are not below the table's either."""
    for name, known in ADVISORIES.items():
        if known is not None and name != "hatchling":
            assert Version(metadata(name)["Version"]) >= Version(known[0]), name
