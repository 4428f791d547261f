"""Checks of the clocks: whether stamps of two computers can be compared, and how fine they are."""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

from lehrling.collection.doctor_host import Host
from lehrling.collection.doctor_report import Finding, Value

STA_UNSYNC, TIME_ERROR = 0x0040, 5
ERROR_WARN_US = 50_000
STEP_WARN_NS = 1_000_000
DAEMONS = ("chronyd", "ntpd", "systemd-timesyn", "ptp4l", "phc2sys", "ntpd-rs")
SLOW_SOURCES = ("hpet", "acpi_pm", "jiffies", "refined-jiffies")


@dataclass(frozen=True)
class KernelClock:
    """What adjtimex(2) says of the realtime clock."""

    state: int
    status: int
    error_us: int

    @property
    def synchronised(self) -> bool:
        """Whether a program keeps it in step with a reference."""
        return self.state != TIME_ERROR and not self.status & STA_UNSYNC


class _Timex(ctypes.Structure):
    """Linux's struct timex, read only; the tail takes what the kernel writes beyond what is used here."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("frequency", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_long * 40),
    )


def read_kernel_clock() -> KernelClock | None:
    """Ask the kernel; None where it does not answer."""
    try:
        libc = ctypes.CDLL(ctypes.util.find_library("c") or "libc.so.6", use_errno=True)
        timex = _Timex()
        state = int(libc.adjtimex(ctypes.byref(timex)))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else KernelClock(state, timex.status, timex.maxerror)


def daemons(host: Host) -> list[str]:
    """Return the names of running programs that keep clocks."""
    names = {host.text(path) for path in host.proc.glob("[0-9]*/comm")}
    return [name for name in DAEMONS if name in names]


def check_synchronisation(host: Host, clock: KernelClock | None) -> Finding:
    """Say whether this computer's clock follows a reference, as far as that can be told from here."""
    keepers = daemons(host)
    timesyncd = (host.run / "systemd/timesync/synchronized").is_file()
    values: dict[str, Value] = {
        "kernel_synchronised": None if clock is None else clock.synchronised,
        "max_error_us": None if clock is None else clock.error_us,
        "programs": ", ".join(keepers),
    }
    by = f" by {', '.join(keepers)}" if keepers else ""
    if clock is not None and clock.synchronised:
        told = f"synchronised{by}, off by at most {clock.error_us / 1e3:.1f} ms"
        if clock.error_us <= ERROR_WARN_US:
            return Finding("clock", "ok", told, values=values)
        remedy = "Use chrony with a server in the same network, or PTP, where sensors sit on other computers."
        return Finding("clock", "warn", told, remedy, values)
    if timesyncd:
        return Finding("clock", "ok", "synchronised by systemd-timesyncd, how closely is unknown", values=values)
    if keepers:
        remedy = "Ask it: `chronyc tracking`, `ntpq -p`, or the log of phc2sys."
        return Finding("clock", "unknown", f"the kernel knows of no reference, but {keepers[0]} runs", remedy, values)
    if clock is None:
        return Finding("clock", "unknown", "the kernel does not tell", "Ask the host: `chronyc tracking`.", values)
    remedy = "Run chrony on every computer that stamps data; on one computer alone, stamps still agree with each other."
    return Finding("clock", "warn", "not synchronised: stamps of two computers cannot be compared", remedy, values)


def smallest_step_ns(clock: Callable[[], int]) -> int:
    """Return the smallest step seen between different readings, ns."""
    readings = [clock() for _ in range(2000)]
    return min((b - a for a, b in itertools.pairwise(readings) if b > a), default=0)


def check_resolution(
    host: Host,
    realtime: Callable[[], int] = time.time_ns,
    monotonic: Callable[[], int] = time.monotonic_ns,
) -> Finding:
    """Check how fine receive stamps are."""
    steps = {"realtime_step_ns": smallest_step_ns(realtime), "monotonic_step_ns": smallest_step_ns(monotonic)}
    source = host.text(host.sys / "devices/system/clocksource/clocksource0/current_clocksource") or ""
    values: dict[str, Value] = {**steps, "clocksource": source or None}
    told = ", ".join(f"{name.split('_')[0]} {step} ns" for name, step in steps.items())
    told += f" from {source}" if source else ""
    if 0 in steps.values() or max(steps.values()) > STEP_WARN_NS:
        return Finding(
            "clock resolution", "warn", f"{told}: coarse", "Record on a computer with a finer clock.", values
        )
    if source in SLOW_SOURCES:
        remedy = f"Reading {source} is slow; boot with clocksource=tsc where the processor's is stable."
        return Finding("clock resolution", "warn", told, remedy, values)
    return Finding("clock resolution", "ok", told, values=values)
