"""The live view of a recording: rates wanted and actual, lag, drops, disk left, episodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from lehrling.collection.capture_words import TopicFacts
    from lehrling.collection.recorder import Recorder

FINDINGS_SHOWN = 4
RATE_TOLERANCE = 0.2
LAG_PROMISED_MS = 50.0
COLOURS = {"recording": "bold white on red", "done": "bold green", "reset": "bold yellow", "warm-up": "bold yellow"}


def headline(recorder: Recorder) -> Text:
    """Return phase, time, episodes, lag and disk in one line."""
    from rich.text import Text

    session = recorder.session
    wanted = session.options.episodes
    count = f"{len(session.sealed)}" if wanted is None else f"{len(session.sealed)} of {wanted}"
    lag = max((status.lag_ms for status in recorder.statuses), default=0.0)
    text = Text()
    text.append(f" {session.phase.value.upper()} {session.elapsed_s:6.1f} s ", COLOURS.get(session.phase.value, "bold"))
    text.append(f"  episodes {count}")
    if session.sealing:
        text.append(f", {session.sealing} sealing")
    text.append("  lag ")
    text.append(f"{lag:.0f} ms", "bold red" if lag > LAG_PROMISED_MS else "")
    text.append(f"  disk {session.free_bytes / 2**30:.1f} GiB left")
    return text


def _row(topic: str, facts: TopicFacts) -> tuple[Text, ...]:
    from rich.text import Text

    wanted, lost = facts.wanted_hz, facts.lost_queue + (facts.lost_middleware or 0)
    wrong = wanted is not None and abs(facts.rate_hz - wanted) > RATE_TOLERANCE * wanted
    silent = facts.age_s is None
    return (
        Text(topic, overflow="ellipsis", no_wrap=True),
        Text("silent" if silent else f"{facts.rate_hz:.1f}", "bold red" if wrong or silent else "green"),
        Text("any" if wanted is None else f"{wanted:g}"),
        Text("" if facts.latency_ms is None else f"{facts.latency_ms:.1f}"),
        Text(f"{facts.written}"),
        Text("?" if facts.lost_middleware is None else f"{lost}", "bold red" if lost else ""),
    )


def view(recorder: Recorder, keys: str) -> Group:
    """Return the whole view, within 80 columns."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(padding=(0, 1), expand=False)
    table.add_column("topic", no_wrap=True, max_width=34)
    for name in ("Hz", "wanted", "ms late", "written", "lost"):
        table.add_column(name, justify="right", no_wrap=True)
    topics = {topic: facts for status in recorder.statuses for topic, facts in status.topics.items()}
    for topic, facts in sorted(topics.items()):
        table.add_row(*_row(topic, facts))
    found = [Text(f"! {text}", "yellow") for text in open_findings(recorder)[-FINDINGS_SHOWN:]]
    plan = recorder.session.plan
    goal = Text(
        f"{plan.task}: {plan.instruction}" if plan.instruction else plan.task, overflow="ellipsis", no_wrap=True
    )
    return Group(headline(recorder), goal, table, *found, Text(keys, "dim"))


def open_findings(recorder: Recorder) -> list[str]:
    """Return the sentences of findings that have not ended."""
    there: dict[tuple[str, str], str] = {}
    for finding in recorder.findings:
        key = finding["kind"], finding["topic"]
        there.pop(key, None)
        if finding["until_ns"] is None:
            there[key] = finding["text"]
    return list(there.values())
