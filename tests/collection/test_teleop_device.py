"""Keys take over from a policy through its node: commands below a prefix while a key is held, silence otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from driven_policies import ARM6, Answers, Cell, towards

from lehrling.collection.teleop import Teleop
from lehrling.collection.teleop_device import device_config
from lehrling.datasets import messages
from lehrling.datasets.errors import InputError, LockedError
from lehrling.deploy.guard_events import Cause
from lehrling.deploy.guard_limits import ByUnit, GuardConfig
from lehrling.deploy.runtime import Phase

PLACE, PREFIX = (0.45, 0.15, 0.25), "/leader"


class Table:
    """A policy that drives the arm, and keys beside it; what the keys send reaches the policy's node and nobody else."""

    def __init__(self) -> None:
        self.cell = Cell(Answers(towards(*PLACE)), hand=PREFIX)
        self.cell.ready()
        self.teleop = Teleop.of(ARM6, "Kim", prefix=PREFIX)
        self.teleop.level = 6
        self.sent: list[tuple[int, str]] = []

    @property
    def now_ns(self) -> int:
        return self.cell.arm.now_ns

    def run(self, ticks: int, key: str = "") -> None:
        for tick in range(ticks):
            self.cell.run(1)
            pose = messages.pose_stamped(self.cell.arm.pose[:3], self.cell.arm.pose[3:], self.cell.arm.wall_ns, "cell")
            self.teleop.hear("/tcp_pose", pose, self.now_ns, self.cell.arm.wall_ns)
            if key and tick % 3 == 0:
                self.teleop.key(key, self.now_ns)
            for message in self.teleop.tick(self.now_ns, self.cell.arm.wall_ns)[1]:
                self.sent.append((self.cell.arm.tick, message.topic))
                self.cell.drive.hear(message.topic, message.cdr, self.now_ns, self.cell.arm.wall_ns)

    def topics(self, since: int = 0) -> set[str]:
        return {topic for tick, topic in self.sent if tick > since}

    @property
    def by_hand(self) -> bool:
        assert self.cell.drive.cycle is not None, self.cell.drive.state
        return self.cell.drive.cycle.by_hand


@pytest.fixture
def table() -> Table:
    made = Table()
    made.cell.drive.start(7, made.now_ns)
    return made


def test_a_held_key_takes_the_robot_from_the_policy_which_goes_on_when_it_is_let_go(table: Table) -> None:
    table.run(60)
    start = table.cell.arm.pose[:3].copy()
    table.run(150, key="s")
    assert table.by_hand
    assert table.topics() == {"/leader/tcp_command"}
    led = table.cell.arm.pose[:3].copy()
    assert led[0] < start[0] - 0.05
    np.testing.assert_allclose(led[1:], start[1:], atol=0.01)
    let_go = table.cell.arm.tick
    table.run(120)
    assert table.topics(since=let_go + 90) == set()
    assert not table.by_hand
    table.run(500)
    np.testing.assert_allclose(table.cell.arm.pose[:3], PLACE, atol=2e-3)
    assert [facts["begins"] for facts in table.cell.said("intervention")] == [True, False]
    assert not table.teleop.guard.latch.latched


def test_while_nobody_presses_a_key_nothing_is_sent(table: Table) -> None:
    table.run(300)
    assert table.sent == []
    assert table.cell.said("intervention") == []
    np.testing.assert_allclose(table.cell.arm.pose[:3], PLACE, atol=2e-3)


def test_a_second_takeover_begins_where_the_policy_left_the_robot(table: Table) -> None:
    table.run(20, key="s")
    table.run(150)
    here = table.cell.arm.pose[:3].copy()
    assert not table.by_hand
    table.run(150, key="r")
    moved = np.array(table.cell.arm.poses[-150:])[:, :3] - here
    assert table.by_hand
    assert moved[-1, 2] > 0.03
    assert np.abs(moved[:, :2]).max() < 0.02
    assert table.teleop.guard.counts[Cause.FOLLOWING] == 0


def test_keys_do_not_run_away_from_a_robot_that_is_slower(table: Table) -> None:
    behind = []
    for _ in range(60):
        table.run(5, key="s")
        behind.append(float(np.abs(table.teleop.guard.position - table.teleop.guard.measured)[:3].max()))
    assert 0.02 < max(behind) < 0.08
    assert not table.teleop.guard.latch.latched
    assert table.cell.arm.pose[0] < 0.35


def test_the_gripper_is_the_policys_again_once_the_operator_has_let_go(table: Table) -> None:
    table.run(60)
    assert table.cell.arm.gripper == pytest.approx(1.0)
    assert table.teleop.key("g", table.now_ns) == "closing"
    table.run(90)
    assert table.cell.arm.gripper == pytest.approx(-1.0)
    assert table.topics() == {"/leader/tcp_command", "/leader/gripper_command"}
    table.run(150)
    assert table.cell.arm.gripper == pytest.approx(1.0)
    again = table.cell.arm.tick
    table.run(30, key="w")
    assert table.topics(since=again) == {"/leader/tcp_command"}


def test_a_stop_holds_the_robot_until_it_is_reset(table: Table) -> None:
    table.run(60)
    assert table.teleop.key("x", table.now_ns) == "holding; R lets the policy go on"
    table.run(150)
    stood = table.cell.arm.pose[:3].copy()
    table.run(300)
    np.testing.assert_allclose(table.cell.arm.pose[:3], stood, atol=1e-3)
    assert table.by_hand
    assert table.teleop.key("R", table.now_ns) == "the policy goes on"
    table.run(500)
    np.testing.assert_allclose(table.cell.arm.pose[:3], PLACE, atol=2e-3)
    table.teleop.key("x", table.now_ns)
    assert table.teleop.end() == "stopping"
    table.run(100)
    assert not table.by_hand
    assert table.cell.drive.phase is Phase.EXECUTING


def test_topics_are_the_robots_below_the_prefix(tmp_path: Path) -> None:
    robot = ARM6.model_copy(update={"binding": ARM6.binding.model_copy(update={"namespace": "cell1"})})
    teleop = Teleop.of(robot, "Kim", prefix=PREFIX)
    assert sorted(teleop.told) == ["/leader/cell1/gripper_command", "/leader/cell1/tcp_command"]
    assert list(teleop.heard) == ["/cell1/tcp_pose"]
    for wrong in ("leader", "/leader/", "/", "/a b"):
        with pytest.raises(InputError, match="Expected a prefix of topics such as /leader"):
            Teleop.of(robot, "Kim", prefix=wrong)
    assert not list(tmp_path.iterdir())


def test_a_device_has_a_latch_of_its_own_beside_the_robots(tmp_path: Path) -> None:
    config = GuardConfig(latch_path=tmp_path / "arm6.latch.json", first_move=ByUnit(rad=0.001, m=0.001))
    policy, device = Teleop.of(ARM6, "node", config), Teleop.of(ARM6, "Kim", config, prefix=PREFIX)
    other = Teleop.of(ARM6, "Lee", config, prefix="/second")
    try:
        with pytest.raises(LockedError, match="Another guard commands"):
            Teleop.of(ARM6, "Jo", config, prefix=PREFIX)
        found = {path.name for path in tmp_path.glob("*.json")}
        assert found == {"arm6.latch.json", "arm6.latch-leader.json", "arm6.latch-second.json"}
        assert device.guard.config.first_move.m == 0.001
    finally:
        for teleop in (policy, device, other):
            teleop.guard.close()
    assert device_config(GuardConfig(), PREFIX).latch_path is None
