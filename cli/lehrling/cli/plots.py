"""Pictures for reports: PNG bytes from numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lehrling.training.statistics import SuccessRate

INK, PALE, ACCENT = "#1d2b36", "#9fb1bd", "#d9731a"
COLOURS = ("#d9731a", "#2f6f9f", "#4c9a5b", "#8a5aa5", "#b8433c", "#6b7a86", "#c9a227", "#3aa6a0")


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def loss_curve(steps: Sequence[int], losses: Sequence[float]) -> bytes:
    """Plot the training loss with a running mean."""
    figure, axes = _figure(7.2, 3.0)
    axes.plot(steps, losses, color=PALE, lw=0.8, label="each step")
    width = max(1, min(25, len(losses) // 4))
    smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
    axes.plot(list(steps)[width - 1 :], smooth, color=ACCENT, lw=2, label=f"mean of {width}")
    axes.set_xlabel("training step")
    axes.set_ylabel("masked L1, normalised")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return _png(figure)


def joint_plot(seconds: NDArray[np.float64], values: NDArray[np.float64], names: Sequence[str]) -> bytes:
    """Plot joint positions (T, J) over time; the gripper's opening on its own axis."""
    figure, axes = _figure(7.2, 3.0)
    for k, name in enumerate(names):
        if name == "gripper":
            other = axes.twinx()
            other.plot(seconds, values[:, k] * 1000, color=INK, lw=1.6, ls="--", label="gripper [mm]")
            other.set_ylabel("opening [mm]")
        else:
            axes.plot(seconds, values[:, k], color=COLOURS[k % len(COLOURS)], lw=1.4, label=name)
    axes.set_xlabel("time [s]")
    axes.set_ylabel("position [rad]")
    figure.legend(loc="outside upper center", frameon=False, ncols=7, fontsize=8)
    return _png(figure)


def path_plot(
    driven: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    asked: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> bytes:
    """Plot a TCP's x, y, z: what the policy asked for, what the guard sent and what was measured.

    Args:
        driven: times (T,) [s], sent (T, 3) and measured (T, 3) [m].
        asked: times (n,) at which the targets (n, 3) were due.
    """
    figure, axes = _figure(7.2, 3.0)
    seconds, sent, measured = driven
    for k, name in enumerate("xyz"):
        colour = COLOURS[k % len(COLOURS)]
        axes.plot(asked[0], asked[1][:, k], ".", color=colour, ms=2, alpha=0.4)
        axes.plot(seconds, sent[:, k], color=colour, lw=1.6, label=f"{name} sent")
        axes.plot(seconds, measured[:, k], color=INK, lw=0.8, ls=":")
    axes.set_xlabel("time [s]; dots: asked for by the policy, dotted: measured")
    axes.set_ylabel("TCP [m]")
    figure.legend(loc="outside upper center", frameon=False, ncols=3, fontsize=8)
    return _png(figure)


def success_bars(rates: Mapping[str, SuccessRate]) -> bytes:
    """Plot success rates with 95 % Wilson intervals."""
    figure, axes = _figure(7.2, 2.4)
    names = list(rates)
    for k, name in enumerate(names):
        rate = rates[name]
        low, high = rate.interval
        axes.barh(k, rate.rate, color=ACCENT if name == "tuned" else PALE, height=0.55)
        axes.plot([low, high], [k, k], color=INK, lw=2)
        axes.plot([low, low, high, high], [k - 0.12, k + 0.12, k - 0.12, k + 0.12], "|", color=INK, ms=0)
        axes.text(1.02, k, f"{rate.successes} of {rate.n}", va="center", color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlim(0, 1.15)
    axes.set_xlabel("success rate, line: 95 % Wilson interval")
    axes.invert_yaxis()
    return _png(figure)


def film_strip(rows: Sequence[Sequence[NDArray[np.uint8]]], scale: int = 2) -> bytes:
    """Lay images (h, w, 3) out in a grid, enlarged by whole pixels."""
    from PIL import Image

    grid = np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)
    enlarged = np.repeat(np.repeat(grid, scale, axis=0), scale, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(enlarged).save(buffer, format="PNG")
    return buffer.getvalue()
