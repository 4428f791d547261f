"""Computers that are not there, for the doctor: directories in place of /proc, /sys, /run and /dev/shm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lehrling.collection.doctor_host import Host, Space

GIB = 1 << 30
NUMBERS = {
    "proc/sys/net/core/rmem_max": "16777216",
    "proc/sys/net/core/wmem_max": "16777216",
    "proc/sys/net/ipv4/ipfrag_time": "3",
    "proc/sys/net/ipv4/ipfrag_high_thresh": "134217728",
    "proc/loadavg": "0.31 0.20 0.10 1/300 4242",
    "proc/self/mounts": "/dev/nvme0n1p2 / ext4 rw 0 0",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
}


def made_up_host(
    root: Path,
    environ: Mapping[str, str] | None = None,
    files: Mapping[str, str | None] | None = None,
    versions: Mapping[str, str] | None = None,
    *,
    cores: int = 8,
    free: int = 400 * GIB,
    total: int = 500 * GIB,
) -> Host:
    """Make a healthy computer without ROS; `files` are added to it, or taken away where None."""
    for name, content in {**NUMBERS, **(files or {})}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(content + "\n", encoding="utf-8")
    for folder in ("shm", "run", "here", "env"):
        (root / folder).mkdir(exist_ok=True)
    return Host(
        environ or {},
        root / "env",
        root / "here",
        cores,
        uid=(root / "shm").stat().st_uid,
        proc=root / "proc",
        sys=root / "sys",
        run=root / "run",
        shm=root / "shm",
        version=(versions or {}).get,
        space=lambda _: Space(total, free),
    )


def install_ros(prefix: Path, *middlewares: str, types: tuple[str, ...] = ()) -> Path:
    """Make what a ROS installation leaves in its prefix."""
    (prefix / "share/rclpy").mkdir(parents=True, exist_ok=True)
    index = prefix / "share/ament_index/resource_index/rmw_typesupport"
    index.mkdir(parents=True, exist_ok=True)
    for name in ("rmw_implementation", *middlewares):
        (index / name).write_text("", encoding="utf-8")
    for name in types:
        package, _, message = name.partition("/msg/")
        path = prefix / "share" / package / "msg" / f"{message}.msg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
    return prefix
