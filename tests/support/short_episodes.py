"""Episodes of a robot with one pose and one small camera: few files, so that every operation on them can be tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from edited import files
from recordings import ARM6, MS, jpeg

from lehrling.datasets import messages
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.edit_cut import trim
from lehrling.datasets.embodiment import Embodiment, parse_embodiment
from lehrling.datasets.errors import StorageError
from lehrling.datasets.journal import EpisodeMeta, JournalWriter

ROWS = 12
SYNCED = ROWS // 2 + 1
"""Rows that are synced while recording goes on."""


def _small() -> Embodiment:
    data = ARM6.model_dump(mode="json")
    contract, binding = data["contract"], data["binding"]
    contract["streams"] = [stream for stream in contract["streams"] if stream["name"] == "tcp_pose"]
    contract["cameras"] = [camera | {"height": 16, "width": 16} for camera in contract["cameras"][:1]]
    binding["sources"] = {name: binding["sources"][name] for name in ("tcp_pose", "front")}
    return parse_embodiment(data, "the small arm")


SMALL = _small()


def record(root: Path, name: str, rows: int = ROWS) -> None:
    """Write a whole journal: row k has the pose's x = k, and every fourth a picture; it is synced on the way."""
    meta = EpisodeMeta(name, "kitting", "put it there", "arm6", "robot")
    with JournalWriter(root, meta, SMALL, flush_s=60, fsync_s=60) as journal:
        for tick in range(rows):
            stamp = 10**18 + tick * 10 * MS
            journal.write("/tcp_pose", messages.pose_stamped([tick, 0, 0], [0, 1, 0, 0], stamp, "c"), received_ns=stamp)
            if tick % 4 == 0:
                image = messages.compressed_image(jpeg(tick, 16, 16), stamp, "front")
                journal.write("/front/image_raw/compressed", image, received_ns=stamp)
            if tick == rows // 2:
                _made_durable(journal)
        journal.close("success", "operator")


def _made_durable(journal: JournalWriter) -> None:
    """Do at once what the journal's threads do from time to time."""
    try:
        journal._flush()
        journal._sync()
    except OSError as error:
        raise StorageError(str(error)) from error


def values(dataset: Dataset, name: str) -> list[float]:
    """Return which rows an episode has, and look at every picture and stamp of it."""
    episode = dataset.episode(name)
    pose, front = episode.stream("tcp_pose"), episode.stream("front")
    found = [float(x) for x in pose.value[:, 0]]
    assert np.array_equal(pose.stamp_ns, [10**18 + int(x) * 10 * MS for x in found])
    for index, stamp in enumerate(front.stamp_ns):
        assert front.encoded(index) == jpeg((int(stamp) - 10**18) // (10 * MS), 16, 16)
    return found


def session(root: Path, done: list[str]) -> None:
    """Record an episode, seal it and cut its beginning off."""
    record(root, "two")
    done.append("ended")
    with Dataset.open_for_writing(root) as dataset:
        done.append("sealed")
        trim(dataset, [dataset.records["two"]], 0.03)
        done.append("trimmed")


def check(root: Path, before: dict[str, bytes], done: list[str], *, synced: bool) -> None:
    """Open for writing, and look at what is there."""
    with Dataset.open_for_writing(root) as dataset:
        assert files(root / "episodes" / "one") == before
        assert dataset.verify().whole
        assert {r.status for r in dataset.records.values()} <= {"sealed", "replaced"}
        assert dataset.unfinished() == []
        names = {episode.id for episode in dataset.episodes()}
        rows = {name: values(dataset, name) for name in names}
        assert rows.pop("one") == list(range(ROWS))
        if "two" in names and "ended" in done:
            assert (dataset.records["two"].outcome, dataset.records["two"].losses) == ("success", ())
    assert set(rows) in ([{"two"}, {"two.t1"}] if done or synced else [set(), {"two"}])
    if "trimmed" in done:
        assert set(rows) == {"two.t1"}
    if "two.t1" in rows:
        assert rows["two.t1"] == list(range(3, ROWS))
    else:
        least = ROWS if done else SYNCED if synced else 0
        found = rows.get("two", [])
        assert found == list(range(len(found)))
        assert len(found) >= least
    left = [p for p in root.rglob("*") if p.name.startswith(".") and p.name != ".lock"]
    assert not left
    assert sorted(p.name for p in (root / "episodes").iterdir()) == sorted({"one", "zarr.json", *rows, *_parents(rows)})
    assert not (root / "edit.json").exists()


def _parents(rows: dict[str, list[float]]) -> set[str]:
    return {name.removesuffix(".t1") for name in rows}
