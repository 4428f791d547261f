"""Checks of the ROS that is installed: which one, which middleware, which domain, which message types."""

from __future__ import annotations

from pathlib import Path

from lehrling.collection.doctor_host import Host
from lehrling.collection.doctor_report import Finding, Value, Verdict

WHEEL = "ros-rclpy"
RMW_INDEX = Path("share/ament_index/resource_index/rmw_typesupport")
FAST_DDS = ("rmw_fastrtps_cpp", "rmw_fastrtps_dynamic_cpp")
RMW_DEFAULT = FAST_DDS[0]
SEQUENCES = {
    "rmw_fastrtps_cpp": "gives publication sequence numbers, so lost messages are counted",
    "rmw_fastrtps_dynamic_cpp": "gives publication sequence numbers, so lost messages are counted",
    "rmw_zenoh_cpp": "gives publication sequence numbers in releases from March 2026 on; before, losses are unknown",
    "rmw_cyclonedds_cpp": "gives no publication sequence numbers, so lost messages stay unknown",
    "rmw_connextdds": "was never tried with Lehrling",
}
DOMAIN_MAX, DOMAIN_SAFE_MAX = 232, 101
"""Above 101 a domain's ports fall into the range that Linux gives to any program that asks."""


def sourced(host: Host) -> list[Path]:
    """Return the prefixes of ROS installations that this shell has sourced, those of the environment's wheels left out."""
    entries = [Path(entry) for entry in host.environ.get("AMENT_PREFIX_PATH", "").split(":") if entry]
    return [entry for entry in entries if entry != host.prefix and (entry / "share" / "rclpy").is_dir()]


def prefixes(host: Host) -> list[Path]:
    """Return every prefix that message definitions and middlewares are looked up in."""
    entries = [Path(entry) for entry in host.environ.get("AMENT_PREFIX_PATH", "").split(":") if entry]
    return [*entries, host.prefix]


def middleware(host: Host) -> str:
    """Return the name of the middleware that rclpy would load."""
    return host.environ.get("RMW_IMPLEMENTATION", "") or RMW_DEFAULT


def local_only(host: Host) -> bool:
    """Whether discovery stays on this computer."""
    if host.environ.get("ROS_LOCALHOST_ONLY") == "1":
        return True
    return host.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper() in ("LOCALHOST", "OFF")


def check_installation(host: Host) -> Finding:
    """Find the ROS in use; refuse a sourced ROS together with the wheels from PyPI."""
    wheels, prefixes_ = host.version(WHEEL), sourced(host)
    distro = host.environ.get("ROS_DISTRO", "")
    values = {"wheels_rclpy": wheels, "sourced": ":".join(map(str, prefixes_)), "distro": distro or None}
    if wheels is not None and prefixes_:
        return Finding(
            "ros",
            "fail",
            f"{prefixes_[0]} is sourced and rclpy {wheels} from PyPI is installed; which library loads is chance",
            "Keep one: open a shell that sources no setup.bash, or make the environment without the extra `ros-wheels`.",
            values,
        )
    if prefixes_:
        return Finding("ros", "ok", f"{distro or 'ROS 2'} from {prefixes_[0]}", values=values)
    if wheels is not None:
        return Finding("ros", "ok", f"rclpy {wheels} from PyPI in {host.prefix}", values=values)
    return Finding(
        "ros",
        "warn",
        "no ROS 2 is sourced or installed; importing and simulating work, recording does not",
        "Source a ROS 2 (`source /opt/ros/kilted/setup.bash`), or install the extra `lehrling-collection[ros-wheels]`.",
        values,
    )


def _installed_rmws(host: Host) -> set[str]:
    folders = [prefix / RMW_INDEX for prefix in prefixes(host)]
    found = {path.name for folder in folders if folder.is_dir() for path in folder.iterdir()}
    return found - {"rmw_implementation"}


def check_middleware(host: Host) -> Finding:
    """Say which middleware is in use and whether it tells of lost messages."""
    name, installed = middleware(host), _installed_rmws(host)
    values = {"rmw": name, "installed": ", ".join(sorted(installed))}
    told = f"{name} ({'chosen by RMW_IMPLEMENTATION' if host.environ.get('RMW_IMPLEMENTATION') else 'the default'})"
    if installed and name not in installed:
        return Finding(
            "middleware",
            "fail",
            f"{told} is not installed; installed: {', '.join(sorted(installed))}",
            f"Install it, or `export RMW_IMPLEMENTATION={min(installed)}`.",
            values,
        )
    meaning = SEQUENCES.get(name, "is not known to Lehrling; whether lost messages are counted is unknown")
    verdict: Verdict = "ok" if name in FAST_DDS else "warn" if name == "rmw_cyclonedds_cpp" else "unknown"
    if not installed and verdict == "ok":
        verdict = "unknown"
    remedy = "" if name in FAST_DDS else "Use rmw_fastrtps_cpp where lost messages are to be counted."
    return Finding("middleware", verdict, f"{told} {meaning}", remedy, values)


def check_domain(host: Host) -> Finding:
    """Say who can be heard: the domain, and whether discovery leaves this computer."""
    text = host.environ.get("ROS_DOMAIN_ID", "") or "0"
    where = "this computer only" if local_only(host) else "the network"
    values: dict[str, Value] = {
        "domain_id": int(text) if text.isdecimal() else None,
        "localhost_only": local_only(host),
    }
    if not text.isdecimal() or int(text) > DOMAIN_MAX:
        remedy = f"Set ROS_DOMAIN_ID to a number from 0 to {DOMAIN_SAFE_MAX}, the same on the robot and here."
        return Finding("domain", "fail", f"ROS_DOMAIN_ID={text[:20]!r} is no domain", remedy, values)
    told = f"domain {text}, {where}"
    if int(text) > DOMAIN_SAFE_MAX:
        remedy = f"Take a domain from 0 to {DOMAIN_SAFE_MAX}: Linux may give this one's ports to other programs."
        return Finding("domain", "warn", told, remedy, values)
    if host.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").upper() == "OFF":
        remedy = "Unset ROS_AUTOMATIC_DISCOVERY_RANGE, or no node finds another."
        return Finding("domain", "warn", f"{told}; discovery is off", remedy, values)
    return Finding("domain", "ok", told, values=values)


def check_message_types(host: Host, types: set[str]) -> Finding:
    """Check that ROS knows every message type that the embodiment records."""
    if host.version(WHEEL) is None and not sourced(host):
        return Finding("message types", "unknown", "no ROS to look them up in", "Source the ROS that will record.")
    missing = sorted(name for name in types if not _known(host, name))
    values: dict[str, Value] = {"types": len(types), "missing": ", ".join(missing)}
    if missing:
        package = missing[0].split("/")[0]
        return Finding(
            "message types",
            "fail",
            f"not known to this ROS: {', '.join(missing)}",
            f"Install and source the package {package}, or take these topics out of the embodiment.",
            values,
        )
    return Finding("message types", "ok", f"all {len(types)} are known", values=values)


def _known(host: Host, name: str) -> bool:
    package, _, message = name.partition("/msg/")
    return any((prefix / "share" / package / "msg" / f"{message}.msg").is_file() for prefix in prefixes(host))
