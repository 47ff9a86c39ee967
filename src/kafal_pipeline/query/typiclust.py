"""TypiClust: typical samples of clusters that have no label yet. For low budgets."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from kafal_pipeline.query.base import Scores, Selection, by_score, chosen, filled
from kafal_pipeline.query.geometry.k_means import k_means
from kafal_pipeline.query.geometry.points import Points, blocks, points_of
from kafal_pipeline.query.pool import PoolView, QueryModel


@dataclass(frozen=True)
class TypiClust:
    """The most typical sample of each cluster, clusters with the fewest labels and the largest first.

    Labelled and unlabelled samples together are clustered by k-means on normalised features into ``m + b`` clusters, at
    most `clusters`. Clusters of fewer than `smallest` samples are left out (unless all are that small). The clusters,
    in the order fewest labels, then most samples, are gone through in turns; each gives its most typical unlabelled
    sample that is left. (The public code also leaves out clusters of exactly `smallest` samples.)

        typicality(x) = 1 / (1e-5 + mean distance to its min(neighbours, half the cluster) nearest of the cluster)

    The published method learns features from all images beforehand, without labels; here they are the model's own. It
    computes typicality again after every sample taken from a cluster, among those left of it; here once, among the
    cluster's unlabelled ones: the same first choice without quadratic work for each one. The score is the typicality.

    Source: Hacohen, Dekel and Weinshall, "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets",
    ICML 2022.
    """

    model: QueryModel = "global"
    neighbours: Annotated[int, Field(ge=1)] = 20
    clusters: Annotated[int, Field(ge=1)] = 500
    smallest: Annotated[int, Field(ge=1)] = 5

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        n, budget = len(pool), min(budget, len(pool))
        points = points_of(pool, "normalised", self.model)
        together = points
        if len(pool.labelled):
            known = points_of(pool, "normalised", self.model, labelled=True)
            together = Points((torch.cat([points.factors[0], known.factors[0]]),))
        labels, _ = k_means(together, min(len(pool.labelled) + budget, self.clusters, len(together)), rng)
        scores = np.zeros(n)
        for cluster in np.unique(labels[:n]):
            members = np.flatnonzero(labels[:n] == cluster)
            scores[members] = typicality(points.take(members), self.neighbours)
        order = by_score(scores, rng)
        return chosen(pool.samples, filled(self._in_turns(labels, order, budget), order, budget), scores)

    def _in_turns(self, labels: NDArray[np.int64], order: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
        """Return up to `budget` positions; ``labels[:n]`` are of unlabelled samples, `order` is by typicality."""
        n, sizes = len(order), np.bincount(labels)
        known = np.bincount(labels[n:], minlength=len(sizes))
        large = np.flatnonzero(sizes >= self.smallest)
        if not len(large):
            large = np.flatnonzero(sizes)
        queues = [order[labels[order] == cluster] for cluster in large[np.lexsort((-sizes[large], known[large]))]]
        turns = [queue[turn] for turn in range(budget) for queue in queues if turn < len(queue)]
        return np.array(turns[:budget], dtype=np.int64)


def typicality(points: Points, neighbours: int) -> Scores:
    """Return the reciprocal of 1e-5 + the mean distance to the nearest others, ``(n,)``; of a point alone, of 1e-5."""
    nearest = min(neighbours, len(points) // 2)
    if nearest == 0:
        return np.full(len(points), 1e5)
    means = []
    for start, stop in blocks(len(points), len(points)):
        squared = points.take(np.arange(start, stop)).squared_distances(points)
        squared[torch.arange(stop - start), torch.arange(start, stop)] = torch.inf
        means.append(squared.topk(nearest, dim=1, largest=False).values.sqrt().mean(dim=1))
    return (1 / (1e-5 + torch.cat(means))).cpu().numpy()
