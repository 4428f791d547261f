"""Run a recorder against the benchmark's publishers, each in processes of its own, and account for every message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from benchmarks.rigs import rig

from lehrling.collection.capture_group import CaptureOptions
from lehrling.collection.recorder import Recorder, RecorderConfig
from lehrling.collection.session import Phase, Plan, SessionOptions
from lehrling.datasets.arrays import read_array
from lehrling.datasets.manifest import EpisodeRecord

GO = "go\n"


@dataclass
class Run:
    """One recording.

    Attributes:
        published, recorded, lost: messages per topic; `lost` as the recorder reports it.
        cpu_s: of capture, without and with sealing; publishers' apart.
        seal_s: from stop to sealed and readable.
        load: mean share of all cores that was busy, everything included.
    """

    seconds: float
    published: dict[str, int]
    recorded: dict[str, int]
    lost: dict[str, int]
    cpu_s: float = 0.0
    seal_cpu_s: float = 0.0
    seal_s: float = 0.0
    rss_mb: float = 0.0
    lag_max_ms: float = 0.0
    publishers_cpu_s: float = 0.0
    publishers_late_s: float = 0.0
    load: float = 0.0
    findings: list[str] = field(default_factory=list)

    @property
    def exact(self) -> bool:
        """Whether published = recorded + reported lost, on every topic."""
        return all(n == self.recorded.get(t, 0) + self.lost.get(t, 0) for t, n in self.published.items())

    @property
    def lost_all(self) -> int:
        """Messages lost on all topics."""
        return sum(self.lost.values())

    @property
    def published_all(self) -> int:
        """Messages published on all topics."""
        return sum(self.published.values())


def environment(profile: Path | None) -> dict[str, str]:
    """Return the publishers' environment, in a domain of their own."""
    found = {**os.environ, "ROS_DOMAIN_ID": "77", "ROS_LOCALHOST_ONLY": "1"}
    return found | ({"FASTDDS_DEFAULT_PROFILES_FILE": str(profile)} if profile is not None else {})


def shared_memory_profile(folder: Path, mebibytes: int = 64) -> Path:
    """Write a Fast DDS profile with a larger shared-memory segment, as `lehrling doctor` advises for raw images."""
    path = folder / "fastdds.xml"
    path.write_text(
        f"""<?xml version="1.0" encoding="UTF-8" ?>
<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <transport_descriptors>
    <transport_descriptor><transport_id>shm</transport_id><type>SHM</type>
      <segment_size>{mebibytes << 20}</segment_size></transport_descriptor>
    <transport_descriptor><transport_id>udp</transport_id><type>UDPv4</type></transport_descriptor>
  </transport_descriptors>
  <participant profile_name="large" is_default_profile="true"><rtps>
    <userTransports><transport_id>shm</transport_id><transport_id>udp</transport_id></userTransports>
    <useBuiltinTransports>false</useBuiltinTransports></rtps></participant>
</profiles>
""",
        encoding="utf-8",
    )
    return path


def start(module: str, *arguments: object, profile: Path | None) -> subprocess.Popen[str]:
    """Start a rig's process and wait until it is there."""
    command = [sys.executable, "-m", f"benchmarks.rigs.{module}", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(profile)
    )
    assert process.stdout is not None
    while process.stdout.readline().strip() != "there":
        if process.poll() is not None:
            raise RuntimeError(f"{module} ended with {process.returncode}")
    return process


def tell(process: subprocess.Popen[str]) -> None:
    """Send the word that it waits for."""
    assert process.stdin is not None
    process.stdin.write(GO)
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what it prints at its end."""
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


class Usage:
    """CPU seconds and memory of this process and its children, without the publishers."""

    def __init__(self, *others: int) -> None:
        self._others, self._me = set(others), psutil.Process()
        self.peak_mb = 0.0

    def _all(self) -> list[psutil.Process]:
        return [self._me, *(c for c in self._me.children(recursive=True) if c.pid not in self._others)]

    def cpu_s(self) -> float:
        """Return CPU seconds so far, of those that live."""
        total = 0.0
        for process in self._all():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def look(self) -> None:
        """Note the memory in use."""
        sizes = []
        for process in self._all():
            try:
                sizes.append(process.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        self.peak_mb = max(self.peak_mb, sum(sizes) / 1e6)


def _spin(recorder: Recorder, usage: Usage, until: Any, limit_s: float) -> None:
    begun = time.monotonic()
    while not until():
        recorder.tick()
        usage.look()
        time.sleep(0.1)
        if time.monotonic() - begun > limit_s:
            raise RuntimeError("the benchmark's recorder did not get on")


def _matched(recorder: Recorder) -> bool:
    topics = [facts for status in recorder.statuses for facts in status.topics.values()]
    return bool(topics) and all(facts.publishers and facts.qos.startswith("reliable") for facts in topics)


def ours(kind: str, cameras: int, seconds: float, *, images: str, processes: int, profile: Path | None) -> Run:
    """Record the load with Lehrling."""
    os.environ.update(environment(profile))
    compressed = kind == "compressed"
    robot = rig.embodiment(compressed=compressed, cameras=cameras, journal_images=images)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bench.zarr"
        config = RecorderConfig(
            root,
            robot,
            Plan("benchmark", ""),
            SessionOptions(allow_missing=True, min_free_bytes=0),
            CaptureOptions(processes=processes),
        )
        publishers = start("publishers", kind, cameras, seconds, profile=profile)
        try:
            with Recorder(config) as recorder:
                return _record(recorder, publishers, seconds, root)
        finally:
            publishers.kill()
            publishers.wait()


def _record(recorder: Recorder, publishers: subprocess.Popen[str], seconds: float, root: Path) -> Run:
    usage = Usage(publishers.pid)
    _spin(recorder, usage, lambda: _matched(recorder), 60)
    recorder.session.start()
    time.sleep(0.5)
    psutil.cpu_percent()
    before = usage.cpu_s()
    tell(publishers)
    begun = time.monotonic()
    _spin(recorder, usage, lambda: time.monotonic() - begun > seconds + 2.5, seconds + 60)
    told = answer(publishers)
    load, used = psutil.cpu_percent(), usage.cpu_s() - before
    if recorder.session.phase is not Phase.RECORDING:
        raise RuntimeError("; ".join(said.text for said in recorder.session.said()))
    stopped = time.monotonic()
    recorder.session.save("success")
    sealed = recorder.session.sealed
    _spin(recorder, usage, lambda: sealed or recorder.session.failed, 600)
    if recorder.session.failed:
        raise RuntimeError(recorder.session.failed[0])
    record = sealed[0]
    took, sealing = time.monotonic() - stopped, usage.cpu_s() - before - used
    lost = {t: record.facts["lost_queue"][t] + (record.facts["lost_middleware"][t] or 0) for t in told["counts"]}
    return Run(
        seconds,
        told["counts"],
        _recorded(root, record, recorder),
        lost,
        used,
        sealing,
        took,
        usage.peak_mb,
        record.facts["lag_max_ms"],
        told["cpu_s"],
        told["late_s"],
        load / 100,
        [finding["text"] for finding in record.facts["findings"]],
    )


def _recorded(root: Path, record: EpisodeRecord, recorder: Recorder) -> dict[str, int]:
    """Count the distinct sequence numbers per topic in the sealed episode."""
    found = {}
    for stream, sources in recorder.embodiment.binding.sources.items():
        sequence = read_array(root / "episodes" / record.id / stream / "sequence")
        found[sources[0].topic] = len(np.unique(sequence))
    return found


def plain(kind: str, cameras: int, seconds: float, *, profile: Path | None) -> Run:
    """Record the load with the plain node."""
    with tempfile.TemporaryDirectory() as folder:
        publishers = start("publishers", kind, cameras, seconds, profile=profile)
        node = start("plain_node", kind, cameras, Path(folder) / "plain.mcap", profile=profile)
        try:
            time.sleep(2)
            psutil.cpu_percent()
            tell(publishers)
            told = answer(publishers)
            load = psutil.cpu_percent()
            time.sleep(1)
            tell(node)
            got = answer(node)
        finally:
            for process in (publishers, node):
                process.kill()
                process.wait()
    lost = {topic: n - got["counts"].get(topic, 0) for topic, n in told["counts"].items()}
    return Run(
        seconds, told["counts"], got["counts"], lost, got["cpu_s"], rss_mb=got["rss_mb"],
        publishers_cpu_s=told["cpu_s"], publishers_late_s=told["late_s"], load=load / 100,
    )  # fmt: skip
