"""Import a bag and compare what came of it with what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from bags import expected

from lehrling.collection.bag_files import open_bag
from lehrling.collection.bag_import import ImportOptions, import_bag
from lehrling.collection.bag_records import BagCutError, BagMessage
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Embodiment, load_embodiment, parse_embodiment

if TYPE_CHECKING:
    from pathlib import Path

    from bags import Sent

    from lehrling.collection.bag_report import ImportReport
    from lehrling.datasets.episode import Episode

ARM6 = load_embodiment("arm6")


def changed(changes: dict[str, Any], base: Embodiment = ARM6) -> Embodiment:
    """Return an embodiment with some keys of its contract or binding replaced."""
    data = base.model_dump(mode="json")
    for path, value in changes.items():
        *parents, last = path.split(".")
        place = data
        for name in parents:
            place = place[name]
        place[last] = value
    return parse_embodiment(data, "test")


def one_stream(
    kind: str, topic: str, msgtype: str, *, field: str = "", shape: tuple[int, ...] = (), **more: Any
) -> Embodiment:
    """Return an embodiment of a single stream `data`."""
    stream = {"name": "data", "kind": kind, "shape": list(shape), **more}
    source = {"topic": topic, "type": msgtype, "field": field}
    joints = [{"name": name} for name in more.get("names", ())]
    contract = {"joints": joints, "streams": [stream]}
    return parse_embodiment({"name": "one", "contract": contract, "binding": {"sources": {"data": [source]}}}, "test")


def take(source: Path, root: Path, embodiment: Embodiment = ARM6, **options: Any) -> tuple[ImportReport, Episode]:
    """Import a bag of one episode; return the report and the episode."""
    report = import_bag(source, root, embodiment, ImportOptions("put the part into the tray", **options))
    assert len(report.episodes) == 1
    return report, Dataset.open(root).episode(report.episodes[0].id)


def check_rows(episode: Episode, sent: list[Sent], *, whole: bool = True) -> None:
    """Compare each stream with what was sent: all of it, or its beginning."""
    for name, wanted in expected(sent).items():
        stream = episode.stream(name)
        count = len(stream)
        assert count == len(wanted.stamps) or (not whole and count < len(wanted.stamps)), name
        assert stream.stamp_ns.tolist() == wanted.stamps[:count], name
        assert stream.received_ns.tolist() == wanted.received[:count], name
        for row in range(count):
            if name in ("front", "wrist"):
                assert stream.encoded(row) == wanted.values[row]
            else:
                np.testing.assert_array_equal(stream.value[row], wanted.values[row])


def read(path: Path) -> tuple[list[tuple[str, bytes, int]], bool]:
    """Return a bag's messages as far as they can be read, and whether it was cut."""
    out: list[tuple[str, bytes, int]] = []
    try:
        with open_bag(path) as bag:
            records = (record for record in bag.records() if isinstance(record, BagMessage))
            out.extend((record.channel.topic, record.cdr, record.received_ns) for record in records)
    except BagCutError:
        return out, True
    return out, False
