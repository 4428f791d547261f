"""The black box: a stop leaves the messages before it as an episode, and nothing that the disk does stops the robot."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from cli_runs import Command
from recordings import ARM6, MS, write_rows
from small_disks import small_disk
from watching import until

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError
from lehrling.datasets.journal import JournalPart
from lehrling.datasets.lock import WriteLock
from lehrling.deploy import black_box as module
from lehrling.deploy.audit import AuditLog
from lehrling.deploy.audit_verify import read_records, verify
from lehrling.deploy.black_box import BlackBox, BoxLimits
from lehrling.deploy.black_box_episode import write_episode

START_NS = 10**18
SECOND_NS = 1_000_000_000


class Fed:
    """Passes what a recording would hold on to a black box."""

    def __init__(self, box: BlackBox) -> None:
        self._box = box

    def write(self, topic: str, cdr: bytes, *, received_ns: int, **known: Any) -> None:
        known["monotonic_ns"] = received_ns - START_NS
        self._box.take(topic, cdr, received_ns=received_ns, **known)


def feed(box: BlackBox, seconds: float = 0.5) -> None:
    write_rows(cast(JournalPart, Fed(box)), seconds)


def told_of(told: list[str], stops: int) -> bool:
    return len(told) == stops


def command(tick: int) -> bytes:
    return messages.joint_state(["gripper"], [float(tick)], [], [], START_NS + tick)


def test_a_stop_leaves_an_episode_that_people_can_open(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[str] = []
    root, path = tmp_path / "stops.zarr", tmp_path / "audit.jsonl"
    with AuditLog(path) as audit, BlackBox(root, ARM6, audit=audit, tell=told.append) as box:
        feed(box)
        held = len(box)
        name = box.keep("workspace", "tool left the box", task="kitting", instruction="put the red part away")
    episode = Dataset.open(root).episode(name)
    assert episode.record.stop_cause == "workspace"
    assert (episode.record.task, episode.record.instruction) == ("kitting", "put the red part away")
    assert episode.record.outcome == "unknown"
    assert episode.record.losses == ()
    assert episode.record.lengths["joint_position"] == 50
    assert episode.record.lengths["front"] == 5
    np.testing.assert_allclose(episode.stream("joint_position").value[7], np.sin(np.arange(7) + 7 / 50))
    assert episode.stream("joint_position").received_ns[7] == START_NS + 72 * MS
    assert Dataset.open(root).verify().whole
    assert told == [f"The stop {name} (workspace) is kept."]
    (kept,) = [record for record in read_records(path) if record.kind == "black box kept"]
    assert kept.facts["messages"] == held
    assert kept.facts["content_hash"] == episode.record.content_hash
    shown = Command(capfd)("inspect", root, "--json")
    assert shown.code == 0
    assert name in shown.out


def test_the_oldest_go_first_by_age_and_by_size(tmp_path: Path) -> None:
    with BlackBox(tmp_path / "stops.zarr", ARM6, BoxLimits(seconds=1.0)) as box:
        for tick in range(30):
            box.take("/gripper_command", command(tick), received_ns=tick, monotonic_ns=tick * SECOND_NS // 10)
        assert len(box) == 11
        assert box.dropped == 0
        box.take("/gripper_command", command(30), received_ns=30, monotonic_ns=100 * SECOND_NS)
        assert len(box) == 1
    size = len(command(0))
    with BlackBox(tmp_path / "stops.zarr", ARM6, BoxLimits(seconds=1.0, bytes_max=5 * size)) as box:
        for tick in range(8):
            box.take("/gripper_command", command(tick), received_ns=START_NS + tick, monotonic_ns=tick)
        assert (len(box), box.held_bytes, box.dropped) == (5, 5 * size, 3)
        name = box.keep("stop")
        box.take("/gripper_command", b"x" * (6 * size), received_ns=9, monotonic_ns=9)
        assert (len(box), box.held_bytes) == (0, 0)
    episode = Dataset.open(tmp_path / "stops.zarr").episode(name)
    assert episode.stream("gripper_command").value[:, 0].tolist() == [3.0, 4.0, 5.0, 6.0, 7.0]
    assert episode.record.facts["black_box"] == {"dropped": 3, "left_out": 0}


def test_messages_that_may_be_why_it_stopped_do_not_spoil_the_episode(tmp_path: Path) -> None:
    with BlackBox(tmp_path / "stops.zarr", ARM6) as box:
        feed(box)
        now: dict[str, Any] = {"received_ns": START_NS + SECOND_NS, "monotonic_ns": SECOND_NS}
        names = [joint.name for joint in ARM6.contract.joints]
        box.take("/joint_states", messages.joint_state(names, [np.nan] * 7, [0.0] * 7, [], START_NS), **now)
        box.take("/joint_states", b"\x00\x01\x00\x00damaged", **now)
        box.take("/front/image_raw/compressed", messages.compressed_image(b"no jpeg", START_NS, "front"), **now)
        box.take("/other", b"", **now)
        name = box.keep("not finite")
    record = Dataset.open(tmp_path / "stops.zarr").episode(name).record
    assert record.lengths["joint_position"] == 50
    assert len(record.losses) == 4
    assert "1 messages on /joint_states left out (no finite number)" in record.losses[0]
    assert "is nan" in record.losses[0]
    assert record.facts["black_box"]["left_out"] == 4


def test_a_stop_with_nothing_held_is_kept_empty(tmp_path: Path) -> None:
    with BlackBox(tmp_path / "stops.zarr", ARM6) as box:
        name = box.keep("client gone")
    assert Dataset.open(tmp_path / "stops.zarr").episode(name).record.lengths["joint_position"] == 0


@pytest.mark.slow
def test_at_most_so_many_stops_are_kept(tmp_path: Path) -> None:
    told: list[str] = []
    root = tmp_path / "stops.zarr"
    names = []
    with BlackBox(root, ARM6, BoxLimits(episodes_max=2), tell=told.append) as box:
        feed(box, 0.1)
        for number in range(4):
            names.append(box.keep("stop"))
            until(partial(told_of, told, number + 1))
    assert [episode.id for episode in Dataset.open(root).episodes()] == names[2:]
    assert sorted(path.name for path in (root / "episodes").glob("stop-*")) == names[2:]


def test_stops_beyond_those_that_wait_are_told_and_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    go, real = threading.Event(), write_episode

    def slow(*arguments: Any) -> dict[str, object]:
        go.wait(60)
        return real(*arguments)

    monkeypatch.setattr(module, "write_episode", slow)
    with AuditLog(tmp_path / "audit.jsonl") as audit:
        box = BlackBox(tmp_path / "stops.zarr", ARM6, audit=audit, tell=told.append)
        first = box.keep("first")
        until(box._waiting.empty)
        second, third = box.keep("second"), box.keep("third")
        go.set()
        assert box.close()
        assert box.keep("after the end") == ""
    assert (bool(first), bool(second), third) == (True, True, "")
    assert [episode.record.stop_cause for episode in Dataset.open(box.root).episodes()] == ["first", "second"]
    lost = [record.facts["text"] for record in read_records(audit.path) if record.kind == "black box lost"]
    assert ["(third)" in lost[0], "(after the end)" in lost[1]] == [True, True]
    assert len(told) == 4


@pytest.mark.parametrize("broken", ["locked", "no dataset", "bug"])
def test_a_stop_that_cannot_be_kept_is_told_and_the_next_one_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    told: list[str] = []
    root = tmp_path / "stops.zarr"
    mend: Callable[[], object]
    if broken == "locked":
        Dataset.open_for_writing(root, create=True).close()
        mend = WriteLock(root).release
    elif broken == "no dataset":
        root.write_text("a file")
        mend = root.unlink
    else:
        patched = pytest.MonkeyPatch()
        patched.setattr(module, "write_episode", lambda *_: 1 / 0)
        mend = patched.undo
    with AuditLog(tmp_path / "audit.jsonl") as audit, BlackBox(root, ARM6, audit=audit, tell=told.append) as box:
        feed(box, 0.1)
        box.keep("workspace")
        until(lambda: len(told) == 1)
        mend()
        name = box.keep("workspace")
    assert "could not be kept" in told[0]
    assert Dataset.open(root).episode(name).record.lengths["joint_position"] == 10
    assert verify(audit.path).kinds["black box lost"] == 1


def test_a_full_disk_loses_the_stop_not_the_robot(tmp_path: Path) -> None:
    told: list[str] = []
    with small_disk(tmp_path / "disk", 1) as disk, AuditLog(tmp_path / "audit.jsonl") as audit:
        with BlackBox(disk / "stops.zarr", ARM6, audit=audit, tell=told.append) as box:
            feed(box, 6.0)
            box.keep("workspace")
            until(lambda: len(told) == 1)
            feed(box, 0.1)
            assert len(box) > 0
        assert "No space left" in told[0]
    assert verify(audit.path).kinds["black box lost"] == 1


def test_a_sealing_process_that_is_killed_leaves_the_stop_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    root = tmp_path / "stops.zarr"
    with BlackBox(root, ARM6, tell=told.append) as box:
        feed(box, 0.1)
        with monkeypatch.context() as patched:
            patched.setenv("LEHRLING_KILL_AT", "seal-written")
            first = box.keep("workspace")
            until(lambda: len(told) == 1)
        second = box.keep("workspace")
    assert "was ended by the system; its journal stays" in told[0]
    assert [episode.id for episode in Dataset.open(root).episodes()] == [first, second]
    assert Dataset.open(root).verify().whole


def test_a_failing_audit_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    audit = AuditLog(tmp_path / "audit.jsonl")
    audit.close()
    with BlackBox(tmp_path / "stops.zarr", ARM6, audit=audit, tell=told.append) as box:
        box.keep("stop")
    assert "is kept" in told[0]
    assert "is closed" in told[0]


def test_two_stops_in_a_millisecond_have_names_of_their_own(tmp_path: Path) -> None:
    box = BlackBox(tmp_path / "stops.zarr", ARM6)
    names = [box._name() for _ in range(50)]
    assert len(set(names)) == 50
    assert names == sorted(names)
    box.close()


def test_limits_must_hold_something() -> None:
    with pytest.raises(InputError, match="above 0"):
        BoxLimits(seconds=0)
