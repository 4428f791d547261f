"""Rows of the guard's table that end motion: stale targets, clients that leave, the switch, stops and the latch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from guard_checks import AXES, MS, guarded, moving, wave
from hypothesis import given, settings
from hypothesis import strategies as st

from lehrling.deploy.guard_events import Cause, State

property_test = settings(max_examples=12, deadline=None)


# --- stale action, late chunk, client, deadman ------------------------------------------------------------------------------


def test_without_a_further_target_the_robot_comes_to_rest_in_the_last_one_and_says_so() -> None:
    robot = moving(guarded(), rows=8)
    robot.rest()
    np.testing.assert_allclose(robot.position, wave(8)[-1], atol=1e-9)
    robot.tick(12)
    assert (robot.state(), robot.commands[-1].cause) == (State.HOLDING, Cause.ACTION)
    robot.tick(120)
    assert robot.state() is State.WAITING
    assert not robot.commands[-1].publish


def test_a_chunk_made_from_an_old_observation_is_refused() -> None:
    robot = guarded()
    robot.tick(200)
    answer = robot.submit(wave(4), observed_ns=robot.now_ns - 1500 * MS)
    assert answer.cause is Cause.LATE


def test_targets_that_are_late_are_left_out_and_a_wholly_late_chunk_is_refused() -> None:
    robot = moving(guarded())
    due = robot.now_ns + np.arange(-4, 12) * 100 * MS
    assert robot.submit(wave(60)[30:46], due_ns=due)
    assert 4 <= robot.guard.counts[Cause.LATE] <= 8
    answer = robot.submit(wave(4), due_ns=robot.now_ns + np.arange(-9, -5) * 100 * MS)
    assert answer.cause is Cause.LATE
    robot.rest()
    np.testing.assert_allclose(robot.position, wave(60)[45], atol=1e-9)


def test_when_the_client_dies_amid_a_chunk_the_robot_stops_within_its_limits_long_before_the_end() -> None:
    robot = moving(guarded())
    robot.present = False
    robot.tick(52)
    assert (robot.state(), robot.commands[-1].cause) == (State.STOPPING, Cause.CLIENT)
    assert robot.rest() < 40
    assert robot.state() is State.WAITING
    assert np.abs(robot.position - wave(40)[-1]).max() > 0.2
    assert robot.submit(wave(4)).cause is Cause.CLIENT


@pytest.mark.parametrize("ticks", range(20, 60, 8))
def test_a_client_that_is_back_in_the_very_tick_of_rest_starts_within_the_limits(ticks: int) -> None:
    robot = guarded()
    assert robot.submit(wave(40), interval_ns=100 * MS)
    robot.tick(ticks)
    robot.guard.leave()
    robot.present = False
    robot.tick()
    robot.present, taken = True, 0
    while not taken:
        taken += bool(robot.submit(robot.position + np.linspace(0.02, 0.19, 9)[:, None], interval_ns=20 * MS))
        robot.tick()
    robot.rest()
    assert (robot.emitted.worst <= 1 + 1e-6).all()


def test_a_client_that_leaves_is_gone_at_once() -> None:
    robot = moving(guarded())
    robot.present = False
    robot.guard.leave()
    assert robot.tick().state is State.STOPPING


def test_motion_lasts_only_while_the_enabling_switch_is_held() -> None:
    robot = moving(guarded())
    robot.enabled = False
    robot.guard.release()
    robot.tick()
    assert (robot.state(), robot.commands[-1].cause) == (State.HOLDING, Cause.DEADMAN)
    assert robot.rest() < 40
    robot.enabled = True
    robot.rest()
    np.testing.assert_allclose(robot.position, wave(40)[-1], atol=1e-9)


def test_a_switch_held_again_after_long_does_not_resume_old_targets() -> None:
    robot = moving(guarded())
    robot.enabled = False
    robot.tick(150)
    stood = robot.position.copy()
    assert Cause.IDLE in robot.events
    robot.enabled = True
    robot.tick(100)
    np.testing.assert_array_equal(robot.position, stood)


def test_a_switch_without_renewal_counts_as_released() -> None:
    robot = moving(guarded())
    robot.enabled = False
    robot.tick(25)
    assert robot.commands[-1].cause is Cause.DEADMAN


# --- stop, latch --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 200))
@property_test
def test_a_protective_stop_request_stops_on_the_path_and_stays(ticks: int) -> None:
    robot, free = guarded(), guarded()
    for one in (robot, free):
        assert one.submit(wave(40), interval_ns=100 * MS)
        one.tick(ticks)
    robot.guard.stop(robot.now_ns, "gate opened")
    robot.tick()
    assert robot.state() is State.STOPPING
    assert robot.rest() < 40
    free.rest()
    assert max(np.abs(free.at - place).max(axis=1).min() for place in robot.at) < 0.02
    assert robot.submit(wave(3)).cause is Cause.LATCHED


def test_only_a_named_operator_resets_and_only_at_rest(tmp_path: Path) -> None:
    robot = moving(guarded(latch_path=tmp_path / "latch.json"))
    robot.guard.stop(robot.now_ns)
    robot.tick(2)
    assert not robot.guard.reset(robot.now_ns, "Kim")
    robot.rest()
    assert not robot.guard.reset(robot.now_ns, " ")
    assert robot.guard.reset(robot.now_ns, "Kim")
    assert robot.submit(robot.position).accepted
    assert Cause.RESET in robot.guard.counts
    assert "Kim" in (tmp_path / "latch.json").read_text()


def test_after_a_reset_the_switch_must_be_pressed_again() -> None:
    robot = guarded()
    robot.guard.stop(robot.now_ns)
    robot.guard.reset(robot.now_ns, "Kim")
    assert robot.guard.submit(robot.now_ns, np.zeros(AXES)).cause is Cause.DEADMAN


def test_time_that_goes_backwards_stops_and_latches() -> None:
    robot = moving(guarded())
    robot.now_ns -= 10**9
    robot.tick()
    assert robot.guard.latch.cause == Cause.CLOCK
    assert robot.state() is State.STOPPING
    robot.rest()
    robot.guard.reset(robot.now_ns, "Kim")
    assert robot.submit(robot.position)


def test_after_a_stalled_loop_the_robot_goes_on_from_rest_where_the_last_command_was() -> None:
    robot = moving(guarded())
    before = robot.position.copy()
    robot.now_ns += 300 * MS
    robot.tick()
    assert np.abs(robot.position - before).max() < 0.001
    assert robot.guard.counts[Cause.STALL] == 1
    robot.rest()
    np.testing.assert_allclose(robot.position, wave(40)[-1], atol=1e-9)


def test_after_a_long_gap_it_needs_new_targets() -> None:
    robot = moving(guarded())
    before = robot.position.copy()
    robot.now_ns += 1500 * MS
    robot.tick(50)
    np.testing.assert_array_equal(robot.position, before)
    assert robot.submit(before + 0.05)
    robot.rest()
    np.testing.assert_allclose(robot.position, before + 0.05, atol=1e-9)


def test_a_call_before_its_time_gets_no_command() -> None:
    robot = moving(guarded())
    command = robot.guard.step(robot.now_ns + 2 * MS)
    assert not command.publish
    np.testing.assert_array_equal(command.position, robot.position)
