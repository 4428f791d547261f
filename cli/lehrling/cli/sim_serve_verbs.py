"""`lehrling sim serve`: the simulator as a ROS 2 robot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lehrling.cli.output import INTERRUPTED, print_json, say

if TYPE_CHECKING:
    from lehrling.datasets.embodiment import Embodiment

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout at the end.")]
Factor = Annotated[
    float, typer.Option("--real-time-factor", min=0.01, max=100, help="Simulation seconds per second, if possible.")
]
FaultTexts = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        help="A fault of the sensors, such as camera_unplug:front:2:5 (silent from 2 s to 5 s after each reset), "
        "freeze, wrong_size or nan alike, drop:joint_states:0.1, clock_jump:-0.5:3; @N for the Nth episode only; repeatable.",
    ),
]


def _write(path: Path, embodiment: Embodiment) -> None:
    import yaml

    text = yaml.safe_dump(embodiment.model_dump(mode="json"), sort_keys=False, width=120)
    path.write_text(f"# As `lehrling sim serve` gives it.\n{text}", encoding="utf-8")


def serve_(
    task: Annotated[str, typer.Option("--task", help="Task, see `lehrling sim tasks`.")],
    robot: Annotated[str, typer.Option("--robot", help="Robot.")] = "arm6",
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the first layout; each reset takes the next.")
    ] = 0,
    size: Annotated[str, typer.Option("--size", help="Camera images, pixels: 96, or height x width: 240x320.")] = "96",
    namespace: Annotated[str, typer.Option("--namespace", help="ROS namespace of node and topics.")] = "",
    real_time_factor: Factor = 1.0,
    sim_time: Annotated[
        bool, typer.Option("--sim-time", help="Stamp with simulation time and publish /clock.")
    ] = False,
    raw_images: Annotated[bool, typer.Option("--raw-images", help="Cameras as sensor_msgs/Image, not JPEG.")] = False,
    fault: FaultTexts = None,
    disturb: Annotated[bool, typer.Option("--disturb", help="Execute commands a little off, for recoveries.")] = False,
    expert: Annotated[bool, typer.Option("--expert", help="Let the scripted expert drive it by its topics.")] = False,
    episodes: Annotated[int | None, typer.Option("--episodes", min=1, help="End after so many by the expert.")] = None,
    recorder: Annotated[str, typer.Option("--recorder", help="Recorder node that the expert starts and saves.")] = "",
    embodiment_out: Annotated[
        Path | None, typer.Option("--embodiment-out", help="Write the embodiment as served, for a recorder.")
    ] = None,
    json_: Json = False,
) -> None:
    """Let a simulated robot live in ROS 2: topics and services like a real one's, until Ctrl-C."""
    from dataclasses import asdict

    from lehrling.datasets.errors import InputError
    from lehrling.sim.catalogue import make_station
    from lehrling.sim.faults import parse_fault
    from lehrling.sim.ros_robot import ServeOptions, serve
    from lehrling.sim.variants import in_namespace, parse_namespace, parse_size, with_raw_images

    if (episodes is not None or recorder) and not expert:
        raise InputError("--episodes and --recorder are the expert's; add --expert.")
    options = ServeOptions(
        seed=seed,
        namespace=parse_namespace(namespace),
        real_time_factor=real_time_factor,
        sim_time=sim_time,
        raw_images=raw_images,
        faults=tuple(parse_fault(text) for text in fault or ()),
        disturb=disturb,
        expert=expert,
        episodes=episodes,
        recorder=recorder,
    )
    station = make_station(task, robot, parse_size(size))
    try:
        if embodiment_out is not None:
            served = with_raw_images(station.embodiment) if raw_images else station.embodiment
            _write(embodiment_out, in_namespace(served, options.namespace))
        report = serve(station, options, say)
    finally:
        station.close()
    if json_:
        print_json(asdict(report))
    if not report.finished and episodes is not None:
        raise typer.Exit(INTERRUPTED)


def register(sim: typer.Typer) -> None:
    """Add the verb to `lehrling sim`."""
    sim.command("serve")(serve_)
