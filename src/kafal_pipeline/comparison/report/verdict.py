"""The headline of a comparison: who won, by how much, and whether it is more than luck."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from kafal_pipeline.comparison.analysis import Comparison
from kafal_pipeline.comparison.pairs import tests_made
from kafal_pipeline.comparison.signed_rank import DECIMALS, pairs_needed

Strength = Literal["shown", "open", "too few seeds", "behind", "level", "alone"]

SPACE = "\N{NO-BREAK SPACE}"
MOST_NAMES = 3  # more strategies than this that share the best mean are counted, not named


@dataclass(frozen=True)
class Verdict:
    """The strategy that leads by mean AULC, and how sure it is that it leads."""

    winner: str | None  # the leader; None if several share the best mean
    # what its lead is measured by: its baseline, or else the runner-up. Itself if it is alone, None without a leader
    measured_by: str | None
    # whether the lead over `measured_by` is shown to be more than luck; "behind" if the reverse is, which a few seeds
    # far above the others can outweigh in the mean
    strength: Strength
    title: str  # `title`, `badge`, `sentences`: the same for people
    badge: str
    sentences: tuple[str, ...]


def verdict(comparison: Comparison) -> Verdict:
    """Say who leads, by how much, and whether that is more than luck."""
    winner, *others = comparison.strategies
    score = percent(comparison.summary["aulc"][winner])
    if not others:
        only = ("Only one strategy has finished runs.",)
        return Verdict(winner, winner, "alone", f"{winner}: AULC {score}", "Nothing to compare with", only)
    if len(comparison.leaders) > 1:
        return _no_difference(comparison)
    second = others[0]
    above = _above(comparison, winner)
    closest, second_strength = _runner_up(comparison, winner, second, above)
    reverse = f"On the single seeds, above it by more than luck: {', '.join(above)}." if above else ""
    leads = "leads on average" if above else "leads"
    baseline = comparison.baselines.get(winner)
    sentences: tuple[str, ...]
    if baseline is not None:
        family = comparison.against_baseline
        row = _pair(family, winner, baseline)
        strength = "behind" if baseline in above else _strength(row, family, comparison.alpha)
        measured = f"Against the baseline {baseline} it is better on {_seeds(row)}{_interval(row)}, {_p(row, family)}."
        if not row["n"]:
            gap = f"not measured by {baseline}"
            measured = f"It shares no finished seed with the baseline {baseline}."
        elif _direction(row) > 0:
            gap = f"{_size(row)} above {baseline}"
        elif _direction(row) < 0:
            leads, gap = "leads on average", f"but {_size(row)} below {baseline} on a typical seed"
        else:
            gap = f"level with {baseline} on a typical seed"
        sentences = (measured, reverse) if second == baseline else (measured, closest, reverse)
        sentences = tuple(filter(None, (*sentences, _shown(comparison))))
        title = f"{winner} {leads}: AULC {score}, {gap}"
        return Verdict(winner, baseline, strength, title, _badge(strength, baseline), sentences)
    if winner in comparison.baselines.values():
        title = f"{winner}, the baseline, {leads}: AULC {score}"
        sentences = ("No strategy is above the baseline on average.", closest, reverse, _shown(comparison))
    else:
        title, sentences = f"{winner} {leads}: AULC {score}", (closest, reverse, _shown(comparison))
    sentences = tuple(filter(None, sentences))
    return Verdict(winner, second, second_strength, title, _badge(second_strength, second), sentences)


def _no_difference(comparison: Comparison) -> Verdict:
    """Return the verdict where several strategies share the best mean, so that none of them leads."""
    names, n = comparison.leaders, len(comparison.strategies)
    if len(names) == n:
        who = "both strategies share the" if n == 2 else f"all {n} strategies share the"
    elif len(names) <= MOST_NAMES:
        who = f"{', '.join(names[:-1])} and {names[-1]} share the best"
    else:
        who = f"{len(names)} of {n} strategies share the best"
    scores = {percent(score) for score in comparison.summary["aulc"][list(names)]}
    score = f", {scores.pop()}" if len(scores) == 1 else ""  # seeds that some of them failed may part them
    table = comparison.pairs
    table = table[table["strategy"].isin(names) & table["against"].isin(names)]
    if not table["n"].all():
        seeds = "Not all of them share a finished seed."
    elif not table["wins"].any():
        seeds = "Their results are equal on every seed."
    elif len(names) == 2:
        row = table.iloc[0]
        seeds = f"{row['strategy']} is better on {_seeds(row)}, {row['against']} on {row['losses']}."
    else:
        seeds = "On the single seeds they differ."
    shown = table[table["p_holm"] <= comparison.alpha]
    above = ", ".join(f"{row['strategy']} above {row['against']}" for _, row in shown.iterrows())
    sentences = (seeds, f"On the single seeds, by more than luck: {above}." if above else "", _shown(comparison))
    title = f"No difference: {who} mean AULC{score}"
    return Verdict(None, None, "level", title, "No winner", tuple(filter(None, sentences)))


def _above(comparison: Comparison, winner: str) -> list[str]:
    """Return the strategies that are above the one with the best mean by more than luck, seed by seed."""
    tests = comparison.pairs
    found = tests[(tests["against"] == winner) & (tests["p_holm"] <= comparison.alpha)]
    return [str(name) for name in found["strategy"]]


def _shown(comparison: Comparison) -> str:
    """Return who is above the own baseline by more than luck, whoever leads; empty where nothing could be shown."""
    tests = comparison.against_baseline
    count = tests_made(tests)
    if count < 2 or tests["n"].max() < pairs_needed(count, comparison.alpha):
        return ""
    names = [str(name) for name in tests["strategy"][tests["p_holm"] <= comparison.alpha]]
    return f"Above their baselines by more than luck: {', '.join(names) or 'none'}."


def _runner_up(comparison: Comparison, winner: str, second: str, above: Sequence[str]) -> tuple[str, Strength]:
    """Return the sentence on the two best strategies, and how sure their order is."""
    row = _pair(comparison.pairs, winner, second)
    strength = "behind" if second in above else _strength(row, comparison.pairs, comparison.alpha)
    if not row["n"]:
        return f"It shares no finished seed with the next one, {second}.", strength
    if _direction(row) > 0:
        where = f"{_size(row)} behind{_interval(row)}"
    elif _direction(row) < 0:
        where = f"{_size(row)} ahead on a typical seed{_interval(row, reverse=True)}"
    else:
        where = f"level on a typical seed{_interval(row)}"
    sentence = (
        f"The runner-up {second} is {where}; {winner} is better on {_seeds(row)}, "
        f"{_p(row, comparison.pairs)}. {_TOLD_APART[strength]}"
    )
    return sentence, strength


_TOLD_APART: dict[Strength, str] = {
    "shown": "That is more than luck.",
    "open": "The two cannot be distinguished.",
    "too few seeds": "These are too few seeds to distinguish the two.",
    "behind": "The reverse is more than luck.",
}


def _badge(strength: Strength, other: str) -> str:
    badges: dict[Strength, str] = {
        "shown": f"Above {other} by more than luck",
        "open": f"The lead over {other} may be luck",
        "too few seeds": "Too few seeds to tell",
        "behind": f"Highest mean, but below {other} by more than luck",
    }
    return badges[strength]


def _pair(table: pd.DataFrame, strategy: str, against: str) -> Any:
    return table[(table["strategy"] == strategy) & (table["against"] == against)].iloc[0]


def _strength(row: Any, family: pd.DataFrame, alpha: float) -> Strength:
    if row["p_holm"] <= alpha:
        return "shown"
    needed = pairs_needed(tests_made(family), alpha)
    return "too few seeds" if row["n"] < max(needed, 1) else "open"


def _direction(row: Any) -> float:
    """Return a number with the sign of the difference; 0 if that is 0 but for rounding errors."""
    return float(round(row["difference"], DECIMALS))


def _size(row: Any) -> str:
    size = f"{100 * abs(row['difference']):.1f}"
    return f"{'less than 0.1' if size == '0.0' else size}{SPACE}points"


def _seeds(row: Any) -> str:
    return f"{row['wins']} of {row['n']} {'seed' if row['n'] == 1 else 'seeds'}"


def _interval(row: Any, *, reverse: bool = False) -> str:
    low, high = (-row["high"], -row["low"]) if reverse else (row["low"], row["high"])
    return "" if math.isnan(low) else f" (interval {points(low)} to {points(high)})"


def _p(row: Any, family: pd.DataFrame) -> str:
    tests = tests_made(family)
    adjusted = "" if tests == 1 else f", adjusted for {tests} tests"
    return p_value(row["p_holm"], equals=True) + adjusted


def percent(fraction: float, digits: int = 1) -> str:
    r"""Return a fraction in per cent, or a dash for NaN.

    >>> percent(0.8634), percent(float("nan"))
    ('86.3\xa0%', '–')
    """
    return "–" if math.isnan(fraction) else f"{100 * fraction:.{digits}f}{SPACE}%"


def points(fraction: float) -> str:
    """Return a difference of fractions in points with its sign, or a dash for NaN.

    >>> points(0.021), points(-0.021), points(-0.0001)
    ('+2.1', '−2.1', '0.0')
    """
    if math.isnan(fraction):
        return "–"
    rounded = round(100 * fraction, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def p_value(p: float, *, equals: bool = False) -> str:
    r"""Return a p-value to two or three decimals, with ``p =`` before it if `equals`; a dash for NaN.

    >>> p_value(0.00012), p_value(0.0625), p_value(0.3, equals=True)
    ('<0.001', '0.062', 'p\xa0=\xa00.30')
    """
    if math.isnan(p):
        return "p unknown" if equals else "–"
    text = "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"
    return text if not equals else f"p{SPACE}{text}" if text.startswith("<") else f"p{SPACE}={SPACE}{text}"
