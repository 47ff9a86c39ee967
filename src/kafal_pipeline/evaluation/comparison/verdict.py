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


@dataclass(frozen=True)
class Verdict:
    """The strategy that leads by mean AULC, and how sure it is that it leads.

    Attributes
    ----------
    winner
        The leader.
    measured_by
        What its lead is measured by: its baseline, or else the runner-up. Itself if it is alone.
    strength
        Whether the lead over `measured_by` is shown to be more than luck.
    title, badge, sentences
        The same for people.
    """

    winner: str
    measured_by: str
    strength: Strength
    title: str
    badge: str
    sentences: tuple[str, ...]


def verdict(comparison: Comparison) -> Verdict:
    """Say who leads, by how much, and whether that is more than luck."""
    winner, *others = comparison.strategies
    score = percent(comparison.summary["aulc"][winner])
    if not others:
        only = ("Only one strategy has finished runs.",)
        return Verdict(winner, winner, "alone", f"{winner}: AULC {score}", "Nothing to compare with", only)
    second = others[0]
    closest, second_strength = _runner_up(comparison, winner, second)
    baseline = comparison.baselines.get(winner)
    sentences: tuple[str, ...]
    if baseline is not None:
        family = comparison.against_baseline
        row = _pair(family, winner, baseline)
        strength = _strength(row, family, comparison.alpha)
        gap = f"{_size(row)} above {baseline}" if row["difference"] > 0 else f"level with {baseline} on a typical seed"
        measured = f"Against the baseline {baseline} it is better on {_seeds(row)}{_interval(row)}, {_p(row, family)}."
        if not row["n"]:
            gap = f"not measured by {baseline}"
            measured = f"It shares no finished seed with the baseline {baseline}."
        sentences = (measured, _shown(comparison)) if second == baseline else (measured, closest, _shown(comparison))
        title = f"{winner} leads: AULC {score}, {gap}"
        return Verdict(winner, baseline, strength, title, _badge(strength, baseline), tuple(filter(None, sentences)))
    if winner in comparison.baselines.values():
        title = f"{winner}, the baseline, leads: AULC {score}"
        sentences = ("No strategy is above the baseline on average.", closest, _shown(comparison))
    else:
        title, sentences = f"{winner} leads: AULC {score}", (closest, _shown(comparison))
    sentences = tuple(filter(None, sentences))
    return Verdict(winner, second, second_strength, title, _badge(second_strength, second), sentences)


def _shown(comparison: Comparison) -> str:
    """Return who is above the own baseline by more than luck, whoever leads; empty where nothing could be shown."""
    tests = comparison.against_baseline
    count = int(tests["p"].notna().sum())
    if count < 2 or tests["n"].max() < pairs_needed(count, comparison.alpha):
        return ""
    names = [str(name) for name in tests["strategy"][tests["p_holm"] <= comparison.alpha]]
    return f"Above their baselines by more than luck: {', '.join(names) or 'none'}."


def _runner_up(comparison: Comparison, winner: str, second: str) -> tuple[str, Strength]:
    """Return the sentence on the two best strategies, and how sure their order is."""
    row = _pair(comparison.pairs, winner, second)
    strength = _strength(row, comparison.pairs, comparison.alpha)
    if not row["n"]:
        return f"It shares no finished seed with the next one, {second}.", strength
    behind = f"{_size(row)} behind" if row["difference"] > 0 else "not behind on a typical seed"
    sentence = (
        f"The runner-up {second} is {behind}{_interval(row)}; {winner} is better on {_seeds(row)}, "
        f"{_p(row, comparison.pairs)}. {_TOLD_APART[strength]}"
    )
    return sentence, strength


_TOLD_APART: dict[Strength, str] = {
    "shown": "That is more than luck.",
    "open": "The two are not told apart.",
    "too few seeds": "These are too few seeds to tell the two apart.",
}


def _badge(strength: Strength, other: str) -> str:
    badges: dict[Strength, str] = {
        "shown": f"Above {other} by more than luck",
        "open": f"The lead over {other} may be luck",
        "too few seeds": "Too few seeds to tell",
    }
    return badges[strength]


def _pair(table: pd.DataFrame, strategy: str, against: str) -> Any:
    return table[(table["strategy"] == strategy) & (table["against"] == against)].iloc[0]


def _strength(row: Any, family: pd.DataFrame, alpha: float) -> Strength:
    if row["p_holm"] <= alpha:
        return "shown"
    needed = pairs_needed(int(family["p"].notna().sum()), alpha)
    return "too few seeds" if row["n"] < max(needed, 1) else "open"


def _size(row: Any) -> str:
    return f"{100 * row['difference']:.1f}{SPACE}points"


def _seeds(row: Any) -> str:
    return f"{row['wins']} of {row['n']} {'seed' if row['n'] == 1 else 'seeds'}"


def _interval(row: Any) -> str:
    return "" if math.isnan(row["low"]) else f" (interval {points(row['low'])} to {points(row['high'])})"


def _p(row: Any, family: pd.DataFrame) -> str:
    tests = int(family["p"].notna().sum())
    adjusted = "" if tests == 1 else f", adjusted for {tests} tests"
    return p_value(row["p_holm"], equals=True) + adjusted


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
