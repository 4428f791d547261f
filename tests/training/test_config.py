"""The configuration is checked key by key; a run goes on only with the one it was begun with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lehrling.datasets.errors import InputError
from lehrling.training.config import (
    FREE_ON_RESUME,
    TrainConfig,
    check_resumable,
    load_config,
    parse_config,
    with_overrides,
)


@pytest.fixture
def begun(tmp_path: Path) -> TrainConfig:
    """Return the configuration of a run that was begun in tmp_path."""
    config = parse_config({"dataset": "d.zarr", "output": str(tmp_path), "lora": {"rank": 4}})
    (tmp_path / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    return config


def changed(config: TrainConfig, *overrides: str) -> TrainConfig:
    return parse_config(with_overrides(config.model_dump(mode="json"), list(overrides)))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("lora.rank=8", "lora.rank was 4, but 8 came"),
        ("head.hidden=32", "head.hidden was 256, but 32 came"),
        ("lora.dora=true", "lora.dora was False, but True came"),
        ("seed=1", "seed was 0, but 1 came"),
        ("view=other", "view was 'train', but 'other' came"),
        ("prompt.order=cameras_first", "prompt.order was 'instruction_first', but 'cameras_first' came"),
    ],
)
def test_another_configuration_is_refused_naming_the_key_and_both_values(
    begun: TrainConfig, override: str, told: str
) -> None:
    with pytest.raises(InputError, match=f"a run of another configuration: {told}; .* another output directory"):
        check_resumable(changed(begun, override), begun.output / "config.json")


def test_places_length_and_means_may_change(begun: TrainConfig) -> None:
    free = [
        "dataset=e.zarr",
        "base.path=/elsewhere",
        "steps=9",
        "checkpoint_every=1",
        "threads=2",
        "cache_features=no",
        "precision=fp32",
    ]
    assert {override.partition("=")[0].partition(".")[0] for override in free} <= FREE_ON_RESUME
    check_resumable(changed(begun, *free), begun.output / "config.json")


def test_a_run_begun_before_a_key_was_there_counts_as_having_its_default(begun: TrainConfig) -> None:
    path = begun.output / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    del stored["seed"]
    path.write_text(json.dumps(stored), encoding="utf-8")
    check_resumable(begun, path)
    with pytest.raises(InputError, match="seed was 0, but 3 came"):
        check_resumable(changed(begun, "seed=3"), path)


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000, '{"dataset": 1}', '{"colour": 1}'])
def test_a_stored_configuration_that_is_none_is_refused_with_its_path(begun: TrainConfig, content: str) -> None:
    path = begun.output / "config.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=str(path)):
        check_resumable(begun, path)


def test_overrides_change_a_copy_and_make_missing_groups() -> None:
    data = {"lora": {"rank": 4}}
    assert with_overrides(data, ["lora.rank=8", "head.rate=1e-4", "threads=null"]) == {
        "lora": {"rank": 8},
        "head": {"rate": "1e-4"},
        "threads": None,
    }
    assert data == {"lora": {"rank": 4}}


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("lora.rank=[", r"--set 'lora.rank=\[', line 1, is not YAML"),
        ("lora.alpha=.inf", "lora.alpha: Input should be a finite number, got inf"),
        (
            ".".join("a" * 1000) + "=1",
            "'a' is not a key of a training configuration; expected dataset, cache, view, output",
        ),
        ("lora.rnk=4", "'lora.rnk' is not a key of a training configuration; expected rank, alpha"),
        ("steps=" + "[" * 60 + "]" * 60, r"steps: Input should be a valid integer, got \[\[\[\[\[\["),
    ],
)
def test_an_override_that_breaks_a_rule_is_told_in_one_short_sentence(tmp_path: Path, override: str, told: str) -> None:
    (tmp_path / "train.yaml").write_text("dataset: d\noutput: o\n", encoding="utf-8")
    with pytest.raises(InputError, match=told) as caught:
        load_config(tmp_path / "train.yaml", [override])
    assert len(str(caught.value)) < 400
