"""Bundles: what a robot needs in one signed folder or tar, verified whole before anything in it is loaded.

`policies/NAME/…`, `base/…`, `embodiment.yaml`, `guard.yaml`, with `manifest.json` (size and sha256 of every file) and
`manifest.sig` (Ed25519 over the manifest). Verifying needs no network, no torch, and nothing of the bundle but bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lehrling.datasets.errors import DamageError, InputError, StorageError
from lehrling.datasets.files import first_link, fsync_path, fsync_tree, sha256_file
from lehrling.deploy.bundle_keys import key_id, read_public, signed
from lehrling.deploy.bundle_manifest import (
    BASE,
    EMBODIMENT,
    GUARD,
    MANIFEST,
    MANIFEST_BYTES_MAX,
    SIGNATURE,
    SIGNATURE_BYTES,
    FileFacts,
    Manifest,
    read_manifest,
)
from lehrling.deploy.bundle_tar import TarReader

PIECE_BYTES = 1 << 20
Sink = Callable[[bytes], object]


@dataclass(frozen=True)
class BundleReport:
    """What was verified.

    Attributes:
        key: id of the public key whose signature it bears.
        base, embodiment, guard: whether it brings them along.
        manifest_sha256: names this bundle among all others, for the audit.
    """

    name: str
    made_at: str
    made_by: str
    key: str
    files: int
    bytes: int
    policies: tuple[str, ...]
    base: bool
    embodiment: bool
    guard: bool
    manifest_sha256: str

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return vars(self) | {"policies": list(self.policies)}


def verify_bundle(path: Path, public_key: Path) -> BundleReport:
    """Verify a bundle's signature, then every file against the manifest; nothing is written.

    Raises:
        InputError: there is no bundle or no such key.
        DamageError: another key's signature; or a file that was changed, added, removed or made a link; the message says
            which.
    """
    key = read_public(public_key)
    if path.is_dir():
        return _verify_folder(path, key)
    with _opened(path) as file:
        return _verify_tar(path, file, key, None)


def open_bundle(path: Path, public_key: Path, *, into: Path | None = None) -> Path:
    """Verify a bundle and return its folder; a tar is unpacked into `into`, by default beside it, once.

    A folder that others may write to can change after it was verified: keep it where only the robot's user can.

    Raises:
        InputError, DamageError: what `verify_bundle` raises.
        StorageError: a tar cannot be unpacked.
    """
    key = read_public(public_key)
    if path.is_dir():
        _verify_folder(path, key)
        return path
    with _opened(path) as file:
        manifest, content = _manifest_of(TarReader(file, path), path, key)
        digest = hashlib.sha256(content).hexdigest()
        folder = into or path.with_name(f"{path.name}.opened") / digest[:16]
        with _alone_in(folder.parent):
            if not folder.exists():
                file.seek(0)
                _unpack(path, file, key, folder, manifest.size)
            elif _verify_folder(folder, key).manifest_sha256 != digest:
                raise InputError(f"{folder} holds another bundle; give another folder to unpack {path} into.")
    return folder


def _verify_folder(path: Path, key: Ed25519PublicKey) -> BundleReport:
    if link := first_link(path):
        raise DamageError(f"{link} is a link or no regular file; a bundle holds none. Do not use it, get it again.")
    content = _small(path / MANIFEST, MANIFEST_BYTES_MAX)
    manifest = _signed_manifest(content, _small(path / SIGNATURE, SIGNATURE_BYTES), path, key)
    there = {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()} - {MANIFEST, SIGNATURE}
    if added := sorted(there - manifest.files.keys()):
        raise DamageError(f"{path / added[0]} is not in the signed manifest: it was added. Do not use the bundle.")
    if missing := sorted(manifest.files.keys() - there):
        raise DamageError(f"{path / missing[0]} is missing; do not use the bundle, get it again.")
    for name, facts in manifest.files.items():
        file = path / name
        if file.stat().st_size != facts.bytes or sha256_file(file) != facts.sha256:
            raise _changed(path, name)
    return _report(manifest, content, key)


def _verify_tar(path: Path, file: IO[bytes], key: Ed25519PublicKey, into: Path | None) -> BundleReport:
    """Verify an archive; with `into`, write each file there as it is read."""
    reader = TarReader(file, path)
    manifest, content = _manifest_of(reader, path, key)
    for name, facts in sorted(manifest.files.items()):
        reader.expect(name, facts.bytes)
        with _sink(into, name) as sink:
            if _digest(reader, facts, sink) != facts.sha256:
                raise _changed(path, name)
        reader.end_of_file(facts.bytes)
    reader.end()
    return _report(manifest, content, key)


def _manifest_of(reader: TarReader, path: Path, key: Ed25519PublicKey) -> tuple[Manifest, bytes]:
    content = reader.first(MANIFEST, MANIFEST_BYTES_MAX)
    return _signed_manifest(content, reader.first(SIGNATURE, SIGNATURE_BYTES), path, key), content


def _signed_manifest(content: bytes, signature: bytes, path: Path, key: Ed25519PublicKey) -> Manifest:
    if not signed(key, content, signature):
        raise DamageError(
            f"The signature of {path} is not that of key {key_id(key)} over its manifest: another key signed it, or it "
            "was changed. Do not use it; ask who made it for its public key."
        )
    return read_manifest(content, f"{path}, {MANIFEST},")


def _digest(reader: TarReader, facts: FileFacts, sink: Sink) -> str:
    digest, left = hashlib.sha256(), facts.bytes
    while left and (piece := reader.read(min(left, PIECE_BYTES))):
        digest.update(piece)
        sink(piece)
        left -= len(piece)
    return digest.hexdigest() if not left else ""


@contextmanager
def _sink(into: Path | None, name: str) -> Iterator[Sink]:
    if into is None:
        yield len
        return
    target = into / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        yield file.write


def _unpack(path: Path, file: IO[bytes], key: Ed25519PublicKey, folder: Path, size: int) -> None:
    """Unpack into a hidden sibling that takes its name once every byte was verified."""
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        if shutil.disk_usage(partial).free < size:
            raise StorageError(f"Unpacking {path} needs {size} bytes at {folder}, which has less; free some space.")
        _verify_tar(path, file, key, partial)
        file.seek(0)
        reader = TarReader(file, path)
        for name, size_max in ((MANIFEST, MANIFEST_BYTES_MAX), (SIGNATURE, SIGNATURE_BYTES)):
            (partial / name).write_bytes(reader.first(name, size_max))
        fsync_tree(partial)
        partial.rename(folder)
        fsync_path(folder.parent)
    except OSError as error:
        text = f"Unpacking {path} into {folder} failed: {error.strerror or error}. Give another folder or free space."
        raise StorageError(text) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _alone_in(parent: Path) -> Iterator[None]:
    """Let one process at a time unpack into a folder."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StorageError(
            f"{parent} cannot be written ({error.strerror}); give another folder to unpack into."
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if not path.is_file():
        raise InputError(f"Expected a bundle, a folder or a .tar, at {path}, but there is none.")
    with path.open("rb") as file:
        yield file


def _small(path: Path, size_max: int) -> bytes:
    if not path.is_file():
        raise DamageError(f"{path} is missing, so that nothing says what the bundle should hold; get it again.")
    with path.open("rb") as file:
        content = file.read(size_max + 1)
    if len(content) > size_max:
        raise DamageError(f"{path} is larger than {size_max} bytes; that is none of a bundle's.")
    return content


def _changed(path: Path, name: str) -> DamageError:
    return DamageError(f"{name} in {path} is not what was signed: it was changed. Do not use the bundle, get it again.")


def _report(manifest: Manifest, content: bytes, key: Ed25519PublicKey) -> BundleReport:
    return BundleReport(
        manifest.name,
        manifest.made_at,
        manifest.made_by,
        key_id(key),
        len(manifest.files),
        manifest.size,
        manifest.policies,
        manifest.holds(BASE),
        manifest.holds(EMBODIMENT),
        manifest.holds(GUARD),
        hashlib.sha256(content).hexdigest(),
    )
