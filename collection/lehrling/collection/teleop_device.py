"""The guard of an operator's device that takes over from a policy: beside the policy's own, which alone commands the robot."""

from __future__ import annotations

import re

import numpy as np

from lehrling.datasets.errors import InputError
from lehrling.deploy.guard import Guard
from lehrling.deploy.guard_limits import ByUnit, GuardConfig

PREFIX = re.compile(r"(/[A-Za-z_][A-Za-z0-9_]*)+")
LET_GO_MS = 200.0
"""After the last key; the policy goes on 250 ms after the last command."""
MOVED = ByUnit(rad=0.02, m=0.005)
"""Between two interventions the policy moves the robot: farther from the last command than this, start where it is."""
BEHIND = ByUnit(rad=0.2, m=0.04)
"""So far the robot may be behind the keys; from half of it on they slow down."""


def device_config(config: GuardConfig, prefix: str) -> GuardConfig:
    """Return a guard's configuration for a device, with a latch file of its own beside the robot's.

    Raises:
        InputError: the prefix cannot stand before topics.
    """
    if not PREFIX.fullmatch(prefix):
        raise InputError(f"Expected a prefix of topics such as /leader, got {prefix!r}.")
    path = config.latch_path
    latch = path.with_name(f"{path.stem}{prefix.replace('/', '-')}{path.suffix}") if path is not None else None
    nearest = ByUnit(rad=min(config.first_move.rad, MOVED.rad), m=min(config.first_move.m, MOVED.m))
    let_go = min(config.let_go_ms, LET_GO_MS)
    return config.model_copy(update={"latch_path": latch, "first_move": nearest, "let_go_ms": let_go})


def leash(guard: Guard) -> float:
    """Return the share of its speed, 0 to 1, at which a device may go on while the robot follows as far behind as it is.

    The policy's guard keeps limits of its own, so that the robot may be slower than the keys.
    """
    far = np.abs(guard.position - guard.measured) / guard.axes.lengths(BEHIND.of)
    farthest = float(np.where(guard.axes.measured & np.isfinite(far), far, 0.0).max(initial=0.0))
    return float(np.clip(2.0 - 2.0 * farthest, 0.0, 1.0))
