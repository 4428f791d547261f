"""Render labelled frames for the base's pre-training: images, joints, instruction, and what the simulator knows.

The labels (where the named part and place are, which tokens show them) exist in pre-training only; datasets and policies
never see them. Usage: python training/recipes/base_data.py OUT --frames 60000 --first-seed 1000000
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lehrling.sim.cameras import project
from lehrling.sim.disturbance import Disturbance
from lehrling.sim.expert import Expert
from lehrling.sim.robots import robot_named
from lehrling.sim.seeding import Seeds
from lehrling.sim.tasks import TASKS, task_named
from lehrling.sim.tasks.base import COLOURS, Task
from lehrling.sim.world import World

PX, GRID, CHUNK = 96, 6, 8
CAMERAS = ("front", "wrist")
AFTER_DONE_ROWS = 6
Rows = dict[str, list[NDArray[Any]]]


def pooled(mask: NDArray[np.bool_]) -> NDArray[np.float16]:
    """Return the covered share per visual token (GRID * GRID,) of a (PX, PX) mask."""
    cell = PX // GRID
    return np.asarray(mask.reshape(GRID, cell, GRID, cell).mean(axis=(1, 3)).reshape(-1), dtype=np.float16)


def place_token(world: World, task: Task, camera: str) -> NDArray[np.float16]:
    """Return the share with which each token shows the goal place's centre: bilinear, all zero outside the image."""
    pose = world.arm.link_pose(world.arm.camera_link)
    point = np.array([*task.goal.xy, 0.015])
    u, v = project(world.physics.client, world.cameras[camera], pose, point) * GRID - 0.5
    weights = np.zeros((GRID, GRID), dtype=np.float16)
    for row in (int(np.floor(v)), int(np.floor(v)) + 1):
        for column in (int(np.floor(u)), int(np.floor(u)) + 1):
            if 0 <= row < GRID and 0 <= column < GRID:
                weights[row, column] = (1 - abs(v - row)) * (1 - abs(u - column))
    return weights.reshape(-1)


def observe(world: World, task: Task, rows: Rows) -> None:
    """Append one row of images and labels."""
    images, parts, places, colours = [], [], [], []
    for camera in CAMERAS:
        image, mask = world.render_labelled(camera)
        assert mask is not None
        images.append(image)
        parts.append(pooled(mask == task.parts[task.goal.part].body))
        places.append(place_token(world, task, camera))
        shown = np.zeros((GRID * GRID, len(COLOURS)), dtype=np.float16)
        for part in task.parts:
            shown[:, sorted(COLOURS).index(part.colour)] = pooled(mask == part.body)
        colours.append(shown)
    rows["image"].append(np.stack(images))
    rows["token_part"].append(np.stack(parts))
    rows["token_place"].append(np.stack(places))
    rows["token_colour"].append(np.stack(colours))
    rows["state"].append(world.joints()[0].astype(np.float32))
    held = task.part_position(world)
    rows["where"].append(np.array([*held, *task.goal.xy, *world.tcp()[0]], dtype=np.float32))


def episode(world: World, seed: int, rows: Rows, texts: list[str]) -> None:
    """Run one disturbed expert episode and append its rows at 10 Hz."""
    seeds = Seeds(seed)
    names = sorted(TASKS)
    task = task_named(names[seed % len(names)])
    world.reset(seeds)
    task.reset(world, seeds)
    expert, disturbance = Expert(world, task), Disturbance(seeds["disturbance"])
    commands: list[NDArray[np.float32]] = []
    start, left = len(rows["state"]), AFTER_DONE_ROWS * 2
    for tick in range(int(task.time_limit_s * 20)):
        if tick % 2 == 0:
            observe(world, task, rows)
        target, gripper = expert.act()
        if tick % 2 == 0:
            commands.append(np.array([*target, gripper], dtype=np.float32))
        world.disturbance = disturbance.push(float(world.tcp()[0][2]))
        world.command(target, disturbance.gripper(gripper))
        world.step()
        if task.update(world) or left < AFTER_DONE_ROWS * 2:
            left -= 1
        if left == 0:
            break
    last = len(commands) - 1
    for row in range(len(rows["state"]) - start):
        rows["chunk"].append(np.stack([commands[min(row + h, last)] for h in range(CHUNK)]))
        rows["task"].append(np.array(seed % len(names), dtype=np.int8))
        rows["text"].append(np.array(len(texts), dtype=np.int32))
    texts.append(task.goal.instruction)


def main() -> None:
    """Write one shard of labelled frames."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--first-seed", type=int, default=1_000_000)
    parser.add_argument("--robot", default="arm6")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    world, texts, seed = World(robot_named(args.robot), PX), list[str](), args.first_seed
    keys = ("image", "token_part", "token_place", "token_colour", "state", "where", "chunk", "task", "text")
    rows: Rows = {key: [] for key in keys}
    while len(rows["state"]) < args.frames:
        episode(world, seed, rows, texts)
        seed += 1
    for key, values in rows.items():
        np.save(args.out / f"{key}.npy", np.stack(values))
    (args.out / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    print(f"{len(rows['state'])} frames, {seed - args.first_seed} episodes in {args.out}")  # noqa: T201


if __name__ == "__main__":
    main()
