"""Paths that a LeRobot dataset names in its metadata: filled in by rule, and never out of its folder."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lehrling.datasets.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

FIELD = re.compile(r"\{(video_key|image_key|chunk_index|file_index|episode_chunk|episode_index)(?::0?([1-9])d)?\}")
TEMPLATE_CHARACTERS_MAX = 200


def filled(template: str, values: dict[str, str | int]) -> str:
    """Fill a path template; of Python's format language only whole numbers with leading zeros are taken.

    Raises:
        InputError: it names something else.
    """

    def fill(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is None:
            raise InputError(f"Expected a path of {', '.join(values)}, got {template!r} in info.json.")
        return str(value).zfill(int(match[2] or 0)) if isinstance(value, int) else value

    found = FIELD.sub(fill, template) if len(template) <= TEMPLATE_CHARACTERS_MAX else "{"
    if "{" in found or "}" in found:
        raise InputError(f"Expected a path of {', '.join(values)}, got {template[:80]!r} in info.json.")
    return found


def inside(root: Path, relative: str) -> Path:
    """Return the path of a file of the dataset.

    Links may lead to the blobs beside a snapshot, as in Hugging Face's cache, and nowhere else.

    Raises:
        InputError: it leads out of the folder, or there is no such file.
    """
    refused = InputError(f"{relative[:120]!r} leads out of {root}; it is refused.")
    if relative.startswith("/") or not relative.isprintable():
        raise refused
    path = root / relative
    try:
        real, base = path.resolve(), root.resolve()
    except (OSError, RuntimeError) as error:
        raise refused from error
    homes = [base]
    if base.parent.name == "snapshots":
        homes.append(base.parent.parent / "blobs")
    if not any(real.is_relative_to(home) for home in homes):
        raise refused
    if not real.is_file():
        raise InputError(f"{root} lacks {relative[:200]}; copy the whole dataset.")
    return path
