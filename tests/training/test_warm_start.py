"""What a base brings along is taken where it means the same and has the same size, and refused where it is broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file

from lehrling.datasets.errors import InputError
from lehrling.datasets.view import View
from lehrling.training.config import TrainConfig, parse_config, with_overrides
from lehrling.training.models import Base, check, load_backbone
from lehrling.training.policy_model import PolicyModel, pixel_spec
from lehrling.training.prompt import Prompt
from lehrling.training.warm_start import FACTS, WEIGHTS, find_warm_start, policy_tensors


@pytest.fixture(scope="module")
def base() -> Base:
    return check("builtin:base")


@pytest.fixture
def broken(base: Base, tmp_path: Path) -> Base:
    """Copy the base, to be changed at will."""
    for name in (FACTS, WEIGHTS):
        shutil.copy(base.directory / name, tmp_path / name)
    return Base("here", None, tmp_path, "qwen3_vl", {})


def view_of(base: Base, **changes: object) -> View:
    """Return as much of a view as is looked at, of the meaning that the base was trained for."""
    facts = json.loads((base.directory / FACTS).read_text(encoding="utf-8")) | changes
    spec = SimpleNamespace(cameras=tuple(facts["cameras"]), image_px=facts["image_px"])
    codec = SimpleNamespace(parts=facts.get("parts", ()))
    names = {"state_names": facts["state_names"], "action_names": facts["action_names"]}
    return cast("View", SimpleNamespace(spec=spec, codec=codec, **names))


def config_of(*overrides: str) -> TrainConfig:
    return parse_config(with_overrides({"dataset": "d", "output": "o"}, list(overrides)))


def build(hidden: int) -> PolicyModel:
    backbone, tokenizer, _ = load_backbone("builtin:base")
    prompt = Prompt(("front", "wrist"), pixel_spec(backbone.config).tokens(96), 8)
    return PolicyModel(backbone, tokenizer, prompt, 7, 4, head_hidden=hidden)


def test_slots_and_head_of_the_same_meaning_are_taken_with_their_normalisers(base: Base) -> None:
    start = find_warm_start(base, view_of(base), config_of())
    assert start is not None
    assert start.state.offset == (0.0, 0.4, 1.6, 0.0, 1.1, 0.0, 0.05)
    model = build(256)
    assert not torch.equal(model.head.out.weight, start.tensors["policy.head.out.weight"].float())
    start.load_into(model)
    torch.testing.assert_close(model.head.out.weight, start.tensors["policy.head.out.weight"].float(), atol=0, rtol=0)
    torch.testing.assert_close(model.slots.query, start.tensors["policy.slots.query"].float(), atol=0, rtol=0)


def test_a_start_of_another_size_is_refused_by_a_model(base: Base) -> None:
    start = find_warm_start(base, view_of(base), config_of())
    assert start is not None
    with pytest.raises(
        InputError, match=r"brings along as its slots does not fit .*: state\.0\.bias: \[32\] was expected"
    ):
        start.load_into(build(32))


@pytest.mark.parametrize(
    "change",
    [
        {"cameras": ["wrist", "front"]},
        {"state_names": ["a"]},
        {"action_names": ["a"]},
        {"image_px": 64},
        {"parts": ("relative",)},
    ],
)
def test_another_meaning_starts_from_the_beginning(base: Base, change: dict[str, object]) -> None:
    assert find_warm_start(base, view_of(base, **change), config_of()) is None


@pytest.mark.parametrize(
    "override", ["head.warm_start=false", "head.hidden=32", "chunk=4", "prompt.order=cameras_first"]
)
def test_another_configuration_starts_from_the_beginning(base: Base, override: str) -> None:
    assert find_warm_start(base, view_of(base), config_of(override)) is None


def test_a_base_without_facts_or_tensors_brings_nothing(base: Base, broken: Base) -> None:
    save_file({"lm_head.weight": torch.zeros(1)}, broken.directory / WEIGHTS)
    assert find_warm_start(broken, view_of(base), config_of()) is None
    (broken.directory / FACTS).unlink()
    assert find_warm_start(broken, view_of(base), config_of()) is None


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edited(path: Path) -> None:
        facts = json.loads(path.read_text(encoding="utf-8"))
        change(facts)
        path.write_text(json.dumps(facts), encoding="utf-8")

    return edited


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        (FACTS, lambda path: path.write_text("{"), "is not JSON"),
        (FACTS, lambda path: path.write_text("[" * 100_000), "nested too deeply"),
        (FACTS, lambda path: path.write_text("[]"), "the document: Input should be a valid dictionary"),
        (FACTS, edit(lambda facts: facts.pop("chunk")), "chunk: Field required"),
        (
            FACTS,
            edit(lambda facts: facts["state"].update(scale=[0.0])),
            "state.scale.0: Input should be greater than 0",
        ),
        (WEIGHTS, lambda path: path.write_bytes(b"{"), "cannot be read as safetensors"),
    ],
)
def test_broken_files_are_refused_with_their_path(
    base: Base, broken: Base, name: str, damage: Callable[[Path], object], told: str
) -> None:
    damage(broken.directory / name)
    with pytest.raises(InputError, match=told) as caught:
        find_warm_start(broken, view_of(base), config_of())
    assert str(broken.directory / name) in str(caught.value)


def test_only_the_policys_tensors_are_read(base: Base) -> None:
    assert {name.split(".")[1] for name in policy_tensors(base.directory / WEIGHTS)} == {"slots", "head"}
