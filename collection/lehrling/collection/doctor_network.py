"""Checks of the kernel's buffers for messages that come over the network (ROS 2 DDS tuning guide)."""

from __future__ import annotations

from lehrling.collection.doctor_host import Host, size
from lehrling.collection.doctor_report import Finding
from lehrling.collection.doctor_ros import local_only

BUFFER_MIN = 4_000_000
"""Fast DDS asks for about 4 MB, Cyclone for 1 MB; the kernel grants no more than its maximum."""
FRAGMENTS_MIN = 128 << 20
FRAGMENT_TIME_MAX_S = 3


def check_socket_buffers(host: Host) -> Finding:
    """Check how much a socket may hold while the recorder is busy."""
    folder = host.proc / "sys/net/core"
    received, sent = host.number(folder / "rmem_max"), host.number(folder / "wmem_max")
    values = {"rmem_max_bytes": received, "wmem_max_bytes": sent}
    if received is None or sent is None:
        remedy = "Look on the host itself: containers with a network of their own do not see net.core.rmem_max."
        return Finding("socket buffers", "unknown", "net.core.rmem_max and wmem_max cannot be read", remedy, values)
    told = f"at most {size(received)} in, {size(sent)} out"
    if local_only(host):
        return Finding("socket buffers", "ok", f"{told}; not needed, discovery stays on this computer", values=values)
    if min(received, sent) >= BUFFER_MIN:
        return Finding("socket buffers", "ok", told, values=values)
    remedy = "`sysctl -w net.core.rmem_max=16777216 net.core.wmem_max=16777216`, and the same in /etc/sysctl.d."
    return Finding("socket buffers", "warn", f"{told}; large messages from other computers are lost", remedy, values)


def check_fragments(host: Host) -> Finding:
    """Check how the kernel puts messages larger than a packet together again."""
    folder = host.proc / "sys/net/ipv4"
    seconds, memory = host.number(folder / "ipfrag_time"), host.number(folder / "ipfrag_high_thresh")
    values = {"ipfrag_time_s": seconds, "ipfrag_high_thresh_bytes": memory}
    if seconds is None or memory is None:
        return Finding("fragments", "unknown", "net.ipv4.ipfrag_* cannot be read", "Look on the host itself.", values)
    told = f"{size(memory)} for incomplete messages, kept {seconds} s"
    if local_only(host):
        return Finding("fragments", "ok", f"{told}; not needed, discovery stays on this computer", values=values)
    if seconds <= FRAGMENT_TIME_MAX_S and memory >= FRAGMENTS_MIN:
        return Finding("fragments", "ok", told, values=values)
    remedy = f"`sysctl -w net.ipv4.ipfrag_time={FRAGMENT_TIME_MAX_S} net.ipv4.ipfrag_high_thresh={FRAGMENTS_MIN}`."
    return Finding("fragments", "warn", f"{told}; one lost packet of an image can block the next", remedy, values)
