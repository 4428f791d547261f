from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from view_robots import MS, arm_messages, humanoid_messages, record

from lehrling.datasets.align import Rule
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.errors import InputError
from lehrling.datasets.live import LiveBuffer, ObservationAssembler
from lehrling.datasets.resize import decode, encode
from lehrling.datasets.view import Field, ViewSpec, build_view

if TYPE_CHECKING:
    from pathlib import Path

    from lehrling.datasets.episode import Episode


def spec(image_px: int, latency_ms: float, *state: Field) -> ViewSpec:
    return ViewSpec(
        rate_hz=20,
        image_px=image_px,
        cameras=("front", "wrist"),
        state=state,
        action=(Field(stream="tcp_command", select=("x",)),),
        image_latency_ms=latency_ms,
    )


SPECS = [
    spec(96, 0, Field(stream="joint_position"), Field(stream="tcp_pose")),
    spec(48, 20, Field(stream="joint_position", latency_ms=5, select=("gripper", "joint1"))),
    spec(96, 0, Field(stream="joint_position", alignment="linear", delay_ms=25)),
    spec(48, 0, Field(stream="tcp_pose", alignment="slerp", delay_ms=40, max_gap_ms=60)),
]


def replay(episode: Episode, assembler: ObservationAssembler) -> list[tuple[int, str, int]]:
    """Return (received, stream, row) of everything the assembler wants, in order of receipt."""
    arrivals = [
        (int(received), name, row)
        for name in assembler.streams
        for row, received in enumerate(episode.stream(name).received_ns)
    ]
    return sorted(arrivals)


def deliver(episode: Episode, assembler: ObservationAssembler, name: str, row: int) -> None:
    stream = episode.stream(name)
    stamp, received = int(stream.stamp_ns[row]), int(stream.received_ns[row])
    if stream.stream.kind == "colour_image":
        assembler.add_image(name, stream.encoded(row), stamp, received)
    else:
        assembler.add(name, stream.value[row], stamp, received, mask=stream.mask[row])


def check_replay(root: Path, wanted: ViewSpec, latency_ns: int) -> int:
    """Replay message by message; at t plus the latency, compare the observation with the view's row."""
    dataset = Dataset.open(root)
    view, compared = build_view(dataset, "train", wanted), 0
    for entry in view.episodes:
        episode = dataset.episode(entry.id)
        assembler = ObservationAssembler(episode.contract, wanted)
        arrivals, row = replay(episode, assembler), entry.start
        for place, (received, name, number) in enumerate(arrivals):
            deliver(episode, assembler, name, number)
            following = arrivals[place + 1][0] if place + 1 < len(arrivals) else math.inf
            while row < entry.stop and received <= view.row_stamp_ns[row] + latency_ns < following:
                seen = assembler.observe(int(view.row_stamp_ns[row]))
                assert seen.state.tobytes() == view.state[row].tobytes()
                assert [*seen.age_ns.values()] == view.age_ns[row, : len(seen.age_ns)].tolist()
                for camera in wanted.cameras:
                    assert seen.images[camera].tobytes() == view.images(camera)[row].tobytes()
                row, compared = row + 1, compared + 1
        assert row == entry.stop
    return compared


@pytest.mark.parametrize("wanted", SPECS)
def test_a_replayed_episode_gives_the_observations_of_the_view_bit_for_bit(tmp_path: Path, wanted: ViewSpec) -> None:
    root = tmp_path / "plant.zarr"
    record(root, "a", arm_messages(1))
    record(root, "b", arm_messages(2, frames=8))
    assert check_replay(root, wanted, 20 * MS if wanted.image_latency_ms else 0) > 60


def test_a_replayed_humanoid_gives_the_observations_of_the_view_bit_for_bit(tmp_path: Path) -> None:
    root = tmp_path / "humanoid.zarr"
    record(root, "walk", humanoid_messages(), load_embodiment("humanoid"))
    wanted = ViewSpec(
        rate_hz=30,
        image_px=64,
        cameras=("head_camera",),
        state=(Field(stream="joint_position"), Field(stream="base_pose")),
        action=(Field(stream="joint_command"),),
    )
    assert check_replay(root, wanted, 0) > 20


def test_an_observation_says_what_it_lacks() -> None:
    assembler = ObservationAssembler(load_embodiment("arm6").contract, SPECS[0])
    assembler.add("tcp_pose", np.zeros(7), 0, 2 * MS)
    seen = assembler.observe(5 * MS)
    assert not seen.valid
    assert seen.lacking == ("state/joint_position", "image/front", "image/wrist")
    assert np.isnan(seen.state[:7]).all()
    assert seen.images == {}
    assert seen.age_ns["state/tcp_pose"] == 5 * MS


def test_a_raw_image_is_seen_as_a_view_would_hold_it() -> None:
    assembler = ObservationAssembler(load_embodiment("arm6").contract, SPECS[0])
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    assembler.add_image("front", image, 0, 0)
    assert (assembler.observe(0).images["front"] == decode(encode(image, 92))).all()


def test_streams_outside_the_view_are_refused() -> None:
    assembler = ObservationAssembler(load_embodiment("arm6").contract, SPECS[0])
    with pytest.raises(InputError, match="got 'imu'"):
        assembler.add("imu", [0.0], 0, 0)
    with pytest.raises(InputError, match="got 'side'"):
        assembler.add_image("side", b"", 0, 0)
    with pytest.raises(InputError, match="row of 7 numbers, got 3"):
        assembler.add("tcp_pose", [0.0, 1.0, 2.0], 0, 0)


def test_a_buffer_keeps_the_newest_rows_however_many_come() -> None:
    buffer = LiveBuffer(1, capacity=8)
    for number in range(100):
        buffer.append([float(number)], number, number)
        assert buffer.at(number, Rule()).value.tolist() == [[float(number)]]
    assert len(buffer) == 8
    assert buffer.rows.stamp_ns.tolist() == list(range(92, 100))
    assert not buffer.at(91, Rule()).valid.any()


def test_many_frames_keep_their_times() -> None:
    assembler = ObservationAssembler(load_embodiment("arm6").contract, SPECS[0])
    for number in range(200):
        image = np.full((96, 96, 3), number, np.uint8)
        assembler.add_image("front", image, number * MS, number * MS)
        shown = assembler.observe(number * MS).images["front"]
        assert abs(int(shown[0, 0, 0]) - number) <= 1
