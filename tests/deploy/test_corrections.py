"""An operator's intervention becomes a labelled episode, with what was seen just before."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recordings import ARM6, jpeg
from watching import until

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.journal import JournalWriter
from lehrling.deploy import corrections as module
from lehrling.deploy.corrections import Corrections

WALL_NS, MS = 1_700_000_000_000_000_000, 1_000_000


def take(corrections: Corrections, tick: int) -> None:
    """Hand over what an arm tells and is told in one tick of 10 ms."""
    now, stamp = tick * 10 * MS, WALL_NS + tick * 10 * MS
    joints = messages.joint_state([f"joint{n}" for n in range(1, 7)] + ["gripper"], [tick] * 7, [0] * 7, [], stamp)
    corrections.take("/joint_states", joints, now, stamp)
    pose = messages.pose_stamped([0.4, tick / 1000, 0.1], [0, 1, 0, 0], stamp, "cell")
    corrections.take("/tcp_pose", pose, now, stamp)
    if tick % 5 == 0:
        corrections.take("/tcp_command", pose, now, stamp)
        gripper = messages.joint_state(["gripper"], [1.0], [], [], stamp)
        corrections.take("/gripper_command", gripper, now, stamp)
    if tick % 10 == 0:
        for camera in ("front", "wrist"):
            image = messages.compressed_image(jpeg(tick), stamp, camera)
            corrections.take(f"/{camera}/image_raw/compressed", image, now, stamp)
    corrections.take("/not/bound", b"", now, stamp)


def test_an_intervention_is_an_episode_that_begins_before_it(tmp_path: Path) -> None:
    said: list[str] = []
    root = tmp_path / "corrections.zarr"
    corrections = Corrections(root, ARM6, said.append)
    for tick in range(300):
        take(corrections, tick)
    corrections.begin("put it there", {"recipe": 2, "cycle": 7, "model": "abc"})
    for tick in range(300, 400):
        take(corrections, tick)
    corrections.end("success")
    for tick in range(400, 450):
        take(corrections, tick)
    until(lambda: bool(corrections.written))
    corrections.close()
    assert said == []
    with Dataset.open_for_writing(root) as dataset:
        (record,) = dataset.records.values()
        assert (record.task, record.instruction, record.outcome) == ("correction", "put it there", "success")
        episode = dataset.episode(record.id)
        assert episode.attributes["details"] == {"recipe": 2, "cycle": 7, "model": "abc"}
        position = episode.stream("joint_position").value[:, 0]
    assert position[-1] == 399
    assert 199 <= position[0] <= 200
    np.testing.assert_array_equal(np.diff(position), 1)


def test_a_dataset_that_cannot_be_written_is_told_and_nothing_else_happens(tmp_path: Path) -> None:
    said: list[str] = []
    root = tmp_path / "corrections.zarr"
    root.mkdir()
    (root / "something").write_text("else")
    corrections = Corrections(root, ARM6, said.append)
    corrections.begin("put it there", {})
    for tick in range(20):
        take(corrections, tick)
    corrections.close()
    assert len(said) == 1
    assert said[0].startswith("A correction is not recorded to its end")
    assert corrections.written == []


def test_an_error_of_any_kind_is_told_and_the_next_intervention_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    root = tmp_path / "corrections.zarr"
    root.mkdir()

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    corrections = Corrections(root, ARM6, said.append)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refuse)
        corrections.begin("put it there", {})
        until(lambda: bool(said))
        take(corrections, 0)
        corrections.end()
    assert said == [f"A correction is not recorded to its end: PermissionError: [Errno 13] Permission denied: '{root}'"]
    corrections.begin("put it there", {})
    for tick in range(1, 20):
        take(corrections, tick)
    corrections.close()
    assert len(corrections.written) == 1
    assert len(said) == 1


def test_a_disk_that_stands_holds_nobody_up_and_what_is_lost_is_said_of_its_episode_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, gate, write = list[str](), threading.Event(), module._write

    def slow(*words: Any) -> None:
        gate.wait()
        write(*words)

    monkeypatch.setattr(module, "_write", slow)
    monkeypatch.setattr(module, "WAITING_BYTES", 20_000)
    root = tmp_path / "corrections.zarr"
    corrections = Corrections(root, ARM6, said.append)
    corrections.begin("first", {})
    for tick in range(100):
        take(corrections, tick)
    assert corrections._size <= 20_000
    assert corrections.lost > 50
    corrections.end()
    gate.set()
    until(lambda: len(corrections.written) == 1)
    assert corrections._size == 0
    corrections.begin("second", {})
    for tick in range(100, 110):
        take(corrections, tick)
        until(lambda: corrections._size == 0)
    corrections.close()
    first, second = Dataset.open(root).records.values()
    assert list(first.losses)[-1] == f"{corrections.lost} messages found no room while the disk was behind"
    assert not any("no room" in loss for loss in second.losses)
    assert said == []


def test_an_episode_that_cannot_be_written_on_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    abandoned: list[str] = []
    monkeypatch.setattr(JournalWriter, "abandon", lambda writer: abandoned.append(writer.directory.name))

    def refuse(*_words: Any) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(module, "_write", refuse)
    corrections = Corrections(tmp_path / "corrections.zarr", ARM6, said.append)
    corrections.begin("put it there", {})
    take(corrections, 0)
    corrections.close()
    assert len(abandoned) == 1
    assert said == ["A correction is not recorded to its end: ValueError: no such thing"]
