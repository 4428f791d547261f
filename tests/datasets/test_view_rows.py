"""Rows of an episode from its first complete observation to its last action, at any rate, and never out of bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from recordings import MS
from short_episodes import SMALL

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Contract, Stream
from lehrling.datasets.journal import EpisodeMeta, JournalWriter
from lehrling.datasets.lockstep import times_at
from lehrling.datasets.quality_signals import GRID_ROWS_MAX, on_grid
from lehrling.datasets.view_layout import Layout, resolve
from lehrling.datasets.view_rows import EpisodeRows, NumericRows, Streams, episode_rows
from lehrling.datasets.view_spec import Field, ViewSpec

START = 10**18
CONTRACT = Contract(
    joints=(),
    cameras=(),
    streams=(
        Stream(name="state", kind="scalar", shape=(1,), role="observation"),
        Stream(name="command", kind="scalar", shape=(1,), role="action"),
    ),
)


def layout(rate_hz: float) -> Layout:
    spec = ViewSpec(rate_hz=rate_hz, image_px=0, state=(Field(stream="state"),), action=(Field(stream="command"),))
    return resolve(CONTRACT, spec)


def rows(state_ns: NDArray[np.int64], command_ns: NDArray[np.int64], rate_hz: float) -> EpisodeRows:
    parts = {
        "state": NumericRows(state_ns, state_ns, np.arange(len(state_ns), dtype=float)[:, None]),
        "command": NumericRows(command_ns, command_ns, np.arange(len(command_ns), dtype=float)[:, None]),
    }
    return episode_rows(Streams(lambda name: parts[name], pytest.fail), layout(rate_hz))


@pytest.mark.parametrize("rate_hz", [10.0, 15.0, 24.0, 29.97, 30.0, 60.0, 1000.0])
def test_frames_at_the_views_own_rate_give_a_row_each_the_last_one_too(rate_hz: float) -> None:
    for count in range(1, 200):
        times = times_at(rate_hz, count)
        found = rows(times, times, rate_hz)
        assert found.stamp_ns.tolist() == times.tolist()
        assert found.action[:, 0].tolist() == list(range(count))


@pytest.mark.parametrize("beyond_ns", [0, 1, 33 * MS])
def test_no_row_is_later_than_the_last_action(beyond_ns: int) -> None:
    times = times_at(10, 20)
    found = rows(times, times + beyond_ns, 30.0)
    assert found.stamp_ns[-1] <= times[-1] + beyond_ns < found.stamp_ns[-1] + 1e9 / 30.0 + 1


def test_a_stamp_of_another_year_leaves_the_episode_out_with_a_reason() -> None:
    times = START + np.arange(50) * 20 * MS
    commands = times.copy()
    commands[20] = (2**31 - 1) * 10**9
    found = rows(times, commands, 30.0)
    assert len(found.stamp_ns) == 0
    assert found.reason.startswith("its stamps span")
    assert found.reason.endswith("days, more than 2000000 rows; trim it to what was recorded")


def test_a_grid_of_a_quality_gate_is_bounded_before_it_is_made() -> None:
    times = np.array([START, START + 10 * MS, 2**62])
    grid = on_grid(times, np.array([[0.0], [1.0], [2.0]]), int(times[0]), int(times[-1]))
    assert grid.shape == (GRID_ROWS_MAX, 1)


def test_rows_stand_in_their_order_of_receipt_also_where_this_machines_clock_was_set_back(root: Path) -> None:
    with JournalWriter(root, EpisodeMeta("one", "kitting", "", "arm6", "robot"), SMALL) as journal:
        for k in range(100):
            stamp = START + k * 10 * MS
            journal.write(
                "/tcp_pose",
                messages.pose_stamped([k, 0, 0], [0, 1, 0, 0], stamp, "c"),
                received_ns=stamp + MS - (200 * MS if k >= 50 else 0),
                monotonic_ns=10**9 + k * 10 * MS,
                sequence=k,
            )
        journal.close("success", "operator")
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.episode("one").stream("tcp_pose").value[:, 0].tolist() == list(range(100))
        timing = dataset.records["one"].timing["tcp_pose"]
    assert (timing.out_of_order, timing.dropped) == (0, 0)
