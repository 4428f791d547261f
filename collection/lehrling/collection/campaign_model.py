"""What a campaign file says: tasks with their variations and quotas, stations, how operators are named."""

from __future__ import annotations

from string import Formatter
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lehrling.datasets.embodiment import Name

EPISODES_MAX = 1_000_000
KEY_FILE = "~/.config/lehrling/operators.key"
Value = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")]
StationId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Variation = dict[Name, Value]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _words(value: Any) -> Any:
    """Refuse what YAML made of a word, such as True of an unquoted `on`."""
    for word in value if isinstance(value, list) else [value]:
        if isinstance(word, (bool, int, float)):
            raise ValueError(f"YAML reads this value as {word!r}; put it in quotes")
    return value


class Weight(_Strict):
    """How much more, or less, of the cells that `when` matches is wanted."""

    when: Variation
    weight: Annotated[float, Field(gt=0, le=1000)]

    @field_validator("when", mode="before")
    @classmethod
    def _when_words(cls, value: Any) -> Any:
        return {k: _words(v) for k, v in value.items()} if isinstance(value, dict) else value


class Task(_Strict):
    """One task and the cells of its variations' product.

    Attributes:
        instruction: what operator and policy are told; `{object}` stands for the value of the variation `object`.
        episodes: wanted of a cell of weight 1; or `total`, of all cells together, shared out by weight.
        per: whether every robot, or every station, has to fill the cells, or all together.
        robots: that may do it; all, where none are named.
        exclude: combinations that are not wanted; a part of a combination excludes all that have it.
    """

    name: Name
    instruction: str
    variations: dict[Name, Annotated[tuple[Value, ...], Field(min_length=1, max_length=1000)]] = {}
    episodes: Annotated[int, Field(ge=1, le=EPISODES_MAX)] | None = None
    total: Annotated[int, Field(ge=1, le=EPISODES_MAX)] | None = None
    per: Literal["campaign", "robot", "station"] = "campaign"
    robots: tuple[Name, ...] = ()
    exclude: tuple[Variation, ...] = ()
    weights: tuple[Weight, ...] = ()

    @field_validator("variations", mode="before")
    @classmethod
    def _variation_words(cls, value: Any) -> Any:
        return {k: _words(v) for k, v in value.items()} if isinstance(value, dict) else value

    @field_validator("exclude", mode="before")
    @classmethod
    def _exclude_words(cls, value: Any) -> Any:
        for rule in value if isinstance(value, list) else []:
            for word in rule.values() if isinstance(rule, dict) else []:
                _words(word)
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.episodes is None) == (self.total is None):
            raise ValueError(f"task {self.name!r} needs either `episodes` (of each cell) or `total` (of all cells)")
        for axis, values in self.variations.items():
            _distinct(values, f"task {self.name!r}, variation {axis!r}")
        for rule in (*self.exclude, *(weight.when for weight in self.weights)):
            self._check_rule(rule)
        for _, place, spec, conversion in Formatter().parse(self.instruction):
            if place is not None and (place not in self.variations or spec or conversion):
                known = ", ".join(f"{{{axis}}}" for axis in self.variations) or "none"
                raise ValueError(
                    f"task {self.name!r}: the instruction's {{{place}}} is no variation; there are {known}"
                )
        return self

    def _check_rule(self, rule: Variation) -> None:
        if not rule:
            raise ValueError(f"task {self.name!r}: an empty rule would match every cell")
        for axis, value in rule.items():
            if axis not in self.variations:
                known = ", ".join(self.variations) or "none"
                raise ValueError(f"task {self.name!r}: a rule names the variation {axis!r}; there are {known}")
            if value not in self.variations[axis]:
                known = ", ".join(self.variations[axis])
                raise ValueError(f"task {self.name!r}: a rule names {axis} {value!r}; there are {known}")

    def told(self, variation: Variation) -> str:
        """Return the instruction of one cell."""
        return self.instruction.format(**variation)


class Station(_Strict):
    """A place where episodes are recorded.

    Attributes:
        robot: the embodiment's name.
        tasks: that can be done there; all, where none are named.
    """

    id: StationId
    robot: Name
    tasks: tuple[Name, ...] = ()


class Operators(_Strict):
    """How operators are named in the data.

    Attributes:
        pseudonyms: `keyed` stores a keyed hash of the id that an operator gives; `given` stores the id as it is, where ids
            are pseudonyms already.
        key_file: outside the dataset, readable by its owner alone; relative to the campaign file.
        figures: whether reports have figures per operator. Many employment contracts and works councils forbid it.
    """

    pseudonyms: Literal["keyed", "given"] = "keyed"
    key_file: str = KEY_FILE
    figures: bool = False


class Campaign(_Strict):
    """A campaign of data collection.

    Attributes:
        count: which sealed episodes fill quotas: those labelled a success, or all.
        seed: of the order among cells that are missing equally.
        break_min: a longer pause between two episodes of a station is not counted as work.
    """

    name: Name
    description: str = ""
    seed: int = 0
    count: Literal["success", "all"] = "success"
    break_min: Annotated[float, Field(gt=0, le=1440)] = 15.0
    tasks: Annotated[tuple[Task, ...], Field(min_length=1, max_length=1000)]
    stations: Annotated[tuple[Station, ...], Field(min_length=1, max_length=1000)]
    operators: Operators = Operators()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        _distinct([task.name for task in self.tasks], "tasks")
        _distinct([station.id for station in self.stations], "stations")
        names, robots = {task.name for task in self.tasks}, {station.robot for station in self.stations}
        for station in self.stations:
            if unknown := sorted(set(station.tasks) - names):
                raise ValueError(f"station {station.id!r} lists the task {unknown[0]!r}; there are {_listed(names)}")
        for task in self.tasks:
            if unknown := sorted(set(task.robots) - robots):
                raise ValueError(f"task {task.name!r} lists the robot {unknown[0]!r}; stations have {_listed(robots)}")
        return self

    def able(self, task: Task) -> tuple[Station, ...]:
        """Return the stations that can do a task."""
        return tuple(
            station
            for station in self.stations
            if (not station.tasks or task.name in station.tasks) and (not task.robots or station.robot in task.robots)
        )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _distinct(names: Any, where: str) -> None:
    seen = set[str]()
    for name in names:
        if name in seen:
            raise ValueError(f"{where}: {name!r} is there twice")
        seen.add(name)
