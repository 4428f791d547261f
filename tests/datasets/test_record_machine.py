"""Recordings that begin, crash, are cut, end, are discarded and purged in any order give what a model in memory gives."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import figures
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from record_runs import robot
from recordings import MS, jpeg, meta
from ros_rig import JOINTS

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError, LockedError
from lehrling.datasets.journal import JournalWriter

ROBOT = robot(("position",), ("front",))
START_NS, IMAGE_EVERY, IMAGES = 10**18, 3, 4
FRAMES = [jpeg(number) for number in range(IMAGES)]


@dataclass
class Recording:
    """An episode that is being recorded.

    Attributes:
        written: rows written; `flushed` of them are on the disk for certain.
    """

    name: str
    journal: JournalWriter
    written: int = 0
    flushed: int = 0

    def write(self, count: int) -> None:
        """Write rows of joints that say their number, and every third time a frame."""
        for number in range(self.written, self.written + count):
            stamp = START_NS + number * 10 * MS
            clocks = {
                "received_ns": stamp + MS,
                "publish_ns": stamp,
                "monotonic_ns": number + 1,
                "sequence": number + 1,
            }
            cdr = messages.joint_state(JOINTS, [number, 0, 0], [], [], stamp)
            self.journal.write("/joint_states", cdr, **clocks)  # type: ignore[arg-type]
            if number % IMAGE_EVERY == 0:
                image = messages.compressed_image(FRAMES[number // IMAGE_EVERY % IMAGES], stamp, "front")
                self.journal.write("/front/compressed", image, **clocks)  # type: ignore[arg-type]
        self.written += count


@dataclass
class Sealed:
    """What the model knows of a sealed episode: rows and outcome; frames follow from the rows where none were cut off."""

    rows: int
    outcome: str
    frames: int | None


@dataclass
class Crashed:
    """What a crash left: at least `least` rows, at most `most`."""

    least: int
    most: int


class Recordings(RuleBasedStateMachine):
    """The dataset beside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp()) / "plant.zarr"
        self.dataset = Dataset.open_for_writing(self.root, create=True)
        self.running: Recording | None = None
        self.crashed: dict[str, Crashed] = {}
        self.sealed: dict[str, Sealed] = {}
        self.hashes: dict[str, str] = {}
        self.gone: set[str] = set()
        self.count = 0

    @precondition(lambda self: self.running is None)
    @rule(rows=st.integers(1, 8))
    def begin(self, rows: int) -> None:
        self.count += 1
        name = f"e{self.count}"
        self.running = Recording(name, JournalWriter(self.root, meta(name), ROBOT))
        self.running.write(rows)

    @precondition(lambda self: self.running is not None)
    @rule(rows=st.integers(1, 40))
    def write(self, rows: int) -> None:
        assert self.running is not None
        self.running.write(rows)

    @precondition(lambda self: self.running is not None)
    @rule()
    def flush(self) -> None:
        assert self.running is not None
        self.running.journal._flush()
        self.running.flushed = self.running.written

    @precondition(lambda self: self.running is not None)
    @rule(outcome=st.sampled_from(["success", "failure", "unknown"]))
    def end(self, outcome: str) -> None:
        assert self.running is not None
        recording, self.running = self.running, None
        recording.journal.close(outcome, "operator")  # type: ignore[arg-type]
        record = self.dataset.finish(recording.name)
        assert record.status == "sealed"
        frames = -(-recording.written // IMAGE_EVERY)
        self.sealed[recording.name] = Sealed(recording.written, outcome, frames)

    def _crash(self) -> Recording:
        """End the recording as a kill would: the disk keeps what it held at this moment."""
        assert self.running is not None
        recording, self.running = self.running, None
        directory = recording.journal.directory
        kept = directory.with_name(".kept")
        shutil.copytree(directory, kept)
        recording.journal.abandon()
        shutil.rmtree(directory)
        kept.rename(directory)
        return recording

    @precondition(lambda self: self.running is not None)
    @rule()
    def crash(self) -> None:
        recording = self._crash()
        self.crashed[recording.name] = Crashed(recording.flushed, recording.written)

    @precondition(lambda self: self.running is not None)
    @rule(cut=st.integers(1, 5000))
    def crash_and_lose_the_end_of_a_file(self, cut: int) -> None:
        recording = self._crash()
        path = recording.journal.directory / "numeric-0.mcap"
        size = path.stat().st_size if path.exists() else 0
        if size:
            os.truncate(path, max(size - cut, 0))
        self.crashed[recording.name] = Crashed(0, recording.written)

    @precondition(lambda self: self.running is not None)
    @rule()
    def discard(self) -> None:
        assert self.running is not None
        recording, self.running = self.running, None
        recording.journal.abandon()
        self.dataset.discard(recording.name, "operator")
        self.gone.add(recording.name)

    @precondition(lambda self: self.sealed)
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.sealed)))
        self.dataset.purge(name)
        del self.sealed[name]
        self.gone.add(name)

    @precondition(lambda self: self.sealed)
    @rule(data=st.data())
    def record_a_sealed_id_again(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.sealed)))
        with pytest.raises(InputError, match="never changes"):
            JournalWriter(self.root, meta(name), ROBOT)

    @rule()
    def open_twice(self) -> None:
        with pytest.raises(LockedError):
            Dataset.open_for_writing(self.root)

    @precondition(lambda self: self.running is None)
    @rule()
    def open_again(self) -> None:
        self.dataset.close()
        self.dataset = Dataset.open_for_writing(self.root)
        for name, crash in self.crashed.items():
            record = self.dataset.records.get(name)
            if record is None or record.status != "sealed":
                assert crash.least == 0, (name, crash, record)
                continue
            rows = record.lengths["position"]
            assert crash.least <= rows <= crash.most
            assert (record.outcome, record.stop_cause) == ("unknown", "interrupted")
            self.sealed[name] = Sealed(rows, "unknown", None)
        self.crashed.clear()
        assert self.dataset.unfinished() == []
        assert self.dataset.verify().whole

    @invariant()
    def what_is_sealed_is_what_the_model_has(self) -> None:
        reading = Dataset.open(self.root)
        sealed = {episode.id: episode for episode in reading.episodes()}
        assert set(sealed) == set(self.sealed)
        assert not [name for name in self.gone if name in sealed]
        for name, known in self.sealed.items():
            record = reading.records[name]
            assert self.hashes.setdefault(name, record.content_hash) == record.content_hash
            assert record.outcome == known.outcome

    def teardown(self) -> None:
        """Compare every value once more, after whatever happened."""
        if self.running is not None:
            self.crash()
        self.open_again()
        for name, known in self.sealed.items():
            episode = self.dataset.episode(name)
            position = episode.stream("position")
            np.testing.assert_array_equal(position.value[:, 0], np.arange(known.rows))
            np.testing.assert_array_equal(position.stamp_ns, START_NS + np.arange(known.rows) * 10 * MS)
            front = episode.stream("front")
            if known.frames is not None:
                assert len(front) == known.frames
            assert [front.encoded(k) for k in range(len(front))] == [FRAMES[k % IMAGES] for k in range(len(front))]
        self.dataset.close()
        shutil.rmtree(self.root.parent)


def _settings(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
    )


def test_recordings_in_any_order_give_what_the_model_gives() -> None:
    run_state_machine_as_test(Recordings, settings=_settings(12, 14))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_recordings_in_any_order_give_what_the_model_gives() -> None:
    run_state_machine_as_test(Recordings, settings=_settings(400, 30))
    figures.tried("recordings, crashes and purges in an order that Hypothesis chose", 400, 400)
