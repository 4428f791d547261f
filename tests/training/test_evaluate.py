"""Evaluation: the same seeds give the same table, whoever computes it; intervals are Wilson's."""

from __future__ import annotations

import dataclasses
import xml.dom.minidom
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lehrling.datasets.errors import ContractError, InputError
from lehrling.training.config import TrainConfig
from lehrling.training.evaluate import EvaluationPlan, evaluate, film, write_report
from lehrling.training.junit import junit_xml
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


def test_the_table_is_the_same_for_any_number_of_workers_and_again(plan: EvaluationPlan) -> None:
    one = evaluate(plan).to_json()
    two = evaluate(dataclasses.replace(plan, workers=2)).to_json()
    assert one == two
    assert one["expert"] == {"n": 2, "successes": 2, "rate": 1.0, "interval": [0.3424, 1.0]}
    assert one["tuned"]["n"] == one["untrained"]["n"] == 2  # type: ignore[index]
    assert len(one["rollouts"]) == 6  # type: ignore[arg-type]


def test_films_and_reports_are_written_failures_first(plan: EvaluationPlan, tmp_path: Path) -> None:
    report = evaluate(plan)
    assert write_report(report, tmp_path).is_file()
    films = film(report, tmp_path / "films", count=2)
    assert [path.name for path in films] == ["failure-500000.gif", "failure-500001.gif"]
    assert films[0].read_bytes()[:6] == b"GIF89a"
    suite = xml.dom.minidom.parseString(junit_xml(report)).getElementsByTagName("testsuite")[0]
    assert (suite.getAttribute("tests"), suite.getAttribute("failures")) == ("2", "2")


def test_a_policy_of_another_robot_is_refused(plan: EvaluationPlan) -> None:
    with pytest.raises(ContractError, match=r"expects the state joint_position\.joint1"):
        evaluate(dataclasses.replace(plan, robot="iiwa"))


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
