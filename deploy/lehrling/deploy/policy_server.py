"""From policy folders to a server: what the clients see of each, and the log of a shadow."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lehrling.datasets.embodiment import Contract, canonical_hash
from lehrling.datasets.errors import InputError, StorageError
from lehrling.datasets.view_spec import ViewSpec
from lehrling.deploy.requests import Request, Served
from lehrling.deploy.server import PolicyServer, ServeOptions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lehrling.training.artefact import Description


def named(policies: list[str]) -> dict[str, Path]:
    """Return policies by name, from `NAME=FOLDER` or a folder, whose own name then counts.

    Raises:
        InputError: a name is there twice, or empty.
    """
    found: dict[str, Path] = {}
    for word in policies:
        name, _, folder = word.partition("=") if "=" in word else (_name(Path(word)), "", word)
        if not name or name in found:
            raise InputError(
                f"Expected a name of its own for every policy, got {name!r} twice or none; write NAME=FOLDER."
            )
        found[name] = Path(folder)
    return found


def _name(folder: Path) -> str:
    """Return a folder's name; `policy`, as training calls it, says less than the run's."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "policy" else folder.name


def served(name: str, description: Description, spec: Any, model_hash: str = "") -> Served:
    """Return a policy as clients see it."""
    statistics = canonical_hash({"state": description.state, "action": description.action})
    view, contract = _view(name, description.view), _contract(name, description.contract)
    return Served(name, spec, view, contract, statistics, model_hash)


def _view(name: str, data: Mapping[str, Any]) -> ViewSpec | None:
    try:
        return ViewSpec.model_validate(data) if data else None
    except ValidationError as error:
        raise InputError(f"Policy {name!r}: its view is malformed ({error.errors()[0]['msg']}).") from error


def _contract(name: str, data: Mapping[str, Any]) -> str:
    try:
        return Contract.model_validate(data).hash if data else ""
    except ValidationError as error:
        raise InputError(f"Policy {name!r}: its contract is malformed ({error.errors()[0]['msg']}).") from error


class ShadowLog:
    """Writes what a policy would have done, one JSON line a request, beside what was done instead."""

    def __init__(self, path: Path) -> None:
        """Open the file to append.

        Raises:
            StorageError: it cannot be written.
        """
        self.path = path
        try:
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            raise StorageError(f"Cannot write the shadow log {path}: {error.strerror or error}.") from error

    def __call__(self, request: Request, actions: NDArray[np.float32]) -> None:
        """Write one request.

        Raises:
            StorageError: the disk is full or failed; the client is told.
        """
        line = {
            "at": time.time(),
            "adapter": request.adapter,
            "obs_stamp": request.stamp_s,
            "step": request.step,
            "instruction": request.observation.instruction,
            "state": request.observation.state.tolist(),
            "actions": actions.tolist(),
            "executed": None if request.executed is None else request.executed.tolist(),
        }
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise StorageError(f"The shadow log {self.path} cannot be written: {error.strerror or error}.") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def make_server(
    policies: Mapping[str, Path],
    options: ServeOptions,
    *,
    base: str | None = None,
    device: str = "cpu",
    shadow: ShadowLog | None = None,
) -> PolicyServer:
    """Load policies and return their server, not yet started.

    Raises:
        InputError: a folder holds no policy, or they stand on different bases.
    """
    from lehrling.training.adapters import AdapterBank
    from lehrling.training.artefact import artefact_hash

    bank = AdapterBank(policies, base=base, device=device)
    hashes = {name: artefact_hash(policies[name]) for name in bank.names}
    shown = {name: served(name, bank.descriptions[name], bank.spec(name), hashes[name]) for name in bank.names}
    return PolicyServer(bank, shown, options, shadow)
