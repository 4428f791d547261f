"""`lehrling train-baseline`: what it says, what it returns, what it refuses, and that `eval` takes what it makes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from cli_runs import Command

if importlib.util.find_spec("lerobot") is None:
    pytest.skip("needs lerobot", allow_module_level=True)

TINY = ("dim_model=32", "n_heads=2", "dim_feedforward=64", "chunk_size=8", "n_action_steps=8", "n_encoder_layers=1")


@pytest.mark.slow
def test_a_baseline_is_trained_and_evaluated_on_the_same_seeds_as_ours(lehrling: Command, tmp_path: Path) -> None:
    cell, run = tmp_path / "cell.zarr", tmp_path / "run"
    assert lehrling("sim", "generate", cell, "--task", "kitting", "--episodes", 2).code == 0
    assert lehrling("view", cell).code == 0
    settings = [word for pair in (*TINY, "pretrained_backbone_weights=null") for word in ("--set", pair)]
    command = ("train-baseline", cell, "--out", run, "--steps", 2, "--batch", 2, "--device", "cpu", *settings)
    assert lehrling("train-baseline", cell, "--out", run, "--set", "dim=3").refused("`dim`", "ACTConfig")
    assert lehrling(*command, "--view", "none").refused("There is no view")
    facts = lehrling(*command, "--json").data
    assert (facts["steps"], facts["episodes"], facts["left_out"]) == (2, 2, {})
    assert facts["policy"] == str(run / "checkpoints/000002/pretrained_model")
    assert lehrling(*command).refused(str(run), "holds something already")
    seen = lehrling("eval", run, "--task", "kitting", "--episodes", 1, "--execute", 8, "--json")
    assert seen.code == 0
    assert (seen.data["seeds"], seen.data["tuned"]["n"], seen.data["expert"]["successes"]) == ([500_000], 1, 1)
    assert "untrained" not in seen.data
    again = lehrling("eval", run, "--task", "kitting", "--episodes", 1, "--seed", 0)
    assert again.refused("never used for demonstrations")
