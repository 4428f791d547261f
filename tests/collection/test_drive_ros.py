"""Teleoperation and replay over real DDS."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2, for example lehrling-collection[ros-wheels]")

from driven_episodes import arm_episode, commanded
from driven_robots import held_late
from ros_arm import JOINTS, POSE, START, ros_arm
from ros_publishers import own_domain, publishers
from terminals import Terminal

from lehrling.collection.replay import Replay, plan_replay, station_of
from lehrling.collection.replay_node import ReplayReport, run_replay
from lehrling.datasets import messages
from lehrling.datasets.episode import Episode
from lehrling.datasets.errors import InputError
from lehrling.deploy.guard_link import GuardLink


@pytest.fixture(scope="module", autouse=True)
def _own_domain() -> None:
    own_domain()


@pytest.fixture(scope="module")
def episode(tmp_path_factory: pytest.TempPathFactory) -> Episode:
    return arm_episode(tmp_path_factory.mktemp("arm"))


def replayed(episode: Episode, *, all_streams: bool = False, **options: Any) -> ReplayReport:
    link = GuardLink.of(station_of(episode, None, None))
    plan = plan_replay(episode, link.layout, all_streams=all_streams)
    replay = Replay(link, plan.track, 1.0, plan.messages)
    return run_replay(replay, **({"stopped": lambda: False} | options))


def positions(rows: list[tuple[int, bytes]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    points = [messages.decode(cdr, POSE).pose.position for _, cdr in rows]
    return np.array([[p.x, p.y, p.z] for p in points])


def patiently(check: Callable[[Episode], None], episode: Episode) -> None:
    """Check up to three times: a machine that stands still makes the guard stop, as it should."""
    for _ in range(2):
        try:
            check(episode)
        except AssertionError:
            continue
        return
    check(episode)


def test_an_arm_on_dds_does_again_what_the_episode_commanded(episode: Episode) -> None:
    patiently(check_replay, episode)


def check_replay(episode: Episode) -> None:
    with ros_arm({"/joint_states": JOINTS}) as arm:
        report = replayed(episode, all_streams=True)
        heard = arm.heard()
    assert report.complete, report.trouble
    assert (report.targets, report.reached) == (40, 40)
    assert 1.9 < report.seconds < 20  # a busy machine takes its time to connect
    np.testing.assert_allclose(heard.position, commanded(1.95), atol=1e-3)
    path = positions(heard.commands["/tcp_command"])
    np.testing.assert_allclose(path[0], START, atol=0.01)
    assert np.abs(np.diff(path, axis=0)).max() < 0.25 * 0.05 * 1.5
    assert len(heard.commands["/joint_states"]) == report.published["/joint_states"] == 200
    times = np.array([at for at, _ in heard.commands["/joint_states"]]) / 1e9
    assert times[-1] - times[0] == pytest.approx(1.99, abs=0.3)


def test_an_arm_elsewhere_is_not_moved(tmp_path: Path) -> None:
    elsewhere = arm_episode(tmp_path, seconds=3.0)
    link = GuardLink.of(station_of(elsewhere, None, None))
    track = plan_replay(elsewhere, link.layout, all_streams=False).track
    shifted = type(track)(track.at_s, track.targets + np.array([0, 0.15, 0, 0, 0, 0, 0]), track.zero_ns)
    with ros_arm() as arm:
        with pytest.raises(InputError, match="does not start"):
            run_replay(Replay(link, shifted), stopped=lambda: False)
        assert arm.heard().commands["/tcp_command"] == []


def test_without_a_listener_the_replay_says_which_topic_nobody_hears(
    episode: Episode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lehrling.collection.replay_node.CONNECT_S", 0.5)
    with pytest.raises(InputError, match="Nobody listens to /tcp_command, /gripper_command"):
        replayed(episode)


def test_a_replay_waits_for_the_deadman_and_pauses_without_it(episode: Episode) -> None:
    patiently(check_deadman, episode)


def check_deadman(episode: Episode) -> None:
    with ros_arm() as arm, publishers() as buttons:
        buttons.open("joy", "/joy", "sensor_msgs/msg/Joy")
        buttons.pump("joy", held_late, 30.0)
        report = replayed(episode, deadman=("/joy", 4))
        assert report.complete, report.trouble
        np.testing.assert_allclose(arm.heard().position, commanded(1.95), atol=1e-3)


def test_keys_in_a_terminal_drive_an_arm_on_dds_and_letting_go_stops_it(tmp_path: Path) -> None:
    with ros_arm() as arm:
        terminal = Terminal(tmp_path, "--embodiment", "arm6")
        terminal.wait_for("waiting")
        time.sleep(1.0)
        until = time.monotonic() + 30
        while arm.heard().position[0] < START[0] + 0.02:
            assert time.monotonic() < until, terminal.screen
            terminal.hold("w", 0.5)
        time.sleep(1.0)
        moved = arm.heard().position
        np.testing.assert_allclose(moved[1:], START[1:], atol=1e-6)
        time.sleep(0.5)
        assert arm.heard().position == moved
        os.write(terminal.ours, b"q")
        report = terminal.end()
        path = positions(arm.heard().commands["/tcp_command"])
    assert report["published"]["/tcp_command"] > 10
    assert report["published"]["/gripper_command"] == 0
    assert np.abs(np.diff(path[:, 0])).max() < 0.25 * 0.05 * 1.5


def test_a_stop_in_teleoperation_is_still_latched_in_the_next_one(tmp_path: Path) -> None:
    with ros_arm() as arm:
        terminal = Terminal(tmp_path, "--embodiment", "arm6")
        terminal.wait_for("waiting")
        os.write(terminal.ours, b"x")
        terminal.wait_for("R resets")
        terminal.process.send_signal(signal.SIGKILL)
        terminal.process.wait(10)
        again = Terminal(tmp_path, "--embodiment", "arm6")
        again.wait_for("stopped")
        time.sleep(0.5)
        again.hold("w", 0.5)
        assert arm.heard().commands["/tcp_command"] == []
        again.process.send_signal(signal.SIGTERM)
        assert again.end()["latched"] == "protective stop request"
