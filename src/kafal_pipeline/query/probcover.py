"""ProbCover: chooses samples so that balls around them cover as many others as possible. For low budgets."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kafal_pipeline.query.base import Selection
from kafal_pipeline.query.geometry.k_means import k_means
from kafal_pipeline.query.geometry.points import Points, points_of
from kafal_pipeline.query.pool import PoolView, QueryModel

SAMPLED = 1000  # samples whose balls tell the radius


@dataclass(frozen=True)
class ProbCover:
    """Greedily the sample whose ball of radius `delta` covers the most samples that nothing chosen or labelled covers.

    Distances are those of normalised features. Where `delta` is None, it is the largest radius for which at least
    `purity` of all balls hold samples of one k-means cluster alone, with as many clusters as classes: a ball is pure
    below its centre's distance to the nearest sample of another cluster, so that the radius is a quantile of these
    distances, here of up to 1000 samples. The published code tries a grid of radii on features learnt beforehand from
    all images; here they are the model's own. It also keeps the graph of all balls; here counts are kept instead and
    each covered sample's ball is taken off them once, so that memory is O(n) and the work O(n^2 d) at most. When all
    are covered, the rest is random, as ties are. The score is the number of samples newly covered, itself included.

    Source: Yehuda et al., "Active Learning Through a Covering Lens", NeurIPS 2022.
    """

    model: QueryModel = "global"
    delta: Annotated[float, Field(gt=0, le=2)] | None = None
    purity: Annotated[float, Field(gt=0, lt=1)] = 0.95

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        order = rng.permutation(len(pool))
        points = points_of(pool, "normalised", self.model).take(order)
        delta = self._radius(points, pool.num_classes, rng) if self.delta is None else self.delta
        open_ = torch.ones_like(points.squared_norms, dtype=torch.bool)
        if len(pool.labelled):
            open_ = points.nearest(points_of(pool, "normalised", self.model, labelled=True)) > delta**2
        everything = torch.arange(len(points), device=open_.device)
        covers = _covering(points, everything[open_], delta)
        chosen, scores = [], []
        for _ in range(min(budget, len(pool))):
            position = int(covers.argmax())  # the first of equals, in random order
            chosen.append(position)
            scores.append(float(covers[position]))
            ball = points.squared_distances(points.take(np.array([position])))[:, 0] <= delta**2
            covers = covers - _covering(points, everything[ball & open_], delta)
            open_ &= ~ball
            covers[chosen] = -1
        return Selection(pool.samples[order[np.array(chosen, dtype=np.int64)]], np.array(scores))

    def _radius(self, points: Points, classes: int, rng: np.random.Generator) -> float:
        """Return the largest radius at which the share `purity` of balls is pure."""
        labels, _ = k_means(points, min(classes, len(points)), rng)
        sampled = np.arange(min(SAMPLED, len(points)))  # the points are in random order already
        nearest_other = np.full(len(sampled), np.inf)
        for cluster in np.unique(labels):
            own = sampled[labels[sampled] == cluster]
            others = points.take(np.flatnonzero(labels != cluster))
            nearest_other[own] = points.take(own).nearest(others).sqrt().cpu().numpy()
        impure = min(int((1 - self.purity) * len(sampled) + 1e-9), len(sampled) - 1)  # so many balls may be
        limit = float(np.sort(nearest_other)[impure])
        return limit * (1 - 1e-9) if np.isfinite(limit) else 1.0  # a single cluster: all samples are the same


def _covering(points: Points, positions: Tensor, delta: float) -> Tensor:
    """Return for each point how many of the points at `positions` lie in its ball, int64 ``(n,)``."""
    counts = torch.zeros(len(points), dtype=torch.int64, device=positions.device)
    for rows, block in points.tiles(points.take(positions.cpu().numpy())):
        counts[rows] += (block <= delta**2).sum(dim=1)
    return counts
