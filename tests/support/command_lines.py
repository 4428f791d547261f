"""Check a `lehrling …` command line against the real command without running it."""

from __future__ import annotations

import shlex
from typing import Any

import typer.main

from lehrling.cli.main import app


def check_command_line(line: str) -> str:
    """Parse `lehrling VERB … --options`; return the verb. Typer raises what it raises for people."""
    command: Any = typer.main.get_command(app)
    words, names = shlex.split(line)[1:], list[str]()
    context = command.make_context("lehrling", words, resilient_parsing=True)
    while hasattr(command, "resolve_command"):
        name, command, words = command.resolve_command(context, words)
        names.append(name)
        context = command.make_context(
            name, list(words), parent=context, resilient_parsing=hasattr(command, "resolve_command")
        )
    return " ".join(names)
