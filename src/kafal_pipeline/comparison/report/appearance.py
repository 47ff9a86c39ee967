"""Colours and marks: one for each strategy, the same in every figure and table of a report.

Everything is drawn in the colours for light paper. On the page each of them is a CSS variable with a second value for
dark screens; `VARIABLES` maps one to the other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kafal_pipeline.comparison.analysis import Comparison
from kafal_pipeline.evaluation.style import new_figure

HIGHLIGHTED = 6  # so many of the best strategies have a colour of their own; more could not be told apart

INK, MUTED, FAINT, OTHER, BASELINE = "#1b1f24", "#636b74", "#dde1e6", "#b3bac2", "#474f5a"

# Okabe and Ito's colours, told apart with every common colour blindness; two of them darker, to be seen on white.
COLOURS = ("#0072b2", "#d55e00", "#00936c", "#b5508a", "#b9840a", "#45a5dc")
ON_DARK = ("#55aee8", "#ff8b47", "#35cfa3", "#ec94c4", "#edbd4c", "#a5dcff")
MARKERS = ("o", "s", "^", "D", "v", "P")
SYMBOLS = ("●", "■", "▲", "◆", "▼", "✚")

VARIABLES = {
    INK: ("--ink", "#e8eaed"),
    MUTED: ("--muted", "#a2abb5"),
    FAINT: ("--faint", "#343b44"),
    OTHER: ("--other", "#58626d"),
    BASELINE: ("--baseline", "#c4ccd5"),
    **{colour: (f"--s{index}", dark) for index, (colour, dark) in enumerate(zip(COLOURS, ON_DARK, strict=True))},
}
"""By colour on light paper, its CSS variable and its value on a dark screen."""


@dataclass(frozen=True)
class Look:
    """How a strategy is drawn."""

    colour: str = OTHER
    marker: str = "o"
    symbol: str = "○"
    highlighted: bool = False
    dashed: bool = False

    @property
    def variable(self) -> str:
        """Name of the CSS variable of the colour."""
        return VARIABLES[self.colour][0]


def looks(comparison: Comparison) -> dict[str, Look]:
    """Give every strategy its look: colours for the best, dashes for the baselines, grey for the rest."""
    baselines = set(comparison.baselines.values())
    others = [name for name in comparison.strategies if name not in baselines]
    found = {name: Look(BASELINE, "X", "✖", highlighted=True, dashed=True) for name in baselines}
    for index, name in enumerate(others):
        found[name] = (
            Look(COLOURS[index], MARKERS[index], SYMBOLS[index], highlighted=True) if index < HIGHLIGHTED else Look()
        )
    return found


@contextmanager
def new_chart(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Yield a figure and its axes as `new_figure` does, in the colours that the page can change."""
    with new_figure(width, height) as (figure, axes):
        axes.tick_params(colors=MUTED, labelcolor=INK)
        for spine in axes.spines.values():
            spine.set_color(MUTED)
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        axes.title.set_color(INK)
        axes.set_axisbelow(True)
        yield figure, axes
