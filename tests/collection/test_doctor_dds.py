"""The doctor's checks of Fast DDS's shared memory, with the figures that Fast DDS 3.2 was seen to use."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up_hosts import made_up_host

from lehrling.collection.doctor_dds import check_participants, check_segment, check_shm, running
from lehrling.collection.doctor_dds_profile import configured_segment
from lehrling.collection.doctor_load import Load, Message, load_of
from lehrling.datasets.embodiment import load_embodiment

RAW_480P = Load((Message("/camera/image_raw", 921_800, 123_000, 30.0, reliable=False),))
RELIABLE = Load((Message("/camera/image_raw", 921_800, 123_000, 30.0, reliable=True),))
SMALL = Load((Message("/joint_states", 600, 600, 500.0, reliable=False),))
PROFILE = """<?xml version="1.0"?>
<dds xmlns="http://www.eprosima.com"><profiles>
  <transport_descriptors><transport_descriptor>
    <transport_id>mine</transport_id><type>SHM</type>{size}
  </transport_descriptor></transport_descriptors>
  <participant profile_name="p" is_default_profile="{default}"><rtps>{rtps}</rtps></participant>
</profiles></dds>"""
OWN = "<userTransports><transport_id>mine</transport_id></userTransports>"


@pytest.mark.parametrize(
    ("setting", "segment"),
    [
        ("", 524_288),
        ("DEFAULT", 524_288),
        ("DEFAULT?sockets_size=16MB", 32_000_000),
        ("LARGE_DATA?max_msg_size=1MB&sockets_size=2MB&non_blocking=true", 4_000_000),
        ("SHM?max_msg_size=1MB&sockets_size=4MB", 8_000_000),
        ("DEFAULT?sockets_size=10000000B", 20_000_000),
        ("LARGE_DATA", None),
        ("UDPv4", None),
    ],
)
def test_the_segment_is_twice_the_socket_size(tmp_path: Path, setting: str, segment: int | None) -> None:
    found = configured_segment(made_up_host(tmp_path, {"FASTDDS_BUILTIN_TRANSPORTS": setting}))
    assert (found.bytes, found.problem) == (segment, "")
    assert found.shared == (setting != "UDPv4")


@pytest.mark.parametrize("setting", ["LARGEDATA", "DEFAULT?sockets_size=big"])
def test_a_setting_that_fast_dds_does_not_understand_fails(tmp_path: Path, setting: str) -> None:
    finding = check_segment(made_up_host(tmp_path, {"FASTDDS_BUILTIN_TRANSPORTS": setting}), None)
    assert finding.verdict == "fail"
    assert setting in finding.measured


def profile(tmp_path: Path, text: str, name: str = "profile.xml") -> Path:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("variable", ["FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"])
def test_a_profile_beats_the_environment(tmp_path: Path, variable: str) -> None:
    size = "<segment_size>33554432</segment_size>"
    path = profile(tmp_path, PROFILE.format(size=size, default="true", rtps=OWN))
    environ = {variable: str(path), "FASTDDS_BUILTIN_TRANSPORTS": "DEFAULT?sockets_size=1MB"}
    assert configured_segment(made_up_host(tmp_path, environ)).bytes == 33_554_432


def test_a_profile_may_name_built_in_transports(tmp_path: Path) -> None:
    rtps = '<builtinTransports max_msg_size="3MB" sockets_size="3MB">LARGE_DATA</builtinTransports>'
    path = profile(tmp_path, PROFILE.format(size="", default="true", rtps=rtps))
    host = made_up_host(tmp_path, {"FASTDDS_DEFAULT_PROFILES_FILE": str(path)})
    assert configured_segment(host).bytes == 6_000_000


@pytest.mark.parametrize(("default", "rtps"), [("false", OWN), ("true", "")])
def test_a_profile_that_sets_no_transports_leaves_the_environment(tmp_path: Path, default: str, rtps: str) -> None:
    path = profile(tmp_path, PROFILE.format(size="", default=default, rtps=rtps))
    environ = {"FASTDDS_DEFAULT_PROFILES_FILE": str(path), "FASTDDS_BUILTIN_TRANSPORTS": "DEFAULT?sockets_size=1MB"}
    assert configured_segment(made_up_host(tmp_path, environ)).bytes == 2_000_000


@pytest.mark.parametrize(("skip", "segment"), [({}, 524_288 * 4), ({"SKIP_DEFAULT_XML_FILE": "1"}, 524_288)])
def test_the_profile_in_the_working_directory_is_read(tmp_path: Path, skip: dict[str, str], segment: int) -> None:
    size = f"<segment_size>{524_288 * 4}</segment_size>"
    host = made_up_host(tmp_path, skip)
    profile(tmp_path, PROFILE.format(size=size, default="true", rtps=OWN), "here/DEFAULT_FASTDDS_PROFILES.xml")
    assert configured_segment(host).bytes == segment


@pytest.mark.parametrize("text", ["<dds>", '<!DOCTYPE x [<!ENTITY a "b">]><dds>&a;</dds>'])
def test_a_profile_that_is_broken_or_declares_entities_fails(tmp_path: Path, text: str) -> None:
    path = profile(tmp_path, text)
    finding = check_segment(made_up_host(tmp_path, {"FASTDDS_DEFAULT_PROFILES_FILE": str(path)}), None)
    assert finding.verdict == "fail"
    assert str(path) in finding.measured


def test_a_profile_that_is_not_there_fails(tmp_path: Path) -> None:
    finding = check_segment(made_up_host(tmp_path, {"FASTDDS_DEFAULT_PROFILES_FILE": "/nowhere.xml"}), None)
    assert (finding.verdict, "/nowhere.xml" in finding.measured) == ("fail", True)


@pytest.mark.parametrize(
    ("setting", "load", "verdict"),
    [
        ("", RAW_480P, "fail"),
        ("", RELIABLE, "warn"),
        ("", SMALL, "ok"),
        ("", None, "ok"),
        ("DEFAULT?sockets_size=2MB", RAW_480P, "ok"),
        ("LARGE_DATA", RAW_480P, "unknown"),
        ("UDPv4", RAW_480P, "warn"),
        ("UDPv4", SMALL, "ok"),
    ],
)
def test_the_segment_is_judged_by_the_largest_message(
    tmp_path: Path, setting: str, load: Load | None, verdict: str
) -> None:
    finding = check_segment(made_up_host(tmp_path, {"FASTDDS_BUILTIN_TRANSPORTS": setting}), load)
    assert finding.verdict == verdict


def test_the_remedy_is_a_setting_that_would_do(tmp_path: Path) -> None:
    finding = check_segment(made_up_host(tmp_path), RAW_480P)
    advised = finding.remedy.split('TRANSPORTS="')[1].split('"')[0]
    assert advised == "DEFAULT?sockets_size=2MB"
    again = check_segment(made_up_host(tmp_path, {"FASTDDS_BUILTIN_TRANSPORTS": advised}), RAW_480P)
    assert again.verdict == "ok"


def test_large_data_must_be_set_everywhere(tmp_path: Path) -> None:
    host = made_up_host(tmp_path, {"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA?sockets_size=16MB"})
    assert "do not find each other" in check_segment(host, RAW_480P).remedy


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Path]:
    """Make a segment of 512 KiB whose participant lives, that is, holds the lock."""
    path = tmp_path / "shm" / "fastdds_0123456789abcdef"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.truncate(549_408)
    lock = os.open(path.with_name(f"{path.name}_el"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield path
    os.close(lock)


def test_the_living_are_told_from_what_the_killed_left(tmp_path: Path, alive: Path) -> None:
    dead = alive.with_name("fastrtps_fedcba9876543210")
    dead.write_bytes(b"x")
    dead.with_name(f"{dead.name}_el").write_bytes(b"")
    (alive.parent / "fastdds_port7001").write_bytes(b"x")
    host = made_up_host(tmp_path)
    assert [(one.bytes, one.alive) for one in running(host)] == [(549_408, True), (1, False)]
    finding = check_participants(host, None)
    assert (finding.verdict, finding.values["left_behind"]) == ("ok", 1)


def test_a_running_sender_with_a_small_segment_is_noticed_whatever_this_shell_says(tmp_path: Path, alive: Path) -> None:
    host = made_up_host(tmp_path, {"FASTDDS_BUILTIN_TRANSPORTS": "DEFAULT?sockets_size=16MB"})
    assert check_participants(host, RAW_480P).verdict == "warn"
    assert check_participants(host, RELIABLE).verdict == "ok"
    assert check_participants(host, SMALL).verdict == "ok"


def test_participants_of_another_user_are_noticed(tmp_path: Path, alive: Path) -> None:
    from dataclasses import replace

    host = made_up_host(tmp_path)
    finding = check_participants(replace(host, uid=host.uid + 1), None)
    assert (finding.verdict, finding.values["of_other_users"]) == ("warn", 1)
    assert "one user" in finding.remedy


@pytest.mark.parametrize(
    ("total", "free", "verdict"), [(1 << 30, 1 << 29, "ok"), (64 << 20, 60 << 20, "warn"), (1 << 30, 9, "warn")]
)
def test_docker_s_shared_memory_is_too_small(tmp_path: Path, total: int, free: int, verdict: str) -> None:
    assert check_shm(made_up_host(tmp_path, total=total, free=free)).verdict == verdict


def test_no_shared_memory_at_all_fails(tmp_path: Path) -> None:
    host = made_up_host(tmp_path)
    host.shm.rmdir()
    assert check_shm(host).verdict == "fail"


def test_what_the_shipped_humanoid_asks_for() -> None:
    load = load_of(load_embodiment("humanoid"))
    by_topic = {message.topic: message for message in load.messages}
    depth, colour, body = (
        by_topic[t] for t in ("/head/depth/image_raw", "/head/color/image_raw/compressed", "/body/joint_states")
    )
    assert (depth.wire_bytes, depth.journal_bytes, depth.rate_hz) == (200 + 48 * 64 * 2, 200 + 48 * 64 * 2, 15.0)
    assert (colour.wire_bytes, colour.rate_hz) == (200 + int(96 * 128 * 0.4), 30.0)
    assert (body.wire_bytes, body.rate_hz) == (200 + 2 * 43 * 8, 200.0)
    assert load.largest is depth
    assert load.wire_bytes_per_s == sum(m.wire_bytes * m.rate_hz for m in load.messages)


def test_a_raw_colour_image_is_large_on_the_wire_and_small_in_a_jpeg_journal() -> None:
    arm = load_embodiment("arm6")
    source = arm.binding.sources["front"][0].model_copy(
        update={"topic": "/front/image_raw", "type": "sensor_msgs/msg/Image", "qos": {"reliability": "reliable"}}
    )
    binding = arm.binding.model_copy(update={"sources": {**arm.binding.sources, "front": (source,)}})
    message = load_of(arm.model_copy(update={"binding": binding})).largest
    assert message.topic == "/front/image_raw"
    assert (message.wire_bytes, message.journal_bytes) == (200 + 96 * 96 * 3, 200 + int(96 * 96 * 0.4))
    assert message.reliable
    raw = binding.model_copy(update={"journal_images": "raw"})
    assert load_of(arm.model_copy(update={"binding": raw})).largest.journal_bytes == 200 + 96 * 96 * 3
