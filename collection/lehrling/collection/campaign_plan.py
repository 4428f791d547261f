"""What to record next: the cell of a campaign that is missing most."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lehrling.collection.campaign import load_campaign
from lehrling.collection.campaign_cells import Cell
from lehrling.collection.campaign_model import Campaign, Station, Variation
from lehrling.collection.campaign_tally import DETAILS, Reader, Tally, tally
from lehrling.collection.pseudonyms import pseudonym
from lehrling.datasets.dataset import Dataset
from lehrling.datasets.errors import InputError

if TYPE_CHECKING:
    from lehrling.collection.session import Plan


@dataclass(frozen=True)
class Assignment:
    """One episode to record.

    Attributes:
        counted: episodes that the cell has; `pending` are being recorded somewhere; `quota` is wanted.
    """

    campaign: str
    task: str
    variation: Variation
    instruction: str
    station: str
    robot: str
    counted: int
    pending: int
    quota: int

    @property
    def details(self) -> dict[str, Any]:
        """What the episode has to say of itself: `EpisodeMeta.details`."""
        said = {"name": self.campaign, "task": self.task, "variation": self.variation, "station": self.station}
        return {DETAILS: said}


@dataclass(frozen=True)
class Progress:
    """How far a campaign is.

    Attributes:
        counted: episodes that fill quotas; more than a cell's quota count as its quota.
    """

    counted: int
    quota: int
    cells_full: int
    cells: int

    @property
    def share(self) -> float:
        """Between 0 and 1."""
        return self.counted / self.quota


def progress(campaign: Campaign, dataset: Dataset) -> Progress:
    """Return how far a campaign is."""
    return progress_of(tally(campaign, dataset))


def progress_of(found: Tally) -> Progress:
    """Return how far a campaign is, from its tally."""
    counted = [min(found.counted.get(cell.key, 0), cell.quota) for cell in found.cells]
    full = sum(count == cell.quota for count, cell in zip(counted, found.cells, strict=True))
    return Progress(sum(counted), sum(cell.quota for cell in found.cells), full, len(found.cells))


def find_station(campaign: Campaign, name: str) -> Station:
    """Return a station by its id.

    Raises:
        InputError: there is none.
    """
    for station in campaign.stations:
        if station.id == name:
            return station
    known = ", ".join(station.id for station in campaign.stations)
    raise InputError(f"Campaign {campaign.name!r} has no station {name!r}; it has {known}.")


def plan_next(campaign: Campaign, dataset: Dataset, station: str, reader: Reader | None = None) -> Assignment | None:
    """Return the cell that is missing most at a station, None where nothing is missing there.

    Missing most is the cell of which the largest share of its quota is missing, then the largest number; equals are taken in
    an order drawn from the campaign's seed, another one after each episode. Episodes that are being recorded count as there.

    Raises:
        InputError: the campaign has no such station.
    """
    here = find_station(campaign, station)
    found = tally(campaign, dataset, reader)
    able = {task.name: task for task in campaign.tasks if here in campaign.able(task)}
    holder = {"campaign": "", "robot": here.robot, "station": here.id}
    open_cells = [
        cell
        for cell in found.cells
        if (task := able.get(cell.key.task)) and cell.key.holder == holder[task.per] and _missing(found, cell) > 0
    ]
    if not open_cells:
        return None
    done = len(found.episodes)
    best = max(open_cells, key=lambda cell: _urgency(found, cell, campaign.seed, done))
    variation = dict(best.key.variation)
    return Assignment(
        campaign.name,
        best.key.task,
        variation,
        able[best.key.task].told(variation),
        here.id,
        here.robot,
        found.counted.get(best.key, 0),
        found.pending.get(best.key, 0),
        best.quota,
    )


def _missing(found: Tally, cell: Cell) -> int:
    return cell.quota - found.counted.get(cell.key, 0) - found.pending.get(cell.key, 0)


def _urgency(found: Tally, cell: Cell, seed: int, done: int) -> tuple[float, int, bytes]:
    missing = _missing(found, cell)
    lot = hashlib.sha256(f"{seed}\0{done}\0{cell.key}".encode()).digest()
    return missing / cell.quota, missing, lot


def chooser(path: Path, station: str) -> Callable[[Dataset, Plan], Plan]:
    """Return what a recorder asks before each episode: the next plan, with the operator's pseudonym in place of the id.

    What is returned raises `InputError` where nothing is missing at the station, so that no episode begins.

    Raises:
        InputError: the file cannot be used, or the campaign has no such station.
    """
    campaign, reader, issued = load_campaign(path), Reader(), set[str | None]()
    find_station(campaign, station)

    def choose(dataset: Dataset, plan: Plan) -> Plan:
        operator = plan.operator
        if operator not in issued:
            operator = pseudonym(campaign, operator, dataset.root)
            issued.add(operator)
        assignment = plan_next(campaign, dataset, station, reader)
        if assignment is None:
            raise InputError(
                f"Campaign {campaign.name!r} has all that it wants from station {station!r}; nothing is missing."
            )
        details = {**plan.details, **assignment.details}
        return replace(
            plan, task=assignment.task, instruction=assignment.instruction, operator=operator, details=details
        )

    return choose
