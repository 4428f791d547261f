"""One episode for the terminal: what came, when and by whose clock, and what the recorder found; 80 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lehrling.datasets.clock_fit import drift_told

FINDINGS_SHOWN = 12
OTHER_CLOCK_MS = 3_600_000.0
UNKNOWN = "–"

RATE_TOLERANCE = 0.2
ROLES = {"observation": "obs", "action": "act", "auxiliary": "aux"}

CAME_CAPTION = (
    "rate and wanted rate in Hz; jitter (deviation of intervals) and longest interval in ms, when it began in s; lost: missing "
    "sequence numbers (? not known); frozen: camera frames equal to the one before"
)
CLOCK_CAPTION = (
    "receipt minus stamp in ms (other: another clock, such as simulation time); offset: sender's clock ahead of the recorder's "
    "at its beginning (ms), if its shortest latency is the binding's; drift in ppm; step: its clock was set (ms); mixed: rows "
    "out of order + stamps there twice"
)


def episode_report(facts: Mapping[str, Any]) -> RenderableType:
    """Return what `lehrling inspect DATASET EPISODE` shows."""
    title = f"{facts['id']} ({facts['outcome']}, {facts['duration_s']:.2f} s): {facts['instruction']}"
    lines = [*_cameras(facts), *_host(facts), *_losses(facts), *_findings(facts)]
    return Group(Text(title, style="bold"), _came(facts), _clocks(facts), *lines)


def _table(caption: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """Return a table whose first column folds where the terminal is narrow, and whose figures never do."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), caption=caption, caption_justify="left")
    table.add_column("stream", overflow="fold")
    for head in left:
        table.add_column(head, no_wrap=True)
    for head in right:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _came(facts: Mapping[str, Any]) -> Table:
    heads = ("rows", "rate", "of", "jitter", "gaps", "longest", "at", "lost", "frozen")
    table = _table(CAME_CAPTION, ("role",), heads)
    for name, timing in facts["timing"].items():
        stream = facts["streams"][name]
        wanted = [source["rate_hz"] for source in stream["sources"] if source["rate_hz"]]
        lost = timing["dropped"]
        table.add_row(
            name,
            ROLES[stream["role"]],
            str(timing["count"]),
            _rate(timing["rate_hz"], sum(wanted)),
            f"{sum(wanted):g}" if wanted else "any",
            f"{timing['jitter_ms']:.2f}",
            _count(timing["gaps"]),
            f"{timing['max_gap_ms']:.1f}",
            _number(timing["max_gap_at_s"] if timing["gaps"] else None, 1),
            Text("?", "dim") if lost < 0 else _count(lost),
            _count(timing["frozen"]),
        )
    return table


def _clocks(facts: Mapping[str, Any]) -> Table:
    table = _table(CLOCK_CAPTION, ("shape",), ("p50", "p99", "max", "offset", "drift", "step", "mixed"))
    for name, timing in facts["timing"].items():
        shape = "x".join(map(str, facts["streams"][name]["shape"])) or "ragged"
        step = timing["clock_step_ms"]
        table.add_row(
            name,
            shape,
            *(_ms(timing[f"latency_{which}_ms"]) for which in ("p50", "p99", "max")),
            _ms(timing["clock_offset_ms"]),
            _drift(timing["clock_drift_ppm"], timing["clock_drift_error_ppm"]),
            Text(f"{step:+.1f}", "red") if step else _number(step, 0),
            _mixed(timing["out_of_order"], timing["duplicates"]),
        )
    return table


def _rate(rate_hz: float, wanted_hz: float) -> Text:
    off = wanted_hz > 0 and abs(rate_hz / wanted_hz - 1) > RATE_TOLERANCE
    return Text(f"{rate_hz:.4g}", "red" if off else "")


def _number(value: float | None, digits: int) -> str:
    return UNKNOWN if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def _ms(value: float | None) -> str:
    if value is not None and abs(value) > OTHER_CLOCK_MS:
        return "other"
    return _number(value, 1)


def _count(value: int | None) -> Text:
    return Text(UNKNOWN if value is None else str(value), "red" if value else "")


def _mixed(out_of_order: int | None, duplicates: int | None) -> Text:
    if out_of_order is None or duplicates is None:
        return Text(UNKNOWN)
    return Text(f"{out_of_order}+{duplicates}", "red" if out_of_order or duplicates else "")


def _drift(ppm: float | None, error_ppm: float | None) -> str:
    """Return the drift with its error in as many digits as the error allows."""
    if ppm is None or error_ppm is None or not drift_told(ppm, error_ppm):
        return UNKNOWN
    digits = 1 if error_ppm < 1 else 0
    return f"{_number(ppm, digits)} ±{_number(error_ppm, digits)}"


def _cameras(facts: Mapping[str, Any]) -> list[Text]:
    lines = []
    for pair, skew in facts["skew"].items():
        first, second = pair.split("/")
        side = "later" if skew["bias_ms"] >= 0 else "earlier"
        lines.append(
            Text(
                f"cameras {first} and {second}: closest frames {skew['mean_ms']:.1f} ms apart (p99 {skew['p99_ms']:.1f}), "
                f"{second} {abs(skew['bias_ms']):.1f} ms {side} on average"
            )
        )
    return lines


def _host(facts: Mapping[str, Any]) -> list[Text]:
    jump, lines = facts["clock_jump_ms"], _ends(facts)
    if jump:
        lines.append(Text(f"the recorder's clock was set by {jump:+.1f} ms while recording", "red"))
    return lines


def _ends(facts: Mapping[str, Any]) -> list[Text]:
    """Return streams that began late or ended early, by more than a second."""
    lines = []
    for name, timing in facts["timing"].items():
        for key, words in (("starts_s", "began {:.1f} s late"), ("ends_s", "ended {:.1f} s early")):
            if timing[key] is not None and timing[key] > 1.0:
                lines.append(Text(f"{name} {words.format(timing[key])}", "red"))
    return lines


def _losses(facts: Mapping[str, Any]) -> list[Text]:
    return [Text(f"loss: {loss}", "red") for loss in facts["losses"][:FINDINGS_SHOWN]]


def _findings(facts: Mapping[str, Any]) -> list[Text]:
    """Return what the recorder found; facts come from outside, in whatever shape."""
    found = facts["facts"].get("findings")
    if not isinstance(found, list):
        return []
    shown = [Text(f"finding: {_sentence(item)}", "yellow") for item in found[:FINDINGS_SHOWN]]
    return shown + ([Text(f"and {len(found) - FINDINGS_SHOWN} more (--json)")] if len(found) > FINDINGS_SHOWN else [])


def _sentence(item: object) -> str:
    if not isinstance(item, dict) or "text" not in item:
        return str(item)
    since, until = item.get("since_ns"), item.get("until_ns")
    lasted = f" ({(until - since) / 1e9:.1f} s)" if isinstance(since, int) and isinstance(until, int) else ""
    return f"{item['text']}{lasted}"
