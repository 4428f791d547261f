"""Verbs about serving policies: serve, serve-key."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lehrling.cli.bundle_source import BundleKey
from lehrling.cli.output import Json, print_json, progress, say

if TYPE_CHECKING:
    from lehrling.deploy.server import PolicyServer


def serve(
    policies: Annotated[list[str], typer.Argument(help="Policies of one base: FOLDER, NAME=FOLDER, or a bundle.")],
    host: Annotated[
        str, typer.Option("--host", help="Address; beyond this machine only with --keys and TLS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    keys: Annotated[Path | None, typer.Option("--keys", help="API keys (YAML), see serve-key.")] = None,
    tls_cert: Annotated[Path | None, typer.Option("--tls-cert", help="Certificate chain (PEM).")] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", help="The certificate's key (PEM).")] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Where the base lies, if not where it lay in training.")
    ] = None,
    bundle_key: BundleKey = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1 …")] = "cpu",
    batch: Annotated[int, typer.Option("--batch", min=1, max=256, help="Requests inferred together at most.")] = 16,
    clients: Annotated[int, typer.Option("--clients", min=1, help="Connections at once.")] = 64,
    max_age_ms: Annotated[
        float | None,
        typer.Option(
            "--max-age", min=0, help="Refuse older observations [ms]; they must say obs_stamp. Not with --groot-port."
        ),
    ] = None,
    shadow: Annotated[
        Path | None, typer.Option("--shadow", help="Infer and log here (JSONL), never answer actions.")
    ] = None,
    groot_port: Annotated[
        int | None, typer.Option("--groot-port", min=0, max=65535, help="Serve GR00T's ZMQ clients here too.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Answer one request of every policy and stop.")] = False,
    bench: Annotated[
        int, typer.Option("--bench", min=0, help="Answer so many requests, print p50 and p99, and stop.")
    ] = 0,
    json_: Json = False,
) -> None:
    """Serve policies over openpi's websocket protocol."""
    from lehrling.cli.bundle_source import find_policies
    from lehrling.datasets.errors import InputError
    from lehrling.deploy.api_keys import Keys
    from lehrling.deploy.policy_server import ShadowLog, make_server
    from lehrling.deploy.server import ServeOptions

    if (tls_cert is None) != (tls_key is None):
        raise InputError("Expected --tls-cert and --tls-key together, got one of them.")
    alone = check or bench > 0
    options = ServeOptions(
        "127.0.0.1" if alone else host,
        0 if alone else port,
        Keys() if alone or keys is None else Keys.read(keys),
        (tls_cert, tls_key) if tls_cert and tls_key and not alone else None,
        clients_max=clients,
        batch_max=batch,
        max_age_s=None if max_age_ms is None or alone else max_age_ms / 1e3,
        groot_port=None if alone else groot_port,
    )
    source = find_policies(policies, bundle_key, base)
    log = ShadowLog(shadow) if shadow is not None and not alone else None
    with progress("loading") as update:
        update(0, 1)
        server = make_server(source.policies, options, base=source.base, device=device, shadow=log)
        update(1, 1)
    try:
        if alone:
            _measure(server, bench or 1, json_)
        else:
            _serve(server, json_)
    finally:
        if log is not None:
            log.close()


def _measure(server: PolicyServer, requests: int, json_: bool) -> None:
    """Ask every policy over the socket, and say how long it took."""
    from lehrling.deploy.client import PolicyClient, measure

    found: dict[str, dict[str, Any]] = {}
    with server, PolicyClient(server.url) as client:
        for name in client.hello["adapters"]:
            found[name] = measure(client, requests, name).to_json()
    if json_:
        print_json(found)
        return
    for name, times in found.items():
        say(
            f"{name}: {times['requests']} requests answered, p50 {times['p50_ms']:.2f} ms, p99 {times['p99_ms']:.2f} ms, "
            f"of which inference {times['infer_p50_ms']:.2f} and {times['infer_p99_ms']:.2f}"
        )


def _serve(server: PolicyServer, json_: bool) -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    server.start(warm_up=False)
    try:
        if json_:
            print_json({"url": server.url})
        more = f" and tcp://127.0.0.1:{server.groot_port} for GR00T's clients" if server.serves_groot else ""
        say(f"listening on {server.url}{more}; warming up")
        server.warm_up()
        say("ready; end with Ctrl-C")
        stopped.wait()
        say("stopping")
    finally:
        server.stop()


def serve_key(
    name: Annotated[str, typer.Argument(help="Who gets the key.")],
    keys: Annotated[Path, typer.Option("--keys", help="Key file to add it to (YAML); made where there is none.")],
    scope: Annotated[list[str] | None, typer.Option("--scope", help="infer, metrics; default infer.")] = None,
    days: Annotated[int | None, typer.Option("--days", min=1, help="Days until it ends; default: never.")] = None,
) -> None:
    """Make an API key: its hash goes into the key file, the key itself is printed once."""
    from lehrling.deploy.api_keys import add_key

    key = add_key(keys, name, scope or ["infer"], days)
    print(key)  # noqa: T201
    say(f"{keys} knows {name!r} now; the key is shown this once. Clients send it as `Authorization: Api-Key <key>`.")


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(serve)
    app.command("serve-key")(serve_key)
