"""
`Source.url` as the way into a network: addresses and redirects that must be refused, and their neighbours that must pass.

Behind every address stands a server, behind the private ones, too. Its own log shows whether anything was sent there.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from meta_media import MediaApi, Source, samples
from meta_media.emulator import Emulator
from meta_media.errors import DownloadError, UntrustedUrlError
from meta_media.http import fetch
from tests.support.internet import PUBLIC, Internet, internet
from tests.support.servers import page

PHOTO: Final = next(path for path in samples.paths() if path.name == "photo.jpg").read_bytes()
SECRET: Final = "?X-Signature=canary"
OTHER: Final = "151.101.1.69"  # another public address
SIX: Final = "2606:4700:4700::1111"

# What a name may resolve to, and how an address may be written.
NAMES: Final[dict[str, list[str]]] = {
    **{f"a{n}.example": [address] for n, address in enumerate(
        (
            *("0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.8.8.8", "168.63.129.16"),
            *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1"),
            *("192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.251", "240.0.0.1", "255.255.255.255"),
            *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:93.184.215.14"),
            *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1"),
            *("2002:7f00:1::1", "2002:a9fe:a9fe::", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1"),
            *("fec0::1", "ff02::1"),
        )
    )},
    "both.example": [PUBLIC, "10.0.0.1"],
    "both6.example": [SIX, "::1"],
    "localhost": ["127.0.0.1", "::1"],
    "metadata.google.internal": ["169.254.169.254"],
}  # fmt: skip
LITERALS: Final = (
    *("https://127.0.0.1/", "http://127.0.0.1:8080/", "https://169.254.169.254/latest/meta-data/", "http://10.0.0.1/"),
    *("https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[fd00:ec2::254]/"),
    *("https://[64:ff9b::a9fe:a9fe]/", "https://[2002:7f00:1::]/", "https://2130706433/", "https://0x7f.0.0.1/"),
    *("https://0177.0.0.1/", "https://127.1/", "https://0/", "https://017700000001/", "https://localhost./"),
    *(
        "https://user@open.example/",
        "https://open.example@127.0.0.1/",
        "https://open.example:22/",
        "https://open.example:6379x/",
    ),
    *(
        "ftp://open.example/",
        "file:///etc/passwd",
        "https://①②⑦.0.0.1/",
        "https://127。0。0。1/",
        "https://open.example\\@127.0.0.1/",
    ),
)
TARGETS: Final = (*(f"https://{name}/" for name in NAMES), *LITERALS)
CHAINS: Final = (  # of redirects, which begin at a public host
    *TARGETS,
    "http://open.example/",  # from https
    "//127.0.0.1/",
    "//[",
)


@pytest.fixture
async def world(tmp_path: Path, emulator: Emulator) -> AsyncIterator[Internet]:
    """A public internet, the names above, and the emulator."""
    async with internet(tmp_path, int(emulator.base_url.rpartition(":")[2])) as made:
        made.names |= {name: [addresses] for name, addresses in NAMES.items()}
        await made.serve("open.example", page(PHOTO, content_type="image/jpeg"))
        yield made


async def refused(media: MediaApi, emulator: Emulator, url: str) -> UntrustedUrlError:
    """Upload what must not be fetched. Meta receives nothing of it."""
    with pytest.raises(UntrustedUrlError) as caught:
        await media.upload(Source.url(url))
    assert emulator.requests == []
    assert "canary" not in str(caught.value)
    assert not caught.value.retryable
    return caught.value


async def test_addresses_are_refused(world: Internet, media: MediaApi, emulator: Emulator) -> None:
    """Nothing is sent to an address that is not public, however it is written and whatever name leads to it."""
    assert len(set(TARGETS)) >= 60
    for url in TARGETS:
        error = await refused(media, emulator, url + SECRET)
        assert (error.attempts, world.connected, world.trap.connections) == (0, [], 0), url


async def test_redirects_are_refused(world: Internet, media: MediaApi, emulator: Emulator) -> None:
    """Each redirect is judged like the first URL: two hosts respond, and nothing is sent where the second one leads."""
    second = await world.serve("second.example", b"", address=OTHER)
    await world.serve("first.example", page(status=302, location="https://second.example/?canary"), address=SIX)
    assert len(set(CHAINS)) >= 60
    for sent, url in enumerate(CHAINS, 1):
        second.script = [page(status=307, location=(url + SECRET).encode().decode("latin-1"))]
        world.connected.clear()
        error = await refused(media, emulator, f"https://first.example/{SECRET}")
        assert (error.attempts, len(second.requests)) == (2, sent), url
        assert (world.connected, world.trap.connections) == ([(SIX, 443), (OTHER, 443)], 0), url


async def test_an_own_public_address_is_refused(
    world: Internet, media: MediaApi, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The public address of this machine is no way around its firewall."""

    class OwnSocket(socket.socket):
        """Of a machine whose address it is."""

        def connect(self, address: object) -> None:
            """Choose the sender, which is what an unconnected protocol does here."""

        def getsockname(self) -> tuple[str, int]:
            """Return the address of the sender."""
            return PUBLIC, 1

    monkeypatch.setattr(socket, "socket", OwnSocket)
    error = await refused(media, emulator, "https://open.example/")
    assert str(error).startswith("open.example is this machine: ")
    assert world.connected == []


def test_the_system_knows_which_addresses_are_its_own() -> None:
    """An own address is the sender of what is sent to it. Without a route, no address is one."""
    for family, address, own in (
        (socket.AF_INET, ("127.0.0.1", 443), True),
        (socket.AF_INET6, ("::1", 443, 0, 0), socket.has_ipv6 and Path("/proc/net/if_inet6").exists()),
        (socket.AF_INET, ("192.0.2.1", 443), False),
        (socket.AF_INET, ("255.255.255.255", 443), False),  # to which the system connects nothing
        (socket.AF_INET6, ("2001:db8::1", 443, 0, 0), False),
    ):
        assert fetch._is_own((family, socket.SOCK_STREAM, 6, "", address)) in {own, own and family == socket.AF_INET}


PASSING: Final[dict[str, tuple[str, int]]] = {  # URLs, with the address and port that they lead to
    "https://open.example/photo.jpg": (PUBLIC, 443),
    "HTTPS://OPEN.EXAMPLE/photo.jpg": (PUBLIC, 443),
    "https://open.example:443/photo.jpg": (PUBLIC, 443),
    "https://open.example/?file=photo.jpg": (PUBLIC, 443),
    "https://open.example/my photo é.jpg#part": (PUBLIC, 443),
    "https://open.example/a/../photo.jpg": (PUBLIC, 443),
    "https://open.example/@127.0.0.1/photo.jpg": (PUBLIC, 443),
    "https://open.example/http://127.0.0.1/": (PUBLIC, 443),
    "https://open.example/photo.jpg?next=http://localhost/": (PUBLIC, 443),
    "https://open.example//photo.jpg": (PUBLIC, 443),
    "https://open.example:8443/photo.jpg": (PUBLIC, 8443),
    "http://open.example/photo.jpg": (PUBLIC, 80),
    "http://open.example:8080/photo.jpg": (PUBLIC, 8080),
    f"https://{PUBLIC}/photo.jpg": (PUBLIC, 443),
    f"https://[{SIX}]/photo.jpg": (SIX, 443),
    "https://six.example/photo.jpg": (SIX, 443),
    "https://nat64.example/photo.jpg": ("64:ff9b::5db8:d70e", 443),
    "https://neighbour.example/photo.jpg": ("172.32.0.1", 443),
    "http://under_score.example/photo.jpg": ("11.0.0.1", 80),
    "https://xn--bcher-kva.example/photo.jpg": ("100.128.0.1", 443),
    "https://127.0.0.1.example/photo.jpg": ("192.0.3.1", 443),
    "https://3com.example/photo.jpg": ("169.253.255.255", 443),
}


async def test_public_urls_pass(world: Internet, media: MediaApi) -> None:
    """A connection is made to the very address that was judged."""
    assert len(PASSING) >= 20
    for url, (address, port) in PASSING.items():
        host, tls = url.lower().split("/")[2].removesuffix(f":{port}").strip("[]"), url.lower().startswith("https:")
        world.names.pop(host, None)
        world.connected.clear()
        server = await world.serve(host, page(PHOTO, content_type="image/jpeg"), address=address, port=port, tls=tls)
        uploaded = await media.upload(Source.url(url))
        assert (uploaded.file_size, world.connected, len(server.requests)) == (len(PHOTO), [(address, port)], 1), url


async def test_a_name_is_looked_up_once(world: Internet, media: MediaApi) -> None:
    """A name that leads to this machine a moment later changes nothing (DNS rebinding)."""
    world.names["open.example"] = [[PUBLIC], ["127.0.0.1"]]
    await media.upload(Source.url("https://open.example/photo.jpg"))
    assert (world.looked_up, world.connected) == (["open.example"], [(PUBLIC, 443)])


async def test_a_retry_is_judged_anew(world: Internet, media: MediaApi, emulator: Emulator) -> None:
    """A name that leads to this machine at the next attempt is refused then."""
    await world.serve("shaky.example", page(status=503), address=OTHER)
    world.names["shaky.example"] = [[OTHER], ["127.0.0.1"]]
    error = await refused(media.with_options(backoff=0.0), emulator, "https://shaky.example/")
    assert error.attempts == 1
    assert (world.connected, world.trap.connections) == ([(OTHER, 443)], 0)


async def test_headers_go_to_the_first_origin_only(world: Internet, media: MediaApi) -> None:
    """Behind a redirect to another origin they are gone, also where that leads back."""
    back = await world.serve("back.example", page(status=302, location="https://open.example/photo.jpg"), address=OTHER)
    first = await world.serve(
        "first.example",
        page(status=302, location="/two"),
        page(status=302, location="https://back.example/"),
        address=SIX,
    )
    (last,) = [server for (address, _), server in world._servers.items() if address == PUBLIC]
    given = {"Authorization": "Bearer canary", "user-agent": "mine", "X-Key": "1"}
    await media.upload(Source.url("https://first.example/one", headers=given))
    assert [request.header("authorization") for request in first.requests] == ["Bearer canary"] * 2
    assert [request.header("user-agent") for request in first.requests] == ["mine"] * 2
    for server in (back, last):
        (request,) = server.requests
        assert (request.header("authorization"), request.header("x-key"), request.header("referer")) == (
            None,
            None,
            None,
        )
        assert (request.header("user-agent") or "").startswith("meta-media/")
    assert given == {"Authorization": "Bearer canary", "user-agent": "mine", "X-Key": "1"}


async def test_headers_do_not_come_back(world: Internet, media: MediaApi) -> None:
    """A stranger's redirect back to the first origin does not use the caller's headers for what the stranger wants."""
    stranger = page(status=302, location="https://first.example/delete?all")
    await world.serve("stranger.example", stranger, address=OTHER)
    leave, photo = page(status=302, location="https://stranger.example/"), page(PHOTO, content_type="image/jpeg")
    first = await world.serve("first.example", leave, photo, address=SIX)
    await media.upload(Source.url("https://first.example/", headers={"Authorization": "Bearer canary"}))
    assert [request.header("authorization") for request in first.requests] == ["Bearer canary", None]


@pytest.mark.parametrize("count", [5, 6])
async def test_redirects_are_counted(count: int, world: Internet, media: MediaApi) -> None:
    """Five are followed."""
    moves = [page(status=301, location=f"/{n}") for n in range(count)]
    server = await world.serve("far.example", *moves, page(PHOTO, content_type="image/jpeg"), address=OTHER)
    if count == 5:
        assert (await media.upload(Source.url("https://far.example/photo.jpg"))).filename == "photo.jpg"
    else:
        with pytest.raises(DownloadError, match=r"far\.example redirects more than 5 times"):
            await media.upload(Source.url("https://far.example/photo.jpg"))
    assert len(server.requests) == 6


async def test_the_certificate_is_of_the_name(world: Internet, media: MediaApi) -> None:
    """The connection is made to an address, and its certificate must be of the name."""
    world.names["imposter.example"] = [[PUBLIC]]  # where another host's certificate is
    with pytest.raises(Exception, match=r"imposter\.example: could not connect: Hostname mismatch"):
        await media.upload(Source.url("https://imposter.example/"))
    await asyncio.sleep(0)  # the server notices that the client has left
