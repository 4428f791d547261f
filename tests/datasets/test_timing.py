"""The timing oracle: what a recording was made with is what its timing report says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from recordings import ARM6, MS, meta, record
from timed_streams import START_NS, Sent, Timed, exponential, heavy, record_timed

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.embodiment import load_embodiment
from lehrling.datasets.journal import EpisodeMeta, JournalWriter
from lehrling.datasets.journal_read import read_journal
from lehrling.datasets.manifest import StreamTiming, read_manifest
from lehrling.datasets.rows import stream_rows
from lehrling.datasets.timing import EpisodeTiming, camera_skew, episode_timing, gap_limit_ns, nearest_ms

SECONDS = 60.0
ORACLE = {
    "joint_position": Timed(100, 2.0, exponential(1.5), offset_ms=37.0, drift_ppm=80.0, lost=(700, 701, 702, 3000)),
    "front": Timed(
        30, 30.0, exponential(6.0), offset_ms=-120.0, drift_ppm=-50.0, lost=(100, 900, 901), silent_s=(40.0, 40.8)
    ),
    "wrist": Timed(30, 30.0, heavy(2.0), offset_ms=-120.0, drift_ppm=-50.0, phase_ms=7.0, frozen=(600, 611)),
    "tcp_pose": Timed(100, 2.0, exponential(3.0), offset_ms=0.0, drift_ppm=0.0, numbered=False),
}


def judge(root: Path, name: str) -> EpisodeTiming:
    contents = read_journal(root, name)
    return episode_timing(contents, [stream_rows(contents, s) for s in contents.embodiment.contract.all_streams])


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> tuple[EpisodeTiming, dict[str, Sent]]:
    root = tmp_path_factory.mktemp("oracle") / "plant.zarr"
    create_dataset(root)
    sent = record_timed(root, "one", ORACLE, SECONDS)
    return judge(root, "one"), sent


@pytest.mark.parametrize("stream", ORACLE)
def test_offset_and_drift_of_each_senders_clock_are_recovered(
    oracle: tuple[EpisodeTiming, dict[str, Sent]], stream: str
) -> None:
    timing, made = oracle[0].streams[stream], ORACLE[stream]
    assert timing.clock_offset_ms == pytest.approx(made.offset_ms, abs=2.0)
    assert timing.clock_drift_ppm == pytest.approx(made.drift_ppm, abs=5.0)
    assert timing.clock_drift_error_ppm is not None
    assert timing.clock_drift_error_ppm < 15.0
    assert timing.clock_step_ms == 0.0


@pytest.mark.parametrize("stream", ORACLE)
def test_latency_without_the_clocks_share_is_the_delay_and_its_jitter(
    oracle: tuple[EpisodeTiming, dict[str, Sent]], stream: str
) -> None:
    timing, sent = oracle[0].streams[stream], oracle[1][stream]
    true_ms = (sent.received_s - sent.sent_s) * 1e3
    assert timing.clock_drift_ppm is not None
    assert timing.clock_offset_ms is not None
    half_way = timing.clock_offset_ms + timing.clock_drift_ppm * SECONDS / 2 / 1e3
    assert timing.latency_ms + half_way == pytest.approx(true_ms.mean(), abs=2.0)
    for name, percent in (("latency_p50_ms", 50), ("latency_p99_ms", 99), ("latency_max_ms", 100)):
        assert getattr(timing, name) + half_way == pytest.approx(np.percentile(true_ms, percent), abs=4.5), name


def test_rates_are_those_of_the_senders(oracle: tuple[EpisodeTiming, dict[str, Sent]]) -> None:
    rates = {name: oracle[0].streams[name].rate_hz for name in ORACLE}
    assert rates["joint_position"] == pytest.approx(100 * (1 - 4 / 6000), rel=1e-3)
    assert rates["wrist"] == pytest.approx(30, rel=1e-3)
    assert rates["front"] == pytest.approx(30 * (1800 - 24 - 3) / 1800, rel=2e-3)


def test_losses_are_counted_by_number_and_unknown_without(oracle: tuple[EpisodeTiming, dict[str, Sent]]) -> None:
    lost = {name: oracle[0].streams[name].dropped for name in ORACLE}
    assert lost == {"joint_position": 4, "front": 3, "wrist": 0, "tcp_pose": -1}


def test_gaps_are_counted_and_the_longest_is_placed(oracle: tuple[EpisodeTiming, dict[str, Sent]]) -> None:
    front, joints = oracle[0].streams["front"], oracle[0].streams["joint_position"]
    assert (front.gaps, joints.gaps, oracle[0].streams["wrist"].gaps) == (3, 2, 0)
    assert front.max_gap_ms == pytest.approx(800 + 1000 / 30, abs=2.0)
    assert joints.max_gap_ms == pytest.approx(40, abs=0.1)
    first = min(sent.received_s.min() for sent in oracle[1].values())
    before = oracle[1]["front"].received_s[oracle[1]["front"].sent_s < 40.0].max()
    assert front.max_gap_at_s == pytest.approx(before - first, abs=0.002)


def test_a_frozen_camera_is_counted_and_placed(oracle: tuple[EpisodeTiming, dict[str, Sent]]) -> None:
    front, wrist = oracle[0].streams["front"], oracle[0].streams["wrist"]
    assert (front.frozen, front.max_freeze_frames, front.max_freeze_at_s) == (0, 0, None)
    assert (wrist.frozen, wrist.max_freeze_frames) == (11, 11)
    first = min(sent.received_s.min() for sent in oracle[1].values())
    assert wrist.max_freeze_at_s == pytest.approx(oracle[1]["wrist"].received_s[600] - first, abs=0.002)
    assert oracle[0].streams["joint_position"].frozen is None


def test_the_skew_between_cameras_is_recovered(oracle: tuple[EpisodeTiming, dict[str, Sent]]) -> None:
    assert list(oracle[0].skew) == ["front/wrist"]
    skew = oracle[0].skew["front/wrist"]
    assert skew.mean_ms == pytest.approx(7.0, abs=0.1)
    assert skew.p99_ms == pytest.approx(7.0, abs=0.1)
    assert skew.bias_ms == pytest.approx(7.0, abs=0.1)


def test_a_recorders_clock_that_was_not_set_has_not_jumped(oracle: tuple[EpisodeTiming, dict[str, Sent]]) -> None:
    assert oracle[0].clock_jump_ms == 0.0


def test_a_recorders_clock_set_on_the_way_is_told_and_spoils_no_senders_clock(root: Path) -> None:
    record_timed(root, "one", {"front": ORACLE["front"]}, 20.0, realtime_set=(12.0, -250.0))
    found = judge(root, "one")
    assert found.clock_jump_ms == pytest.approx(-250.0, abs=0.01)
    assert found.streams["front"].clock_offset_ms == pytest.approx(-120, abs=2.0)
    assert found.streams["front"].clock_step_ms == 0.0


@pytest.mark.parametrize("step_ms", [60.0, -60.0])
def test_a_senders_clock_set_on_the_way_is_a_step_and_no_drift(root: Path, step_ms: float) -> None:
    record_timed(root, "one", {"front": Timed(30, 30.0, exponential(5.0), step=(8.0, step_ms))}, 20.0)
    found = judge(root, "one").streams["front"]
    assert found.clock_step_ms == pytest.approx(step_ms, abs=2.0)
    assert found.clock_drift_ppm is None
    assert found.clock_offset_ms == pytest.approx(0.0, abs=2.0)


def test_a_wrong_latency_in_the_binding_moves_the_offset_by_as_much_and_nothing_else(root: Path) -> None:
    record_timed(root, "one", {"front": Timed(30, 50.0, exponential(1.0), drift_ppm=100.0)}, 30.0)
    found = judge(root, "one").streams["front"]
    assert found.clock_offset_ms == pytest.approx(30.0 - 50.0, abs=0.5)
    assert found.clock_drift_ppm == pytest.approx(100.0, abs=5.0)


def test_silence_at_either_end_is_told(root: Path) -> None:
    late = Timed(30, 30.0, silent_s=(0.0, 3.0))
    early = Timed(30, 30.0, silent_s=(5.0, 10.0))
    record_timed(root, "one", {"joint_position": Timed(100, 2.0), "front": late, "wrist": early}, 10.0)
    found = judge(root, "one").streams
    assert found["front"].starts_s == pytest.approx(3.028, abs=0.002)
    assert found["wrist"].ends_s == pytest.approx(5.0, abs=0.04)
    assert (found["joint_position"].starts_s, found["joint_position"].gaps, found["wrist"].gaps) == (0.0, 0, 0)


def test_stamps_out_of_order_and_stamps_twice_are_counted(root: Path) -> None:
    with JournalWriter(root, meta("one"), ARM6) as journal:
        for index, stamp in enumerate((0, 10, 30, 20, 40, 40, 50, 10)):
            pose = messages.pose_stamped([0, 0, 0], [0, 1, 0, 0], START_NS + stamp * MS, "cell")
            journal.write("/tcp_pose", pose, received_ns=START_NS + index * 10 * MS)
        journal.close("success", "test")
    found = judge(root, "one").streams["tcp_pose"]
    assert (found.out_of_order, found.duplicates) == (2, 2)


def test_a_stream_stamped_on_receipt_tells_nothing_of_its_senders_clock(root: Path) -> None:
    robot = load_embodiment("humanoid")
    with JournalWriter(root, EpisodeMeta("one", "t", "i", "humanoid", "robot"), robot) as journal:
        for k in range(40):
            word = messages.encode(messages._type("std_msgs/msg/String")(data=f"{k}"))
            journal.write("/speech", word, received_ns=START_NS + k * 100 * MS)
        journal.close("success", "test")
    found = judge(root, "one").streams["speech"]
    assert (found.count, found.latency_ms, found.clock_offset_ms, found.clock_drift_ppm) == (40, 0.0, None, None)


def test_of_a_stream_with_two_sources_each_is_judged_by_itself(root: Path) -> None:
    robot = load_embodiment("humanoid")
    joints = [joint.name for joint in robot.contract.joints]
    with JournalWriter(root, EpisodeMeta("one", "t", "i", "humanoid", "robot"), robot) as journal:
        for k in range(200):
            stamp = START_NS + k * 10 * MS
            if k not in (100, 101):
                body = messages.joint_state(joints[:31], np.zeros(31), [], [], stamp)
                journal.write("/body/joint_states", body, received_ns=stamp + MS, sequence=k + 500)
            if k % 2 == 0:
                hands = messages.joint_state(joints[31:], np.zeros(12), [], [], stamp + 3 * MS)
                journal.write("/hands/joint_states", hands, received_ns=stamp + 4 * MS, sequence=k // 2)
        journal.close("success", "test")
    found = judge(root, "one").streams["joint_position"]
    assert (found.count, found.dropped, found.gaps, found.max_gap_ms) == (298, 2, 1, 30.0)
    assert (found.jitter_ms < 2.0, found.out_of_order, found.duplicates) == (True, 0, 0)


def test_an_empty_episode_has_a_report_without_figures(root: Path) -> None:
    with JournalWriter(root, meta("one"), ARM6) as journal:
        journal.close("failure", "test")
    found = judge(root, "one")
    assert found.streams["front"] == StreamTiming(0, 0.0, 0.0, 0.0, 0.0, 0.0, -1)
    assert (found.skew, found.clock_jump_ms) == ({}, None)


@pytest.mark.parametrize("scatter_ms", [0.0, 0.3, 4.0])
def test_regular_jitter_is_no_gap_and_a_missing_message_is_one(scatter_ms: float) -> None:
    rng = np.random.default_rng(3)
    intervals = (rng.normal(33.3, scatter_ms, 2000).clip(1) * MS).astype(np.int64)
    assert (intervals > gap_limit_ns(intervals)).mean() < 2e-3
    if scatter_ms < 3:
        assert gap_limit_ns(intervals) < 66.6 * MS


def test_skew_counts_only_while_both_cameras_ran() -> None:
    front = np.arange(0, 1000, 33) * MS
    wrist = (np.arange(0, 500, 33) + 4) * MS
    skew = camera_skew(front, wrist)
    assert skew is not None
    assert (skew.mean_ms, skew.bias_ms) == (4.0, 4.0)
    np.testing.assert_array_equal(nearest_ms(wrist, front), np.full(len(wrist), -4.0))
    assert camera_skew(front, wrist + 10**12) is None
    assert camera_skew(front[:0], wrist) is None
    assert camera_skew(front[:1], wrist[:1]) is None
    assert camera_skew(front[:1], front[:1]) is not None


def test_facts_of_the_recording_host_reach_the_manifest_and_change_no_content(root: Path) -> None:
    hashes = []
    for name, facts in (("one", {"doctor": "ok", "rate": float("nan")}), ("two", {})):
        record_timed(root, "same", {"joint_position": Timed(100, 2.0)}, 0.5, facts=dict(facts))
        with Dataset.open_for_writing(root) as dataset:
            hashes.append(dataset.records["same"].content_hash)
            found = read_manifest(root)["same"]
            assert found.facts == ({"doctor": "ok", "rate": None} if name == "one" else {})
            dataset.purge("same")
        (root / "manifest.jsonl").write_text("")
    assert hashes[0] == hashes[1]


def test_facts_too_large_for_a_line_are_left_out_with_their_size(root: Path) -> None:
    record_timed(root, "one", {"joint_position": Timed(100)}, 0.1, facts={"log": "x" * 300_000})
    contents = read_journal(root, "one")
    assert list(contents.facts) == ["left_out"]
    assert "300" in contents.facts["left_out"]


@pytest.mark.parametrize(
    "text", ["{", "[]", "[" * 500 + "]" * 500, '{"counts": 3}', '{"counts": {}, "outcome": "won", "stop_cause": ""}']
)
def test_an_end_that_cannot_be_read_counts_as_an_interruption_and_is_told(root: Path, text: str) -> None:
    record(root, "one", seconds=0.1)
    (root / "journals" / "one" / "end.json").write_text(text)
    contents = read_journal(root, "one")
    assert (contents.ended, contents.outcome, contents.stop_cause) == (False, "unknown", "interrupted")
    assert "end.json cannot be read" in contents.losses[0]
    assert len(contents.messages["/joint_states"]) == 10


def test_an_episode_lasts_as_long_as_its_receipts_where_stamps_are_of_other_clocks(root: Path) -> None:
    streams = {"joint_position": Timed(100, 2.0), "front": Timed(10, 30.0, offset_ms=-1.7e12)}
    record_timed(root, "one", streams, 2.0)
    record_timed(root, "two", {"joint_position": Timed(100, 2.0), "front": Timed(10, 30.0, offset_ms=500.0)}, 2.0)
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.records["one"].duration_s == pytest.approx(1.99, abs=0.01)
        assert dataset.records["two"].duration_s == pytest.approx(2.4, abs=0.001)
        front = dataset.records["one"].timing["front"]
        assert front.rate_hz == 10.0
        assert front.clock_offset_ms == pytest.approx(-1.7e12, abs=1.0)
