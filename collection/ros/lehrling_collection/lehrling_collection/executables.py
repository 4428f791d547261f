"""The executables of `ros2 run lehrling_collection …`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import cast


def _run(module: str, distribution: str = "lehrling-collection") -> int:
    try:
        main = cast("Callable[[], int | None]", importlib.import_module(module).main)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("lehrling"):
            raise
        sys.stderr.write(
            f"{module} is not installed for {sys.executable}; `pip install '{distribution}'` into the environment that "
            "this shell uses, without the extra ros-wheels.\n"
        )
        return 2
    return main() or 0


def recorder() -> int:
    """Record demonstrations."""
    return _run("lehrling.collection.node")


def teleop() -> int:
    """Drive a robot."""
    return _run("lehrling.collection.teleop_node")


def replay() -> int:
    """Play an episode back."""
    return _run("lehrling.collection.replay_node")


def policy() -> int:
    """Let a policy drive a robot."""
    return _run("lehrling.deploy.policy_node", "lehrling-deploy[serve]")
