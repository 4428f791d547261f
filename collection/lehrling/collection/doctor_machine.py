"""Checks of processor, Python and packages."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from lehrling.collection.doctor_host import Host
from lehrling.collection.doctor_report import Finding, Value

ROOMS = ("lehrling", "lehrling-collection", "lehrling-datasets", "lehrling-deploy", "lehrling-sim", "lehrling-training")
CORES_MIN = 2
PYBULLET_PROBE = "import pybullet; print(pybullet.isNumpyEnabled())"
PROBE_S_MAX = 10.0
CODEC = "lehrling.jpeg"


def check_processor(host: Host) -> Finding:
    """Check cores, load and the frequency governor."""
    text = host.text(host.proc / "loadavg") or ""
    load = float(text.split()[0]) if text else None
    files = sorted((host.sys / "devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    governors = sorted({host.text(path) or "unknown" for path in files})
    values: dict[str, Value] = {"cores": host.cores, "load_1min": load, "governor": ", ".join(governors) or None}
    told = (
        f"{host.cores} cores, load {'unknown' if load is None else load}, governor {', '.join(governors) or 'not told'}"
    )
    if "powersave" in governors:
        remedy = "`cpupower frequency-set -g performance` while recording: a sleeping core adds latency and jitter."
        return Finding("processor", "warn", told, remedy, values)
    if host.cores < CORES_MIN:
        remedy = "Give the recorder two cores: one receives while the other writes and seals."
        return Finding("processor", "warn", told, remedy, values)
    if load is not None and load > host.cores:
        remedy = "End what else runs here while recording."
        return Finding("processor", "warn", f"{told}: busy", remedy, values)
    return Finding("processor", "ok", told, values=values)


@dataclass(frozen=True)
class Package:
    """An installed package of this project, and what it asks for."""

    name: str
    version: str
    python: str
    requires: tuple[str, ...]


def installed_rooms() -> list[Package]:
    """Return the packages of this project that are installed."""
    found = []
    for name in ROOMS:
        try:
            facts = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        python = facts.metadata.get("Requires-Python") or ""
        found.append(Package(name, facts.version, python, tuple(facts.requires or ())))
    return found


def check_packages(host: Host, packages: Iterable[Package], python: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Compare Python and every required package with what the installed packages ask for.

    A room of this project may be left out, as training is on a robot's computer; its verbs are then missing, nothing else.
    """
    version, problems, checked, without = ".".join(map(str, python)), list[str](), set[str](), set[str]()
    told = [f"Python {version}"]
    for package in packages:
        told.append(f"{package.name} {package.version}")
        if package.python and version not in SpecifierSet(package.python):
            problems.append(f"{package.name} wants Python {package.python}, this is {version}")
        for requirement in map(Requirement, package.requires):
            if requirement.name in ROOMS and host.version(requirement.name) is None:
                without.add(requirement.name)
            elif requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                checked.add(requirement.name)
                problems += _problem(host, package.name, requirement)
    values: dict[str, Value] = {"python": version, "checked": len(checked), "problems": len(problems)}
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        remedy = "Install again from the lock: `make setup`, or `uv sync --frozen`."
        return Finding("packages", "fail", f"{problems[0]}{more}", remedy, values)
    left_out = f"; without {', '.join(sorted(without))}" if without else ""
    return Finding(
        "packages", "ok", f"{', '.join(told[:2])}; {len(checked)} requirements hold{left_out}", values=values
    )


def _problem(host: Host, wanted_by: str, requirement: Requirement) -> list[str]:
    found = host.version(requirement.name)
    if found is None:
        return [f"{wanted_by} wants {requirement.name}, which is not installed"]
    if not requirement.specifier.contains(found, prereleases=True):
        return [f"{wanted_by} wants {requirement.name} {requirement.specifier}, installed is {found}"]
    return []


def probe_pybullet(host: Host) -> str | None:
    """Ask PyBullet, in a process of its own, whether it was built with numpy; None where it is not installed."""
    if host.version("pybullet") is None:
        return None
    command = [sys.executable, "-c", PYBULLET_PROBE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S_MAX, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not start: {type(error).__name__}"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


def check_pybullet(answer: str | None) -> Finding:
    """Judge PyBullet's answer; without numpy it returns images as tuples, a hundred times slower."""
    if answer is None:
        return Finding("pybullet", "ok", "not installed; only simulation needs it")
    if answer == "1":
        return Finding("pybullet", "ok", "built with numpy", values={"numpy": True})
    remedy = "Build it again with numpy at hand: `uv sync --frozen --reinstall-package pybullet` in this workspace."
    if answer == "0":
        return Finding("pybullet", "fail", "built without numpy", remedy, {"numpy": False})
    return Finding("pybullet", "fail", f"cannot be imported: {answer[:200]}", remedy, {"numpy": None})


def check_codec(lookup: Callable[[str], object]) -> Finding:
    """Check that zarr finds the codec that camera images are stored with."""
    try:
        found = lookup(CODEC)
    except Exception as error:  # noqa: BLE001 — whatever a plug-in's import raises is the finding
        remedy = "Install lehrling-datasets into this environment: its entry point registers the codec."
        return Finding("zarr codec", "fail", f"{CODEC} is not registered: {type(error).__name__}", remedy)
    return Finding("zarr codec", "ok", f"{CODEC} is {getattr(found, '__qualname__', found)}")


def zarr_codec(name: str) -> object:
    """Return zarr's class for a codec's name.

    Raises:
        Exception: whatever zarr says where it knows none.
    """
    from zarr.registry import get_codec_class

    return get_codec_class(name)
