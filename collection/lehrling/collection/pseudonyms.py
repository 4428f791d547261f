"""Pseudonyms of operators: a keyed hash of the id that they give, so that data names nobody.

HMAC-SHA256 (RFC 2104) with a key that is kept outside the dataset: whoever has only the data cannot try names against it.
Whoever deletes the key makes the pseudonyms anonymous for good.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from pathlib import Path

from lehrling.collection.campaign_model import Campaign
from lehrling.datasets.errors import InputError

KEY_BYTES, KEY_BYTES_MAX = 32, 4096
PSEUDONYM_DIGITS = 12
GIVEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


def make_key(path: Path) -> None:
    """Write a new random key that only its owner can read.

    Raises:
        InputError: there is a file already; a new key would give every operator a new pseudonym.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise InputError(f"There is a key at {path} already; keep it, or operators change their pseudonyms.") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))


def read_key(path: Path, dataset: Path) -> bytes:
    """Read the key.

    Raises:
        InputError: there is none, it lies inside the dataset, others can read it, or it is too short.
    """
    if path.resolve().is_relative_to(dataset.resolve()):
        raise InputError(
            f"The operators' key {path} lies inside the dataset; keep it elsewhere, or it is shared with the data."
        )
    try:
        with path.open("rb") as file:
            mode, key = os.fstat(file.fileno()).st_mode, file.read(KEY_BYTES_MAX)
    except FileNotFoundError as error:
        raise InputError(
            f"Expected the operators' key at {path}, the same on every station. Make it once with "
            f"`(umask 077; head -c {KEY_BYTES} /dev/urandom > {path})` and copy it, or set operators.pseudonyms to `given`."
        ) from error
    except OSError as error:
        raise InputError(f"The operators' key {path} cannot be read: {error.strerror}.") from error
    if mode & 0o077:
        raise InputError(f"Others can read the operators' key {path}; `chmod 600 {path}`.")
    if len(key) < KEY_BYTES:
        raise InputError(f"Expected at least {KEY_BYTES} random bytes in the operators' key {path}, got {len(key)}.")
    return key


def pseudonym(campaign: Campaign, operator: str | None, dataset: Path) -> str | None:
    """Return what the data calls an operator; None where none is given.

    The same id has another pseudonym in another campaign, so that campaigns cannot be joined by operator.

    Raises:
        InputError: the key cannot be used, or a given pseudonym is not one word.
    """
    if operator is None or not operator.strip():
        return None
    name = operator.strip()
    if campaign.operators.pseudonyms == "given":
        if not GIVEN.fullmatch(name):
            raise InputError(
                f"Expected an operator's pseudonym of letters, digits, '_', '-' and '.', got {name[:40]!r}."
            )
        return name
    key = read_key(Path(campaign.operators.key_file), dataset)
    digest = hmac.new(key, f"{campaign.name}\0{name}".encode(), "sha256").hexdigest()
    return f"op-{digest[:PSEUDONYM_DIGITS]}"
