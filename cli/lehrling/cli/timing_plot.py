"""Draw an episode's timing: rates and latencies over time, gaps, losses and freezes, the cameras' skew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from lehrling.cli import page
from lehrling.cli.plots import ACCENT, COLOURS, INK, PALE, _png
from lehrling.cli.timing_series import EpisodeSeries, Series, episode_series
from lehrling.datasets.episode import Episode
from lehrling.datasets.errors import InputError
from lehrling.datasets.inspect import episode_facts

RED, BLUE = COLOURS[4], COLOURS[1]
WIDTH_IN, LEFT_IN, FULL_IN, COLUMN_IN, BETWEEN_IN = 10.0, 1.65, 8.1, 3.75, 0.6
TOP_IN, ROW_IN, BETWEEN_ROWS_IN, AFTER_ROWS_IN, RASTER_IN, SKEW_IN = 0.75, 0.62, 0.16, 0.6, 0.26, 1.3
RATE_HEAD = "rate [Hz]; dashed: wanted"
LATENCY_HEAD = "latency [ms]: median, least to largest; dashed: by the fitted clock"
SMALL = 8
FAR_MS = 60_000.0


def write_plot(episode: Episode, path: Path) -> None:
    """Write the picture as PNG, or a page with picture and figures as HTML, by the file's suffix.

    Raises:
        InputError: another suffix, or the episode has nothing to draw.
    """
    if path.suffix not in (".png", ".html"):
        raise InputError(f"Expected a plot's name to end in .png or .html, got {path.name!r}.")
    found = episode_series(episode)
    if not found.series:
        raise InputError(f"Episode {episode.id!r} has no stream with two rows or more; there is nothing to draw.")
    picture = draw(episode, found)
    if path.suffix == ".png":
        path.write_bytes(picture)
    else:
        path.write_text(_page(episode_facts(episode), picture), encoding="utf-8")


def draw(episode: Episode, found: EpisodeSeries) -> bytes:
    """Return the picture as PNG."""
    sheet = _Sheet(len(found.series), skewed=bool(found.skew_ms))
    sheet.figure.text(
        LEFT_IN / 8 / WIDTH_IN, 1 - 0.1 / sheet.height_in, _head(episode, found), va="top", fontsize=10, color=INK
    )
    sheet.heads((RATE_HEAD, 0.0), (LATENCY_HEAD, COLUMN_IN + BETWEEN_IN))
    for series in found.series:
        last = series is found.series[-1]
        sheet.name(_names(series), ROW_IN)
        _rate(sheet.axes(0, COLUMN_IN, ROW_IN, labelled=last), series, found.duration_s)
        _latency(sheet.axes(COLUMN_IN + BETWEEN_IN, COLUMN_IN, ROW_IN, labelled=last), series, found.duration_s)
        sheet.down(ROW_IN + BETWEEN_ROWS_IN)
    sheet.down(AFTER_ROWS_IN)
    _raster(sheet.axes(0, FULL_IN, RASTER_IN * len(found.series)), found)
    sheet.down(RASTER_IN * len(found.series) + 0.85)
    if found.skew_ms:
        _skew(sheet.axes(0, FULL_IN, SKEW_IN), found)
    return _png(sheet.figure)


class _Sheet:
    """A figure whose axes are placed in inches, from the top down."""

    def __init__(self, rows: int, *, skewed: bool) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        below = RASTER_IN * rows + 0.55 + (SKEW_IN + 0.85 if skewed else 0.0)
        self.height_in = TOP_IN + rows * (ROW_IN + BETWEEN_ROWS_IN) + AFTER_ROWS_IN + below
        self.figure = Figure(figsize=(WIDTH_IN, self.height_in), dpi=110)
        FigureCanvasAgg(self.figure)
        self._top_in = self.height_in - TOP_IN

    def axes(self, left_in: float, width_in: float, height_in: float, *, labelled: bool = True) -> Any:
        """Return axes at the current height."""
        place = (LEFT_IN + left_in, self._top_in - height_in, width_in, height_in)
        left, bottom, width, height = (n / m for n, m in zip(place, (WIDTH_IN, self.height_in) * 2, strict=True))
        axes = self.figure.add_axes((left, bottom, width, height))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=SMALL, labelbottom=labelled)
        return axes

    def heads(self, *heads: tuple[str, float]) -> None:
        """Write heads of columns above the current height, each with its distance from the left."""
        for text, left_in in heads:
            self._text(LEFT_IN + left_in, self._top_in + 0.08, text, ha="left", va="bottom")

    def name(self, text: str, height_in: float) -> None:
        """Write a row's name at the left."""
        self._text(LEFT_IN - 0.4, self._top_in - height_in / 2, text, ha="right", va="center")

    def _text(self, x_in: float, y_in: float, text: str, **where: Any) -> None:
        self.figure.text(x_in / WIDTH_IN, y_in / self.height_in, text, fontsize=SMALL, color=INK, **where)

    def down(self, inches: float) -> None:
        """Go down."""
        self._top_in -= inches


def _head(episode: Episode, found: EpisodeSeries) -> str:
    record = episode.record
    silent = f"; never came: {', '.join(found.silent)}" if found.silent else ""
    jump = f"; clock set by {record.clock_jump_ms:+.0f} ms" if record.clock_jump_ms else ""
    text = f"{episode.id}: {record.outcome}, {found.duration_s:.1f} s, {record.robot}{jump}{silent}"
    return "\n".join(wrap(text, 110, max_lines=2, placeholder=" …"))


def _names(series: Series) -> str:
    more = [f"and {len(series.names) - 2} more"] if len(series.names) > 2 else []
    return "\n".join([*series.names[:2], *more])


def _rate(axes: Any, series: Series, duration_s: float) -> None:
    wanted = series.wanted_hz
    if wanted:
        axes.axhline(wanted, color=INK, lw=0.9, ls="--")
    axes.stairs(series.rate_hz, series.edges_s, color=ACCENT, alpha=0.12, fill=True)
    axes.stairs(series.rate_hz, series.edges_s, baseline=None, color=ACCENT, lw=1.2)
    axes.set_ylim(0, 1.25 * max(float(np.percentile(series.rate_hz, 95)), wanted or 0.0, 1e-3))
    axes.set_xlim(0, duration_s)


def _latency(axes: Any, series: Series, duration_s: float) -> None:
    axes.set_xlim(0, duration_s)
    if not series.stamped:
        axes.text(0.5, 0.5, "not known: stamped on receipt", transform=axes.transAxes, ha="center", fontsize=SMALL)
        axes.set_yticks([])
        return
    base = float(np.median(series.middle_ms))
    base = base if abs(base) > FAR_MS else 0.0
    if base:
        note = f"another clock: {base / 1e3:,.0f} s and"
        axes.text(0.01, 0.97, note, transform=axes.transAxes, va="top", fontsize=SMALL, color=RED)
    low, middle, high = (values - base for values in (series.low_ms, series.middle_ms, series.high_ms))
    axes.fill_between(series.late_at_s, low, high, color=BLUE, alpha=0.25, lw=0)
    axes.plot(series.late_at_s, middle, color=BLUE, lw=1.2)
    bottom, top = float(low.min()), float(np.percentile(high, 99))
    if series.floor_ms is not None:
        axes.plot(series.edges_s, series.floor_ms - base, color=INK, lw=0.9, ls="--")
    margin = max(0.12 * (top - bottom), 0.2)
    axes.set_ylim(bottom - margin, top + margin)


def _short(series: Series) -> str:
    return series.names[0] + (f" +{len(series.names) - 1}" if len(series.names) > 1 else "")


def _raster(axes: Any, found: EpisodeSeries) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    axes.grid(axis="y", visible=False)
    least = found.duration_s / 700
    for index, series in enumerate(found.series):
        axes.broken_barh([(0.0, found.duration_s)], (index - 0.3, 0.6), color=PALE, alpha=0.45, lw=0)
        axes.broken_barh([(b, max(n, least)) for b, n in series.gaps], (index - 0.3, 0.6), color=RED, lw=0)
        axes.broken_barh([(b, max(n, least)) for b, n in series.frozen], (index - 0.3, 0.6), color=BLUE, lw=0)
        axes.plot(series.lost_s, np.full(len(series.lost_s), index - 0.42), "v", color=INK, ms=4, clip_on=False)
    axes.set_yticks(range(len(found.series)), [_short(series) for series in found.series])
    axes.set_ylim(len(found.series) - 0.4, -0.7)
    axes.set_xlim(0, found.duration_s)
    axes.set_xlabel("time from the first receipt [s]", fontsize=SMALL)
    marks = [
        Patch(color=PALE, alpha=0.45, label="messages"),
        Patch(color=RED, label="gap"),
        Patch(color=BLUE, label="longest freeze"),
        Line2D([], [], color=INK, marker="v", ls="", ms=4, label="number missing"),
    ]
    axes.set_title("gaps, losses, freezes", loc="left", fontsize=SMALL, color=INK)
    axes.legend(
        handles=marks,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        borderaxespad=0.1,
        ncols=4,
        frameon=False,
        fontsize=SMALL,
    )


def _skew(axes: Any, found: EpisodeSeries) -> None:
    together = np.concatenate(list(found.skew_ms.values()))
    low, high = np.percentile(together, (0.5, 99.5))
    middle, half = (low + high) / 2, max((high - low) / 2 * 1.15, 1.0)
    edges = np.linspace(middle - half, middle + half, 61)
    for index, (pair, apart) in enumerate(found.skew_ms.items()):
        away = np.abs(apart)
        label = f"{pair}: mean {away.mean():.1f} ms, p99 {np.percentile(away, 99):.1f} ms"
        colour = COLOURS[index % len(COLOURS)]
        weights = np.full(len(apart), 100 / len(apart))
        axes.hist(apart.clip(edges[0], edges[-1]), edges, weights=weights, color=colour, alpha=0.55, label=label)
    axes.axvline(0, color=INK, lw=0.9, ls="--")
    axes.set_title("camera skew: closest frames, second minus first", loc="left", fontsize=SMALL, color=INK)
    axes.set_xlabel("difference of stamps [ms]", fontsize=SMALL)
    axes.set_ylabel("frames [%]", fontsize=SMALL)
    axes.margins(y=0.25)
    axes.legend(frameon=False, fontsize=SMALL, loc="upper right")


def _page(facts: Mapping[str, Any], picture: bytes) -> str:
    heads = ("count", "rate_hz", "jitter_ms", "gaps", "max_gap_ms", "dropped", "latency_p50_ms", "latency_p99_ms")
    clock = ("clock_offset_ms", "clock_drift_ppm", "clock_drift_error_ppm", "clock_step_ms", "frozen", "out_of_order")
    keys = (*heads, *clock)
    rows = [[name, *(_cell(timing[key]) for key in keys)] for name, timing in facts["timing"].items()]
    findings = facts["facts"].get("findings")
    found = (
        [[str(f.get("severity", "")), str(f.get("text", f))] for f in findings if isinstance(f, dict)]
        if isinstance(findings, list)
        else []
    )
    sections = [
        ("Over time", page.figure(picture, "rates, latencies, gaps, skew", plot=True)),
        ("Streams", f'<div class="scroll">{page.table(["stream", *keys], rows)}</div>'),
        ("Found while recording", page.table(["severity", "finding"], found) if found else ""),
    ]
    return page.page(f"Timing of {facts['id']}", f"{facts['instruction']} ({facts['outcome']})", sections)


def _cell(value: object) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, (int, float)) else str(value)
