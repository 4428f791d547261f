"""The `lehrling` command: verbs are declared here, their work is imported when they run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from lehrling.cli import (
    audit_verbs,
    baseline_verbs,
    cell_verbs,
    closed_loop_verbs,
    data_verbs,
    doctor_verbs,
    drive_verbs,
    edit_verbs,
    import_verbs,
    interchange_verbs,
    learn_verbs,
    policy_export_verbs,
    record_verbs,
    run_verbs,
    serve_verbs,
    sim_verbs,
    version_verbs,
)
from lehrling.cli.output import set_debug

HELP = """Record robots, fine-tune open vision-language models on what they did, deploy the result.

Exit codes: 0 done, 1 a check failed, 2 bad usage or input, 3 repaired with loss, 130 interrupted.
"""

app = typer.Typer(
    name="lehrling",
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"lehrling {version('lehrling')}")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that come before a verb."""
    del version
    set_debug(debug)


data_verbs.register(app)
sim_verbs.register(app)
record_verbs.register(app)
drive_verbs.register(app)
doctor_verbs.register(app)
import_verbs.register(app)
interchange_verbs.register(app)
learn_verbs.register(app)
baseline_verbs.register(app)
serve_verbs.register(app)
run_verbs.register(app)
cell_verbs.register(app)
closed_loop_verbs.register(app)
audit_verbs.register(app)
policy_export_verbs.register(app)
edit_verbs.register(app)
version_verbs.register(app)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its code."""
    from lehrling.cli.output import guarded

    words = list(arguments) if arguments is not None else None
    sys.exit(guarded(lambda: app(args=words, prog_name="lehrling", standalone_mode=False)))


if __name__ == "__main__":
    run()
