"""A served simulator and a policy server without a network of neurons, for whatever drives a robot over real DDS."""

from __future__ import annotations

import multiprocessing as mp
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from driven_policies import ARM6, CHUNK, NAMES
from numpy.typing import NDArray

from lehrling.datasets.view_spec import Field, ViewSpec
from lehrling.deploy.requests import Served
from lehrling.training.protocol import Observation, PolicySpec

PLACES = {"left": (0.42, 0.12, 0.25), "right": (0.42, -0.12, 0.25)}
VIEW = ViewSpec(
    rate_hz=10.0,
    image_px=96,
    cameras=("front", "wrist"),
    state=(Field(stream="tcp_pose", select=("x", "y", "z"), latency_ms=5.0),),
    action=(Field(stream="tcp_command", select=("x", "y", "z")), Field(stream="gripper_command")),
    image_latency_ms=40.0,
)
STATE = ("tcp_pose.x", "tcp_pose.y", "tcp_pose.z")
SPEC = PolicySpec(("front", "wrist"), 96, STATE, NAMES, CHUNK, 10.0)
START_S = 120.0


class Leads:
    """Leads the TCP, which it is shown as the state, to the named place in steps of 1.5 cm."""

    def act(self, name: str, observations: Sequence[Observation]) -> NDArray[np.float32]:
        return np.stack([_towards(np.array(PLACES[name]), seen.state.astype(np.float64)) for seen in observations])


def _towards(place: NDArray[np.float64], here: NDArray[np.float64]) -> NDArray[np.float32]:
    step = place - here
    share = np.minimum(1.0, 0.015 * np.arange(1, CHUNK + 1) / max(float(np.linalg.norm(step)), 1e-9))
    return np.column_stack([here + share[:, None] * step, np.ones(CHUNK)]).astype(np.float32)


class PolicyProcess:
    """A server of both policies in a process of its own, so that a test can kill it."""

    def __init__(self, port: int = 0) -> None:
        context = mp.get_context("spawn")
        self._connection, its = context.Pipe()
        self._process = context.Process(target=_serve, args=(its, port), daemon=True)
        self._process.start()
        its.close()
        assert self._connection.poll(START_S), "the policy server does not start"
        self.url: str = self._connection.recv()

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def kill(self) -> None:
        self._process.kill()
        self._process.join(10)

    def quit(self) -> None:
        if self._process.is_alive():
            self._connection.send("quit")
            self._process.join(10)
        self.kill()


def _serve(connection: Connection, port: int) -> None:
    from lehrling.deploy.server import PolicyServer, ServeOptions

    shown = {
        name: Served(name, SPEC, VIEW, ARM6.contract_hash, "5" * 64, f"{number}" * 64)
        for number, name in enumerate(PLACES, 1)
    }
    with PolicyServer(Leads(), shown, ServeOptions(port=port)) as server:
        connection.send(server.url)
        try:
            connection.recv()
        except EOFError:
            return


@contextmanager
def policy_process() -> Iterator[PolicyProcess]:
    made = PolicyProcess()
    try:
        yield made
    finally:
        made.quit()


@dataclass(frozen=True)
class SimProcess:
    """`lehrling sim serve`, and its log."""

    process: subprocess.Popen[str]
    log: Path


@contextmanager
def served_sim(log: Path, *words: str) -> Iterator[SimProcess]:
    """Serve the simulated arm until the block ends."""
    command = [
        sys.executable,
        "-m",
        "lehrling.cli.main",
        "sim",
        "serve",
        "--task",
        "kitting",
        "--robot",
        "arm6",
        *words,
    ]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, text=True, env=dict(os.environ))
        try:
            yield SimProcess(process, log)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def tcp(state: Any) -> NDArray[np.float64]:
    """Return the measured place of the TCP that a runtime tells."""
    return np.array([state.axes[f"tcp_command_{axis}"].position for axis in "xyz"])
