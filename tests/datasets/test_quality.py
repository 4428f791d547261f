from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from flawed import Flaw, add, black, blurred, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError
from lehrling.datasets.quality import DatasetQuality, EpisodeQuality, dataset_quality
from lehrling.datasets.quality_limits import Gate, QualityLimits, load_limits
from lehrling.datasets.quality_signals import FloatArray, idle_share, lag_of, saturation_share

FLAWS = {
    "gap": Flaw(silent_s=(1.0, 1.4)),
    "frozen": Flaw(frozen_s=(1.0, 2.6)),
    "saturated": Flaw(at_end=True),
    "jerky": Flaw(shake=0.05),
    "idle": Flaw(still_from_s=1.0),
    "late": Flaw(lag_ms=700),
    "black": Flaw(front=black, front_until_s=1.0),
    "blurred": Flaw(front=blurred, front_until_s=2.0),
    "long": Flaw(seconds=9.0),
}
GATES = {
    "gap": ("gap_periods", "refuse", "joint_position"),
    "frozen": ("freeze_s", "refuse", "front"),
    "saturated": ("saturation_share", "warn", "joint_position"),
    "jerky": ("jerk", "warn", "joint_position"),
    "idle": ("idle_share", "warn", ""),
    "late": ("offset_ms", "warn", "tcp_command → tcp_pose"),
    "black": ("black_share", "refuse", "front"),
    "blurred": ("blurred_share", "warn", "front"),
    "long": ("duration_deviations", "warn", ""),
}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant") / "plant.zarr"
    for number in range(6):
        add(root, f"good{number}", Flaw(seconds=4.0 + number / 50))
    for name, flaw in FLAWS.items():
        add(root, name, flaw)
    add(root, "rare", task="sorting")
    return root


@pytest.fixture(scope="module")
def judged(plant: Path) -> DatasetQuality:
    return dataset_quality(Dataset.open(plant))


def of(judged: DatasetQuality, name: str) -> EpisodeQuality:
    return next(episode for episode in judged.episodes if episode.id == name)


@pytest.mark.parametrize("name", [f"good{number}" for number in range(6)])
def test_a_good_demonstration_has_nothing_beyond_a_limit(judged: DatasetQuality, name: str) -> None:
    found = of(judged, name)
    assert found.findings == ()
    assert not found.refused
    assert found.offsets[0].lag_ms == pytest.approx(60, abs=3)
    assert found.offsets[0].correlation > 0.95


@pytest.mark.parametrize("name", FLAWS)
def test_each_flaw_is_found_by_its_gate_and_refused_where_that_says_so(judged: DatasetQuality, name: str) -> None:
    found, (gate, level, where) = of(judged, name), GATES[name]
    hits = [finding for finding in found.findings if finding.gate == gate]
    assert [(finding.level, finding.where) for finding in hits][:1] == [(level, where)]
    assert hits[0].value > hits[0].limit
    assert found.refused == (level == "refuse")


def test_figures_are_what_was_put_in(judged: DatasetQuality) -> None:
    assert of(judged, "gap").gap_periods["joint_position"] == pytest.approx(41, abs=1)
    assert of(judged, "frozen").freeze_s["front"] == pytest.approx(1.6, abs=0.11)
    assert of(judged, "saturated").saturation_share["joint_position"] == 1.0
    assert of(judged, "idle").idle_share == pytest.approx(0.75, abs=0.08)
    assert of(judged, "late").offsets[0].lag_ms == pytest.approx(700, abs=5)
    assert of(judged, "black").cameras["front"].black_share == pytest.approx(0.25, abs=0.03)
    assert of(judged, "blurred").cameras["front"].blurred_share == pytest.approx(0.5, abs=0.05)
    assert of(judged, "long").duration_deviations > 5


def test_a_rare_task_is_told_of_the_dataset(judged: DatasetQuality) -> None:
    assert judged.counts["task"] == {"kitting": 15, "sorting": 1}
    assert {(f.gate, f.where, f.value) for f in judged.findings} == {
        ("imbalance", "task", 15.0), ("imbalance", "instruction", 15.0),
    }  # fmt: skip


def test_gates_can_be_moved_made_strict_and_switched_off(plant: Path, tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("offset_ms: {limit: 10, level: refuse}\nfreeze_s: {limit: 1, level: 'off'}\n")
    judged = dataset_quality(Dataset.open(plant), load_limits(path))
    assert of(judged, "good0").refused
    assert not any(finding.gate == "freeze_s" for episode in judged.episodes for finding in episode.findings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gap_periods: 3", "gap_periods"),
        ("gaps: {limit: 3}", "gaps"),
        ("jerk: {limit: -1}", "jerk.limit"),
        ("jerk: {limit: 1, level: loud}", "jerk.level"),
        ("- 1", "Expected the keys"),
    ],
)
def test_limits_that_break_the_schema_are_refused_by_key(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        load_limits(path)
    with pytest.raises(InputError, match="no such file"):
        load_limits(tmp_path / "none.yaml")


def test_a_damaged_episode_is_refused_with_the_reason_and_the_others_are_judged(plant: Path, tmp_path: Path) -> None:
    root = shutil.copytree(plant, tmp_path / "d.zarr")
    for path in (root / "episodes" / "good0" / "front" / "value" / "c").rglob("*"):
        if path.is_file():
            path.unlink()
    judged = dataset_quality(Dataset.open(root), names=["good0", "good1"])
    assert [episode.refused for episode in judged.episodes] == [True, False]
    assert "missing or cut" in of(judged, "good0").damage


def test_without_episodes_there_is_nothing_to_judge(plant: Path) -> None:
    with pytest.raises(InputError, match="Expected sealed episodes to judge"):
        dataset_quality(Dataset.open(plant), names=[])


def test_the_report_is_json(judged: DatasetQuality) -> None:
    data = json.loads(json.dumps(judged.to_json(), allow_nan=False))
    assert data["episodes"]["black"]["refused"] is True
    assert data["limits"]["black_share"] == {"limit": 0.02, "level": "refuse"}


# --- figures ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.floats(-800, 800), st.integers(0, 10**6), st.floats(0, 0.002))
def test_a_lag_is_found_within_two_milliseconds(lag_ms: float, seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    seconds = np.asarray(np.arange(0, 8, 0.01), np.float64).reshape(-1)
    waves = [(rng.uniform(0.5, 4), rng.uniform(0, 6)) for _ in range(5)]

    def path(t: FloatArray) -> FloatArray:
        return np.stack(
            [sum(np.sin(w * t + p) for w, p in waves), sum(np.cos(w * t * 1.1 + p) for w, p in waves)], axis=1
        )

    answer = path(np.asarray(seconds - lag_ms / 1e3)) + rng.normal(0, noise, (len(seconds), 2))
    found = lag_of(path(seconds), answer)
    assert found is not None
    assert found[0] == pytest.approx(lag_ms, abs=2)


def test_without_movement_there_is_no_lag() -> None:
    assert lag_of(np.zeros((500, 2)), np.random.default_rng(0).normal(size=(500, 2))) is None


def test_saturation_counts_rows_at_either_end_of_what_has_a_range() -> None:
    value = np.array([[0.0, 5], [1.0, 5], [0.5, 5], [-0.1, 5]])
    low, high = np.array([0.0, -np.inf]), np.array([1.0, np.inf])
    assert saturation_share(value, low, high, 0.01) == 0.75
    assert saturation_share(value, np.full(2, -np.inf), high, 0.01) == 0.0


def test_noise_is_no_movement() -> None:
    stamp = np.arange(400) * 10_000_000
    noise = np.random.default_rng(1).normal(0, 0.0005, (400, 3))
    assert idle_share(stamp, noise, 0.02) == 1.0
    assert idle_share(stamp, noise + np.linspace(0, 1, 400)[:, None], 0.02) == 0.0
    assert idle_share(stamp[:1], noise[:1], 0.02) == 1.0


def test_gates_are_named_in_the_limits() -> None:
    names = dict(QualityLimits().gates())
    assert {name for name, _, _ in GATES.values()} | {"dropped_share", "imbalance"} == set(names)
    assert all(isinstance(gate, Gate) for gate in names.values())
    assert picture(1).shape == (96, 96, 3)
