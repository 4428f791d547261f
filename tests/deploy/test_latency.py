"""The rows of a chunk are due at the times that the policy gave them for, whatever the view's declared latency."""

from __future__ import annotations

import driven_policies
import numpy as np
import pytest
from driven_policies import CHUNK, VIEW, Answers, Cell, hello, recipe
from driven_robots import WALL_NS
from guard_checks import FloatArray
from numpy.typing import NDArray

from lehrling.deploy.inference import Question

SPEED, START = 0.03, 0.4
"""m/s along x, and where the arm stands."""


def driven(latency_ms: float, mode: str, monkeypatch: pytest.MonkeyPatch) -> FloatArray:
    """Drive by a policy that says of each row where the arm shall be at the row's time; return how late they were due [ms]."""
    view = VIEW.model_copy(update={"image_latency_ms": latency_ms})
    monkeypatch.setattr(driven_policies, "VIEW", view)
    first: list[float] = []

    def act(question: Question) -> NDArray[np.float32]:
        seen = float(question.content["obs_stamp"])
        first.append(seen)
        x = START + SPEED * (seen - first[0] + 0.1 * np.arange(CHUNK))
        return np.column_stack([x, np.full(CHUNK, 0.1), np.full(CHUNK, 0.2), np.ones(CHUNK)]).astype(np.float32)

    cell = Cell(Answers(act, hello=hello(view=view.canonical_json)))
    cell.drive.load(recipe(mode=mode))
    cell.run(150)
    cell.drive.start(1, cell.arm.now_ns)
    cell.run(500)
    assert cell.drive.cycle is not None
    asked = cell.drive.cycle.trace.asked
    assert len(asked) > 5
    return np.array([1e3 * ((due + WALL_NS) / 1e9 - first[0] - (rows[0, 0] - START) / SPEED) for _, due, rows in asked])


@pytest.mark.parametrize("latency_ms", [40.0, 250.0, 500.0])
def test_rows_are_due_one_step_after_their_time_whatever_the_latency(
    latency_ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is where the arm shall be at the end of its step; a control tick comes on top."""
    late = driven(latency_ms, "async", monkeypatch)
    np.testing.assert_allclose(late[2:], 110.0, atol=11.0)


def test_a_robot_that_waited_is_not_taken_for_one_that_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """In `sync` the path stands while an answer is on its way: rows are later than in `async`, never earlier."""
    late = driven(250.0, "sync", monkeypatch)
    assert late.min() > 90.0
