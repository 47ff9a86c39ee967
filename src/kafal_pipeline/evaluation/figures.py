"""Figures of one run. Each function returns a matplotlib `Figure` and leaves no state behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.evaluation.heatmap import heatmap, slant
from kafal_pipeline.evaluation.style import BLUE, GREY, PALETTE, RED, new_figure, short

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_BARS = 20  # more bars than this are drawn as a heat map: they would be too narrow for their numbers
LONGEST_UPRIGHT = 12  # characters that fit below a bar


def learning_curve_figure(curve: pd.DataFrame, title: str) -> Figure:
    """Draw test accuracy and balanced accuracy over the number of labels.

    `curve`: the table of `kafal_pipeline.evaluation.curve.learning_curve`. `title`: what was run, such as
    ``"digits, ksas with kcfu, seed 0"``.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    labels, last = curve["labels"].to_numpy(), curve.iloc[-1]
    # The line below is thick and pale, the one above thin and dashed: both are seen where they are one, which they are
    # on a test set with equally many images of each class.
    series: dict[str, tuple[str, str, dict[str, Any]]] = {
        "accuracy": ("Accuracy", BLUE, {"marker": "o", "markersize": 9, "linewidth": 5, "alpha": 0.4}),
        "balanced_accuracy": ("Balanced accuracy", RED, {"marker": "s", "markersize": 4, "linestyle": (0, (4, 2))}),
    }
    with new_figure(7.5, 4.6) as (figure, axes):
        for column, (name, colour, look) in series.items():
            axes.plot(labels, curve[column], color=colour, label=name, **look)
        axes.set_title(fill(f"{title}: AULC {last['aulc']:.1%}", 72))
        axes.set_xlabel("Labels bought by all clients")
        axes.set_ylabel("Accuracy on the test set")
        _limit(axes, labels, curve[list(series)].to_numpy())
        _annotate_ends(axes, {column: float(last[column]) for column in series}, [BLUE, RED])
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}%"))
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.legend(loc="lower right" if len(labels) > 1 else "upper right")
        per_label = last["labelled_fraction"] / last["labels"]
        share = axes.secondary_xaxis("top", functions=(lambda x: x * per_label, lambda x: x / per_label))
        share.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}%"))
        share.set_xlabel("Share of the training data that is labelled", color=GREY)
    return figure


def labelling_cost_figure(curve: pd.DataFrame, title: str) -> Figure:
    """Draw test accuracy over the hours that people have spent on labels; nothing where they are not known.

    `curve`, `title`: as in `learning_curve_figure`.
    """
    from matplotlib.ticker import PercentFormatter

    with new_figure(7.5, 4.6) as (figure, axes):
        if curve["annotation_hours"].isna().all():
            axes.set_title("How long people took for their labels is not known")
            axes.set_axis_off()
            return figure
        axes.plot(curve["annotation_hours"], curve["accuracy"], color=BLUE, marker="o")
        axes.set_title(fill(f"{title}: accuracy over the cost of labels", 72))
        seconds = curve["annotation_seconds_per_label"].iloc[-1]
        axes.set_xlabel(f"Hours of labelling, with the test images ({seconds:.1f} s a label, the median)")
        axes.set_ylabel("Accuracy on the test set")
        axes.margins(0.08)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    return figure


def _limit(axes: Axes, labels: NDArray[np.integer], values: NDArray[np.floating]) -> None:
    """Leave room around the points, also around a single one."""
    low, high = values.min(), values.max()
    margin = max(0.03, 0.08 * (high - low))
    axes.set_ylim(max(-0.01, low - margin), min(1.01, high + margin))
    room = max(2.0, 0.05 * np.ptp(labels))
    axes.set_xlim(labels[0] - room, labels[-1] + room)


def _annotate_ends(axes: Axes, ends: Mapping[str, float], colours: Sequence[str]) -> None:
    """Write the two lines' last values at the right, moved apart where they would touch."""
    pairs = sorted(zip(ends.values(), colours, strict=True), reverse=True)
    line_of_text = 0.06 * np.ptp(axes.get_ylim())
    shift = max(0.0, line_of_text - (pairs[0][0] - pairs[1][0])) / 2
    for (value, colour), offset in zip(pairs, (shift, -shift), strict=True):
        place = axes.get_yaxis_transform()  # x: share of the axes' width, y: data
        axes.text(1.01, value + offset, f"{value:.1%}", transform=place, color=colour, fontweight="bold", va="center")


def client_classes_figure(
    split_table: pd.DataFrame, classes: Sequence[str], names: Sequence[str] | None = None
) -> Figure:
    """Draw how many training samples of each class every client holds.

    `split_table`: columns `client`, `class` (an index into `classes`) and `count`; pairs without a row count 0.
    `names`: the clients' names, where the data have any.
    """
    counts = (
        split_table.pivot_table(index="client", columns="class", values="count", aggfunc="sum", fill_value=0)
        .reindex(columns=range(len(classes)), fill_value=0)
        .sort_index()
    )
    called = {client: f"client {client}{f', {short(names[client])}' if names else ''}" for client in counts.index}
    rows = [f"{called[client]} ({total:,})" for client, total in counts.sum(axis=1).items()]
    return heatmap(
        counts.to_numpy(),
        title=f"What the clients hold: {int(counts.to_numpy().sum()):,} training samples by class",
        rows=rows,
        columns=classes,
        rows_name="Client",
        colour_bar="Samples",
    )


def queried_classes_figure(histograms: Mapping[int, Sequence[int]], classes: Sequence[str]) -> Figure:
    """Draw the class mix of the labels that each cycle bought.

    `histograms`: number of labels by class, ``(C,)``, for every cycle; cycle 0 is the initial pool.
    """
    counts = np.array([histograms[cycle] for cycle in sorted(histograms)], dtype=np.int64)
    names = ["initial pool" if cycle == 0 else f"cycle {cycle}" for cycle in sorted(histograms)]
    return _class_mix(counts, names, classes, "Classes of the labels bought in each cycle", "cycle")


def queried_by_client_figure(
    pool: pd.DataFrame, classes: Sequence[str], clients: Sequence[str] | None = None
) -> Figure:
    """Draw the class mix of the labels that the queries bought from each client, the initial pool left out.

    `pool`: the last cycle's, with `client`, `label` and `labelled_in_cycle` of every training image. `clients`: the
    clients' names (default: their numbers).
    """
    counts = np.zeros((pool["client"].max() + 1, len(classes)), dtype=np.int64)
    bought = pool[pool["labelled_in_cycle"] > 0]
    np.add.at(counts, (bought["client"], bought["label"]), 1)
    names = [f"client {client}" for client in range(len(counts))] if clients is None else clients
    return _class_mix(counts, names, classes, "Classes of the queried labels, by client", "client")


def confusion_figure(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> Figure:
    """Draw which classes each class of the test set is predicted as.

    `confusion`: counts, true class by predicted class, ``(C, C)``; empty if the version that made the results kept
    none.
    """
    counts = np.array(confusion if len(confusion) else np.zeros((len(classes), len(classes))), dtype=np.int64)
    totals = counts.sum(axis=1)
    figure = heatmap(
        100 * counts / np.maximum(totals, 1)[:, None],
        title="Confusion matrix, in % of the true class"
        if len(confusion)
        else "No confusion matrix: an earlier version made these results",
        rows=[f"{short(name)} ({total:,})" for name, total in zip(classes, totals, strict=True)],
        columns=classes,
        rows_name="",
        colour_bar="% of the true class",
        text="{:.0f}",
    )
    figure.axes[0].set(xlabel="Predicted class", ylabel="True class (images)")
    return figure


def _class_mix(counts: NDArray[np.int64], names: Sequence[str], classes: Sequence[str], title: str, row: str) -> Figure:
    """Draw the shares of classes of each row of counts, ``(len(names), C)``; a row is a `row`."""
    from matplotlib.ticker import PercentFormatter

    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    names = [short(name) for name in names]
    if len(classes) > len(PALETTE) or len(names) > MAX_BARS:
        rows = [f"{name} ({total:,})" for name, total in zip(names, totals, strict=True)]
        return heatmap(
            100 * shares,
            title=title,
            rows=rows,
            columns=classes,
            rows_name=row.capitalize(),
            colour_bar=f"% of the {row}'s labels",
            text=None,
        )
    with new_figure(max(5.0, 2.6 + 0.95 * len(names)), 4.8) as (figure, axes):
        bottoms = shares.cumsum(axis=1) - shares
        places = range(len(names))
        bars = [
            axes.bar(places, shares[:, index], 0.72, bottoms[:, index], color=PALETTE[index], edgecolor="white")
            for index in range(len(classes))
        ]
        for position, total in enumerate(totals):
            axes.text(position, 1.01, f"{total:,}", ha="center", va="bottom", color=GREY)
        axes.set_title(title, pad=22)
        axes.set_ylabel("Share (number of labels above the bar)")
        axes.set_ylim(0, 1)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.tick_params(axis="x", length=0)
        axes.set_xticks(places, labels=names)
        if max(map(len, names)) > LONGEST_UPRIGHT:
            slant(axes)
        legend = [short(name) for name in classes]
        axes.legend(bars[::-1], legend[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5))  # in the bars' order
    return figure
