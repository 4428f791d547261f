"""A recorder: an open dataset, its capture processes and a session, put together."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lehrling.collection.capture_group import CaptureGroup, CaptureOptions
from lehrling.collection.capture_words import Status
from lehrling.collection.doctor import diagnose
from lehrling.collection.session import Phase, Plan, Session, SessionOptions, check_contract
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import InputError
from lehrling.deploy.ros_qos import check_override

NAMESPACE = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]{0,99}(?:/[A-Za-z_][A-Za-z0-9_]{0,99}){0,9})?")
Choose = Callable[[Dataset, Plan], Plan | None]
"""Returns what the next episode should show, or None where nothing is missing."""


@dataclass(frozen=True)
class RecorderConfig:
    """What is recorded, and where.

    Attributes:
        episodes: wanted in the dataset in all, of this robot and task; `more` in addition to those that are there.
        namespace: of the robot; None leaves the embodiment's.
        journal_images: None leaves the embodiment's.
        choose: asked before each episode, as by a campaign.
    """

    dataset: Path
    embodiment: Embodiment
    plan: Plan
    session: SessionOptions = field(default_factory=SessionOptions)
    capture: CaptureOptions = field(default_factory=CaptureOptions)
    episodes: int | None = None
    more: int | None = None
    namespace: str | None = None
    journal_images: str | None = None
    choose: Choose | None = None

    def __post_init__(self) -> None:
        if self.episodes is not None and self.more is not None:
            raise InputError("Expected --episodes (in all) or --more (in addition), got both.")


def bound_embodiment(config: RecorderConfig) -> Embodiment:
    """Return the embodiment as it is recorded: with this robot's namespace and images.

    Raises:
        InputError: `journal_images` is neither raw nor jpeg, or a namespace or a source's qos is not understood.
    """
    changes: dict[str, Any] = {}
    if config.namespace is not None:
        changes["namespace"] = config.namespace
    if config.journal_images:
        if config.journal_images not in ("raw", "jpeg"):
            raise InputError(f"Expected raw or jpeg for the journal's images, got {config.journal_images!r}.")
        changes["journal_images"] = config.journal_images
    binding = config.embodiment.binding.model_copy(update=changes)
    if not NAMESPACE.fullmatch(binding.namespace.strip("/")) or "__" in binding.namespace:
        raise InputError(
            f"Expected a namespace as ROS takes it, such as cell_3/left (letters, digits, _), got {binding.namespace[:80]!r}."
        )
    for sources in binding.sources.values():
        for source in sources:
            check_override(source.qos, source.topic)
    return config.embodiment.model_copy(update={"binding": binding})


class Recorder:
    """Records until closed; a context manager.

    Attributes:
        session: begins and ends episodes.
        statuses: what the capture processes told last.
        findings: all that they found since the recorder began, oldest first.
    """

    def __init__(self, config: RecorderConfig) -> None:
        """Open the dataset, which is created if absent and repaired if interrupted, and subscribe.

        Raises:
            LehrlingError: the dataset cannot be written or holds another contract, or a topic cannot be subscribed.
        """
        self.config, self.embodiment = config, bound_embodiment(config)
        self.dataset = Dataset.open_for_writing(config.dataset, create=True)
        self.capture = CaptureGroup(self.embodiment, config.capture)
        self.statuses: list[Status] = []
        self.findings: list[dict[str, Any]] = []
        try:
            check_contract(self.dataset, self.embodiment)
            with ThreadPoolExecutor(1) as aside:
                doctor = aside.submit(diagnose, config.dataset, self.embodiment)
                self.capture.start()
                self.doctor = doctor.result()
            self.session = Session(
                self.dataset, self.embodiment, self.capture, config.plan, self._options(), self._choose
            )
            self.session.prepare()
        except BaseException:
            self.capture.close()
            self.dataset.close()
            raise

    def _options(self) -> SessionOptions:
        config = self.config
        wanted = config.more
        if config.episodes is not None:
            wanted = max(0, config.episodes - self._there())
        facts = {"doctor": self.doctor.to_json(), "sim_time": config.capture.sim_time}
        return replace(config.session, episodes=wanted, facts={**config.session.facts, **facts})

    def _there(self) -> int:
        robot, task = self.embodiment.name, self.config.plan.task
        return sum(e.record.robot == robot and e.record.task == task for e in self.dataset.episodes())

    def tick(self, *, begin: bool = True) -> None:
        """Do what is due; to be called several times a second. No episode begins by itself without `begin`."""
        self.session.tick(begin=begin)
        self.statuses = self.capture.poll()
        self.findings += self.capture.findings()

    def _choose(self) -> None:
        """Take the plan of the next episode from the campaign, if there is one."""
        if self.config.choose is not None:
            plan = self.config.choose(self.dataset, self.session.plan)
            if plan is not None:
                self.session.plan = plan

    def interrupt(self, cause: str) -> None:
        """Save a running episode, if there is one."""
        if self.session.phase is Phase.RECORDING:
            self.session.save(cause=cause)

    def close(self, cause: str = "recorder stopped") -> None:
        """End the session, the capture processes and the lock; a running episode is saved and sealed."""
        try:
            self.session.close(cause)
        finally:
            self.capture.close()
            self.dataset.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
