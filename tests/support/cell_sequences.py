"""Random sequences for the handshake: bytes decide what PLC and robot do, an oracle of its own says what may come of it."""

from __future__ import annotations

from collections import Counter

from cell_bench import Bench
from fake_runtime import MS

from lehrling.deploy.handshake_image import Answer, Command, Load, Mode, Refusal, Reset, SetEnabled, Start
from lehrling.deploy.runtime import Phase, Result, RuntimeState

STEP_BYTES = 4
ALLOWED = (Mode.AUTOMATIC, Mode.AUTOMATIC_EXTERNAL)
TIMES_MS = (20,) * 26 + (5, 0, 60, 150, 250, 1200)
MODES = (Mode.AUTOMATIC,) * 5 + (Mode.AUTOMATIC_EXTERNAL, Mode.OTHER, Mode.MANUAL_REDUCED_SPEED)
SPEEDS = (100, 100, 100, 50, 10, 0, 101, -1)


def is_newer(number: int, than: int, size: int) -> bool:
    """Serial number arithmetic, written another way than the source's."""
    ahead = number - than if number > than else number - than + size
    return number != than and ahead < size / 2


class Sequence:
    """One random sequence. `seen` counts what it came to."""

    def __init__(self, data: bytes, seen: Counter[str]) -> None:
        self.data, self.seen = data, seen
        self.bench = Bench()
        self.bench.write(seq=(data[0] - 20) % (1 << 32), heartbeat=(data[1] * 257) % 65_536)
        self.bench.runtime.cycle_ns = (20, 60, 200, 5_000)[data[2] % 4] * MS
        self.beat_ns: int | None = None
        self.beat = -1
        self.given_ns: int | None = None
        self.low = self.ack_level = False
        self.deaf_ns: int | None = None
        self.online = False
        self.starts = self.dones = 0
        if data[3] % 8:
            self.bench.permit()
            self.given_ns, self.low = self.bench.now_ns - 7 * 20 * MS, True
            self.beat, self.beat_ns, self.online = self.bench.commands.heartbeat, self.bench.now_ns, True
        if data[3] % 8 > 2:
            self._checked_command(Command.LOAD, 1)
            for _ in range(12):
                self._checked_step(20 * MS)

    def run(self) -> None:
        """Go through the bytes, then let everything come to rest, and see that nothing was lost."""
        for at in range(STEP_BYTES, len(self.data) - STEP_BYTES + 1, STEP_BYTES):
            time_, command, permission, trouble = self.data[at : at + STEP_BYTES]
            self._plc(time_, permission)
            self._command(command)
            self._robot(trouble)
            self._checked_step(TIMES_MS[time_ % 32] * MS)
        self.bench.runtime.deaf = False
        for _ in range(120):
            if self.starts == self.dones:
                break
            self._checked_step(60 * MS)
        assert self.starts == self.dones, "a cycle that was started has to be done in the end"

    # --- what happens ---------------------------------------------------------------------------------------------------

    def _plc(self, time_: int, permission: int) -> None:
        bench = self.bench
        if time_ >= 224:
            bench.beating = time_ < 232
        jump = {250: -1, 251: 700, 252: 40_000}.get(time_, 0)
        if jump:
            bench.write(heartbeat=(bench.commands.heartbeat + jump) % 65_536)
        if permission < 40:
            bench.write(enable=permission % 4 != 0)
        elif permission < 60:
            bench.write(speed_pct=SPEEDS[permission % 8])
        elif permission < 76:
            bench.write(mode=MODES[permission % 8])
        elif permission < 84:
            bench.write(emergency_stop=permission == 83, protective_stop=permission == 82)
        elif permission < 130:
            bench.write(fault_ack=not bench.commands.fault_ack)
        elif permission > 240:
            bench.write(enable=True, speed_pct=100, mode=Mode.AUTOMATIC, emergency_stop=False, protective_stop=False)

    def _command(self, choice: int) -> None:
        bench, seq = self.bench, self.bench.commands.seq
        if choice < 90:
            status = bench.status
            wise = (
                Command.RESET
                if bench.runtime.phase is Phase.FAULT
                else Command.ACK
                if status.done
                else Command.LOAD
                if status.state is Phase.IDLE
                else Command.START
            )
            bench.write(command=wise, recipe=1 + choice % 2, seq=(seq + 1) % (1 << 32))
        elif choice < 130:
            bench.write(command=choice % 7, recipe=choice % 4, seq=(seq + 1) % (1 << 32))
        elif choice < 140:
            bench.write(command=choice % 7, recipe=1 + choice % 2)
        elif choice < 150:
            bench.write(command=choice % 7, recipe=1, seq=(seq - choice + 138) % (1 << 32))
        elif choice < 154:
            bench.write(command=choice % 7, seq=(seq + (1 << 31) - 152 + choice) % (1 << 32))
        elif choice < 235:
            bench.write(command=Command.NONE)

    def _robot(self, choice: int) -> None:
        bench, runtime = self.bench, self.bench.runtime
        match choice:
            case 250:
                runtime.fail(2, "lost")
            case 251:
                runtime.fail(0, "latched", latch=True)
            case 252:
                runtime.vanish()
            case 253:
                bench.trouble = {} if bench.trouble else {7: "audit"}
            case 254:
                runtime.deaf = not runtime.deaf
            case 255:
                runtime.outcome = Result.FAILURE
            case _ if choice > 235:
                runtime.come_back()

    def _checked_command(self, command: int, recipe: int) -> None:
        self.bench.write(command=command, recipe=recipe, seq=(self.bench.commands.seq + 1) % (1 << 32))
        self._checked_step(20 * MS)
        self.bench.write(command=Command.NONE)

    # --- what may come of it --------------------------------------------------------------------------------------------

    def _checked_step(self, after_ns: int) -> None:
        bench = self.bench
        before, linked_before = bench.answer, bench.handshake.linked
        answer = bench.step(after_ns)
        now, commands = bench.now_ns, bench.commands
        self.deaf_ns = now if bench.runtime.deaf else self.deaf_ns
        given = commands.enable and commands.mode in ALLOWED
        given = given and not (commands.emergency_stop or commands.protective_stop)
        self.given_ns = (self.given_ns if self.given_ns is not None else now) if given else None
        stale = self.beat_ns is not None and now - self.beat_ns > bench.options.heartbeat_timeout_ns
        if (
            self.beat_ns is None
            or is_newer(commands.heartbeat, self.beat, 65_536)
            or (stale and commands.heartbeat != self.beat)
        ):
            self.beat, self.beat_ns = commands.heartbeat, now
        wrong = self._wrong(bench.before)
        self._check_start(before, answer, stale or wrong)
        self._check_memory(before, answer, wrong)
        self._check_heartbeat(answer, stale, linked_before, now)
        self._check_commands(before, answer, linked_before)
        self.low = commands.command != Command.START or (self.low and answer.status.ack_seq == before.status.ack_seq)
        self.online = self.online or bench.before.phase is not Phase.OFFLINE
        self.ack_level = commands.fault_ack
        for name in ("done", "error", "busy"):
            self.seen[name] += getattr(answer.status, name) and not getattr(before.status, name)
        self.seen[f"{answer.status.result}"] += answer.status.done and not before.status.done

    def _wrong(self, state: RuntimeState) -> bool:
        offline = self.online and state.phase is Phase.OFFLINE
        return bool(self.bench.trouble) or state.phase is Phase.FAULT or state.latched or offline

    def _check_start(self, before: Answer, answer: Answer, hindered: bool) -> None:
        """Never start, nor permit motion, without permission."""
        bench, now = self.bench, self.bench.now_ns
        started = [request for request in answer.requests if isinstance(request, Start)]
        held = self.given_ns is not None and now - self.given_ns >= bench.options.debounce_ns
        if SetEnabled(True) in answer.requests:
            assert held
            assert not hindered
            assert not answer.status.error
        if not started:
            return
        self.starts += 1
        self.seen["start"] += 1
        assert len(started) == 1
        assert held
        assert not hindered
        assert 0 < bench.commands.speed_pct <= 100
        assert bench.handshake.linked
        assert self.beat_ns is not None
        assert now - self.beat_ns <= bench.options.heartbeat_timeout_ns
        assert bench.before.phase is Phase.READY
        assert bench.commands.command == Command.START
        assert self.low, "start has to be low between two starts"
        assert not before.status.done
        assert not answer.status.done
        assert not answer.status.error

    def _check_memory(self, before: Answer, answer: Answer, wrong: bool) -> None:
        """Never lose done or error."""
        was, now, commands = before.status, answer.status, self.bench.commands
        if now.done and not was.done:
            self.dones += 1
            assert now.result is not Result.NONE
        if was.done and not now.done:
            assert commands.command == Command.ACK
            assert now.ack_seq == commands.seq != was.ack_seq
            assert now.refusal is Refusal.NONE
        if wrong:
            assert now.error, "what is wrong has to be shown"
        if was.error and (not now.error or now.error_code != was.error_code):
            assert commands.fault_ack, "only an acknowledgement takes an error away"
            assert not self.ack_level, "and only its rising edge"
        if was.error and not now.error:
            assert not wrong, "a cause that holds cannot be acknowledged"
        assert bool(now.error_code) == now.error
        assert not (now.ready and (now.error or now.done or now.busy))

    def _check_heartbeat(self, answer: Answer, stale: bool, linked: bool, now_ns: int) -> None:
        """Come to rest within the configured time."""
        bench = self.bench
        if not stale:
            return
        assert SetEnabled(True) not in answer.requests
        deaf = self.deaf_ns is not None and now_ns - self.deaf_ns <= 200 * MS
        assert deaf or bench.runtime.phase is not Phase.EXECUTING
        if linked:
            self.seen["lost"] += 1
            assert answer.status.error
            assert not answer.status.ready
            assert not bench.runtime.enabled

    def _check_commands(self, before: Answer, answer: Answer, linked: bool) -> None:
        """Every command acts once; recipes change only where nothing moves."""
        acting = [request for request in answer.requests if isinstance(request, Load | Start | Reset)]
        assert len(acting) <= 1
        was, now = before.status.ack_seq, answer.status.ack_seq
        if acting:
            assert now != was, "a command without a new number must not act"
            self.seen[type(acting[0]).__name__] += 1
        if linked and self.bench.handshake.linked and now != was and before.status.heartbeat:
            assert is_newer(now, was, 1 << 32)
        for request in acting:
            if isinstance(request, Load):
                assert self.bench.before.phase in (Phase.IDLE, Phase.READY)
                assert self.starts == self.dones
                assert request.recipe in self.bench.options.recipes


def run_sequence(data: bytes, seen: Counter[str]) -> None:
    """Run one sequence; raise AssertionError where a rule is broken."""
    Sequence(data, seen).run()
    seen["sequences"] += 1
