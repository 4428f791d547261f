"""Recordings whose timing is known: every delay, jitter, clock, loss, freeze and gap is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from recordings import ARM6, MS, meta

from lehrling.datasets import messages
from lehrling.datasets.journal import JournalWriter

START_NS = 1_700_000_000_000_000_000
Jitter = Callable[[np.random.Generator, int], NDArray[np.float64]]
"""Milliseconds on top of the shortest delay."""


def exponential(scale_ms: float) -> Jitter:
    return lambda rng, count: rng.exponential(scale_ms, count)


def heavy(scale_ms: float) -> Jitter:
    return lambda rng, count: scale_ms * rng.lognormal(0.0, 1.0, count)


@dataclass(frozen=True)
class Timed:
    """A stream as its sender and the way to the recorder make it.

    Attributes:
        delay_ms: shortest time from sending to receipt, to which `jitter` adds.
        offset_ms, drift_ppm: sender's clock against the recorder's, from the beginning.
        lost: indices of messages that never arrive, with their sequence number gone.
        silent_s: from, to: nothing is sent, and no number used up.
        frozen: first and last frame index of a run of equal frames.
        step: second and milliseconds at which the sender's clock is set.
    """

    rate_hz: float
    delay_ms: float = 0.0
    jitter: Jitter | None = None
    offset_ms: float = 0.0
    drift_ppm: float = 0.0
    phase_ms: float = 0.0
    lost: tuple[int, ...] = ()
    silent_s: tuple[float, float] | None = None
    frozen: tuple[int, int] | None = None
    step: tuple[float, float] | None = None
    numbered: bool = True


@dataclass(frozen=True)
class Sent:
    """Messages in order of sending: true times of sending and receipt [s from the beginning], stamps, numbers."""

    index: NDArray[np.int64]
    sent_s: NDArray[np.float64]
    received_s: NDArray[np.float64]
    stamp_ns: NDArray[np.int64]

    @property
    def received_ns(self) -> NDArray[np.int64]:
        return START_NS + (self.received_s * 1e9).round().astype(np.int64)


def send(timed: Timed, seconds: float, seed: int) -> Sent:
    """Send for some seconds."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(timed.rate_hz * seconds)) / timed.rate_hz + timed.phase_ms / 1e3
    if timed.silent_s is not None:
        times = times[(times < timed.silent_s[0]) | (times >= timed.silent_s[1])]
    late = timed.jitter(rng, len(times)) if timed.jitter is not None else np.zeros(len(times))
    received = times + (timed.delay_ms + late) / 1e3
    clock = times * (1 + timed.drift_ppm * 1e-6) + timed.offset_ms / 1e3
    if timed.step is not None:
        clock += np.where(times >= timed.step[0], timed.step[1] / 1e3, 0.0)
    stamps = START_NS + (clock * 1e9).round().astype(np.int64)
    kept = np.setdiff1d(np.arange(len(times)), timed.lost)
    return Sent(kept, times[kept], received[kept], stamps[kept])


def frames(count: int = 8) -> list[bytes]:
    """Make small JPEG frames that differ."""
    return [simplejpeg.encode_jpeg(np.full((96, 96, 3), 20 * k + 10, np.uint8), quality=80) for k in range(count)]


TOPICS = {
    "joint_position": "/joint_states",
    "tcp_pose": "/tcp_pose",
    "front": "/front/image_raw/compressed",
    "wrist": "/wrist/image_raw/compressed",
}


def record_timed(
    root: Path,
    name: str,
    streams: dict[str, Timed],
    seconds: float,
    *,
    realtime_set: tuple[float, float] | None = None,
    facts: dict[str, object] | None = None,
) -> dict[str, Sent]:
    """Write a journal of arm6's streams; `realtime_set` is a second and milliseconds at which the recorder's clock is set."""
    sent = {stream: send(timed, seconds, seed) for seed, (stream, timed) in enumerate(streams.items())}
    pictures, rows = frames(), []
    for stream, timed in streams.items():
        for k in range(len(sent[stream].index)):
            rows.append((sent[stream].received_s[k], stream, timed, k))  # noqa: PERF401
    with JournalWriter(root, meta(name), ARM6) as journal:
        for received_s, stream, timed, k in sorted(rows, key=lambda row: row[0]):
            at, index = round(received_s * 1e9), int(sent[stream].index[k])
            leap = round(realtime_set[1] * MS) if realtime_set is not None and received_s >= realtime_set[0] else 0
            journal.write(
                TOPICS[stream],
                _message(stream, timed, index, int(sent[stream].stamp_ns[k]), pictures),
                received_ns=START_NS + at + leap,
                monotonic_ns=5_000_000_000 + at,
                sequence=index if timed.numbered else None,
            )
        journal.close("success", "test", (), facts)
    return sent


def _message(stream: str, timed: Timed, index: int, stamp_ns: int, pictures: list[bytes]) -> bytes:
    if stream == "joint_position":
        names = [joint.name for joint in ARM6.contract.joints]
        return messages.joint_state(names, np.full(7, index / 1000), [], [], stamp_ns)
    if stream == "tcp_pose":
        return messages.pose_stamped([0.1, 0, 0], [0, 1, 0, 0], stamp_ns, "cell")
    if timed.frozen is not None and timed.frozen[0] <= index <= timed.frozen[1]:
        index = timed.frozen[0]
    return messages.compressed_image(pictures[index % len(pictures)], stamp_ns, stream)
