"""Closed-loop evaluation in simulation, against the untrained policy and the scripted expert in the same run."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lehrling.datasets.errors import ContractError, InputError
from lehrling.training.rollout import ACTORS, Actor, Recorder, Rollout, expert_rollout, policy_rollout
from lehrling.training.statistics import SuccessRate

if TYPE_CHECKING:
    from lehrling.sim.env import TaskEnv
    from lehrling.training.protocol import Policy

Progress = Callable[[int, int], None]
ACTIONS = ("tcp_command.x", "tcp_command.y", "tcp_command.z", "gripper_command.gripper")
FIRST_EVALUATION_SEED = 500_000
"""Seeds from here on are for evaluation; `sim generate` refuses none, so reports list both."""


@dataclass(frozen=True)
class EvaluationPlan:
    """What to evaluate.

    Attributes:
        policy: the policy's directory.
        baseline: directory of the policy as it stood before training; None leaves it out.
        execute: steps of each chunk that are executed before the policy looks again.
    """

    policy: Path
    baseline: Path | None
    task: str
    robot: str
    seeds: tuple[int, ...]
    execute: int = 4
    workers: int = 1

    @property
    def actors(self) -> tuple[Actor, ...]:
        """Who acts, in the order of the report."""
        return tuple(a for a in ACTORS if a != "untrained" or self.baseline is not None)


@dataclass(frozen=True)
class EvaluationReport:
    """Rates per actor and one row per rollout, in seed order."""

    plan: EvaluationPlan
    rollouts: tuple[Rollout, ...]

    def rate(self, actor: Actor) -> SuccessRate:
        """Return an actor's success rate."""
        rows = [row for row in self.rollouts if row.actor == actor]
        return SuccessRate(len(rows), sum(row.success for row in rows))

    def to_json(self) -> dict[str, object]:
        """Return the report for `--json`; equal seeds give equal reports."""
        return {
            "task": self.plan.task,
            "robot": self.plan.robot,
            "seeds": list(self.plan.seeds),
            "execute": self.plan.execute,
            **{actor: self.rate(actor).to_json() for actor in self.plan.actors},
            "rollouts": [row.to_json() for row in self.rollouts],
        }

    def failures_first(self, actor: Actor = "tuned") -> list[Rollout]:
        """Return an actor's rollouts, the failures first."""
        rows = [row for row in self.rollouts if row.actor == actor]
        return sorted(rows, key=lambda row: (row.success, row.seed))


_env: TaskEnv | None = None
_policies: dict[Actor, Policy] = {}


def _load(plan: EvaluationPlan) -> dict[Actor, Policy]:
    from lehrling.training.policy import load_policy

    wanted: dict[Actor, Path | None] = {"tuned": plan.policy, "untrained": plan.baseline}
    return {actor: load_policy(path) for actor, path in wanted.items() if path is not None}


def _check(plan: EvaluationPlan, policy: Policy) -> None:
    """Refuse a policy whose observations or actions are not this robot's."""
    from lehrling.sim.robots import robot_named
    from lehrling.sim.tasks import task_named

    task_named(plan.task)
    names = tuple(f"joint_position.{joint}" for joint in robot_named(plan.robot).joint_names)
    if tuple(policy.spec.action_names) != ACTIONS:
        raise ContractError(
            f"The simulator takes the actions {', '.join(ACTIONS)}, but the policy gives "
            f"{', '.join(policy.spec.action_names)}; build the view with these action fields and train again."
        )
    if tuple(policy.spec.state_names) != names:
        raise ContractError(
            f"The policy expects the state {', '.join(policy.spec.state_names)}, but robot {plan.robot!r} gives "
            f"{', '.join(names)}; evaluate it on the robot that it was trained for."
        )
    if not 1 <= plan.execute <= policy.spec.chunk:
        raise InputError(f"Expected execute from 1 to the chunk length {policy.spec.chunk}, got {plan.execute}.")


def _check_held_out(plan: EvaluationPlan) -> None:
    """Refuse seeds that the policy was trained on."""
    from lehrling.sim.record import episode_id
    from lehrling.training.artefact import read_description

    used = {episode["id"] for episode in read_description(plan.policy).provenance.get("episodes", [])}
    both = [seed for seed in plan.seeds if episode_id(plan.task, plan.robot, seed) in used]
    if both:
        raise InputError(
            f"Expected evaluation seeds never used for demonstrations, but {len(both)} were, such as {both[0]}; "
            "choose other seeds with --seed."
        )


def _start_worker(plan: EvaluationPlan) -> None:
    global _env  # noqa: PLW0603
    import torch

    from lehrling.sim.env import TaskEnv

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _policies.update(_load(plan))
    _env = TaskEnv(plan.task, plan.robot, _policies["tuned"].spec.image_px)


def _roll(plan: EvaluationPlan, actor: Actor, seed: int) -> Rollout:
    assert _env is not None
    if actor == "expert":
        return expert_rollout(_env, seed)
    return policy_rollout(_env, _policies[actor], seed, actor=actor, execute=plan.execute)


def evaluate(plan: EvaluationPlan, *, progress: Progress | None = None) -> EvaluationReport:
    """Roll out every actor on every seed, each alone in its world, so that the worker count changes nothing.

    Raises:
        InputError: unknown task or robot, no seeds, seeds of the policy's own demonstrations, or `execute` beyond the chunk.
        ContractError: the policy is another robot's.
    """
    if not plan.seeds or plan.workers < 1:
        raise InputError(f"Expected at least one seed and one worker, got {len(plan.seeds)} and {plan.workers}.")
    _check(plan, _load(plan)["tuned"])
    _check_held_out(plan)
    jobs = [(actor, seed) for seed in plan.seeds for actor in plan.actors]
    done: dict[tuple[Actor, int], Rollout] = {}
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    context = mp.get_context("spawn")
    with ProcessPoolExecutor(min(plan.workers, len(jobs)), context, _start_worker, (plan,)) as pool:
        futures = {pool.submit(_roll, plan, actor, seed): (actor, seed) for actor, seed in jobs}
        for future in as_completed(futures):
            done[futures[future]] = future.result()
            if progress is not None:
                progress(len(done), len(jobs))
    return EvaluationReport(plan, tuple(done[job] for job in jobs))


def film(report: EvaluationReport, folder: Path, *, count: int = 6) -> list[Path]:
    """Roll out a few seeds of the tuned policy again, failures first, and write a GIF of each."""
    import imageio.v3 as iio

    from lehrling.sim.env import TaskEnv
    from lehrling.training.policy import load_policy

    folder.mkdir(parents=True, exist_ok=True)
    policy = load_policy(report.plan.policy)
    env = TaskEnv(report.plan.task, report.plan.robot, policy.spec.image_px)
    paths = []
    failures = [r for r in report.failures_first() if not r.success]
    successes = [r for r in report.failures_first() if r.success]
    chosen = failures[: max(count // 2, count - len(successes))]
    for row in (chosen + successes)[:count]:
        camera = Recorder()
        policy_rollout(env, policy, row.seed, actor="tuned", execute=report.plan.execute, watch=camera)
        path = folder / f"{'success' if row.success else 'failure'}-{row.seed}.gif"
        iio.imwrite(path, camera.frames, duration=100, loop=0)
        paths.append(path)
    env.close()
    return paths


def write_report(report: EvaluationReport, folder: Path) -> Path:
    """Write `evaluation.json` into `folder` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "evaluation.json"
    path.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    return path
