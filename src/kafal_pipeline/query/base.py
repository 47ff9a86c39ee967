"""The interface of a query: its inputs and its result. A strategy's own file documents only what is its own.

A query is a dataclass whose fields are its options, with the method ``select`` of `Query`. `pool` is one client's view
of its own samples, `budget` the number of samples to choose and `rng` the only source of randomness. A query never sees
a label of an unlabelled sample, nor another client's data. It may also have

- ``summary(pool)``, if it must know the federation: see `Summarises`.
- ``watched_samples``, a number: so many of each client's unlabelled samples are watched while it trains
  (`kafal_pipeline.query.chase`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import NotAllowed, kind_of
from kafal_pipeline.query.pool import Arrays, PoolView

Scores = NDArray[np.float64]
STORED = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
"""Types of the arrays that a query's summary and memory may hold: those that can be saved."""

NOTHING: Arrays = {}  # a default that nobody changes


class Selection(NamedTuple):
    """The chosen samples, largest score first, with their scores: int64 ``(budget,)`` and float64 ``(budget,)``.

    `scores` may be None, which is stored as 0 each. `memory` is given back to the same client's query at the next
    cycle, as ``pool.memory``.
    """

    samples: NDArray[np.int64]
    scores: Scores
    memory: Arrays = NOTHING


class Query(Protocol):
    """Chooses samples; see the module's text."""

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Return exactly ``min(budget, len(pool))`` distinct samples of the pool."""


class Summarises(Protocol):
    """A query in two phases: all clients send a summary to the server; then each chooses, knowing all of them."""

    def summary(self, pool: PoolView) -> Arrays:
        """Return what this client tells the server: counts and sums, never images, sample ids or a sample's label."""


def summarises(query: object) -> bool:
    """Tell whether a query has a first phase; ``summary = None`` means that it has none."""
    return callable(getattr(query, "summary", None))


@dataclass(frozen=True)
class ScoreQuery(ABC):
    """A query that takes the largest scores; it serves as the score of a composition too."""

    @abstractmethod
    def scores(self, pool: PoolView, rng: np.random.Generator) -> Scores:
        """Return a finite score of each sample of the pool, float64 ``(n,)``; the larger, the more it is wanted."""

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Choose the samples of the largest scores; ties are broken by a permutation drawn from `rng`."""
        return largest(pool.samples, self.scores(pool, rng), budget, rng)


def checked_selection(selection: object, pool: NDArray[np.int64], budget: int) -> Selection:
    """Return what `select` returned if it is ``min(budget, len(pool))`` different samples of the pool.

    Raises `NotAllowed` otherwise: another number of labels would be bought, and the query compared with others that
    got fewer.
    """
    if not isinstance(selection, Selection):
        raise NotAllowed(f"`select` returned {kind_of(selection)}; allowed: a Selection(samples, scores).")
    due, samples, scores = min(budget, len(pool)), selection.samples, selection.scores
    allowed = f"{due} different samples of the {len(pool)} in pool.samples: min(budget, len(pool))"
    if type(samples) is not np.ndarray or samples.dtype.kind not in "iu" or samples.ndim != 1:
        raise NotAllowed(
            f"`select` returned {kind_of(samples)} as samples; allowed: an array of whole numbers, {allowed}."
        )
    strange = samples[~np.isin(samples, pool)]
    found = None
    if len(samples) != due:
        found = f"{len(samples)} {'sample' if len(samples) == 1 else 'samples'}"
    elif len(np.unique(samples)) != len(samples):
        found = "a sample twice"
    elif len(strange):
        found = f"sample {strange[0]}, which is not in the pool"
    if found is not None:
        raise NotAllowed(f"`select` returned {found}; it must return {allowed}.")
    if scores is None:
        scores = np.zeros(due)
    check_scores(scores, due)
    memory = checked_arrays(selection.memory, "memory")
    return Selection(samples.astype(np.int64), scores.astype(np.float64), memory)


def checked_arrays(found: object, what: str) -> dict[str, NDArray[np.generic]]:
    """Return a query's summary or memory if it is arrays of numbers by name; NotAllowed with what it is otherwise."""
    allowed = "allowed: a dict from names to NumPy arrays of numbers or truth values."
    if not isinstance(found, Mapping):
        raise NotAllowed(f"the {what} is {kind_of(found)}; {allowed}")
    for name, array in found.items():
        if not isinstance(name, str) or not name:
            raise NotAllowed(f"the {what} has the name {name!r}; {allowed}")
        if type(array) is not np.ndarray or array.dtype.str[1:] not in STORED:
            raise NotAllowed(f"the {what} has {kind_of(array)} as {name!r}; {allowed}")
    return {name: np.array(array, dtype=array.dtype.newbyteorder("="), order="C") for name, array in found.items()}


def check_scores(scores: object, samples: int) -> None:
    """Raise NotAllowed unless `scores` is an array of finite numbers, one for each of so many samples."""
    if type(scores) is not np.ndarray or scores.dtype.kind not in "biuf" or scores.shape != (samples,):
        raise NotAllowed(f"the scores are {kind_of(scores)}; allowed: an array of numbers of shape ({samples},).")
    if strange := int((~np.isfinite(scores)).sum()):
        raise NotAllowed(f"{strange} of {samples} scores are not finite; allowed: finite ones.")


def by_score(scores: Scores, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return all positions, largest score first; ties are broken by a permutation drawn from `rng`.

    Raises `NotAllowed` if a score is not finite: sorted among the others it would decide silently.
    """
    check_scores(scores, len(scores))
    shuffled = rng.permutation(len(scores))
    return shuffled[np.argsort(-scores[shuffled], kind="stable")]


def largest(samples: NDArray[np.int64], scores: Scores, budget: int, rng: np.random.Generator) -> Selection:
    """Return the samples of the largest finite scores, ``(n,)`` each, ordered by `by_score`.

    >>> largest(np.array([3, 5, 9]), np.array([0.1, 0.7, 0.2]), 2, np.random.default_rng(0)).samples.tolist()
    [5, 9]
    """
    check_scores(scores, len(samples))
    order = by_score(scores, rng)[:budget]
    return Selection(samples[order], np.asarray(scores, dtype=np.float64)[order])


def chosen(
    samples: NDArray[np.int64], positions: NDArray[np.int64], scores: Scores, memory: Arrays = NOTHING
) -> Selection:
    """Return the samples at `positions`, largest score first; `scores` are those of all samples, ``(n,)``."""
    order = positions[np.argsort(-scores[positions], kind="stable")]
    return Selection(samples[order], scores[order], memory)


def filled(positions: NDArray[np.int64], order: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """Return `positions`, filled up to `budget` (or all there are) with the first of `order` that are not among them.

    >>> filled(np.array([4, 1]), np.array([1, 3, 0, 4, 2]), 4).tolist()
    [4, 1, 3, 0]
    """
    rest = order[~np.isin(order, positions)]
    return np.concatenate([positions, rest])[:budget].astype(np.int64)
