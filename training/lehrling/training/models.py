"""Loading a backbone: allow-list, pinned revisions, no code from outside, weights as safetensors with their hashes."""

from __future__ import annotations

import hashlib
import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from lehrling.datasets.documents import explain, read_json
from lehrling.datasets.errors import InputError
from lehrling.datasets.files import sha256_file
from lehrling.training.families import Family, family_of

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
BUILTIN = "builtin:"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
SHARD = re.compile(r"[\w.-]{1,200}\.safetensors")
REVISION = re.compile(r"[0-9a-f]{40}")
FORBIDDEN_KEYS = (
    "auto_map",
    "trust_remote_code",
    "custom_pipelines",
    "custom_generate",
    "quantization_config",
    "transformers_weights",
)
FORBIDDEN_PREFIXES = (
    "_attn_implementation", "attn_implementation", "_experts_implementation", "experts_implementation",
)  # fmt: skip
"""They may name a kernel of the hub."""
CONFIG_BYTES_MAX, OTHER_CONFIG_BYTES_MAX, INDEX_BYTES_MAX = 1 << 20, 16 << 20, 64 << 20
PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "vocab*", "merges.txt",
            "special_tokens_map.json", "preprocessor_config.json", "processor_config.json", "policy_start.json",
            "LICENSE*", "README.md")  # fmt: skip
HASHED = ("config.json", "tokenizer.json", "preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Base:
    """A backbone's identity.

    Attributes:
        source: as given: path, `builtin:` name or hub id.
        revision: the commit of a hub id, None of what lies on this machine.
        directory: where its files lie.
        hashes: file name -> sha256, of configuration, tokenizer, image processor and weights.
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


def forbidden_key(data: object, path: str = "") -> str | None:
    """Return the path of the first key that could make a loader run foreign code, at any depth, or None."""
    if isinstance(data, dict):
        for key, value in data.items():
            where = f"{path}.{key}" if path else str(key)
            if key in FORBIDDEN_KEYS or str(key).startswith(FORBIDDEN_PREFIXES):
                return where
            if found := forbidden_key(value, where):
                return found
    if isinstance(data, list):
        for index, value in enumerate(data):
            if found := forbidden_key(value, f"{path}[{index}]"):
                return found
    return None


def is_local(source: str) -> bool:
    """Tell whether a source lies on this machine; a directory goes before a hub id of the same name."""
    return source.startswith(BUILTIN) or Path(source).is_dir()


def _directory(source: str, revision: str | None, fetch: bool) -> Path:
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
    return _snapshot(source, revision, fetch)


def _snapshot(source: str, revision: str, fetch: bool) -> Path:
    """Return where a hub id's files lie, downloading what is missing only with `fetch`."""
    import huggingface_hub

    try:
        found = huggingface_hub.snapshot_download(
            source, revision=revision, allow_patterns=list(PATTERNS), local_files_only=not fetch
        )
    except Exception as error:
        if not fetch:
            raise InputError(
                f"Expected {source} at revision {revision} in this machine's cache, because nothing is downloaded to "
                f"run a policy; bring it with `lehrling models check {source} --revision {revision}`."
            ) from error
        raise InputError(
            f"{source} cannot be fetched from the hub ({_first_line(error)}); check the network and the id, or give a "
            "local directory."
        ) from error
    return Path(found)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _configuration(path: Path, bytes_max: int = OTHER_CONFIG_BYTES_MAX) -> dict[str, Any]:
    """Read one of a checkpoint's configurations, which must not hold a key that runs code."""
    data = read_json(path, "model configuration", bytes_max=bytes_max)
    if not isinstance(data, dict):
        raise InputError(f"Expected an object in {path}, got {type(data).__name__}.")
    if found := forbidden_key(data):
        raise InputError(
            f"{path} holds the key {found!r}, which can make a loader run foreign code; it is refused. "
            "Use the family's native checkpoint, or remove the key after reviewing it."
        )
    return data


def _refuse_detours(directory: Path) -> None:
    """Refuse what leads transformers to other weights than the safetensors that lie here."""
    adapter = directory / "adapter_config.json"
    if adapter.exists():
        raise InputError(
            f"Expected a base without adapters, got {adapter}, which names a base of its own; merge the adapter, or give "
            "the base."
        )
    for path in sorted(directory.glob("*.safetensors.index.json")):
        index = read_json(path, "index of weights", bytes_max=INDEX_BYTES_MAX)
        shards = index.get("weight_map") if isinstance(index, dict) else None
        names = shards.values() if isinstance(shards, dict) else [shards]
        foreign = [name for name in names if not (isinstance(name, str) and SHARD.fullmatch(name))]
        if foreign:
            raise InputError(
                f"Expected names of *.safetensors beside {path}, got {reprlib.repr(foreign[0])}; restore it."
            )


def check(source: str, revision: str | None = None, *, fetch: bool = True) -> Base:
    """Check a backbone without loading it: every rule that `load_backbone` enforces.

    Raises:
        InputError: unpinned hub id, no directory, unlisted `model_type`, a key that runs code, or no safetensors; without
            `fetch` also a hub id whose files are not on this machine.
    """
    directory = _directory(source, revision, fetch)
    path = directory / "config.json"
    if not path.is_file():
        raise InputError(f"Expected a checkpoint with a config.json at {directory}, but there is none.")
    config = _configuration(path, CONFIG_BYTES_MAX)
    for other in sorted(directory.glob("*_config.json")):
        _configuration(other)
    _refuse_detours(directory)
    family: Family = family_of(str(config.get("model_type")), str(path))
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise InputError(f"Expected weights as *.safetensors in {directory}; pickled weights are never loaded.")
    named = [*weights, *(p for p in (directory / n for n in HASHED) if p.is_file())]
    hashes = {p.name: sha256_file(p) for p in named}
    return Base(source, None if is_local(source) else revision, directory, family.model_type, hashes)


def load_backbone(
    source: str, revision: str | None = None, *, dtype: str = "float32", fetch: bool = True
) -> tuple[Any, Any, Base]:
    """Load a backbone and its tokenizer from a directory or a pinned hub revision.

    Returns:
        The model (`AutoModelForImageTextToText`), the tokenizer, and what was loaded.

    Raises:
        InputError: any rule of `check`, or files that are broken, incomplete, or do not fit each other.
    """
    base = check(source, revision, fetch=fetch)
    try:
        with _quiet():
            model, tokenizer, lacking = _load(base.directory, dtype)
    except Exception as error:
        raise InputError(
            f"The {base.model_type} checkpoint at {base.directory} cannot be loaded ({type(error).__name__}: "
            f"{_first_line(error)}); restore its files."
        ) from error
    if lacking:
        raise InputError(
            f"The weights at {base.directory} lack {lacking[0]} and {len(lacking) - 1} more, which would be left at "
            "random; restore them, or use the checkpoint that config.json belongs to."
        )
    model.eval()
    return model, tokenizer, base


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and warnings off stderr: what matters of them is checked and told in our words."""
    from transformers.utils import logging

    kept = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(kept)


def _load(directory: Path, dtype: str) -> tuple[Any, Any, list[str]]:
    """Return model, tokenizer, and the names of tensors that the files lack."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    options = local | {"dtype": getattr(torch, dtype), "use_safetensors": True, "output_loading_info": True}
    model, report = AutoModelForImageTextToText.from_pretrained(directory, **options)
    return model, AutoTokenizer.from_pretrained(directory, **local), sorted(report["missing_keys"])


class _Pixels(BaseModel):
    """What a processor's configuration says of normalisation."""

    image_mean: tuple[float, float, float]
    image_std: tuple[_Positive, _Positive, _Positive]


def pixel_statistics(base: Base) -> tuple[tuple[float, float, float], tuple[float, float, float]] | None:
    """Return image mean and standard deviation from the checkpoint's processor configuration, if it has one.

    transformers 5 writes it as `image_processor` into processor_config.json, earlier ones a file of its own.
    """
    for name, key in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        path = base.directory / name
        data = _configuration(path) if path.is_file() else {}
        inner = data if key is None else data.get(key)
        if not isinstance(inner, dict) or "image_mean" not in inner or "image_std" not in inner:
            continue
        try:
            pixels = _Pixels.model_validate(inner)
        except ValidationError as error:
            raise InputError(explain(error, str(path), _Pixels, "a processor configuration")) from error
        return pixels.image_mean, pixels.image_std
    return None
