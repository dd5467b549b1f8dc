"""A scripted server, and a client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from meta_media import MediaApi
from tests.bulk.helpers import client
from tests.support.servers import Server


@pytest.fixture
async def api(server: Server) -> AsyncIterator[MediaApi]:
    """A client for it, that tries once."""
    async with client(server) as made:
        yield made
