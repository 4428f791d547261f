"""The scripted expert solves its tasks, and the success predicate is not fooled."""

from __future__ import annotations

import numpy as np
import pytest

from lehrling.sim.disturbance import Disturbance
from lehrling.sim.expert import Expert
from lehrling.sim.robots import ROBOTS, arm6_tool_down
from lehrling.sim.seeding import CHILDREN, Seeds
from lehrling.sim.tasks import TASKS, task_named
from lehrling.sim.tasks.base import Task
from lehrling.sim.world import World


def run(world: World, task: Task, seed: int, *, disturbed: bool = False) -> bool:
    seeds = Seeds(seed)
    world.reset(seeds)
    task.reset(world, seeds)
    expert = Expert(world, task)
    noise = Disturbance(seeds["disturbance"], scale_m=0.008 * disturbed, slip_chance=0.004 * disturbed)
    for _ in range(int(task.time_limit_s * 20)):
        target, gripper = expert.act()
        world.disturbance = noise.push(float(world.tcp()[0][2]))
        world.command(target, noise.gripper(gripper))
        world.step()
        if task.update(world):
            return True
    return False


@pytest.mark.parametrize("robot", sorted(ROBOTS))
@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_expert_succeeds_on_every_seed(name: str, robot: str) -> None:
    world, task = World(ROBOTS[robot], 48), task_named(name)
    assert [run(world, task, seed) for seed in range(12)] == [True] * 12
    world.close()


def test_the_expert_recovers_from_disturbances() -> None:
    world, task = World(ROBOTS["arm6"], 48), task_named("kitting")
    assert sum(run(world, task, seed, disturbed=True) for seed in range(20)) >= 19
    world.close()


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_part_in_the_wrong_place_or_still_held_is_no_success(name: str) -> None:
    world, task = World(ROBOTS["arm6"], 48), task_named(name)
    seeds = Seeds(2)
    world.reset(seeds)
    task.reset(world, seeds)
    body = task.parts[task.goal.part].body
    for place, (xy, _) in task.places.items():
        task._calm = 0
        world.physics.client.resetBasePositionAndOrientation(body, (*xy, 0.03), (0, 0, 0, 1))
        world.step(40)
        verdicts = [task.update(world) for _ in range(5)]
        assert verdicts[-1] == (place == task.goal.place)
    goal = (*task.goal.xy, 0.03)
    world.physics.client.resetBasePositionAndOrientation(body, goal, (0, 0, 0, 1))
    world.step(40)
    task._calm = 0
    world.command(world.target, -1.0)
    assert not any(task.update(world) for _ in range(5))
    world.close()


def test_partial_credit_is_given_for_carrying_and_for_arriving() -> None:
    world, task = World(ROBOTS["arm6"], 48), task_named("kitting")
    seeds = Seeds(5)
    world.reset(seeds)
    task.reset(world, seeds)
    body = task.parts[task.goal.part].body
    assert task.partial_credit(world) == 0.0
    world.physics.client.resetBasePositionAndOrientation(body, (0.35, 0.0, 0.2), (0, 0, 0, 1))
    assert task.partial_credit(world) == 0.5
    world.physics.client.resetBasePositionAndOrientation(body, (*task.goal.xy, 0.025), (0, 0, 0, 1))
    assert task.partial_credit(world) == 1.0
    world.close()


def test_closed_form_kinematics_of_arm6_reach_the_target() -> None:
    world = World(ROBOTS["arm6"], 48)
    world.reset(Seeds(0))
    rng = np.random.default_rng(0)
    for target in rng.uniform((0.25, -0.3, 0.02), (0.62, 0.3, 0.3), (50, 3)):
        world.arm.place(arm6_tool_down(target), 0.1)
        xyz, quaternion = world.tcp()
        np.testing.assert_allclose(xyz, target, atol=1e-6)
        np.testing.assert_allclose(np.abs(quaternion), (0, 1, 0, 0), atol=1e-6)
    world.close()


def test_targets_beyond_reach_stretch_the_arm_instead_of_failing() -> None:
    joints = arm6_tool_down(np.array([5.0, 0.0, 0.1]))
    assert np.isfinite(joints).all()
    assert abs(joints[2]) < 0.05


def test_named_generators_do_not_depend_on_one_another() -> None:
    one, other = Seeds(9), Seeds(9)
    one["layout"].random(100)
    for name in CHILDREN[1:]:
        assert one[name].random() == other[name].random()
    assert one.describe()["entropy"] == 9
