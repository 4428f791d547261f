"""Policies as `serve` and `run` take them: folders, or signed bundles, verified whole before anything in them is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

BundleKey = Annotated[
    Path | None, typer.Option("--bundle-key", help="Public key (.pub) of who made the bundle; a bundle needs it.")
]


@dataclass(frozen=True)
class PolicySource:
    """Where policies lie, and what they need.

    Attributes:
        policies: folders by name.
        base: where their base lies; None: where it lay in training.
        embodiment, guard: files that a bundle brings along.
    """

    policies: dict[str, Path]
    base: str | None
    embodiment: Path | None = None
    guard: Path | None = None

    @property
    def words(self) -> list[str]:
        """The policies as `serve` takes them."""
        return [f"{name}={folder}" for name, folder in self.policies.items()]


def find_policies(words: list[str], key: Path | None, base: str | None) -> PolicySource:
    """Find policies in `NAME=FOLDER`, folders and bundles, which are verified first; a given base goes before a bundle's.

    Raises:
        InputError: a bundle without a key, a key where there is no bundle, several bases, or an ONNX export.
        DamageError: a bundle is not what was signed by that key.
        StorageError: a bundle's archive cannot be unpacked beside it.
    """
    from lehrling.datasets.errors import InputError
    from lehrling.deploy.policy_server import named
    from lehrling.training.export_facts import own_base

    folders = {word: _opened(word, key) for word in words}
    policies = named([policy for word in words for policy in _policies(word, folders[word])])
    if graphs := [folder for folder in policies.values() if _is_graph(folder)]:
        raise InputError(
            f"{graphs[0]} is an ONNX export, which `eval` and onnxruntime run; serve a merged export instead."
        )
    bundles = [folder for folder in folders.values() if folder is not None]
    bases = {str(folder / "base") for folder in bundles if (folder / "base").is_dir()}
    bases |= {own for folder in policies.values() if (own := own_base(folder))}
    if len(bases) > 1 and base is None:
        raise InputError(f"Expected policies of one base, got those of {' and '.join(sorted(bases))}; say --base.")
    more = {name: _only(bundles, f"{name}.yaml") for name in ("embodiment", "guard")}
    return PolicySource(policies, base or next(iter(bases), None), **more)


def _opened(word: str, key: Path | None) -> Path | None:
    """Return the folder of a bundle once it is verified, None for a policy's folder."""
    from lehrling.datasets.errors import InputError

    name, said, rest = word.partition("=")
    path = Path(rest if said else word)
    if not is_bundle(path):
        if key is not None:
            raise InputError(f"Expected a bundle for --bundle-key, but {path} is none; leave the key out, or give one.")
        return None
    if said:
        raise InputError(f"{path} is a bundle, which names its policies itself; leave {name}= out.")
    if key is None:
        raise InputError(f"{path} is a bundle; give --bundle-key FILE, the public key of who made it.")
    from lehrling.cli.output import say
    from lehrling.deploy.bundle import open_bundle
    from lehrling.deploy.bundle_keys import key_id, read_public

    folder = open_bundle(path, key)
    say(f"{path} is as key {key_id(read_public(key))} signed it")
    return folder


def is_bundle(path: Path) -> bool:
    """Whether it is an archive, or a folder with anything of a bundle's manifest."""
    from lehrling.deploy.bundle_manifest import MANIFEST, SIGNATURE

    return path.is_file() or path.suffix == ".tar" or any((path / name).exists() for name in (MANIFEST, SIGNATURE))


def _policies(word: str, bundle: Path | None) -> list[str]:
    """Return the policies of a word, as `NAME=FOLDER` where a bundle names them; graphs beside others are for other programs."""
    if bundle is None:
        return [word]
    found = sorted(path.parent for path in (bundle / "policies").glob("*/policy.json"))
    return [f"{path.name}={path}" for path in [p for p in found if not _is_graph(p)] or found]


def _is_graph(folder: Path) -> bool:
    from lehrling.training.export_facts import read_export

    return read_export(folder).get("kind") == "onnx"


def _only(bundles: list[Path], name: str) -> Path | None:
    """Return a file that one bundle alone brings along."""
    found = [bundle / name for bundle in bundles if (bundle / name).is_file()]
    return found[0] if len(found) == 1 else None
