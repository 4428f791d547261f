"""API keys of the policy server: kept as hashes, with scopes and an end.

A key is 32 random bytes, so that a plain SHA-256 of it tells nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lehrling.datasets.documents import explain, read_model
from lehrling.datasets.errors import InputError
from lehrling.datasets.files import write_durably

Scope = Literal["infer", "metrics"]
SCOPES: tuple[Scope, ...] = ("infer", "metrics")
SCHEME = "Api-Key"


class Key(BaseModel):
    """One key: who has it, what it may do, and until when."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    scopes: frozenset[Scope] = frozenset({"infer"})
    expires: AwareDatetime | None = None


class KeyFile(BaseModel):
    """What a key file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: Annotated[list[Key], Field(min_length=1, max_length=1000)]


@dataclass(frozen=True)
class Refusal:
    """Why a request is refused: an HTTP status and a sentence."""

    status: int
    text: str


@dataclass(frozen=True)
class Keys:
    """The keys that a server takes; without any, everybody may do everything."""

    known: tuple[Key, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Keys:
        """Read a key file.

        Raises:
            InputError: it is missing, or no key file.
        """
        return cls(tuple(read_model(path, KeyFile, "a file of API keys").keys))

    def check(self, authorization: Sequence[str], scope: Scope, now: datetime | None = None) -> Key | Refusal | None:
        """Return the key of a request's Authorization headers, why it is refused, or None where none is needed."""
        if not self.known:
            return None
        scheme, _, given = authorization[0].partition(" ") if len(authorization) == 1 else ("", "", "")
        if scheme.lower() not in (SCHEME.lower(), "bearer") or not given:
            return Refusal(401, f"Expected one header `Authorization: {SCHEME} <key>`.")
        digest = hashlib.sha256(given.strip().encode()).hexdigest()
        matches = [key for key in self.known if hmac.compare_digest(key.sha256, digest)]
        if not matches:
            return Refusal(401, "The API key is not known.")
        key = matches[0]
        if key.expires is not None and key.expires <= (now or datetime.now(UTC)):
            return Refusal(401, f"The API key {key.name!r} ended on {key.expires:%Y-%m-%d %H:%M %Z}.")
        if scope not in key.scopes:
            return Refusal(403, f"The API key {key.name!r} may not {scope}.")
        return key


def add_key(path: Path, name: str, scopes: Sequence[str], days: int | None) -> str:
    """Add a new key to a key file, which is made where there is none, readable by its owner alone; return the key.

    Raises:
        InputError: the name is taken or wrong, or a scope is not known.
        StorageError: the file cannot be written.
    """
    known = list(Keys.read(path).known) if path.exists() else []
    if any(key.name == name for key in known):
        raise InputError(f"{path} knows a key {name!r} already; choose another name, or take that one out.")
    secret, digest = new_key()
    expires = datetime.now(UTC) + timedelta(days=days) if days is not None else None
    try:
        made = Key.model_validate({"name": name, "sha256": digest, "scopes": list(scopes), "expires": expires})
    except ValidationError as error:
        raise InputError(explain(error, "the key", Key, "a key")) from error
    content = {"keys": [key.model_dump(mode="json", exclude_none=True) for key in (*known, made)]}
    write_durably(path, yaml.safe_dump(content, sort_keys=False).encode(), mode=0o600)
    return secret


def new_key() -> tuple[str, str]:
    """Return a new key and its hash, which is what a key file holds."""
    key = secrets.token_urlsafe(32)
    return key, hashlib.sha256(key.encode()).hexdigest()
