"""A value that a stream's dtype does not hold is refused where it comes in; what it holds is sealed as it came."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from short_episodes import SMALL

from lehrling.collection.bound_topics import BoundTopics
from lehrling.collection.message_check import MessageCheck
from lehrling.datasets.dataset import Dataset, create_dataset
from lehrling.datasets.embodiment import Embodiment, parse_embodiment
from lehrling.datasets.errors import MessageError
from lehrling.datasets.journal import EpisodeMeta, JournalWriter
from lehrling.datasets.message_types import standard
from lehrling.datasets.messages import encode

START = 10**18
HELD = [
    ("uint8", "Int32", 255),
    ("uint8", "Bool", True),
    ("int64", "Int64", 2**60 + 1),
    ("int64", "Int64", -(2**63)),
    ("int64", "Float64", 3.0),
    ("float32", "Float64", 3.4e38),
    ("float64", "Float64", 1e300),
    ("uint16", "UInt64", 65535),
]
REFUSED = [
    ("uint8", "Int32", 256, "is 256, which uint8 does not hold"),
    ("uint8", "Int32", -1, "is -1, which uint8 does not hold"),
    ("int64", "Float64", 1.9, "is 1.9, which int64 does not hold"),
    ("int64", "Float64", 2.0**63, r"is 9.223372036854776e\+18, which int64 does not hold"),
    ("int64", "UInt64", 2**63, "is 9223372036854775808, which int64 does not hold"),
    ("float32", "Float64", 1e300, r"is 1e\+300, which float32 does not hold"),
    ("float64", "Float64", float("inf"), "is inf; correct the driver"),
]


@dataclass(frozen=True)
class Message:
    cdr: bytes
    received_ns: int = START


def robot(dtype: str, kind: str) -> Embodiment:
    data = SMALL.model_dump(mode="json")
    stream = {"name": "level", "kind": "scalar", "shape": [1], "dtype": dtype, "role": "observation"}
    data["contract"]["streams"].append(stream)
    source = {"topic": "/level", "type": f"std_msgs/msg/{kind}", "field": "data"}
    data["binding"]["sources"]["level"] = [source]
    return parse_embodiment(data, "the small arm")


def sent(kind: str, value: float) -> Message:
    return Message(encode(standard().make(f"std_msgs/msg/{kind}")(data=value)))


@pytest.mark.parametrize(("dtype", "kind", "value"), HELD)
def test_what_a_dtype_holds_is_sealed_as_it_came(tmp_path: Path, dtype: str, kind: str, value: float) -> None:
    embodiment, message = robot(dtype, kind), sent(kind, value)
    assert MessageCheck(embodiment, BoundTopics(embodiment), standard()).fit(message, "/level").rows == ("level",)
    create_dataset(root := tmp_path / "plant.zarr")
    with JournalWriter(root, EpisodeMeta("one", "kitting", "", "arm6", "robot"), embodiment) as journal:
        journal.write("/level", message.cdr, received_ns=START)
        journal.close("success", "operator")
    with Dataset.open_for_writing(root) as dataset:
        (found,) = dataset.episode("one").stream("level").value.ravel().tolist()
    assert found == (value if dtype != "float32" else pytest.approx(value, rel=1e-6))


@pytest.mark.parametrize(("dtype", "kind", "value", "told"), REFUSED)
def test_what_a_dtype_does_not_hold_is_refused_and_never_sealed_as_another_value(
    tmp_path: Path, dtype: str, kind: str, value: float, told: str
) -> None:
    embodiment, message = robot(dtype, kind), sent(kind, value)
    with pytest.raises(MessageError, match=f"Topic /level: element 0 of stream 'level' {told}"):
        MessageCheck(embodiment, BoundTopics(embodiment), standard()).fit(message, "/level")
    create_dataset(root := tmp_path / "plant.zarr")
    with JournalWriter(root, EpisodeMeta("one", "kitting", "", "arm6", "robot"), embodiment) as journal:
        journal.write("/level", message.cdr, received_ns=START)
        journal.close("success", "operator")
    with Dataset.open_for_writing(root) as dataset:
        assert dataset.records["one"].status == "quarantined"
    assert (root / "quarantine/one/meta.json").is_file()
