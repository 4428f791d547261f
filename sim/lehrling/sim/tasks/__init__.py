"""The industrial tasks, by name."""

from __future__ import annotations

from lehrling.datasets.errors import InputError
from lehrling.sim.tasks.base import Task
from lehrling.sim.tasks.kitting import Kitting
from lehrling.sim.tasks.sorting import Sorting

TASKS: dict[str, type[Task]] = {task.name: task for task in (Kitting, Sorting)}


def task_named(name: str) -> Task:
    """Return a new instance of the task, or say which there are.

    Raises:
        InputError: unknown name.
    """
    if name not in TASKS:
        raise InputError(f"There is no task {name!r}; choose one of {', '.join(sorted(TASKS))}.")
    return TASKS[name]()
