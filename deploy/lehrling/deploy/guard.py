"""The guard: the only code that may command a robot. Non-safety-rated software limits between any client and the drives.

Use it with the robot's safety controller, a hardware emergency stop and a risk assessment; it replaces none of them.
"""

from __future__ import annotations

import math
from collections import deque
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lehrling.datasets.errors import StorageError
from lehrling.deploy.guard_axes import Axes, Axis
from lehrling.deploy.guard_claim import Claim
from lehrling.deploy.guard_clock import Tick, TickClock
from lehrling.deploy.guard_events import Answer, Cause, Command, State
from lehrling.deploy.guard_latch import Latch, LatchState
from lehrling.deploy.guard_limits import GuardConfig
from lehrling.deploy.guard_motion import Motion
from lehrling.deploy.guard_schedule import Schedule, schedule
from lehrling.deploy.guard_screen import Screen, as_targets, not_finite
from lehrling.deploy.guard_signals import Signals
from lehrling.deploy.guard_space import Space
from lehrling.deploy.guard_takeover import Takeover
from lehrling.deploy.guard_watch import MS

FloatArray = NDArray[np.float64]
SCALED_EVERY_NS = 1_000_000_000


class Guard(Signals):
    """Takes targets, gives commands that keep every limit.

    One thread calls it: `observe` (and `saw` for cameras), `enable` and `client` whenever the signal comes, `submit`
    with targets, and `step` at the control rate, whose command is sent if its `publish` is set. All times are one
    monotonic clock's [ns], stamps of observations included.
    """

    def __init__(self, config: GuardConfig, axes: tuple[Axis, ...], claim: Claim | None = None) -> None:
        """Start at rest, with the stop latched that the latch file holds.

        Args:
            config: every row's numbers.
            axes: what a command consists of, in its order.
            claim: what clients must agree to (`accept`) before they may submit; None asks for nothing.

        Raises:
            InputError: configuration and axes do not fit.
            LockedError: another guard uses the latch file.
            StorageError: the latch file cannot be written.
        """
        super().__init__(config, Axes(axes), claim)
        following, blend = config.following, config.blend
        self._following = self.axes.lengths(following.of if following else lambda _: np.inf)
        self._takeover = Takeover(self.axes, self.axes.lengths(config.first_move.of))
        self._space = Space(config.space, self.axes)
        catch_up = 0.0 if self.axes.is_velocity.any() else config.catch_up
        self._motion = Motion(self.axes, 1 / config.rate_hz, self.axes.lengths(blend.of), catch_up)
        self._screen = Screen(self.axes, config.clamps_max, round(config.clamp_window_s * 1e9))
        self._clock = TickClock(config.period_ns, _ns(config.stall_ms), _ns(config.let_go_ms))
        self._lags: deque[tuple[int, float]] = deque(maxlen=math.ceil(config.rate_hz))
        self._engaged, self._commanded, self._invalid = False, False, ""
        self._stopping: Cause | None = None
        self._hold: Cause | None = None
        self._idle_since_ns = self._done_since_ns = self._scaled_ns = 0
        self._latch = Latch(config.latch_path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the latch file; what is latched stays latched."""
        self._latch.close()

    @property
    def latch(self) -> LatchState:
        """The latched stop, if there is one."""
        return self._latch.state

    @property
    def engaged(self) -> bool:
        """Whether the guard commands the robot."""
        return self._engaged

    @property
    def pending(self) -> int:
        """Targets not yet reached."""
        return self._motion.path.pending(self._motion.s)

    @property
    def queued_s(self) -> float:
        """Nominal time that the targets not yet reached take at full speed."""
        return self._motion.ahead_s(self._motion.path.last)

    @property
    def position(self) -> FloatArray:
        """The last commanded position (D,), or what was measured where nothing has been commanded."""
        return (self._motion.position if self._commanded else self._measured).copy()

    @property
    def promised(self) -> FloatArray:
        """The position (D,) from which `submit` with `replace` leads the path on: it will be passed in any case."""
        return self._motion.promised.copy()

    @property
    def goal(self) -> FloatArray:
        """The position (D,) in which the path ends."""
        return np.asarray(self._motion.path.points[self._motion.path.last].copy())

    @property
    def velocity(self) -> FloatArray:
        """The last commanded velocity (D,)."""
        return self._motion.velocity

    @property
    def target_range(self) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest target (D,) that is not clamped; of an axis of velocities, of the velocity."""
        return self._screen.low, self._screen.high

    def observe(self, now_ns: int, position: ArrayLike, stamp_ns: int, source: str = "joints") -> bool:
        """Take a measured position (D,), NaN for axes that are not measured; return whether it counts."""
        if not super().observe(now_ns, position, stamp_ns, source):
            return False
        error = np.abs(self._measured - self._motion.position)
        if self._engaged and (error > self._following)[self.axes.measured].any():
            worst = int(np.where(self.axes.measured, error / self._following, 0).argmax())
            name = self.axes.names[worst]
            self._halt(now_ns, Cause.FOLLOWING, f"Axis {name!r} is {error[worst]:.3g} away from its command.")
        return True

    def stop(self, now_ns: int, text: str = "") -> None:
        """Request a protective stop: slow down along the path within the limits, then stay, latched."""
        self._halt(now_ns, Cause.REQUEST, text[:200] or "A protective stop was requested.")

    def reset(self, now_ns: int, operator: str) -> Answer:
        """Clear the latched stop. For an operator at the robot alone: never call it for what came over a network.

        Motion needs a fresh enabling signal and the first-move check afterwards.
        """
        if self._engaged:
            return Answer(False, Cause.LATCHED, "The robot still slows down; reset when it stands.")
        if not operator.strip():
            return Answer(False, Cause.LATCHED, "Expected the name of the operator who resets the stop.")
        try:
            self._latch.clear(operator.strip()[:100])
        except StorageError as error:
            return Answer(False, Cause.LATCHED, str(error))
        self._screen.forget()
        self._enabled.withdraw()
        self._log.add(now_ns, Cause.RESET, f"The stop was reset by {operator.strip()[:100]}.")
        return Answer(True)

    def drop(self) -> None:
        """Forget the targets that are not reached; come to rest along the path."""
        if self._engaged:
            self._motion.truncate()

    def submit(
        self,
        now_ns: int,
        targets: ArrayLike,
        *,
        interval_ns: ArrayLike | None = None,
        due_ns: ArrayLike | None = None,
        replace: bool = True,
        observed_ns: int | None = None,
    ) -> Answer:
        """Take one target (D,) or a chunk (n, D), whole or not at all.

        Args:
            now_ns: time of the call.
            targets: in the axes' units; of an axis of velocities, the velocity until the next target.
            interval_ns: nominal time to each target from its predecessor, one for all or (n,); 50 ms if neither this nor
                `due_ns` is given.
            due_ns: (n,) when each target is due, instead, with `replace`; those that are late by then are left out.
            replace: supersede the targets that are not reached; otherwise append to them.
            observed_ns: when the observation was made that the chunk answers to.
        """
        answer = self._submit(now_ns, targets, schedule(interval_ns, due_ns, observed_ns), replace=replace)
        if answer:
            self._invalid = ""
        elif answer.cause in (Cause.SHAPE, Cause.NOT_FINITE):
            self._invalid = answer.text
        return answer

    def _refuse(self, now_ns: int, cause: Cause, text: str) -> Answer:
        self._log.add(now_ns, cause, text)
        return Answer(False, cause, text)

    def _submit(self, now_ns: int, targets: ArrayLike, times: Schedule | str, *, replace: bool) -> Answer:
        if forbidden := self._forbidden(now_ns):
            return self._refuse(now_ns, *forbidden)
        array = as_targets(targets, len(self.axes), self.config.chunk_max)
        if isinstance(array, str) or isinstance(times, str):
            return self._refuse(now_ns, Cause.SHAPE, array if isinstance(array, str) else str(times))
        if problem := not_finite(array, self.axes):
            return self._refuse(now_ns, Cause.NOT_FINITE, problem)
        if late := times.problem(now_ns, len(array), _ns(self.config.chunk_age_ms), replace=replace):
            return self._refuse(now_ns, *late)
        if not self._engaged and (problem := self._takeover.problem(array[0], self._measured)):
            return self._refuse(now_ns, Cause.FIRST_MOVE, problem)
        screened = self._screen.clamp(array)
        if screened.clamped:
            self._log.add(now_ns, Cause.CLAMPED, screened.text, screened.clamped)
        if screened.beyond and self._screen.note(now_ns, screened.beyond):
            many = f"{self.config.clamps_max} targets were beyond the range. {screened.text}"
            return self._halt(now_ns, Cause.CLAMPS, many)
        if not self._engaged:
            self._engage(now_ns, screened.inside[0])
        return self._lead(now_ns, screened.inside, times, replace=replace)

    def _forbidden(self, now_ns: int) -> tuple[Cause, str] | None:
        """Return why nothing may be submitted now, or None."""
        if self._latch.latched:
            return Cause.LATCHED, f"A stop is latched ({self.latch.cause}); a local operator must reset it."
        if self._stopping is not None:
            return self._stopping, "The robot slows down for a stop."
        return self._absent(now_ns, engaged=self._engaged)

    def _engage(self, now_ns: int, target: FloatArray) -> None:
        """Take over the robot where it is."""
        last = self._motion.position if self._commanded else None
        if last is not None and self._takeover.moved(last, self._measured):
            self._log.add(now_ns, Cause.RESYNC, "The robot was moved since the last command.")
        self._motion.restart(self._takeover.start(last, self._measured, target))
        self._engaged = self._commanded = True
        self._idle_since_ns = self._done_since_ns = now_ns

    def _lead(self, now_ns: int, targets: FloatArray, times: Schedule, *, replace: bool) -> Answer:
        """Lead the path through targets that are in their ranges."""
        motion, vel = self._motion, self.axes.is_velocity
        keep = motion.splice(replace=replace)
        ahead_s = motion.ahead_s(keep - 1) - self._lag_since(times.observed_ns)
        first, seconds = times.seconds(now_ns, len(targets), ahead_s)
        if first == len(targets):
            return self._refuse(
                now_ns, Cause.LATE, "All targets of the chunk are due before the robot can turn to them."
            )
        if first:
            self._log.add(now_ns, Cause.LATE, f"{first} targets came late and are left out.", first)
        targets, start = targets[first:], motion.path.points[keep - 1]
        if vel.any():
            targets[:, vel] = start[vel] + np.cumsum(targets[:, vel] * seconds[:, None], axis=0)
        targets, capped = self._screen.cap(start, targets)
        if capped:
            self._log.add(now_ns, Cause.STEP, f"{capped} steps were larger than the cap.", capped)
        if not motion.extend(keep, targets, seconds):
            return self._refuse(now_ns, Cause.QUEUE, "The queue is full; submit again when targets have been reached.")
        if self._space.checks and (found := self._space.violation(motion.samples(keep, self._space.sample))):
            return self._halt(now_ns, *found)
        return Answer(True)

    def _lag_since(self, observed_ns: int | None) -> float:
        """Return by how much [s] the robot fell behind since an observation; since it was last on time if there is none."""
        lag_s = self._motion.lag_s
        if observed_ns is None:
            return lag_s
        return max(0.0, lag_s - next((lag for at_ns, lag in self._lags if at_ns >= observed_ns), lag_s))

    def _halt(self, now_ns: int, cause: Cause, text: str) -> Answer:
        """Stop along the path; latch if the cause does; return that nothing is taken."""
        self._log.add(now_ns, cause, text)
        if cause in self.config.latching:
            self._latch.engage(cause.value, text)
            if self._latch.failure:
                self._log.add(now_ns, Cause.STORAGE, self._latch.failure)
        if self._engaged and self._stopping is None:
            self._motion.truncate()
            self._stopping = cause
        return Answer(False, cause, text)

    def step(self, now_ns: int) -> Command:
        """Return the command for this tick; call it at the control rate."""
        tick = self._clock.tick(now_ns)
        if tick is Tick.EARLY:
            return self._command(now_ns, publish=False)
        if tick is Tick.BACK:
            self._watch.forget()
            self._halt(now_ns, Cause.CLOCK, "Time went backwards; nothing that must be fresh can be judged.")
        elif tick in (Tick.STALLED, Tick.LOST) and self._engaged:
            self._wake(now_ns, lost=tick is Tick.LOST)
        if not self._engaged:
            return self._command(now_ns, publish=False)
        if self._stopping is None:
            self._judge(now_ns)
        free = self._stopping is None and self._hold is None
        self._motion.advance(self._override if free else 0.0)
        self._lags.append((now_ns, self._motion.lag_s))
        if free and self._motion.slowed:
            self._note_scaled(now_ns)
        command = self._command(now_ns, publish=True)
        self._settle(now_ns)
        return command

    def _wake(self, now_ns: int, *, lost: bool) -> None:
        """Go on from rest after a gap between steps; let go of the robot after a long one."""
        limit = self.config.let_go_ms if lost else self.config.stall_ms
        self._log.add(now_ns, Cause.STALL, f"No step for more than {limit:g} ms.")
        if lost:
            self._let_go()
        else:
            self._motion.pause()

    def _judge(self, now_ns: int) -> None:
        """Find out whether to go on, to hold or to stop."""
        alarm = self._alarming(now_ns)
        if alarm is None:
            self._keep_hold(now_ns, self._withheld(now_ns) or self._reason_to_hold(now_ns))
            return
        if alarm[0] is Cause.CLIENT:
            self.leave()
        self._halt(now_ns, *alarm)

    def _reason_to_hold(self, now_ns: int) -> tuple[Cause, str] | None:
        if self._invalid:
            return Cause.NOT_FINITE, self._invalid
        if not self._motion.done:
            self._done_since_ns = now_ns
        elif now_ns - self._done_since_ns > _ns(self.config.action_timeout_ms):
            return Cause.ACTION, "No further target came."
        return None

    def _keep_hold(self, now_ns: int, reason: tuple[Cause, str] | None) -> None:
        cause = reason[0] if reason else None
        if reason and cause != self._hold:
            self._log.add(now_ns, *reason)
        if cause is None:
            self._idle_since_ns = now_ns
        self._hold = cause

    def _note_scaled(self, now_ns: int) -> None:
        if now_ns - self._scaled_ns >= SCALED_EVERY_NS:
            self._scaled_ns = now_ns
            self._log.add(now_ns, Cause.SCALED, "The path is driven more slowly than asked for, to keep the limits.")
        else:
            self._log.counts[Cause.SCALED] += 1

    def _settle(self, now_ns: int) -> None:
        """Let go of the robot once it stands after a stop or a long hold."""
        if not self._motion.at_rest:
            return
        if self._stopping is not None:
            self._let_go()
        elif self._hold is not None and now_ns - self._idle_since_ns > _ns(self.config.let_go_ms):
            self._log.add(now_ns, Cause.IDLE, f"Held for {self.config.let_go_ms:g} ms; targets are forgotten.")
            self._let_go()

    def _let_go(self) -> None:
        self._motion.restart(self._motion.position.copy())
        self._engaged, self._stopping, self._hold, self._invalid = False, None, None, ""

    def _state(self) -> tuple[State, Cause | None]:
        if self._engaged and self._stopping is not None:
            return State.STOPPING, self._stopping
        if self._latch.latched:
            return State.STOPPED, Cause.LATCHED
        if not self._engaged:
            return State.WAITING, None
        if self._hold is not None or self._motion.done:
            return State.HOLDING, self._hold
        if self._override == 0:
            return State.HOLDING, Cause.OVERRIDE
        return State.MOVING, None

    def _command(self, now_ns: int, *, publish: bool) -> Command:
        state, cause = self._state()
        motion = self._motion
        velocity = motion.velocity if self._engaged else np.zeros(len(self.axes))
        events = self._log.take() if publish or not self._engaged else ()
        return Command(
            now_ns, motion.position.copy(), velocity, state, cause, publish, self.pending, self._override, events
        )


def _ns(milliseconds: float) -> int:
    return round(milliseconds * MS)
