"""The whole cell once: a served simulator, two adapters on one backbone, the robot's runtime, OPC UA, and a PLC."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lehrling.datasets.errors import InputError

if TYPE_CHECKING:
    from lehrling.deploy.plc_simulator import PlcSimulator

POCKETS = {"left": "first", "middle": "first", "right": "second"}
"""Pocket of the tray -> which of the two adapters fills it."""
LIMITS = {"velocity": 0.6, "acceleration": 4.0, "jerk": 60.0}
"""Of the simulated arm's tool; without any the guard's are for first motions, and cycles take twice as long."""
RESULTS = ("none", "success", "failure", "timeout", "aborted")
START_S, RESETS_MAX, LET_GO_S = 180.0, 60, 2.0
OWN = (
    "cell.yaml",
    "users.yaml",
    "audit.jsonl",
    "traces",
    "pki",
    "plc",
    "report.html",
    "report.json",
    "logs",
    "guard.yaml",
    "latch.json",
)
MARK = ".lehrling-closed-loop"
Say = Callable[[str], None]


@dataclass(frozen=True)
class LoopPlan:
    """What to run.

    Attributes:
        first, second: policy folders on one base; the second fills the right pocket.
        cycles: in all; the adapters take turns.
        limit_s: a cycle that takes longer ends as a timeout.
    """

    out: Path
    first: Path
    second: Path
    cycles: int = 6
    seed: int = 5000
    limit_s: float = 40.0
    base: str | None = None


@dataclass
class CycleReport:
    """One cycle as the PLC saw it; times in seconds."""

    cycle: int
    recipe: int
    adapter: str
    instruction: str
    seed: int
    result: str
    seconds: float
    load_s: float
    model_hash: str
    trace: str = ""


@dataclass
class LoopReport:
    """What came of the run."""

    cycles: list[CycleReport] = field(default_factory=list)
    audit: dict[str, Any] = field(default_factory=dict)
    control: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        done = [c for c in self.cycles if c.result == "success"]
        times = sorted(c.seconds for c in done)
        return {
            "cycles": [vars(c) for c in self.cycles],
            "successes": len(done),
            "cycle_s": {"median": times[len(times) // 2], "least": times[0], "most": times[-1]} if times else None,
            "adapters": sorted({c.adapter for c in self.cycles}),
            "audit": self.audit,
            "control": self.control,
        }


def recipes(limit_s: float) -> dict[int, dict[str, Any]]:
    """Return the cell's recipes: a number for every colour and pocket."""
    from lehrling.sim.tasks.base import COLOURS

    pairs = [(colour, pocket) for pocket in POCKETS for colour in sorted(COLOURS)]
    return {
        number: {
            "name": f"{colour}_{pocket}",
            "instruction": f"put the {colour} part into the {pocket} pocket",
            "adapter": POCKETS[pocket],
            "cycle_max_s": limit_s,
        }
        for number, (colour, pocket) in enumerate(pairs, 1)
    }


def recipe_for(instruction: str, known: Mapping[int, Mapping[str, Any]]) -> int:
    """Return the number of the recipe that does what an instruction of the simulator asks for.

    Raises:
        InputError: none does.
    """
    words = set(re.findall(r"[a-z]+", instruction.lower()))
    for number, recipe in known.items():
        if set(recipe["name"].split("_")) <= words:
            return number
    raise InputError(f"No recipe does what the simulator laid out: {instruction!r}.")


def run_closed_loop(plan: LoopPlan, say: Say) -> LoopReport:
    """Run everything, write `report.html` and `report.json` into `plan.out`.

    Raises:
        LehrlingError: a part cannot start, or the PLC waits in vain.
    """
    from lehrling.cli.closed_loop_report import write_report
    from lehrling.deploy.audit_verify import verify

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    _clear(plan.out)
    known, report = recipes(plan.limit_s), LoopReport()
    with ExitStack() as stack:
        logs = plan.out / "logs"
        logs.mkdir()
        say("starting the simulator and the policy server")
        sim = ["sim", "serve", "--task", "kitting", "--robot", "arm6", "--seed", plan.seed]
        stack.enter_context(_command(logs / "sim.log", *sim))
        base = ["--base", plan.base] if plan.base else []
        served = ["serve", f"first={plan.first}", f"second={plan.second}", "--port", 0, *base]
        server = stack.enter_context(_command(logs / "serve.log", *served))
        url = _told(server, logs / "serve.log", "policy server", r"listening on (ws://\S+?)[;\s]", "ready")
        say("starting the cell")
        password = _configure(plan, url, known)
        cell = stack.enter_context(_command(logs / "cell.log", "cell", plan.out / "cell.yaml"))
        opcua = _cell(cell, logs / "cell.log")
        say(f"the cell answers at {opcua}; the PLC begins")
        plc = stack.enter_context(_plc(plan.out, opcua, password, plan.limit_s))
        fixture = stack.enter_context(_fixture())
        plc.permit()
        for number in range(plan.cycles):
            report.cycles.append(_cycle(plc, fixture, known, ("first", "second")[number % 2]))
            last = report.cycles[-1]
            say(f"cycle {last.cycle}, recipe {last.recipe} by {last.adapter!r}: {last.result}, {last.seconds:.1f} s")
    _traces(report, plan.out / "traces")
    control = re.search(r"control ticks: .*", (logs / "cell.log").read_text(encoding="utf-8", errors="replace"))
    report.control = control[0].strip() if control else ""
    found = verify(plan.out / "audit.jsonl")
    report.audit = {"whole": found.whole, "closed": found.closed, "records": found.records, "kinds": found.kinds}
    (plan.out / "report.json").write_text(json.dumps(report.to_json(), indent=1) + "\n", encoding="utf-8")
    write_report(plan.out, report)
    return report


def _clear(out: Path) -> None:
    """Make the directory and remove what an earlier run left in it; never what no such run wrote."""
    import shutil

    present = [out / name for name in OWN if (out / name).exists()]
    if present and not (out / MARK).is_file():
        raise InputError(
            f"Expected a new directory or that of an earlier run for --out, but {present[0]} was not made by one; choose another."
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    for path in present:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def _command(log: Path, *words: object) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "lehrling.cli.main", *map(str, words)]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=dict(os.environ))
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _told(process: subprocess.Popen[bytes], log: Path, what: str, pattern: str, ready: str) -> str:
    """Wait until a command says that it is ready; return the address that it tells.

    Raises:
        InputError: it ended, or does not begin.
    """
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        text = log.read_text(encoding="utf-8", errors="replace")
        found = re.search(pattern, text)
        if found and ready in text:
            return found[1]
        if process.poll() is not None:
            raise InputError(f"The {what} ended: {text.strip().splitlines()[-1] if text.strip() else 'no reason'}")
        time.sleep(0.1)
    raise InputError(f"The {what} was not ready within {START_S:g} s; look at {log}.")


def _configure(plan: LoopPlan, url: str, known: Mapping[int, Any]) -> str:
    """Write the cell's configuration and its users; return the PLC's password."""
    import yaml

    from lehrling.deploy.cell_users import add_user

    out = plan.out.resolve()
    limits = {f"tcp_command_{axis}": LIMITS for axis in "xyz"}
    guard = {"latch_path": str(out / "latch.json"), "axes": limits}
    (out / "guard.yaml").write_text(yaml.safe_dump(guard), encoding="utf-8")
    axes = [{"name": f"tcp_command_{axis}", "unit": "rad" if axis[0] == "r" else "m"} for axis in ("x", "y", "z")]
    told = {
        "name": "closed_loop",
        "recipes": dict(known),
        "robot": {"name": "arm6", "manufacturer": "Lehrling", "model": "arm6, simulated", "axes": axes},
        "opcua": {"port": 0},
        "handshake": {"heartbeat_timeout_ms": 2000},
        "audit": "audit.jsonl",
        "runtime": {
            "embodiment": "arm6",
            "server": url,
            "guard": "guard.yaml",
            "success_topic": "/task_success",
            "traces": "traces",
        },
    }
    path = out / "cell.yaml"
    path.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
    password = secrets.token_urlsafe(15)
    add_user(out / "users.yaml", "plc", "operator", password)
    return password


def _cell(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until a cell is up; return the address of its OPC UA server.

    Raises:
        InputError: it ended, or does not begin.
    """
    return _told(process, log, "cell", r"(opc\.tcp://\S+?),? ", "end with Ctrl-C")


def _plc(out: Path, url: str, password: str, limit_s: float) -> PlcSimulator:
    from lehrling.deploy.plc_simulator import PlcOptions, PlcSimulator

    return PlcSimulator(PlcOptions(url, "plc", password, out / "plc", period_s=0.05, wait_s=limit_s + 60))


@contextmanager
def _fixture() -> Iterator[Callable[[], tuple[int, str]]]:
    """Yield what lays the next parts out: it returns the seed and what the simulator asks for."""
    from lehrling.deploy.ros_drive import ros

    with ros(f"fixture_{os.getpid()}") as (node, executor):
        from std_srvs.srv import Trigger

        client = node.create_client(Trigger, "/lehrling_sim/reset")
        if not client.wait_for_service(START_S):
            raise InputError("The simulator does not offer /lehrling_sim/reset; look at logs/sim.log.")

        def lay_out() -> tuple[int, str]:
            future = client.call_async(Trigger.Request())
            executor.spin_until_future_complete(future, timeout_sec=30)
            answer = future.result()
            if answer is None or not answer.success:
                raise InputError(f"The simulator did not lay out the next parts: {answer}.")
            told = json.loads(answer.message)
            return int(told["seed"]), str(told["instruction"])

        yield lay_out


def _cycle(
    plc: PlcSimulator, lay_out: Callable[[], tuple[int, str]], known: Mapping[int, Mapping[str, Any]], adapter: str
) -> CycleReport:
    """Lay parts out until they are for an adapter, and let the PLC run the recipe that they ask for.

    Laying out puts the simulated arm back to where it begins; the guard must have let go of it by then.
    """
    time.sleep(LET_GO_S)
    for _ in range(RESETS_MAX):
        seed, instruction = lay_out()
        recipe = recipe_for(instruction, known)
        if known[recipe]["adapter"] == adapter:
            break
    else:
        raise InputError(f"In {RESETS_MAX} layouts none was for the {adapter} adapter.")
    time.sleep(0.3)
    marks: dict[str, float] = {}
    began = time.monotonic()
    ended = plc.cycle(recipe, mark=lambda name: marks.setdefault(name, time.monotonic()))
    return CycleReport(
        int(ended["CycleId"]),
        recipe,
        adapter,
        str(known[recipe]["instruction"]),
        seed,
        RESULTS[int(ended["Result"])],
        round(marks["done"] - marks["started"], 3),
        round(marks["started"] - began, 3),
        str(ended["ModelHash"]),
    )


def _traces(report: LoopReport, folder: Path) -> None:
    """Find each cycle's trace."""
    for cycle in report.cycles:
        found: Sequence[Path] = sorted(folder.glob(f"cycle_{cycle.cycle:05d}_*.npz"))
        cycle.trace = str(found[-1]) if found else ""
