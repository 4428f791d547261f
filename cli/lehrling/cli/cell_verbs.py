"""Verbs about the PLC side: cell, cell-user, cell-plc."""

from __future__ import annotations

import logging
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lehrling.cli.output import FAILED, Json, print_json, say

if TYPE_CHECKING:
    from lehrling.deploy.cell_config import CellConfig
    from lehrling.deploy.cell_make import MadeCell
    from lehrling.deploy.plc_simulator import PlcSimulator


def cell(
    config: Annotated[Path, typer.Argument(help="The cell's configuration (YAML).")],
    check: Annotated[bool, typer.Option("--check", help="Read everything, make certificates, and stop.")] = False,
    json_: Json = False,
) -> None:
    """Run the PLC side of a robot: OPC UA, handshake, audit. Ctrl-C brings the robot to rest.

    Non-safety-rated: it stops by software, beside the robot's own safety controller.
    """
    from lehrling.deploy.cell_config import read_cell_config

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    logging.getLogger("snap7").setLevel(logging.CRITICAL)
    told = read_cell_config(config)
    if check:
        _report(_checked(told), json_)
        return
    _run(told, config, json_)


def _checked(config: CellConfig) -> dict[str, Any]:
    from lehrling.deploy.cell_users import Users
    from lehrling.deploy.opcua_certificate import application_uri, ensure_certificate

    opcua = config.opcua
    users = Users.read(opcua.users).known
    fingerprint = ensure_certificate(opcua.certificate, opcua.key, application_uri(config.name), opcua.hosts)
    return {
        "cell": config.name,
        "recipes": {number: recipe.name for number, recipe in config.recipes.items()},
        "users": {user.name: user.role for user in users},
        "certificate": str(opcua.certificate),
        "sha256": fingerprint,
        "commands_from": config.handshake.commands_from,
    }


def _report(facts: dict[str, Any], json_: bool) -> None:
    if json_:
        print_json(facts)
        return
    for key, value in facts.items():
        told = ", ".join(f"{k} = {v}" for k, v in value.items()) if isinstance(value, dict) else value
        say(f"{key}: {told}")


def _run(config: CellConfig, path: Path, json_: bool) -> None:
    """Run until a signal, or until the handshake ends by itself."""
    from lehrling.deploy.cell_make import make_cell, open_audit
    from lehrling.deploy.robot_runtime import make_runtime

    audit = open_audit(config, path)
    try:
        runtime = make_runtime(config, path, audit.record, say)
        try:
            made = make_cell(config, runtime, audit)
        except BaseException:
            runtime.close()
            raise
    except BaseException:
        audit.close()
        raise
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: made.cell.ended.set())
    made.cell.start()
    try:
        _greet(made, config, json_)
        made.cell.ended.wait()
    finally:
        try:
            say("stopping: the robot is brought to rest")
        finally:
            made.cell.stop()
    if made.cell.failed:
        raise typer.Exit(FAILED)


def _greet(made: MadeCell, config: CellConfig, json_: bool) -> None:
    if json_:
        print_json({"url": made.opcua.url, "sha256": made.opcua.fingerprint})
    say(f"{config.name}: OPC UA on {made.opcua.url}, certificate sha256 {made.opcua.fingerprint[:16]}…")
    say(f"commands from {config.handshake.commands_from}; end with Ctrl-C")


def cell_user(
    name: Annotated[str, typer.Argument(help="Who logs in.")],
    users: Annotated[
        Path, typer.Option("--users", help="File of users to add it to (YAML); made where there is none.")
    ],
    role: Annotated[str, typer.Option("--role", help="observer reads; operator commands as well.")] = "observer",
    stdin: Annotated[bool, typer.Option("--stdin", help="Read the password from stdin instead of making one.")] = False,
) -> None:
    """Add a user of a cell's OPC UA server: the hash of the password goes into the file."""
    from lehrling.deploy.cell_users import add_user

    password = sys.stdin.readline().rstrip("\r\n") if stdin else None
    made = add_user(users, name, role, password)
    if not stdin:
        print(made)  # noqa: T201
        say("the password is shown this once")
    say(f"{users} knows the {role} {name!r} now; a cell that runs already has to be started anew.")


def cell_plc(
    url: Annotated[str, typer.Argument(help="The cell's address, opc.tcp://HOST:PORT/lehrling/.")],
    user: Annotated[str, typer.Option("--user", help="An operator of the cell.")],
    password_file: Annotated[Path, typer.Option("--password-file", help="Its password: the first line of this file.")],
    pki: Annotated[Path, typer.Option("--pki", help="Folder for the made-up PLC's certificate.")] = Path("plc-pki"),
    recipe: Annotated[list[int] | None, typer.Option("--recipe", min=1, help="Recipes, in turn; default 1.")] = None,
    cycles: Annotated[int, typer.Option("--cycles", min=1, help="How many cycles.")] = 1,
    speed: Annotated[int, typer.Option("--speed", min=1, max=100, help="Speed override [%].")] = 100,
    limit_s: Annotated[float, typer.Option("--limit", min=1, help="Seconds to wait for each step.")] = 60.0,
    trial: Annotated[
        list[str] | None, typer.Option("--trial", help="Misbehave afterwards: heartbeat, repeat, reorder.")
    ] = None,
    json_: Json = False,
) -> None:
    """Play the PLC of a cell: run cycles over OPC UA. The robot moves. Exit code 1: a cycle did not succeed."""
    from lehrling.datasets.errors import InputError
    from lehrling.deploy.plc_simulator import PlcOptions, PlcSimulator
    from lehrling.deploy.plc_trials import TRIALS

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    if unknown := set(trial or ()) - set(TRIALS):
        raise InputError(f"Expected --trial {', '.join(TRIALS)}; got {', '.join(sorted(unknown))}.")
    lines = password_file.read_text().splitlines()
    recipes = recipe or [1]
    with PlcSimulator(PlcOptions(url, user, lines[0] if lines else "", pki, wait_s=limit_s)) as plc:
        plc.permit(speed)
        done = [_cycle(plc, recipes[number % len(recipes)]) for number in range(cycles)]
        trials = [TRIALS[name](plc, recipes[0]) for name in trial or ()]
    for text in trials:
        say(text)
    if json_:
        print_json({"cycles": done, "trials": trials, "connections": plc.connections})
    raise typer.Exit(FAILED if any(each["result"] != "success" for each in done) else 0)


def _cycle(plc: PlcSimulator, recipe: int) -> dict[str, Any]:
    from lehrling.deploy.runtime import Result

    begun = time.monotonic()
    ended = plc.cycle(recipe)
    result = list(Result)[int(ended["Result"])].value
    seconds = round(time.monotonic() - begun, 3)
    say(f"cycle {ended['CycleId']} of recipe {recipe}: {result} in {seconds} s")
    return {"cycle": ended["CycleId"], "recipe": recipe, "result": result, "seconds": seconds}


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(cell)
    app.command("cell-user")(cell_user)
    app.command("cell-plc")(cell_plc)
