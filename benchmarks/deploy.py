"""The policy server beside `policy-websocket`'s (a copy of openpi's), and the control loop on the served simulator.

Where the server is measured the policy is trivial, and the official openpi client asks over loopback. The clients run in their
own process and environment (`.venvs/clients`, made by `make setup`), as does the peer's server. The control loop runs over
ROS 2 while a vision-language policy on the builtin base infers in another process, all on the same cores.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from benchmarks.common import RESULTS, Result, write
from numpy.typing import NDArray

from lehrling.deploy.client import PolicyClient
from lehrling.deploy.cycle import Recipe
from lehrling.deploy.requests import Served
from lehrling.deploy.robot_runtime import ProcessRuntime
from lehrling.deploy.run_config import RunConfig
from lehrling.deploy.runtime import Phase
from lehrling.deploy.server import PolicyServer, ServeOptions
from lehrling.training.adapters import AdapterBank
from lehrling.training.protocol import Observation, PolicySpec

ROOT = Path(__file__).parents[1]
OUTSIDE = ROOT / ".venvs/clients/bin/python"
STATE, ACTIONS, CHUNK = 8, 7, 16
SIZES = {"2 x 224x224": (2, 224, 224, 1000, 1.0), "3 x 640x480": (3, 480, 640, 300, 10.0)}
"""Cameras, height, width, requests, and the most that the median may take [ms]."""
ROUNDS, CLIENTS, BATCH_S, SHARE_S, CONTROL_S = 3, 16, 0.02, 4.0, 30.0
CLIENT = """
import json, sys, time, numpy as np
from openpi_client.websocket_client_policy import WebsocketClientPolicy
port, cameras, height, width, requests = map(int, sys.argv[1:])
client = WebsocketClientPolicy("127.0.0.1", port)
seen = {f"observation/camera{k}": np.random.randint(0, 256, (height, width, 3), np.uint8) for k in range(cameras)}
seen |= {"observation/state": np.zeros(8, np.float32), "prompt": "pick"}
times = []
for k in range(requests + 20):
    begun = time.perf_counter()
    assert client.infer(seen)["actions"].shape == (16, 7)
    times.append((time.perf_counter() - begun) * 1e3)
print(json.dumps(times[20:]))
"""
PEER = """
import numpy as np, sys
from policy_websocket import BasePolicy, WebsocketPolicyServer
class Trivial(BasePolicy):
    def infer(self, seen):
        return {"actions": np.zeros((16, 7), np.float32)}
    def reset(self):
        pass
WebsocketPolicyServer(Trivial(), host="127.0.0.1", port=int(sys.argv[1]), metadata={}).serve_forever()
"""


class Trivial:
    """Answers zeros, after a while where it is told to take time, however many ask."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self._takes_s = takes_s

    def act(self, name: str, observations: Sequence[Observation]) -> NDArray[np.float32]:
        """Return zeros (B, H, A)."""
        del name
        if self._takes_s:
            time.sleep(self._takes_s)
        return np.zeros((len(observations), CHUNK, ACTIONS), np.float32)


def served(cameras: int, px: int = 0) -> Served:
    """Return a policy that takes images of `px`, or of any size."""
    names = tuple(f"camera{k}" for k in range(cameras))
    states, actions = (tuple(f"{letter}{k}" for k in range(count)) for letter, count in (("s", STATE), ("a", ACTIONS)))
    return Served("trivial", PolicySpec(names, px, states, actions, CHUNK, 10.0))


@contextmanager
def ours(cameras: int) -> Iterator[int]:
    """Serve in this process; yield the port."""
    with PolicyServer(Trivial(), {"trivial": served(cameras)}, ServeOptions(port=0)) as server:
        yield server.port


@contextmanager
def theirs(_cameras: int) -> Iterator[int]:
    """Serve by the peer; yield the port."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([OUTSIDE, "-c", PEER, str(port)])
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


def asked(port: int, cameras: int, height: int, width: int, requests: int) -> list[float]:
    """Return how long the official client waited for each answer [ms]."""
    words = [str(OUTSIDE), "-c", CLIENT, *map(str, (port, cameras, height, width, requests))]
    run = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
    times: list[float] = json.loads(run.stdout)
    return times


def latencies() -> list[Result]:
    """Measure both servers in turns."""
    results = []
    for size, (cameras, height, width, requests, most) in SIZES.items():
        times: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(ROUNDS):
            for name, serving in (("ours", ours), ("theirs", theirs)):
                with serving(cameras) as port:
                    times[name] += asked(port, cameras, height, width, requests)
        for percent in (50, 99):
            mine, peer = (float(np.percentile(times[name], percent)) for name in ("ours", "theirs"))
            met = mine <= most if percent == 50 else True
            target = f"at most {most:g} ms" if percent == 50 else "stated"
            results.append(
                Result(
                    f"openpi client, {size}: p{percent}", mine, "ms", "policy-websocket", peer, mine / peer, target, met
                )
            )
    return results


def shares(port: int, clients: int) -> list[int]:
    """Return how many answers each of so many clients got."""
    found, until_s = [0] * clients, time.monotonic() + SHARE_S

    def work(number: int) -> None:
        with PolicyClient(f"ws://127.0.0.1:{port}") as client:
            seen = client.blank()
            while time.monotonic() < until_s:
                client.infer(seen)
                found[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def together() -> list[Result]:
    """Measure what batching gives to many clients, with a policy that takes as long for many as for one."""
    with PolicyServer(Trivial(BATCH_S), {"trivial": served(1, 64)}, ServeOptions(port=0)) as server:
        alone, many = shares(server.port, 1)[0], shares(server.port, CLIENTS)
    mean = sum(many) / CLIENTS
    gain, least = sum(many) / alone, min(many) / mean
    batched = f"{CLIENTS} clients, batched inference of {BATCH_S * 1e3:g} ms"
    rate, single = sum(many) / SHARE_S, alone / SHARE_S
    return [
        Result(batched, rate, "answers/s", "one client", single, gain, "at least 3 x", gain >= 3),
        Result("of them the one served least", min(many), "answers", "mean", mean, least, "at least 0.5", least >= 0.5),
    ]


def small_policy(folder: Path) -> Path:
    """Train a policy for two steps on two demonstrations, which is enough to be as slow as one that is good."""
    words = [sys.executable, "-m", "lehrling.cli.main"]
    dataset, config = folder / "demonstrations.zarr", folder / "train.yaml"
    config.write_text(
        f"dataset: {dataset}\nview: train\noutput: {folder / 'run'}\nbase: {{path: 'builtin:base'}}\nsteps: 2\nbatch: 4\n"
    )
    generate = ["sim", "generate", dataset, "--task", "kitting", "--robot", "arm6", "--episodes", "2", "--seed", "0"]
    view = ["view", dataset, "--name", "train", "--rate", "10", "--size", "96"]
    for step in (generate, view, ["train", config]):
        subprocess.run([*words, *map(str, step)], check=True, capture_output=True, timeout=300)
    return folder / "run/policy"


def switching(policy: Path) -> list[Result]:
    """Measure how long another adapter takes to act on the backbone in memory, beside loading it."""
    began = time.perf_counter()
    bank = AdapterBank({"one": policy, "two": policy})
    loading = (time.perf_counter() - began) * 1e3
    times = []
    for number in range(100):
        begun = time.perf_counter()
        bank.switch(("one", "two")[number % 2])
        times.append((time.perf_counter() - begun) * 1e3)
    switch = float(np.percentile(times, 99))
    return [
        Result(
            "adapter switch: p99",
            switch,
            "ms",
            "loading both",
            loading,
            switch / loading,
            "at most 50 ms",
            switch <= 50,
        )
    ]


@contextmanager
def started(*words: object) -> Iterator[subprocess.Popen[str]]:
    """Run a `lehrling` command for as long as the block."""
    command = [sys.executable, "-m", "lehrling.cli.main", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def url_of(process: subprocess.Popen[str]) -> str:
    """Return the address that a server prints."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"ws://[\d.]+:\d+", line):
            return found[0]
    raise RuntimeError("the policy server did not start")


def control(policy: Path, folder: Path) -> list[Result]:
    """Let the policy drive the served arm for half a minute; measure how even the control ticks are."""
    os.environ |= {"ROS_LOCALHOST_ONLY": "1", "ROS_DOMAIN_ID": "83"}
    guard = folder / "guard.yaml"
    guard.write_text(f"latch_path: {folder / 'latch.json'}\n")
    said: list[str] = []
    recipes = {1: Recipe(1, "drive", "put the red part into the left pocket", "drive", limit_s=CONTROL_S)}
    with (
        started("sim", "serve", "--task", "kitting", "--robot", "arm6"),
        started("serve", f"drive={policy}", "--port", "0") as serving,
    ):
        config = RunConfig(embodiment="arm6", server=url_of(serving), guard=guard, connect_s=120)
        runtime = ProcessRuntime(config, recipes, lambda _kind, _facts: None, said.append)
        runtime.load(1)
        begun, until_s = False, time.monotonic() + CONTROL_S + 120
        while time.monotonic() < until_s and not (begun and runtime.state().phase is Phase.READY):
            runtime.set_enabled(True)
            if not begun and runtime.state().phase is Phase.READY:
                runtime.start(1)
                begun = True
                time.sleep(0.2)
            time.sleep(0.02)
        runtime.close()
    p99, most = map(float, re.findall(r"[\d.]+(?= ms)", said[-1]))
    period = 10.0
    driven = "control ticks at 100 Hz while inference runs, off by"
    return [
        Result(f"{driven}: p99", p99, "ms", "period", period, p99 / period, "at most 5 ms", p99 <= 5),
        Result(f"{driven}: most", most, "ms", "period", period, most / period, "stated", True),
    ]


def long_tests() -> list[Result]:
    """Run the tests of 100,000 random sequences and malformed frames, and return the figures that they note."""
    chosen = [f"tests/deploy/test_{name}.py" for name in ("handshake_sequences", "server_fuzz", "opcua_fuzz")]
    with tempfile.TemporaryDirectory() as name:
        figures = Path(name) / "reliability.json"
        words = [sys.executable, "-m", "pytest", "-q", "-m", "slow", *chosen]
        subprocess.run(words, check=True, env={**os.environ, "LEHRLING_FIGURES": str(figures)}, cwd=ROOT, timeout=3600)
        return [Result(**row) for row in json.loads(figures.read_text())["results"]]


def noted() -> list[Result]:
    """Return the figures of the long tests as the last whole run noted them."""
    known = [Result(**row) for row in json.loads((RESULTS / "deploy.json").read_text(encoding="utf-8"))["results"]]
    return [result for result in known if "malformed" in result.metric or "sequences" in result.metric]


def main() -> None:
    """Measure everything; `--without-long` keeps the last figures of the tests of 100,000 sequences and frames."""
    with tempfile.TemporaryDirectory() as name:
        policy = small_policy(Path(name))
        figures = latencies() + together() + switching(policy) + control(policy, Path(name))
    write("deploy", figures + (noted() if "--without-long" in sys.argv else long_tests()))


if __name__ == "__main__":
    main()
