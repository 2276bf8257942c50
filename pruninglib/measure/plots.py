"""Figures: one style, and one colour and marker a method through the whole course."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from cycler import cycler
from IPython import get_ipython
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from .stats import interval

# Okabe and Ito's palette (2008): told apart with any colour vision. The marker says it again.
_BLACK, _ORANGE, _SKY, _GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
_BLUE, _RED, _PURPLE, _GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
STYLES = {
    "dense": (_BLACK, ""),
    "random": (_GREY, "x"),
    "random, tuned": (_GREY, "x"),
    "magnitude": (_BLUE, "o"),
    "small dense": (_ORANGE, "s"),
    "uniform": (_SKY, "v"),
    "ERK": (_PURPLE, "D"),
    "global": (_BLUE, "o"),
    "one-shot": (_BLUE, "o"),
    "fine-tuned": (_GREEN, "^"),
    "fine-tuned, ERK": (_PURPLE, "D"),
    "iterative": (_RED, "P"),
    "linear": (_BLACK, "."),
    "Taylor |mean|": (_SKY, ">"),
    "Taylor mean |·|": (_GREEN, "^"),
    "Fisher": (_RED, "P"),
    "scan": (_RED, "<"),
    "largest": (_PURPLE, "*"),
    "SNIP": (_SKY, "v"),
    "SNIP, 20 steps": (_SKY, "<"),
    "GraSP": (_SKY, "D"),
    "SynFlow": (_BLACK, "h"),
    "RigL": (_RED, "*"),
    "gradual": (_PURPLE, "X"),
    "ticket": (_BLUE, "p"),
    "reconstructed": (_BLUE, ">"),
    "pruned": (_BLUE, "o"),
    "early stopping": (_GREEN, "^"),
    "masked": (_BLUE, "o"),
    "shrunk": (_RED, "P"),
    "elements": (_BLUE, "o"),
    "n of m": (_GREEN, "^"),
    "rows": (_RED, "P"),
    "blocks": (_PURPLE, "D"),
    "channels": (_RED, "P"),
    "removed": (_RED, "<"),
    "recalibrated": (_GREEN, "^"),
    "random, removed": (_GREY, "x"),
    "random, recalibrated": (_GREY, "*"),
    "Taylor, one ranking": (_SKY, ">"),
    "Taylor, equal shares": (_GREEN, "^"),
    "Taylor, users alike": (_RED, "P"),
    "dimensions": (_GREEN, "D"),
    "magnitude, tuned": (_BLUE, "o"),
}
WIDTH = 7.0  # inches: a page, and the text column of a notebook


def style() -> None:
    """Set the course's look for all figures that follow."""
    plt.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.6),
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "lines.linewidth": 1.8,
            "lines.markersize": 5,
            "legend.edgecolor": "none",
            "legend.framealpha": 0.85,
            "axes.prop_cycle": cycler(color=[_BLUE, _ORANGE, _GREEN, _RED, _PURPLE, _SKY]),
            "image.cmap": "viridis",
        }
    )


def alt(text: str) -> None:
    """Say in words what the current figure shows, for who can't see it: call it last in the cell.

    In a notebook the words go to the metadata of the figure's output, and from there to the page.
    """
    plt.gcf().alt = text
    if shell := get_ipython():
        png = shell.display_formatter.formatters["image/png"]
        draw = png.lookup_by_type(Figure)
        if not isinstance(draw, _WithAlt):
            png.for_type(Figure, _WithAlt(draw))


@dataclass
class _WithAlt:
    """A notebook's way to draw a figure, and the words that belong to it."""

    draw: Callable[[Figure], Any]

    def __call__(self, figure: Figure):
        image, text = self.draw(figure), getattr(figure, "alt", None)
        return (image, {"alt": text}) if text else image


def look(method: str) -> dict:
    """Colour and marker of a method, as keyword arguments for `plot`; grey if it is unknown."""
    color, marker = STYLES.get(method, (_GREY, "."))
    return {"color": color, "marker": marker}


def curves(
    table: pd.DataFrame, metric: str = "accuracy", *, x: str = "sparsity", ax: Axes | None = None
) -> Axes:
    """`metric` over sparsity: a line per method, the mean over seeds with its 95 % interval.

    "dense" is drawn as a level across. The axis is stretched towards 100 %, where things happen.
    """
    if "split" in table and table.split.nunique() > 1:
        raise ValueError(f"the table mixes the splits {', '.join(table.split.unique())}: keep one")
    ax = ax or plt.gca()
    for method, rows in table.groupby("method", sort=False):
        points = rows.groupby(x)[metric].apply(interval)
        mean, low, high = np.array([*points]).T
        if method == "dense":
            ax.axhline(mean[0], color=_BLACK, linestyle="--", linewidth=1, label="dense")
            continue
        ax.plot(points.index, mean, label=method, **look(method))
        ax.fill_between(points.index, low, high, color=look(method)["color"], alpha=0.18, lw=0)
    sparsity_axis(ax, sorted({s for s in table[x] if s > 0}))
    ax.set_ylabel(metric)
    if table[metric].between(0, 1).all() and metric != "loss":
        ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend()
    return ax


def sparsity_axis(ax: Axes, ticks: list[float]) -> None:
    """Make x a sparsity axis: logarithmic in what is kept, so that 90, 99, 99.9 % are equally far."""
    ax.set_xscale(
        "function", functions=(lambda s: -np.log10(np.clip(1 - s, 1e-6, 1)), lambda v: 1 - 10**-v)
    )
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{100 * s:.4g}"))
    ax.set_xlabel("sparsity (% of the prunable weights that are zero)")


def heatmap(
    values: pd.DataFrame, *, label: str, form: str = "{:.0%}", ax: Axes | None = None
) -> Axes:
    """A table as colours with the numbers written in: rows down, columns across."""
    ax = ax or plt.gca()
    image = ax.imshow(values, aspect="auto")
    ax.set_xticks(range(values.shape[1]), values.columns)
    ax.set_yticks(range(values.shape[0]), values.index)
    ax.grid(False)
    middle = (np.nanmin(values) + np.nanmax(values)) / 2
    for (i, j), value in np.ndenumerate(values.to_numpy()):
        color = "black" if value > middle else "white"
        ax.text(j, i, form.format(value), ha="center", va="center", color=color, fontsize=9)
    ax.figure.colorbar(image, ax=ax, label=label)
    return ax
