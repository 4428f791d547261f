"""Embodiments are strict: every key is checked, two hashes tell meaning from station."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from lehrling.datasets.embodiment import load_embodiment, parse_embodiment, shipped_embodiments
from lehrling.datasets.errors import InputError


@pytest.fixture
def data() -> dict[str, Any]:
    return load_embodiment("arm6").model_dump(mode="json")


def test_four_robots_are_shipped_and_the_humanoid_has_43_joints_and_two_hands() -> None:
    assert shipped_embodiments() == ["arm6", "humanoid", "iiwa", "upper_humanoid"]
    humanoid = load_embodiment("humanoid").contract
    assert len(humanoid.joints) >= 43
    assert {"left_hand", "right_hand"} <= set(humanoid.groups)
    assert len(load_embodiment("humanoid").binding.sources["joint_position"]) == 2


def test_the_binding_changes_its_own_hash_only(data: dict[str, Any]) -> None:
    before = parse_embodiment(data, "here")
    data["binding"]["serials"]["robot"] = "KR-0815"
    after = parse_embodiment(data, "here")
    assert after.contract_hash == before.contract_hash
    assert after.binding_hash != before.binding_hash


def test_a_changed_unit_changes_the_contract_and_is_named(data: dict[str, Any]) -> None:
    before = parse_embodiment(data, "here").contract
    changed = copy.deepcopy(data)
    changed["contract"]["streams"][0]["unit"] = "deg"
    after = parse_embodiment(changed, "here").contract
    assert before.hash != after.hash
    assert before.difference(after) == (
        'The contracts differ in streams joint_position.unit: "rad, gripper m" here, "deg" there.'
    )
    assert before.difference(before) == ""


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("contract", "joint"), [], "contract.joint: is no key of an embodiment"),
        (("binding", "limits", "speed"), 1, "binding.limits.speed: is no key of an embodiment"),
        (("contract", "cameras", 0, "encoding"), "bgr8", "contract.cameras.0.encoding"),
        (("contract", "streams", 0, "kind"), "telepathy", "contract.streams.0.kind"),
        (("contract", "streams", 0, "shape"), [3], "7 names do not fit the shape"),
        (("binding", "sources", "front", 0, "topic"), "no slash", "binding.sources.front.0.topic"),
        (("binding", "sources", "lidar"), [], "sources of streams that the contract lacks: lidar"),
        (("contract", "groups", "tail"), ["tail1"], "unknown joints"),
    ],
)
def test_a_wrong_key_or_value_is_named(data: dict[str, Any], path: tuple[Any, ...], value: object, reason: str) -> None:
    target: Any = data
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    with pytest.raises(InputError, match=reason) as caught:
        parse_embodiment(data, "robot.yaml")
    assert str(caught.value).startswith("robot.yaml: ")
    assert "\n" not in str(caught.value)


def test_a_file_is_loaded_like_a_shipped_one(tmp_path: Path, data: dict[str, Any]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(data))
    assert load_embodiment(path) == load_embodiment("arm6")


def test_missing_large_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"name \(arm6, humanoid, iiwa, upper_humanoid\) or a YAML file, got 'r2d2'"):
        load_embodiment("r2d2")
    (tmp_path / "large.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(InputError, match="larger than"):
        load_embodiment(tmp_path / "large.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(InputError, match="is not YAML"):
        load_embodiment(tmp_path / "broken.yaml")
