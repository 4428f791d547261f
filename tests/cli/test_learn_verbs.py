"""train, eval, models, demo: what they say, what they return, what they refuse."""

from __future__ import annotations

import re
import shutil
import xml.dom.minidom
from pathlib import Path

import pytest
import yaml
from cli_runs import Command

HUB = "Qwen/Qwen3-VL-2B-Instruct"


def changed(made: Path, tmp_path: Path, **changes: object) -> Path:
    content = yaml.safe_load((made / "train.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(content | {"output": str(tmp_path / "run")} | changes), encoding="utf-8")
    return path


def test_a_dry_run_prints_every_default_and_does_nothing(lehrling: Command, made: Path, tmp_path: Path) -> None:
    seen = lehrling("train", changed(made, tmp_path), "--dry-run", "--set", "lora.rank=2", "--set", "steps=7")
    assert (seen.data["lora"]["rank"], seen.data["steps"], seen.data["chunk"]) == (2, 7, 8)
    assert not (tmp_path / "run").exists()


def test_training_reports_what_it_did_and_resumes(lehrling: Command, made: Path, tmp_path: Path) -> None:
    config = changed(made, tmp_path, steps=2)
    facts = lehrling("train", config, "--json").data
    assert (facts["steps"], Path(facts["policy"])) == (2, tmp_path / "run" / "policy")
    assert lehrling("train", config).refused("--resume")
    more = lehrling("train", config, "--resume", "--set", "steps=3", "--json").data
    assert more["steps"] == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": 1}, ("colour", "not a key")),
        ({"steps": "many"}, ("steps", "many")),
        ({"view": "absent"}, ("absent", "lehrling view")),
        ({"dataset": "absent.zarr"}, ("absent.zarr",)),
        ({"base": {"path": HUB}}, (HUB, "40 hex digits")),
        ({"base": {"path": HUB, "revision": "main"}}, ("main", "40 hex digits")),
        ({"base": {"path": "https://example.com/model"}}, ("https://example.com/model",)),
        ({"base": {"path": "builtin:other"}}, ("other",)),
    ],
)
def test_an_unusable_configuration_is_refused(
    lehrling: Command, made: Path, tmp_path: Path, changes: dict[str, object], words: tuple[str, ...]
) -> None:
    assert lehrling("train", changed(made, tmp_path, **changes)).refused(*words)


def test_bad_overrides_and_files_are_refused(lehrling: Command, made: Path, tmp_path: Path) -> None:
    config = changed(made, tmp_path)
    assert lehrling("train", config, "--set", "steps").refused("KEY=VALUE")
    assert lehrling("train", config, "--set", "steps.more=1").refused("steps")
    assert lehrling("train", tmp_path / "absent.yaml").refused("absent.yaml")
    config.write_text("steps: [", encoding="utf-8")
    assert lehrling("train", config).refused("not YAML")


def test_a_view_that_no_longer_fits_its_episodes_is_refused(
    lehrling: Command, made: Path, cell: Path, tmp_path: Path
) -> None:
    assert lehrling("sim", "generate", cell, "--task", "kitting", "--episodes", 1, "--seed", 50).code == 0
    assert lehrling("train", changed(made, tmp_path, dataset=str(cell))).refused("view", "train")


def test_evaluation_writes_junit_films_and_a_table_and_fails_below_the_rate(
    lehrling: Command, made: Path, tmp_path: Path
) -> None:
    command = ("eval", made / "run" / "policy", "--task", "kitting", "--episodes", 2)
    report, out = tmp_path / "report.xml", tmp_path / "out"
    seen = lehrling(*command, "--min-success", 1, "--junit", report, "--out", out, "--json")
    assert seen.code == 1
    assert "at least 1.00, got 0.00" in seen.err
    assert {seen.data[actor]["n"] for actor in ("tuned", "untrained", "expert")} == {2}
    suite = xml.dom.minidom.parse(str(report)).getElementsByTagName("testsuite")[0]
    assert (suite.getAttribute("tests"), suite.getAttribute("failures")) == ("2", "2")
    assert len(suite.getElementsByTagName("testcase")) == 2
    assert len(list((out / "films").glob("failure-*.gif"))) == 2
    assert lehrling(*command, "--min-success", 0).code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--task", "juggling"), ("juggling", "kitting")),
        (("--task", "kitting", "--robot", "r2d2"), ("r2d2", "arm6")),
        (("--task", "kitting", "--robot", "iiwa"), ("iiwa", "joint_position.joint1")),
        (("--task", "kitting", "--seed", "1"), ("never used", "--seed")),
        (("--task", "kitting", "--execute", "9"), ("8", "9")),
        (("--task", "kitting", "--min-success", "2"), ("--min-success",)),
    ],
)
def test_an_impossible_evaluation_is_refused(
    lehrling: Command, made: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert lehrling("eval", made / "run" / "policy", "--episodes", 1, *options).refused(*words)


def test_a_directory_that_is_no_policy_is_refused(lehrling: Command, tmp_path: Path) -> None:
    assert lehrling("eval", tmp_path, "--task", "kitting").refused("policy.json")


def test_an_adapter_on_another_base_is_refused(lehrling: Command, made: Path, tmp_path: Path) -> None:
    policy = Path(shutil.copytree(made / "run" / "policy", tmp_path / "policy"))
    text = (policy / "policy.json").read_text(encoding="utf-8")
    wrong = re.sub(r'"weights_sha256": "[0-9a-f]{64}"', f'"weights_sha256": "{"0" * 64}"', text)
    (policy / "policy.json").write_text(wrong, encoding="utf-8")
    assert lehrling("eval", policy, "--task", "kitting").refused("builtin:base", "000000000000")


def test_models_are_listed_and_checked(lehrling: Command, tmp_path: Path) -> None:
    assert {"qwen3_vl", "internvl"} <= set(lehrling("models", "list", "--json").data)
    facts = lehrling("models", "check", "builtin:base", "--json").data
    assert (facts["model_type"], len(facts["weights_sha256"])) == ("qwen3_vl", 64)
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl", "auto_map": {}}', encoding="utf-8")
    assert lehrling("models", "check", tmp_path).refused("auto_map")
    (tmp_path / "config.json").write_text('{"model_type": "mystery"}', encoding="utf-8")
    assert lehrling("models", "check", tmp_path).refused("mystery")


def test_a_small_demo_leaves_the_promised_report(lehrling: Command, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    seen = lehrling("demo", "--out", out, "--episodes", 4, "--steps", 3, "--seeds", 2, "--json")
    facts = seen.data
    assert seen.code == 0
    assert (facts["episodes"], facts["evaluation"]["task"], len(facts["evaluation"]["seeds"])) == (4, "kitting", 2)
    assert min(facts["frames"], facts["dataset_bytes"]) > 0
    assert {"steps", "seconds", "first_loss", "last_loss", "trainable_parameters", "total_parameters"} <= set(
        facts["training"]
    )
    for actor in ("tuned", "untrained", "expert"):
        assert {"n", "successes", "interval"} <= set(facts["evaluation"][actor])
    assert facts["base"]["source"] == "builtin:base"
    page = (out / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) >= 6
    assert all(source.startswith("data:image/") for source in sources)
    assert lehrling("verify", out / "demo.zarr").code == 0
