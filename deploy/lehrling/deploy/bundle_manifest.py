"""What a bundle's manifest says: every file with its size and hash."""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from lehrling.datasets.documents import explain, parse_json
from lehrling.datasets.errors import DamageError, DocumentError, InputError

MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
MANIFEST_BYTES_MAX, SIGNATURE_BYTES = 4 << 20, 129
FILES_MAX, BYTES_MAX = 10_000, 1 << 40
PATH_CHARACTERS_MAX = 100
"""What a tar's header has room for."""
PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
POLICIES, BASE, EMBODIMENT, GUARD = "policies", "base", "embodiment.yaml", "guard.yaml"


class FileFacts(BaseModel):
    """A file's size and hash."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bytes: Annotated[int, Field(ge=0, le=BYTES_MAX)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """manifest.json; `files` are by path below the bundle, with /."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lehrling_bundle: Literal[1] = 1
    name: Annotated[str, StringConstraints(max_length=128)]
    made_at: Annotated[str, StringConstraints(max_length=64)]
    made_by: Annotated[str, StringConstraints(max_length=64)]
    files: Annotated[dict[str, FileFacts], Field(min_length=1, max_length=FILES_MAX)]

    @field_validator("files")
    @classmethod
    def _contained(cls, files: dict[str, FileFacts]) -> dict[str, FileFacts]:
        for path in files:
            if problem := path_problem(path):
                raise ValueError(f"{path[:120]!r} {problem}")
        if sum(facts.bytes for facts in files.values()) > BYTES_MAX:
            raise ValueError(f"files of more than {BYTES_MAX} bytes in all")
        return files

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum(facts.bytes for facts in self.files.values())

    @property
    def policies(self) -> tuple[str, ...]:
        """The policies' names."""
        return tuple(sorted({path.split("/")[1] for path in self.files if path.startswith(f"{POLICIES}/")}))

    def holds(self, place: str) -> bool:
        """Whether there is such a file, or a folder with files."""
        return any(path == place or path.startswith(f"{place}/") for path in self.files)

    def encode(self) -> bytes:
        """Return the bytes that are signed."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True) + "\n").encode()


def path_problem(path: str) -> str:
    """Say what is wrong with a path in a bundle, "" where nothing is."""
    if len(path) > PATH_CHARACTERS_MAX:
        return f"is longer than {PATH_CHARACTERS_MAX} characters"
    if not all(PART.fullmatch(part) for part in path.split("/")):
        return "leads elsewhere, is hidden, or has other characters than letters, digits, '_', '-' and '.'"
    return "is the bundle's own" if path in (MANIFEST, SIGNATURE) else ""


def read_manifest(content: bytes, where: str) -> Manifest:
    """Read a manifest whose signature was verified; `where` names it in errors.

    Raises:
        DamageError: it is none.
    """
    try:
        return Manifest.model_validate(parse_json(content, where))
    except ValidationError as error:
        raise DamageError(explain(error, where, Manifest, "a bundle's manifest")) from error
    except (DocumentError, InputError) as error:
        raise DamageError(str(error)) from error
