"""A policy drives the arm through the guard: cycles, faults, and the robot at rest after each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from driven_policies import ARM6, CHUNK, JOINTS, MS, NAMES, VIEW, Answers, Cell, hello, recipe, towards
from driven_robots import WALL_NS

from lehrling.datasets import messages
from lehrling.datasets.errors import ContractError, InputError, StorageError
from lehrling.deploy.cycle import load_trace
from lehrling.deploy.guard_events import Cause
from lehrling.deploy.policy_drive import first_facts
from lehrling.deploy.policy_facts import PolicyFacts
from lehrling.deploy.runtime import Phase, Result

PLACE = (0.45, 0.15, 0.25)


def cell(**changes: Any) -> Cell:
    return Cell(Answers(towards(*PLACE, gripper=-1.0), **changes))


def at_rest(table: Cell) -> bool:
    poses = table.arm.poses[-20:]
    return bool(np.abs(np.diff(np.array(poses), axis=0)).max() < 1e-9)


def near(table: Cell, distance_m: float) -> Callable[[], bool]:
    return lambda: bool(np.linalg.norm(table.arm.pose[:3] - PLACE) < distance_m)


def started(table: Cell, **changes: Any) -> Cell:
    table.drive.load(recipe(**changes))
    table.run(30)
    table.drive.start(7, table.arm.now_ns)
    return table


@pytest.mark.parametrize("mode", ["sync", "async", "ensemble"])
def test_a_cycle_leads_the_arm_where_the_policy_wants_it(mode: str) -> None:
    table = started(cell(), mode=mode)
    assert table.drive.phase is Phase.EXECUTING
    table.run(400)
    np.testing.assert_allclose(table.arm.pose[:3], PLACE, atol=2e-3)
    np.testing.assert_allclose(np.abs(table.arm.pose[3:]), [0, 1, 0, 0], atol=1e-6)
    assert table.arm.gripper == pytest.approx(-1.0)
    table.drive.finish(Result.SUCCESS, "the part is there")
    table.run_until(lambda: table.drive.phase is Phase.READY)
    assert at_rest(table)
    state = table.drive.state
    assert (state.cycle, state.result, state.recipe, state.fault_code) == (7, Result.SUCCESS, 1, 0)
    assert [facts["result"] for facts in table.said("end")] == ["success"]


def test_the_policy_is_asked_as_its_view_holds_the_world() -> None:
    table = started(cell())
    table.run(100)
    first = table.answers.questions[0].content
    assert sorted(first) == sorted(
        [
            *("observation/front", "observation/wrist", "observation/state", "prompt", "adapter"),
            *("contract", "obs_stamp", "step", "inference_delay"),
        ]
    )
    assert isinstance(first["observation/front"], bytes)
    np.testing.assert_allclose(first["observation/state"], 0.1 * np.arange(7), atol=1e-6)
    assert (first["prompt"], first["adapter"], first["contract"]) == ("put it there", "left", ARM6.contract_hash)
    later = table.answers.questions[2].content
    assert later["prev_chunk_tail"].shape == (CHUNK // 2, len(NAMES))
    assert table.answers.questions[2].step == CHUNK


def test_the_arm_moves_on_while_the_next_chunk_is_on_its_way() -> None:
    """With 300 ms to an answer it is there sooner than where it waits for each chunk."""
    ticks = {}
    for mode in ("sync", "async"):
        table = started(cell(delay_ticks=30), mode=mode)
        began = table.arm.tick
        table.run_until(near(table, 0.005))
        ticks[mode] = table.arm.tick - began
    assert ticks["async"] < 0.8 * ticks["sync"]


def test_a_late_answer_to_the_cycle_before_is_not_played() -> None:
    table = started(cell(delay_ticks=60), limit_s=0.3)
    table.run_until(lambda: table.drive.phase is Phase.READY)
    assert table.drive.state.result is Result.TIMEOUT
    before = table.arm.pose.copy()
    table.drive.start(8, table.arm.now_ns)
    table.answers.silent = True
    table.run(25)
    np.testing.assert_array_equal(table.arm.pose, before)


def test_no_chunk_is_asked_for_and_nothing_moves_without_permission() -> None:
    table = cell()
    table.enabled = False
    started(table)
    before = table.arm.pose.copy()
    table.run(200)
    assert table.answers.questions == []
    np.testing.assert_array_equal(table.arm.pose, before)
    table.enabled = True
    table.run(300)
    assert np.linalg.norm(table.arm.pose[:3] - before[:3]) > 0.05


def test_withdrawn_permission_holds_the_arm_and_given_again_it_goes_on() -> None:
    table = started(cell())
    table.run(60)
    table.enabled = False
    table.run(100)
    assert at_rest(table)
    held = table.arm.pose.copy()
    table.enabled = True
    table.run(300)
    assert np.linalg.norm(table.arm.pose[:3] - held[:3]) > 0.01
    assert table.drive.phase is Phase.EXECUTING


def test_half_speed_takes_twice_as_long_on_the_same_path() -> None:
    ticks = {}
    for speed in (1.0, 0.5):
        table = started(cell(delay_ticks=0), mode="sync", execute=CHUNK)
        table.drive.set_speed(speed, table.arm.now_ns)
        began = table.arm.tick
        table.run_until(near(table, 0.003))
        ticks[speed] = table.arm.tick - began
    assert 1.4 < ticks[0.5] / ticks[1.0] < 2.4


def test_a_server_that_dies_mid_chunk_ends_in_rest_and_a_fault_that_can_be_reset() -> None:
    table = started(cell())
    table.run(60)
    table.answers.connected, table.answers.silent, table.answers.problem = False, True, "The policy server went away."
    table.run_until(lambda: table.drive.phase is Phase.FAULT)
    assert at_rest(table) or table.run(30).velocity.max() == 0
    state = table.drive.state
    assert (state.fault_code, state.result, state.latched) == (2, Result.ABORTED, False)
    assert state.fault == "The policy server went away."
    with pytest.raises(InputError, match="but it is fault"):
        table.drive.start(8, table.arm.now_ns)
    table.answers.connected, table.answers.silent = True, False
    table.drive.reset("plc")
    table.run(2)
    assert table.drive.phase is Phase.READY


def test_a_server_that_refuses_again_and_again_is_a_fault() -> None:
    table = cell()
    table.answers.refuses = "The policy failed (RuntimeError)."
    started(table)
    table.run_until(lambda: table.drive.phase is Phase.FAULT)
    assert (table.drive.state.fault_code, table.drive.state.fault) == (2, "The policy failed (RuntimeError).")
    assert len(table.answers.questions) == 3


def test_a_camera_that_is_silent_holds_the_arm_and_is_a_fault() -> None:
    table = started(cell())
    table.run(60)
    table.blind = {"wrist"}
    table.run(120)
    assert at_rest(table)
    table.run_until(lambda: table.drive.phase is Phase.FAULT)
    state = table.drive.state
    assert (state.fault_code, state.result) == (3, Result.ABORTED)
    assert state.fault == "For 2 s nothing recent came of image/wrist."
    table.blind = set()
    table.drive.reset("plc")
    table.run(30)
    assert table.drive.phase is Phase.READY


def test_a_robot_that_tells_nothing_is_stopped_and_only_an_operator_at_it_resets_that() -> None:
    table = started(cell())
    table.run(60)
    table.arm.deaf = True
    table.run_until(lambda: table.drive.phase is Phase.FAULT)
    state = table.drive.state
    assert (state.fault_code, state.latched, state.result) == (3, True, Result.ABORTED)
    assert at_rest(table)
    table.arm.deaf = False
    table.drive.reset("plc")
    table.run(30)
    assert table.drive.state.phase is Phase.FAULT
    assert table.drive.guard.reset(table.arm.now_ns, "operator at the robot")
    table.drive.reset("plc")
    table.run(30)
    assert table.drive.phase is Phase.READY


def test_a_first_target_far_away_is_refused_and_nothing_moves() -> None:
    table = Cell(Answers(lambda _question: np.tile(np.array([0.6, 0.3, 0.3, 1.0], np.float32), (CHUNK, 1))))
    started(table)
    before = table.arm.pose.copy()
    table.run_until(lambda: table.drive.phase is Phase.FAULT)
    assert table.drive.state.fault_code == 4
    np.testing.assert_array_equal(table.arm.pose, before)


@pytest.mark.parametrize(
    "bad", [np.full((CHUNK, 4), np.nan), np.zeros((CHUNK - 1, 4)), np.zeros((CHUNK, 3)), np.full((CHUNK, 4), np.inf)]
)
def test_a_chunk_that_is_none_is_a_fault(bad: Any) -> None:
    table = started(Cell(Answers(lambda _question: bad.astype(np.float32))))
    table.run_until(lambda: table.drive.phase is Phase.FAULT)
    assert table.drive.state.fault_code == 4
    assert table.arm.sent == []


def test_nothing_is_done_that_the_audit_cannot_write_down() -> None:
    table = cell()
    table.ready()
    table.refuse = StorageError("The audit cannot be written: No space left on device.")
    table.drive.start(7, table.arm.now_ns)
    table.run(50)
    assert (table.drive.phase, table.drive.state.fault_code, table.arm.sent) == (Phase.FAULT, 7, [])


def test_nothing_moves_before_the_start_is_written_down() -> None:
    table = cell()
    table.settled = False
    started(table)
    table.run(100)
    assert (table.answers.questions, table.arm.sent) == ([], [])
    table.settled = True
    table.run(100)
    assert table.arm.sent != []


def test_a_record_that_turns_out_not_to_be_written_ends_the_cycle() -> None:
    table = started(cell())
    table.run(60)
    table.unwritten = StorageError("The audit cannot be written: Input/output error.")
    table.run_until(lambda: table.drive.phase is Phase.FAULT)
    assert (table.drive.state.fault_code, table.drive.state.result) == (7, Result.ABORTED)
    assert at_rest(table) or table.run(30).velocity.max() == 0


def test_an_audit_that_is_long_behind_ends_the_cycle() -> None:
    table = started(cell())
    table.run(60)
    table.settled = False
    table.run(450)
    assert table.drive.phase is Phase.EXECUTING
    table.run_until(lambda: table.drive.phase is Phase.FAULT, 150)
    state = table.drive.state
    assert (state.fault_code, state.fault) == (7, "The audit is more than 5 s behind; look at its disk.")


def test_an_audit_that_fails_during_a_cycle_ends_it() -> None:
    table = started(cell())
    table.run(60)
    table.refuse = StorageError("The audit cannot be written: No space left on device.")
    table.drive.stop("asked for")
    table.run_until(lambda: table.drive.phase is Phase.FAULT)
    assert table.drive.state.fault_code == 7


def test_another_recipe_lets_another_adapter_act() -> None:
    table = started(cell(), limit_s=0.5)
    table.run_until(lambda: table.drive.phase is Phase.READY)
    table.drive.load(recipe(2, "right"))
    table.run(2)
    assert table.drive.state.model_hash == "right" * 3
    table.drive.start(8, table.arm.now_ns)
    table.run(10)
    assert table.answers.questions[-1].content["adapter"] == "right"
    assert [facts["name"] for facts in table.said("adapter")] == ["left", "right"]


def test_a_recipe_whose_model_is_another_than_it_names_is_a_fault() -> None:
    table = cell()
    table.drive.load(recipe(1, model_hash="0" * 64))
    table.run(30)
    assert (table.drive.phase, table.drive.state.fault_code) == (Phase.FAULT, 9)


def test_policies_that_a_robot_would_notice_the_change_of_are_refused() -> None:
    told = hello()
    told["adapters"]["right"]["action_horizon"] = CHUNK + 1
    with pytest.raises(InputError, match="'left' and 'right' differ in their chunk length"):
        first_facts(told, {1: recipe(), 2: recipe(2, "right")})


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"contract": "0" * 64}, ContractError, "was trained on the contract 000000000000"),
        ({"action_names": list(reversed(NAMES))}, ContractError, "in this order"),
        ({"view": None}, InputError, "tells too little of 'left'"),
        ({"action_horizon": True}, InputError, "tells nonsense"),
    ],
)
def test_what_a_server_tells_must_fit_the_robot(changes: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        PolicyFacts.from_hello(hello(**changes), "left").layout(ARM6)


def test_a_policy_that_the_server_has_not_is_refused() -> None:
    with pytest.raises(InputError, match="no policy 'middle'; it offers left, right"):
        PolicyFacts.from_hello(hello(), "middle")
    with pytest.raises(InputError, match="none by name"):
        PolicyFacts.from_hello({}, "middle")


def test_what_was_asked_sent_and_measured_is_kept(tmp_path: Any) -> None:
    table = started(cell(), limit_s=2.0)
    table.run_until(lambda: table.drive.phase is Phase.READY)
    (cycle,) = table.drive.ended
    cycle.trace.save(tmp_path / "cycle.npz")
    found = load_trace(tmp_path / "cycle.npz")
    assert found["names"].tolist() == list(table.drive.link.layout.names)
    assert len(found["sent"]) == len(found["measured"]) == len(found["sent_ns"]) > 150
    assert (np.diff(found["sent_ns"].astype(np.int64)) == 10 * MS).all()
    assert len(found["asked"]) == len(found["due_ns"]) == len(found["asked_ns"]) > CHUNK
    sent, measured = found["sent"].astype(np.float64), found["measured"].astype(np.float64)
    np.testing.assert_allclose(sent[-1, :3], measured[-1, :3], atol=1e-3)
    assert cycle.chunks == len(table.answers.questions)


def test_guard_events_are_told_once_a_second() -> None:
    table = started(Cell(Answers(towards(9.0, 9.0, 9.0))))
    table.run_until(lambda: table.drive.phase is Phase.FAULT)
    clamped = [facts for facts in table.said("guard") if facts["cause"] == Cause.CLAMPED.value]
    assert 1 <= len(clamped) <= table.arm.now_ns / 1e9 + 1
    assert VIEW.rate_hz == 10.0


def test_an_operator_takes_over_at_once_and_the_policy_goes_on_from_where_they_let_go() -> None:
    table = started(Cell(Answers(towards(*PLACE, gripper=-1.0)), hand="/hand"))
    table.run(80)
    asked, begun = len(table.answers.questions), table.arm.tick
    start = table.arm.pose[:3].copy()

    def lead(tick: int) -> bytes | None:
        place = start + np.array([-0.05, 0.0, 0.0]) * min(1.0, (tick - begun) / 100)
        return messages.pose_stamped(place, [0, 1, 0, 0], WALL_NS, "cell") if tick % 5 == 0 else None

    table.device = lead
    table.run(150)
    np.testing.assert_allclose(table.arm.pose[:3], start + np.array([-0.05, 0, 0]), atol=2e-3)
    assert table.drive.cycle is not None
    assert table.drive.cycle.by_hand
    assert len(table.answers.questions) <= asked + 1
    table.device = None
    table.run(100)
    assert [facts["begins"] for facts in table.said("intervention")] == [True, False]
    assert table.answers.questions[asked + 1 :][0].step == 0
    table.run(400)
    np.testing.assert_allclose(table.arm.pose[:3], PLACE, atol=2e-3)


def test_an_operators_device_that_says_nonsense_leads_nowhere() -> None:
    table = started(Cell(Answers(towards(*PLACE)), hand="/hand"))
    table.device = lambda _tick: b"nonsense"
    table.run(60)
    assert table.drive.cycle is not None
    assert not table.drive.cycle.by_hand
    assert table.answers.questions != []


def test_after_a_cycle_the_guard_lets_go_without_an_alarm() -> None:
    table = started(cell(), limit_s=1.0)
    table.run_until(lambda: table.drive.phase is Phase.READY)
    table.run(300)
    assert not table.drive.guard.engaged
    assert table.drive.guard.counts[Cause.CLIENT] == 0
    table.arm.pose[:3] += 0.3
    table.run(50)
    assert table.drive.phase is Phase.READY


def test_an_operator_needs_the_permission_to_move_too_and_a_second_take_over_knows_nothing_of_the_first() -> None:
    table = started(Cell(Answers(towards(*PLACE, gripper=-1.0)), hand="/hand"))
    table.run(60)
    table.enabled = False
    here = table.arm.pose[:3].copy()
    table.device = lambda _tick: messages.pose_stamped(here + np.array([0.05, 0, 0]), [0, 1, 0, 0], WALL_NS, "cell")
    table.run(150)
    assert abs(table.arm.pose[0] - here[0]) < 0.03
    hands = table.drive._means.hands
    gripper = messages.joint_state(["gripper"], [1.0], [], [], WALL_NS)
    table.drive.hear("/hand/gripper_command", gripper, table.arm.now_ns, table.arm.wall_ns)
    assert set(hands._rows) == {"tcp_command", "gripper_command"}
    table.device = None
    table.run(60)
    table.device = lambda _tick: messages.pose_stamped(here, [0, 1, 0, 0], WALL_NS, "cell")
    table.run(2)
    assert set(hands._rows) == {"tcp_command"}


def test_joints_that_come_in_another_order_are_the_same_state() -> None:
    states = []
    for order in (JOINTS, tuple(reversed(JOINTS))):
        table = started(cell())
        table.order = order
        table.run(100)
        states.append(table.answers.questions[-1].content["observation/state"])
    np.testing.assert_array_equal(states[0], states[1])


@pytest.mark.parametrize("seconds", [-3600, -3, -0.3, 0.3, 3, 3600])
def test_a_wall_clock_that_jumps_never_leaves_the_arm_moving_blindly(seconds: float) -> None:
    """It either goes on, with observations by the new time, or it ends at rest with a fault."""
    table = started(cell())
    table.run(60)
    table.jump_ns = round(seconds * 1e9)
    table.run(450)
    phase = table.drive.phase
    assert phase in (Phase.EXECUTING, Phase.FAULT)
    if phase is Phase.FAULT:
        assert at_rest(table)
        assert table.drive.state.fault_code == 3
    else:
        np.testing.assert_allclose(table.arm.pose[:3], PLACE, atol=5e-3)
    worst = max(float(np.abs(command.velocity[:3]).max()) for command in table.arm.commands)
    assert worst <= 0.25 + 1e-6


def test_a_camera_that_shows_one_picture_under_new_stamps_while_the_arm_moves_is_a_fault() -> None:
    table = started(cell())
    table.run(40)
    table.frozen = {"wrist"}
    table.run_until(lambda: table.drive.phase is Phase.FAULT)
    assert table.drive.state.fault_code == 3
    assert table.drive.state.fault == "Camera 'wrist' sends one and the same picture while the robot moves."
    assert at_rest(table) or table.run(30).velocity.max() == 0


def test_pictures_of_a_scene_in_which_nothing_moves_may_be_equal() -> None:
    table = cell()
    table.frozen = {"wrist", "front"}
    table.enabled = False
    started(table)
    table.run(500)
    assert table.drive.phase is Phase.EXECUTING
