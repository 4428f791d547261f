"""`lehrling inspect DATASET EPISODE` and `--plot`: what went wrong with an episode's timing can be read and seen."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runs import Command
from PIL import Image
from timed_streams import START_NS, Timed, exponential, record_timed

from lehrling.cli.timing_series import episode_series
from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.files import MANIFEST

FINDING = {
    "kind": "stale", "topic": "/front", "since_ns": START_NS, "until_ns": START_NS + 1_500_000_000, "severity": "error",
    "text": "/front: a message every 33 ms expected, none came for 1.5 s; check its driver, cable and network.",
}  # fmt: skip
TROUBLE = {
    "joint_position": Timed(100, 2.0, exponential(0.5), offset_ms=37.0, drift_ppm=80.0, lost=(700, 701)),
    "front": Timed(10, 30.0, exponential(3.0), silent_s=(6.0, 7.0), lost=(30,)),
    "wrist": Timed(15, 30.0, exponential(3.0), phase_ms=7.0, frozen=(20, 29)),
    "tcp_pose": Timed(100, 2.0, numbered=False, silent_s=(8.0, 10.0)),
}


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a dataset: an episode with all kinds of trouble, and one without a row."""
    root = tmp_path_factory.mktemp("plant") / "plant.zarr"
    create_dataset(root)
    record_timed(root, "trouble", TROUBLE, 10.0, facts={"findings": [FINDING, "of another shape"]})
    record_timed(root, "empty", {}, 1.0)
    with Dataset.open_for_writing(root) as dataset:
        assert [record.status for record in dataset.records.values()] == ["sealed", "sealed"]
    return root


def row(out: str, stream: str, number: int) -> list[str]:
    """Return the cells of a stream's row in the first or second table."""
    return [line.split() for line in out.splitlines() if line.split()[:1] == [stream]][number]


def test_an_episode_is_told_within_80_columns(lehrling: Command, plant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = lehrling("inspect", plant, "trouble").out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out


def test_what_came_is_in_the_first_table_and_clocks_in_the_second(lehrling: Command, plant: Path) -> None:
    out = lehrling("inspect", plant, "trouble").out
    joints, front, wrist, pose = (row(out, name, 0) for name in ("joint_position", "front", "wrist", "tcp_pose"))
    assert joints[1:5] == ["obs", "998", "99.79", "100"]
    assert joints[-5:] == ["1", "30.0", "7.0", "2", "–"]
    assert front[-5:-3] == ["2", "1100.0"]
    assert (front[-2:], wrist[-2:], pose[-2:]) == (["1", "0"], ["0", "9"], ["?", "–"])
    assert row(out, "gripper_command", 0)[2] == "0"
    clock = row(out, "joint_position", 1)
    assert clock[1] == "7"
    assert float(clock[5]) == pytest.approx(37.0, abs=0.1)
    assert float(clock[6]) == pytest.approx(80, abs=3)
    assert clock[7].startswith("±")


def test_skew_silence_at_the_ends_and_findings_are_told_in_sentences(lehrling: Command, plant: Path) -> None:
    out = " ".join(lehrling("inspect", plant, "trouble").out.split())
    assert "cameras front and wrist: closest frames" in out
    assert "tcp_pose ended 2.0 s early" in out
    assert "finding: /front: a message every 33 ms expected" in out
    assert "cable and network. (1.5 s)" in out
    assert "finding: of another shape" in out


def test_json_holds_every_figure_the_skew_and_the_hosts_facts(lehrling: Command, plant: Path) -> None:
    facts = lehrling("inspect", plant, "trouble", "--json").data
    assert facts["facts"]["findings"] == [FINDING, "of another shape"]
    assert set(facts["skew"]["front/wrist"]) == {"mean_ms", "p99_ms", "bias_ms"}
    assert facts["timing"]["front"]["gaps"] == 2
    assert facts["timing"]["tcp_pose"]["frozen"] is None
    assert facts["streams"]["front"]["sources"][0]["rate_hz"] == 10
    assert facts["clock_jump_ms"] == 0


def test_an_episode_sealed_before_clocks_were_judged_is_shown_with_what_is_known(
    lehrling: Command, plant: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(plant, tmp_path / "old.zarr"))
    lines = []
    for text in (root / MANIFEST).read_text().splitlines():
        record = json.loads(text)
        kept = ("count", "rate_hz", "mean_gap_ms", "max_gap_ms", "jitter_ms", "latency_ms", "dropped")
        record["timing"] = {name: {key: timing[key] for key in kept} for name, timing in record["timing"].items()}
        lines.append(json.dumps({k: v for k, v in record.items() if k not in ("skew", "clock_jump_ms", "facts")}))
    (root / MANIFEST).write_text("\n".join(lines) + "\n")
    out = lehrling("inspect", root, "trouble").out
    assert row(out, "front", 0)[1:3] == ["obs", "89"]
    assert row(out, "front", 1)[2:] == ["–"] * 7
    assert lehrling("inspect", root, "trouble", "--plot", tmp_path / "old.png").code == 0


def near(*values: float) -> tuple[Any, ...]:
    return tuple(pytest.approx(value, abs=0.05) for value in values)


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    return {tuple(int(c) for c in colour) for colour in np.unique(pixels, axis=0)}


def test_a_png_shows_rates_latencies_gaps_and_freezes_in_their_colours(
    lehrling: Command, plant: Path, tmp_path: Path
) -> None:
    path = tmp_path / "trouble.png"
    seen = lehrling("inspect", plant, "trouble", "--plot", path)
    assert (seen.code, "timing drawn into" in seen.err) == (0, True)
    assert "joint_position" in seen.out
    with Image.open(path) as image:
        assert image.size[0] == 1100
        assert 700 < image.size[1] < 1400
    orange, blue, red = (217, 115, 26), (47, 111, 159), (184, 67, 60)
    assert {orange, blue, red} <= colours(path)


def test_a_page_holds_the_picture_the_figures_and_the_findings(lehrling: Command, plant: Path, tmp_path: Path) -> None:
    path = tmp_path / "trouble.html"
    assert lehrling("inspect", plant, "trouble", "--plot", path, "--json").data["id"] == "trouble"
    text = path.read_text()
    assert text.count("data:image/png;base64,") == 1
    assert "none came for 1.5 s" in text
    assert "<script" not in text
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--plot", "out.png"), ("an episode", "--plot")),
        (("trouble", "--plot", "out.pdf"), (".png or .html", "out.pdf")),
        (("empty", "--plot", "out.png"), ("'empty'", "nothing to draw")),
        (("trouble", "--plot", "missing/out.png"), ("missing/out.png",)),
    ],
)
def test_a_plot_that_cannot_be_made_is_refused(
    lehrling: Command, plant: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], words: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert lehrling("inspect", plant, *arguments).refused(*words)
    assert list(tmp_path.iterdir()) == []


def test_series_over_time_show_where_trouble_was(plant: Path) -> None:
    found = episode_series(Dataset.open(plant).episode("trouble"))
    by_name = {series.names[0]: series for series in found.series}
    assert set(by_name) == set(TROUBLE)
    assert found.silent == ("joint_velocity", "tcp_command", "gripper_command")
    front, joints, wrist = by_name["front"], by_name["joint_position"], by_name["wrist"]
    assert [round(begin, 1) for begin, _ in front.gaps] == [2.9, 5.9]
    np.testing.assert_allclose(front.lost_s, [3.1], atol=0.05)
    np.testing.assert_allclose(joints.lost_s, [7.02], atol=0.02)
    [(begin, length)] = wrist.frozen
    assert (begin, length) == near(20 / 15 + 0.035, 9 / 15)
    [(begin, length)] = by_name["tcp_pose"].gaps
    assert (begin, length) == near(8.0, 2.0)
    assert 5.9 < front.edges_s[front.rate_hz.argmin()] < 6.9
    assert front.rate_hz.min() < 4
    assert np.median(joints.rate_hz) == pytest.approx(100, rel=0.01)
    assert joints.floor_ms is not None
    assert joints.floor_ms[0] == pytest.approx(2.0 - 37.0, abs=0.1)
    assert (joints.low_ms <= joints.middle_ms).all()
    assert list(found.skew_ms) == ["front / wrist"]
