"""What an episode that came from LeRobot remembers of that dataset, so that it can go back as it came."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lehrling.datasets.errors import DamageError
from lehrling.datasets.lerobot_format import Feature

if TYPE_CHECKING:
    from lehrling.datasets.episode import Episode

DETAIL = "lerobot"
"""The key among an episode's details."""


@dataclass(frozen=True)
class TaskRun:
    """A task from row `first` on; `index` is LeRobot's number of it, None where there is none yet."""

    first: int
    index: int | None
    text: str


@dataclass(frozen=True)
class Origin:
    """The dataset that an episode is from.

    Attributes:
        features: in LeRobot's order, without index columns and without what could not be taken.
        streams: the contract's stream by feature key.
        tasks: of this episode.
    """

    fps: int
    robot_type: str | None
    features: tuple[Feature, ...]
    streams: dict[str, str]
    tasks: tuple[TaskRun, ...]

    @property
    def same(self) -> tuple[object, ...]:
        """What must be equal for two episodes to be in one LeRobot dataset."""
        return self.fps, self.robot_type, [(f.to_json(), self.streams[f.key]) for f in self.features]

    def to_json(self) -> dict[str, Any]:
        """Return it as an episode's detail; cameras without the facts of their old encoding."""
        features = [
            {"key": f.key, "stream": self.streams[f.key], "dtype": f.dtype, "shape": list(f.shape), "names": f.names}
            for f in self.features
        ]
        runs = [[run.first, run.index, run.text] for run in self.tasks]
        return {"fps": self.fps, "robot_type": self.robot_type, "features": features, "tasks": runs}


def origin_of(episode: Episode) -> Origin | None:
    """Return an episode's origin, None where it did not come from LeRobot.

    Raises:
        DamageError: the detail is not as `to_json` writes it.
    """
    found = episode.attributes.get("details", {}).get(DETAIL)
    if found is None:
        return None
    try:
        features = tuple(
            Feature(str(f["key"]), str(f["dtype"]), tuple(int(n) for n in f["shape"]), f["names"])
            for f in found["features"]
        )
        streams = {str(f["key"]): str(f["stream"]) for f in found["features"]}
        runs = tuple(
            TaskRun(int(first), None if index is None else int(index), str(text))
            for first, index, text in found["tasks"]
        )
        robot = found["robot_type"]
        return Origin(int(found["fps"]), None if robot is None else str(robot), features, streams, runs)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise DamageError(f"Episode {episode.id!r} does not say properly which LeRobot dataset it is from.") from error
