"""Checks of the disk that the dataset is on: how fast it writes, how fast it makes data durable, how long it lasts."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lehrling.collection.doctor_host import Host, size
from lehrling.collection.doctor_load import Load
from lehrling.collection.doctor_report import Finding, Value, Verdict

BLOCK_BYTES = 1 << 20
WRITE_BYTES_MAX = 48 << 20
WRITE_S_MAX, SYNC_S_MAX = 0.4, 0.3
SYNCS = 20
SYNC_FAIL_S, SYNC_WARN_S = 1.0, 0.2
"""A journal promises its data against power loss after one second."""
HEADROOM = 3.0
"""Recording writes the journal while the sealer reads the last one and writes its episode."""
MINUTES_FAIL, MINUTES_WARN = 5.0, 60.0
FREE_FAIL, FREE_WARN = 2 << 30, 20 << 30
FLEETING = ("tmpfs", "ramfs", "overlay")
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p")


@dataclass(frozen=True)
class DiskSpeed:
    """A bounded measurement.

    Attributes:
        bytes_per_s: of writing blocks of 1 MiB, the final fdatasync included.
        sync_median_s, sync_worst_s: of an fdatasync after 64 KiB.
    """

    bytes_per_s: float
    sync_median_s: float
    sync_worst_s: float


def existing(path: Path) -> Path:
    """Return the path, or the nearest directory above it that is there."""
    absolute = path.absolute()
    return next((p for p in (absolute, *absolute.parents) if p.is_dir()), Path("/"))


def measure_disk(directory: Path) -> DiskSpeed:
    """Write at most 48 MiB and 20 fdatasyncs, for less than a second where the disk keeps up; leave nothing behind.

    Raises:
        OSError: the directory cannot be written, or is full.
    """
    block = os.urandom(BLOCK_BYTES)
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        begun, written = time.monotonic(), 0
        while written < WRITE_BYTES_MAX and time.monotonic() - begun < WRITE_S_MAX:
            written += file.write(block)
        os.fdatasync(file.fileno())
        speed = written / max(time.monotonic() - begun, 1e-6)
        syncs, started = list[float](), time.monotonic()
        while len(syncs) < SYNCS and time.monotonic() - started < SYNC_S_MAX:
            before = time.monotonic()
            file.write(block[: 64 * 1024])
            os.fdatasync(file.fileno())
            syncs.append(time.monotonic() - before)
    return DiskSpeed(speed, statistics.median(syncs), max(syncs))


def file_system(host: Host, directory: Path) -> str:
    """Return the type of the file system that holds a directory, empty where it is not known."""
    best, found = "", ""
    for line in (host.text(host.proc / "self/mounts") or "").splitlines():
        fields = line.split(" ")
        if len(fields) > 2 and len(fields[1]) >= len(best) and directory.is_relative_to(fields[1]):
            best, found = fields[1], fields[2]
    return found


def check_disk(host: Host, directory: Path, load: Load | None, speed: DiskSpeed | OSError) -> Finding:
    """Judge a measurement against what the embodiment writes."""
    if isinstance(speed, OSError):
        remedy = "Give this user write access, make space, or name another --dataset."
        return Finding("disk", "fail", f"{directory} cannot be written: {speed.strerror or speed}", remedy)
    kind, needed = file_system(host, directory.resolve()), load.journal_bytes_per_s * HEADROOM if load else 0.0
    values: dict[str, Value] = {
        "write_bytes_per_s": round(speed.bytes_per_s),
        "fdatasync_median_ms": round(speed.sync_median_s * 1e3, 3),
        "fdatasync_worst_ms": round(speed.sync_worst_s * 1e3, 3),
        "needed_bytes_per_s": round(needed) if load else None,
        "file_system": kind or None,
    }
    told = (
        f"{size(speed.bytes_per_s)}/s, fdatasync {speed.sync_median_s * 1e3:.1f} ms "
        f"(worst {speed.sync_worst_s * 1e3:.1f}) on {kind or 'an unknown file system'}"
    )
    if speed.sync_worst_s > SYNC_FAIL_S or speed.bytes_per_s < needed / HEADROOM:
        remedy = "Record to a local SSD; copy datasets to shared storage after they are sealed."
        return Finding("disk", "fail", f"{told}: too slow", remedy, values)
    if kind in FLEETING:
        remedy = "Record to a real disk or a mounted volume: this one is gone with the power or the container."
        return Finding("disk", "warn", told, remedy, values)
    if kind in REMOTE or speed.sync_worst_s > SYNC_WARN_S or speed.bytes_per_s < needed:
        remedy = "Record to a local SSD: this disk has no headroom for sealing while recording."
        return Finding("disk", "warn", told, remedy, values)
    return Finding("disk", "ok", told, values=values)


def check_free_space(host: Host, directory: Path, load: Load | None) -> Finding:
    """Say for how many minutes of recording the disk lasts."""
    free = host.space(directory).free
    values: dict[str, Value] = {"free_bytes": free, "minutes": None}
    remedy = "Purge what is not needed, or record to a larger disk."
    if load is None:
        verdict: Verdict = "fail" if free < FREE_FAIL else "warn" if free < FREE_WARN else "ok"
        told = f"{size(free)}; give --embodiment for minutes of recording"
        return Finding("free space", verdict, told, remedy if verdict != "ok" else "", values)
    minutes = free / load.journal_bytes_per_s / 60
    values["minutes"] = round(minutes, 1)
    told = f"{size(free)}, {minutes:,.0f} minutes at {size(load.journal_bytes_per_s)}/s"
    if minutes < MINUTES_WARN:
        return Finding("free space", "fail" if minutes < MINUTES_FAIL else "warn", told, remedy, values)
    return Finding("free space", "ok", told, values=values)
