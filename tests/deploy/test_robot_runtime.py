"""A runtime in a process of its own drives the served simulator over real DDS, by a policy server in a third process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policy_robots import PLACES, PolicyProcess, policy_process, served_sim, tcp
from ros_publishers import own_domain
from watching import until

from lehrling.datasets.errors import InputError, StorageError
from lehrling.deploy.cycle import Recipe, load_trace
from lehrling.deploy.robot_runtime import ProcessRuntime
from lehrling.deploy.run_config import RunConfig
from lehrling.deploy.runtime import Phase, Result

pytest.importorskip("rclpy")
RECIPES = {
    1: Recipe(1, "left", "put it left", "left", limit_s=15.0),
    2: Recipe(2, "right", "put it right", "right", limit_s=3.0),
}
WAIT_S = 60.0


class Audit:
    """Notes what it is told, or refuses."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Mapping[str, Any]]] = []
        self.full = False

    def write(self, kind: str, facts: Mapping[str, Any]) -> None:
        if self.full:
            raise StorageError("The audit cannot be written: No space left on device.")
        self.told.append((kind, facts))

    def said(self, kind: str) -> list[Mapping[str, Any]]:
        return [facts for name, facts in self.told if name == kind]


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        own_domain()
        for name in ("ROS_DOMAIN_ID", "ROS_LOCALHOST_ONLY"):
            patch.setenv(name, os.environ[name])
        with served_sim(tmp_path_factory.mktemp("sim") / "sim.log"):
            yield


@pytest.fixture(scope="module")
def server() -> Iterator[PolicyProcess]:
    with policy_process() as made:
        yield made


def configured(server: PolicyProcess, tmp_path: Path) -> RunConfig:
    guard = tmp_path / "guard.yaml"
    guard.write_text(f"latch_path: {tmp_path / 'latch.json'}\n")
    return RunConfig(embodiment="arm6", server=server.url, guard=guard, traces=tmp_path / "traces", connect_s=WAIT_S)


class Driven:
    """A runtime that is permitted to move for as long as somebody waits for it."""

    def __init__(self, config: RunConfig) -> None:
        self.audit, self.said = Audit(), list[str]()
        self.runtime = ProcessRuntime(config, RECIPES, self.audit.write, self.said.append)

    def until(self, phase: Phase) -> None:
        def there() -> bool:
            self.runtime.set_enabled(True)
            return self.runtime.state().phase is phase

        try:
            until(there, WAIT_S)
        except TimeoutError:
            raise AssertionError(f"{self.runtime.state()}, {self.said}, {self.audit.told}") from None

    def load(self, recipe: int) -> None:
        """Load a recipe and wait until it is ready."""
        self.runtime.load(recipe)

        def there() -> bool:
            state = self.runtime.state()
            return (state.phase, state.recipe) == (Phase.READY, recipe) and bool(state.model_hash)

        until(there, WAIT_S)


@pytest.fixture
def driven(sim: None, server: PolicyProcess, tmp_path: Path) -> Iterator[Driven]:
    made = Driven(configured(server, tmp_path))
    try:
        yield made
    finally:
        made.runtime.close()


def test_two_recipes_lead_the_arm_to_their_places(driven: Driven, tmp_path: Path) -> None:
    for cycle, recipe in enumerate((1, 2), 1):
        driven.load(recipe)
        driven.runtime.start(cycle)
        driven.until(Phase.EXECUTING)
        place = np.array(PLACES[RECIPES[recipe].adapter])
        if recipe == 1:
            until(partial(_near, driven, place), WAIT_S)
            driven.runtime.stop("there")
        driven.until(Phase.READY)
    state = driven.runtime.state()
    assert (state.cycle, state.recipe, state.result, state.fault_code) == (2, 2, Result.TIMEOUT, 0)
    assert state.model_hash == "2" * 64
    assert [facts["result"] for facts in driven.audit.said("end")] == ["aborted", "timeout"]
    assert [facts["cycle"] for facts in driven.audit.said("start")] == [1, 2]
    first, second = sorted((tmp_path / "traces").iterdir())
    trace = load_trace(first)
    sent, measured = trace["sent"].astype(np.float64), trace["measured"].astype(np.float64)
    np.testing.assert_allclose(sent[-1, :3], measured[-1, :3], atol=0.02)
    assert second.name.startswith("cycle_00002")


def _near(driven: Driven, place: Any) -> bool:
    driven.runtime.set_enabled(True)
    return float(np.linalg.norm(tcp(driven.runtime.state()) - place)) < 0.02


def test_an_unknown_recipe_is_a_fault_until_it_is_reset(driven: Driven) -> None:
    driven.runtime.load(9)
    driven.until(Phase.FAULT)
    state = driven.runtime.state()
    assert (state.fault_code, state.fault) == (1, "There is no recipe 9; there are 1, 2.")
    driven.runtime.reset("plc")
    driven.load(1)


def test_a_policy_server_that_is_killed_mid_chunk_leaves_the_arm_at_rest(
    sim: None, server: PolicyProcess, tmp_path: Path
) -> None:
    with policy_process() as doomed:
        driven = Driven(configured(doomed, tmp_path))
        try:
            driven.load(1)
            driven.runtime.start(1)
            driven.until(Phase.EXECUTING)
            until(lambda: any(abs(axis.velocity) > 0.02 for axis in driven.runtime.state().axes.values()), WAIT_S)
            doomed.kill()
            driven.until(Phase.FAULT)
            state = driven.runtime.state()
            assert (state.fault_code, state.result) == (2, Result.ABORTED)
            assert all(axis.velocity == 0 for axis in state.axes.values())
        finally:
            driven.runtime.close()


def test_nothing_starts_that_cannot_be_audited(driven: Driven) -> None:
    driven.load(1)
    driven.audit.full = True
    before = tcp(driven.runtime.state())
    driven.runtime.start(1)
    driven.until(Phase.FAULT)
    state = driven.runtime.state()
    assert state.fault_code == 7
    np.testing.assert_allclose(tcp(state), before, atol=0.002)


def test_a_runtime_that_dies_is_told_as_a_fault(driven: Driven) -> None:
    driven.load(1)
    driven.runtime._process.kill()
    driven.until(Phase.FAULT)
    assert driven.runtime.state().fault_code == 8


def test_a_runtime_without_a_policy_server_does_not_begin(tmp_path: Path) -> None:
    config = RunConfig(embodiment="arm6", server="ws://127.0.0.1:9", connect_s=0.5)
    with pytest.raises(InputError, match=r"No policy server answers at ws://127\.0\.0\.1:9"):
        ProcessRuntime(config, RECIPES, Audit().write)


def test_a_cell_that_dies_leaves_the_arm_at_rest(driven: Driven) -> None:
    driven.load(1)
    driven.runtime.start(1)
    driven.until(Phase.EXECUTING)
    process = driven.runtime._process
    driven.runtime._connection.close()
    until(lambda: process.exitcode is not None, WAIT_S)
    assert process.exitcode == 0
