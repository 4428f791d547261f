"""The doctor's checks of ROS: which one, which middleware, which domain."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_hosts import install_ros, made_up_host

from lehrling.collection.doctor_ros import (
    check_domain,
    check_installation,
    check_message_types,
    check_middleware,
    local_only,
)

WHEELS = {"ros-rclpy": "9.1.2"}


def test_a_sourced_ros_together_with_the_wheels_is_refused(tmp_path: Path) -> None:
    apt = install_ros(tmp_path / "opt/ros/kilted", "rmw_fastrtps_cpp")
    finding = check_installation(made_up_host(tmp_path, {"AMENT_PREFIX_PATH": str(apt)}, versions=WHEELS))
    assert finding.verdict == "fail"
    assert str(apt) in finding.measured
    assert "ros-wheels" in finding.remedy


def test_a_sourced_ros_alone_is_fine_and_named(tmp_path: Path) -> None:
    apt = install_ros(tmp_path / "opt/ros/kilted")
    finding = check_installation(made_up_host(tmp_path, {"AMENT_PREFIX_PATH": str(apt), "ROS_DISTRO": "kilted"}))
    assert (finding.verdict, finding.measured) == ("ok", f"kilted from {apt}")


def test_the_wheels_alone_are_fine(tmp_path: Path) -> None:
    finding = check_installation(made_up_host(tmp_path, versions=WHEELS))
    assert finding.verdict == "ok"
    assert "9.1.2 from PyPI" in finding.measured


@pytest.mark.parametrize("entry", ["", "env"])
def test_the_wheels_with_a_workspace_of_our_own_are_no_second_ros(tmp_path: Path, entry: str) -> None:
    workspace = tmp_path / "install"
    (workspace / "share/lehrling_collection").mkdir(parents=True)
    install_ros(tmp_path / "env")
    paths = ":".join([str(workspace), *([str(tmp_path / entry)] if entry else [])])
    assert check_installation(made_up_host(tmp_path, {"AMENT_PREFIX_PATH": paths}, versions=WHEELS)).verdict == "ok"


def test_without_any_ros_there_is_a_warning_that_says_how_to_get_one(tmp_path: Path) -> None:
    finding = check_installation(made_up_host(tmp_path))
    assert finding.verdict == "warn"
    assert "setup.bash" in finding.remedy


@pytest.mark.parametrize(
    ("name", "verdict", "words"),
    [
        ("", "ok", "rmw_fastrtps_cpp (the default) gives publication sequence numbers"),
        ("rmw_fastrtps_cpp", "ok", "chosen by RMW_IMPLEMENTATION"),
        ("rmw_cyclonedds_cpp", "warn", "no publication sequence numbers"),
        ("rmw_zenoh_cpp", "unknown", "from March 2026 on"),
        ("rmw_own", "unknown", "not known to Lehrling"),
    ],
)
def test_what_the_middleware_tells_of_lost_messages(tmp_path: Path, name: str, verdict: str, words: str) -> None:
    install_ros(tmp_path / "env", "rmw_fastrtps_cpp", "rmw_cyclonedds_cpp", "rmw_zenoh_cpp", "rmw_own")
    finding = check_middleware(made_up_host(tmp_path, {"RMW_IMPLEMENTATION": name}))
    assert finding.verdict == verdict
    assert words in finding.measured


def test_a_middleware_that_is_not_installed_fails_and_the_installed_one_is_offered(tmp_path: Path) -> None:
    install_ros(tmp_path / "env", "rmw_fastrtps_cpp")
    finding = check_middleware(made_up_host(tmp_path, {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp"}))
    assert finding.verdict == "fail"
    assert "export RMW_IMPLEMENTATION=rmw_fastrtps_cpp" in finding.remedy


@pytest.mark.parametrize(
    ("environ", "verdict", "told"),
    [
        ({}, "ok", "domain 0, the network"),
        ({"ROS_DOMAIN_ID": "42", "ROS_LOCALHOST_ONLY": "1"}, "ok", "domain 42, this computer only"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}, "ok", "domain 0, this computer only"),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, "warn", "domain 0, this computer only; discovery is off"),
        ({"ROS_DOMAIN_ID": "150"}, "warn", "domain 150, the network"),
        ({"ROS_DOMAIN_ID": "233"}, "fail", "ROS_DOMAIN_ID='233' is no domain"),
        ({"ROS_DOMAIN_ID": "robot"}, "fail", "ROS_DOMAIN_ID='robot' is no domain"),
    ],
)
def test_the_domain_and_how_far_it_reaches(tmp_path: Path, environ: dict[str, str], verdict: str, told: str) -> None:
    finding = check_domain(made_up_host(tmp_path, environ))
    assert (finding.verdict, finding.measured) == (verdict, told)


def test_the_older_variable_wins_over_the_newer_one_as_in_ros(tmp_path: Path) -> None:
    environ = {"ROS_LOCALHOST_ONLY": "1", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}
    assert local_only(made_up_host(tmp_path, environ))


def test_a_message_type_that_ros_does_not_know_fails_by_name(tmp_path: Path) -> None:
    install_ros(tmp_path / "env", types=("sensor_msgs/msg/Image",))
    host = made_up_host(tmp_path, versions=WHEELS)
    assert check_message_types(host, {"sensor_msgs/msg/Image"}).measured == "all 1 are known"
    finding = check_message_types(host, {"sensor_msgs/msg/Image", "control_msgs/msg/JointJog"})
    assert finding.verdict == "fail"
    assert finding.measured == "not known to this ROS: control_msgs/msg/JointJog"
    assert "control_msgs" in finding.remedy


def test_without_ros_message_types_are_unknown(tmp_path: Path) -> None:
    assert check_message_types(made_up_host(tmp_path), {"sensor_msgs/msg/Image"}).verdict == "unknown"
