"""Certificates that are refused: the error says why, and what to do about those that you may trust."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meta_media import MediaApi, Settings
from meta_media.errors import NetworkError
from tests.support.servers import Server, json_response

DELETED = json_response({"success": True})
WAY_OUT = "pass http_client=httpx.AsyncClient(verify=…) with an ssl.SSLContext that accepts it"


class Authority:
    """A private CA as many companies have one: its certificates have no Authority Key Identifier."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "ca.pem"
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Private CA")])
        usage = x509.KeyUsage(**dict.fromkeys(USAGES, False) | {"key_cert_sign": True, "digital_signature": True})
        extensions = [x509.BasicConstraints(ca=True, path_length=None), usage]
        self.certificate.write_bytes(self._issued(self._name, self._key, extensions, days=9))

    def server(self, *, address: str = "127.0.0.1", days: int = 9) -> ssl.SSLContext:
        """Issue a certificate for a server."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
        form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        file = self._folder / "server.pem"
        file.write_bytes(self._issued(x509.Name([]), key, [names], days=days) + key.private_bytes(*form))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _issued(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, extensions: list[x509.ExtensionType], *, days: int
    ) -> bytes:
        builder = x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
        now = datetime.now(UTC)
        builder = builder.not_valid_before(now - timedelta(days=90)).not_valid_after(now + timedelta(days=days))
        for extension in extensions:
            builder = builder.add_extension(
                extension, critical=isinstance(extension, x509.BasicConstraints | x509.KeyUsage) or not name.rdns
            )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A private CA."""
    return Authority(tmp_path)


async def refusal(server: Server, client: httpx.AsyncClient | None = None) -> str:
    """Return the sentence of the one attempt to call a server."""
    async with MediaApi("token", "1", settings=Settings(base_url=server.base_url), http_client=client) as media:
        with pytest.raises(NetworkError) as caught:
            await media.delete("1")
    assert (caught.value.attempts, caught.value.lasting, caught.value.retryable) == (1, True, False)
    return str(caught.value)


@pytest.mark.parametrize("given", [False, True])
async def test_a_private_ca(authority: Authority, given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate of an unknown CA is refused with the two ways out, of which the first works."""
    async with Server(DELETED, tls=authority.server()) as server, httpx.AsyncClient() as client:
        sentence = await refusal(server, client if given else None)
        assert "could not connect: unable to get local issuer certificate" in sentence
        assert sentence.endswith(f"; if you trust it, set SSL_CERT_FILE to its CA, or {WAY_OUT}")
        context = ssl.create_default_context(cafile=authority.certificate)
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # which is on by default since Python 3.13
        async with httpx.AsyncClient(verify=context) as trusting:
            await MediaApi("t", "1", settings=Settings(base_url=server.base_url), http_client=trusting).delete("1")


@pytest.mark.parametrize(
    ("strict", "server", "reason", "way_out"),
    [
        (True, {}, "Missing Authority Key Identifier", f"; if you trust it, {WAY_OUT}"),
        (False, {"address": "127.0.0.2"}, "IP address mismatch", ""),
        (False, {"days": -9}, "certificate has expired", ""),
    ],
)
async def test_other_reasons(
    authority: Authority, strict: bool, server: dict[str, Any], reason: str, way_out: str
) -> None:
    """What Python 3.13 is too strict about has a way out; a certificate that is expired or of another name has none."""
    context = ssl.create_default_context(cafile=authority.certificate)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_STRICT if strict else ssl.VerifyFlags(0)
    async with Server(DELETED, tls=authority.server(**server)) as running, httpx.AsyncClient(verify=context) as client:
        sentence = await refusal(running, client)
    assert f"could not connect: {reason}" in sentence
    assert sentence.endswith(way_out) if way_out else "verify=" not in sentence
