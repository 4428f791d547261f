"""The whole cell from PLC to simulated robot: two adapters, real DDS, real OPC UA, everything audited."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import Command
from ros_publishers import own_domain

from lehrling.cli.closed_loop import recipe_for, recipes
from lehrling.datasets.errors import InputError
from lehrling.deploy.audit_verify import verify
from lehrling.deploy.cycle import load_trace

CONFIG = """\
dataset: {dataset}
view: train
output: {output}
base: {{path: "builtin:base"}}
lora: {{rank: 8, alpha: 16, rate: 1.5e-3}}
head: {{rate: 1e-3}}
steps: {steps}
batch: 32
state_noise: 0.02
seed: {seed}
threads: 2
"""
WORDS = [sys.executable, "-m", "lehrling.cli.main"]


def command(*words: object) -> None:
    subprocess.run([*WORDS, *map(str, words)], check=True, capture_output=True, timeout=900)


def policies(folder: Path, episodes: int, steps: int) -> list[Path]:
    """Train two policies on demonstrations made for them."""
    dataset = folder / "demonstrations.zarr"
    command("sim", "generate", dataset, "--task", "kitting", "--robot", "arm6", "--episodes", episodes, "--seed", 0)
    command("view", dataset, "--name", "train", "--rate", 10, "--size", 96)
    made = []
    for seed in (1, 2):
        config = folder / f"train{seed}.yaml"
        output = folder / f"run{seed}"
        config.write_text(CONFIG.format(dataset=dataset, output=output, steps=steps, seed=seed))
        command("train", config)
        made.append(output / "policy")
    return made


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_plc_starts_recipes_of_two_adapters_parts_are_handled_and_all_is_audited(tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    own_domain()
    first, second = policies(tmp_path, episodes=40, steps=60)
    out = tmp_path / "loop"
    words = ["closed-loop", first, second, "--out", out, "--cycles", 4, "--json"]
    done = subprocess.run(
        [*WORDS, *map(str, words)], capture_output=True, text=True, timeout=900, env=dict(os.environ), check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert [cycle["cycle"] for cycle in told["cycles"]] == [1, 2, 3, 4]
    assert [cycle["adapter"] for cycle in told["cycles"]] == ["first", "second"] * 2
    assert len({cycle["model_hash"] for cycle in told["cycles"]}) == 2
    assert told["successes"] >= 1
    assert told["cycle_s"]["median"] < 40
    audit = verify(out / "audit.jsonl")
    assert (audit.whole, audit.closed) == (True, True)
    assert audit.kinds["cycle started"] == audit.kinds["cycle ended"] == 4
    assert audit.kinds["start"] == audit.kinds["end"] == 4
    for cycle in told["cycles"]:
        assert len(load_trace(Path(cycle["trace"]))["sent"]) > 100
    assert "Closed loop" in (out / "report.html").read_text(encoding="utf-8")


def test_a_recipe_is_found_for_whatever_the_simulator_asks_for() -> None:
    known = recipes(40.0)
    assert sorted(known) == list(range(1, 19))
    assert {recipe["adapter"] for recipe in known.values()} == {"first", "second"}
    number = recipe_for("kit the purple part : right pocket", known)
    assert known[number]["instruction"] == "put the purple part into the right pocket"
    assert known[number]["adapter"] == "second"
    with pytest.raises(InputError, match="No recipe does"):
        recipe_for("lift the box by 10 cm", known)


def test_a_folder_that_no_run_made_is_left_alone(lehrling: Command, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("mine")
    assert lehrling("closed-loop", tmp_path, tmp_path, "--out", tmp_path).refused("was not made by one")
    assert (tmp_path / "report.json").read_text() == "mine"
