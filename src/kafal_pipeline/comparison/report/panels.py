"""Small multiples: one small learning curve for each strategy, however many there are."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from kafal_pipeline.comparison.analysis import Comparison
from kafal_pipeline.comparison.report.appearance import Look

WIDTH, HEIGHT, MARGIN = 160, 90, 4  # of a panel, in its own units


@dataclass(frozen=True)
class Panel:
    """The shapes of one strategy's picture, as SVG's lists of points."""

    strategy: str
    look: Look
    score: float
    line: str
    band: str
    baseline: str


def panels(comparison: Comparison, looks: Mapping[str, Look]) -> list[Panel]:
    """Return a panel for each strategy, best first, all on one scale; `baseline` is empty where there is none."""
    curves = {str(name): curve for name, curve in comparison.curves.groupby("strategy")}
    table = comparison.curves
    box = (
        *(table["labels"].min(), table["labels"].max()),
        *(table[["mean", "low"]].min().min(), table[["mean", "high"]].max().max()),
    )
    found = []
    for name in comparison.strategies:
        curve, baseline = curves[name], comparison.baselines.get(name)
        band = [*_points(curve, "high", box), *_points(curve, "low", box)[::-1]]
        found.append(
            Panel(
                strategy=name,
                look=looks[name],
                score=float(comparison.summary["aulc"][name]),
                line=" ".join(_points(curve, "mean", box)),
                band=" ".join(band),
                baseline=" ".join(_points(curves[baseline], "mean", box)) if baseline else "",
            )
        )
    return found


def _points(curve: pd.DataFrame, column: str, box: tuple[float, ...]) -> list[str]:
    """Return the points of a line that has values, from the left, as SVG writes them."""
    left, right, bottom, top = box
    across = (WIDTH - 2 * MARGIN) / ((right - left) or 1)
    up = (HEIGHT - 2 * MARGIN) / ((top - bottom) or 1)
    rows = curve[["labels", column]].dropna()
    return [
        f"{MARGIN + across * (x - left):.1f},{HEIGHT - MARGIN - up * (y - bottom):.1f}"
        for x, y in rows.itertuples(index=False)
    ]
