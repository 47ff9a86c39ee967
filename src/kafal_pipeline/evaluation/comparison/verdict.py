"""The headline of a comparison: who won, by how much, and whether it is more than luck."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kafal_pipeline.evaluation.comparison.analysis import Comparison
from kafal_pipeline.evaluation.comparison.signed_rank import pairs_needed

if TYPE_CHECKING:
    import pandas as pd

Strength = Literal["shown", "open", "too few seeds", "alone"]
SPACE = "\N{NO-BREAK SPACE}"

BADGES: dict[Strength, str] = {
    "shown": "More than luck",
    "open": "May be luck",
    "too few seeds": "Too few seeds to tell",
    "alone": "Nothing to compare with",
}


@dataclass(frozen=True)
class Verdict:
    """The winner by mean AULC, how sure that is, and the sentences that say it."""

    winner: str
    strength: Strength
    title: str
    sentences: tuple[str, ...]

    @property
    def badge(self) -> str:
        """The strength in words."""
        return BADGES[self.strength]


def verdict(comparison: Comparison) -> Verdict:
    """Say who won: measured by its baseline where it has one, or else by the runner-up."""
    winner, *others = comparison.strategies
    score = percent(comparison.summary.loc[winner, "aulc"])
    if not others:
        return Verdict(winner, "alone", f"{winner}: AULC {score}", ("Only one strategy has finished runs.",))
    ahead = _pair(comparison.pairs, winner, others[0])
    pairs = len(comparison.pairs)
    closest = (
        f"The runner-up {others[0]} is {_gap(ahead)} behind{_interval(ahead)}; {winner} is better on "
        f"{_seeds(ahead)}, {_p(ahead)}. {_consequence(_strength(ahead, pairs, comparison.alpha))}"
    )
    baseline = comparison.baselines.get(winner)
    if baseline is None:
        strength = _strength(ahead, pairs, comparison.alpha)
        is_baseline = winner in comparison.baselines.values()
        title = f"{winner}{', the baseline,' if is_baseline else ''} is best: AULC {score}"
        lead = ("No strategy beat the baseline on average.",) if is_baseline else ()
        return Verdict(winner, strength, title, (*lead, closest))
    row = _pair(comparison.against_baseline, winner, baseline)
    strength = _strength(row, len(comparison.against_baseline), comparison.alpha)
    title = f"{winner} is best: AULC {score}, {_gap(row)} above {baseline}"
    measured = (
        f"Against the baseline it is better on {_seeds(row)}{_interval(row)}, {_p(row)}, counting "
        f"{_tests(len(comparison.against_baseline))}."
    )
    return Verdict(winner, strength, title, (measured, closest) if others[0] != baseline else (measured,))


def _pair(table: pd.DataFrame, strategy: str, against: str) -> Any:
    return table[(table["strategy"] == strategy) & (table["against"] == against)].iloc[0]


def _strength(row: Any, comparisons: int, alpha: float) -> Strength:
    if row["p_holm"] <= alpha:
        return "shown"
    return "too few seeds" if row["n"] < pairs_needed(comparisons, alpha) else "open"


def _consequence(strength: Strength) -> str:
    return {
        "shown": "That is more than luck.",
        "open": "The two are not told apart.",
        "too few seeds": "That is too few seeds to tell the two apart.",
        "alone": "",
    }[strength]


def _gap(row: Any) -> str:
    return f"{100 * row['difference']:.1f} points"


def _seeds(row: Any) -> str:
    return f"{row['wins']} of {row['n']} {'seed' if row['n'] == 1 else 'seeds'}"


def _tests(count: int) -> str:
    return "this one test" if count == 1 else f"{count} such tests"


def _interval(row: Any) -> str:
    return "" if math.isnan(row["low"]) else f" (interval {points(row['low'])} to {points(row['high'])})"


def _p(row: Any) -> str:
    return f"adjusted {p_value(row['p_holm'], equals=True)}"


def percent(fraction: float, digits: int = 1) -> str:
    r"""Return a fraction in per cent, or a dash for NaN.

    Examples
    --------
    >>> percent(0.8634), percent(float("nan"))
    ('86.3\xa0%', '–')
    """
    return "–" if math.isnan(fraction) else f"{100 * fraction:.{digits}f}{SPACE}%"


def points(fraction: float) -> str:
    """Return a difference of fractions in points with its sign, or a dash for NaN.

    Examples
    --------
    >>> points(0.021), points(-0.021), points(-0.0001)
    ('+2.1', '−2.1', '0.0')
    """
    if math.isnan(fraction):
        return "–"
    rounded = round(100 * fraction, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def p_value(p: float, *, equals: bool = False) -> str:
    r"""Return a p-value to two or three decimals, with ``p =`` before it if `equals`; a dash for NaN.

    Examples
    --------
    >>> p_value(0.00012), p_value(0.0625), p_value(0.3, equals=True)
    ('<0.001', '0.062', 'p\xa0=\xa00.30')
    """
    if math.isnan(p):
        return "p unknown" if equals else "–"
    text = "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    return text if not equals else f"p{SPACE}{text}" if text.startswith("<") else f"p{SPACE}={SPACE}{text}"
