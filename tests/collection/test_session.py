"""A session's phases, limits and marks; whatever goes wrong is told, and no episode that began is forgotten."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_capture import FakeCapture, facts
from recordings import ARM6, record

import lehrling.collection.session as session_module
from lehrling.collection.capture_words import Stop
from lehrling.collection.sealing import Sealing
from lehrling.collection.session import RETRY_S, Phase, Plan, Session, SessionOptions, episode_name
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import ContractError, InputError, StorageError
from lehrling.datasets.journal_read import read_journal
from lehrling.datasets.sealer import seal


class Table:
    """A session with what a test needs to move it."""

    def __init__(self, session: Session, capture: FakeCapture, clock: list[float]) -> None:
        self.session, self.capture, self._clock = session, capture, clock

    @property
    def root(self) -> Path:
        return self.session.dataset.root

    def phase(self) -> Phase:
        return self.session.phase

    def pass_s(self, seconds: float) -> None:
        """Let time pass, tick by tick."""
        for _ in range(round(seconds / 0.5)):
            self._clock[0] += 0.5
            self.session.tick()

    def until(self, done: Callable[[], bool]) -> None:
        """Tick without passing time until the background has done what is waited for."""
        limit = time.monotonic() + 60
        while not done():
            assert time.monotonic() < limit
            self.session.tick()
            time.sleep(0.01)

    def settle(self) -> None:
        self.until(lambda: not self.session.sealing)

    def texts(self) -> str:
        return "\n".join(said.text for said in self.session.said())


Make = Callable[..., Table]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Give a function that opens a session on an empty dataset; it seals in this process (test_sealing has the other)."""
    monkeypatch.setattr(Sealing, "_elsewhere", staticmethod(seal))
    opened: list[tuple[Session, Dataset]] = []

    def make(choose: Callable[[], None] | None = None, **options: Any) -> Table:
        dataset, capture, clock = Dataset.open_for_writing(tmp_path / "d.zarr", create=True), FakeCapture(), [100.0]
        wanted = SessionOptions(min_free_bytes=0, **options)
        plan = Plan("kitting", "put the red part into the left pocket", "otter")
        session = Session(dataset, ARM6, capture, plan, wanted, choose, lambda: clock[0])
        opened.append((session, dataset))
        return Table(session, capture, clock)

    yield make
    for session, dataset in opened:
        if session.phase is Phase.RECORDING:
            session.discard()
        session.close()
        dataset.close()


@contextmanager
def disk(monkeypatch: pytest.MonkeyPatch, free: int) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _path: type("Usage", (), {"free": free}))
        yield


def test_an_operator_begins_marks_and_saves_and_the_episode_is_what_was_recorded(table: Make) -> None:
    t = table(facts={"host": "bench"})
    assert t.phase() is Phase.IDLE
    name = t.session.start()
    assert t.phase() is Phase.RECORDING
    assert t.session.label("failure") == name
    assert t.session.save() == name
    assert t.phase() is Phase.IDLE
    assert t.session.sealing == 1
    t.settle()
    found = Dataset.open(t.root).records[name]
    assert (found.status, found.outcome, found.stop_cause) == ("sealed", "failure", "operator")
    assert (found.task, found.instruction, found.operator) == (
        "kitting",
        "put the red part into the left pocket",
        "otter",
    )
    assert found.lengths["joint_position"] == 10
    assert found.facts == {"host": "bench", "lag_max_ms": 1.0}
    assert [record.id for record in t.session.sealed] == [name]
    assert t.capture.told == ["begin", "end"]


def test_the_outcome_given_when_saving_goes_before_the_mark(table: Make) -> None:
    t = table()
    t.session.start()
    t.session.label("failure")
    name = t.session.save("success")
    t.settle()
    assert t.session.dataset.records[name].outcome == "success"


def test_warm_up_and_reset_only_wait_without_autostart(table: Make) -> None:
    t = table(reset_s=4.0)
    t.session.start()
    t.session.save()
    assert t.phase() is Phase.RESET
    t.pass_s(3.5)
    assert t.phase() is Phase.RESET
    t.pass_s(1)
    assert t.phase() is Phase.IDLE
    t.pass_s(30)
    assert t.capture.told == ["begin", "end"]


def test_autostart_warms_up_records_to_the_limit_resets_and_is_done_after_all_episodes(table: Make) -> None:
    t = table(episodes=2, warmup_s=3.0, reset_s=2.0, limit_s=5.0, limit_outcome="success", autostart=True)
    assert t.phase() is Phase.WARM_UP
    t.pass_s(2.5)
    assert t.phase() is Phase.WARM_UP
    t.pass_s(0.5)
    assert t.phase() is Phase.RECORDING
    t.pass_s(4.5)
    assert t.phase() is Phase.RECORDING
    t.pass_s(0.5)
    assert t.phase() is Phase.RESET
    t.pass_s(2)
    assert t.phase() is Phase.RECORDING
    t.pass_s(5)
    t.settle()
    assert t.phase() is Phase.DONE
    assert [(r.outcome, r.stop_cause) for r in t.session.sealed] == [("success", "time limit")] * 2


def test_autostart_without_a_reset_goes_on_at_once(table: Make) -> None:
    t = table(episodes=3, limit_s=1.0, autostart=True)
    t.pass_s(6)
    t.settle()
    assert t.phase() is Phase.DONE
    assert len(t.session.sealed) == 3


def test_autostart_records_again_what_was_discarded(table: Make) -> None:
    t = table(episodes=1, limit_s=5.0, autostart=True)
    t.pass_s(0.5)
    name = t.session.discard()
    t.pass_s(1)
    assert t.phase() is Phase.RECORDING
    t.pass_s(5)
    t.settle()
    assert t.phase() is Phase.DONE
    assert t.session.dataset.records[name].status == "discarded"
    assert len(t.session.sealed) == 1


def test_autostart_records_again_what_could_not_be_sealed(table: Make) -> None:
    t = table(episodes=1, limit_s=1.0, autostart=True)
    t.capture.then = lambda directory: (directory / "meta.json").write_text("{")
    t.pass_s(1.5)
    assert t.session.sealing == 1
    t.pass_s(3)
    assert t.session.sealing <= 1
    t.capture.then = None
    t.until(lambda: bool(t.session.failed))
    t.pass_s(2)
    t.settle()
    assert t.phase() is Phase.DONE
    assert len(t.session.sealed) == 1
    assert "meta.json cannot be read" in t.session.failed[0]


def test_autostart_tells_once_what_hinders_it_and_goes_on_when_that_is_over(table: Make) -> None:
    t = table(limit_s=5.0, autostart=True)
    t.capture.topics["/tcp_pose"] = facts(age_s=None)
    t.pass_s(10)
    told = [said for said in t.session.said() if said.loud]
    assert len(told) == 1
    assert "Nothing was heard yet on /tcp_pose" in told[0].text
    assert t.phase() is Phase.WARM_UP
    t.capture.topics["/tcp_pose"] = facts()
    t.pass_s(RETRY_S)
    assert t.phase() is Phase.RECORDING


def test_a_topic_that_is_needed_and_was_never_heard_is_refused_by_name_and_reason(table: Make) -> None:
    t = table()
    problem = "/tcp_pose: expected geometry_msgs/msg/PoseStamped, a publisher sends std_msgs/msg/String; correct it."
    t.capture.topics["/tcp_pose"] = facts(age_s=None, problem=problem)
    with pytest.raises(
        InputError, match=r"^Nothing was heard yet on /tcp_pose: .* sends std_msgs/msg/String; correct it\.$"
    ):
        t.session.start()
    assert t.phase() is Phase.IDLE
    assert Dataset.open(t.root).unfinished() == []


def test_commands_may_come_later_but_somebody_must_be_there_to_give_them(table: Make) -> None:
    t = table()
    t.capture.topics["/tcp_command"] = replace(facts(age_s=None), publishers=0)
    with pytest.raises(InputError, match="Nothing was heard yet on /tcp_command"):
        t.session.start()
    t.capture.topics["/tcp_command"] = replace(facts(age_s=None), publishers=1)
    t.session.start()


def test_a_missing_topic_can_be_allowed(table: Make) -> None:
    t = table(allow_missing=True)
    t.capture.topics.clear()
    t.session.start()
    assert t.phase() is Phase.RECORDING


def test_capturing_that_is_not_ready_begins_nothing(table: Make) -> None:
    t = table()
    t.capture.why_not = "the capture process of /front is starting"
    with pytest.raises(InputError, match="No episode can begin now: the capture process of /front is starting"):
        t.session.start()
    assert t.capture.told == []


@pytest.mark.parametrize("act", ["save", "discard", "label"])
def test_without_an_episode_there_is_nothing_to_save_discard_or_mark(table: Make, act: str) -> None:
    t = table()
    acts: dict[str, Callable[[], str]] = {
        "save": t.session.save,
        "discard": t.session.discard,
        "label": lambda: t.session.label("success"),
    }
    with pytest.raises(InputError, match="No episode is being recorded"):
        acts[act]()
    assert t.capture.told == []


def test_a_second_start_names_the_episode_that_runs(table: Make) -> None:
    t = table()
    name = t.session.start()
    with pytest.raises(InputError, match=f"Episode {name} is being recorded already"):
        t.session.start()


def test_episodes_means_no_more_than_so_many(table: Make) -> None:
    t = table(episodes=1)
    t.session.start()
    t.session.save()
    with pytest.raises(InputError, match="All 1 episodes are recorded, 1 of them are being sealed"):
        t.session.start()
    t.settle()
    t.session.tick()
    assert t.phase() is Phase.DONE
    with pytest.raises(InputError, match="--more"):
        t.session.start()


def test_no_episodes_wanted_is_done_at_once(table: Make) -> None:
    t = table(episodes=0, autostart=True)
    t.session.tick()
    assert t.phase() is Phase.DONE
    assert t.capture.told == []


def test_a_discarded_episode_leaves_a_word_in_the_manifest_and_no_journal(table: Make) -> None:
    t = table(reset_s=1.0)
    name = t.session.start()
    t.session.discard("camera was covered")
    assert t.phase() is Phase.RESET
    t.until(lambda: name in t.session.dataset.records)
    found = Dataset.open(t.root).records[name]
    assert (found.status, found.reason) == ("discarded", "camera was covered")
    assert not (t.root / "journals" / name).exists()
    assert t.capture.told == ["begin", "end without keeping"]


def test_capturing_that_fails_ends_the_episode_with_its_cause_and_keeps_what_came_before(table: Make) -> None:
    t = table()
    name = t.session.start()
    t.capture.stopped = Stop("unknown joint", "Topic /joint_states names joint 'elbow'.")
    t.capture.losses = (
        "Topic /joint_states names joint 'elbow'. The episode ends there; 3 later messages were not taken.",
    )
    t.session.tick()
    assert t.phase() is Phase.IDLE
    t.settle()
    found = t.session.dataset.records[name]
    assert (found.status, found.outcome, found.stop_cause) == ("sealed", "unknown", "unknown joint")
    assert found.losses == t.capture.losses
    assert found.lengths["joint_position"] == 10
    assert "names joint 'elbow'" in t.texts()


def test_an_episode_that_failed_while_it_was_saved_is_no_success(table: Make) -> None:
    t = table()
    t.session.start()
    t.capture.stopped = Stop("no finite number", "Topic /joint_states: joint1 is nan.")
    name = t.session.save("success")
    t.settle()
    found = t.session.dataset.records[name]
    assert (found.outcome, found.stop_cause) == ("unknown", "no finite number")


def test_a_capture_process_that_ended_is_told_and_started_again_only_between_episodes(table: Make) -> None:
    t = table()
    t.capture.ended = ["the capture process of /front ended (exit -9)"]
    t.session.start()
    t.session.tick()
    assert t.capture.ended
    t.session.save()
    t.session.tick()
    assert not t.capture.ended
    assert "The capture process of /front ended (exit -9); it is started again." in t.texts()


def test_too_little_space_begins_nothing_and_says_what_to_do(table: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    t = table()
    t.session.options = replace(t.session.options, min_free_bytes=2 << 30)
    with (
        disk(monkeypatch, 1 << 30),
        pytest.raises(StorageError, match=r"1\.0 GiB left, less than the 2\.0 GiB .*--min-free"),
    ):
        t.session.start()
    assert t.capture.told == []


def test_a_disk_that_fills_up_ends_the_episode_by_name(table: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    t = table()
    t.session.options = replace(t.session.options, min_free_bytes=1)
    name = t.session.start()
    with disk(monkeypatch, 0):
        t.session.tick()
    assert t.phase() is Phase.IDLE
    t.settle()
    assert t.session.dataset.records[name].stop_cause == "disk almost full"
    assert t.session.dataset.records[name].lengths["joint_position"] == 10


def test_a_disk_that_is_gone_counts_as_full(table: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    t = table()

    def gone(_path: Path) -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(shutil, "disk_usage", gone)
    assert t.session.free_bytes == 0


def test_an_end_that_cannot_be_written_is_told_and_the_next_opening_seals_the_journal(
    table: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    t = table()
    name = t.session.start()
    t.capture.stopped = Stop("disk full", "No space left while writing.")

    def full(*_arguments: object) -> None:
        raise StorageError("No space left while writing end.json.")

    monkeypatch.setattr(session_module, "end_journal", full)
    t.session.tick()
    assert t.phase() is Phase.IDLE
    assert t.session.sealing == 0
    assert len(t.session.failed) == 1
    assert "(disk full) is kept as a journal" in t.session.failed[0]
    assert "(disk full) is kept as a journal" in t.texts()
    monkeypatch.undo()
    t.session.close()
    t.session.dataset.close()
    with Dataset.open_for_writing(t.root) as dataset:
        assert dataset.records[name].status == "sealed"
        assert dataset.records[name].lengths["joint_position"] == 10


def test_an_episode_that_does_not_seal_is_quarantined_and_told(table: Make) -> None:
    t = table()
    t.capture.then = lambda directory: (directory / "meta.json").write_text("{")
    name = t.session.start()
    t.session.save("success")
    t.settle()
    assert t.session.sealed == []
    assert t.session.failed[0].startswith(f"quarantined {name}: ")
    assert t.session.dataset.records[name].status == "quarantined"
    assert (t.root / "quarantine" / name / "numeric-0.mcap").is_file()
    assert any(said.loud and "quarantined" in said.text for said in t.session.said())


def test_closing_while_recording_saves_and_seals(table: Make) -> None:
    t = table()
    name = t.session.start()
    t.session.label("success")
    t.session.close("stopped by SIGTERM")
    assert t.phase() is Phase.DONE
    found = Dataset.open(t.root).records[name]
    assert (found.status, found.outcome, found.stop_cause) == ("sealed", "success", "stopped by SIGTERM")
    assert [record.id for record in t.session.sealed] == [name]


def test_closing_ends_the_sealing_even_where_saving_fails(table: Make) -> None:
    t = table()
    t.session.start()

    def broken(*, keep: bool = True) -> None:
        raise OSError("broken")

    t.capture.end = broken  # type: ignore[assignment, method-assign]
    with pytest.raises(OSError, match="broken"):
        t.session.close()
    assert t.phase() is Phase.DONE


def test_an_episode_is_sealed_while_the_next_one_is_recorded(table: Make) -> None:
    t = table()
    first = t.session.start()
    t.session.save("success")
    second = t.session.start()
    t.settle()
    assert t.phase() is Phase.RECORDING
    assert t.session.dataset.records[first].status == "sealed"
    t.session.save("failure")
    t.settle()
    assert t.session.dataset.records[second].outcome == "failure"
    assert t.session.dataset.verify().whole


def test_lag_above_what_is_promised_is_told_once_an_episode(table: Make) -> None:
    t = table()
    t.session.start()
    t.pass_s(1)
    assert "lags" not in t.texts()
    t.capture.lag_ms = 80.0
    t.pass_s(2)
    told = [said for said in t.session.said() if said.loud]
    assert len(told) == 1
    assert "lags 80 ms behind, more than 50" in told[0].text


def test_the_plan_of_the_next_episode_may_change_and_is_asked_for_before_each(table: Make) -> None:
    asked: list[str] = []
    tables: list[Table] = []

    def choose() -> None:
        asked.append("asked")
        tables[0].session.plan = Plan("sorting", f"sort {len(asked)}", None, {"cell": len(asked)})

    tables.append(table(choose))
    t = tables[0]
    names = []
    for _ in range(2):
        names.append(t.session.start())
        t.session.plan.instruction = "the next one"
        t.session.save()
    t.settle()
    records = [t.session.dataset.records[name] for name in names]
    assert [(r.task, r.instruction) for r in records] == [("sorting", "sort 1"), ("sorting", "sort 2")]
    assert Dataset.open(t.root).episode(names[1]).attributes["details"] == {"cell": 2}


def test_a_dataset_with_this_robot_under_another_contract_is_refused_with_the_difference(tmp_path: Path) -> None:
    root = tmp_path / "d.zarr"
    Dataset.open_for_writing(root, create=True).close()
    record(root, "one")
    data = ARM6.model_dump(mode="json")
    data["contract"]["cameras"][0]["height"] = 128
    words = r"another contract\. The contracts differ in cameras front\.height: 96 here, 128"
    with Dataset.open_for_writing(root) as dataset, pytest.raises(ContractError, match=words):
        Session(dataset, Embodiment.model_validate(data), FakeCapture(), Plan("kitting", ""))


def test_two_episodes_within_a_second_have_names_of_their_own() -> None:
    assert len({episode_name("arm6") for _ in range(100)}) == 100
    assert episode_name("arm6").startswith("arm6-2")


def test_a_journal_is_there_from_the_beginning_so_that_a_crash_loses_no_episode(table: Make) -> None:
    t = table()
    name = t.session.start()
    contents = read_journal(t.root, name)
    assert (contents.meta.origin, contents.meta.operator, contents.ended) == ("robot", "otter", False)
