"""Style of this project's figures, set without touching matplotlib's global state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's "muted" scheme, told apart with every common colour blindness, ordered so that neighbours differ in
# lightness too (https://personal.sron.nl/~pault/).
PALETTE = (
    *("#332288", "#88CCEE", "#117733", "#DDCC77", "#882255"),
    *("#44AA99", "#CC6677", "#999933", "#AA4499", "#DDDDDD"),
)
BLUE, RED, GREY = "#0072B2", "#D55E00", "#555555"
"""Two of Okabe and Ito's colours for lines, and one for what matters less."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # shipped with matplotlib, hence the same picture everywhere
    "font.size": 10,
    "text.parse_math": False,  # a class may be called "$5 to $10"
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "legend.frameon": False,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.1,
}

LONGEST_NAME = 24


def short(name: str) -> str:
    """Cut a name that would take too much of a figure.

    >>> short("truck"), short("intraepithelial carcinoma and Bowen's disease")
    ('truck', 'intraepithelial carcino…')
    """
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


@contextmanager
def new_figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Yield an empty figure (inches, 150 dpi) and its axes, to be drawn on in this project's style."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.add_subplot()
