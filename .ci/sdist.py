"""A build hook of the sdist: hatchling puts `.gitignore` into it, and has no setting against that."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LeaveOutGitignore(BuildHookInterface[Any]):
    """Takes `.gitignore` out of what hatchling adds by itself."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Change what is about to be built."""
        del version
        added = build_data["force_include"]
        build_data["force_include"] = {source: target for source, target in added.items() if target != ".gitignore"}
