"""Hours of recording with a camera unplugged and replugged: memory stays flat, and nothing goes missing unreported."""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from figures import note
from record_runs import RecordRun, robot_file
from recordings import jpeg
from ros_publishers import Publishers, own_domain, publishers
from ros_rig import COMPRESSED, IMAGE, STATE, front, side, state
from watching import children, command, resident_kib

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.episode import Episode

pytest.importorskip("rclpy")
MINUTES = float(os.environ.get("LEHRLING_SOAK_MINUTES", "60"))
EPISODE_S, PLUGGED_S, UNPLUGGED_S, SAMPLE_S = 20.0, 22.0, 4.0, 2.0
GROWTH_KIB = 12 << 10
LOST = ("lost_middleware", "lost_queue")
FRONT, JOINTS = "/front/compressed", "/joint_states"


@dataclass
class Memory:
    """What each of the recorder's processes holds in RAM."""

    samples: dict[str, list[int]] = field(default_factory=dict)

    def sample(self, run: RecordRun) -> None:
        pids = {"recorder": run.process.pid}
        pids |= {f"process {pid}": pid for pid in children(run.process.pid) if "spawn_main" in command(pid)}
        for role, pid in pids.items():
            self.samples.setdefault(role, []).append(resident_kib(pid))

    def growth_kib(self, role: str) -> float:
        """Return by how much the last third of the samples is above the third before."""
        found = self.samples[role]
        third = len(found) // 3
        return statistics.median(found[-third:]) - statistics.median(found[-2 * third : -third])


@pytest.fixture
def cameras() -> Iterator[Publishers]:
    own_domain()
    with publishers() as made:
        made.open("joints", JOINTS, STATE)
        made.open("side", "/side/image_raw", IMAGE)
        made.open("front", FRONT, COMPRESSED)
        made.pump("joints", state, 200)
        made.pump("side", side, 10)
        made.pump("front", front, 30)
        yield made


def replug(cameras: Publishers) -> None:
    """Unplug the front camera for a while; it counts from 0 again."""
    cameras.close("front")
    time.sleep(UNPLUGGED_S)
    cameras.open("front", FRONT, COMPRESSED)
    cameras.pump("front", front, 30)


def check_episode(episode: Episode, numbers: dict[bytes, int]) -> bool:
    """Check that whatever is missing is reported; return whether the camera was unplugged in it."""
    facts, name = episode.record.facts, episode.id
    joints = episode.stream("position").value[:, 0].tolist()
    assert joints[-1] - joints[0] + 1 == len(joints) + sum(facts[key][JOINTS] for key in LOST), name
    stream = episode.stream("front")
    frames = [numbers[stream.encoded(k)] for k in range(len(stream))]
    missing = sum(b - a - 1 for a, b in itertools.pairwise(frames) if b > a)
    assert missing <= sum(facts[key][FRONT] for key in LOST), (name, missing)
    unplugged = any(b <= a for a, b in itertools.pairwise(frames))
    assert not unplugged or any(finding["topic"] == FRONT for finding in facts["findings"]), name
    return unplugged


@pytest.mark.soak
@pytest.mark.timeout(MINUTES * 90 + 900)
def test_an_hour_with_a_camera_unplugged_and_replugged_loses_nothing_unreported(
    cameras: Publishers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    robot = robot_file(tmp_path / "robot.json", ("position",), ("front", "side"), position=200, front=30, side=10)
    run = RecordRun(tmp_path / "d.zarr", robot, "--autostart", "--limit", str(EPISODE_S), "--processes", "2", "--json")
    memory, unplugged = Memory(), 0
    try:
        run.journal()
        began, next_unplug, next_sample = time.monotonic(), time.monotonic() + PLUGGED_S, 0.0
        while time.monotonic() < began + MINUTES * 60:
            assert run.process.poll() is None, run.told
            if time.monotonic() >= next_unplug:
                replug(cameras)
                unplugged, next_unplug = unplugged + 1, time.monotonic() + PLUGGED_S
            if time.monotonic() >= next_sample:
                memory.sample(run)
                next_sample = time.monotonic() + SAMPLE_S
            time.sleep(0.1)
        run.process.send_signal(signal.SIGTERM)
        code, report = run.end(300)
    finally:
        run.kill()
    assert code in (0, 3), run.told
    assert report["failed"] == []
    dataset = Dataset.open(run.root)
    assert dataset.verify().whole
    numbers = {jpeg(number): number for number in range(round(2 * 30 * PLUGGED_S))}
    seen = [check_episode(episode, numbers) for episode in dataset.episodes()]
    grown = {role: memory.growth_kib(role) for role, found in memory.samples.items() if len(found) >= 9}
    with capsys.disabled():
        rows = {name: sum(e.record.lengths[name] for e in dataset.episodes()) for name in ("position", "front", "side")}
        lost = {key: sum(sum(e.record.facts[key].values()) for e in dataset.episodes()) for key in LOST}
        lag = max(e.record.facts["lag_max_ms"] for e in dataset.episodes())
        held = {role: f"{memory.samples[role][-1] >> 10} MiB, {kib / 1024:+.1f}" for role, kib in grown.items()}
        told = f"{MINUTES:g} minutes, {len(seen)} episodes, {unplugged} times unplugged, {rows}, {lost}, lag {lag} ms"
        print(f"\n{told}\n{held}")  # noqa: T201
    what = f"{MINUTES:g} minutes, {len(seen)} episodes, camera unplugged {unplugged} times"
    most = max(grown.values()) / 1024
    note(
        f"{what}: growth of the process that grew most",
        most,
        "MiB",
        "allowed",
        GROWTH_KIB / 1024,
        "flat",
        met=most < GROWTH_KIB / 1024,
    )
    note(f"{what}: messages missing unreported, of {sum(rows.values())}", 0, "", "promise", 0, "0", met=True)
    note(f"{what}: messages reported lost", sum(lost.values()), "", "none", 0, "stated", met=True)
    assert sum(seen) >= unplugged // 3
    assert max(grown.values()) < GROWTH_KIB, grown
