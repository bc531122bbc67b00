"""TLS certificates for tests: a certificate authority of their own, and a server certificate that it signs."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certified:
    """``authority`` is the file to trust; ``server`` has the certificate and key of 127.0.0.1."""

    authority: Path
    server: Path

    def context(self) -> ssl.SSLContext:
        """Return the SSL context of a server that presents this certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.server)
        return context


def certified(directory: Path) -> Certified:
    """Write an authority and a server's certificate into ``directory``."""
    authority_key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _name("tests' authority")
    root = _certificate(authority, authority, authority_key.public_key(), authority_key, is_authority=True)
    leaf = _certificate(_name("127.0.0.1"), authority, server_key.public_key(), authority_key, is_authority=False)
    pem = serialization.Encoding.PEM
    key = server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certified_files = Certified(directory / "authority.pem", directory / "server.pem")
    certified_files.authority.write_bytes(root.public_bytes(pem))
    certified_files.server.write_bytes(leaf.public_bytes(pem) + key)
    return certified_files


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(is_authority: bool) -> x509.KeyUsage:
    """Return the key usage extension: Python 3.13 and later trust no authority without it."""
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        decipher_only=False,
        **dict.fromkeys(others, False),
    )


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signed_by: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    named, by = x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(named.from_public_key(key), critical=False)
        .add_extension(by.from_issuer_public_key(signed_by.public_key()), critical=False)
        .add_extension(_usage(is_authority), critical=True)
        .sign(signed_by, hashes.SHA256())
    )
