"""An operator's intervention becomes a labelled episode, with what was seen just before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from recordings import ARM6, jpeg
from watching import until

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
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
