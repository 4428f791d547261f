"""Show a dataset's quality and latencies: in the terminal, as a page with plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lehrling.cli import page
from lehrling.cli.output import print_json, progress, say, show
from lehrling.cli.plots import ACCENT, COLOURS, INK, PALE, _figure, _png

if TYPE_CHECKING:
    from rich.table import Table

    from lehrling.datasets.quality import DatasetQuality, EpisodeQuality

WORST_SHOWN = 20
FIGURES: tuple[tuple[str, str, Callable[[EpisodeQuality], float], str], ...] = (
    ("duration [s]", "", lambda e: e.duration_s, "duration_deviations"),
    ("longest silence [periods]", "gap_periods", lambda e: max(e.gap_periods.values(), default=0.0), "gap_periods"),
    ("nothing moved [share]", "idle_share", lambda e: e.idle_share, "idle_share"),
    ("jerk [of the median episode]", "jerk", lambda e: max(e.jerk.values(), default=0.0), "jerk"),
    (
        "state after command [ms]",
        "offset_ms",
        lambda e: max((abs(o.lag_ms) for o in e.offsets), default=0.0),
        "offset_ms",
    ),
    (
        "blurred or black [share]",
        "blurred_share",
        lambda e: max((c.blurred_share + c.black_share for c in e.cameras.values()), default=0.0),
        "blurred_share",
    ),
)
"""Name, the gate whose limit is drawn, the figure, and the gate of which episodes are marked."""


def show_quality(path: Path, episode: str | None, limits: Path | None, plot: Path | None, json_: bool) -> bool:
    """Judge, show, and write the page where asked to; return whether every episode may be trained on.

    Raises:
        InputError: no dataset, no such episode, limits that break the schema, or a page's name that is none.
    """
    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.errors import InputError
    from lehrling.datasets.quality import dataset_quality
    from lehrling.datasets.quality_limits import load_limits

    if plot is not None and plot.suffix != ".html":
        raise InputError(f"Expected a page's name to end in .html, got {plot.name!r}.")
    wanted, dataset = load_limits(limits), Dataset.open(path)
    if episode is not None:
        dataset.episode(episode)
    with progress("judging") as update:
        found = dataset_quality(dataset, wanted, progress=update)
    if plot is not None:
        plot.write_text(quality_page(found, path.name), encoding="utf-8")
        say(f"quality drawn into {plot}")
    shown = [e for e in found.episodes if episode is None or e.id == episode]
    if json_:
        print_json(found.to_json())
    else:
        show(quality_table(shown) if any(e.findings or e.damage for e in shown) else _head(shown))
        for finding in found.findings:
            say(f"dataset: {finding.told}")
    return not any(e.refused for e in shown)


def show_latency(path: Path, json_: bool) -> None:
    """Show how late streams came, and by how much states and cameras lag.

    Raises:
        InputError: no dataset, or no episode in it.
    """
    from rich.table import Table

    from lehrling.datasets.dataset import Dataset
    from lehrling.datasets.latency import calibrate

    with progress("calibrating") as update:
        found = calibrate(Dataset.open(path), update)
    if json_:
        print_json(found.to_json())
        return
    table = Table("stream", "p50 ms", "p99 ms", "declared", "latency_ms for views", title="receipt after stamp")
    for name, one in found.streams.items():
        table.add_row(name, f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", f"{one.declared_ms:g}", f"{one.suggested_ms:g}")
    show(table)
    lags = Table("first", "then", "lag ms", "±", "correlation", "episodes", title="movement after movement")
    for lag in found.lags:
        row = (f"{lag.lag_ms:.0f}", f"{lag.spread_ms:.0f}", f"{lag.correlation:.2f}", str(lag.episodes))
        lags.add_row(lag.earlier, lag.later, *row)
    show(lags)


def quality_table(shown: Sequence[EpisodeQuality]) -> Table:
    """Return the episodes with something to say, the worst first."""
    from rich.table import Table

    table = Table("episode", "s", "verdict", "why", title=_head(shown), title_justify="left")
    worst = sorted((e for e in shown if e.findings or e.damage), key=lambda e: (not e.refused, -len(e.findings)))
    for e in worst[:WORST_SHOWN]:
        why = e.damage or "; ".join(_marked(finding.told, finding.level) for finding in e.findings)
        table.add_row(e.id, f"{e.duration_s:.1f}", "refused" if e.refused else "warning", why)
    if len(worst) > WORST_SHOWN:
        table.add_row("…", "", "", f"and {len(worst) - WORST_SHOWN} more; --json has all")
    return table


def _head(shown: Sequence[EpisodeQuality]) -> str:
    refused = sum(e.refused for e in shown)
    warned = sum(bool(e.findings) and not e.refused for e in shown)
    return f"{len(shown)} episodes: {refused} refused, {warned} with warnings, {len(shown) - refused - warned} without"


def _marked(told: str, level: str) -> str:
    return f"{told} (refused)" if level == "refuse" else told


def quality_page(found: DatasetQuality, name: str) -> str:
    """Return a page with counts, plots and every finding."""
    refused = [e for e in found.episodes if e.refused]
    warned = [e for e in found.episodes if e.findings and not e.refused]
    facts = [
        ("episodes", str(len(found.episodes))),
        ("refused", str(len(refused))),
        ("with warnings", str(len(warned))),
        ("minutes", f"{sum(e.duration_s for e in found.episodes) / 60:.1f}"),
    ]
    rows: list[list[str | bool]] = [
        [e.id, e.task, e.outcome, f"{e.duration_s:.1f}", not e.refused, _why(e)] for e in (*refused, *warned)
    ]
    counts = [
        [what, label or "–", str(n)] for what, parts in found.counts.items() for label, n in list(parts.items())[:30]
    ]
    why = Counter(finding.gate for e in found.episodes for finding in e.findings)
    gates = [[gate, f"{limits.limit:g}", limits.level, str(why[gate])] for gate, limits in found.limits.gates()]
    sections = [
        ("At a glance", page.cards(facts)),
        ("Every episode", page.figure(episode_plot(found), "A point per episode; dashed: the gate; red: beyond it.", plot=True)),
        ("Pictures", page.figure(camera_plot(found), "Median brightness and sharpness of each episode's pictures.", plot=True)),
        ("Findings", page.table(["episode", "task", "outcome", "s", "may train", "why"], rows, scroll=True) if rows else "None."),
        ("Dataset", "".join(f"<p>{escape(f.told)}</p>" for f in found.findings) + page.table(["", "label", "episodes"], counts)),
        ("Gates", page.table(["gate", "limit", "level", "findings"], gates)),
    ]  # fmt: skip
    return page.page(
        f"Quality of {name}", "What lies beyond its limit, and what is unusual among these episodes.", sections
    )


def _why(found: EpisodeQuality) -> str:
    return found.damage or "; ".join(finding.told for finding in found.findings)


def episode_plot(found: DatasetQuality) -> bytes:
    """Draw each figure over the episodes in order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    limits = dict(found.limits.gates())
    for axes, (name, drawn, value, gate) in zip(figure.subplots(3, 2).flat, FIGURES, strict=True):
        values = np.array([value(e) for e in found.episodes])
        beyond = np.array([any(f.gate == gate for f in e.findings) for e in found.episodes], bool)
        order = np.arange(len(values))
        axes.scatter(order[~beyond], values[~beyond], s=14, color=COLOURS[1])
        axes.scatter(order[beyond], values[beyond], s=22, color=COLOURS[4])
        if drawn:
            axes.axhline(limits[drawn].limit, color=INK, lw=0.9, ls="--")
        axes.set_title(name, loc="left", fontsize=9)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    return _png(figure)


def camera_plot(found: DatasetQuality) -> bytes:
    """Draw brightness against sharpness, a colour per camera; episodes with bad pictures are ringed."""
    figure, axes = _figure(9.2, 3.2)
    cameras = sorted({name for e in found.episodes for name in e.cameras})
    for number, camera in enumerate(cameras):
        seen = [(e, e.cameras[camera]) for e in found.episodes if camera in e.cameras]
        at = np.array([(figures.sharpness, figures.brightness) for _, figures in seen])
        bad = np.array([figures.black_share + figures.blurred_share > 0 for _, figures in seen])
        edges = [ACCENT if b else "none" for b in bad]
        axes.scatter(
            at[:, 0], at[:, 1], s=26, color=COLOURS[(number + 1) % len(COLOURS)], edgecolors=edges, label=camera
        )
    axes.axhline(found.limits.black_level, color=PALE, lw=0.9, ls="--")
    axes.set_xlabel("sharpness (variance of the Laplacian over that of brightness)")
    axes.set_ylabel("brightness")
    axes.set_ylim(0, 255)
    if cameras:
        axes.legend(frameon=False)
    return _png(figure)
