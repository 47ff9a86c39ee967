"""Uncertainty scores of one prediction, by whichever model or ensemble."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kafal_pipeline.query.base import ScoreQuery, Scores
from kafal_pipeline.query.pool import PoolView, Predictor

RANK_OFFSET = 20  # added to a rank before its reciprocal is taken: the first places do not decide alone


def reciprocal_ranks(scores: Scores) -> Scores:
    """Return 1 / (20 + rank), where the largest score has rank 1 and equal scores share the mean of their ranks.

    >>> (1 / reciprocal_ranks(np.array([0.3, 0.9, 0.3, 0.1]))).round(6).tolist()
    [22.5, 21.0, 22.5, 24.0]
    """
    _, inverse, counts = np.unique(-np.asarray(scores), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return 1.0 / (RANK_OFFSET + (last - (counts - 1) / 2)[inverse])


@dataclass(frozen=True)
class Uncertainty(ScoreQuery):
    """A score of the prediction by `model`; with ``ensemble_rank`` the sum of both models' `reciprocal_ranks`."""

    model: Predictor = "global"

    @staticmethod
    @abstractmethod
    def of(log_p: Tensor) -> Tensor:
        """Return the score of each prediction, ``(n,)``, from log-probabilities ``(n, C)``."""

    def scores(self, pool: PoolView, rng: np.random.Generator) -> Scores:
        if self.model == "ensemble_rank":
            local, global_ = (self.of(pool.log_probabilities(kind)).cpu().numpy() for kind in ("local", "global"))
            return reciprocal_ranks(local) + reciprocal_ranks(global_)
        return self.of(pool.log_probabilities(self.model)).cpu().numpy()
