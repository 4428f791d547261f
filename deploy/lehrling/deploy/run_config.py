"""What a robot that a policy drives is told: embodiment, policy server, guard, and the topics beside the embodiment's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lehrling.datasets.documents import explain
from lehrling.datasets.embodiment import Embodiment
from lehrling.datasets.errors import InputError
from lehrling.deploy.guard_limits import GuardConfig
from lehrling.deploy.server import is_loopback
from lehrling.deploy.station import guard_config, station
from lehrling.training.chunk import Mode

Topic = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z_][A-Za-z0-9_]*)+$|^$")]


class RunConfig(BaseModel):
    """A robot with a policy.

    Attributes:
        embodiment: name or YAML file.
        namespace: of the robot's topics; the embodiment's own where none is given.
        server: policy server, ws:// or wss://.
        key_file: its API key, in the first line.
        certificate: its certificate (PEM), trusted instead of what the machine trusts.
        guard: configuration of the guard (YAML).
        success_topic: std_msgs/Bool; true ends a cycle as a success. Of the robot's namespace.
        enable_topic: std_msgs/Bool, to be repeated at 10 Hz or more while the robot may move, as from an enabling switch;
            needed beside the permission of whoever starts cycles, a PLC's too.
        interventions: prefix under which an operator's device sends the embodiment's command topics to take over.
        corrections: dataset into which interventions are recorded.
        traces: folder for what was asked, sent and measured, a file a cycle.
        black_box: dataset into which the last 30 s before a stop or fault are written.
        mode, execute: of the chunk runtime, see `Recipe`; a node of one recipe says them there.
        connect_s: how long to wait for the policy server.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    embodiment: str
    namespace: str | None = None
    server: Annotated[str, StringConstraints(pattern=r"^wss?://[^\s/]+/?$")] = "ws://127.0.0.1:8000"
    key_file: Path | None = None
    certificate: Path | None = None
    guard: Path | None = None
    success_topic: Topic = ""
    enable_topic: Topic = ""
    interventions: Topic = ""
    corrections: Path | None = None
    traces: Path | None = None
    black_box: Path | None = None
    mode: Mode = "async"
    execute: Annotated[int, Field(ge=0, le=1024)] = 0
    connect_s: Annotated[float, Field(gt=0, le=600)] = 60.0

    @model_validator(mode="after")
    def _keep_key(self) -> Self:
        host = urlsplit(self.server).hostname or ""
        if self.key_file is not None and self.server.startswith("ws:") and not is_loopback(host):
            raise ValueError(
                f"Expected wss:// for a server on another machine, got {self.server}, where the key would go unencrypted."
            )
        return self

    def robot(self) -> Embodiment:
        """Return the robot, under its namespace.

        Raises:
            InputError: there is no such embodiment.
        """
        return station(self.embodiment, self.namespace)

    def limits(self, robot: Embodiment) -> GuardConfig:
        """Return the guard's configuration, with a file for its latched stop.

        Raises:
            InputError: the file is no guard configuration.
        """
        return guard_config(self.guard, robot)

    def key(self) -> str | None:
        """Return the API key.

        Raises:
            InputError: the file cannot be read, or its first line is no key.
        """
        if self.key_file is None:
            return None
        try:
            with self.key_file.open(encoding="ascii") as file:
                key = file.readline(1000).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"Expected an API key in the first line of {self.key_file}: {error}.") from error
        if not key:
            raise InputError(f"Expected an API key in the first line of {self.key_file}, but it is empty.")
        return key


PATHS = ("key_file", "certificate", "guard", "corrections", "traces", "black_box")


def parse_run_config(data: Mapping[str, object], where: Path) -> RunConfig:
    """Return the configuration that a mapping holds; paths are relative to the folder of the file `where`.

    Raises:
        InputError: a key or value is wrong; the message names it.
    """
    try:
        config = RunConfig.model_validate(dict(data))
    except ValidationError as error:
        raise InputError(explain(error, f"{where}: runtime", RunConfig, "a robot's configuration")) from error
    moved: dict[str, object] = {
        name: where.parent / path for name in PATHS if (path := getattr(config, name)) is not None
    }
    nearby = where.parent / config.embodiment
    if nearby.is_file():
        moved["embodiment"] = str(nearby)
    return config.model_copy(update=moved)
