"""The manifest: what was written by any version is read, and what is written is short."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from timed_streams import Timed, exponential, record_timed

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import DamageError
from lehrling.datasets.manifest import CameraSkew, EpisodeRecord, StreamTiming, append_record, read_manifest

GOLDEN = Path(__file__).parent / "golden" / "manifest-before-clocks.jsonl"
TIMING = StreamTiming(2, 30.0, 33.3, 33.3, 0.0, 30.0, -1, gaps=0, clock_offset_ms=-3.5, out_of_order=0)


def test_lines_from_before_clocks_were_judged_are_read_and_what_they_lack_is_unknown(tmp_path: Path) -> None:
    shutil.copy(GOLDEN, tmp_path / "manifest.jsonl")
    records = read_manifest(tmp_path)
    sealed, purged = records["kitting-arm6-00000001"], records["kitting-arm6-00000002"]
    assert sealed.timing["front"] == StreamTiming(5, 10.0, 100.0, 100.0, 0.0, 33.1075, -1)
    assert sealed.timing["joint_position"].dropped == 3
    assert (sealed.timing["front"].gaps, sealed.timing["front"].clock_drift_ppm) == (None, None)
    assert (sealed.skew, sealed.clock_jump_ms, sealed.facts) == ({}, None, {})
    assert (sealed.content_hash, sealed.seed, sealed.lengths["front"]) == ("ab12", 1, 5)
    assert (purged.status, purged.losses) == ("purged", ("numeric-0.mcap: EOF after 3 bytes",))


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").touch()
    facts = {"findings": {"all": [{"kind": "stale", "topic": "/front"}]}, "qos": {"/front": "best effort"}}
    record = EpisodeRecord(
        "one", "sealed", timing={"front": TIMING}, skew={"front/wrist": CameraSkew(4.0, 9.5, -4.0)},
        clock_jump_ms=-250.0, facts=facts,
    )  # fmt: skip
    append_record(tmp_path, record)
    assert read_manifest(tmp_path) == {"one": record}


def test_keys_of_later_versions_are_passed_over_at_every_level(tmp_path: Path) -> None:
    data = EpisodeRecord("one", "sealed", timing={"front": TIMING}, skew={"a/b": CameraSkew(1.0, 2.0, 1.0)}).to_json()
    data["mood"] = "good"
    data["timing"]["front"]["colour"] = "red"
    data["skew"]["a/b"]["p100_ms"] = 3.0
    (tmp_path / "manifest.jsonl").write_text(json.dumps(data) + "\n")
    assert read_manifest(tmp_path)["one"].timing["front"] == TIMING


def test_a_line_of_another_shape_is_damage(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text('{"id": "one", "status": "sealed", "timing": {"front": {"count": 3}}}\n')
    with pytest.raises(DamageError, match="Line 1 of"):
        read_manifest(tmp_path)


def test_a_line_stays_small_however_long_the_episode(root: Path) -> None:
    """Unknown figures take no room, known ones are rounded: about half a kilobyte a stream."""
    for name, seconds in (("short", 2.0), ("long", 20.0)):
        streams = {
            "joint_position": Timed(100, 2.0, exponential(1.0), offset_ms=1234.56789, drift_ppm=33.3333),
            "front": Timed(30, 30.0, exponential(5.0)),
            "wrist": Timed(30, 30.0, exponential(5.0), phase_ms=3.333333),
        }
        record_timed(root, name, streams, seconds)
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.records["long"].skew["front/wrist"].mean_ms == pytest.approx(3.333, abs=0.001)
    short, long = (len(line) for line in (root / "manifest.jsonl").read_bytes().splitlines())
    assert abs(long - short) < 250
    assert long < 1000 + 7 * 560
    assert (
        b"null" not in json.dumps(json.loads((root / "manifest.jsonl").read_text().splitlines()[0])["timing"]).encode()
    )


def test_json_data_for_programs_names_every_figure() -> None:
    data = EpisodeRecord("one", "sealed", timing={"front": TIMING}).to_json()
    assert data["timing"]["front"] == asdict(TIMING)
    assert data["timing"]["front"]["frozen"] is None
