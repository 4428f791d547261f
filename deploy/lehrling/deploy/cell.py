"""A cell: the handshake between a PLC and a robot's runtime, with OPC UA, S7 and MQTT around it, everything audited.

The handshake runs in a thread of its own, at a fixed period; whatever is slow or may fail (network, brokers, clients) runs
in other threads, and meets it in an `Exchange` only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from lehrling.datasets.errors import LehrlingError
from lehrling.deploy.cell_audit import CellAudit
from lehrling.deploy.cell_config import CellConfig
from lehrling.deploy.cell_exchange import Exchange, Shown
from lehrling.deploy.handshake import Handshake
from lehrling.deploy.handshake_image import (
    Answer,
    Event,
    Load,
    Request,
    Reset,
    SetEnabled,
    SetSpeed,
    Start,
    Status,
    Stop,
)
from lehrling.deploy.runtime import Runtime, RuntimeState

OTHER = 99
FAILED_NS = 1_000_000_000
"""How long a request that the runtime refused counts as trouble, so that the PLC gets it as an error."""
_log = logging.getLogger("lehrling.cell")


class Side(Protocol):
    """Something beside the handshake, with a thread of its own."""

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> None:
        """End, and wait for it."""
        ...


class Cell:
    """Runs until stopped; `start` and `stop` are for the thread that made it.

    Attributes:
        exchange: where the sides meet the handshake.
        failed: whether the handshake or a side ended by an error of its own.
        ended: set when there is nothing to wait for any more.
        steps: of the handshake.
        slowest_s: the longest step.
    """

    def __init__(
        self,
        config: CellConfig,
        runtime: Runtime,
        audit: CellAudit,
        sides: Sequence[Side] = (),
        exchange: Exchange | None = None,
    ) -> None:
        """Take the parts; they are the cell's from now on, and end with it."""
        self._config, self._runtime, self._sides = config, runtime, list(sides)
        self.exchange = exchange or Exchange()
        self._audit = audit
        self._handshake = Handshake(config.handshake_options())
        self._failure: tuple[int, str] | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="handshake", daemon=True)
        self.failed, self.steps, self.slowest_s = False, 0, 0.0
        self.ended = threading.Event()

    def add(self, side: Side) -> None:
        """Have something run beside the handshake, from `start` on."""
        self._sides.append(side)

    def tell(self, kind: str, facts: Mapping[str, str | float | bool | None]) -> None:
        """Have something audited; from any thread."""
        self._audit.tell(Event(kind, facts))

    def fail(self, text: str) -> None:
        """Have the cell end, since a side of it broke; from any thread. Whoever waits for `ended` stops it."""
        self.tell("side broken", {"text": text})
        self.failed = True
        self.ended.set()

    def start(self) -> None:
        """Begin; where a side cannot, everything ends again.

        Raises:
            LehrlingError: a side cannot begin.
        """
        self.tell(
            "cell started", {"cell": self._config.name, "recipes": ", ".join(map(str, sorted(self._config.recipes)))}
        )
        self._thread.start()
        begun: list[Side] = []
        try:
            for side in self._sides:
                side.start()
                begun.append(side)
        except BaseException:
            self._sides = begun
            self.stop()
            raise

    def stop(self) -> None:
        """Bring the robot to rest, let go of it, and end every thread."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join()
        for side in reversed(self._sides):
            side.stop()
        self._sides = []
        try:
            self._runtime.close()
        finally:
            self._audit.write([Event("cell ended", {"steps": self.steps, "slowest step s": self.slowest_s})])
            self._audit.close()
            self.ended.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    # --- the handshake's thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        period_s = self._config.handshake.cycle_ms / 1e3
        due = time.monotonic()
        try:
            while not self._ending.is_set():
                self._step()
                due = max(due + period_s, time.monotonic())
                self._ending.wait(due - time.monotonic())
        except Exception:  # noqa: BLE001 (whatever it is, the robot is brought to rest)
            self.failed = True
            _log.exception("the handshake ended by an error; the robot is stopped")
        finally:
            self._rest()
            if self.failed:
                self.ended.set()

    def _step(self) -> None:
        begun = time.monotonic()
        commands, state = self.exchange.commands(), self._runtime.state()
        answer = self._handshake.step(commands, state, time.monotonic_ns(), self._trouble())
        self._act(answer, state)
        self.exchange.show(Shown(answer.status, state, commands))
        self.steps += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - begun)

    def _trouble(self) -> Mapping[int, str]:
        trouble = dict(self._audit.trouble())
        if self._failure is not None:
            since_ns, text = self._failure
            trouble[OTHER] = text
            if time.monotonic_ns() - since_ns > FAILED_NS:
                self._failure = None
        return trouble

    def _act(self, answer: Answer, state: RuntimeState) -> None:
        """Do what brings rest or slows at once, the rest once it is audited; unaudited not at all."""
        calming = [request for request in answer.requests if _calms(request, state)]
        for request in calming:
            self._ask(request)
        if self._audit.write(answer.events):
            for request in answer.requests:
                if request not in calming:
                    self._ask(request)
        else:
            self._ask(SetEnabled(False))

    def _ask(self, request: Request) -> None:
        try:
            ask(self._runtime, request)
        except LehrlingError as error:
            self._failure = (time.monotonic_ns(), str(error))
            _log.error("the runtime refused %s: %s", request, error)

    def _rest(self) -> None:
        for request in (SetEnabled(False), Stop("the cell ends")):
            self._ask(request)
        shown = self.exchange.shown()
        ended = Status(
            heartbeat=shown.status.heartbeat,
            ack_seq=shown.status.ack_seq,
            error=True,
            error_code=OTHER,
            error_text="The cell's handshake has ended.",
        )
        self.exchange.show(Shown(ended, RuntimeState(), shown.commands))


def _calms(request: Request, state: RuntimeState) -> bool:
    match request:
        case Stop() | SetEnabled(enabled=False):
            return True
        case SetSpeed(share):
            return share <= state.speed
    return False


def ask(runtime: Runtime, request: Request) -> None:
    """Make a request of the handshake."""
    match request:
        case Load(recipe):
            runtime.load(recipe)
        case Start(cycle):
            runtime.start(cycle)
        case Stop(cause):
            runtime.stop(cause)
        case Reset():
            runtime.reset("PLC")
        case SetSpeed(share):
            runtime.set_speed(share)
        case SetEnabled(enabled):
            runtime.set_enabled(enabled)
