"""The two command lines of docs/recording.md, as people type them: simulated robots recorded over real DDS."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_runs import SCRIPT, Command
from ros_publishers import own_domain

from lehrling.datasets.dataset import Dataset

pytest.importorskip("rclpy")
DOCS = Path(__file__).parents[2] / "docs" / "recording.md"
ARM, HUMANOID = ("kitting", "arm6", 5), ("bimanual_lift", "upper_humanoid", 2)


def documented(verb: str, task: str, robot: str, episodes: int) -> list[str]:
    """Return the documented line of a verb, for another task, robot or number."""
    section = DOCS.read_text().partition("in two terminals")[2]
    line = next(line for line in section.splitlines() if line.startswith(f"lehrling {verb} "))
    assert "kitting" in line
    assert "arm6" in line
    assert line.count(" 5") == 1
    return [
        SCRIPT,
        *shlex.split(line.replace("kitting", task).replace("arm6", robot).replace(" 5", f" {episodes}"))[1:],
    ]


@contextmanager
def terminal(words: list[str], folder: Path, log: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command as in a terminal of its own; end it if it has not ended."""
    with (folder / log).open("wb") as out:
        process = subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.mark.parametrize(("task", "robot", "episodes"), [ARM, pytest.param(*HUMANOID, marks=pytest.mark.slow)])
def test_the_documented_lines_record_episodes_whose_timing_inspect_shows(
    task: str, robot: str, episodes: int, tmp_path: Path, lehrling: Command
) -> None:
    own_domain()
    assert os.environ["ROS_LOCALHOST_ONLY"] == "1"
    with (
        terminal(documented("record", task, robot, episodes), tmp_path, "record.log") as recorder,
        terminal(documented("sim serve", task, robot, episodes), tmp_path, "serve.log") as served,
    ):
        until = time.monotonic() + 200
        while (recorder.poll() is None or served.poll() is None) and time.monotonic() < until:
            time.sleep(0.2)
        told = (tmp_path / "record.log").read_text() + (tmp_path / "serve.log").read_text()
        assert served.returncode == 0, told
        assert recorder.returncode in (0, 3), told
    root = tmp_path / "cell.zarr"
    dataset = Dataset.open(root)
    assert dataset.verify().whole
    found = dataset.episodes()
    assert [episode.record.outcome for episode in found] == ["success"] * episodes
    assert {episode.record.task for episode in found} == {task}
    assert all(episode.record.instruction for episode in found)
    for episode in found:
        shown = lehrling("inspect", root, episode.id, "--json").data
        assert set(shown["timing"]) == set(shown["lengths"])
        for name, timing in shown["timing"].items():
            nominal_hz = sum(source["rate_hz"] for source in shown["streams"][name]["sources"])
            assert timing["count"] == shown["lengths"][name] > 0
            # a busy machine slows the simulator down; none makes it faster
            assert 0.2 * nominal_hz < timing["rate_hz"] < 1.2 * nominal_hz, name
            assert timing["latency_p50_ms"] > 0, name
        table = lehrling("inspect", root, episode.id).out
        assert all(name in table for name in shown["timing"])
