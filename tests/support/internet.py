"""
A public internet of this machine, for the tests of `Source.url`.

Two foreign seams are replaced: the system's look-up of names, and the step that connects a socket. All of the library is
between them: it looks names up, judges the addresses, and asks for connections to addresses, which lead to local servers.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohappyeyeballs
import pytest
import trustme

from tests.support.resolver import replace_resolver
from tests.support.servers import Server, Step, page

__all__ = ["PUBLIC", "Internet", "internet"]

PUBLIC: Final = "93.184.215.14"  # an address of the public internet
_connect: Final = aiohappyeyeballs.start_connection


class Internet:
    """Names with their addresses, and the servers behind the addresses."""

    def __init__(self, stack: AsyncExitStack, folder: Path, own_ports: tuple[int, ...]) -> None:
        self.names: dict[str, list[list[str]]] = {}  # the addresses of each look-up; the last ones again and again
        self.own_ports = set(own_ports)
        self.looked_up: list[str] = []
        self.connected: list[tuple[str, int]] = []  # the addresses and ports that connections were asked to
        self.trap = Server(page("caught"))  # behind all other addresses, private ones too
        self._servers: dict[tuple[str, int], Server] = {}
        self._stack = stack
        self._ca = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)

    async def serve(self, name: str, *script: Step, address: str = PUBLIC, port: int = 443, tls: bool = True) -> Server:
        """Give a name an address, and put a server there, with a certificate of the name."""
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._ca.issue_cert(name).configure_cert(context)
        self._servers[address, port] = await self._stack.enter_async_context(Server(*script, tls=context))
        self.names.setdefault(name, [[address]])
        return self._servers[address, port]

    def getaddrinfo(self, host: Any, port: Any, *_: Any, **options: Any) -> list[Any]:
        """Look a name up, as the system does."""
        name = host.decode() if isinstance(host, bytes) else str(host)
        try:
            addresses = [str(ipaddress.ip_address(name))]
        except ValueError:
            self.looked_up.append(name)
            if name not in self.names:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known") from None
            answers = self.names[name]
            addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        found = []
        for address in addresses:
            four = "." in address and ":" not in address
            family, where = (socket.AF_INET, ()) if four else (socket.AF_INET6, (0, 0))
            found.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, int(port), *where)))
        return found

    async def start_connection(self, addresses: list[Any], **options: Any) -> socket.socket:
        """Connect to the server behind the first address."""
        address, port = addresses[0][-1][:2]
        self.connected.append((address, port))
        local = ("127.0.0.1", self._servers.get((address, port), self.trap).port)
        return await _connect([(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", local)], **options)


@asynccontextmanager
async def internet(folder: Path, *own_ports: int) -> AsyncIterator[Internet]:
    """Replace the two seams for a while. What leads to an own port of this machine, such as an emulator's, still does."""
    async with AsyncExitStack() as stack:
        world = Internet(stack, folder, own_ports)
        await stack.enter_async_context(world.trap)
        look_up = socket.getaddrinfo

        def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> list[Any]:
            return look_up(host, port, *args, **options) if port in world.own_ports else world.getaddrinfo(host, port)

        async def start_connection(addresses: list[Any], **options: Any) -> socket.socket:
            own = addresses[0][-1][1] in world.own_ports
            return await (_connect if own else world.start_connection)(addresses, **options)

        with pytest.MonkeyPatch.context() as seams:
            seams.setenv("SSL_CERT_FILE", str(world.ca_file))
            replace_resolver(seams, getaddrinfo)
            seams.setattr(aiohappyeyeballs, "start_connection", start_connection)
            yield world
