"""The doctor's checks of network, disk, clocks, processor and packages."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path

import pytest
from made_up_hosts import GIB, made_up_host

from lehrling.collection.doctor_clock import (
    STA_UNSYNC,
    KernelClock,
    check_resolution,
    check_synchronisation,
    read_kernel_clock,
)
from lehrling.collection.doctor_disk import DiskSpeed, check_disk, check_free_space, existing, measure_disk
from lehrling.collection.doctor_load import Load, Message
from lehrling.collection.doctor_machine import (
    Package,
    check_codec,
    check_packages,
    check_processor,
    check_pybullet,
    installed_rooms,
    zarr_codec,
)
from lehrling.collection.doctor_network import check_fragments, check_socket_buffers

CAMERAS = Load((Message("/camera/image_raw", 921_800, 921_800, 60.0, reliable=False),))
NEEDED = 921_800 * 60.0
FAST = DiskSpeed(500e6, 0.002, 0.01)
HERE = {"ROS_LOCALHOST_ONLY": "1"}
CORE = "proc/sys/net/core/"
IPV4 = "proc/sys/net/ipv4/"


def test_buffers_of_the_tuning_guide_are_fine(tmp_path: Path) -> None:
    host = made_up_host(tmp_path)
    assert check_socket_buffers(host).verdict == "ok"
    assert check_fragments(host).verdict == "ok"


def test_the_kernel_s_default_buffers_lose_messages_from_other_computers_only(tmp_path: Path) -> None:
    files = {f"{CORE}rmem_max": "212992", f"{IPV4}ipfrag_time": "30", f"{IPV4}ipfrag_high_thresh": "4194304"}
    far, near = made_up_host(tmp_path, files=files), made_up_host(tmp_path, HERE, files=files)
    assert check_socket_buffers(far).verdict == "warn"
    assert check_socket_buffers(far).values["rmem_max_bytes"] == 212_992
    assert "sysctl -w net.core.rmem_max=" in check_socket_buffers(far).remedy
    assert check_fragments(far).verdict == "warn"
    assert "ipfrag_high_thresh=134217728" in check_fragments(far).remedy
    assert (check_socket_buffers(near).verdict, check_fragments(near).verdict) == ("ok", "ok")


def test_a_container_that_hides_the_buffers_is_unknown(tmp_path: Path) -> None:
    host = made_up_host(tmp_path, files={f"{CORE}rmem_max": None, f"{IPV4}ipfrag_time": None})
    assert (check_socket_buffers(host).verdict, check_fragments(host).verdict) == ("unknown", "unknown")


@pytest.mark.parametrize(
    ("speed", "mounts", "verdict"),
    [
        (FAST, "/dev/nvme0n1p2 / ext4 rw 0 0", "ok"),
        (DiskSpeed(NEEDED * 2, 0.002, 0.01), "/dev/sda / ext4 rw 0 0", "warn"),
        (DiskSpeed(NEEDED / 2, 0.002, 0.01), "/dev/sda / ext4 rw 0 0", "fail"),
        (DiskSpeed(500e6, 0.05, 0.3), "/dev/sda / ext4 rw 0 0", "warn"),
        (DiskSpeed(500e6, 0.05, 1.2), "/dev/sda / ext4 rw 0 0", "fail"),
        (FAST, "/dev/sda / ext4 rw 0 0\ntmpfs /data tmpfs rw 0 0", "warn"),
        (FAST, "/dev/sda / ext4 rw 0 0\nnas:/x /data nfs4 rw 0 0", "warn"),
        (OSError(errno.EROFS, "Read-only file system"), "", "fail"),
    ],
)
def test_a_disk_is_judged_by_speed_durability_and_kind(
    tmp_path: Path, speed: DiskSpeed | OSError, mounts: str, verdict: str
) -> None:
    host = made_up_host(tmp_path, files={"proc/self/mounts": mounts})
    assert check_disk(host, Path("/data"), CAMERAS, speed).verdict == verdict


def test_a_measurement_leaves_nothing_behind_and_is_bounded(tmp_path: Path) -> None:
    speed = measure_disk(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert speed.bytes_per_s > 0
    assert 0 < speed.sync_median_s <= speed.sync_worst_s


def test_a_dataset_that_is_not_there_yet_is_measured_where_it_will_be(tmp_path: Path) -> None:
    assert existing(tmp_path / "new" / "plant.zarr") == tmp_path


@pytest.mark.parametrize(
    ("minutes", "verdict"),
    [(200, "ok"), (30, "warn"), (4, "fail")],
)
def test_free_space_is_told_in_minutes_of_recording(tmp_path: Path, minutes: int, verdict: str) -> None:
    host = made_up_host(tmp_path, free=int(minutes * 60 * NEEDED) + 1)
    finding = check_free_space(host, tmp_path, CAMERAS)
    assert (finding.verdict, finding.values["minutes"]) == (verdict, float(minutes))


@pytest.mark.parametrize(("free", "verdict"), [(100 * GIB, "ok"), (10 * GIB, "warn"), (GIB, "fail")])
def test_without_an_embodiment_free_space_is_judged_in_bytes(tmp_path: Path, free: int, verdict: str) -> None:
    assert check_free_space(made_up_host(tmp_path, free=free), tmp_path, None).verdict == verdict


@pytest.mark.parametrize(
    ("clock", "files", "verdict", "word"),
    [
        (KernelClock(0, 0, 1_200), {"proc/12/comm": "chronyd"}, "ok", "by chronyd, off by at most 1.2 ms"),
        (KernelClock(0, 0, 200_000), {}, "warn", "off by at most 200.0 ms"),
        (KernelClock(5, STA_UNSYNC, 16_000_000), {}, "warn", "not synchronised"),
        (KernelClock(5, STA_UNSYNC, 16_000_000), {"proc/7/comm": "phc2sys"}, "unknown", "phc2sys runs"),
        (KernelClock(0, STA_UNSYNC, 0), {"run/systemd/timesync/synchronized": ""}, "ok", "systemd-timesyncd"),
        (None, {}, "unknown", "the kernel does not tell"),
    ],
)
def test_what_is_known_of_the_clock_and_what_is_not(
    tmp_path: Path, clock: KernelClock | None, files: dict[str, str], verdict: str, word: str
) -> None:
    finding = check_synchronisation(made_up_host(tmp_path, files=files), clock)
    assert finding.verdict == verdict
    assert word in finding.measured


def test_linux_answers_about_its_clock() -> None:
    clock = read_kernel_clock()
    assert clock is not None
    assert 0 <= clock.state <= 5
    assert clock.error_us >= 0


@pytest.mark.parametrize(
    ("step", "source", "verdict"),
    [(40, "tsc", "ok"), (15_000_000, "tsc", "warn"), (40, "hpet", "warn"), (0, "tsc", "warn")],
)
def test_coarse_and_slow_clocks_are_noticed(tmp_path: Path, step: int, source: str, verdict: str) -> None:
    host = made_up_host(tmp_path, files={"sys/devices/system/clocksource/clocksource0/current_clocksource": source})
    readings = itertools.count(10**18, step) if step else itertools.repeat(10**18)
    finding = check_resolution(host, lambda: next(readings), itertools.count(0, 50).__next__)
    assert (finding.verdict, finding.values["realtime_step_ns"]) == (verdict, step)


@pytest.mark.parametrize(
    ("governor", "load", "cores", "verdict"),
    [
        ("performance", "0.5", 8, "ok"),
        ("powersave", "0.5", 8, "warn"),
        (None, "0.5", 8, "ok"),
        ("performance", "0.5", 1, "warn"),
        ("performance", "9.0", 8, "warn"),
    ],
)
def test_a_sleepy_small_or_busy_processor_is_noticed(
    tmp_path: Path, governor: str | None, load: str, cores: int, verdict: str
) -> None:
    files = {
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": governor,
        "proc/loadavg": f"{load} 0.2 0.1 1/300 4242",
    }
    assert check_processor(made_up_host(tmp_path, files=files, cores=cores)).verdict == verdict


@pytest.mark.parametrize(
    ("requires", "versions", "problem"),
    [
        ("numpy>=2.2,<2.3", {"numpy": "2.2.6"}, ""),
        ("numpy>=2.2,<2.3", {"numpy": "1.26.4"}, "room wants numpy <2.3,>=2.2, installed is 1.26.4"),
        ("numpy>=2.2", {}, "room wants numpy, which is not installed"),
        ("torch>=2; extra == 'policy'", {}, ""),
        ("pywin32; sys_platform == 'win32'", {}, ""),
    ],
)
def test_requirements_are_compared_with_what_is_installed(
    tmp_path: Path, requires: str, versions: dict[str, str], problem: str
) -> None:
    host = made_up_host(tmp_path, versions=versions)
    finding = check_packages(host, [Package("room", "0.1.0", "<3.13,>=3.12", (requires,))], (3, 12, 1))
    assert finding.verdict == ("fail" if problem else "ok")
    assert problem in finding.measured


def test_a_room_may_be_left_out_and_is_named(tmp_path: Path) -> None:
    command = Package("lehrling", "0.1.0", "", ("lehrling-training[evaluate]", "typer>=0.20"))
    finding = check_packages(made_up_host(tmp_path, versions={"typer": "0.29.2"}), [command], (3, 12, 1))
    assert finding.verdict == "ok"
    assert finding.measured.endswith("1 requirements hold; without lehrling-training")


def test_a_python_that_the_packages_refuse_fails(tmp_path: Path) -> None:
    finding = check_packages(made_up_host(tmp_path), [Package("room", "0.1.0", "<3.13,>=3.12", ())], (3, 13, 0))
    assert (finding.verdict, finding.measured) == ("fail", "room wants Python <3.13,>=3.12, this is 3.13.0")


def test_the_packages_of_this_project_are_found() -> None:
    assert {"lehrling-collection", "lehrling-datasets"} <= {package.name for package in installed_rooms()}


@pytest.mark.parametrize(
    ("answer", "verdict"), [(None, "ok"), ("1", "ok"), ("0", "fail"), ("ImportError: no libGL", "fail")]
)
def test_pybullet_without_numpy_fails(answer: str | None, verdict: str) -> None:
    assert check_pybullet(answer).verdict == verdict


def test_the_image_codec_is_registered_and_a_missing_one_fails() -> None:
    assert check_codec(zarr_codec).measured == "lehrling.jpeg is JpegFrames"

    def nothing(name: str) -> object:
        raise KeyError(name)

    assert check_codec(nothing).verdict == "fail"
