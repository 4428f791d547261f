from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from lehrling.datasets.align import Rule
from lehrling.datasets.manifest import EpisodeRecord
from lehrling.datasets.view_meta import view_key
from lehrling.datasets.view_spec import Crop, Field, ViewSpec

MS = 1_000_000


def spec(**changes: object) -> ViewSpec:
    values: dict[str, object] = {
        "rate_hz": 20,
        "image_px": 96,
        "cameras": ["front"],
        "state": [{"stream": "joints"}],
        "action": [{"stream": "command"}],
    }
    return ViewSpec.model_validate(values | changes)


def test_observations_are_causal_and_actions_nearest_by_default() -> None:
    ours = spec()
    assert ours.state_rule(ours.state[0]) == Rule("previous", True, 0, 0, 500 * MS)
    assert ours.action_rule(ours.action[0]) == Rule("nearest", False, 0, 0, None)
    assert ours.image_rule == Rule("previous", True, 0, 0, 500 * MS)


def test_limits_and_latencies_reach_the_rule_in_nanoseconds() -> None:
    ours = spec(state=[Field(stream="joints", latency_ms=1.5, max_age_ms=40)])
    assert ours.state_rule(ours.state[0]) == Rule("previous", True, 1_500_000, 0, 40 * MS)


@pytest.mark.parametrize("alignment", ["nearest", "linear", "slerp"])
def test_an_observation_that_would_look_into_the_future_is_refused(alignment: str) -> None:
    with pytest.raises(ValidationError, match=f"observation 'joints', got {alignment}"):
        spec(state=[{"stream": "joints", "alignment": alignment}])


def test_interpolated_observations_are_accepted_with_a_declared_delay() -> None:
    ours = spec(state=[Field(stream="joints", alignment="linear", delay_ms=30)])
    assert ours.state_rule(ours.state[0]) == Rule("linear", True, 0, 30 * MS, 500 * MS)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"stream": "c", "representation": "chunk_relative"}, "Expected a reference exactly where"),
        ({"stream": "c", "reference": "joints"}, "Expected a reference exactly where"),
        ({"stream": "c", "select": ["a", "a"]}, "each element of 'c' once"),
        ({"stream": "c", "colour": 1}, "Extra inputs"),
    ],
)
def test_fields_that_make_no_sense_are_refused(field: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(action=[field])


def test_a_relative_observation_is_refused() -> None:
    with pytest.raises(ValidationError, match="Expected an absolute state field, got delta"):
        spec(state=[{"stream": "joints", "representation": "delta"}])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": [], "state": []}, "at least one camera or state field"),
        ({"cameras": ["a", "a"]}, "each camera once"),
        ({"crops": {"wrist": Crop(top=0, left=0, height=9, width=9)}}, r"got \['wrist'\]"),
        ({"view_format": 99}, "view format 1, got 99"),
        ({"rate_hz": 0}, "greater than 0"),
        ({"rate_hz": "20"}, "valid number"),
        ({"action": []}, "at least 1 item"),
    ],
)
def test_views_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**changes)


def test_the_canonical_json_spells_out_every_default_and_gives_the_same_spec_back() -> None:
    ours = spec()
    text = ours.canonical_json
    assert ViewSpec.model_validate_json(text) == ours
    assert ViewSpec.model_validate_json(text).canonical_json == text
    assert json.loads(text)["action"][0]["alignment"] == "nearest"
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))


def test_the_hash_follows_the_content() -> None:
    assert spec().hash == spec(rate_hz=20.0).hash
    assert spec().hash != spec(rate_hz=10).hash
    assert len(spec().hash) == 64


def test_format_1_hashes_never_change() -> None:
    assert spec().hash == "64ad04212b39a6ca04451e23b3532d6882196e185909721ea6c6eca97f0efaf5"
    key = view_key(spec(), "c" * 64, [EpisodeRecord("one", "sealed", content_hash="d" * 64)])
    assert key == "a489838c8dd306c049c51e1f9c5f41255bd7cddcf9f051423b512f5ec06eba53"


def test_a_gap_limit_belongs_to_interpolation_and_changes_the_hash_only_where_it_is_set() -> None:
    plain, limited = (spec(action=[Field(stream="a", alignment="linear", max_gap_ms=gap)]) for gap in (None, 50))
    assert "max_gap_ms" not in plain.canonical_json
    assert plain.hash != limited.hash
    assert limited.action_rule(limited.action[0]).max_gap_ns == 50_000_000
    with pytest.raises(ValueError, match="only where values are interpolated"):
        Field(stream="a", alignment="nearest", max_gap_ms=50)
