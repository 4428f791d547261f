"""Checks of Fast DDS's shared memory: a message larger than the sender's segment is lost, unless it is sent reliably.

Measured with Fast DDS 3.2 on two cores, best-effort 640x480 RGB images at 30 Hz, 90 sent: 11 arrive with the default segment
of 512 KiB, 25 over UDP, 90 where the sender has `DEFAULT?sockets_size=2MB`; 1080p images need 16MB. It is the sender's
setting that counts (2 of 90 where only the receiver had it). `LARGE_DATA` works too, but a participant that has it and one
that has not did not find each other. Known as rmw_fastrtps issue 739 and ros2 issue 1289.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path

from lehrling.collection.doctor_dds_profile import Segment, configured_segment
from lehrling.collection.doctor_host import Host, size
from lehrling.collection.doctor_load import Load, Message
from lehrling.collection.doctor_report import Finding, Value, Verdict

SEGMENT = re.compile(r"(fastdds|fastrtps)_[0-9a-f]{16}")
PACKET_BYTES = 65_000
MIXED = "Set it for every process: participants with LARGE_DATA and without do not find each other."
SHM_FREE_MIN = 64 << 20
"""What Docker gives a container unless told otherwise; a participant with `sockets_size=16MB` takes half of it."""


def _megabytes(count: float) -> int:
    """Return the next power of two of megabytes that holds `count` bytes four times."""
    wanted = 1
    while wanted * 1_000_000 < 2 * count:
        wanted *= 2
    return wanted


def check_segment(host: Host, load: Load | None) -> Finding:
    """Compare the shared-memory segment that this shell's senders get with the embodiment's largest message."""
    segment = configured_segment(host)
    values: dict[str, Value] = {"segment_bytes": segment.bytes, "source": segment.source, "largest_message_bytes": None}
    told = f"{'unknown size' if segment.bytes is None else size(segment.bytes)} ({segment.source})"
    if segment.problem:
        return Finding("shared-memory segment", "fail", segment.problem, "Mend the Fast DDS configuration.", values)
    if load is None:
        hint = "; give --embodiment to compare it with the largest image" if segment.bytes and segment.shared else ""
        return Finding("shared-memory segment", "ok", told + hint, values=values)
    values["largest_message_bytes"] = load.largest.wire_bytes
    told = f"{told}; largest message {size(load.largest.wire_bytes)} on {load.largest.topic}"
    verdict, outcome, remedy = _compared(segment, load.largest)
    return Finding("shared-memory segment", verdict, told + outcome, remedy, values)


def _compared(segment: Segment, largest: Message) -> tuple[Verdict, str, str]:
    """Return the verdict, what happens, and what to do."""
    if segment.shared and segment.bytes is not None and segment.bytes > largest.wire_bytes:
        return "ok", "", MIXED if "LARGE_DATA" in segment.source else ""
    if not segment.shared and largest.wire_bytes <= PACKET_BYTES:
        return "ok", "", ""
    advice = (
        "Start the camera drivers with "
        f'`export FASTDDS_BUILTIN_TRANSPORTS="DEFAULT?sockets_size={_megabytes(largest.wire_bytes)}MB"`: '
        "the sender's segment counts."
    )
    if segment.bytes is None and segment.shared:
        return "unknown", "", advice
    if largest.reliable or not segment.shared:
        return "warn", ": late, or lost where sent best-effort", advice
    return "fail", ": best-effort messages are lost", advice


@dataclass(frozen=True)
class Running:
    """One participant's segment in shared memory."""

    bytes: int
    uid: int
    alive: bool


def running(host: Host) -> list[Running]:
    """Return the segments of Fast DDS participants on this computer; a dead one's lock can be taken."""
    found = []
    for path in sorted(host.shm.iterdir()) if host.shm.is_dir() else []:
        if SEGMENT.fullmatch(path.name):
            with contextlib.suppress(OSError):
                facts = path.stat()
                found.append(Running(facts.st_size, facts.st_uid, _locked(path.with_name(f"{path.name}_el"))))
    return found


def _locked(path: Path) -> bool:
    """Return whether another process holds a lock file."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def check_participants(host: Host, load: Load | None) -> Finding:
    """Look at the segments of what is running now: the sender's counts, whatever this shell is set to."""
    found = running(host)
    alive = [one for one in found if one.alive]
    strangers = [one for one in alive if one.uid != host.uid]
    largest = max((one.bytes for one in alive), default=0)
    values = {
        "alive": len(alive),
        "left_behind": len(found) - len(alive),
        "of_other_users": len(strangers),
        "largest_segment_bytes": largest,
    }
    told = f"{len(alive)} running, largest segment {size(largest)}" if alive else "none is running"
    if strangers:
        remedy = "Run the drivers and the recorder as one user, or shared memory between them fails without a word."
        return Finding("participants", "warn", f"{told}; {len(strangers)} of other users", remedy, values)
    if alive and load is not None and largest <= load.largest.wire_bytes and not load.largest.reliable:
        remedy = "Start the camera drivers with the setting of `shared-memory segment`; the sender's size counts."
        return Finding("participants", "warn", f"{told}, less than {load.largest.topic} needs", remedy, values)
    if len(found) > len(alive):
        told += f"; {len(found) - len(alive)} segments left behind by killed processes"
    return Finding("participants", "ok", told, values=values)


def check_shm(host: Host) -> Finding:
    """Check the file system that holds the segments."""
    if not host.shm.is_dir():
        remedy = "Mount a tmpfs on /dev/shm (Docker: --shm-size=1g), or set FASTDDS_BUILTIN_TRANSPORTS=UDPv4."
        return Finding("shared memory", "fail", f"{host.shm} is not there", remedy)
    space = host.space(host.shm)
    values = {"total_bytes": space.total, "free_bytes": space.free}
    told = f"{size(space.free)} free of {size(space.total)}"
    if space.free < SHM_FREE_MIN or space.total <= SHM_FREE_MIN:
        remedy = (
            "Give it 1 GiB (`mount -o remount,size=1G /dev/shm`; Docker: --shm-size=1g), or clean what is left in it."
        )
        return Finding("shared memory", "warn", told, remedy, values)
    return Finding("shared memory", "ok", told, values=values)
