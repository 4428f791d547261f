"""Capture processes over real DDS, without a recorder around them: what is refused, late, stopped, hung or full is counted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from record_runs import robot
from recordings import meta
from ros_publishers import Publishers, own_domain, publishers
from ros_rig import CLOCK, IMAGE, STATE, TEXT, clock, clock_at_rest, numbered_text, side, state, text, timed
from small_disks import remount, small_disk
from watching import until

import lehrling.collection.capture_group as group_module
from lehrling.collection.capture_group import CaptureGroup, CaptureOptions, CaptureReport
from lehrling.collection.capture_words import LAG_PROMISED_MS
from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import LehrlingError
from lehrling.datasets.journal import begin_journal, end_journal
from lehrling.datasets.journal_read import JournalContents, Received, read_journal

pytest.importorskip("rclpy")
JOINTS, SIDE = "/joint_states", "/side/image_raw"


@pytest.fixture(scope="module")
def sender() -> Iterator[Publishers]:
    own_domain()
    with publishers() as made:
        made.open("joints", JOINTS, STATE)
        yield made


@dataclass
class Table:
    """A started group, and the journal of one episode after another."""

    root: Path
    group: CaptureGroup
    embodiment: Embodiment
    count: int = 0

    def heard(self, *topics: str) -> Callable[[], bool]:
        def there() -> bool:
            facts = {topic: facts for status in self.group.poll() for topic, facts in status.topics.items()}
            return all(topic in facts and facts[topic].age_s is not None for topic in topics)

        return there

    def begin(self) -> None:
        self.count += 1
        directory = begin_journal(self.root, meta(f"e{self.count}"), self.embodiment)
        self.group.begin(directory)
        until(lambda: any(status.recording for status in self.group.poll(0.01)))

    def end(self) -> tuple[CaptureReport, JournalContents]:
        report = self.group.end()
        name = f"e{self.count}"
        cause = report.stop.cause if report.stop else "operator"
        end_journal(self.root / "journals" / name, "unknown", cause, report.counts, report.losses)
        return report, read_journal(self.root, name)


@contextmanager
def capturing(root: Path, embodiment: Embodiment, options: CaptureOptions | None = None) -> Iterator[Table]:
    create_dataset(root)
    group = CaptureGroup(embodiment, options or CaptureOptions())
    try:
        group.start()
        yield Table(root, group, embodiment)
    finally:
        group.close()


def numbers(rows: list[Received]) -> list[int]:
    return [int(messages.decode(row.cdr, STATE).position[0]) for row in rows]


def wake(sender: Publishers, table: Table) -> None:
    """Let publisher and subscription find each other, and ask each other for what stays."""
    sender.wait("joints")
    sender.pump("joints", state, 50)
    until(table.heard(JOINTS))
    time.sleep(1.2)
    sender.rest()


@pytest.mark.parametrize("loop", ["waitset", "executor"])
def test_both_ways_of_taking_messages_take_all_of_them_with_the_same_facts(
    sender: Publishers, tmp_path: Path, loop: str
) -> None:
    with capturing(tmp_path / "d.zarr", robot(), CaptureOptions(loop=loop)) as table:  # type: ignore[arg-type]
        wake(sender, table)
        table.begin()
        sent = [state(number) for number in range(300)]
        sender.send("joints", *sent, interval_s=0.002)
        report, contents = table.end()
    rows = contents.messages[JOINTS]
    assert numbers(rows) == list(range(300))
    assert [row.cdr for row in rows] == sent
    assert (report.stop, report.losses, report.counts) == (None, (), {JOINTS: 300})
    assert (np.diff([row.sequence for row in rows]) == 1).all()
    for row in rows:
        stamp = messages.stamp_of(messages.decode(row.cdr, STATE)) or 0
        assert stamp <= row.publish_ns <= row.received_ns <= time.time_ns()
        assert 0 < row.monotonic_ns <= time.monotonic_ns()
    assert report.facts["qos"] == {JOINTS: "reliable, volatile"}


def test_nothing_is_lost_and_nothing_comes_twice_where_a_subscription_is_made_anew(
    sender: Publishers, tmp_path: Path
) -> None:
    """A first publisher makes the recorder ask for reliable delivery, a second one for best effort, while both send."""
    with capturing(tmp_path / "d.zarr", robot()) as table:
        sender.open("first", JOINTS, STATE)
        sender.pump("first", state, 200)
        until(table.heard(JOINTS))
        table.begin()
        time.sleep(0.7)
        sender.open("second", JOINTS, STATE, reliable=False)
        time.sleep(2)
        pumped = sender.rest()["first"]
        sender.send("first", state(pumped))
        report, contents = table.end()
        sender.close("first")
        sender.close("second")
    found = numbers(contents.messages[JOINTS])
    assert found == list(range(found[0], pumped + 1))
    assert found[0] < pumped - 400
    assert report.facts["lost_middleware"][JOINTS] == 0
    assert report.facts["qos"][JOINTS] == "best_effort, volatile"


def test_what_does_not_fit_the_queue_is_counted_to_the_message(sender: Publishers, tmp_path: Path) -> None:
    """The queue holds three images; the writer compresses them more slowly than they come."""
    embodiment, total = robot(("position",), ("side",)), 400
    with capturing(tmp_path / "d.zarr", embodiment, CaptureOptions(queue_bytes=30_000)) as table:
        sender.open("side", SIDE, IMAGE)
        wake(sender, table)
        sender.send("side", side(0))
        until(table.heard(SIDE))
        table.begin()
        sender.send("side", *(side(number % 7) for number in range(total)), interval_s=0)
        time.sleep(0.5)
        report, contents = table.end()
        sender.close("side")
    lost = report.facts["lost_queue"][SIDE] + report.facts["lost_middleware"][SIDE]
    assert len(contents.messages[SIDE]) + lost == total
    assert report.facts["lost_queue"][SIDE] > 0
    assert f"{SIDE}: {report.facts['lost_queue'][SIDE]} messages did not fit the queue" in report.losses


def test_receive_times_are_those_of_the_simulation_and_without_its_clock_nothing_counts(
    sender: Publishers, tmp_path: Path
) -> None:
    with capturing(tmp_path / "d.zarr", robot(), CaptureOptions(sim_time=True)) as table:
        sender.open("clock", "/clock", CLOCK)
        sender.wait("joints", "clock")
        sender.pump("joints", state, 50)

        def problem() -> str:
            return next((facts.problem for status in table.group.poll() for facts in status.topics.values()), "")

        until(problem)
        assert "Nothing was heard on /clock" in problem()
        assert not table.heard(JOINTS)()
        sender.pump("clock", clock_at_rest, 50)
        until(table.heard(JOINTS))
        sender.rest()
        until(lambda: not problem())
        table.begin()
        for tick in range(5):
            sender.send("clock", clock(100 * tick))
            time.sleep(0.05)
            sender.send("joints", state(tick, stamp_ns=100 * tick * 10**6))
            time.sleep(0.05)
        report, contents = table.end()
        assert [row.received_ns // 10**6 for row in contents.messages[JOINTS]] == [0, 100, 200, 300, 400]
        assert report.stop is None
        table.begin()
        sender.send("joints", state(1, stamp_ns=400 * 10**6))
        sender.send("clock", clock(0))
        time.sleep(0.1)
        sender.send("joints", state(2, stamp_ns=0))
        report, contents = table.end()
        sender.close("clock")
    assert report.stop is not None
    assert report.stop.cause == "receive times go backwards"
    assert numbers(contents.messages[JOINTS]) == [1]


@pytest.mark.slow
def test_a_capture_process_that_hangs_is_told_by_its_lag_and_nothing_of_it_is_lost(
    sender: Publishers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capturing(tmp_path / "d.zarr", robot()) as table:
        wake(sender, table)
        table.begin()
        sender.pump("joints", timed, 100)
        time.sleep(0.5)
        pid = table.group._children[0].process.pid
        os.kill(pid, signal.SIGSTOP)
        until(lambda: table.group.poll()[0].lag_ms > 1000, 10)
        assert table.group.poll()[0].lag_ms > LAG_PROMISED_MS
        os.kill(pid, signal.SIGCONT)
        until(lambda: table.group.poll(0.05)[0].lag_ms < LAG_PROMISED_MS)
        pumped = sender.rest()["joints"]
        report, contents = table.end()
        found = numbers(contents.messages[JOINTS])
        lost = report.facts["lost_middleware"][JOINTS] + report.facts["lost_queue"][JOINTS]
        assert len(found) + lost == pumped
        assert report.stop is None

        monkeypatch.setattr(group_module, "END_S", 1.0)
        table.begin()
        sender.send("joints", state(1))
        time.sleep(0.3)
        os.kill(pid, signal.SIGSTOP)
        report, contents = table.end()
        assert report.stop is not None
        assert report.stop.cause == "capture process ended"
        assert any("did not answer" in loss for loss in report.losses)
        assert numbers(contents.messages[JOINTS]) == [1]
        assert "did not answer for 1 s" in table.group.unready()
        (reason,) = table.group.revive()
        assert JOINTS in reason
        assert "is starting" in table.group.unready()
        until(lambda: not table.group.poll() or not table.group.unready())
        until(lambda: [*table.group.poll()] and not table.group.unready())
        wake(sender, table)
        table.begin()
        sender.send("joints", state(2), state(3))
        report, contents = table.end()
    assert numbers(contents.messages[JOINTS]) == [2, 3]
    assert report.stop is None


def test_a_disk_that_recording_fills_ends_the_episode_by_name_and_seals_once_there_is_room(
    sender: Publishers, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 3) as disk:
        with capturing(disk / "d.zarr", robot(("position",), ("side",))) as table:
            sender.open("side", SIDE, IMAGE)
            wake(sender, table)
            sender.pump("side", side, 200)
            until(table.heard(SIDE))
            table.begin()
            until(lambda: table.group.poll(0.01) and table.group.stop())
            report, contents = table.end()
            sender.close("side")
        assert report.stop is not None
        assert report.stop.cause == "disk full"
        assert "No space left while writing" in report.stop.text
        assert contents.stop_cause == "disk full"
        frames = [messages.decode(row.cdr, row.msgtype).header.frame_id for row in contents.messages[SIDE]]
        kept = [int(frame.split()[1]) for frame in frames]
        assert kept == list(range(kept[0], kept[0] + len(kept)))
        remount(disk, "size=64m")
        with Dataset.open_for_writing(table.root) as dataset:
            assert dataset.records["e1"].status == "sealed"
            assert dataset.records["e1"].stop_cause == "disk full"
            assert dataset.records["e1"].lengths["side"] == len(kept)


def test_a_type_that_the_sourced_ros_lacks_is_refused_by_name(tmp_path: Path) -> None:
    data = robot().model_dump(mode="json")
    data["contract"]["streams"].append({"name": "grip", "kind": "raw", "role": "auxiliary"})
    data["binding"]["sources"]["grip"] = [{"topic": "/grip", "type": "hand_msgs/msg/Grip"}]
    embodiment = Embodiment.model_validate(data)
    with pytest.raises(LehrlingError, match="hand_msgs"), capturing(tmp_path / "d.zarr", embodiment):
        pass


def test_a_type_of_the_users_own_is_recorded_with_its_definition(
    sender: Publishers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workspace that has one type, whose generated code we borrow from std_msgs/String."""
    package = tmp_path / "python" / "hand_msgs" / "msg"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text("from std_msgs.msg import String as Grip\n")
    definition = tmp_path / "ws" / "share" / "hand_msgs" / "msg"
    definition.mkdir(parents=True)
    (definition / "Grip.msg").write_text("string data  # how it feels\n")
    monkeypatch.syspath_prepend(str(tmp_path / "python"))
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "ws"))
    data = robot().model_dump(mode="json")
    data["contract"]["streams"].append({"name": "grip", "kind": "raw", "role": "auxiliary"})
    data["binding"]["sources"]["grip"] = [{"topic": "/grip", "type": "hand_msgs/msg/Grip"}]
    with capturing(tmp_path / "d.zarr", Embodiment.model_validate(data)) as table:
        sender.open("grip", "/grip", TEXT)
        sender.pump("grip", numbered_text, 50)
        until(table.heard("/grip"))
        sender.rest()
        table.begin()
        sender.send("grip", text("firm"))
        table.end()
        sender.close("grip")
    with Dataset.open_for_writing(tmp_path / "d.zarr") as dataset:
        stream = dataset.episode("e1").stream("grip")
        assert messages.decode(stream.ragged(len(stream) - 1), TEXT).data == "firm"
        assert "string data" in stream.attributes["definitions"]["hand_msgs/msg/Grip"]  # type: ignore[index]
