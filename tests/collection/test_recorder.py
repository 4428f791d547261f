"""A recorder opens what it may, counts what is there, and refuses the rest with a sentence."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fake_capture import FakeCapture
from recordings import ARM6, add_episode
from ros_rig import rig
from small_disks import remount, small_disk

import lehrling.collection.recorder as recorder_module
from lehrling.collection.capture_group import CaptureOptions
from lehrling.collection.doctor import diagnose
from lehrling.collection.doctor_report import DoctorReport
from lehrling.collection.recorder import Recorder, RecorderConfig, bound_embodiment
from lehrling.collection.sealing import Sealing
from lehrling.collection.session import Plan, SessionOptions
from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import ContractError, InputError, LehrlingError, LockedError, StorageError
from lehrling.datasets.sealer import seal


class Captures(FakeCapture):
    """Stands in for the capture processes."""

    started, closed, broken = 0, 0, ""

    def __init__(self, *_arguments: object) -> None:
        super().__init__()

    def start(self) -> None:
        Captures.started += 1
        if Captures.broken:
            raise LehrlingError(Captures.broken)

    def close(self) -> None:
        Captures.closed += 1

    def findings(self) -> list[dict[str, Any]]:
        return []

    def failure(self) -> str:
        return ""


@cache
def examined() -> DoctorReport:
    """Examine this computer once for all tests."""
    return diagnose(Path(tempfile.gettempdir()) / "d.zarr", ARM6)


@pytest.fixture(autouse=True)
def captures(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Captures]]:
    monkeypatch.setattr(recorder_module, "CaptureGroup", Captures)
    monkeypatch.setattr(recorder_module, "diagnose", lambda *_given: examined())
    monkeypatch.setattr(Sealing, "prepare", lambda _self: None)
    monkeypatch.setattr(Sealing, "_elsewhere", staticmethod(seal))
    Captures.started, Captures.closed, Captures.broken = 0, 0, ""
    yield Captures
    assert Captures.closed >= Captures.started


def config(root: Path, embodiment: Embodiment = ARM6, **more: Any) -> RecorderConfig:
    session = SessionOptions(min_free_bytes=0, facts={"station": "B"})
    return RecorderConfig(root, embodiment, Plan("kitting", "take the red one"), session, **more)


def test_a_dataset_is_created_or_gone_on_with_and_the_doctor_heard(tmp_path: Path) -> None:
    root = tmp_path / "d.zarr"
    for wanted in (1, 2):
        with Recorder(config(root, episodes=2)) as recorder:
            assert recorder.session.options.episodes == 3 - wanted
            name = recorder.session.start()
            recorder.session.save("success")
        facts = Dataset.open(root).records[name].facts
        assert (facts["station"], facts["sim_time"]) == ("B", False)
        assert facts["doctor"]["findings"]
        assert len(Dataset.open(root).episodes()) == wanted
    Dataset.open_for_writing(root).close()


@pytest.mark.parametrize(("wanted", "left"), [({"episodes": 3}, 1), ({"episodes": 1}, 0), ({"more": 3}, 3), ({}, None)])
def test_episodes_counts_those_of_this_robot_and_task_that_are_there_and_more_does_not(
    tmp_path: Path, wanted: dict[str, Any], left: int | None
) -> None:
    root = tmp_path / "d.zarr"
    create_dataset(root)
    add_episode(root, "one", seconds=0.1)
    add_episode(root, "two", seconds=0.1)
    with Recorder(config(root, **wanted)) as recorder:
        assert recorder.session.options.episodes == left
    other = RecorderConfig(root, ARM6, Plan("sorting", ""), SessionOptions(min_free_bytes=0), episodes=3)
    with Recorder(other) as recorder:
        assert recorder.session.options.episodes == 3


def test_episodes_and_more_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--episodes \(in all\) or --more \(in addition\), got both"):
        config(tmp_path / "d.zarr", episodes=1, more=1)


def test_a_dataset_that_another_recorder_writes_is_refused_by_name_and_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "d.zarr"
    with Dataset.open_for_writing(root, create=True):
        before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
        with pytest.raises(LockedError, match=r"is being written by process .* stop it"):
            Recorder(config(root))
        assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        create_dataset(disk / "d.zarr")
        remount(disk, "ro")
        with pytest.raises(StorageError, match="read-only"):
            Recorder(config(disk / "d.zarr"))
        with pytest.raises(StorageError, match="Read-only"):
            Recorder(config(disk / "new.zarr"))


def test_a_disk_without_room_for_an_episode_is_told_before_it_begins(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2) as disk, Recorder(config(disk / "d.zarr")) as recorder:
        (disk / "filler").write_bytes(bytes(recorder.session.free_bytes - 100_000))
        with pytest.raises(StorageError, match="No space left"):
            recorder.session.start()
        (disk / "filler").unlink()
        recorder.session.start()
        recorder.session.discard()


def test_another_contract_is_refused_before_anything_is_captured(tmp_path: Path, captures: type[Captures]) -> None:
    root = tmp_path / "d.zarr"
    create_dataset(root)
    add_episode(root, "one", seconds=0.1)
    data = ARM6.model_dump(mode="json")
    data["contract"]["joints"][0]["name"] = "joint0"
    data["contract"]["groups"]["arm"][0] = "joint0"
    with pytest.raises(ContractError, match="under another contract"):
        Recorder(config(root, Embodiment.model_validate(data)))
    assert captures.started == 0
    Dataset.open_for_writing(root).close()


def test_capturing_that_cannot_start_gives_the_dataset_back(tmp_path: Path, captures: type[Captures]) -> None:
    captures.broken = "Capturing could not be started: the message type hand_msgs/msg/Grip is not in the sourced ROS."
    with pytest.raises(LehrlingError, match="hand_msgs/msg/Grip is not in the sourced ROS"):
        Recorder(config(tmp_path / "d.zarr"))
    Dataset.open_for_writing(tmp_path / "d.zarr").close()


def test_a_recorder_that_is_closed_while_recording_saves(tmp_path: Path) -> None:
    recorder = Recorder(config(tmp_path / "d.zarr"))
    name = recorder.session.start()
    recorder.interrupt("recorder deactivated")
    recorder.interrupt("nothing to interrupt")
    second = recorder.session.start()
    recorder.close("stopped by SIGTERM")
    records = Dataset.open(tmp_path / "d.zarr").records
    assert (records[name].stop_cause, records[second].stop_cause) == ("recorder deactivated", "stopped by SIGTERM")


def test_a_campaign_is_asked_before_each_episode(tmp_path: Path) -> None:
    asked: list[Plan] = []

    def choose(dataset: Dataset, plan: Plan) -> Plan | None:
        asked.append(plan)
        assert dataset.episodes() is not None
        return Plan("sorting", "sort") if len(asked) == 1 else None

    with Recorder(config(tmp_path / "d.zarr", choose=choose)) as recorder:
        names = []
        for _ in range(2):
            names.append(recorder.session.start())
            recorder.session.save("success")
    records = Dataset.open(tmp_path / "d.zarr").records
    assert [records[name].task for name in names] == ["sorting", "sorting"]
    assert [plan.task for plan in asked] == ["kitting", "sorting"]


def test_namespace_and_images_are_this_recordings_own(tmp_path: Path) -> None:
    made = bound_embodiment(config(tmp_path, rig("left"), namespace="right", journal_images="raw"))
    assert (made.binding.namespace, made.binding.journal_images) == ("right", "raw")
    assert made.contract_hash == rig().contract_hash
    left = bound_embodiment(config(tmp_path, rig("left")))
    assert (left.binding.namespace, left.binding.journal_images) == ("left", "jpeg")
    with pytest.raises(InputError, match="Expected raw or jpeg for the journal's images, got 'png'"):
        bound_embodiment(config(tmp_path, journal_images="png"))


@pytest.mark.parametrize("name", ["", "/", "cell_3/left/"])
def test_a_namespace_may_be_written_in_any_way(name: str) -> None:
    from lehrling.collection.bound_topics import BoundTopics

    prefix = name.strip("/")
    bound = BoundTopics(rig(name))
    full = f"/{prefix}/joint_states" if prefix else "/joint_states"
    assert bound.names["/joint_states"] == full
    assert bound.declared(full) == "/joint_states"


@pytest.mark.parametrize("name", ["cell 3", "3cell", "left//right", "~/left", "{ns}", "a__b", "x" * 300])
def test_a_namespace_that_ros_would_refuse_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="namespace"):
        bound_embodiment(config(tmp_path, namespace=name))


def test_qos_that_is_not_understood_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    data = rig().model_dump(mode="json")
    data["binding"]["sources"]["pose"][0]["qos"] = {"reliability": "sometimes"}
    with pytest.raises(InputError, match="/tcp_pose: qos reliability must be"):
        Recorder(config(tmp_path / "d.zarr", Embodiment.model_validate(data)))
    assert not (tmp_path / "d.zarr").exists()


def test_there_are_never_more_processes_than_cameras_and_one(tmp_path: Path) -> None:
    from lehrling.collection.capture_group import shares

    robot = rig()
    topics = set(robot.binding.topics)
    for processes in range(1, 8):
        parts = shares(robot, processes)
        assert len(parts) == min(processes, 4)
        assert sorted(topic for part in parts for topic in part) == sorted(topics)
        assert all(parts)
    cameras = {"/front/compressed", "/side/image_raw", "/depth/image_raw"}
    assert not cameras & set(shares(robot, 2)[0])
    assert set(shares(robot, 2)[1]) == cameras
    assert [len(part) for part in shares(robot, 3)[1:]] == [2, 1]
    assert CaptureOptions().processes == 1
