"""Figures of a comparison. Each function returns a matplotlib `Figure` and leaves no state behind."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kafal_pipeline.comparison.analysis import Comparison
from kafal_pipeline.comparison.report.appearance import BASELINE, FAINT, INK, MUTED, OTHER, Look, new_chart
from kafal_pipeline.comparison.report.verdict import points
from kafal_pipeline.evaluation.style import short

WIDTH = 4.7
ROW = 0.27  # inches a strategy takes in the figures that list them

MOST_NUMBERS, MOST_BANDS, MOST_TICKS = 12, 4, 7
"""The most strategies with numbers in the win matrix, the most with a band each, the most cycles with a tick each."""

FEWEST_SEEDS = 3  # with fewer seeds no interval is drawn: of two values it is 18 times as wide as they lie apart

DASHES = (0, (4, 2))


def learning_curves_figure(comparison: Comparison, looks: Mapping[str, Look]) -> Figure:
    """Draw mean accuracy over mean number of labels, with the intervals of the means as bands."""
    return _curves_figure(comparison.curves, comparison.strategies, looks, "Accuracy on the test set")


def gains_figure(comparison: Comparison, looks: Mapping[str, Look]) -> Figure:
    """Draw the mean difference to the baseline, paired by seed, over mean number of labels."""
    paired = set(comparison.gains["strategy"])  # those that share a finished seed with their baseline
    strategies = [name for name in comparison.strategies if name in paired]
    return _curves_figure(comparison.gains, strategies, looks, "Points above the baseline", zero=True)


def _curves_figure(
    table: pd.DataFrame, strategies: list[str], looks: Mapping[str, Look], what: str, *, zero: bool = False
) -> Figure:
    """Draw `mean` over `labels` for each strategy: the highlighted ones in colour, the others thin and grey.

    Where many are in colour, only the best one and the baselines have bands, which would hide each other.
    """
    curves = {str(name): curve for name, curve in table.groupby("strategy")}
    grey = [name for name in strategies if not looks[name].highlighted]
    shown = [name for name in strategies if looks[name].highlighted]
    banded = [name for name in shown if curves[name]["n"].min() >= FEWEST_SEEDS]
    banded = [name for name in banded if len(shown) <= MOST_BANDS or name == shown[0] or looks[name].dashed]
    with new_chart(WIDTH, 3.3 + 0.2 * math.ceil((len(shown) + bool(grey)) / 2)) as (figure, axes):
        for name in grey:
            label = f"{len(grey)} others" if name == grey[0] else None
            axes.plot(curves[name]["labels"], curves[name]["mean"], color=OTHER, linewidth=0.8, zorder=1, label=label)
        if zero:
            axes.axhline(0, color=BASELINE, linestyle=DASHES, linewidth=1.5, zorder=2)
        for name in banded:
            curve = curves[name]
            labels, low, high = curve["labels"], curve["low"], curve["high"]
            axes.fill_between(labels, low, high, color=looks[name].colour, alpha=0.15, linewidth=0, zorder=2)
        for order, name in enumerate(reversed(shown)):
            curve, look = curves[name], looks[name]
            axes.plot(
                curve["labels"],
                curve["mean"],
                color=look.colour,
                linestyle=DASHES if look.dashed else "solid",
                linewidth=2.0,
                marker=look.marker,
                markersize=5.5,
                zorder=3 + order,
                label=short(name),
            )
        axes.set_xlabel("Labels bought by all clients")
        axes.set_ylabel(what)
        axes.grid(axis="y", color=FAINT, linewidth=0.8)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
        axes.yaxis.set_major_formatter(lambda y, _: points(y).removesuffix(".0") if zero else f"{100 * y:g}%")
        bottom, top = _limits(table)
        axes.set_ylim(bottom, top if zero else min(top, 1.01))
        labels = table.groupby("cycle")["labels"].mean()
        if len(labels) <= MOST_TICKS:
            axes.set_xticks(labels.round())
        handles, names = axes.get_legend_handles_labels()  # drawn from the back to the front
        figure.legend(
            handles[::-1],
            names[::-1],
            loc="outside lower center",
            ncols=2,
            fontsize=9,
            labelcolor=INK,
            handlelength=2.6,
        )
    return figure


def scores_figure(comparison: Comparison, looks: Mapping[str, Look]) -> Figure:
    """Draw the AULC of every run, with each strategy's mean and its confidence interval."""
    summary, names = comparison.summary, comparison.strategies
    with new_chart(WIDTH, 1.0 + ROW * len(names)) as (figure, axes):
        for row, name in enumerate(names):
            look, line = looks[name], summary.loc[name]
            scores = comparison.scores[name].dropna()
            axes.scatter(scores, [row] * len(scores), s=14, color=look.colour, alpha=0.4, linewidths=0, zorder=2)
            if line["n"] >= FEWEST_SEEDS:
                axes.plot([line["aulc_low"], line["aulc_high"]], [row, row], color=look.colour, linewidth=2.2, zorder=3)
            axes.scatter([line["aulc"]], [row], s=44, color=look.colour, marker=look.marker, linewidths=0, zorder=4)
        _rows(axes, names)
        axes.set_xlabel("AULC of the seeds, their mean and its interval", loc="right")
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    return figure


def critical_difference_figure(comparison: Comparison, looks: Mapping[str, Look]) -> Figure:
    """Draw the mean ranks; bars at the right join strategies that differ by less than the critical difference."""
    ranking = comparison.ranking
    names, ranks = list(ranking.mean_ranks), list(ranking.mean_ranks.values())
    row_of = {name: row for row, name in enumerate(names)}
    with new_chart(WIDTH, 1.35 + ROW * len(names)) as (figure, axes):
        axes.hlines(range(len(names)), 1, ranks, color=FAINT, linewidth=1.2, zorder=1)
        for row, (name, rank) in enumerate(zip(names, ranks, strict=True)):
            axes.scatter(
                [rank], [row], s=44, color=looks[name].colour, marker=looks[name].marker, linewidths=0, zorder=3
            )
        _rows(axes, names)
        end = len(names) + 0.15
        axes.set_xlim(0.7, end + 0.3)
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
        step = min(0.025, 0.2 / max(1, len(ranking.groups)))
        for place, group in enumerate(ranking.groups):
            bar = axes.vlines(
                1.02 + step * place,  # to the right of the axes, in shares of their width
                row_of[group[0]] - 0.3,
                row_of[group[-1]] + 0.3,
                color=INK,
                linewidth=2.2,
                transform=axes.get_yaxis_transform(),
            )
            bar.set_clip_on(False)
        if math.isfinite(ranking.critical_difference):
            stop = min(1 + ranking.critical_difference, end + 0.3)
            axes.plot([1, stop], [-1, -1], color=INK, linewidth=2.2, marker="|", markersize=7)
            axes.text(1, -1.35, f"critical difference {ranking.critical_difference:.2f}", color=INK, va="bottom")
            axes.set_ylim(len(names) - 0.4, -2.3)
        axes.set_xlabel("Mean rank over the seeds (1 is best)")
    return figure


def win_matrix_figure(comparison: Comparison) -> Figure:
    """Draw the share of seeds on which the row's strategy beats the column's, both best first."""
    wins = comparison.wins.to_numpy()
    names = comparison.strategies
    side = max(2.2, min(6.5, 0.42 * len(names)))
    with new_chart(side + 3.0, side + 1.0) as (figure, axes):
        image = axes.imshow(wins, cmap="PuOr_r", vmin=0, vmax=1, aspect="equal")
        axes.spines[:].set_visible(False)
        axes.set_yticks(range(len(names)), labels=[f"{place}  {short(name)}" for place, name in enumerate(names, 1)])
        axes.set_xticks(range(len(names)), labels=[str(place) for place in range(1, len(names) + 1)])
        axes.tick_params(length=0, labelsize=10 if len(names) <= 20 else 7)
        axes.set_title("Share of seeds won by the row against the column", fontsize=10)
        if len(names) <= MOST_NUMBERS:
            for (row, column), share in np.ndenumerate(wins):
                if np.isfinite(share):
                    colour = "white" if abs(share - 0.5) > 0.35 else INK
                    axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=9, color=colour)
        figure.colorbar(image, ax=axes, shrink=0.8, format=lambda share, _: f"{100 * share:.0f}%")
    return figure


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """Return what to show of the vertical axis: all lines, and of the bands no more than leaves the lines legible."""
    low, high = table["mean"].min(), table["mean"].max()
    bands = table[table["n"] >= FEWEST_SEEDS]
    room = max(0.6 * (high - low), 0.01)
    bottom = max(low - room, min([low, *bands["low"].dropna()]))
    top = min(high + room, max([high, *bands["high"].dropna()]))
    margin = 0.04 * (top - bottom) + 2e-3
    return bottom - margin, top + margin


def _rows(axes: Axes, names: list[str]) -> None:
    """Name the rows of a figure that lists strategies, first at the top."""
    axes.set_yticks(range(len(names)), labels=[short(name) for name in names])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.xaxis.label.set_color(MUTED)
