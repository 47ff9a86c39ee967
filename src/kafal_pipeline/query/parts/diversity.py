"""Diversity: chooses which of the best candidates of a group are taken together."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.query.base import Scores, filled
from kafal_pipeline.query.geometry.herding import herding, median_distance
from kafal_pipeline.query.geometry.k_centre import k_centre
from kafal_pipeline.query.geometry.k_means import k_means, k_means_pp, nearest_to_centres
from kafal_pipeline.query.geometry.points import Points, Space, points_of
from kafal_pipeline.query.pool import PoolView, QueryModel


class Candidates(NamedTuple):
    """What a diversity step chooses among.

    `positions` are places in the pool, best first, at least `number`; `scores` those of the whole pool, ``(n,)``;
    `group` is the class that the candidates are taken for, None if the pool is not grouped by class.
    """

    pool: PoolView
    positions: NDArray[np.int64]
    scores: Scores
    number: int
    group: int | None


class Diversity(Protocol):
    """Takes some of a group's candidates."""

    def choose(self, among: Candidates, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return `number` distinct ones of the candidates' positions."""


@dataclass(frozen=True)
class Best:
    """No diversity: the best candidates."""

    def choose(self, among: Candidates, rng: np.random.Generator) -> NDArray[np.int64]:
        return among.positions[: among.number]


@dataclass(frozen=True)
class InSpace:
    """A choice by the candidates' places in a space, as `model` sees them."""

    space: Space = "features"
    model: QueryModel = "global"

    def points(self, among: Candidates) -> Points:
        return points_of(among.pool, self.space, self.model).take(among.positions)

    def seeds(self, among: Candidates) -> Points | None:
        """Return the client's labelled samples, of the group's class if any; None if there are none."""
        labels = among.pool.labels
        known = np.arange(len(labels)) if among.group is None else np.flatnonzero(labels == among.group)
        return points_of(among.pool, self.space, self.model, labelled=True).take(known) if len(known) else None


@dataclass(frozen=True)
class KMeans(InSpace):
    """The candidate nearest to the mean of each of as many clusters; empty clusters are made up for by the best left.

    `weighted`: whether the scores weigh the candidates in the means.
    """

    weighted: bool = False

    def choose(self, among: Candidates, rng: np.random.Generator) -> NDArray[np.int64]:
        candidates, count = among.positions, among.number
        points = self.points(among)
        weights = among.scores[candidates].clip(min=0) if self.weighted else None
        taken = candidates[nearest_to_centres(*k_means(points, count, rng, weights))]
        return filled(taken, candidates, count)


@dataclass(frozen=True)
class KCentre(InSpace):
    """Greedy k-centre among the candidates, seeded with the client's labelled samples, of the group's class if any."""

    def choose(self, among: Candidates, rng: np.random.Generator) -> NDArray[np.int64]:
        candidates, points, seeds = among.positions, self.points(among), self.seeds(among)
        if seeds is not None:
            return candidates[k_centre(points, seeds, among.number, rng)[0]]
        # nothing to be far from: the best candidate is a better beginning than a random one
        first, others = points.take(np.zeros(1, dtype=np.int64)), points.take(np.arange(1, len(points)))
        rest, _ = k_centre(others, first, among.number - 1, rng)
        return np.concatenate([candidates[:1], candidates[1:][rest]])


@dataclass(frozen=True)
class KMeansPP(InSpace):
    """D^2 sampling among the candidates, begun at the one with the longest embedding."""

    def choose(self, among: Candidates, rng: np.random.Generator) -> NDArray[np.int64]:
        return among.positions[k_means_pp(self.points(among), among.number, rng, first="longest")[0]]


@dataclass(frozen=True)
class Herding(InSpace):
    """Greedily the candidate that adds most to the coverage of all candidates, weighted by their scores.

    Begun with the client's labelled samples, of the group's class if any. The kernel is as wide as the median distance
    between candidates. Negative scores count as 0; without a positive one all count the same.
    """

    def choose(self, among: Candidates, rng: np.random.Generator) -> NDArray[np.int64]:
        points, weights = self.points(among), among.scores[among.positions].clip(min=0)
        sigma = median_distance(points, rng)
        taken, _ = herding(points, self.seeds(among), among.number, rng, sigma=sigma, weights=weights)
        return among.positions[taken]
