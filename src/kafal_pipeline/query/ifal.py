"""IFAL: inconsistency between models, and within one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.query.base import Scores, Selection, by_score, chosen, filled
from kafal_pipeline.query.geometry.k_means import k_means, nearest_to_centres
from kafal_pipeline.query.geometry.points import blocks, points_of
from kafal_pipeline.query.pool import PoolView, QueryModel

SMALLEST = 1e-5  # added to both distances of a ratio, so that it is 1 where neither model differs, and finite always
GROUP = 16  # columns of which only the largest is looked at first


@dataclass(frozen=True)
class IFAL:
    r"""Samples on which data-driven predictions of the models differ, and the local one differs from its softmax.

    :math:`\pi` is the data-driven prediction of a model: every sample of the client votes its class for its
    `neighbours` nearest unlabelled samples (cosine of features, itself left out). A labelled sample votes its label, an
    unlabelled one the class that the global model predicts; for :math:`\pi'_l`, on the local model's features too, the
    one that the local model predicts. A sample's votes, one more for every class, are normalised. With g, l and the
    distilled model :math:`\tilde l` (begins as local_only, trained on the labels, 0.1 CE + 0.9 T^2 KL to g, T = 4):

    .. math::
        D_1 = W(\pi_l, \pi_{\tilde l}), \; D_2 = W(\pi_g, \pi_{\tilde l}), \quad
        U_1 = \max(D_1 / D_2, D_2 / D_1) (D_1 + D_2), \quad U_2 = W(\pi'_l, p_l), \quad U = U_1 U_2

    Candidates have U above Otsu's threshold; if they are fewer than b, those with U1 above its own; if these are fewer
    too, the b largest U are taken. Else k-means (b clusters) on normalised local features, and the nearest to each
    centre.

    The published W, `distance` ``sorted``, compares probabilities sorted by size, ``mean_c |sort(p)_c - sort(q)_c|``,
    hence is blind to which class is likely; ``total_variation``, ``1/2 sum_c |p_c - q_c|``, is not. Where 0 is divided
    by 0, `SMALLEST` decides. Who votes, and with which class, is as in the public code. The score is U.

    Source: Zong, Jin and Huang, "Inconsistency-Based Federated Active Learning", IJCAI 2025, and its public code.
    """

    distance: Literal["sorted", "total_variation"] = "sorted"
    neighbours: Annotated[int, Field(ge=1)] = 250

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
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
        pi_l, own_l = votes(pool, "local", self.neighbours, ("global", "local"))
        pi_g, pi_d = (votes(pool, model, self.neighbours, ("global",))[0] for model in ("global", "distilled"))
        first, second = (self._between(pi, pi_d) for pi in (pi_l, pi_g))
        a, b = first + SMALLEST, second + SMALLEST
        between = torch.maximum(a / b, b / a) * (first + second)
        return between, between * self._between(own_l, pool.probabilities("local"))

    def _between(self, p: Tensor, q: Tensor) -> Tensor:
        if self.distance == "total_variation":
            return 0.5 * (p - q).abs().sum(dim=1)
        return (p.sort(dim=1).values - q.sort(dim=1).values).abs().mean(dim=1)


def votes(pool: PoolView, model: QueryModel, neighbours: int, namers: Sequence[QueryModel]) -> list[Tensor]:
    """Return data-driven predictions of the unlabelled samples, rows of sum 1, ``(n, C)``, one for each of `namers`.

    The features of `model` say who is near; `namers` name the classes that unlabelled samples vote.
    """
    # float32, since products with 40,000 samples are half of the time, and who is near needs no more
    own, known = (_directions(pool, model, labelled=labelled) for labelled in (False, True))
    voters = torch.cat([known, own])
    labels = torch.as_tensor(pool.labels, device=own.device)
    named = [torch.cat([labels, pool.logits(namer).argmax(dim=1)]) for namer in namers]
    counts = [torch.ones(len(own) * pool.num_classes, dtype=torch.int64, device=own.device) for _ in namers]
    for start, stop in blocks(len(voters), len(own)):
        cosines = voters[start:stop] @ own.T
        first = max(start, min(stop, len(known)))
        rows = torch.arange(first - start, stop - start, device=own.device)
        cosines[rows, rows + start - len(known)] = -torch.inf  # nobody votes for itself
        values, positions = largest_of_rows(cosines, min(neighbours, len(own)))
        for classes, count in zip(named, counts, strict=True):
            places = positions * pool.num_classes + classes[start:stop].unsqueeze(1)
            count.add_(torch.bincount(places[values.isfinite()], minlength=len(count)))
    tables = [count.view(len(own), pool.num_classes).double() for count in counts]
    return [table / table.sum(dim=1, keepdim=True) for table in tables]


def _directions(pool: PoolView, model: QueryModel, *, labelled: bool) -> Tensor:
    """Return features of length 1, float32 ``(n, d)``."""
    if labelled and not len(pool.labelled):
        return _directions(pool, model, labelled=False)[:0]
    return F.normalize(pool.features(model, labelled=labelled), dim=1).float()


def largest_of_rows(table: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest values of each row and their columns, in any order: several times ``topk``'s speed.

    They are in those `count` groups of columns whose maxima are the largest.
    """
    columns = table.shape[1] // GROUP
    rest = table[:, columns * GROUP :]
    if columns < 2 * count:
        places = _largest(table, count)
        return table.gather(1, places), places
    grouped = table[:, : columns * GROUP].unflatten(1, (GROUP, columns))
    best = _largest(grouped.amax(dim=1), count).unsqueeze(1).expand(-1, GROUP, -1)
    members = best + columns * torch.arange(GROUP, device=table.device).view(1, -1, 1)
    ends = torch.arange(columns * GROUP, table.shape[1], device=table.device).expand(len(table), -1)
    values = torch.cat([grouped.gather(2, best).flatten(1), rest], dim=1)
    places = _largest(values, count)
    return values.gather(1, places), torch.cat([members.flatten(1), ends], dim=1).gather(1, places)


def _largest(table: Tensor, count: int) -> Tensor:
    """Return the columns of the `count` largest values of each row."""
    if table.device.type == "cpu":  # numpy finds the smallest of them faster than torch all of them
        least = torch.from_numpy(np.partition(table.numpy(), -count, axis=1)[:, -count, None])
        columns = (table >= least).nonzero()[:, 1]
        if len(columns) == len(table) * count:  # no row has more that are equal to its smallest
            return columns.view(-1, count)
    return table.topk(count, dim=1, sorted=False).indices


def otsu(values: Scores) -> float:
    """Return the threshold that divides values into two groups of the largest variance between them.

    Exact: every value is tried, where image software tries 256 bins. Of equal divisions the lowest; the largest value
    if all are equal, so that nothing lies above.

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
