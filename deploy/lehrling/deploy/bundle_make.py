"""Making a bundle: policies, base, embodiment and guard configuration, each checked, hashed, and signed together."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import DamageError, InputError, StorageError
from lehrling.datasets.files import checked_id, fsync_path, fsync_tree
from lehrling.deploy.bundle_keys import read_private, sign
from lehrling.deploy.bundle_manifest import (
    BASE,
    EMBODIMENT,
    FILES_MAX,
    GUARD,
    MANIFEST,
    MANIFEST_BYTES_MAX,
    POLICIES,
    SIGNATURE,
    FileFacts,
    Manifest,
    path_problem,
)
from lehrling.deploy.bundle_tar import END, header, padding
from lehrling.deploy.guard_limits import load_guard_config

POLICY_FILES = (
    "policy.json", "policy_head.safetensors", "adapter_config.json", "adapter_model.safetensors", "export.json",
    "README.md", "sbom.json", "policy.onnx", "policy.onnx.data", "model/*", "tokenizer/*",
)  # fmt: skip
"""What a policy or an export of one is; a run's checkpoints and logs stay behind."""
BASE_FILES = (
    "config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt",
    "special_tokens_map.json", "preprocessor_config.json", "processor_config.json", "chat_template*", "LICENSE*",
    "README.md",
)  # fmt: skip
PIECE_BYTES = 1 << 20


@dataclass(frozen=True)
class BundleParts:
    """What goes in.

    Attributes:
        policies: folders by name.
        base: folder of the weights that the policies stand on, where it is to come along.
        embodiment: shipped name or YAML file.
        guard: guard configuration (YAML).
    """

    policies: Mapping[str, Path]
    base: Path | None = None
    embodiment: str | None = None
    guard: Path | None = None
    name: str = field(default="")


Content = Path | bytes


def make_bundle(parts: BundleParts, out: Path, private_key: Path) -> Manifest:
    """Write a signed bundle, a folder or, where `out` ends in .tar, an archive; return its manifest.

    Raises:
        InputError: a part is missing or not what it should be, or `out` is there.
        DamageError: a file changed while it was read.
        StorageError: the disk is full or failed.
    """
    key = read_private(private_key)
    if out.exists() or out.is_symlink():
        raise InputError(f"Expected a bundle that is not there yet, but {out} is; give another name or remove it.")
    contents = dict(sorted(_contents(parts)))
    if len(contents) > FILES_MAX:
        raise InputError(f"Expected at most {FILES_MAX} files in a bundle, got {len(contents)}; leave some out.")
    manifest = Manifest(
        name=parts.name or out.name.removesuffix(".tar"),
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        made_by=f"lehrling-deploy {metadata.version('lehrling-deploy')}",
        files={path: _facts(content) for path, content in contents.items()},
    )
    partial = out.with_name(f".{out.name}.partial")
    try:
        _write(partial, manifest, contents, key, archive=out.suffix == ".tar")
        partial.rename(out)
        fsync_path(out.parent)
    except OSError as error:
        text = f"Writing {out} failed: {error.strerror or error}; nothing was written. Check the disk and its space."
        raise StorageError(text) from error
    finally:
        _remove(partial)
    return manifest


def _contents(parts: BundleParts) -> Iterator[tuple[str, Content]]:
    """Yield every file's path in the bundle and where its content is."""
    if not parts.policies:
        raise InputError("Expected at least one policy's folder, got none.")
    for name, folder in parts.policies.items():
        if not (folder / "policy.json").is_file():
            raise InputError(f"Expected a policy (a directory with policy.json) at {folder}, but there is none.")
        yield from _files(folder, POLICY_FILES, f"{POLICIES}/{checked_id(name)}")
    if parts.base is not None:
        if not (parts.base / "config.json").is_file():
            raise InputError(f"Expected a base (a directory with config.json) at {parts.base}, but there is none.")
        yield from _files(parts.base, BASE_FILES, BASE)
    if parts.embodiment is not None:
        loaded = load_embodiment(parts.embodiment)
        given = Path(parts.embodiment)
        text = yaml.safe_dump(loaded.model_dump(mode="json"), sort_keys=False).encode()
        yield EMBODIMENT, given.read_bytes() if given.is_file() else text
    if parts.guard is not None:
        load_guard_config(parts.guard)
        yield GUARD, parts.guard.read_bytes()


def _files(folder: Path, patterns: tuple[str, ...], place: str) -> Iterator[tuple[str, Content]]:
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(found):
        name = f"{place}/{path.relative_to(folder).as_posix()}"
        if problem := path_problem(name):
            raise InputError(f"{path} cannot go into a bundle: {name!r} {problem}; rename it.")
        yield name, path


def _facts(content: Content) -> FileFacts:
    if isinstance(content, bytes):
        return FileFacts(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    with content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileFacts(bytes=file.tell(), sha256=digest)


def _write(
    partial: Path, manifest: Manifest, contents: Mapping[str, Content], key: Ed25519PrivateKey, *, archive: bool
) -> None:
    encoded = manifest.encode()
    if len(encoded) > MANIFEST_BYTES_MAX:
        raise InputError(
            f"Expected a manifest of at most {MANIFEST_BYTES_MAX} bytes, got {len(encoded)}; leave files out."
        )
    own: dict[str, Content] = {MANIFEST: encoded, SIGNATURE: sign(key, encoded)}
    _remove(partial)
    partial.parent.mkdir(parents=True, exist_ok=True)
    if archive:
        with partial.open("wb") as file:
            for name, content in (own | dict(contents)).items():
                facts = manifest.files.get(name) or _facts(content)
                file.write(header(name, facts.bytes))
                _copy(name, content, facts, file)
                file.write(padding(facts.bytes))
            file.write(END)
        fsync_path(partial)
        return
    for name, content in (own | dict(contents)).items():
        target = partial / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            _copy(name, content, manifest.files.get(name) or _facts(content), file)
    fsync_tree(partial)


def _copy(name: str, content: Content, facts: FileFacts, out: IO[bytes]) -> None:
    """Copy a file and compare it with what the manifest says of it.

    Raises:
        DamageError: it changed since it was hashed.
    """
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(content):
        digest.update(piece)
        size += len(piece)
        out.write(piece)
    if (size, digest.hexdigest()) != (facts.bytes, facts.sha256):
        raise DamageError(f"{name} changed while the bundle was written; nothing was written, try again.")


def _pieces(content: Content) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
