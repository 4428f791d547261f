"""`lehrling inspect --quality`."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import Command
from flawed import Flaw, add, black


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("plant") / "plant.zarr"
    add(root, "good", Flaw(seconds=2))
    add(root, "dark", Flaw(seconds=2, front=black))
    return root


def test_a_refused_episode_is_named_with_the_reason_and_the_exit_code_is_1(lehrling: Command, plant: Path) -> None:
    seen = lehrling("inspect", plant, "--quality")
    assert seen.code == 1
    told = " ".join(seen.out.replace("│", " ").split())
    assert "2 episodes: 1 refused, 0 with warnings, 1 without" in told
    assert "dark" in told
    assert "black in 100%" in told


def test_one_good_episode_passes(lehrling: Command, plant: Path) -> None:
    seen = lehrling("inspect", plant, "good", "--quality")
    assert (seen.code, seen.out.strip()) == (0, "1 episodes: 0 refused, 0 with warnings, 1 without")


def test_json_holds_every_figure(lehrling: Command, plant: Path) -> None:
    seen = lehrling("inspect", plant, "--quality", "--json")
    assert seen.data["episodes"]["dark"]["cameras"]["front"]["black_share"] == 1.0
    assert seen.data["episodes"]["good"]["findings"] == []


def test_a_page_shows_plots_and_findings(lehrling: Command, plant: Path, tmp_path: Path) -> None:
    seen = lehrling("inspect", plant, "--quality", "--plot", tmp_path / "q.html")
    page = (tmp_path / "q.html").read_text()
    assert seen.code == 1
    assert page.count("data:image/png;base64,") == 2
    assert "front is black in 100% of its pictures" in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--plot", "q.png"), "Expected a page&#x27;s name to end in .html"),
        (("--limits", "none.yaml"), "Expected quality limits (YAML) at none.yaml"),
    ],
)
def test_what_cannot_be_is_refused_before_judging(
    lehrling: Command, plant: Path, words: tuple[str, str], told: str
) -> None:
    assert lehrling("inspect", plant, "--quality", *words).refused(told.replace("&#x27;", "'"))


def test_latencies_are_shown_with_what_a_view_should_allow(lehrling: Command, plant: Path) -> None:
    assert "latency_ms for views" in " ".join(lehrling("inspect", plant, "--latency").out.split())
    assert lehrling("inspect", plant, "--latency", "--json").data["streams"]["front"]["declared_ms"] == 30
