"""A policy server that comes back is looked at anew: what it has must be what the robot's cycle began with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from driven_policies import VIEW, Answers, Cell, hello, recipe, towards

from lehrling.deploy.runtime import Phase, Result


def swapped(cell: Cell, **changes: Any) -> None:
    """Let the server go for 0.2 s and come back with another policy."""
    cell.answers.connected = False
    cell.run(20)
    cell.answers.hello, cell.answers.connected = hello(**changes), True


def made(**changes: Any) -> Cell:
    cell = Cell(Answers(towards(0.5, 0.2, 0.3)))
    cell.drive.load(recipe(**changes))
    cell.run(30)
    return cell


def test_another_model_than_the_recipe_is_for_is_a_fault_after_a_reconnect() -> None:
    cell = made(model_hash="left" * 3)
    swapped(cell, model_hash="right" * 3)
    assert cell.drive.phase is Phase.LOADING
    cell.run(2)
    state = cell.drive.state
    assert (state.phase, state.fault_code) == (Phase.FAULT, 9)
    assert "has rightrightri as 'left'" in state.fault


def test_another_model_between_cycles_is_audited_before_it_may_act() -> None:
    cell = made()
    swapped(cell, model_hash="right" * 3)
    cell.run(2)
    assert cell.drive.phase is Phase.READY
    cell.drive.start(1, cell.arm.now_ns)
    assert [facts["model"] for facts in cell.said("adapter")] == ["left" * 3, "right" * 3]
    assert cell.said("start")[0]["model"] == "right" * 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"view": VIEW.model_copy(update={"rate_hz": 2.0}).canonical_json}, "rate"),
        ({"view": VIEW.model_copy(update={"image_latency_ms": 80.0}).canonical_json}, "image latency"),
        ({"action_horizon": 9}, "chunk length"),
        ({"contract": "0" * 64}, "contract"),
    ],
)
def test_another_policy_under_the_same_name_is_a_fault(changes: dict[str, Any], says: str) -> None:
    cell = made()
    swapped(cell, **changes)
    cell.run(2)
    state = cell.drive.state
    assert (state.phase, state.fault_code) == (Phase.FAULT, 9)
    assert state.fault == f"The policy server has another policy 'left' than before: its {says} differs."


def test_another_model_in_the_middle_of_a_cycle_ends_it() -> None:
    cell = made()
    cell.drive.start(1, cell.arm.now_ns)
    cell.run(100)
    asked = len(cell.answers.questions)
    swapped(cell, model_hash="right" * 3)
    cell.run_until(lambda: cell.drive.phase is Phase.FAULT)
    state = cell.drive.state
    assert (state.fault_code, state.result) == (9, Result.ABORTED)
    assert "in the middle of cycle 1 with another model, rightrightri in place of leftleftleft" in state.fault
    assert np.abs(cell.run(5).velocity).max() == 0
    assert len(cell.answers.questions) <= asked + 1


def test_the_same_model_after_a_reconnect_goes_on_with_the_cycle() -> None:
    cell = made()
    cell.drive.start(1, cell.arm.now_ns)
    cell.run(100)
    swapped(cell)
    cell.run(50)
    assert cell.drive.phase is Phase.EXECUTING
    assert len(cell.said("adapter")) == 1
