"""A handshake on a bench: a made-up PLC, a made-up clock and a runtime without a robot."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fake_runtime import MS, FakeRuntime

from lehrling.deploy.cell import ask
from lehrling.deploy.handshake import Handshake
from lehrling.deploy.handshake_image import (
    U16,
    Answer,
    Command,
    Commands,
    HandshakeOptions,
    Mode,
    RecipeLimits,
    Status,
)
from lehrling.deploy.runtime import RuntimeState

OPTIONS = HandshakeOptions(
    recipes={1: RecipeLimits(cycle_max_ns=2_000 * MS), 2: RecipeLimits(2_000 * MS, speed_max=0.5)},
    heartbeat_timeout_ns=200 * MS,
    answer_ns=1_000 * MS,
)


@dataclass
class Bench:
    """Steps a handshake every 20 ms; the PLC's heartbeat goes on unless `beating` is off."""

    options: HandshakeOptions = OPTIONS
    commands: Commands = field(default_factory=Commands)
    beating: bool = True
    trouble: dict[int, str] = field(default_factory=dict)
    now_ns: int = 1_000 * MS

    def __post_init__(self) -> None:
        self.runtime = FakeRuntime(clock=lambda: self.now_ns)
        self.handshake = Handshake(self.options)
        self.answer = Answer(Status())
        self.before = RuntimeState()
        self.kinds: list[str] = []

    @property
    def status(self) -> Status:
        return self.answer.status

    def step(self, after_ns: int = 20 * MS) -> Answer:
        """Let time pass and step once."""
        self.now_ns += after_ns
        if self.beating:
            self.commands = replace(self.commands, heartbeat=(self.commands.heartbeat + 1) % U16)
        self.before = self.runtime.state()
        self.answer = self.handshake.step(self.commands, self.before, self.now_ns, self.trouble)
        self.kinds += [event.kind for event in self.answer.events]
        for request in self.answer.requests:
            ask(self.runtime, request)
        return self.answer

    def steps(self, count: int) -> Answer:
        for _ in range(count):
            self.step()
        return self.answer

    def write(self, **fields: int | bool) -> None:
        """Change the PLC's image without a new command."""
        self.commands = replace(self.commands, **fields)  # type: ignore[arg-type]

    def command(self, command: int, recipe: int = 0) -> Answer:
        """Give one command, wait for the step that handles it, and let it go low again."""
        seq = (self.commands.seq + 1) % (1 << 32)
        self.write(command=command, recipe=recipe, seq=seq)
        answer = self.step()
        assert answer.status.ack_seq == seq
        self.write(command=Command.NONE)
        return answer

    def permit(self) -> None:
        """Be there, and permit motion."""
        self.write(enable=True, speed_pct=100, mode=Mode.AUTOMATIC)
        self.steps(8)

    def ready(self, recipe: int = 1) -> None:
        """Be ready to start."""
        self.permit()
        self.command(Command.LOAD, recipe)
        self.steps(15)
        assert self.status.ready, self.status

    def executing(self, recipe: int = 1) -> None:
        """Execute a cycle."""
        self.ready(recipe)
        self.command(Command.START)
        self.step()
        assert self.status.state.value == "executing", self.status
