"""Leverage: samples in directions of the feature space that no client has labels of."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kafal_pipeline.query.base import Selection
from kafal_pipeline.query.geometry.points import points_of
from kafal_pipeline.query.pool import Arrays, PoolView, QueryModel

ROWS = 4096  # samples of a block


@dataclass(frozen=True)
class Leverage:
    r"""Greedily the largest ridge leverage, given the labelled samples of all clients.

    .. math::
        x^* = \arg\max_x f_x^T A^{-1} f_x, \quad A = \sum_k G_k + \lambda I, \quad G_k = F_k^T F_k

    with :math:`F_k` the normalised features of client k's labelled samples; then :math:`A \leftarrow A + f f^T`, by the
    Sherman-Morrison formula. Up to a factor, it is the variance of a ridge regression's prediction at x: each choice
    lowers it where it is largest (greedy D-optimal design), and no client spends labels on what others have covered.

    The server learns :math:`G_k`, a matrix of d x d. A client with fewer than `least` labelled samples sends zeros, and
    counts its own samples for itself alone. `penalty`: lambda. The score is the leverage.

    This project's own federation of a classical criterion: Alaoui and Mahoney, "Fast Randomized Kernel Ridge Regression
    with Statistical Guarantees", NeurIPS 2015 (ridge leverage); Fedorov, "Theory of Optimal Experiments", 1972.
    """

    model: QueryModel = "global"
    penalty: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    least: Annotated[int, Field(ge=2)] = 10

    def summary(self, pool: PoolView) -> Arrays:
        gram = self._gram(pool)
        return {"gram": (gram if len(pool.labelled) >= self.least else torch.zeros_like(gram)).cpu().numpy()}

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        order = rng.permutation(len(pool))
        rows = points_of(pool, "normalised", self.model).take(order).dense()
        matrix = self._gram(pool)
        for client, summary in pool.summaries.items():
            if client != pool.client:
                matrix += torch.as_tensor(np.asarray(summary["gram"]), device=matrix.device)
        matrix.diagonal().add_(self.penalty)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        leverages = torch.cat([((part @ inverse) * part).sum(dim=1) for part in rows.split(ROWS)])
        positions, scores = [], []
        for _ in range(min(budget, len(pool))):
            best = int(leverages.argmax())  # the first of equals, in random order
            positions.append(best)
            scores.append(float(leverages[best]))
            direction = inverse @ rows[best]
            gain = 1 + rows[best] @ direction
            inverse -= torch.outer(direction, direction) / gain
            leverages -= (rows @ direction).square_() / gain
            leverages[positions] = -torch.inf
        # a leverage only shrinks, apart from rounding
        return Selection(pool.samples[order[np.array(positions, dtype=np.int64)]], np.minimum.accumulate(scores))

    def _gram(self, pool: PoolView) -> Tensor:
        """Return the sum of outer products of the labelled samples' features, ``(d, d)``."""
        if not len(pool.labelled):
            weight = pool.head(self.model).weight
            return torch.zeros((weight.shape[1],) * 2, dtype=weight.dtype, device=weight.device)
        rows = points_of(pool, "normalised", self.model, labelled=True).dense()
        return rows.T @ rows
