"""The PLC handshake, rule by rule, and in random sequences of commands, losses and faults."""

from __future__ import annotations

import pytest
from cell_bench import OPTIONS, Bench
from fake_runtime import MS

from lehrling.deploy.handshake_image import Command, Load, Mode, Refusal, Reset, SetEnabled, SetSpeed, Start, Stop
from lehrling.deploy.runtime import FAULTS, Phase, Result

U32 = 1 << 32


def until_done(bench: Bench) -> None:
    for _ in range(200):
        if bench.step().status.done:
            return
    raise AssertionError(bench.status)


def test_a_cycle_goes_from_loading_to_its_acknowledged_result() -> None:
    bench = Bench()
    bench.ready(recipe=2)
    assert (bench.status.state, bench.status.recipe, bench.status.busy) == (Phase.READY, 2, False)
    assert bench.command(Command.START).requests[-1] == Start(1)
    until_done(bench)
    assert (bench.status.result, bench.status.cycle, bench.status.busy) == (Result.SUCCESS, 1, False)
    assert bench.status.model_hash == f"{2:064x}"
    assert not bench.status.ready, "a new start has to wait for the acknowledgement"
    bench.command(Command.ACK)
    assert not bench.step().status.done
    assert bench.status.ready
    assert bench.status.result is Result.SUCCESS, "the result stays for whoever asks later"
    assert bench.command(Command.START).requests[-1] == Start(2)


# --- rule 1: commands act on a change of the sequence --------------------------------------------------------------------


def test_a_command_that_stands_there_at_the_beginning_is_none() -> None:
    bench = Bench()
    bench.runtime.phase, bench.runtime.recipe = Phase.READY, 1
    bench.write(seq=41, command=Command.START, enable=True, speed_pct=100, mode=Mode.AUTOMATIC)
    bench.steps(20)
    assert bench.status.ack_seq == 41
    assert bench.runtime.count("start") == 0


def test_a_command_that_is_repeated_acts_once() -> None:
    bench = Bench()
    bench.ready()
    bench.write(command=Command.START, seq=bench.commands.seq + 1)
    bench.steps(3)
    assert bench.runtime.count("start") == 1


def test_an_older_command_that_comes_late_does_not_act() -> None:
    bench = Bench()
    bench.permit()
    bench.command(Command.LOAD, 1)
    seq = bench.commands.seq
    bench.write(command=Command.LOAD, recipe=2, seq=seq - 1)
    assert bench.step().status.ack_seq == seq
    assert bench.runtime.calls == [("load", 1)]


def test_sequence_heartbeat_and_cycle_wrap_around() -> None:
    bench = Bench()
    bench.runtime.cycle = U32 - 1
    bench.write(seq=U32 - 2, heartbeat=65_530)
    bench.ready()
    assert bench.commands.seq == U32 - 1
    assert bench.command(Command.START).requests[-1] == Start(1)
    assert bench.status.ack_seq == 0
    bench.steps(3)
    assert bench.handshake.linked
    assert bench.commands.heartbeat < 100


def test_a_plc_that_restarts_begins_its_counters_anew() -> None:
    bench = Bench()
    bench.write(seq=5_000, heartbeat=9_000)
    bench.ready()
    bench.beating = False
    bench.steps(15)
    assert not bench.handshake.linked
    bench.write(heartbeat=0, seq=0, command=Command.NONE)
    bench.beating = True
    bench.steps(5)
    assert bench.handshake.linked
    assert bench.status.ack_seq == 0
    bench.write(fault_ack=True)
    bench.steps(4)
    assert bench.status.ready
    assert bench.command(Command.START).requests[-1] == Start(1)


def test_a_command_of_an_unknown_number_is_acknowledged_and_refused() -> None:
    bench = Bench()
    bench.permit()
    assert bench.command(77).status.refusal is Refusal.UNKNOWN_COMMAND


# --- rule 2: done and error stay until they are acknowledged -------------------------------------------------------------


def test_an_error_stays_until_a_rising_acknowledgement_finds_its_cause_gone() -> None:
    bench = Bench()
    bench.executing()
    bench.runtime.fail(2, "The policy server does not answer.")
    bench.step()
    assert (bench.status.error, bench.status.error_code, bench.status.done) == (True, 2, True)
    assert bench.status.error_text == "The policy server does not answer."
    assert bench.status.result is Result.ABORTED
    bench.write(fault_ack=True)
    assert bench.step().status.error, "the cause still holds"
    assert Reset() in bench.command(Command.RESET).requests
    assert bench.step().status.error, "a level is no edge"
    bench.write(fault_ack=False)
    bench.step()
    bench.write(fault_ack=True)
    assert not bench.step().status.error
    bench.command(Command.ACK)
    assert bench.status.ready


def test_the_first_error_is_shown_until_it_is_acknowledged_then_the_next() -> None:
    bench = Bench()
    bench.permit()
    bench.command(Command.LOAD, 9)
    assert (bench.status.error_code, bench.status.refusal) == (1, Refusal.RECIPE_UNKNOWN)
    assert "Recipe 9 is not known; the configuration lists 1, 2." in bench.status.error_text
    bench.trouble[7] = "The audit cannot be written."
    assert bench.step().status.error_code == 1
    bench.write(fault_ack=True)
    assert bench.step().status.error_code == 7
    bench.trouble.clear()
    bench.write(fault_ack=False)
    bench.step()
    bench.write(fault_ack=True)
    assert bench.step().status.error_code == 0
    assert bench.runtime.calls == []


def test_a_latched_stop_is_not_reset_by_the_plc() -> None:
    bench = Bench()
    bench.ready()
    bench.runtime.fail(0, "stop latched", latch=True)
    bench.step()
    assert bench.status.error_code == 5
    answer = bench.command(Command.RESET)
    assert answer.status.refusal is Refusal.LATCHED
    assert bench.runtime.count("reset") == 0


def test_a_robot_that_is_not_heard_any_more_ends_the_cycle_and_is_an_error() -> None:
    bench = Bench()
    bench.executing()
    bench.runtime.vanish()
    answer = bench.step()
    assert (answer.status.done, answer.status.result, answer.status.error_code) == (True, Result.ABORTED, 8)
    assert any(isinstance(request, Stop) for request in answer.requests)


# --- rule 3: heartbeat ---------------------------------------------------------------------------------------------------


def test_a_heartbeat_that_stands_still_stops_the_cycle_in_time_and_is_latched() -> None:
    bench = Bench(beating=True)
    bench.runtime.cycle_ns = 10_000 * MS
    bench.executing()
    last_beat = bench.now_ns
    bench.beating = False
    while not any(isinstance(request, Stop) for request in bench.step().requests):
        assert bench.now_ns - last_beat <= OPTIONS.heartbeat_timeout_ns
    assert bench.now_ns - last_beat <= OPTIONS.heartbeat_timeout_ns + 20 * MS
    assert SetEnabled(False) in bench.answer.requests
    assert (bench.status.error_code, bench.status.ready) == (6, False)
    bench.steps(3)
    assert bench.runtime.phase is Phase.READY
    bench.write(fault_ack=True)
    assert bench.step().status.error, "the PLC is still away"
    bench.beating = True
    bench.steps(5)
    assert bench.status.error_code == 6, "it stays until somebody acknowledges it"
    assert bench.command(Command.START).status.refusal is Refusal.FAULT
    bench.write(fault_ack=False)
    bench.step()
    bench.write(fault_ack=True)
    bench.step()
    assert (bench.status.error, bench.status.result) == (False, Result.ABORTED)
    assert ("heartbeat lost" in bench.kinds, "error acknowledged" in bench.kinds) == (True, True)


def test_before_the_first_heartbeat_nothing_is_an_error_and_nothing_acts() -> None:
    bench = Bench(beating=False)
    bench.write(enable=True, speed_pct=100, mode=Mode.AUTOMATIC)
    bench.steps(30)
    assert not bench.status.error
    assert bench.command(Command.LOAD, 1).status.refusal is Refusal.NO_HEARTBEAT
    assert bench.runtime.calls == []


def test_a_stop_is_obeyed_without_a_heartbeat() -> None:
    bench = Bench()
    bench.runtime.cycle_ns = bench.runtime.stop_ns = 10_000 * MS
    bench.executing()
    bench.beating = False
    bench.steps(15)
    stops = bench.runtime.count("stop")
    assert Stop("stop command of the PLC") in bench.command(Command.STOP).requests
    assert bench.runtime.count("stop") == stops + 1


def test_a_loop_that_stalls_longer_than_the_timeout_counts_as_a_lost_heartbeat() -> None:
    bench = Bench()
    bench.executing()
    answer = bench.step(after_ns=300 * MS)
    assert answer.status.error_code == 6


def test_the_cells_heartbeat_goes_on_with_every_step() -> None:
    bench = Bench()
    assert [bench.step().status.heartbeat for _ in range(3)] == [1, 2, 3]


# --- rule 4: a start needs everything ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"enable": False}, Refusal.NOT_ENABLED),
        ({"speed_pct": 0}, Refusal.NO_SPEED),
        ({"speed_pct": 101}, Refusal.NO_SPEED),
        ({"speed_pct": -5}, Refusal.NO_SPEED),
        ({"mode": Mode.MANUAL_HIGH_SPEED}, Refusal.NOT_READY),
        ({"mode": 99}, Refusal.NOT_READY),
        ({"emergency_stop": True}, Refusal.NOT_PERMITTED),
        ({"protective_stop": True}, Refusal.NOT_PERMITTED),
    ],
)
def test_without_a_permission_there_is_no_start(fields: dict[str, int | bool], refusal: Refusal) -> None:
    bench = Bench()
    bench.ready()
    bench.write(**fields)
    assert bench.command(Command.START).status.refusal is refusal
    bench.steps(10)
    assert bench.runtime.count("start") == 0


def test_without_a_recipe_there_is_no_start() -> None:
    bench = Bench()
    bench.permit()
    assert bench.command(Command.START).status.refusal is Refusal.NOT_READY


def test_start_has_to_be_low_before_it_acts_again() -> None:
    bench = Bench()
    bench.ready()
    bench.write(command=Command.START, seq=bench.commands.seq + 1)
    until_done(bench)
    bench.write(command=Command.ACK, seq=bench.commands.seq + 1)
    bench.step()
    bench.write(command=Command.START, seq=bench.commands.seq + 1)
    assert bench.step().requests[-1] == Start(2)
    until_done(bench)
    bench.write(seq=bench.commands.seq + 1)
    assert bench.step().status.refusal is Refusal.START_NOT_LOW


def test_a_done_cycle_has_to_be_acknowledged_before_the_next() -> None:
    bench = Bench()
    bench.executing()
    until_done(bench)
    assert bench.command(Command.START).status.refusal is Refusal.NOT_READY
    assert bench.status.done


# --- rule 5: recipes -----------------------------------------------------------------------------------------------------


def test_a_recipe_does_not_change_while_a_cycle_executes() -> None:
    bench = Bench()
    bench.executing()
    assert bench.command(Command.LOAD, 2).status.refusal is Refusal.RECIPE_LOCKED
    assert bench.command(Command.LOAD, 99).status.refusal is Refusal.RECIPE_LOCKED
    assert (bench.status.recipe, bench.status.error) == (1, False)


def test_a_recipe_does_not_change_while_one_is_loading() -> None:
    bench = Bench()
    bench.runtime.load_ns = 1_000 * MS
    bench.permit()
    bench.command(Command.LOAD, 1)
    assert bench.command(Command.LOAD, 2).status.refusal is Refusal.RECIPE_LOCKED
    assert bench.command(Command.START).status.refusal is Refusal.NOT_READY
    assert bench.runtime.calls == [("load", 1)]


def test_a_recipe_may_limit_the_speed() -> None:
    bench = Bench()
    bench.ready(recipe=2)
    assert bench.runtime.speed == 0.5
    bench.write(speed_pct=20)
    assert SetSpeed(0.2) in bench.step().requests


# --- rule 6: permissions -------------------------------------------------------------------------------------------------


def test_a_contact_that_bounces_halts_the_cycle_at_once_and_does_not_end_it() -> None:
    bench = Bench()
    bench.runtime.cycle_ns = 500 * MS
    bench.executing()
    bench.write(enable=False)
    assert SetEnabled(False) in bench.step().requests
    bench.write(enable=True)
    bench.step()
    assert not bench.runtime.enabled, "it has to hold for a while"
    bench.steps(4)
    assert bench.runtime.enabled
    until_done(bench)
    assert bench.status.result is Result.SUCCESS


def test_a_permission_that_stays_away_ends_the_cycle() -> None:
    bench = Bench()
    bench.executing()
    bench.write(enable=False)
    bench.steps(12)
    assert (bench.status.done, bench.status.result, bench.status.error) == (True, Result.ABORTED, False)
    bench.write(enable=True)
    bench.steps(10)
    assert bench.runtime.phase is Phase.READY, "nothing starts by itself"


def test_the_permission_to_move_is_given_anew_while_it_holds() -> None:
    bench = Bench()
    bench.ready()
    given = [any(request == SetEnabled(True) for request in bench.step().requests) for _ in range(30)]
    assert max(len(gap) for gap in "".join("x" if g else "." for g in given).split("x")) * 20 < 200


# --- the runtime ---------------------------------------------------------------------------------------------------------


def test_a_cycle_that_takes_too_long_is_stopped_and_says_so() -> None:
    bench = Bench()
    bench.runtime.cycle_ns = 60_000 * MS
    bench.executing()
    until_done(bench)
    assert bench.status.result is Result.TIMEOUT
    assert bench.runtime.calls[-1] == ("stop", "the cycle took longer than 2 s")


def test_a_runtime_that_does_not_start_is_an_error_and_the_cycle_is_done() -> None:
    bench = Bench()
    bench.ready()
    bench.runtime.deaf = True
    bench.command(Command.START)
    until_done(bench)
    assert (bench.status.error_code, bench.status.result) == (99, Result.ABORTED)
    assert bench.status.error_text == "The runtime did not start the cycle."


def test_a_runtime_that_does_not_load_is_an_error() -> None:
    bench = Bench()
    bench.permit()
    bench.runtime.deaf = True
    bench.command(Command.LOAD, 1)
    assert bench.steps(60).status.error_text == "The runtime did not take the recipe up."
    assert not bench.status.busy


def test_a_cycle_that_nobody_started_is_stopped() -> None:
    bench = Bench()
    bench.ready()
    bench.runtime.cycle_ns = 10_000 * MS
    bench.runtime.start(77)
    assert Stop("not started by this cell") in bench.step().requests
    assert bench.status.error_code == 99
    bench.steps(3)
    assert bench.runtime.phase is Phase.READY


def test_trouble_of_the_cell_stops_the_robot() -> None:
    bench = Bench()
    bench.executing()
    bench.trouble = {7: "The audit cannot be written."}
    answer = bench.step()
    assert Stop("The audit cannot be written.") in answer.requests
    assert (answer.status.error_code, FAULTS[7]) == (7, "audit cannot be written")


def test_the_same_recipe_can_be_loaded_again() -> None:
    bench = Bench()
    bench.ready()
    assert Load(1) in bench.command(Command.LOAD, 1).requests
    assert not bench.status.ready
    bench.steps(15)
    assert bench.status.ready


# --- what a quick PLC or a slow runtime might get past ---------------------------------------------------------------------


@pytest.mark.parametrize("rising", [False, True])
def test_an_error_is_shown_at_least_once_however_fast_it_is_acknowledged(rising: bool) -> None:
    bench = Bench()
    bench.permit()
    bench.runtime.deaf = True
    bench.write(fault_ack=rising)
    bench.command(Command.LOAD, 1)
    shown = []
    for _ in range(60):
        bench.write(fault_ack=not bench.commands.fault_ack)
        shown.append(bench.step().status.error_code)
    assert 99 in shown


def test_a_cycle_that_ends_is_shown_at_least_once_however_fast_it_is_acknowledged() -> None:
    bench = Bench()
    bench.executing()
    shown = []
    for _ in range(20):
        bench.write(command=Command.ACK, seq=bench.commands.seq + 1)
        shown.append(bench.step().status.done)
    assert True in shown


def test_a_cycle_for_which_rest_was_asked_never_goes_on() -> None:
    bench = Bench()
    bench.runtime.cycle_ns = 1_000 * MS
    bench.executing()
    bench.runtime.deaf = True
    bench.beating = False
    bench.steps(15)
    bench.beating = True
    bench.steps(4)
    bench.write(fault_ack=True)
    bench.step()
    assert (bench.status.error, bench.status.state) == (False, Phase.EXECUTING)
    asked = bench.runtime.count("stop")
    bench.steps(20)
    assert not bench.runtime.enabled
    assert bench.runtime.count("stop") > asked, "it is asked again until the robot rests"
    bench.runtime.deaf = False
    until_done(bench)
    assert bench.status.result is Result.ABORTED


def test_between_a_start_and_its_motion_no_recipe_is_loaded() -> None:
    bench = Bench()
    bench.ready()
    bench.runtime.deaf = True
    bench.command(Command.START)
    assert bench.runtime.phase is Phase.READY
    assert bench.command(Command.LOAD, 2).status.refusal is Refusal.RECIPE_LOCKED


def test_what_stands_there_at_the_beginning_is_not_even_refused() -> None:
    bench = Bench()
    bench.write(seq=7, command=Command.STOP)
    bench.step()
    assert (bench.status.ack_seq, "command" in bench.kinds) == (7, False)


def test_an_error_whose_cause_holds_is_not_replaced_by_another() -> None:
    bench = Bench()
    bench.ready()
    bench.runtime.fail(2, "The policy server does not answer.")
    bench.step()
    bench.trouble = {7: "The audit cannot be written."}
    bench.write(fault_ack=True)
    assert bench.step().status.error_code == 2


def test_a_cycle_that_nobody_started_is_stopped_at_once_even_after_another_stop() -> None:
    bench = Bench()
    bench.runtime.cycle_ns = 10_000 * MS
    bench.executing()
    bench.command(Command.STOP)
    until_done(bench)
    bench.runtime.start(99)
    assert Stop("not started by this cell") in bench.step().requests


def test_a_runtime_that_breaks_before_it_moves_ends_the_cycle_at_once() -> None:
    bench = Bench()
    bench.ready()
    bench.runtime.deaf = True
    bench.command(Command.START)
    bench.runtime.fail(9, "contract differs")
    assert bench.step().status.done
    assert (bench.status.result, bench.status.error_code) == (Result.ABORTED, 9)
