"""Points in feature or gradient space, with distances that never need a matrix of all pairs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.query.pool import PoolView, QueryModel

Space = Literal["features", "normalised", "gradients"]
"""Penultimate features ``h``; the same divided by their length; gradient embeddings ``(p - e_yhat) (x) h``."""

CHUNK = 2**22  # numbers in a block of distances (32 MB): what bounds the memory of every query
TILE = 512  # rows and columns of a tile of distances (2 MB)
ROUNDING = 1e-12  # a squared distance below this share of the points' summed squared lengths counts as 0


@dataclass(frozen=True)
class Points:
    """`n` points, each the outer product of one row of every factor, float64 ``(n, d_f)`` (of one: the row itself).

    Inner products multiply, ``<a_i (x) b_i, a_j (x) b_j> = <a_i, a_j> <b_i, b_j>``, so that gradient embeddings of C
    classes and d features take memory O(n (C + d)) instead of O(n C d).
    """

    factors: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.factors[0])

    @cached_property
    def squared_norms(self) -> Tensor:
        """Squared lengths, ``(n,)``."""
        return torch.stack([factor.square().sum(dim=1) for factor in self.factors]).prod(dim=0)

    def take(self, positions: NDArray[np.int64]) -> Self:
        index = torch.as_tensor(positions, dtype=torch.int64, device=self.factors[0].device)
        return type(self)(tuple(factor[index] for factor in self.factors))

    def dense(self) -> Tensor:
        """Return the points as vectors, ``(n, product of d_f)``."""
        rows = self.factors[0]
        for factor in self.factors[1:]:
            rows = (rows.unsqueeze(2) * factor.unsqueeze(1)).flatten(1)
        return rows

    def squared_distances(self, others: Self) -> Tensor:
        """Return squared distances to `others`, ``(n, len(others))``; differences that are rounding are exactly 0."""
        first, *rest = (a @ b.T for a, b in zip(self.factors, others.factors, strict=True))
        for product in rest:
            first *= product
        lengths = self.squared_norms.unsqueeze(1)
        squared = first.mul_(-2).add_(lengths).add_(others.squared_norms)
        return squared.masked_fill_(squared <= 2 * ROUNDING * lengths, 0.0)

    def nearest(self, others: Self) -> Tensor:
        """Return the squared distance of each point to the nearest of `others`, ``(n,)``; infinite if there is none."""
        nearest = torch.full_like(self.squared_norms, torch.inf)
        for rows, block in self.tiles(others):
            nearest[rows] = torch.minimum(nearest[rows], block.min(dim=1).values)
        return nearest

    def tiles(self, others: Self) -> Iterator[tuple[slice, Tensor]]:
        """Yield squared distances to `others` in tiles of at most TILE x TILE, with the rows that each is of."""
        parts = [others.part(start, start + TILE) for start in range(0, len(others), TILE)]
        for start in range(0, len(self), TILE):
            own = self.part(start, start + TILE)
            for part in parts:
                yield slice(start, start + len(own)), own.squared_distances(part)

    def part(self, start: int, stop: int) -> Self:
        """Return the points from `start` to `stop`, without a copy."""
        return type(self)(tuple(factor[start:stop] for factor in self.factors))


def blocks(rows: int, columns: int, chunk: int = CHUNK) -> list[tuple[int, int]]:
    """Return the ranges that cut `rows` so that a block of ``rows x columns`` stays within `chunk` numbers."""
    step = max(1, chunk // max(1, columns))
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def points_of(pool: PoolView, space: Space, model: QueryModel, *, labelled: bool = False) -> Points:
    """Return the pool's unlabelled (or labelled) samples as points of a space, as `model` sees them.

    Gradient embeddings are those of BADGE, with the predicted class for the label that is not known; labelled samples
    are embedded the same way, so that equal images lie at one place.
    """
    features = pool.features(model, labelled=labelled)
    if space == "features":
        return Points((features,))
    if space == "normalised":
        return Points((F.normalize(features, dim=1),))
    logits = pool.logits(model, labelled=labelled)
    p = logits.softmax(dim=1)
    return Points((p - F.one_hot(logits.argmax(dim=1), p.shape[1]), features))
