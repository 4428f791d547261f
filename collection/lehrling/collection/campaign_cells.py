"""The cells of a campaign: every combination of task and variation that is wanted, and how many episodes of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from lehrling.collection.campaign_model import Campaign, Task, Variation
from lehrling.datasets.errors import InputError

CELLS_MAX = 20_000


@dataclass(frozen=True)
class Key:
    """Names a cell.

    Attributes:
        variation: (axis, value) in the order of the axes' names.
        holder: the robot or station that has to fill it; empty where any may.
    """

    task: str
    variation: tuple[tuple[str, str], ...]
    holder: str = ""

    def __str__(self) -> str:
        values = ", ".join(f"{axis} {value}" for axis, value in self.variation)
        return " · ".join(part for part in (self.task, values, self.holder) if part)


@dataclass(frozen=True)
class Cell:
    """A cell and its quota."""

    key: Key
    quota: int


def variation_key(variation: Variation) -> tuple[tuple[str, str], ...]:
    """Return a variation as it names a cell."""
    return tuple(sorted(variation.items()))


def cells_of(campaign: Campaign) -> tuple[Cell, ...]:
    """Return all cells in the order of the file.

    Raises:
        InputError: a quota cannot be met: no cell or no station is left, or a share comes to less than one episode.
    """
    found = list[Cell]()
    for task in campaign.tasks:
        found += _task_cells(campaign, task, CELLS_MAX - len(found))
    return tuple(found)


def _task_cells(campaign: Campaign, task: Task, room: int) -> list[Cell]:
    stations = campaign.able(task)
    if not stations:
        raise InputError(
            f"Task {task.name!r} has a quota, but no station can do it; add it to a station's tasks or its robot to `robots`."
        )
    holders = {"campaign": [""], "robot": [s.robot for s in stations], "station": [s.id for s in stations]}[task.per]
    wanted = list(dict.fromkeys(holders))
    size = math.prod(len(values) for values in task.variations.values()) * len(wanted)
    if size > room:
        raise InputError(
            f"Task {task.name!r} has {size} combinations, more than the {CELLS_MAX} of a campaign; split it."
        )
    keys = [
        Key(task.name, variation_key(variation), holder)
        for variation in _product(task)
        if not any(_matches(rule, variation) for rule in task.exclude)
        for holder in wanted
    ]
    if not keys:
        raise InputError(f"Task {task.name!r} has a quota, but `exclude` leaves no combination; take a rule out.")
    return [Cell(key, quota) for key, quota in zip(keys, _quotas(task, keys), strict=True)]


def _product(task: Task) -> list[Variation]:
    axes = list(task.variations)
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*task.variations.values())]


def _matches(rule: Variation, variation: Variation) -> bool:
    return all(variation[axis] == value for axis, value in rule.items())


def _quotas(task: Task, keys: Sequence[Key]) -> list[int]:
    weights = [
        math.prod((w.weight for w in task.weights if _matches(w.when, dict(key.variation))), start=1.0) for key in keys
    ]
    if task.total is not None:
        quotas = shares(task.total, weights)
    else:
        quotas = [math.floor((task.episodes or 0) * weight + 0.5) for weight in weights]
    if 0 in quotas:
        raise InputError(
            f"Task {task.name!r}: the quota of {keys[quotas.index(0)]} comes to less than one episode; raise "
            f"`{'episodes' if task.total is None else 'total'}`, or `exclude` the combination."
        )
    return quotas


def shares(total: int, weights: Sequence[float]) -> list[int]:
    """Share `total` out by weight, largest remainders first; earlier cells win ties."""
    exact = [total * weight / sum(weights) for weight in weights]
    given = [math.floor(share) for share in exact]
    order = sorted(range(len(exact)), key=lambda k: given[k] - exact[k])
    for k in order[: total - sum(given)]:
        given[k] += 1
    return given
