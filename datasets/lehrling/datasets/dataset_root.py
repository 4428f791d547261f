"""A dataset's directory: what makes one, and what is refused as none."""

from __future__ import annotations

import json
from pathlib import Path

from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import InputError
from lehrling.datasets.files import MANIFEST, refuse_links, storage_error, write_durably

FORMAT = 1
GROUP = "zarr.json"
FOLDERS = ("episodes", "views")


def is_empty(root: Path) -> bool:
    """Whether a dataset can be created here: nothing is there, or an empty directory."""
    return not root.exists() or (root.is_dir() and not any(root.iterdir()))


def create_dataset(root: Path) -> None:
    """Create an empty dataset in a directory that is absent or empty.

    Raises:
        StorageError: the directory cannot be written.
    """
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    try:
        root.mkdir(parents=True, exist_ok=True)
        for folder in FOLDERS:
            (root / folder).mkdir(exist_ok=True)
            write_durably(root / folder / GROUP, json.dumps(group).encode())
        (root / MANIFEST).touch()
        facts = group | {"attributes": {"lehrling_dataset": FORMAT}}
        write_durably(root / GROUP, (json.dumps(facts) + "\n").encode())
    except OSError as error:
        raise storage_error(error, root) from error


def check_root(root: Path) -> None:
    """Refuse what is no dataset; what lies within an episode is looked at when it is opened.

    Raises:
        InputError: saying what is missing.
    """
    if not root.is_dir():
        raise InputError(f"Expected a dataset directory at {root}, but there is none.")
    try:
        data = read_json(root / GROUP)
        version = data["attributes"]["lehrling_dataset"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{root} is no Lehrling dataset: it has no {GROUP} that says so.") from None
    if data.get("zarr_format") != 3 or version != FORMAT:
        raise InputError(f"Expected dataset format {FORMAT} in {root}, got {version}; use the version that wrote it.")
    if not (root / MANIFEST).is_file():
        raise InputError(f"{root} has no {MANIFEST}; restore it from a backup, nothing else says what is valid.")
    refuse_links(root, depth=1)
