"""The contract check: what commands the robot must mean the same axes, units and statistics as the guard."""

from __future__ import annotations

from dataclasses import dataclass

from lehrling.datasets.errors import ContractError


@dataclass(frozen=True)
class Claim:
    """What a client says its commands mean.

    Attributes:
        contract_hash: sha256 of the embodiment's contract.
        names, units: of the command vector, in its order.
        statistics_hash: of the normalisation that its policy undoes; empty where there is none (teleoperation).
        model_hash: of the policy; empty where there is none.
    """

    contract_hash: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    statistics_hash: str = ""
    model_hash: str = ""


def check_claim(expected: Claim, offered: Claim) -> None:
    """Refuse a claim that differs.

    Raises:
        ContractError: saying what was expected and what came.
    """
    if problem := difference(expected, offered):
        raise ContractError(problem)


def difference(expected: Claim, offered: Claim) -> str:
    """Return a sentence that says where a claim first differs, or an empty string."""
    if set(offered.names) != set(expected.names):
        missing, extra = set(expected.names) - set(offered.names), set(offered.names) - set(expected.names)
        return f"Expected commands for the axes {_list(expected.names)}; {_lack(missing, extra)}."
    for index, (ours, theirs) in enumerate(zip(expected.names, offered.names, strict=True)):
        if ours != theirs:
            return f"Expected {ours!r} as element {index} of a command, got {theirs!r}; the order of the axes differs."
    if len(offered.units) != len(expected.units):
        return f"Expected {len(expected.units)} units, one per axis, got {len(offered.units)}."
    for name, ours, theirs in zip(expected.names, expected.units, offered.units, strict=True):
        if ours != theirs:
            return f"Expected {name!r} in {ours}, got {theirs}; convert the commands before they are sent."
    for what in ("contract", "statistics", "model"):
        ours, theirs = getattr(expected, f"{what}_hash"), getattr(offered, f"{what}_hash")
        if ours != theirs:
            return (
                f"Expected the {what} with hash {_short(ours)}, got {_short(theirs)}; use what belongs to this robot."
            )
    return ""


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names[:12]) + (" …" if len(names) > 12 else "")


def _lack(missing: set[str], extra: set[str]) -> str:
    parts = []
    if missing:
        parts.append(f"{_list(tuple(sorted(missing)))} missing")
    if extra:
        parts.append(f"{_list(tuple(sorted(extra)))} not among them")
    return ", ".join(parts)


def _short(value: str) -> str:
    return f"{value[:12]}…" if value else "none"
