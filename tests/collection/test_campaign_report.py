"""How a campaign stands: coverage, rates, throughput, losses; operators only where they are switched on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from campaign_data import BEGUN, Recorded, campaign_of, told
from recordings import ARM6, write_rows

from lehrling.collection.campaign_plan import plan_next
from lehrling.collection.campaign_report import coverage, worked
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.journal import EpisodeMeta, JournalWriter
from lehrling.datasets.manifest import EpisodeRecord, StreamTiming


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path / "cell.zarr")


def timing(dropped: int) -> StreamTiming:
    return StreamTiming(100, 100.0, 10.0, 12.0, 0.1, 2.0, dropped)


def test_an_episode_from_the_recorder_to_the_report(tmp_path: Path) -> None:
    campaign, root = campaign_of(tmp_path), tmp_path / "cell.zarr"
    with Dataset.open_for_writing(root, create=True) as dataset:
        assignment = plan_next(campaign, dataset, "cell-a")
        assert assignment is not None
        meta = EpisodeMeta("one", assignment.task, assignment.instruction, "arm6", "robot", details=assignment.details)
        with JournalWriter(root, meta, ARM6) as journal:
            write_rows(journal, 0.1)
            journal.close("success", "operator")
        dataset.finish("one")
        report = coverage(campaign, dataset)
    (full,) = [cell for cell in report.cells if cell.counted]
    assert full.variation == assignment.variation
    assert (full.success, full.missing) == (1, 1)
    assert (report.progress.counted, report.progress.quota) == (1, 8)
    assert report.stations[0].episodes == 1


def test_cells_tell_what_is_there_what_failed_and_what_is_missing(tmp_path: Path, recorded: Recorded) -> None:
    for outcome in ("success", "failure", "failure", "unknown"):
        recorded.add_cell(outcome=outcome)
    recorded.begin("live", told({"object": "red part", "pocket": "left"}))
    cell = coverage(campaign_of(tmp_path), recorded.dataset).cells[0]
    assert (cell.success, cell.failure, cell.unknown) == (1, 2, 1)
    assert (cell.counted, cell.pending, cell.quota, cell.missing) == (1, 1, 2, 1)


def test_rates_and_throughput_per_station(tmp_path: Path, recorded: Recorded) -> None:
    for minutes, outcome in [(0, "success"), (3, "failure"), (3, "success"), (90, "unknown"), (3, "success")]:
        recorded.add_cell(outcome=outcome, minutes_later=minutes)
    here, there = coverage(campaign_of(tmp_path), recorded.dataset).stations
    assert (here.name, here.episodes, here.success_rate) == ("cell-a", 5, 0.75)
    assert here.recorded_h == pytest.approx(5 / 60, abs=1e-4)
    assert here.worked_h == pytest.approx((1 + 6 + 1 + 3) / 60, abs=1e-4)
    assert here.episodes_per_hour == pytest.approx(5 / 11 * 60, abs=0.01)
    assert (there.name, there.episodes, there.success_rate, there.episodes_per_hour) == ("cell-b", 0, None, None)


def test_work_is_counted_without_breaks_and_in_any_order() -> None:
    from datetime import UTC, datetime

    records = [
        EpisodeRecord(str(k), "sealed", duration_s=10.0, written_at=datetime.fromtimestamp(BEGUN + s, UTC).isoformat())
        for k, s in enumerate([0, 2000, 30, 2030])
    ]
    assert worked(records, 900) == 10 + 30 + 10 + 30
    assert worked(records, 3600) == 10 + 2030
    assert worked([], 900) == 0


def test_losses_come_from_the_recorder_where_it_counted(tmp_path: Path, recorded: Recorded) -> None:
    facts = {"lost_queue": {"/a": 3, "/b": 0}, "lost_middleware": {"/a": 4, "/b": None}}
    recorded.add_cell(facts=facts, timing={"joint_position": timing(99)})
    figures = coverage(campaign_of(tmp_path), recorded.dataset).stations[0]
    assert (figures.lost_messages, figures.lost_unknown) == (7, 1)


def test_losses_come_from_sequence_numbers_elsewhere_each_topic_once(tmp_path: Path, recorded: Recorded) -> None:
    name = recorded.add_cell(timing={"position": timing(5), "velocity": timing(5), "front": timing(2)})
    sources = {"position": [{"topic": "/joints"}], "velocity": [{"topic": "/joints"}], "front": [{"topic": "/front"}]}
    path = recorded.root / "episodes" / name / "zarr.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["attributes"]["embodiment"] = {"binding": {"sources": sources}}
    path.write_text(json.dumps(data), encoding="utf-8")
    recorded.add_cell(timing={"front": timing(-1)})
    figures = coverage(campaign_of(tmp_path), recorded.dataset).stations[0]
    assert (figures.lost_messages, figures.lost_unknown) == (7, 1)


def test_findings_and_stop_causes_are_counted_by_kind(tmp_path: Path, recorded: Recorded) -> None:
    recorded.add_cell(facts={"findings": [{"kind": "gap"}, {"kind": "gap"}, "odd"]}, losses=("a", "b"))
    recorded.add_cell(stop_cause="time limit", facts={"findings": "nonsense"})
    recorded.add_cell(status="quarantined")
    figures = coverage(campaign_of(tmp_path), recorded.dataset).stations[0]
    assert figures.findings == {"gap": 2, "finding": 1, "losses": 2}
    assert figures.stop_causes == {"operator": 1, "time limit": 1}
    assert (figures.episodes, figures.quarantined) == (2, 1)


def test_operators_are_left_out_unless_the_campaign_switches_them_on(tmp_path: Path, recorded: Recorded) -> None:
    recorded.add_cell(operator="op-0123456789ab")
    recorded.add_cell()
    quiet = coverage(campaign_of(tmp_path), recorded.dataset)
    assert quiet.operators is None
    assert "op-0123456789ab" not in json.dumps(quiet.to_json())
    told_ = coverage(campaign_of(tmp_path, operators={"figures": True}), recorded.dataset).operators
    assert told_ is not None
    assert [(one.name, one.episodes) for one in told_] == [("op-0123456789ab", 1), ("not given", 1)]


def test_episodes_that_fit_no_cell_or_no_campaign_are_told_apart(tmp_path: Path, recorded: Recorded) -> None:
    recorded.add_cell(thing="yellow part")
    recorded.add_cell(station="cell-gone")
    recorded.add(told({}, name="another"))
    recorded.add({"campaign": [1]})
    recorded.add()
    damaged = recorded.add_cell()
    (recorded.root / "episodes" / damaged / "zarr.json").write_text("{", encoding="utf-8")
    report = coverage(campaign_of(tmp_path), recorded.dataset)
    assert (report.strays, report.others, report.unreadable) == (1, 3, (damaged,))
    assert report.progress.counted == 1
    assert [one.name for one in report.stations] == ["cell-a", "cell-b", "cell-gone"]


def test_the_report_is_json_as_it_stands(tmp_path: Path, recorded: Recorded) -> None:
    recorded.add_cell()
    data = json.loads(json.dumps(coverage(campaign_of(tmp_path), recorded.dataset).to_json(), allow_nan=False))
    assert data["progress"] == {"counted": 1, "quota": 8, "cells_full": 0, "cells": 4, "share": 0.125}
    assert data["cells"][0]["missing"] == 1
    assert data["operators"] is None
