"""A table of counts or shares as colours, with numbers in the cells while they are legible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.evaluation.style import new_figure, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ROWS, MAX_COLUMNS = 30, 20  # larger tables get neither numbers in their cells nor a name for every row and column
CHARACTER = 0.085  # width of a character in inches, on average


def heatmap(
    values: NDArray[np.number],
    *,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    rows_name: str,
    colour_bar: str,
    text: str | None = "{:,}",
) -> Figure:
    """Draw a table as colours: white for 0, darker for more.

    - `values`: numbers that are not negative, ``(len(rows), len(columns))``.
    - `rows`, `columns`: names of the rows and of the columns; columns are classes.
    - `rows_name`: what a row is, written at the axis of a table too large for names.
    - `colour_bar`: what the colour measures, written next to the bar of a table without numbers.
    - `text`: format of the numbers in the cells of a table that is small enough; None for a table without numbers.
    """
    columns = [short(name) for name in columns]
    few_rows, few_columns = len(rows) <= MAX_ROWS, len(columns) <= MAX_COLUMNS
    width = 2.6 + 0.62 * len(columns) if few_columns else 9.0
    room = (max(6.5, width) - 2) / len(columns)  # for a column's name; about 2 inches go to the rows' names
    height = 1.7 + 0.34 * len(rows) if few_rows else 6.5
    with new_figure(max(6.5, width), max(2.8, height)) as (figure, axes):
        image = axes.imshow(values, cmap="Blues", vmin=0, vmax=max(float(values.max()), 1e-9), aspect="auto")
        axes.set_title(title)
        axes.spines[:].set_visible(False)
        _name_axis(axes, "y", rows if few_rows else None, f"{rows_name}s, by number")
        _name_axis(axes, "x", columns if few_columns else None, "Classes, by index")
        if few_columns and CHARACTER * max(map(len, columns)) > 0.9 * room:
            slant(axes)
        if few_rows and few_columns and text is not None:
            _write_cells(axes, values, text)
        else:
            figure.colorbar(image, ax=axes, label=colour_bar)
    return figure


def _name_axis(axes: Axes, which: Literal["x", "y"], names: Sequence[str] | None, otherwise: str) -> None:
    """Write every row's or column's name, or for too many of them what their numbers mean."""
    from matplotlib.ticker import MaxNLocator

    axis = axes.yaxis if which == "y" else axes.xaxis
    axes.tick_params(axis=which, length=0 if names else 3)
    if names is None:
        axis.set_major_locator(MaxNLocator(10, integer=True))
        axis.set_label_text(otherwise)
        return
    axis.set_ticks(range(len(names)), labels=list(names))


def slant(axes: Axes) -> None:
    """Turn the columns' names so that long ones do not run into each other."""
    for label in axes.get_xticklabels():
        label.set(rotation=40, ha="right", rotation_mode="anchor")


def _write_cells(axes: Axes, values: NDArray[np.number], text: str) -> None:
    """Write every number that is not 0 into its cell, and part the cells by white lines."""
    dark = 0.55 * values.max()
    for (row, column), value in np.ndenumerate(values):
        if value:
            colour = "white" if value > dark else "black"
            axes.text(column, row, text.format(value), ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(np.arange(1, values.shape[1]) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, values.shape[0]) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
