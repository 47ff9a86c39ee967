"""Uncertainty sampling by predictive entropy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kafal_pipeline.query.base import PoolView, QueryModel, Selection, largest


@dataclass(frozen=True)
class Entropy:
    """Largest entropy ``-sum_y p_y log p_y`` of the softmax, in nats.

    Parameters
    ----------
    model
        The model that predicts.

    References
    ----------
    Settles, "Active Learning Literature Survey", 2009, section 3.1.
    """

    model: QueryModel = "global"

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Choose the `budget` samples whose prediction is the least certain."""
        log_p = pool.logits(self.model).double().log_softmax(dim=1)
        scores = -(log_p.exp() * log_p).sum(dim=1)
        return largest(pool.samples, scores.cpu().numpy(), budget, rng)
