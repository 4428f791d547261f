"""Campaign files: what they mean, and what is refused, in words that say what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from campaign_data import SMALL, campaign_of, one_task, write_campaign
from hypothesis import given
from hypothesis import strategies as st

from lehrling.collection.campaign import load_campaign
from lehrling.collection.campaign_cells import cells_of, shares
from lehrling.datasets.errors import InputError

EXAMPLE = Path(__file__).parents[2] / "examples" / "campaign.yaml"


def quotas(campaign: Any) -> dict[str, int]:
    return {str(cell.key): cell.quota for cell in cells_of(campaign)}


def test_every_combination_is_a_cell(tmp_path: Path) -> None:
    assert quotas(campaign_of(tmp_path)) == {
        "kitting · object red part, pocket left": 2,
        "kitting · object red part, pocket right": 2,
        "kitting · object blue part, pocket left": 2,
        "kitting · object blue part, pocket right": 2,
    }


def test_a_part_of_a_combination_excludes_all_that_have_it(tmp_path: Path) -> None:
    campaign = campaign_of(tmp_path, one_task(exclude=[{"pocket": "right"}]))
    assert [cell.key.variation[1][1] for cell in cells_of(campaign)] == ["left", "left"]


def test_weights_multiply(tmp_path: Path) -> None:
    weights = [{"when": {"object": "red part"}, "weight": 2}, {"when": {"pocket": "right"}, "weight": 1.5}]
    campaign = campaign_of(tmp_path, one_task(episodes=10, weights=weights))
    assert list(quotas(campaign).values()) == [20, 30, 10, 15]


def test_a_total_is_shared_out_by_weight_to_the_last_episode(tmp_path: Path) -> None:
    weights = [{"when": {"object": "red part"}, "weight": 2}]
    campaign = campaign_of(tmp_path, one_task(episodes=None, total=20, weights=weights))
    assert list(quotas(campaign).values()) == [7, 7, 3, 3]


@given(st.integers(1, 10_000), st.lists(st.floats(0.01, 100), min_size=1, max_size=50))
def test_shares_add_up_and_are_less_than_one_episode_off(total: int, weights: list[float]) -> None:
    given_ = shares(total, weights)
    assert sum(given_) == total
    exact = [total * weight / sum(weights) for weight in weights]
    assert all(abs(share - wanted) <= 1 for share, wanted in zip(given_, exact, strict=True))


@pytest.mark.parametrize(
    ("per", "holders"), [("campaign", [""]), ("robot", ["arm6"]), ("station", ["cell-a", "cell-b"])]
)
def test_cells_may_be_filled_together_by_each_robot_or_by_each_station(
    tmp_path: Path, per: str, holders: list[str]
) -> None:
    cells = cells_of(campaign_of(tmp_path, one_task(per=per, variations={}, instruction="do it")))
    assert [cell.key.holder for cell in cells] == holders


def test_only_stations_that_can_do_a_task_have_to(tmp_path: Path) -> None:
    stations = [
        {"id": "cell-a", "robot": "arm6"},
        {"id": "cell-b", "robot": "iiwa"},
        {"id": "cell-c", "robot": "arm6", "tasks": ["other"]},
    ]
    content = one_task(per="station", robots=["arm6"], variations={}, instruction="do it")
    content["tasks"].append({"name": "other", "instruction": "wait", "episodes": 1})
    campaign = campaign_of(tmp_path, content, stations=stations)
    assert list(quotas(campaign)) == ["kitting · cell-a", "other"]


def test_an_instruction_is_filled_in(tmp_path: Path) -> None:
    (task,) = campaign_of(tmp_path).tasks
    assert task.told({"object": "red part", "pocket": "left"}) == "put the red part into the left pocket"


def test_the_key_file_is_found_beside_the_campaign_or_at_home(tmp_path: Path) -> None:
    beside = campaign_of(tmp_path, operators={"key_file": "keys/operators.key"})
    assert beside.operators.key_file == str(tmp_path / "keys" / "operators.key")
    assert campaign_of(tmp_path).operators.key_file == str(Path("~/.config/lehrling/operators.key").expanduser())


def test_the_example_can_be_loaded() -> None:
    campaign = load_campaign(EXAMPLE)
    assert sum(cell.quota for cell in cells_of(campaign)) == 185
    assert not campaign.operators.figures


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"task": []}, ["'task' is not a key of a campaign", "expected name", "tasks"]),
    (one_task(episode=3), ["tasks.0.episode", "is not a key", "episodes"]),
    (one_task(episodes=None), ["either `episodes`", "`total`"]),
    (one_task(total=5), ["either `episodes`", "`total`"]),
    (one_task(episodes=0), ["tasks.0.episodes", "greater than or equal to 1", "got 0"]),
    (one_task(episodes=None, total=3), ["less than one episode", "raise `total`"]),
    (one_task(weights=[{"when": {"object": "red part"}, "weight": 0.1}]), ["less than one episode", "red part"]),
    (one_task(weights=[{"when": {"object": "red part"}, "weight": 0}]), ["weights.0.weight", "greater than 0"]),
    (one_task(weights=[{"when": {}, "weight": 2}]), ["an empty rule"]),
    (one_task(exclude=[{"pocket": "left"}, {"pocket": "right"}]), ["`exclude` leaves no combination"]),
    (one_task(exclude=[{"colour": "red"}]), ["the variation 'colour'", "object, pocket"]),
    (one_task(exclude=[{"pocket": "middle"}]), ["pocket 'middle'", "left, right"]),
    (one_task(variations={"object": ["a", "a"], "pocket": ["b"]}), ["'a' is there twice"]),
    (one_task(variations={"object": ["a"], "pocket": [True, False]}), ["True", "put it in quotes"]),
    (one_task(exclude=[{"pocket": True}]), ["True", "put it in quotes"]),
    (one_task(instruction="take the {thing}"), ["{thing}", "{object}, {pocket}"]),
    (one_task(instruction="take {object.__class__}"), ["{object.__class__}"]),
    (one_task(instruction="take {object!r}"), ["{object}"]),
    (one_task(instruction="take {object"), ["tasks.0"]),
    (one_task(robots=["iiwa"]), ["the robot 'iiwa'", "arm6"]),
    (
        one_task(variations={a: [f"v{k}" for k in range(100)] for a in ("object", "pocket", "c")}),
        ["1000000 combinations"],
    ),
    ({"stations": [{"id": "cell-a", "robot": "arm6", "tasks": ["other"]}]}, ["the task 'other'", "kitting"]),
    ({"stations": [{"id": "cell-a", "robot": "arm6"}] * 2}, ["'cell-a' is there twice"]),
    ({"stations": [{"id": "../x", "robot": "arm6"}]}, ["stations.0.id"]),
    ({"stations": []}, ["stations", "at least 1"]),
    ({"name": "Small Parts"}, ["name", "'Small Parts'"]),
    ({"operators": {"names": True}}, ["operators.names", "pseudonyms, key_file, figures"]),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[words[0] for _, words in WRONG])
def test_what_is_wrong_is_refused_by_file_key_and_remedy(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    path = write_campaign(tmp_path, {**SMALL, **change})
    with pytest.raises(InputError) as refused:
        load_campaign(path)
    said = str(refused.value)
    assert said.startswith(str(path))
    assert all(word in said for word in words), said
    assert "\n" not in said


def test_a_task_that_no_station_can_do_is_refused(tmp_path: Path) -> None:
    content = one_task()
    content["tasks"].append({"name": "other", "instruction": "wait", "episodes": 1})
    stations = [{"id": "cell-a", "robot": "arm6", "tasks": ["kitting"]}]
    with pytest.raises(InputError, match="'other' has a quota, but no station can do it"):
        campaign_of(tmp_path, content, stations=stations)


@pytest.mark.parametrize(("text", "words"), [("a: [", "is not YAML"), ("- a", "got list"), ("", "got NoneType")])
def test_what_is_no_campaign_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "campaign.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(str(path))) as refused:
        load_campaign(path)
    assert words in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_campaign(tmp_path / "none.yaml")
