"""Evaluation: the same seeds give the same table, whoever computes it; intervals are Wilson's."""

from __future__ import annotations

import dataclasses
import json
import shutil
import xml.dom.minidom
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lehrling.datasets.errors import ContractError, InputError, LehrlingError
from lehrling.training.config import TrainConfig
from lehrling.training.evaluate import EvaluationPlan, EvaluationReport, evaluate, film, write_report
from lehrling.training.export_merged import export_merged
from lehrling.training.export_onnx import export_onnx
from lehrling.training.junit import junit_xml
from lehrling.training.policies import open_policy
from lehrling.training.statistics import SuccessRate
from lehrling.training.trainer import train


@pytest.fixture(scope="module")
def plan(demonstrations: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationPlan:
    config = TrainConfig.model_validate(
        {
            "dataset": demonstrations,
            "output": tmp_path_factory.mktemp("run"),
            "base": {"path": str(checkpoint)},
            "steps": 2,
            "batch": 8,
            "threads": 1,
        }
    )
    result = train(config)
    return EvaluationPlan(result.policy, result.initial, "kitting", "arm6", (500_000, 500_001), workers=1)


@pytest.fixture(scope="module")
def report(plan: EvaluationPlan) -> EvaluationReport:
    """Evaluate in this process."""
    return evaluate(plan)


def test_the_table_is_the_same_for_any_number_of_workers_and_again(
    plan: EvaluationPlan, report: EvaluationReport
) -> None:
    threads = torch.get_num_threads()
    one = report.to_json()
    two = evaluate(dataclasses.replace(plan, workers=2)).to_json()
    assert one == two == evaluate(plan).to_json()
    assert torch.get_num_threads() == threads
    assert one["expert"] == {"n": 2, "successes": 2, "rate": 1.0, "interval": [0.3424, 1.0]}
    assert one["tuned"]["n"] == one["untrained"]["n"] == 2  # type: ignore[index]
    assert len(one["rollouts"]) == 6  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_onnx_export_and_a_merged_one_act_as_the_policy_does(
    plan: EvaluationPlan, report: EvaluationReport, tmp_path: Path
) -> None:
    export_onnx(plan.policy, tmp_path / "onnx")
    export_merged(plan.policy, tmp_path / "written")
    (tmp_path / "written").rename(tmp_path / "merged")
    wanted = [row for row in report.rollouts if row.actor == "tuned"]
    for form in ("onnx", "merged"):
        found = evaluate(dataclasses.replace(plan, policy=tmp_path / form, baseline=None))
        rows = [row for row in found.rollouts if row.actor == "tuned"]
        assert [(r.seed, r.success, r.steps, r.credit) for r in rows] == [
            (r.seed, r.success, r.steps, r.credit) for r in wanted
        ]
        for row, like in zip(rows, wanted, strict=True):
            assert row.final_distance_m == pytest.approx(like.final_distance_m, abs=2e-3)


def test_films_and_reports_are_written_failures_first(report: EvaluationReport, tmp_path: Path) -> None:
    assert write_report(report, tmp_path).is_file()
    films = film(report, tmp_path / "films", count=2)
    assert [path.name for path in films] == ["failure-500000.gif", "failure-500001.gif"]
    assert films[0].read_bytes()[:6] == b"GIF89a"
    suite = xml.dom.minidom.parseString(junit_xml(report)).getElementsByTagName("testsuite")[0]
    assert (suite.getAttribute("tests"), suite.getAttribute("failures")) == ("2", "2")


def test_films_of_an_earlier_evaluation_are_removed_and_nothing_else_is(
    report: EvaluationReport, tmp_path: Path
) -> None:
    for name in ("success-7.gif", "failure-500001.gif", "holiday-7.gif", "success-7.gif.txt", "success-.gif"):
        (tmp_path / name).write_bytes(b"old")
    films = film(report, tmp_path, count=1)
    names = {"failure-500000.gif", "holiday-7.gif", "success-7.gif.txt", "success-.gif"}
    assert ({path.name for path in tmp_path.iterdir()}, [path.name for path in films]) == (
        names,
        ["failure-500000.gif"],
    )


def test_progress_counts_every_rollout_once(plan: EvaluationPlan) -> None:
    told: list[tuple[int, int]] = []
    evaluate(dataclasses.replace(plan, baseline=None), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_worker_that_is_killed_is_told_with_a_remedy(plan: EvaluationPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_arguments: object) -> None:
        raise BrokenProcessPool("A process in the process pool was terminated abruptly")

    monkeypatch.setattr("lehrling.training.evaluate.as_completed", killed)
    with pytest.raises(LehrlingError, match=r"One of 2 workers ended without a word, .* use fewer --workers"):
        evaluate(dataclasses.replace(plan, workers=2, seeds=(500_000,), baseline=None))


def test_a_policy_of_another_robot_is_refused(plan: EvaluationPlan) -> None:
    with pytest.raises(ContractError, match=r"expects the state joint_position\.joint1"):
        evaluate(dataclasses.replace(plan, robot="iiwa"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cameras": ["front", "rear"]}, "cameras front, wrist, but the policy looks through front, rear"),
        ({"rate_hz": 20.0}, "takes 10 actions a second, but the policy gives 20; build the view with --rate 10"),
    ],
)
def test_a_policy_of_other_cameras_or_another_rate_is_refused(
    plan: EvaluationPlan, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    policy = shutil.copytree(plan.policy, tmp_path / "policy")
    description = json.loads((policy / "policy.json").read_text(encoding="utf-8"))
    (policy / "policy.json").write_text(json.dumps(description | change), encoding="utf-8")
    with pytest.raises(ContractError, match=told):
        evaluate(dataclasses.replace(plan, policy=policy))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rate_hz": 20.0}, "but the baseline gives 20"),
        ({"state_names": ["a"]}, "The baseline expects the state a, but"),
        ({"image_px": 64}, "a baseline that sees images of 96 px, as the policy does, got 64"),
    ],
)
def test_a_baseline_that_does_not_fit_is_refused_before_the_rollouts(
    plan: EvaluationPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], told: str
) -> None:
    tuned = open_policy(plan.policy)
    other = SimpleNamespace(spec=dataclasses.replace(tuned.spec, **change))  # type: ignore[arg-type]
    opened = {plan.policy: tuned, tmp_path: other}
    monkeypatch.setattr("lehrling.training.policies.open_policy", opened.__getitem__)
    monkeypatch.setattr("lehrling.training.policies.demonstrations_of", lambda _folder: [])
    with pytest.raises(ContractError, match=told):
        evaluate(dataclasses.replace(plan, baseline=tmp_path))


def test_seeds_of_the_baselines_demonstrations_are_refused(plan: EvaluationPlan, tmp_path: Path) -> None:
    policy = shutil.copytree(plan.policy, tmp_path / "policy")
    description = json.loads((policy / "policy.json").read_text(encoding="utf-8"))
    description["provenance"]["episodes"] = []
    (policy / "policy.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(InputError, match="2 were, such as 2 for the baseline"):
        evaluate(dataclasses.replace(plan, policy=policy, baseline=plan.policy, seeds=(2, 3, 4)))


def test_unusable_plans_are_refused(plan: EvaluationPlan) -> None:
    for change, reason in (
        ({"seeds": ()}, "at least one seed"),
        ({"execute": 9}, "chunk length 8"),
        ({"task": "juggling"}, "no task 'juggling'"),
        ({"robot": "r2d2"}, "no robot 'r2d2'"),
    ):
        with pytest.raises(InputError, match=reason):
            evaluate(dataclasses.replace(plan, **change))


def test_seeds_of_the_policys_demonstrations_are_refused(plan: EvaluationPlan) -> None:
    with pytest.raises(InputError, match="2 were, such as 2"):
        evaluate(dataclasses.replace(plan, seeds=(2, 3, 4)))


@pytest.mark.parametrize(
    ("n", "k", "low", "high"),
    [(10, 5, 0.2366, 0.7634), (40, 0, 0.0, 0.0876), (40, 32, 0.6524, 0.8950), (50, 50, 0.9287, 1)],
)
def test_wilson_intervals_equal_published_values(n: int, k: int, low: float, high: float) -> None:
    assert SuccessRate(n, k).interval == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_an_interval_holds_its_rate_and_mirrors(case: tuple[int, int]) -> None:
    n, k = case
    low, high = SuccessRate(n, k).interval
    assert 0 <= low <= k / n <= high <= 1
    assert SuccessRate(n, n - k).interval == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_impossible_counts_are_refused() -> None:
    for n, k in ((0, 0), (3, 4), (3, -1)):
        with pytest.raises(InputError, match="successes"):
            SuccessRate(n, k)
