"""Record a demonstration: the simulator publishes the messages a real robot would, into a journal."""

from __future__ import annotations

from pathlib import Path

from lehrling.datasets.journal import EpisodeMeta, JournalWriter
from lehrling.sim.cameras import RENDERER
from lehrling.sim.physics import STEP_HZ
from lehrling.sim.seeding import Seeds
from lehrling.sim.sensing import Send, Sensors, sensors_of
from lehrling.sim.station import Station

AFTER_DONE_S = 0.5


def demonstrate(station: Station, seeds: Seeds, send: Send) -> bool:
    """Run the expert on a station just reset, sending every message; return whether it succeeded."""
    expert, periods_hz = station.expert(), STEP_HZ / station.period_steps
    sensors = Sensors(sensors_of(station.embodiment, station.readers), station.physics, seeds["sensor"], send)
    done, remaining = False, int(AFTER_DONE_S * periods_hz)
    for _ in range(int(station.time_limit_s * periods_hz)):
        commands = expert.act(station.physics.time_ns)
        sensors.say(commands)
        for topic, cdr in commands:
            station.hear(topic, cdr)
        station.apply()
        for _ in range(station.period_steps):
            sensors.tick()
            station.physics.step(1)
            sensors.deliver(station.physics.time_ns)
        done = station.judge() or done
        remaining -= done
        if remaining == 0:
            break
    sensors.flush()
    return done


def episode_id(task: str, robot: str, seed: int) -> str:
    """Return the id of a simulated episode, which its task, robot and seed determine."""
    return f"{task}-{robot}-{seed:08d}"


def record_episode(root: Path, station: Station, seed: int) -> bool:
    """Record one demonstration into the dataset's journals; return whether the expert succeeded."""
    seeds, robot = Seeds(seed), station.embodiment.name
    details = {"seeds": seeds.describe(), "renderer": RENDERER, "expert": "scripted"}
    station.reset(seeds, disturb=True)
    meta = EpisodeMeta(
        id=episode_id(station.task_name, robot, seed),
        task=station.task_name,
        instruction=station.instruction,
        robot=robot,
        origin="simulation",
        seed=seed,
        operator="scripted-expert",
        details=details,
    )
    with JournalWriter(root, meta, station.embodiment) as journal:

        def send(topic: str, cdr: bytes, stamp_ns: int, received_ns: int) -> None:
            journal.write(topic, cdr, received_ns=received_ns, publish_ns=stamp_ns, monotonic_ns=received_ns)

        done = demonstrate(station, seeds, send)
        journal.close("success" if done else "failure", "task done" if done else "time limit")
    return done
