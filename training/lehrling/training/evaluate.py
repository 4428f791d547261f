"""Closed-loop evaluation in simulation, against the untrained policy and the scripted expert in the same run."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lehrling.datasets.errors import ContractError, InputError, LehrlingError
from lehrling.training.rollout import ACTORS, Actor, Recorder, Rollout, Watch, expert_rollout, policy_rollout
from lehrling.training.statistics import SuccessRate
from lehrling.training.workers import worker_context

if TYPE_CHECKING:
    from lehrling.sim.env import TaskEnv
    from lehrling.training.protocol import Policy, PolicySpec

Progress = Callable[[int, int], None]
Job = tuple[Actor, int]
"""Who acts, on which seed."""
ACTIONS = ("tcp_command.x", "tcp_command.y", "tcp_command.z", "gripper_command.gripper")
FILM = re.compile(r"(success|failure)-\d+\.gif")
FIRST_EVALUATION_SEED = 500_000
"""Where evaluation begins if nothing else is said: far from any demonstration's seed."""


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

    @property
    def folders(self) -> dict[Actor, Path]:
        """Where the policies lie that act."""
        wanted: dict[Actor, Path | None] = {"tuned": self.policy, "untrained": self.baseline}
        return {actor: path for actor, path in wanted.items() if path is not None}


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


@dataclass(frozen=True)
class _Stage:
    """A world, and the policies that act in it."""

    env: TaskEnv
    policies: dict[Actor, Policy]
    execute: int

    def roll(self, actor: Actor, seed: int, watch: Watch | None = None) -> Rollout:
        """Let one actor act on one seed."""
        if actor == "expert":
            return expert_rollout(self.env, seed, watch=watch)
        return policy_rollout(self.env, self.policies[actor], seed, actor=actor, execute=self.execute, watch=watch)


_stage: _Stage | None = None
"""A worker's."""


def _load(plan: EvaluationPlan) -> dict[Actor, Policy]:
    from lehrling.training.policies import open_policy

    return {actor: open_policy(path) for actor, path in plan.folders.items()}


def _stage_for(plan: EvaluationPlan, policies: dict[Actor, Policy]) -> _Stage:
    from lehrling.sim.env import TaskEnv

    return _Stage(TaskEnv(plan.task, plan.robot, policies["tuned"].spec.image_px), policies, plan.execute)


def _check(plan: EvaluationPlan, policies: dict[Actor, Policy]) -> None:
    """Refuse policies whose observations, actions or rate are not this robot's, or that were trained on these seeds."""
    from lehrling.sim.tasks import task_named

    task_named(plan.task)
    for actor, path in plan.folders.items():
        who = "policy" if actor == "tuned" else "baseline"
        _check_contract(plan, policies[actor].spec, who)
        _check_held_out(plan, path, who)
    sizes = {policy.spec.image_px for policy in policies.values()}
    if len(sizes) > 1:
        raise ContractError(
            f"Expected a baseline that sees images of {policies['tuned'].spec.image_px} px, as the policy does, got "
            f"{policies['untrained'].spec.image_px}; name one of the same view with --baseline."
        )


def _check_contract(plan: EvaluationPlan, spec: PolicySpec, who: str) -> None:
    """Refuse a policy whose observations, actions or rate are not this robot's."""
    from lehrling.sim.env import CAMERAS, POLICY_HZ
    from lehrling.sim.robots import robot_named

    names = tuple(f"joint_position.{joint}" for joint in robot_named(plan.robot).joint_names)
    if not set(spec.cameras) <= set(CAMERAS):
        raise ContractError(
            f"The simulator has the cameras {', '.join(CAMERAS)}, but the {who} looks through "
            f"{', '.join(spec.cameras)}; build the view with these cameras and train again."
        )
    if spec.rate_hz != POLICY_HZ:
        raise ContractError(
            f"The simulator takes {POLICY_HZ} actions a second, but the {who} gives {spec.rate_hz:g}; build the "
            f"view with --rate {POLICY_HZ} and train again."
        )
    if tuple(spec.action_names) != ACTIONS:
        raise ContractError(
            f"The simulator takes the actions {', '.join(ACTIONS)}, but the {who} gives "
            f"{', '.join(spec.action_names)}; build the view with these action fields and train again."
        )
    if tuple(spec.state_names) != names:
        raise ContractError(
            f"The {who} expects the state {', '.join(spec.state_names)}, but robot {plan.robot!r} gives "
            f"{', '.join(names)}; evaluate it on the robot that it was trained for."
        )
    if not 1 <= plan.execute <= spec.chunk:
        raise InputError(f"Expected execute from 1 to the {who}'s chunk length {spec.chunk}, got {plan.execute}.")


def _check_held_out(plan: EvaluationPlan, folder: Path, who: str) -> None:
    """Refuse seeds that a policy was trained on."""
    from lehrling.sim.record import episode_id
    from lehrling.training.policies import demonstrations_of

    used = {
        name.partition(".")[0] for name in demonstrations_of(folder)
    }  # a trimmed or split episode is named after its seed's, `.t1`
    both = [seed for seed in plan.seeds if episode_id(plan.task, plan.robot, seed) in used]
    if both:
        raise InputError(
            f"Expected evaluation seeds never used for demonstrations, but {len(both)} were, such as {both[0]} for the "
            f"{who}; choose other seeds with --seed."
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread, as every worker does, so that their number changes no result."""
    import torch

    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(kept)


def _start_worker(plan: EvaluationPlan) -> None:
    global _stage  # noqa: PLW0603
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _stage = _stage_for(plan, _load(plan))


def _roll(job: Job) -> Rollout:
    assert _stage is not None
    return _stage.roll(*job)


def _rollouts_here(plan: EvaluationPlan, policies: dict[Actor, Policy], jobs: list[Job]) -> Iterator[Rollout]:
    stage = _stage_for(plan, policies)
    with _one_thread(), closing(stage.env):
        for job in jobs:
            yield stage.roll(*job)


def _rollouts_by_workers(plan: EvaluationPlan, jobs: list[Job]) -> Iterator[Rollout]:
    """Yield rollouts as they end."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with ProcessPoolExecutor(min(plan.workers, len(jobs)), worker_context(), _start_worker, (plan,)) as pool:
        try:
            for future in as_completed([pool.submit(_roll, job) for job in jobs]):
                yield future.result()
        except BrokenProcessPool as error:
            raise LehrlingError(
                f"One of {plan.workers} workers ended without a word, as when memory runs out; use fewer --workers."
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def evaluate(plan: EvaluationPlan, *, progress: Progress | None = None) -> EvaluationReport:
    """Roll out every actor on every seed, each alone in its world, so that the worker count changes nothing.

    One worker is this process.

    Raises:
        InputError: unknown task or robot, no seeds, seeds of a policy's own demonstrations, or `execute` beyond a chunk.
        ContractError: a policy is another robot's, or the baseline another view's.
    """
    if not plan.seeds or plan.workers < 1:
        raise InputError(f"Expected at least one seed and one worker, got {len(plan.seeds)} and {plan.workers}.")
    policies = _load(plan)
    _check(plan, policies)
    jobs: list[Job] = [(actor, seed) for seed in plan.seeds for actor in plan.actors]
    rollouts = _rollouts_here(plan, policies, jobs) if plan.workers == 1 else _rollouts_by_workers(plan, jobs)
    done: dict[Job, Rollout] = {}
    for rollout in rollouts:
        done[rollout.actor, rollout.seed] = rollout
        if progress is not None:
            progress(len(done), len(jobs))
    return EvaluationReport(plan, tuple(done[job] for job in jobs))


def film(report: EvaluationReport, folder: Path, *, count: int = 6) -> list[Path]:
    """Roll out a few seeds of the tuned policy again, exactly as reported, failures first, and write a GIF of each.

    Films of an earlier evaluation in the folder are removed.
    """
    import imageio.v3 as iio

    from lehrling.training.policies import open_policy

    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.iterdir():
        if FILM.fullmatch(earlier.name) and not earlier.is_dir():
            earlier.unlink()
    stage = _stage_for(report.plan, {"tuned": open_policy(report.plan.policy)})
    failures = [r for r in report.failures_first() if not r.success]
    successes = [r for r in report.failures_first() if r.success]
    chosen = failures[: max(count // 2, count - len(successes))]
    paths = []
    with _one_thread(), closing(stage.env):
        for row in (chosen + successes)[:count]:
            camera = Recorder()
            stage.roll("tuned", row.seed, watch=camera)
            paths.append(folder / f"{'success' if row.success else 'failure'}-{row.seed}.gif")
            iio.imwrite(paths[-1], camera.frames, duration=100, loop=0)
    return paths


def write_report(report: EvaluationReport, folder: Path) -> Path:
    """Write `evaluation.json` into `folder` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "evaluation.json"
    path.write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    return path
