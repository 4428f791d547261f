"""What imports of other tools' frames share: how episodes are taken one by one, and what is told of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from lehrling.datasets.errors import DamageError, InputError, LockedError, StorageError
from lehrling.datasets.lockstep import Frames, times_at, write_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.embodiment import Embodiment
    from lehrling.datasets.journal import EpisodeMeta, Outcome
    from lehrling.datasets.lerobot_streams import Carrier

    Progress = Callable[[int, int], None]
    """Called with frames done and frames in all."""

NOTHING = "Nothing was imported."


@dataclass(frozen=True)
class FrameOptions:
    """How frames are taken.

    Attributes:
        rate_hz: frames per second; None takes what the source says.
        instruction: what was asked for; "" takes what the source says.
        embodiment: None derives one from the arrays.
        bgr: the channels of the images are blue, green, red.
    """

    rate_hz: float | None = None
    instruction: str = ""
    task: str = "imported"
    outcome: Outcome = "unknown"
    embodiment: Embodiment | None = None
    operator: str | None = None
    bgr: bool = False


@dataclass(frozen=True)
class FrameTaken:
    """An episode that is in the dataset; `new` says whether this import made it."""

    id: str
    name: str
    frames: int
    status: str
    new: bool
    reason: str = ""


@dataclass(frozen=True)
class FrameReport:
    """What an import did.

    Attributes:
        left_out: arrays that cannot be taken, and why.
        refused: episodes by their name in the source, and why.
    """

    source: str
    format: str
    rate_hz: float
    streams: dict[str, str]
    episodes: tuple[FrameTaken, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def lossy(self) -> bool:
        """Whether something of the source is not in the dataset."""
        return bool(self.left_out or self.refused) or any(episode.status != "sealed" for episode in self.episodes)

    def to_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return asdict(self) | {"lossy": self.lossy}


@dataclass
class Taking:
    """Takes episodes one by one and counts their frames: what is broken in one costs no other."""

    total: int
    progress: Progress | None
    done: int = 0

    def told(self, frames: int) -> None:
        """Count frames."""
        self.done += frames
        if self.progress is not None:
            self.progress(self.done, self.total)

    def each[Key](self, episodes: Iterable[tuple[Key, int, Callable[[], None]]]) -> dict[Key, str]:
        """Take every episode that can be, each a key, a number of frames and what takes it; return why others cannot.

        Raises:
            StorageError, LockedError: which would end every other episode too.
        """
        refused: dict[Key, str] = {}
        for key, frames, take in episodes:
            begun = self.done
            try:
                take()
            except (StorageError, LockedError):
                raise
            except (InputError, DamageError) as error:
                refused[key] = str(error)
            self.told(begun + frames - self.done)
        return refused


def check_some(taken: Sequence[object], refused: Mapping[Any, str]) -> None:
    """Refuse an import that took nothing.

    Raises:
        InputError: saying why the first episode was refused.
    """
    if not taken:
        raise InputError(f"{NOTHING} {next(iter(refused.values()))}")


@dataclass(frozen=True)
class Target:
    """Where frames go: a dataset, as one robot's, at one rate."""

    dataset: Dataset
    carried: tuple[Carrier, ...]
    embodiment: Embodiment
    rate_hz: float
    outcome: Outcome

    def store(
        self,
        meta: EpisodeMeta,
        name: str,
        frames: int,
        columns: Mapping[str, Any],
        pictures: Mapping[str, Any],
        told: Callable[[int], None],
    ) -> FrameTaken:
        """Write and seal an episode, unless it is there already; `name` is the source's, `pictures` are asked for last.

        Raises:
            InputError, DamageError: what the pictures raise.
            StorageError: the disk is full or failed.
        """
        known = self.dataset.records.get(meta.id)
        if known is not None and known.status != "discarded":
            return FrameTaken(meta.id, name, frames, known.status, new=False)
        content = Frames(times_at(self.rate_hz, frames), columns, pictures)
        write_frames(self.dataset.root, meta, self.embodiment, self.carried, content, self.outcome, told)
        record = self.dataset.finish(meta.id)
        return FrameTaken(meta.id, name, frames, record.status, new=True, reason=record.reason)

    def check(self, columns: Mapping[str, Any], where: str) -> None:
        """Refuse numbers that no stream can hold.

        Raises:
            InputError: naming column and frame.
        """
        for carrier in self.carried:
            if carrier.feature.key in columns and (reason := carrier.refusal(columns[carrier.feature.key])):
                raise InputError(f"{where}: {reason}.")
