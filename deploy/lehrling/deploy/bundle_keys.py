"""Ed25519 keys that sign bundles: the private one stays where bundles are made, the public one goes to the robots."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lehrling.datasets.errors import InputError
from lehrling.datasets.files import write_durably

KEY_BYTES_MAX = 1 << 14
CONTEXT = b"lehrling bundle 1\n"
"""Signed before the content, so that a signature made for something else is none of a bundle."""


def make_keys(path: Path) -> tuple[Path, Path]:
    """Make a pair, `PATH.key` for its owner's eyes alone and `PATH.pub`; return the two paths.

    Raises:
        InputError: one of them is there already.
        StorageError: they cannot be written.
    """
    private, public = path.with_name(f"{path.name}.key"), path.with_name(f"{path.name}.pub")
    if taken := next((file for file in (private, public) if file.exists()), None):
        raise InputError(f"{taken} is there already; keys are never replaced, give another name.")
    key = Ed25519PrivateKey.generate()
    write_durably(private, private_pem(key), mode=0o600)
    write_durably(public, public_pem(key.public_key()))
    return private, public


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """Return a private key as PEM (PKCS 8), not encrypted."""
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption())


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Return a public key as PEM."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_private(path: Path) -> Ed25519PrivateKey:
    """Read a private key.

    Raises:
        InputError: there is none, or it is no Ed25519 key without a password.
    """
    try:
        key = serialization.load_pem_private_key(_content(path, "private"), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path} is no private key without a password; give the .key file of a pair.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"Expected an Ed25519 key in {path}, got {type(key).__name__}; make one with `bundle key`.")
    return key


def read_public(path: Path) -> Ed25519PublicKey:
    """Read a public key.

    Raises:
        InputError: there is none, or it is no Ed25519 key.
    """
    try:
        key = serialization.load_pem_public_key(_content(path, "public"))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path} is no public key; give the .pub file of a pair.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"Expected an Ed25519 key in {path}, got {type(key).__name__}; make one with `bundle key`.")
    return key


def key_id(key: Ed25519PublicKey) -> str:
    """Return a short name of a public key: 16 hexadecimal digits of its hash."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def sign(key: Ed25519PrivateKey, content: bytes) -> bytes:
    """Return the signature as a line of hexadecimal digits."""
    return key.sign(CONTEXT + content).hex().encode() + b"\n"


def signed(key: Ed25519PublicKey, content: bytes, signature: bytes) -> bool:
    """Whether a line from `sign` is this key's over this content."""
    try:
        raw = bytes.fromhex(signature.decode("ascii"))
        key.verify(raw, CONTEXT + content)
    except (InvalidSignature, ValueError):
        return False
    return signature == raw.hex().encode() + b"\n"


def _content(path: Path, what: str) -> bytes:
    if not path.is_file():
        raise InputError(f"Expected a {what} key (PEM) at {path}, but there is no such file.")
    with path.open("rb") as file:
        return file.read(KEY_BYTES_MAX)
