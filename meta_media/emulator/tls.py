"""
TLS: the certificate authority of a data folder, and the handshake at the start of a connection.

The authority is made once, and its secret key stays in the database. Each start issues a certificate for its own names.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import certifi
import httpx
from uvicorn.protocols.http.h11_impl import H11Protocol

from meta_media.emulator.folder import folder_errors
from meta_media.emulator.state import State
from meta_media.errors import ConfigurationError

__all__ = ["CA_FILE", "HandshakingConnection", "certify"]

CA_FILE: Final = "ca.pem"


async def certify(state: State, folder: Path, host: str, url: str | None) -> tuple[ssl.SSLContext, httpx.AsyncClient]:
    """Write `CA_FILE`, and return the TLS context of the server, and a client that trusts it."""
    with folder_errors(folder):
        if "authority" not in state.settings:
            await state.set("authority", await state.in_thread(_make_authority))
        pem = state.settings["authority"].encode()
        server, client = await state.in_thread(_contexts, pem, folder / CA_FILE, host, url)
    return server, httpx.AsyncClient(verify=client)


def _contexts(pem: bytes, file: Path, host: str, url: str | None) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    import trustme  # the import takes 100 ms

    authority = trustme.CA.from_pem(pem, pem)
    file.unlink(missing_ok=True)  # a link would lead to a file of others
    with file.open("xb") as new:
        # certifi's, too: SSL_CERT_FILE replaces them, and a program could connect to nothing but the emulator.
        new.write(authority.cert_pem.bytes() + Path(certifi.where()).read_bytes())
    names = {"localhost", "127.0.0.1", "::1", host, urlsplit(url or "").hostname}
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    try:
        authority.issue_cert(*filter(None, names)).configure_cert(server)
    except ValueError as error:
        raise ConfigurationError(f"no certificate can be made: choose another host or url ({error})") from error
    return server, client


def _make_authority() -> str:
    import trustme

    authority = trustme.CA(organization_name="meta_media emulator")
    return (authority.cert_pem.bytes() + authority.private_key_pem.bytes()).decode()


class HandshakingConnection(H11Protocol):
    """
    A connection that begins with a handshake if it is given a context.

    With `create_server(ssl=…)` it would be known after the handshake only, and a server that stops could not end it before.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, **given: Any) -> None:
        super().__init__(**given)
        self._tls = tls
        self._early = b""  # what came with the last bytes of the handshake

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Start the handshake."""
        super().connection_made(transport)
        if self._tls is not None:
            transport.pause_reading()  # the handshake goes on with it
            task = self.loop.create_task(self._shake_hands(transport, self._tls))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    def data_received(self, data: bytes) -> None:
        """Keep what comes before the handshake's end is known."""
        if self._tls is None:
            super().data_received(data)
        else:
            self._early += data

    async def _shake_hands(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        secure = None
        try:
            secure = await self.loop.start_tls(transport, self, tls, server_side=True)
        except ssl.SSLError as error:
            self.logger.warning(
                "TLS with a client failed (%s): let it use https:// and trust %s", error.reason, CA_FILE
            )
        except OSError:
            pass  # it has gone
        if secure is None or secure.is_closing():
            self.connections.discard(self)
            return
        super().connection_made(secure)
        self._tls = None
        if self._early:
            self.data_received(self._early)
