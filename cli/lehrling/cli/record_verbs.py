"""`lehrling record`: demonstrations of a ROS 2 robot into a dataset."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lehrling.cli.output import print_json, say


class _Images(StrEnum):
    RAW = "raw"
    JPEG = "jpeg"


class _Outcome(StrEnum):
    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


def record(
    dataset: Annotated[Path, typer.Argument(help="Dataset directory; created if absent.")],
    embodiment: Annotated[str, typer.Option("--embodiment", help="Shipped embodiment or YAML file.")],
    task: Annotated[str, typer.Option("--task", help="Name of the task.")] = "demonstration",
    instruction: Annotated[str, typer.Option("--instruction", help="What the robot is told to do.")] = "",
    instruction_topic: Annotated[
        str, typer.Option("--instruction-topic", help="Latched topic (std_msgs/msg/String) to take it from.")
    ] = "",
    operator: Annotated[str | None, typer.Option("--operator", help="Pseudonym of the operator.")] = None,
    episodes: Annotated[int | None, typer.Option("--episodes", min=1, help="Episodes of this task in all.")] = None,
    more: Annotated[int | None, typer.Option("--more", min=1, help="Episodes in addition to those there.")] = None,
    limit: Annotated[
        float | None, typer.Option("--limit", min=0.1, help="Seconds after which an episode ends by itself.")
    ] = None,
    limit_outcome: Annotated[
        _Outcome, typer.Option("--limit-outcome", help="Outcome of an episode that ends so.")
    ] = _Outcome.UNKNOWN,
    autostart: Annotated[
        bool, typer.Option("--autostart", help="Begin by itself, after warm-up and after each reset.")
    ] = False,
    warmup: Annotated[float, typer.Option("--warmup", min=0, help="Seconds before the first episode.")] = 3.0,
    reset: Annotated[float, typer.Option("--reset", min=0, help="Seconds to put things back between episodes.")] = 0.0,
    namespace: Annotated[str | None, typer.Option("--namespace", help="Namespace of this robot's topics.")] = None,
    images: Annotated[_Images | None, typer.Option("--images", help="How raw colour images are journalled.")] = None,
    min_free: Annotated[float, typer.Option("--min-free", min=0, help="GiB that are kept free on the disk.")] = 2.0,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Begin although needed topics were never heard.")
    ] = False,
    sim_time: Annotated[bool, typer.Option("--sim-time", help="Take receive times from /clock.")] = False,
    processes: Annotated[int, typer.Option("--processes", min=1, max=16, help="Capture processes.")] = 1,
    joy_topic: Annotated[
        str, typer.Option("--joy-topic", help="Joystick or pedal (sensor_msgs/Joy): begin/save, failure, discard.")
    ] = "",
    campaign: Annotated[
        Path | None, typer.Option("--campaign", help="YAML that says what is to be recorded next.")
    ] = None,
    station: Annotated[str, typer.Option("--station", help="This station, as the campaign names it.")] = "",
    speak: Annotated[bool, typer.Option("--speak", help="Speak cues, where the machine can.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Record demonstrations of a ROS 2 robot; by keys, services, joystick or pedal.

    Keys: space begins and saves, enter saves, f saves as failure, d discards, + and - mark, q quits. Exit code 1: an episode
    was quarantined; 3: something is missing, the report says what.
    """
    from lehrling.cli.record_run import run_recorder
    from lehrling.collection.capture_group import CaptureOptions
    from lehrling.collection.recorder import RecorderConfig
    from lehrling.collection.session import GIB, Plan, SessionOptions
    from lehrling.datasets.embodiment import load_embodiment

    choose = None
    if campaign is not None:
        from lehrling.collection.campaign_plan import chooser

        choose = chooser(campaign, station)
    session = SessionOptions(
        warmup_s=warmup,
        reset_s=reset,
        limit_s=limit,
        limit_outcome=limit_outcome.value,
        autostart=autostart,
        min_free_bytes=int(min_free * GIB),
        allow_missing=allow_missing,
    )
    config = RecorderConfig(
        dataset,
        load_embodiment(embodiment),
        Plan(task, instruction, operator),
        session,
        CaptureOptions(processes, sim_time),
        episodes,
        more,
        namespace,
        images.value if images is not None else None,
        choose,
    )
    code, report = run_recorder(config, {"joy_topic": joy_topic, "instruction_topic": instruction_topic}, speak=speak)
    if json_:
        print_json(report)
    else:
        say(f"{len(report['sealed'])} episodes recorded, {len(report['failed'])} set aside, in {dataset}")
    raise typer.Exit(code)


def register(app: typer.Typer) -> None:
    """Add this verb."""
    app.command("record")(record)
