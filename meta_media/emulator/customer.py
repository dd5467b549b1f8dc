"""
A customer who sends media, played from outside: the webhook that is posted about it, and the request of another process.

`meta-media receive` sends the file to `PATH` of a running emulator, with the access token of the number that receives it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import Any, Final

import anyio.to_thread
import httpx

from meta_media import MediaApi
from meta_media.errors import ConfigurationError, NetworkError

__all__ = ["LOGGER", "PATH", "play_customer", "post_webhook"]

PATH: Final = "/emulator/receive"
LOGGER: Final = logging.getLogger("meta_media.emulator")
_TIMEOUT: Final = 30.0  # seconds that an application may take to answer a webhook
_USER_AGENT: Final = "facebookexternalua"  # recorded


async def post_webhook(url: str, body: bytes, signature: str) -> int:
    """Post a signed webhook as Meta does. Return the HTTP status of the response; 0 if there is none."""
    headers = {"content-type": "application/json", "user-agent": _USER_AGENT, "x-hub-signature-256": signature}
    status = 0
    client = await anyio.to_thread.run_sync(functools.partial(httpx.AsyncClient, timeout=_TIMEOUT, trust_env=False))
    try:
        async with client, client.stream("POST", url, content=body, headers=headers) as response:
            status = response.status_code
            how = f"HTTP {status}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        how = str(error) or type(error).__name__
    LOGGER.log(logging.INFO if 200 <= status < 300 else logging.WARNING, "webhook: %s", how)
    return status


async def play_customer(
    media: MediaApi, access_token: str, content: bytes, mime_type: str, given: Mapping[str, str | None]
) -> Mapping[str, Any]:
    """
    Have the emulator at the client's `base_url` receive media; `given` are the route's other parameters.

    Returns:
        `id`, the id of the media; `webhook`, the URL that it was posted to, or None; and `statuses`, one for each post.
    """
    base_url = media.settings.base_url
    headers = {"authorization": f"Bearer {access_token}", "content-type": mime_type}
    params = {name: value for name, value in given.items() if value is not None}
    try:
        response = await media.client.post(
            base_url + PATH, content=content, headers=headers, params=params, timeout=4 * _TIMEOUT
        )
    except httpx.HTTPError as error:
        raise NetworkError(f"no emulator answers at {base_url}: start one with meta-media serve") from error
    try:
        reply = response.json()
        if response.status_code == 200 and reply["id"]:
            return dict(reply)
        why = f"the emulator at {base_url} refused it: {reply['error']['message']}"
    except (ValueError, LookupError, TypeError):
        why = f"{base_url} is no emulator: set WA_BASE_URL to the address that meta-media serve has printed"
    raise ConfigurationError(why)
