"""The PLC handshake as a pure state machine: images and time in, status and requests out; no clock, no thread, no I/O.

Its six rules: commands act on a change of the sequence number, which is echoed; `done` and `error` stay until they are
acknowledged; a heartbeat that stands still ends in a controlled stop, and is latched; a start needs `start` low before,
`ready`, `enable` and no fault; recipes change only in idle and ready; permissions are debounced.
Non-safety-rated: what it asks for is a protective stop of the software, beside the robot's own safety controller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lehrling.deploy.handshake_cycle import MOVING, Cycle, Loading
from lehrling.deploy.handshake_errors import HEARTBEAT, OTHER, Errors, runtime_causes
from lehrling.deploy.handshake_image import (
    U16,
    Answer,
    Command,
    Commands,
    Event,
    HandshakeOptions,
    Load,
    RecipeLimits,
    Refusal,
    Request,
    Reset,
    SetEnabled,
    SetSpeed,
    Start,
    Status,
    Stop,
)
from lehrling.deploy.handshake_link import Heartbeat, Permissive, Sequence
from lehrling.deploy.runtime import FAULTS, Phase, Result, RuntimeState


class Handshake:
    """One PLC and one runtime. Call `step` periodically, well within the heartbeat's timeout."""

    def __init__(self, options: HandshakeOptions) -> None:
        self._options = options
        self._link = Heartbeat(options.heartbeat_timeout_ns, options.link_beats)
        self._sequence, self._permissive = Sequence(), Permissive(options.debounce_ns)
        self._errors, self._cycle, self._loading = Errors(), Cycle(), Loading()
        self._link_failed = self._online = self._start_low = self._done = self._done_shown = False
        self._refusal, self._result = Refusal.NONE, Result.NONE
        self._beat, self._now_ns = 0, 0
        self._phase: Phase | None = None
        self._speed: float | None = None
        self._enabled: tuple[bool, int] | None = None
        self._requests: list[Request] = []
        self._events: list[Event] = []

    @property
    def linked(self) -> bool:
        """Whether the PLC's heartbeat goes on."""
        return self._link.up

    def step(
        self, commands: Commands, state: RuntimeState, now_ns: int, trouble: Mapping[int, str] | None = None
    ) -> Answer:
        """Take both sides as they are now, on a monotonic clock; `trouble`: what else is wrong, by code of `FAULTS`."""
        self._requests, self._events = [], []
        self._now_ns = max(now_ns, self._now_ns)
        # What the PLC has not been shown yet, it cannot have acknowledged.
        self._done_shown, error_shown = self._done, self._errors.pending
        self._watch_link(commands)
        self._watch_runtime(state, trouble or {})
        self._permissive.see(self._given(commands), self._now_ns)
        self._watch_motion(state)
        if self._errors.acknowledge(commands.fault_ack, self.linked and error_shown):
            self._note("error acknowledged", now=self._errors.code)
        if self._sequence.take(commands.seq, self.linked):
            self._act(commands, state)
        self._permit(commands, state)
        self._start_low = self._start_low or commands.command != Command.START
        return Answer(self._status(state, commands), tuple(self._requests), tuple(self._events))

    # --- watching -------------------------------------------------------------------------------------------------------

    def _watch_link(self, commands: Commands) -> None:
        before = self._link.up
        self._link.see(commands.heartbeat % U16, self._now_ns)
        if self._link.lost:
            self._link.lost, self._link_failed = False, True
            self._note("heartbeat lost", timeout_ms=self._options.heartbeat_timeout_ns // 1_000_000)
        if self._link.up and not before:
            self._link_failed = False
            self._note("heartbeat up")

    def _watch_runtime(self, state: RuntimeState, trouble: Mapping[int, str]) -> None:
        if state.phase is not self._phase:
            self._note("state change", was=self._phase, now=state.phase)
            self._phase = state.phase
        causes = dict(trouble)
        if self._link_failed:
            causes.setdefault(HEARTBEAT, FAULTS[HEARTBEAT])
        if self._cycle.restless(state, self._now_ns, self._options.answer_ns):
            causes.setdefault(OTHER, f"The robot did not come to rest within {self._options.answer_ns / 1e9:g} s.")
        for code, text in runtime_causes(state, self._online).items():
            causes.setdefault(code, text)
        self._online = self._online or state.phase is not Phase.OFFLINE
        if self._errors.see(causes):
            self._note("error", code=self._errors.code, text=self._errors.text)
        if self._loading.see(state, self._now_ns, self._options.answer_ns):
            self._fail(OTHER, "The runtime did not take the recipe up.")
        if self._cycle.unanswered(self._now_ns, self._options.answer_ns) and self._cycle.stop_ns is None:
            self._fail(OTHER, "The runtime did not start the cycle.")
            self._stop("the cycle did not start")
        ended = self._cycle.see(state, self._now_ns, self._options.answer_ns)
        if ended is not None:
            self._done, self._result = True, ended
            self._note("cycle ended", cycle=self._cycle.number, result=ended)
            if state.phase is Phase.OFFLINE:
                self._requests.append(Stop("the robot is not heard any more"))

    def _watch_motion(self, state: RuntimeState) -> None:
        """Ask for rest where something moves, or is about to, that may not."""
        if state.phase is Phase.EXECUTING and not self._cycle.open:
            self._fail(OTHER, "The robot executes a cycle that this cell did not start.")
            self._stop("not started by this cell")
            return
        if not self._cycle.open:
            return
        limit_ns = self._limits(state.recipe).cycle_max_ns
        if self._cycle.stop_ns is not None:
            self._stop("rest was asked for before")
        elif self._errors.active:
            self._stop(next(iter(self._errors.active.values())))
        elif self._permissive.gone(self._now_ns):
            self._stop("permission taken by the PLC")
        elif self._now_ns - self._cycle.asked_ns > limit_ns:
            self._cycle.timed_out = True
            self._stop(f"the cycle took longer than {limit_ns / 1e9:g} s")

    # --- permissions ----------------------------------------------------------------------------------------------------

    def _given(self, commands: Commands) -> bool:
        halted = commands.emergency_stop or commands.protective_stop
        return commands.enable and commands.mode in self._options.modes and not halted

    def _limits(self, recipe: int) -> RecipeLimits:
        return self._options.recipes.get(recipe, RecipeLimits())

    def _share(self, commands: Commands, state: RuntimeState) -> float:
        asked = commands.speed_pct / 100 if 0 <= commands.speed_pct <= 100 else 0.0
        return min(asked, self._limits(state.recipe).speed_max)

    def _permit(self, commands: Commands, state: RuntimeState) -> None:
        """Say what the robot may; before the other requests, which may need it."""
        share = self._share(commands, state)
        ending = self._cycle.open and self._cycle.stop_ns is not None
        enabled = self._permissive.held and self.linked and not self._errors.pending and not ending
        before, at_ns = self._enabled or (None, 0)
        if enabled != before:
            self._note("enabled", enabled=enabled)
        renewed = enabled != before or self._now_ns - at_ns >= self._options.renew_ns
        if renewed:
            self._enabled = (enabled, self._now_ns)
            self._requests.insert(0, SetEnabled(enabled))
        # A request may get lost: not audited, or to a runtime that began anew.
        if renewed or share != self._speed:
            self._speed = share
            self._requests.insert(0, SetSpeed(share))

    def _ready(self, state: RuntimeState, commands: Commands) -> bool:
        waiting = self._cycle.open or self._loading.recipe or self._done or self._errors.pending
        return state.phase is Phase.READY and self.linked and not waiting and commands.mode in self._options.modes

    # --- commands -------------------------------------------------------------------------------------------------------

    def _act(self, commands: Commands, state: RuntimeState) -> None:
        handlers: dict[int, Callable[[Commands, RuntimeState], Refusal]] = {
            Command.NONE: lambda *_: Refusal.NONE,
            Command.LOAD: self._load,
            Command.START: self._start,
            Command.STOP: self._stopped,
            Command.RESET: self._reset,
            Command.ACK: self._acknowledge,
        }
        handler = handlers.get(commands.command)
        if handler is None:
            self._refusal = Refusal.UNKNOWN_COMMAND
        elif not self.linked and commands.command not in (Command.NONE, Command.STOP):
            self._refusal = Refusal.NO_HEARTBEAT
        else:
            self._refusal = handler(commands, state)
        if commands.command == Command.START:
            self._start_low = False
        self._note(
            "command", seq=commands.seq, command=commands.command, recipe=commands.recipe, refusal=self._refusal.name
        )

    def _load(self, commands: Commands, state: RuntimeState) -> Refusal:
        if self._errors.pending:
            return Refusal.FAULT
        if state.phase not in (Phase.IDLE, Phase.READY) or self._cycle.open or self._loading.recipe:
            return Refusal.RECIPE_LOCKED
        if commands.recipe not in self._options.recipes:
            self._fail(1, f"Recipe {commands.recipe} is not known; the configuration lists {self._known()}.")
            return Refusal.RECIPE_UNKNOWN
        self._loading.ask(commands.recipe, self._now_ns)
        self._requests.append(Load(commands.recipe))
        return Refusal.NONE

    def _start(self, commands: Commands, state: RuntimeState) -> Refusal:
        refusals = (
            (self._errors.pending, Refusal.FAULT),
            (not self._start_low, Refusal.START_NOT_LOW),
            (not self._ready(state, commands), Refusal.NOT_READY),
            (not commands.enable, Refusal.NOT_ENABLED),
            (not self._permissive.held, Refusal.NOT_PERMITTED),
            (self._share(commands, state) <= 0, Refusal.NO_SPEED),
        )
        refused = next((refusal for holds, refusal in refusals if holds), None)
        if refused is not None:
            return refused
        self._requests.append(Start(self._cycle.ask(state, self._now_ns)))
        self._note("cycle started", cycle=self._cycle.number, recipe=state.recipe, model=state.model_hash)
        return Refusal.NONE

    def _stopped(self, commands: Commands, state: RuntimeState) -> Refusal:
        del commands
        if self._cycle.open or state.phase in MOVING:
            self._cycle.stop_ns = None
            self._stop("stop command of the PLC")
        return Refusal.NONE

    def _reset(self, commands: Commands, state: RuntimeState) -> Refusal:
        del commands
        if state.latched:
            return Refusal.LATCHED
        if state.phase is Phase.FAULT:
            self._requests.append(Reset())
        return Refusal.NONE

    def _acknowledge(self, commands: Commands, state: RuntimeState) -> Refusal:
        del commands, state
        if self._done_shown:
            self._done = False
            self._note("cycle acknowledged", cycle=self._cycle.number)
        return Refusal.NONE

    # --- saying ---------------------------------------------------------------------------------------------------------

    def _known(self) -> str:
        return ", ".join(map(str, sorted(self._options.recipes))) or "none"

    def _stop(self, cause: str) -> None:
        first = self._cycle.stop_ns is None
        if self._cycle.may_ask_stop(self._now_ns):
            self._requests.append(Stop(cause))
        if first:
            self._note("stop", cause=cause)

    def _fail(self, code: int, text: str) -> None:
        if self._errors.add(code, text):
            self._note("error", code=code, text=text)

    def _note(self, kind: str, **facts: str | float | bool | None) -> None:
        self._events.append(Event(kind, facts))

    def _status(self, state: RuntimeState, commands: Commands) -> Status:
        self._beat = (self._beat + 1) % U16
        shown = state.phase
        if self._errors.pending and state.phase in (Phase.IDLE, Phase.READY):
            shown = Phase.FAULT
        busy = self._cycle.open or bool(self._loading.recipe) or state.phase in (*MOVING, Phase.LOADING)
        return Status(
            heartbeat=self._beat,
            ack_seq=self._sequence.acked,
            refusal=self._refusal,
            linked=self.linked,
            state=shown,
            ready=self._ready(state, commands),
            busy=busy,
            done=self._done,
            error=self._errors.pending,
            error_code=self._errors.code,
            error_text=self._errors.text,
            recipe=state.recipe,
            cycle=self._cycle.number or state.cycle,
            result=self._result,
            model_hash=state.model_hash,
        )
