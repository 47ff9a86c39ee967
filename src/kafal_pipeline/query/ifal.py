"""IFAL: inconsistency between models, and within one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.options import Field
from kafal_pipeline.query.base import Scores, Selection, by_score, chosen, filled
from kafal_pipeline.query.k_means import k_means, nearest_to_centres
from kafal_pipeline.query.points import blocks, points_of
from kafal_pipeline.query.pool import PoolView, QueryModel

SMALLEST = 1e-6
"""Added to both distances of a ratio, so that it is 1 where neither model differs, and finite always."""


@dataclass(frozen=True)
class IFAL:
    r"""Samples on which data-driven predictions of the models differ, and the local one differs from its softmax.

    :math:`\pi` is the data-driven prediction of a model: every labelled sample votes its label for its `neighbours`
    nearest unlabelled samples (cosine of features), and a sample's votes are normalised; one without votes has equal
    shares. With g, l and the distilled model :math:`\tilde l` (trained from scratch on the labels, 0.1 CE + 0.9 T^2 KL
    to g, T = 4):

    .. math::
        D_1 = W(\pi_l, \pi_{\tilde l}), \; D_2 = W(\pi_g, \pi_{\tilde l}), \quad
        U_1 = \max(D_1 / D_2, D_2 / D_1) (D_1 + D_2), \quad U_2 = W(\pi_l, p_l), \quad U = U_1 U_2

    Candidates have U above Otsu's threshold; if they are fewer than b, those with U1 above its own; if these are fewer
    too, the b largest U are taken. Else k-means (b clusters) on normalised local features, and the nearest to each
    centre.

    The published W compares probabilities sorted by size, ``mean_c |sort(p)_c - sort(q)_c|``, hence is blind to which
    class is likely; ``total_variation`` is not. Where 0 is divided by 0, `SMALLEST` decides. The score is U.

    Parameters
    ----------
    distance
        ``sorted`` (published) or ``total_variation``, ``1/2 sum_c |p_c - q_c|``.
    neighbours
        Votes of each labelled sample.

    References
    ----------
    Zong, Jin and Huang, "Inconsistency-Based Federated Active Learning", IJCAI 2025.
    """

    distance: Literal["sorted", "total_variation"] = "sorted"
    neighbours: Annotated[int, Field(ge=1)] = 250

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Choose inconsistent samples that lie apart."""
        budget = min(budget, len(pool))
        between, both = (values.cpu().numpy() for values in self.inconsistencies(pool))
        candidates = np.flatnonzero(both > otsu(both))
        if len(candidates) < budget:
            candidates = np.flatnonzero(between > otsu(between))
        order = by_score(both, rng)
        taken = np.empty(0, dtype=np.int64)
        if len(candidates) >= budget:
            points = points_of(pool, "normalised", "local").take(candidates)
            taken = candidates[nearest_to_centres(*k_means(points, budget, rng))]
            order = np.concatenate([order[np.isin(order, candidates)], order])
        return chosen(pool.samples, filled(taken, order, budget), both)

    def inconsistencies(self, pool: PoolView) -> tuple[Tensor, Tensor]:
        """Return U1 and U of each sample, ``(n,)`` each."""
        pi_l, pi_g, pi_d = (votes(pool, model, self.neighbours) for model in ("local", "global", "distilled"))
        first, second = (self._between(pi, pi_d) for pi in (pi_l, pi_g))
        a, b = first + SMALLEST, second + SMALLEST
        between = torch.maximum(a / b, b / a) * (first + second)
        return between, between * self._between(pi_l, pool.probabilities("local"))

    def _between(self, p: Tensor, q: Tensor) -> Tensor:
        if self.distance == "total_variation":
            return 0.5 * (p - q).abs().sum(dim=1)
        return (p.sort(dim=1).values - q.sort(dim=1).values).abs().mean(dim=1)


def votes(pool: PoolView, model: QueryModel, neighbours: int) -> Tensor:
    """Return the data-driven prediction of each unlabelled sample, rows of sum 1, ``(n, C)``."""
    features = F.normalize(pool.features(model), dim=1)
    counts = torch.zeros((len(pool), pool.num_classes), dtype=torch.float64, device=features.device)
    nearest = min(neighbours, len(pool))
    known = F.normalize(pool.features(model, labelled=True), dim=1) if len(pool.labelled) else features[:0]
    for start, stop in blocks(len(known), len(features)):
        positions = (known[start:stop] @ features.T).topk(nearest, dim=1).indices
        labels = torch.as_tensor(pool.labels[start:stop], device=features.device).unsqueeze(1).expand_as(positions)
        flat = torch.bincount((positions * pool.num_classes + labels).flatten(), minlength=counts.numel())
        counts += flat.view_as(counts)
    total = counts.sum(dim=1, keepdim=True)
    return torch.where(total > 0, counts / total.clamp_min(1), 1 / pool.num_classes)


def otsu(values: Scores) -> float:
    """Return the threshold that divides values into two groups of the largest variance between them.

    Exact: every value is tried, where image software tries 256 bins. Of equal divisions the lowest; the largest value
    if all are equal, so that nothing lies above.

    Examples
    --------
    >>> otsu(np.array([0.0, 0.1, 5.0, 5.2, 5.1]))
    0.1
    """
    ordered: NDArray[np.float64] = np.sort(values)
    if ordered[0] == ordered[-1]:
        return float(ordered[-1])
    below = np.arange(1, len(ordered))
    sums = np.cumsum(ordered)
    difference = sums[:-1] / below - (sums[-1] - sums[:-1]) / (len(ordered) - below)
    between = below * (len(ordered) - below) * difference**2
    between[ordered[:-1] == ordered[1:]] = -1.0  # equal values stay together
    return float(ordered[int(between.argmax())])
