"""Greedy herding: takes again and again the point that adds most to the coverage of all points."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kafal_pipeline.query.base import Scores
from kafal_pipeline.query.geometry.points import TILE, Points

SAMPLE = 10_000  # points at most that are candidates and covered: the greedy choice takes n^2 kernels
FIRST, LARGEST = 16, 512  # candidates whose gain is computed again at once: the first time, and at most
DECIMALS = 12  # of gains in [0, 1] that count
PAIRED = 1000  # points whose distances tell their median


def herding(
    points: Points,
    seeds: Points | None,
    count: int,
    rng: np.random.Generator,
    *,
    sigma: float,
    weights: Scores | None = None,
    sample: int = SAMPLE,
) -> tuple[NDArray[np.int64], Scores]:
    """Choose `count <= n` distinct points, each with the largest gain in coverage over seeds and those before it.

    With ``K(n, x) = exp(-|n - x|^2 / sigma^2)`` and ``m_n`` the largest kernel between n and a seed or a chosen point
    (0 without any), the gain of x is the mean over n of ``weights_n max(K(n, x) - m_n, 0)``. A copy of a seed or of a
    chosen point has none. Ties are random. `weights`: at least 0, ``(n,)``; None, or all 0: all 1. Where there are more
    than `sample` points, a random subset of so many (at least `count`) stands for all, as candidates and in the mean.

    Gains only shrink. So an old gain is a bound, and only candidates whose bound exceeds the best gain are computed
    again, in blocks (a lazy greedy choice): memory is O(n). Returns positions and gains in order of choice,
    ``(count,)`` each.
    """
    order = rng.permutation(len(points))[: max(sample, count)]
    points = points.take(order)
    share, largest = torch.full_like(points.squared_norms, 1 / len(points)), 1.0
    if weights is not None and np.any(weights):
        largest = float(np.max(weights))
        share *= torch.as_tensor(np.asarray(weights, dtype=np.float64)[order] / largest, device=share.device)
    covered = torch.zeros_like(share)
    if seeds is not None and len(seeds):
        covered = _kernel(points.nearest(seeds), sigma)
    coverage = Coverage(points, share, sigma)
    gains = coverage.gains(np.arange(len(points)), covered)
    chosen, values = [], []
    for _ in range(count):
        fresh, size = torch.zeros_like(gains, dtype=torch.bool), FIRST
        # argmax takes the first of equals, and the order is a random permutation
        while not fresh[best := int(gains.argmax())]:
            stale = gains.masked_fill(fresh, -torch.inf).topk(min(size, len(gains))).indices
            new = coverage.gains(stale.cpu().numpy(), covered)
            gains[stale] = torch.minimum(gains[stale], new)  # a gain that grows has been rounded
            fresh[stale] = True
            size = min(2 * size, LARGEST)
        chosen.append(best)
        values.append(float(gains[best]))
        gains[best] = -1.0
        to_new = points.squared_distances(points.take(np.array([best])))[:, 0]
        covered = torch.maximum(covered, _kernel(to_new, sigma))
    return order[np.array(chosen, dtype=np.int64)], largest * np.array(values)


class Coverage:
    """Sums over all points of kernels, each weighing its `share`."""

    def __init__(self, points: Points, share: Tensor, sigma: float) -> None:
        self.points, self.sigma = points, sigma
        starts = range(0, len(points), TILE)
        # made once: each part keeps its points' lengths
        self.parts = [(slice(start, start + TILE), points.part(start, start + TILE)) for start in starts]
        self.shares = [share[rows] for rows, _ in self.parts]

    def gains(self, candidates: NDArray[np.int64], covered: Tensor) -> Tensor:
        """Return how much each candidate, a position, adds to what is `covered`, ``(candidates,)``."""
        gains = torch.zeros(len(candidates), dtype=covered.dtype, device=covered.device)
        for start in range(0, len(candidates), TILE):
            own = self.points.take(candidates[start : start + TILE])
            for (rows, part), share in zip(self.parts, self.shares, strict=True):
                added = _kernel(part.squared_distances(own), self.sigma)
                gains[start : start + TILE] += share @ added.sub_(covered[rows].unsqueeze(1)).clamp_min_(0)
        # two points alone in a region gain exactly the same: let the order decide, not rounding
        gains = gains.round(decimals=DECIMALS)
        copies = covered[torch.as_tensor(candidates, device=covered.device)] >= 1
        return gains.masked_fill_(copies, 0.0)


def _kernel(squared_distances: Tensor, sigma: float) -> Tensor:
    return squared_distances.mul_(-1 / sigma**2).exp_()


def median_distance(points: Points, rng: np.random.Generator) -> float:
    """Return the median distance between points that differ, of up to 1000 random points; 1 if all are the same."""
    some = points.take(rng.permutation(len(points))[:PAIRED])
    squared = some.squared_distances(some)
    apart = squared[squared > 0]
    return float(apart.median().sqrt()) if len(apart) else 1.0


def spacing(points: Points) -> float:
    """Return the median distance of a point to the nearest that differs from it; 1 if there are no two such points."""
    nearest = torch.full_like(points.squared_norms, torch.inf)
    for rows, block in points.tiles(points):
        nearest[rows] = torch.minimum(nearest[rows], block.masked_fill(block == 0, torch.inf).min(dim=1).values)
    nearest = nearest[nearest.isfinite()]
    return float(nearest.sqrt().quantile(0.5)) if len(nearest) else 1.0
