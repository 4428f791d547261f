"""What is recorded next: the cell that is missing most, the same for everyone who sees the same dataset."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from campaign_data import Recorded, campaign_of, one_task, told, write_campaign

from lehrling.collection.campaign_plan import chooser, plan_next, progress
from lehrling.collection.pseudonyms import make_key
from lehrling.datasets.errors import InputError


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path / "cell.zarr")


def test_the_cell_that_is_missing_most_comes_next(tmp_path: Path, recorded: Recorded) -> None:
    for thing, pocket in [("red part", "left"), ("red part", "right"), ("blue part", "right")]:
        recorded.add_cell(thing, pocket)
    assignment = plan_next(campaign_of(tmp_path), recorded.dataset, "cell-b")
    assert assignment is not None
    assert assignment.variation == {"object": "blue part", "pocket": "left"}
    assert assignment.instruction == "put the blue part into the left pocket"
    assert (assignment.counted, assignment.pending, assignment.quota) == (0, 0, 2)
    assert (assignment.task, assignment.station, assignment.robot) == ("kitting", "cell-b", "arm6")
    assert assignment.details == told({"object": "blue part", "pocket": "left"}, "cell-b")


def test_missing_most_is_the_largest_share_and_not_the_largest_number(tmp_path: Path, recorded: Recorded) -> None:
    weights = [{"when": {"object": "red part"}, "weight": 10}]
    campaign = campaign_of(
        tmp_path, one_task(weights=weights, variations={"object": ["red part", "blue part"], "pocket": ["left"]})
    )
    recorded.add_cell("red part")
    assignment = plan_next(campaign, recorded.dataset, "cell-a")
    assert assignment is not None
    assert assignment.variation["object"] == "blue part"


def test_following_the_plan_fills_every_cell_exactly_and_then_ends(tmp_path: Path, recorded: Recorded) -> None:
    campaign, filled = campaign_of(tmp_path), Counter[str]()
    while (assignment := plan_next(campaign, recorded.dataset, "cell-a")) is not None:
        recorded.add(assignment.details)
        filled[assignment.instruction] += 1
        assert sum(filled.values()) <= 8
    assert set(filled.values()) == {2}
    assert len(filled) == 4
    done = progress(campaign, recorded.dataset)
    assert (done.counted, done.quota, done.cells_full, done.cells, done.share) == (8, 8, 4, 4, 1.0)


def test_failures_do_not_fill_a_quota_unless_all_episodes_count(tmp_path: Path, recorded: Recorded) -> None:
    recorded.add_cell(outcome="failure")
    recorded.add_cell(outcome="unknown")
    assert progress(campaign_of(tmp_path), recorded.dataset).counted == 0
    assert progress(campaign_of(tmp_path, count="all"), recorded.dataset).counted == 2


@pytest.mark.parametrize("status", ["discarded", "quarantined", "purged"])
def test_what_is_not_valid_does_not_fill_a_quota(tmp_path: Path, recorded: Recorded, status: str) -> None:
    recorded.add_cell(status=status)
    assert progress(campaign_of(tmp_path, count="all"), recorded.dataset).counted == 0


def test_a_cell_that_is_more_than_full_does_not_fill_another(tmp_path: Path, recorded: Recorded) -> None:
    for _ in range(5):
        recorded.add_cell()
    done = progress(campaign_of(tmp_path), recorded.dataset)
    assert (done.counted, done.cells_full) == (2, 1)


def test_two_stations_do_not_both_record_the_last_episode(tmp_path: Path, recorded: Recorded) -> None:
    campaign = campaign_of(tmp_path, one_task(episodes=1, variations={"object": ["red part"], "pocket": ["left"]}))
    first = plan_next(campaign, recorded.dataset, "cell-a")
    assert first is not None
    recorded.begin("live", first.details)
    assert plan_next(campaign, recorded.dataset, "cell-b") is None
    assert progress(campaign, recorded.dataset).counted == 0


def test_a_journal_that_cannot_be_read_is_no_reason_to_stop(tmp_path: Path, recorded: Recorded) -> None:
    recorded.begin("live", {"campaign": "what"})
    (recorded.root / "journals" / "torn").mkdir()
    (recorded.root / "journals" / "torn" / "meta.json").write_text("{", encoding="utf-8")
    assert plan_next(campaign_of(tmp_path), recorded.dataset, "cell-a") is not None


def test_everyone_who_sees_the_same_dataset_plans_alike_and_seeds_differ(tmp_path: Path, recorded: Recorded) -> None:
    def order(seed: int) -> list[str]:
        campaign, made = (
            campaign_of(tmp_path, seed=seed),
            Recorded(tmp_path / f"s{seed}{len(list(tmp_path.iterdir()))}"),
        )
        plans = []
        while (assignment := plan_next(campaign, made.dataset, "cell-a")) is not None:
            made.add(assignment.details)
            plans.append(assignment.instruction)
        return plans

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(6)}) > 1


def test_each_station_fills_its_own_cells_where_the_task_says_so(tmp_path: Path, recorded: Recorded) -> None:
    campaign = campaign_of(
        tmp_path, one_task(per="station", episodes=1, variations={"object": ["red part"], "pocket": ["left"]})
    )
    recorded.add_cell(station="cell-a")
    assert plan_next(campaign, recorded.dataset, "cell-a") is None
    assert plan_next(campaign, recorded.dataset, "cell-b") is not None


def test_a_station_is_asked_only_for_what_it_can_do(tmp_path: Path, recorded: Recorded) -> None:
    stations = [{"id": "cell-a", "robot": "arm6"}, {"id": "cell-b", "robot": "iiwa"}]
    campaign = campaign_of(tmp_path, one_task(robots=["arm6"]), stations=stations)
    assert plan_next(campaign, recorded.dataset, "cell-b") is None


def test_a_station_that_the_campaign_does_not_know_is_refused(tmp_path: Path, recorded: Recorded) -> None:
    with pytest.raises(InputError, match="no station 'cell-z'; it has cell-a, cell-b"):
        plan_next(campaign_of(tmp_path), recorded.dataset, "cell-z")


@dataclass
class Planned:
    """What a recorder holds between episodes."""

    task: str = "demonstration"
    instruction: str = ""
    operator: str | None = "Erika Mustermann"
    details: dict[str, Any] = field(default_factory=dict)


def test_a_recorder_gets_plans_with_pseudonyms_and_none_beyond_the_quota(tmp_path: Path, recorded: Recorded) -> None:
    make_key(tmp_path / "operators.key")
    path = write_campaign(tmp_path, operators={"key_file": "operators.key"})
    choose: Any = chooser(path, "cell-a")
    plan: Any = Planned(details={"shift": "early"})
    seen = set()
    for _ in range(8):
        plan = choose(recorded.dataset, plan)
        seen.add(plan.operator)
        recorded.add(plan.details)
    (operator,) = seen
    assert operator is not None
    assert operator.startswith("op-"), "the same pseudonym, although each plan is handed back"
    assert "Mustermann" not in operator
    assert plan.task == "kitting"
    assert plan.details["shift"] == "early"
    assert plan.details["campaign"]["station"] == "cell-a"
    with pytest.raises(InputError, match="nothing is missing"):
        choose(recorded.dataset, plan)


def test_a_recorder_at_an_unknown_station_is_refused_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no station"):
        chooser(write_campaign(tmp_path), "")
