"""demo: the report that it promises, and what it never deletes."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cli_runs import Command

FIGURES = 5
"""Success rates, a film, a demonstration's images and joints, the loss."""
PARTS = ["demonstrations", "view", "training", "evaluation", "films"]


def check_facts(facts: dict[str, Any]) -> None:
    """Check the schema of report.json of a demo with 4 demonstrations, 2 steps and 1 seed."""
    assert (facts["episodes"], facts["base"]["source"]) == (4, "builtin:base")
    assert len(facts["base"]["weights_sha256"]) == 64
    assert min(facts["frames"], facts["dataset_bytes"]) > 0
    training = facts["training"]
    assert training["steps"] == 2
    assert min(training[key] for key in ("seconds", "first_loss", "last_loss")) > 0
    assert 0 < training["trainable_parameters"] < training["total_parameters"] / 5
    assert list(facts["seconds"]) == PARTS


def check_evaluation(evaluation: dict[str, Any], rollouts: list[dict[str, Any]]) -> None:
    """Check the rates of each actor against their rollouts."""
    assert (evaluation["task"], evaluation["seeds"]) == ("kitting", [500_000])
    for actor in ("tuned", "untrained", "expert"):
        rate = evaluation[actor]
        own = [row for row in rollouts if row["actor"] == actor]
        assert (rate["n"], rate["successes"]) == (1, sum(row["success"] for row in own))
        low, high = rate["interval"]
        assert 0 <= low <= rate["rate"] <= high <= 1
        assert [row["seed"] for row in own] == evaluation["seeds"]
    assert evaluation["expert"]["successes"] == 1


def check_page(page: str) -> None:
    """Check that the page needs nothing from elsewhere and that its pictures are pictures."""
    places = re.findall(r'(?:src|href|srcset|action|data)\s*=\s*["\']?([^"\'\s>]*)', page)
    kinds = [re.fullmatch(r"data:(image/(?:png|gif));base64,([A-Za-z0-9+/]+=*)", place) for place in places]
    assert len(kinds) == FIGURES
    assert all(kinds)
    heads = {match[1]: base64.b64decode(match[2])[:4] for match in kinds if match}
    assert heads == {"image/png": b"\x89PNG", "image/gif": b"GIF8"}
    assert not re.search(r"https?://|//[a-z]|url\(|@import|<script|<link|<iframe", re.sub(r'"data:[^"]*"', "", page))


def test_a_small_demo_leaves_the_promised_report(lehrling: Command, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    seen = lehrling("demo", "--out", out, "--episodes", 4, "--steps", 2, "--seeds", 1, "--workers", 1, "--json")
    assert seen.code == 0
    facts = seen.data
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == facts
    check_facts(facts)
    check_evaluation(facts["evaluation"], facts["rollouts"])
    check_page((out / "report.html").read_text(encoding="utf-8"))
    summary = lehrling("inspect", out / "demo.zarr", "--json").data
    assert (summary["episodes"], summary["frames"], summary["bytes"]) == (4, facts["frames"], facts["dataset_bytes"])
    assert lehrling("verify", out / "demo.zarr").code == 0


@pytest.mark.parametrize("name", ["train", "evaluation", "demo.zarr", "report.json", "report.html"])
def test_a_demo_never_deletes_what_no_demo_made(lehrling: Command, tmp_path: Path, name: str) -> None:
    own = tmp_path / name / "thesis.txt" if "report" not in name else tmp_path / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("four years", encoding="utf-8")
    assert lehrling("demo", "--out", tmp_path).refused(str(tmp_path / name), "not made by a demo", "another --out")
    assert own.read_text(encoding="utf-8") == "four years"


def test_a_demo_replaces_an_earlier_one_and_nothing_else(
    lehrling: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_plan: object) -> None:
        (tmp_path / "train").mkdir()
        (tmp_path / "report.json").write_text("{", encoding="utf-8")
        raise KeyboardInterrupt

    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    monkeypatch.setattr("lehrling.cli.demo._demonstrate", interrupted)
    for _ in range(2):
        assert lehrling("demo", "--out", tmp_path).refused("interrupted", code=130)
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_an_output_that_is_a_file_is_refused(lehrling: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert lehrling("demo", "--out", tmp_path / "file").refused("--out", "is a file")
    assert lehrling("demo", "--out", tmp_path / "file" / "demo").refused(str(tmp_path / "file"), "check the path")
