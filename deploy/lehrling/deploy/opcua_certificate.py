"""The self-signed certificate of a cell's OPC UA server or of a client (OPC 10000-6 6.2.2), made where there is none."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lehrling.datasets.errors import InputError
from lehrling.datasets.files import storage_error, write_durably

BITS, YEARS = 2048, 10


def application_uri(name: str) -> str:
    """Return the URI under which an application is known; its certificate has to say the same."""
    return f"urn:lehrling:{name}"


def ensure_certificate(certificate: Path, key: Path, uri: str, hosts: Sequence[str]) -> str:
    """Make a certificate (DER) and its key (PEM, for its owner alone) unless both exist; return the SHA-256 of the former.

    Raises:
        InputError: only one of them exists.
        StorageError: they cannot be written.
    """
    if certificate.is_file() != key.is_file():
        there, missing = (certificate, key) if certificate.is_file() else (key, certificate)
        raise InputError(
            f"{there} is there, but {missing} is not; bring it back, or take both away to have new ones made."
        )
    if not certificate.is_file():
        private = rsa.generate_private_key(public_exponent=65_537, key_size=BITS)
        made = _self_signed(private, uri, hosts)
        for path in (key, certificate):
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise storage_error(error, path.parent) from error
        secret = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_durably(key, secret, mode=0o600)
        write_durably(certificate, made.public_bytes(serialization.Encoding.DER))
    return hashlib.sha256(certificate.read_bytes()).hexdigest()


def _self_signed(key: rsa.RSAPrivateKey, uri: str, hosts: Sequence[str]) -> x509.Certificate:
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, uri.rpartition(":")[2]),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Lehrling"),
        ]
    )
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    names = [x509.UniformResourceIdentifier(uri), *map(_name, hosts)]
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=365 * YEARS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=False)
        .add_extension(usage, critical=False)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
