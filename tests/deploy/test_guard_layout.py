"""From shipped embodiments to axes and back."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from guard_checks import FloatArray, Robot
from hypothesis import given, settings
from hypothesis import strategies as st

from lehrling.datasets.embodiment import Binding, Embodiment, Limits, load_embodiment, shipped_embodiments
from lehrling.datasets.errors import InputError
from lehrling.deploy.guard_layout import Layout, guard_for
from lehrling.deploy.guard_limits import AxisLimits, GuardConfig, load_guard_config
from lehrling.deploy.guard_rotation import from_rotation_vector, to_rotation_vector

TOOL_DOWN: FloatArray = np.array([0.4, 0.1, 0.2, 0.0, 1.0, 0.0, 0.0])
vectors = st.lists(st.floats(-2, 2), min_size=3, max_size=3).map(np.array)
QUATERNION = np.array([0.0, 1.0, 0.0, 0.0])


@pytest.mark.parametrize("name", shipped_embodiments())
def test_every_shipped_embodiment_has_a_guard_whose_commands_fit_its_streams(name: str) -> None:
    embodiment = load_embodiment(name)
    guard, layout = guard_for(embodiment)
    guard.accept(layout.claim())
    rows = layout.rows(guard.step(0))
    actions = {stream.name: stream.shape for stream in embodiment.contract.streams if stream.role == "action"}
    assert {stream: row.shape for stream, row in rows.items()} == actions


def test_arm6_has_a_tcp_within_its_workspace_and_a_gripper() -> None:
    layout = Layout(load_embodiment("arm6"), GuardConfig())
    names = [axis.name for axis in layout.axes]
    assert names == [*(f"tcp_command_{axis}" for axis in ("x", "y", "z", "rx", "ry", "rz")), "gripper_command_gripper"]
    assert [(axis.low, axis.high) for axis in layout.axes[:3]] == [(0.2, 0.7), (-0.4, 0.4), (0.0, 0.5)]
    assert layout.axes[0].velocity == 0.25
    assert (layout.axes[6].unit, layout.axes[6].measured) == ("1", False)
    assert layout.observed == ("tcp_pose",)


def test_humanoid_has_its_joints_with_the_limits_of_the_binding_and_a_base_of_velocities() -> None:
    layout = Layout(load_embodiment("humanoid"), GuardConfig())
    knee, turn = layout.axes[3], layout.axes[-1]
    assert (knee.name, knee.low, knee.high, knee.velocity, knee.acceleration) == ("left_knee", -3.0, 3.0, 10.0, 5.0)
    assert (turn.name, turn.is_velocity, turn.velocity) == ("base_twist_wz", True, 1.0)


def test_a_part_of_the_action_streams_can_be_commanded_alone() -> None:
    assert len(Layout(load_embodiment("humanoid"), GuardConfig(), ["base_twist"]).axes) == 6
    with pytest.raises(InputError, match="no stream 'arms'"):
        Layout(load_embodiment("humanoid"), GuardConfig(), ["arms"])
    with pytest.raises(InputError, match="found none"):
        Layout(load_embodiment("humanoid"), GuardConfig(), ["imu"])


def test_what_is_measured_and_what_is_asked_for_land_on_the_same_axes() -> None:
    layout = Layout(load_embodiment("arm6"), GuardConfig())
    measured = layout.measured({"tcp_pose": TOOL_DOWN})
    np.testing.assert_allclose(measured[:6], [0.4, 0.1, 0.2, 0, 0, 0], atol=1e-12)
    assert np.isnan(measured[6])
    target = layout.vector({"tcp_command": TOOL_DOWN, "gripper_command": np.array([-1.0])})
    np.testing.assert_allclose(target, [0.4, 0.1, 0.2, 0, 0, 0, -1], atol=1e-12)
    assert np.isnan(layout.vector({})).all()


def test_joints_that_no_message_gave_yet_are_unknown() -> None:
    layout = Layout(load_embodiment("humanoid"), GuardConfig())
    row: FloatArray = np.arange(43, dtype=np.float64)
    row[5] = np.nan
    measured = layout.measured({"joint_position": row})
    assert np.isnan(measured[5])
    assert measured[42] == 42


def test_a_pose_commanded_through_the_guard_arrives_with_its_orientation() -> None:
    guard, layout = guard_for(load_embodiment("arm6"))
    guard.accept(layout.claim())
    start = layout.measured({"tcp_pose": TOOL_DOWN})
    robot = Robot(guard, start)
    robot.tick(3)
    turned = from_rotation_vector(np.array([0, 0, 0.15]), QUATERNION)
    wanted: FloatArray = np.array([0.42, 0.1, 0.2, *turned])
    assert robot.submit(layout.vector({"tcp_command": wanted, "gripper_command": np.array([1.0])}))
    robot.rest()
    rows = layout.rows(robot.commands[-1])
    np.testing.assert_allclose(rows["tcp_command"], wanted, atol=1e-9)
    np.testing.assert_allclose(rows["gripper_command"], 1.0)


@given(vectors, vectors)
@settings(max_examples=100, deadline=None)
def test_rotation_vectors_and_quaternions_go_both_ways(vector: FloatArray, reference: FloatArray) -> None:
    start = from_rotation_vector(reference, QUATERNION)
    back = to_rotation_vector(from_rotation_vector(vector, start), start, vector)
    np.testing.assert_allclose(back, vector, atol=1e-7)


def test_a_rotation_goes_on_beyond_half_a_turn() -> None:
    near: FloatArray = np.zeros(3)
    for step in range(1, 90):
        angle = step * 0.05
        near = to_rotation_vector(from_rotation_vector(np.array([0, 0, angle]), QUATERNION), QUATERNION, near)
        np.testing.assert_allclose(near, [0, 0, angle], atol=1e-9)


def test_what_is_no_unit_quaternion_becomes_no_number() -> None:
    assert np.isnan(to_rotation_vector(np.zeros(4), QUATERNION, np.zeros(3))).all()
    assert np.isnan(to_rotation_vector(np.full(4, np.nan), QUATERNION, np.zeros(3))).all()


def test_configured_limits_replace_those_of_the_binding() -> None:
    config = GuardConfig(
        axes={"tcp_command_x": AxisLimits(velocity=0.5, high=0.6), "left_knee": AxisLimits(margin=0.3)}
    )
    x = Layout(load_embodiment("arm6"), config).axes[0]
    assert (x.low, x.high, x.velocity, x.acceleration) == (0.2, 0.6, 0.5, 1.0)
    assert Layout(load_embodiment("humanoid"), config).axes[3].margin == 0.3


def test_the_margin_is_at_most_a_small_share_of_the_range_so_that_fingers_can_close() -> None:
    layout = Layout(load_embodiment("upper_humanoid"), GuardConfig())
    index = next(axis for axis in layout.axes if axis.name == "left_index")
    assert index.margin == pytest.approx(0.02 * (index.high - index.low))
    assert Layout(load_embodiment("humanoid"), GuardConfig()).axes[0].margin == 0.1


def without_limits(name: str) -> Embodiment:
    shipped = load_embodiment(name)
    binding: Binding = shipped.binding.model_copy(update={"limits": Limits()})
    return shipped.model_copy(update={"binding": binding})


@pytest.mark.parametrize(("name", "axis"), [("arm6", "tcp_command_x"), ("humanoid", "left_hip_pitch")])
def test_an_axis_without_a_range_is_refused_with_the_key_that_is_missing(name: str, axis: str) -> None:
    with pytest.raises(InputError, match=f"Axis '{axis}' .* has no range; give `limits.position`"):
        guard_for(without_limits(name))


def test_several_workspace_boxes_hold_each_for_itself() -> None:
    shipped = load_embodiment("arm6")
    boxes = {"left": ((0.2, 0.1, 0.0), (0.7, 0.4, 0.5)), "right": ((0.2, -0.4, 0.0), (0.7, -0.1, 0.5))}
    limits = shipped.binding.limits.model_copy(update={"workspace": boxes})
    binding = shipped.binding.model_copy(update={"limits": limits})
    guard, layout = guard_for(shipped.model_copy(update={"binding": binding}))
    guard.accept(layout.claim())
    assert (layout.axes[1].low, layout.axes[1].high) == (-0.4, 0.4)
    robot = Robot(guard, layout.measured({"tcp_pose": TOOL_DOWN + np.array([0, 0.02, 0, 0, 0, 0, 0])}))
    robot.tick(3)
    assert not robot.submit([0.4, 0.08, 0.2, 0, 0, 0, 1])
    assert guard.latch.cause == "workspace"


def test_cameras_are_sources_that_must_be_fresh() -> None:
    guard, _ = guard_for(load_embodiment("arm6"), cameras=("front",))
    assert set(guard.config.sources) == {"front", "joints"}


# --- configuration file ---------------------------------------------------------------------------------------------------


def test_a_configuration_file_is_read_and_its_latch_path_kept(tmp_path: Path) -> None:
    path = tmp_path / "guard.yaml"
    path.write_text(
        "rate_hz: 50\nlatch_path: /var/lib/lehrling/latch.json\nclient_timeout_ms: null\naxes: {joint1: {velocity: 0.2}}\n"
    )
    config = load_guard_config(path)
    assert (config.rate_hz, config.client_timeout_ms, config.axes["joint1"].velocity) == (50, None, 0.2)
    assert config.latch_path == Path("/var/lib/lehrling/latch.json")
    assert config.period_ns == 20_000_000
    assert load_guard_config(_written(tmp_path, "")).rate_hz == 100


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed: 3\n", "'speed' is not a key of a guard configuration; expected rate_hz"),
        ("rate_hz: .nan\n", "rate_hz"),
        ("rate_hz: 1.0e+9\n", "rate_hz: Input should be less than or equal to 1000"),
        ("axes: {joint1: {velocity: -1}}\n", "axes.joint1.velocity: Input should be greater than 0"),
        ("a: [\n", "line 2, is not YAML"),
        ("latching: [tired]\n", "latching.0"),
    ],
)
def test_a_configuration_that_is_none_is_refused_with_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    path = _written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        load_guard_config(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_configuration_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        load_guard_config(tmp_path / "absent.yaml")


def _written(folder: Path, text: str) -> Path:
    path = folder / "guard.yaml"
    path.write_text(text)
    return path


def test_half_a_turn_is_the_same_either_way() -> None:
    half = from_rotation_vector(np.array([math.pi, 0, 0]), QUATERNION)
    assert abs(np.linalg.norm(to_rotation_vector(half, QUATERNION, np.zeros(3))) - math.pi) < 1e-9
