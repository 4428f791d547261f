"""The doctor as a whole: every check is made, the report is JSON, a made-up host is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_up_hosts import install_ros, made_up_host

from lehrling.collection.doctor import diagnose
from lehrling.collection.doctor_report import DoctorReport, Finding
from lehrling.datasets.embodiment import load_embodiment

ALWAYS = [
    "ros",
    "middleware",
    "domain",
    "shared-memory segment",
    "participants",
    "shared memory",
    "socket buffers",
    "fragments",
    "clock",
    "clock resolution",
    "processor",
    "packages",
    "zarr codec",
    "pybullet",
]


def test_this_computer_is_diagnosed_and_every_finding_is_complete(tmp_path: Path) -> None:
    report = diagnose(tmp_path / "plant.zarr", load_embodiment("arm6"))
    names = [finding.name for finding in report.findings]
    assert sorted(names) == sorted([*ALWAYS, "message types", "disk", "free space"])
    for finding in report.findings:
        assert finding.measured, finding.name
        if finding.verdict in ("warn", "fail"):
            assert finding.remedy.endswith("."), finding
    assert list(tmp_path.iterdir()) == []


def test_the_report_is_json_as_it_stands(tmp_path: Path) -> None:
    report = diagnose(host=made_up_host(tmp_path))
    data = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert [finding["name"] for finding in data["findings"]] == ALWAYS
    assert set(data["findings"][0]) == {"name", "verdict", "measured", "remedy", "values"}


def test_fast_dds_is_left_alone_where_another_middleware_runs(tmp_path: Path) -> None:
    install_ros(tmp_path / "env", "rmw_zenoh_cpp")
    host = made_up_host(tmp_path, {"RMW_IMPLEMENTATION": "rmw_zenoh_cpp"}, versions={"ros-rclpy": "9.1.2"})
    assert "shared-memory segment" not in [finding.name for finding in diagnose(host=host).findings]


@pytest.mark.parametrize(
    ("verdicts", "worst"),
    [(["ok"], "ok"), (["ok", "unknown"], "unknown"), (["warn", "unknown"], "warn"), (["ok", "fail", "warn"], "fail")],
)
def test_the_worst_finding_is_the_report_s_verdict(verdicts: list[str], worst: str) -> None:
    report = DoctorReport(tuple(Finding(str(k), v, "x") for k, v in enumerate(verdicts)))  # type: ignore[arg-type]
    assert report.verdict == worst
    assert report.failed == (worst == "fail")


def test_a_finding_that_was_not_made_has_no_name() -> None:
    with pytest.raises(KeyError):
        DoctorReport(()).finding("disk")
