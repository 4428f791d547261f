"""What LeRobot's checkpoint does not say of a baseline: the view that it was trained on. Needs no LeRobot."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lehrling.datasets.documents import explain, read_json
from lehrling.datasets.errors import DocumentError, InputError
from lehrling.datasets.files import write_durably
from lehrling.datasets.view import View

FACTS = "lehrling.json"
LAST = Path("checkpoints/last/pretrained_model")
"""Where a run keeps its newest policy."""
BYTES_MAX = 64 << 20
WHAT = "a baseline's description"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Demonstration(_Strict):
    """An episode that was trained on."""

    id: str
    content_hash: str


class BaselineFacts(_Strict):
    """Where a baseline comes from, and what its inputs and outputs are.

    Attributes:
        image_px: height and width of every image; 0 is the camera's own size.
        differences: actions that it gives as differences between rows.
    """

    lehrling_baseline: Literal[1] = 1
    lerobot: str
    cameras: tuple[str, ...]
    image_px: Annotated[int, Field(ge=0, le=4096)]
    rate_hz: Annotated[float, Field(gt=0, le=1000)]
    state_names: tuple[str, ...]
    action_names: Annotated[tuple[str, ...], Field(min_length=1)]
    view_key: str
    view_hash: str
    contract_hash: str
    seed: int
    steps: int
    episodes: tuple[Demonstration, ...]
    differences: tuple[str, ...] = ()

    @classmethod
    def of(cls, view: View, seed: int, steps: int) -> BaselineFacts:
        """Describe a policy that was trained on a view."""
        return cls(
            lerobot=metadata.version("lerobot"),
            cameras=tuple(view.spec.cameras),
            image_px=view.spec.image_px,
            rate_hz=view.spec.rate_hz,
            state_names=view.state_names,
            action_names=view.action_names,
            view_key=view.key,
            view_hash=view.spec.hash,
            contract_hash=view.contract_hash,
            seed=seed,
            steps=steps,
            episodes=tuple(Demonstration(id=e.id, content_hash=e.content_hash) for e in view.episodes),
            differences=tuple(field.stream for field in view.spec.action if field.representation == "delta"),
        )


def write_facts(folder: Path, facts: BaselineFacts) -> None:
    """Write them beside LeRobot's files; they come last, so that a checkpoint that has them is whole."""
    write_durably(folder / FACTS, (facts.model_dump_json(indent=1) + "\n").encode())


def baseline_folder(directory: Path) -> Path | None:
    """Return the folder of the baseline at `directory`, a checkpoint's policy or a whole run; None if it is none."""
    return next((found for found in (directory, directory / LAST) if (found / FACTS).is_file()), None)


def read_facts(folder: Path) -> BaselineFacts:
    """Read what `write_facts` wrote.

    Raises:
        InputError: it cannot be read, or is of another format; the message names the key.
    """
    path = folder / FACTS
    try:
        return BaselineFacts.model_validate(read_json(path, WHAT, bytes_max=BYTES_MAX))
    except DocumentError as error:
        raise InputError(f"{folder} holds no baseline: {error}") from error
    except ValidationError as error:
        raise InputError(explain(error, str(path), BaselineFacts, WHAT)) from error
