"""What teleoperation and replay show in a terminal, and how signals end them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lehrling.cli.output import progress, say

if TYPE_CHECKING:
    from lehrling.collection.replay import Plan, Replay
    from lehrling.collection.teleop import Teleop
    from lehrling.deploy.guard_events import Command
    from lehrling.deploy.guard_link import GuardLink

VIEW_S, AGAIN_S = 0.2, 3.0


@contextmanager
def teleop_view() -> Iterator[Callable[[Teleop, Command, list[str]], None]]:
    """Yield a function that says what happens, not the same again and again, and shows a line of state in a terminal."""
    from lehrling.collection.teleop_keys import KEYS_HELP

    live, shown, told, said = sys.stderr.isatty(), [0.0], [""], dict[str, float]()
    say(KEYS_HELP)

    def show(teleop: Teleop, command: Command, texts: list[str]) -> None:
        now = time.monotonic()
        if teleop.trouble() not in ("", told[0]):
            texts = [*texts, teleop.trouble()]
        told[0] = teleop.trouble()
        for text in texts:
            if now - said.get(text, -AGAIN_S) >= AGAIN_S:
                say(f"\r\x1b[K{text}" if live else text)
                said[text] = now
        if live and (texts or now - shown[0] >= VIEW_S):
            shown[0] = now
            cause = f" ({command.cause})" if command.cause is not None else ""
            line = f"{teleop.chosen} · {100 * teleop.speed:g} % · {command.state}{cause}"
            sys.stderr.write(f"\r\x1b[K{line[:100]}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        if live:
            sys.stderr.write("\r\x1b[K")


@contextmanager
def replay_view(*, quiet: bool) -> Iterator[Callable[[Replay, Command], None]]:
    """Yield a function that shows how far a replay is, and says what holds it."""
    with progress("replay", quiet=quiet or not sys.stderr.isatty()) as update:
        shown = [0.0]

        def show(replay: Replay, command: Command) -> None:
            now = time.monotonic()
            if now - shown[0] >= VIEW_S:
                shown[0] = now
                note = str(command.cause) if command.cause is not None else ""
                update(replay.reached, len(replay.track.targets), note)

        yield show


def plan_facts(plan: Plan, link: GuardLink, speed: float) -> dict[str, object]:
    """Return what a replay would do."""
    seconds = plan.track.seconds / speed
    others = f" and {len(plan.messages)} messages of {', '.join(plan.others)}" if plan.others else ""
    return {
        "summary": f"{len(plan.track.targets)} commands of {', '.join(plan.actions)}{others} in {seconds:.1f} s",
        "episode": plan.episode,
        "actions": list(plan.actions),
        "others": list(plan.others),
        "skipped": {one.stream: one.reason for one in plan.skipped},
        "commands": len(plan.track.targets),
        "messages": len(plan.messages),
        "seconds": round(seconds, 3),
        "topics": link.told,
        "first": dict(zip(link.guard.axes.names, plan.track.targets[0].tolist(), strict=True)),
    }
