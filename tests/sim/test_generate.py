"""Demonstrations: what the simulator sent is what the dataset holds, again and again, through kills."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError
from lehrling.sim.catalogue import make_station
from lehrling.sim.generate import generate
from lehrling.sim.record import demonstrate
from lehrling.sim.seeding import Seeds
from lehrling.sim.sensing import JPEG_QUALITY


def hashes(root: Path) -> dict[str, str]:
    return {name: record.content_hash for name, record in Dataset.open(root).records.items()}


def test_values_stamps_and_jpegs_are_identical_to_what_the_simulator_sent(tmp_path: Path) -> None:
    root = tmp_path / "d.zarr"
    generate(root, "sorting", "iiwa", [7])
    sent: dict[str, list[tuple[bytes, int, int]]] = {}
    station, seeds = make_station("sorting", "iiwa", (96, 96)), Seeds(7)
    station.reset(seeds, disturb=True)
    demonstrate(station, seeds, lambda topic, cdr, stamp, at: sent.setdefault(topic, []).append((cdr, stamp, at)))
    station.close()
    episode = Dataset.open(root).episode("sorting-iiwa-00000007")
    checked = 0
    for stream in episode.contract.all_streams:
        source = episode.binding.sources[stream.name][0]
        rows, stored = sent[source.topic], episode.stream(stream.name)
        assert stored.stamp_ns.tolist() == [stamp for _, stamp, _ in rows]
        assert stored.received_ns.tolist() == [at for _, _, at in rows]
        for index, (cdr, _, _) in enumerate(rows):
            message = messages.decode(cdr, source.type)
            if stream.kind == "colour_image":
                assert stored.encoded(index) == message.data.tobytes()
            else:
                np.testing.assert_array_equal(stored.value[index], messages.numeric_row(message, source, stream)[0])
            checked += 1
    assert checked > 500
    assert JPEG_QUALITY >= 90


def test_streams_come_at_their_own_rates_with_noise_and_latency(tmp_path: Path) -> None:
    root = tmp_path / "d.zarr"
    generate(root, "kitting", "arm6", [1])
    timing = Dataset.open(root).records["kitting-arm6-00000001"].timing
    rates = {name: round(t.rate_hz) for name, t in timing.items()}
    assert (rates["joint_position"], rates["tcp_command"], rates["front"], rates["wrist"]) == (100, 20, 10, 10)
    assert 30 <= timing["front"].latency_ms <= 36
    assert 2 <= timing["joint_position"].latency_ms <= 2.4
    assert timing["tcp_command"].latency_ms == 0


def test_the_same_seeds_give_the_same_hashes_for_any_number_of_workers(tmp_path: Path) -> None:
    generate(tmp_path / "a", "kitting", "arm6", range(3), workers=1)
    generate(tmp_path / "b", "kitting", "arm6", [2, 0, 1], workers=2)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert len(set(hashes(tmp_path / "a").values())) == 3
    assert list(hashes(tmp_path / "b")) == [f"kitting-arm6-{seed:08d}" for seed in (2, 0, 1)]


def test_seeds_that_are_there_are_kept(tmp_path: Path) -> None:
    root = tmp_path / "d.zarr"
    generate(root, "kitting", "arm6", range(2))
    before = (root / "manifest.jsonl").read_bytes()
    report = generate(root, "kitting", "arm6", range(2))
    assert (report.made, len(report.kept)) == ((), 2)
    assert (root / "manifest.jsonl").read_bytes() == before
    assert len(generate(root, "kitting", "arm6", range(3)).made) == 1


@pytest.mark.parametrize("trial", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2))])
def test_a_generate_killed_at_a_random_time_keeps_what_was_sealed_and_finishes_alike(
    tmp_path: Path, trial: int
) -> None:
    root, whole = tmp_path / "d.zarr", tmp_path / "whole.zarr"
    generate(whole, "kitting", "arm6", range(6), workers=2)
    code = (
        "import sys; from pathlib import Path; from lehrling.sim.generate import generate\n"
        "if __name__ == '__main__': generate(Path(sys.argv[1]), 'kitting', 'arm6', range(6), workers=2)"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script), str(root)], stdout=subprocess.DEVNULL)
    while not (root / "manifest.jsonl").is_file():
        time.sleep(0.01)
        assert process.poll() is None
    time.sleep(random.Random(trial).uniform(0.8, 3.5))
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {e.id: e.record for e in Dataset.open(root).episodes()}
    time.sleep(0.2)
    with Dataset.open_for_writing(root) as dataset:
        assert {e.id: e.record for e in dataset.episodes()}.items() >= before.items()
        assert dataset.unfinished() == []
        assert dataset.verify().whole
        assert not dataset.repaired.lossy
    generate(root, "kitting", "arm6", range(6), workers=1)
    assert hashes(root) == hashes(whole)


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys; from pathlib import Path; from lehrling.sim.generate import generate\n"
        "if __name__ == '__main__': generate(Path(sys.argv[1]), 'kitting', 'arm6', range(200), workers=2)"
    )
    root = tmp_path / "d.zarr"
    process = subprocess.Popen([sys.executable, str(script), str(root)], stdout=subprocess.DEVNULL)
    while not list((root / "journals").glob("*")):
        time.sleep(0.02)
    children = [int(p) for p in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert children
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(running(pid) for pid in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(running(pid) for pid in children)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_nothing_to_do_and_unknown_names_are_refused(tmp_path: Path) -> None:
    for task, robot, seeds, workers, reason in (
        ("kitting", "arm6", [], 1, "at least one episode"),
        ("kitting", "arm6", [0], 0, "one worker"),
        ("juggling", "arm6", [0], 1, "no task 'juggling'"),
        ("kitting", "r2d2", [0], 1, "no robot 'r2d2'"),
    ):
        with pytest.raises(InputError, match=reason):
            generate(tmp_path / "d.zarr", task, robot, seeds, workers=workers)
    assert not (tmp_path / "d.zarr").exists()
