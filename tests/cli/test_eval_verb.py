"""eval: what it says, what it returns, what it refuses."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import xml.dom.minidom
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_runs import Command

from lehrling.training.evaluate import EvaluationPlan, EvaluationReport
from lehrling.training.rollout import Rollout


@pytest.fixture
def policy(made: Path, tmp_path: Path) -> Path:
    """Copy the policy, to be changed at will, without the one before training beside it."""
    return Path(shutil.copytree(made / "run" / "policy", tmp_path / "policy"))


def test_evaluation_reports_rates_and_junit_and_fails_below_the_rate(
    lehrling: Command, policy: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.xml"
    command = ("eval", policy, "--task", "kitting", "--episodes", 2, "--execute", 8, "--min-success", 1)
    seen = lehrling(*command, "--junit", report, "--json")
    assert seen.code == 1
    assert "lehrling: expected a success rate of at least 1.00, got 0.00." in seen.err
    assert (seen.data["seeds"], seen.data["expert"]["n"], seen.data["tuned"]["n"]) == ([500_000, 500_001], 2, 2)
    assert "untrained" not in seen.data
    suite = xml.dom.minidom.parse(str(report)).getElementsByTagName("testsuite")[0]
    assert (suite.getAttribute("tests"), suite.getAttribute("failures")) == ("2", "2")
    cases = [case.getAttribute("name") for case in suite.getElementsByTagName("testcase")]
    assert [name.partition(":")[0] for name in cases] == ["seed 500000", "seed 500001"]


@pytest.fixture
def three_of_four(monkeypatch: pytest.MonkeyPatch) -> list[EvaluationPlan]:
    """Let every evaluation end with three successes of four; return the plans that were asked for."""
    asked: list[EvaluationPlan] = []

    def evaluated(plan: EvaluationPlan, **_options: object) -> EvaluationReport:
        asked.append(plan)
        rows = [Rollout(s, a, "put it there", s != 7, 30, 1.0, 0.01) for s in plan.seeds for a in plan.actors]
        return EvaluationReport(plan, tuple(rows))

    monkeypatch.setattr("lehrling.training.evaluate.evaluate", evaluated)
    return asked


@pytest.mark.parametrize(("wanted", "code"), [("0", 0), ("0.5", 0), ("0.75", 0), ("0.76", 1), ("1", 1)])
def test_the_exit_code_says_whether_the_rate_was_reached(
    lehrling: Command, made: Path, three_of_four: list[EvaluationPlan], wanted: str, code: int
) -> None:
    command = ("eval", made / "run" / "policy", "--task", "kitting", "--episodes", 4, "--seed", 5)
    seen = lehrling(*command, "--min-success", wanted, "--json")
    assert seen.code == code
    assert ("lehrling: expected a success rate" in seen.err) == bool(code)
    assert seen.data["tuned"] == {"n": 4, "successes": 3, "rate": 0.75, "interval": [0.3006, 0.9544]}
    assert len(three_of_four) == 1


def test_junit_holds_one_test_case_per_seed_and_one_failure(
    lehrling: Command, made: Path, tmp_path: Path, three_of_four: list[EvaluationPlan]
) -> None:
    path = tmp_path / "new" / "report.xml"
    command = ("eval", made / "run" / "policy", "--task", "kitting", "--episodes", 4, "--seed", 5)
    seen = lehrling(*command, "--junit", path)
    assert seen.code == 0
    assert "3 of 4" in seen.out
    document = xml.dom.minidom.parse(str(path))
    suite = document.getElementsByTagName("testsuite")[0]
    assert (suite.getAttribute("tests"), suite.getAttribute("failures")) == ("4", "1")
    failed = [case for case in suite.getElementsByTagName("testcase") if case.getElementsByTagName("failure")]
    assert [case.getAttribute("name") for case in failed] == ["seed 7: put it there"]
    assert three_of_four[0].baseline == made / "run" / "initial"


def test_out_holds_the_report_and_the_films(
    lehrling: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three_of_four: list[EvaluationPlan]
) -> None:
    filmed: list[tuple[EvaluationPlan, Path]] = []
    monkeypatch.setattr("lehrling.training.evaluate.film", lambda report, folder: filmed.append((report.plan, folder)))
    command = ("eval", made / "run" / "policy", "--task", "kitting", "--episodes", 4, "--seed", 5)
    facts = lehrling(*command, "--out", tmp_path / "out", "--json").data
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8")) == facts
    assert filmed == [(three_of_four[0], tmp_path / "out" / "films")]


@pytest.mark.parametrize("option", ["--out", "--junit"])
def test_a_report_that_cannot_be_written_is_refused_before_the_rollouts(
    lehrling: Command, made: Path, tmp_path: Path, three_of_four: list[EvaluationPlan], option: str
) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    path = tmp_path / "file" / "below"
    seen = lehrling("eval", made / "run" / "policy", "--task", "kitting", option, path, "--json")
    assert seen.refused(str(path), "Writing")
    assert three_of_four == []


def test_the_result_is_printed_even_if_the_reports_fail(
    lehrling: Command, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three_of_four: list[EvaluationPlan]
) -> None:
    def full(_report: EvaluationReport, folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "evaluation.json"))

    monkeypatch.setattr("lehrling.training.evaluate.write_report", full)
    command = ("eval", made / "run" / "policy", "--task", "kitting", "--episodes", 4, "--seed", 5)
    seen = lehrling(*command, "--out", tmp_path / "out", "--json")
    assert (seen.code, seen.data["tuned"]["successes"], len(three_of_four)) == (2, 3, 1)
    assert "evaluation.json: No space left" in seen.told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--task juggling", ("'juggling'", "choose one of", "kitting")),
        ("--task kitting --robot r2d2", ("'r2d2'", "choose one of", "arm6")),
        ("--task kitting --robot iiwa", ("'iiwa'", "joint_position.joint7", "the robot that it was trained for")),
        ("--task kitting --seed 1", ("never used", "such as 1", "--seed")),
        ("--task kitting --seed 0 --episodes 99", ("never used", "3 were", "--seed")),
        ("--task kitting --execute 9", ("chunk length 8", "got 9")),
        ("--task kitting --baseline absent", ("policy.json", "absent")),
    ],
)
def test_an_impossible_evaluation_is_refused(
    lehrling: Command, made: Path, options: str, words: tuple[str, ...]
) -> None:
    assert lehrling("eval", made / "run" / "policy", *options.split(), "--json").refused(*words)


def test_seeds_of_another_task_are_no_demonstrations(
    lehrling: Command, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lehrling.training.evaluate.ProcessPoolExecutor", stop)
    command = ("eval", made / "run" / "policy", "--task", "sorting", "--seed", 0, "--workers", 2, "--json")
    assert lehrling(*command).refused("interrupted", code=130)


def test_a_directory_that_is_no_policy_is_refused(lehrling: Command, made: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", made / "run", made / "train.yaml"):
        assert lehrling("eval", path, "--task", "kitting").refused("policy.json", str(path))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ("no policy description",)),
        ("[]", ("no policy description",)),
        ('{"schema": 1}', ("no policy description", "contract")),
        ('{"schema": 9}', ("schema 1", "got 9", "use the version that wrote it")),
    ],
)
def test_a_policy_whose_description_is_none_is_refused(
    lehrling: Command, policy: Path, content: str, words: tuple[str, ...]
) -> None:
    (policy / "policy.json").write_text(content, encoding="utf-8")
    assert lehrling("eval", policy, "--task", "kitting").refused(str(policy / "policy.json"), *words)


def test_an_adapter_on_another_base_is_refused(lehrling: Command, policy: Path) -> None:
    text = (policy / "policy.json").read_text(encoding="utf-8")
    wrong = re.sub(r'"weights_sha256": "[0-9a-f]{64}"', f'"weights_sha256": "{"0" * 64}"', text)
    (policy / "policy.json").write_text(wrong, encoding="utf-8")
    assert lehrling("eval", policy, "--task", "kitting").refused("builtin:base", "000000000000", "belongs to")


def overwrite(path: Path) -> None:
    path.write_bytes(b"{")


def forbidden(*_arguments: object, **_options: object) -> None:
    raise AssertionError("a local policy must not reach for the hub")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("adapter_config.json", Path.unlink),
        ("adapter_config.json", overwrite),
        ("adapter_model.safetensors", Path.unlink),
        ("adapter_model.safetensors", overwrite),
        ("policy_head.safetensors", overwrite),
    ],
)
def test_a_policy_with_a_missing_or_broken_file_is_refused_and_nothing_is_fetched(
    lehrling: Command, policy: Path, monkeypatch: pytest.MonkeyPatch, name: str, damage: Callable[[Path], None]
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", forbidden)
    monkeypatch.setattr("peft.utils.save_and_load.hf_hub_download", forbidden)
    damage(policy / name)
    assert lehrling("eval", policy, "--task", "kitting").refused(name, str(policy))


def test_a_policy_without_its_head_is_refused(lehrling: Command, policy: Path) -> None:
    (policy / "policy_head.safetensors").unlink()
    assert lehrling("eval", policy, "--task", "kitting").refused(str(policy / "policy_head.safetensors"))


@pytest.mark.parametrize("form", ["merged", pytest.param("onnx", marks=pytest.mark.slow)])
def test_an_export_is_evaluated_by_its_folder(lehrling: Command, policy: Path, tmp_path: Path, form: str) -> None:
    assert lehrling("export", "policy", policy, tmp_path / "out", "--as", form).code == 0
    command = ("--task", "kitting", "--episodes", 1, "--execute", 8, "--json")
    seen = lehrling("eval", tmp_path / "out", *command)
    assert seen.code == 0, seen.err
    assert seen.data["tuned"] == lehrling("eval", policy, *command).data["tuned"]
    demonstrated = lehrling("eval", tmp_path / "out", "--task", "kitting", "--episodes", 1, "--seed", 0)
    assert demonstrated.refused("never used for demonstrations")


def test_a_broken_export_is_refused(lehrling: Command, policy: Path) -> None:
    (policy / "export.json").write_text("[]", encoding="utf-8")
    assert lehrling("eval", policy, "--task", "kitting").refused("export.json", "what kind of export")
    (policy / "export.json").write_text('{"kind": "onnx"}', encoding="utf-8")
    assert lehrling("eval", policy, "--task", "kitting").refused("ONNX export", "cannot be loaded")
