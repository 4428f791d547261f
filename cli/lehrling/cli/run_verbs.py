"""`lehrling run`: a policy drives a ROS 2 robot through the guard."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lehrling.cli.bundle_source import BundleKey, PolicySource
from lehrling.cli.drive_verbs import GuardFile, Namespace
from lehrling.cli.output import FAILED, Json, print_json, say

if TYPE_CHECKING:
    from lehrling.deploy.run_config import RunConfig


def run(
    policy: Annotated[
        str, typer.Argument(help="Policy folder or bundle, which is served for the run, or a server's ws:// address.")
    ],
    embodiment: Annotated[
        str | None,
        typer.Option(
            "--embodiment", help="Shipped embodiment or YAML file of this station; the bundle's if not given."
        ),
    ] = None,
    instruction: Annotated[
        str, typer.Option("--instruction", help="The goal in words, as in the demonstrations.")
    ] = "",
    instruction_topic: Annotated[
        str, typer.Option("--instruction-topic", help="Take it from this topic (std_msgs/String, latched).")
    ] = "",
    adapter: Annotated[str, typer.Option("--adapter", help="Policy of the server; its first if not given.")] = "",
    cycles: Annotated[int, typer.Option("--cycles", min=0, help="Cycles to execute; 0 waits for ~/start.")] = 1,
    limit_s: Annotated[float, typer.Option("--limit", min=0.1, help="Seconds after which a cycle ends.")] = 60.0,
    mode: Annotated[str, typer.Option("--mode", help="sync, async or ensemble.")] = "async",
    execute: Annotated[int, typer.Option("--execute", min=0, help="Steps per chunk; half of them if not given.")] = 0,
    success_topic: Annotated[str, typer.Option("--success-topic", help="std_msgs/Bool; true ends a cycle.")] = "",
    enable_topic: Annotated[
        str, typer.Option("--enable-topic", help="std_msgs/Bool of an enabling switch, at 10 Hz or more.")
    ] = "",
    interventions: Annotated[
        str, typer.Option("--interventions", help="Prefix of an operator's device's command topics, such as /leader.")
    ] = "",
    corrections: Annotated[
        Path | None, typer.Option("--corrections", help="Record interventions into this dataset.")
    ] = None,
    traces: Annotated[Path | None, typer.Option("--traces", help="Folder for asked, sent and measured.")] = None,
    black_box: Annotated[
        Path | None, typer.Option("--black-box", help="Keep the last 30 s before a stop in this dataset.")
    ] = None,
    audit: Annotated[Path | None, typer.Option("--audit", help="Write an audit (JSONL).")] = None,
    guard_file: GuardFile = None,
    namespace: Namespace = None,
    key_file: Annotated[Path | None, typer.Option("--key-file", help="The server's API key, first line.")] = None,
    certificate: Annotated[Path | None, typer.Option("--certificate", help="The server's certificate (PEM).")] = None,
    base: Annotated[str | None, typer.Option("--base", help="Where the base lies, if not where it lay.")] = None,
    bundle_key: BundleKey = None,
    device: Annotated[str, typer.Option("--device", help="For a policy folder: cpu, cuda …")] = "cpu",
    json_: Json = False,
) -> None:
    """Drive a ROS 2 robot by a policy, through the guard. Ctrl-C brings the robot to rest.

    Without --enable-topic the running command is the enabling signal. Exit code 1: a cycle did not succeed where
    --success-topic tells success, or a fault.
    """
    from lehrling.datasets.errors import InputError
    from lehrling.deploy.run_config import parse_run_config

    if mode not in ("sync", "async", "ensemble"):
        raise InputError(f"Expected sync, async or ensemble for --mode, got {mode!r}.")
    if not instruction and not instruction_topic:
        raise InputError("Expected --instruction TEXT, or --instruction-topic TOPIC.")
    source = _source(policy, bundle_key, base)
    robot = embodiment or (source.embodiment if source is not None else None)
    if robot is None:
        raise InputError("Expected --embodiment, a shipped embodiment or this station's YAML file, got none.")
    told: dict[str, Any] = {
        "embodiment": str(robot),
        "namespace": namespace,
        "success_topic": success_topic,
        "enable_topic": enable_topic,
        "interventions": interventions,
        "corrections": corrections,
        "traces": traces,
        "black_box": black_box,
        "guard": guard_file or (source.guard if source is not None else None),
        "key_file": key_file,
        "certificate": certificate,
    }
    with _serving(policy, source, device) as (server, first):
        config = parse_run_config({**told, "server": server}, Path("run"))
        from lehrling.cli.policy_run import RunPlan, run_policy

        plan = RunPlan(instruction, instruction_topic, adapter or first, cycles, limit_s, mode, execute, audit)
        report = run_policy(_in_place(config, told), plan, say)
    if json_:
        print_json(report)
    good = [cycle for cycle in report["cycles"] if cycle["result"] == "success"]
    failed = bool(report["fault"]) or (bool(success_topic) and len(good) < cycles)
    raise typer.Exit(FAILED if failed else 0)


def _in_place(config: RunConfig, told: dict[str, Any]) -> RunConfig:
    """Take paths as they were given: relative to where the command runs."""
    paths = ("key_file", "certificate", "guard", "corrections", "traces", "black_box")
    return config.model_copy(update={name: told[name] for name in paths})


def _source(policy: str, key: Path | None, base: str | None) -> PolicySource | None:
    """Return the policies to serve, None where a server is named."""
    from lehrling.cli.bundle_source import find_policies, is_bundle
    from lehrling.datasets.errors import InputError

    if policy.startswith(("ws://", "wss://")):
        if key is not None:
            raise InputError(
                f"Expected a bundle for --bundle-key, got the server {policy}; it verifies what it serves."
            )
        return None
    if not Path(policy).is_dir() and not is_bundle(Path(policy)):
        raise InputError(f"Expected a policy folder, a bundle or a server's ws:// address, got {policy!r}.")
    return find_policies([policy], key, base)


@contextmanager
def _serving(policy: str, source: PolicySource | None, device: str) -> Iterator[tuple[str, str]]:
    """Yield the address of a policy's server and a policy's name there; serve folders in a process of its own."""
    if source is None:
        yield policy, ""
        return
    words = [sys.executable, "-m", "lehrling.cli.main", "serve", *source.words, "--port", "0", "--json"]
    more = ["--device", device, *(["--base", source.base] if source.base else [])]
    process = subprocess.Popen([*words, *more], stdout=subprocess.PIPE, text=True)
    try:
        yield _url(process), next(iter(source.policies))
    finally:
        process.terminate()
        process.wait(30)


def _url(process: subprocess.Popen[str]) -> str:
    """Return the address that a server prints first."""
    from lehrling.datasets.errors import InputError

    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        try:
            return str(json.loads(text)["url"])
        except ValueError:
            continue
    raise InputError(f"The policy could not be served (exit code {process.wait()}); the reason stands above.")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(run)
