"""`lehrling teleop`, `lehrling replay` and `lehrling guard`: drive a ROS 2 robot through the guard, and its latched stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lehrling.cli.output import FAILED, Json, print_json, say

guard = typer.Typer(help="Look at a robot's latched stop, and reset it at the robot.", no_args_is_help=True)
GuardFile = Annotated[Path | None, typer.Option("--guard", help="YAML with the guard's limits, see docs/guard.md.")]
Namespace = Annotated[str | None, typer.Option("--namespace", help="Namespace of this robot's topics.")]
JoyTopic = Annotated[str, typer.Option("--joy-topic", help="Joystick (sensor_msgs/Joy), such as /joy.")]
Streams = Annotated[list[str] | None, typer.Option("--stream", help="Only this action stream; repeatable.")]
Robot = Annotated[str, typer.Option("--embodiment", help="Shipped embodiment or YAML file of this station.")]


def teleop(
    embodiment: Robot,
    guard_file: GuardFile = None,
    namespace: Namespace = None,
    joy_topic: JoyTopic = "",
    stream: Streams = None,
    operator: Annotated[str, typer.Option("--operator", help="Who drives; the login name if not given.")] = "",
    intervene: Annotated[
        str, typer.Option("--intervene", help="Take over from `run --interventions PREFIX`: send under this prefix.")
    ] = "",
    json_: Json = False,
) -> None:
    """Drive a ROS 2 robot by keys, over SSH too, or by a joystick whose deadman button is held.

    Hold w s a d r f to move and u o i k j l to turn; n p choose a joint; g h close and open; + - change the speed; tab chooses
    the next group; space halts; x stops and latches; R resets; q quits. With --intervene the policy goes on soon after the last
    key; x holds the robot until R.
    """
    from dataclasses import asdict

    from lehrling.cli.drive_run import teleop_view
    from lehrling.collection.teleop import Teleop, operator_name
    from lehrling.collection.teleop_node import run_teleop
    from lehrling.deploy.station import guard_config, signals, station

    robot = station(embodiment, namespace)
    driving = Teleop.of(robot, operator_name(operator), guard_config(guard_file, robot), stream, intervene)
    try:
        with signals() as stopped, teleop_view() as show:
            report = run_teleop(driving, joy_topic=joy_topic, stopped=stopped, show=show)
    finally:
        driving.guard.close()
    if json_:
        print_json(asdict(report))
    elif report.latched:
        say(f"A stop stays latched ({report.latched}); reset it with R, or by `lehrling guard reset`.")


def replay(
    dataset: Annotated[Path, typer.Argument(help="Dataset directory.")],
    episode: Annotated[str, typer.Argument(help="Episode id, see `lehrling inspect DATASET`.")],
    embodiment: Annotated[
        str | None, typer.Option("--embodiment", help="This station's robot; that of the episode if not given.")
    ] = None,
    speed: Annotated[float, typer.Option("--speed", help="Times the original speed, 0.05 to 5.")] = 1.0,
    all_: Annotated[bool, typer.Option("--all", help="Publish observations too, as if the robot sent them.")] = False,
    stream: Streams = None,
    guard_file: GuardFile = None,
    namespace: Namespace = None,
    joy_topic: JoyTopic = "",
    deadman: Annotated[int, typer.Option("--deadman", min=0, help="Button of the joystick that must be held.")] = 4,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done; move nothing.")] = False,
    json_: Json = False,
) -> None:
    """Let a robot do again what an episode commanded, through the guard.

    Without --joy-topic the running command is the enabling signal: Ctrl-C brings the robot to rest. Exit code 1: it ended before
    all commands were reached.
    """
    from dataclasses import asdict

    from lehrling.cli.drive_run import plan_facts, replay_view
    from lehrling.collection.replay import Replay, plan_replay, station_of
    from lehrling.collection.replay_node import run_replay
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.embodiment import load_embodiment
    from lehrling.deploy.guard_link import GuardLink
    from lehrling.deploy.station import guard_config, signals

    recorded = Dataset.open(dataset).episode(episode)
    station = station_of(recorded, load_embodiment(embodiment) if embodiment is not None else None, namespace)
    config = guard_config(guard_file, station)
    if dry_run:
        config = config.model_copy(update={"latch_path": None})
    link = GuardLink.of(station, config, streams=stream)
    try:
        plan = plan_replay(recorded, link.layout, all_streams=all_)
        for one in plan.skipped:
            say(f"{one.stream} is not replayed: {one.reason}")
        replaying = Replay(link, plan.track, speed, plan.messages)
        if dry_run:
            facts = plan_facts(plan, link, speed)
            print_json(facts) if json_ else say(str(facts["summary"]))
            return
        with signals() as stopped, replay_view(quiet=json_) as show:
            held = (joy_topic, deadman) if joy_topic else None
            report = run_replay(replaying, stopped=stopped, deadman=held, show=show)
    finally:
        link.guard.close()
    if json_:
        print_json(asdict(report))
    else:
        done = f"{report.reached} of {report.targets} commands reached in {report.seconds:.1f} s"
        say(f"{done}; {report.trouble}" if report.trouble else f"{done} (recorded: {report.nominal_s:.1f} s)")
    raise typer.Exit(0 if report.complete else FAILED)


@guard.command("status")
def status(embodiment: Robot, guard_file: GuardFile = None, namespace: Namespace = None, json_: Json = False) -> None:
    """Say whether a stop is latched. Exit code 1: it is."""
    from dataclasses import asdict

    from lehrling.deploy.guard_latch import read_latch
    from lehrling.deploy.station import guard_config, latch_path, station

    robot = station(embodiment, namespace)
    path = guard_config(guard_file, robot).latch_path or latch_path(robot)
    state = read_latch(path)
    if json_:
        print_json({"file": str(path), "latched": state.latched, **asdict(state)})
    elif state.latched:
        say(f"A stop is latched since {state.at}: {state.cause}. {state.text}")
    else:
        say(f"No stop is latched.{f' Last reset by {state.reset_by}.' if state.reset_by else ''}")
    raise typer.Exit(FAILED if state.latched else 0)


@guard.command("reset")
def reset(
    embodiment: Robot,
    operator: Annotated[str, typer.Option("--operator", help="Who resets; the login name if not given.")] = "",
    guard_file: GuardFile = None,
    namespace: Namespace = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Reset a latched stop, at the robot, while nothing drives it."""
    from lehrling.cli.output import confirmed
    from lehrling.collection.teleop import operator_name
    from lehrling.deploy.guard_latch import clear_latch, read_latch
    from lehrling.deploy.station import guard_config, latch_path, station

    robot = station(embodiment, namespace)
    path = guard_config(guard_file, robot).latch_path or latch_path(robot)
    state = read_latch(path)
    if not state.latched:
        say("No stop is latched.")
        return
    say(f"Latched since {state.at}: {state.cause}. {state.text}")
    if not yes and not confirmed("Do you stand at the robot, and is the cause gone?"):
        raise typer.Abort
    clear_latch(path, operator_name(operator))
    say("The stop is reset.")


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.command("teleop")(teleop)
    app.command("replay")(replay)
    app.add_typer(guard, name="guard")
