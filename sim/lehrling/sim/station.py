"""What recording, generating and serving need of a simulated robot at its task, whatever the robot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from lehrling.datasets.embodiment import Embodiment
from lehrling.sim.physics import Physics
from lehrling.sim.seeding import Seeds

FRAME = "cell"
"""Frame of poses: x ahead of the robot, z up, the table's top at z = 0."""

Size = tuple[int, int]
"""Height and width of the camera images [px]."""

Reader = Callable[[int, np.random.Generator], bytes]
"""Read a sensor now: called with the stamp [ns] and the generator of its noise, gives the message as CDR."""

Message = tuple[str, bytes]
"""A topic and a CDR message for it."""


class Expert(Protocol):
    """A scripted demonstrator with the simulator's state in view."""

    def act(self, stamp_ns: int) -> Sequence[Message]:
        """Decide on the next command period; return the commands as messages stamped `stamp_ns`."""


class Station(Protocol):
    """A robot with a task: a world to step, topics to read, commands to hear, a verdict.

    Attributes:
        embodiment: the robot's data as this station gives it: topics, types, rates, latencies, image sizes.
        period_steps: physics steps per command period.
        time_limit_s: after which an episode has failed.
    """

    @property
    def task_name(self) -> str:
        """Name of the task."""

    @property
    def physics(self) -> Physics:
        """The world's clock and engine."""

    @property
    def embodiment(self) -> Embodiment:
        """The robot's data as this station gives it."""

    @property
    def period_steps(self) -> int:
        """Physics steps per command period."""

    @property
    def time_limit_s(self) -> float:
        """Simulation time after which an episode has failed [s]."""

    @property
    def instruction(self) -> str:
        """The goal in words."""

    @property
    def readers(self) -> Mapping[str, Reader]:
        """Topic -> how to read it; an embodiment names those that it has."""

    def reset(self, seeds: Seeds, *, disturb: bool) -> None:
        """Lay out the episode of these seeds; with `disturb`, executed commands differ a little from those heard."""

    def expert(self) -> Expert:
        """Return a demonstrator for the episode laid out."""

    def hear(self, topic: str, cdr: bytes) -> None:
        """Take a command; it counts from the next `apply` on, until another comes.

        Raises:
            InputError: a message that this robot cannot follow; it is left aside.
        """

    def apply(self) -> None:
        """Act on what was heard, or hold still; called once per command period."""

    def judge(self) -> bool:
        """Whether the task is done; called once per command period, after its steps."""

    def urdf(self) -> str:
        """Return the robot's description."""

    def close(self) -> None:
        """Give the engine back."""
