"""What an exported policy's folder says of itself, read without loading anything of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lehrling.datasets.documents import read_json
from lehrling.datasets.errors import InputError

FACTS, MODEL = "export.json", "model"
FACTS_BYTES_MAX = 16 << 20


def read_export(directory: Path) -> dict[str, Any]:
    """Return the content of export.json, empty where there is none.

    Raises:
        InputError: it is no export's.
    """
    path = directory / FACTS
    if not path.is_file():
        return {}
    facts = read_json(path, "export", bytes_max=FACTS_BYTES_MAX)
    if not isinstance(facts, dict) or not isinstance(facts.get("kind"), str):
        raise InputError(f"Expected {path} to say what kind of export it is, but it does not; export the policy again.")
    return facts


def own_base(directory: Path) -> str | None:
    """Return the base that a policy brings along, as merged ones do, wherever its folder was moved."""
    return str(directory / MODEL) if (directory / MODEL / "config.json").is_file() else None
