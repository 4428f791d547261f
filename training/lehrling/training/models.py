"""Loading a backbone: allow-list, pinned revisions, no code from outside, weights as safetensors with their hashes."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from lehrling.datasets.errors import InputError
from lehrling.training.families import Family, family_of

BUILTIN = "builtin:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
REVISION = re.compile(r"[0-9a-f]{40}")
FORBIDDEN_KEYS = ("auto_map", "trust_remote_code", "custom_pipelines", "custom_generate", "quantization_config")
FORBIDDEN_PREFIX = "_attn_implementation"
CONFIG_BYTES_MAX = 1 << 20
PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt",
            "special_tokens_map.json", "preprocessor_config.json", "policy_start.json", "LICENSE*", "README.md")  # fmt: skip


@dataclass(frozen=True)
class Base:
    """A backbone's identity.

    Attributes:
        source: as given: path, `builtin:` name or hub id.
        directory: where its files lie.
        hashes: file name -> sha256, of configuration, tokenizer and weights.
    """

    source: str
    revision: str | None
    directory: Path
    model_type: str
    hashes: dict[str, str]

    @property
    def weights_hash(self) -> str:
        """sha256 over names and hashes of all weight files."""
        digest = hashlib.sha256()
        for name, value in sorted(self.hashes.items()):
            if name.endswith(".safetensors"):
                digest.update(f"{name} {value}\n".encode())
        return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def forbidden_key(data: object, path: str = "") -> str | None:
    """Return the path of the first key that could make a loader run foreign code, at any depth, or None."""
    if isinstance(data, dict):
        for key, value in data.items():
            where = f"{path}.{key}" if path else str(key)
            if key in FORBIDDEN_KEYS or str(key).startswith(FORBIDDEN_PREFIX):
                return where
            if found := forbidden_key(value, where):
                return found
    if isinstance(data, list):
        for index, value in enumerate(data):
            if found := forbidden_key(value, f"{path}[{index}]"):
                return found
    return None


def _directory(source: str, revision: str | None) -> Path:
    if source.startswith(BUILTIN):
        return Path(str(files("lehrling.training") / "bases" / source.removeprefix(BUILTIN)))
    if Path(source).is_dir():
        return Path(source)
    if not HUB_ID.fullmatch(source):
        raise InputError(
            f"Expected a local directory, {BUILTIN}base, or a hub id such as Qwen/Qwen3-VL-2B-Instruct, got {source!r}."
        )
    if revision is None or not REVISION.fullmatch(revision):
        raise InputError(
            f"Expected base.revision to pin {source} to a commit of 40 hex digits, got {revision!r}; "
            "a branch or tag can change under a running plant."
        )
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source, revision=revision, allow_patterns=list(PATTERNS)))


def _configuration(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.is_file():
        raise InputError(f"Expected a checkpoint with a config.json at {directory}, but there is none.")
    if path.stat().st_size > CONFIG_BYTES_MAX:
        raise InputError(f"{path} is larger than {CONFIG_BYTES_MAX} bytes; that is no model configuration.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}.") from error
    if not isinstance(data, dict):
        raise InputError(f"Expected an object in {path}, got {type(data).__name__}.")
    return data


def check(source: str, revision: str | None = None) -> Base:
    """Check a backbone without loading it: every rule that `load_backbone` enforces.

    Raises:
        InputError: unpinned hub id, no directory, unlisted `model_type`, a key that runs code, or no safetensors.
    """
    directory = _directory(source, revision)
    config = _configuration(directory)
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"):
        path = directory / name
        found = forbidden_key(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
        if found:
            raise InputError(
                f"{path} holds the key {found!r}, which can make a loader run foreign code; it is refused. "
                "Use the family's native checkpoint, or remove the key after reviewing it."
            )
    family: Family = family_of(str(config.get("model_type")))
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise InputError(f"Expected weights as *.safetensors in {directory}; pickled weights are never loaded.")
    named = [*weights, *(p for p in (directory / n for n in ("config.json", "tokenizer.json")) if p.is_file())]
    return Base(source, revision, directory, family.model_type, {p.name: _sha256(p) for p in named})


def load_backbone(source: str, revision: str | None = None, *, dtype: str = "float32") -> tuple[Any, Any, Base]:
    """Load a backbone and its tokenizer from a directory or a pinned hub revision.

    Returns:
        The model (`AutoModelForImageTextToText`), the tokenizer, and what was loaded.

    Raises:
        InputError: any rule of `check`.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoTokenizer
    from transformers.utils import logging

    base = check(source, revision)
    kept = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            base.directory,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(base.directory, trust_remote_code=False, local_files_only=True)
    finally:
        logging.set_verbosity(kept)
    model.eval()
    return model, tokenizer, base


def pixel_statistics(base: Base) -> tuple[tuple[float, float, float], tuple[float, float, float]] | None:
    """Return image mean and standard deviation from the checkpoint's processor configuration, if it has one."""
    path = base.directory / "preprocessor_config.json"
    if not path.is_file():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    if "image_mean" not in data or "image_std" not in data:
        return None
    mean, std = tuple(map(float, data["image_mean"])), tuple(map(float, data["image_std"]))
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])
