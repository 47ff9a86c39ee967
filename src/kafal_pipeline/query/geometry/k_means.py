"""k-means, the points nearest to its centres, and k-means++ alone."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kafal_pipeline.query.base import Scores
from kafal_pipeline.query.geometry.points import TILE, Points, blocks

ITERATIONS = 50  # at most so many; assignments of real features stand still long before


def k_means(
    points: Points, clusters: int, rng: np.random.Generator, weights: Scores | None = None
) -> tuple[NDArray[np.int64], Scores]:
    """Cluster n points by Lloyd's algorithm, begun by k-means++.

    Written for bits that do not depend on threads or devices' scheduling: scikit-learn's sums round by the number of
    threads. At most n `clusters`; some are empty if fewer points are distinct. `weights`: of the points in the means,
    ``(n,)``, at least 0; all 0 counts as all 1. Returns the cluster of each point, int64 ``(n,)``, and its squared
    distance to that cluster's mean.
    """
    if weights is not None and not np.any(weights):
        weights = None
    first, _ = k_means_pp(points, clusters, rng, first="random", weights=weights)
    centres = points.take(first).dense()
    weight = torch.ones_like(points.squared_norms)
    if weights is not None:
        weight = torch.as_tensor(np.asarray(weights), dtype=weight.dtype, device=weight.device)
    labels: Tensor | None = None
    for _ in range(ITERATIONS):
        assigned, squared, sums, masses = _assign(points, centres, weight)
        if labels is not None and torch.equal(assigned, labels):
            break
        labels = assigned
        # a cluster without mass keeps its place
        centres = torch.where(masses.unsqueeze(1) > 0, sums / masses.clamp_min(1e-300).unsqueeze(1), centres)
    return assigned.cpu().numpy(), squared.cpu().numpy()


def _assign(points: Points, centres: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return each point's nearest centre and squared distance, and the clusters' weighted sums and masses."""
    lengths = centres.square().sum(dim=1)
    labels = torch.empty(len(points), dtype=torch.int64, device=centres.device)
    squared = torch.empty(len(points), dtype=centres.dtype, device=centres.device)
    sums, masses = torch.zeros_like(centres), torch.zeros_like(lengths)
    for start, stop in blocks(len(points), len(centres) + centres.shape[1], TILE**2):
        rows = points.part(start, stop).dense()
        distances = torch.addmm(lengths, rows, centres.T, alpha=-2)
        nearest, labels[start:stop] = distances.min(dim=1)
        squared[start:stop] = (nearest + rows.square().sum(dim=1)).clamp_min(0)
        own, mass = labels[start:stop], weight[start:stop]
        if rows.device.type == "cpu":
            sums.index_add_(0, own, rows * mass.unsqueeze(1))
            masses.index_add_(0, own, mass)
        else:  # additions scattered over a GPU have no fixed order; products and sums have
            shares = torch.zeros_like(distances).scatter_(1, own.unsqueeze(1), mass.unsqueeze(1))
            sums += shares.T @ rows
            masses += shares.sum(dim=0)
    return labels, squared, sums, masses


def nearest_to_centres(labels: NDArray[np.int64], squared_distances: Scores) -> NDArray[np.int64]:
    """Return for every cluster that is not empty the position of the point nearest to its mean, clusters in order.

    >>> nearest_to_centres(np.array([2, 0, 2, 2]), np.array([0.3, 0.0, 0.1, 0.2])).tolist()
    [1, 2]
    """
    order = np.lexsort((squared_distances, labels))
    _, first = np.unique(labels[order], return_index=True)
    return order[first]


def k_means_pp(
    points: Points,
    count: int,
    rng: np.random.Generator,
    *,
    first: Literal["longest", "random"],
    weights: Scores | None = None,
) -> tuple[NDArray[np.int64], Scores]:
    """Draw `count <= n` distinct points by D^2 sampling.

    `first`: the longest (ties by `rng`), or one drawn at random. `weights`: multiply the chances, ``(n,)``, at least 0.
    Returns positions and distances in order of drawing, ``(count,)`` each; a distance is that to the nearest drawn
    before, for the first its length. Once no point left has a chance (all coincide with drawn ones), the rest is drawn
    uniformly.
    """
    order = rng.permutation(len(points))
    points = points.take(order)
    factor = np.ones(len(order)) if weights is None else np.asarray(weights, dtype=np.float64)[order]
    lengths = points.squared_norms.cpu().numpy()
    left = np.ones(len(order), dtype=bool)
    nearest = points.squared_norms
    chosen: list[int] = []
    distances: list[float] = []
    for _ in range(count):
        chances = np.where(left, (nearest.cpu().numpy() if chosen else np.ones(len(order))) * factor, 0.0)
        if not chosen and first == "longest":
            position = int(lengths.argmax())
        elif chances.sum() > 0:
            cumulative = np.cumsum(chances)
            position = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
            position = min(position, int(chances.nonzero()[0][-1]))  # rounding may point past the last
        else:
            position = int(rng.choice(left.nonzero()[0]))
        distances.append(float(np.sqrt(nearest[position].item())))
        to_new = points.squared_distances(points.take(np.array([position])))[:, 0]
        nearest = torch.minimum(nearest, to_new) if chosen else to_new
        chosen.append(position)
        left[position] = False
    return order[np.array(chosen, dtype=np.int64)], np.array(distances)
