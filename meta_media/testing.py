"""
For the tests of any project: the pytest plugin that pytest loads by itself, and a check of stores.

`meta_media.emulator.pytest_plugin` describes the fixtures, `check_store` the promises of a store.
"""

from __future__ import annotations

from meta_media.emulator.pytest_plugin import media_api, media_emulator, media_environment, pytest_configure
from meta_media.library import check_store

__all__ = ["check_store", "media_api", "media_emulator", "media_environment", "pytest_configure"]
