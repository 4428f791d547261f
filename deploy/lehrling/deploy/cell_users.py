"""Users of a cell's OPC UA server: names, roles, and passwords as scrypt hashes (RFC 7914).

A right password is remembered for the process by a keyed hash, so that only the first login of a user costs scrypt's
time; wrong ones are limited in number, so that guessing neither succeeds nor holds up the PLC.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from lehrling.datasets.documents import explain, read_model
from lehrling.datasets.errors import InputError
from lehrling.datasets.files import write_durably

Role = Literal["observer", "operator"]
ROLES: tuple[Role, ...] = ("observer", "operator")
PASSWORD_MIN, PASSWORD_MAX = 10, 200
_N, _R, _P, _BYTES = 1 << 14, 8, 1, 32
_HASH = r"^scrypt\$[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=$"
TRIES_MAX, TRIES_WINDOW_S = 5, 10.0


class User(BaseModel):
    """One user: who, what they may do, and the hash of the password."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    role: Role
    password: Annotated[str, StringConstraints(pattern=_HASH)]


class UserFile(BaseModel):
    """What a file of users holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users: Annotated[list[User], Field(min_length=1, max_length=100)]


def hash_password(password: str, salt: bytes | None = None) -> str:
    """Return a password's hash, with a new salt unless one is given."""
    salt = salt or secrets.token_bytes(16)
    digest = hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P, dklen=_BYTES)
    return f"scrypt${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def matches(password: str, hashed: str) -> bool:
    """Whether a password is the one that was hashed."""
    salt = base64.b64decode(hashed.split("$")[1])
    return hmac.compare_digest(hash_password(password, salt), hashed)


@dataclass
class Users:
    """The users that a server knows."""

    known: Sequence[User]
    clock: Callable[[], float] = time.monotonic
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    _right: dict[str, bytes] = field(default_factory=dict)
    _tries: deque[float] = field(default_factory=lambda: deque(maxlen=TRIES_MAX))

    @classmethod
    def read(cls, path: Path) -> Users:
        """Read a file of users.

        Raises:
            InputError: it is missing, or no file of users.
        """
        if not path.is_file():
            raise InputError(
                f"There is no file of users at {path}; make one with `lehrling cell-user NAME --users {path}`."
            )
        known = read_model(path, UserFile, "a file of users").users
        if len({user.name for user in known}) != len(known):
            raise InputError(f"{path}: expected every user once.")
        return cls(tuple(known))

    def check(self, name: str, password: str) -> User | None:
        """Return the user, or None where name or password is wrong, or too many were wrong lately."""
        if len(password) > PASSWORD_MAX:
            return None
        user = next((user for user in self.known if hmac.compare_digest(user.name.encode(), name.encode())), None)
        mark = hmac.digest(self._key, password.encode(), "sha256")
        if user is not None and hmac.compare_digest(self._right.get(user.name, b""), mark):
            return user
        now = self.clock()
        if len(self._tries) == TRIES_MAX and now - self._tries[0] < TRIES_WINDOW_S:
            return None
        right = matches(password, user.password if user is not None else self.known[0].password)
        if user is None or not right:
            self._tries.append(now)
            return None
        self._right[user.name] = mark
        return user


def add_user(path: Path, name: str, role: str, password: str | None = None) -> str:
    """Add a user to a file of users, which is made where there is none, readable by its owner alone; return the password.

    Raises:
        InputError: the name is taken or wrong, the role not known, or the password too short or long.
        StorageError: the file cannot be written.
    """
    known = list(Users.read(path).known) if path.exists() else []
    if any(user.name == name for user in known):
        raise InputError(f"{path} knows a user {name!r} already; choose another name, or take that one out.")
    chosen = password if password is not None else secrets.token_urlsafe(15)
    if not PASSWORD_MIN <= len(chosen) <= PASSWORD_MAX:
        raise InputError(f"Expected a password of {PASSWORD_MIN} to {PASSWORD_MAX} characters, got {len(chosen)}.")
    try:
        made = User.model_validate({"name": name, "role": role, "password": hash_password(chosen)})
    except ValidationError as error:
        raise InputError(explain(error, "the user", User, "a user")) from error
    content = {"users": [user.model_dump(mode="json") for user in (*known, made)]}
    write_durably(path, yaml.safe_dump(content, sort_keys=False).encode(), mode=0o600)
    return chosen
