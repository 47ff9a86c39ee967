"""CHASe: samples whose prediction wavers while the client trains."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from kafal_pipeline.query.base import ScoreQuery, Scores
from kafal_pipeline.query.pool import PoolView


@dataclass(frozen=True)
class CHASe(ScoreQuery):
    """Largest number of changes of the predicted class between consecutive local epochs of the last cycle.

    After every local epoch, across the rounds of the cycle, the model in training predicts in evaluation mode a random
    subset of at most `watched_samples` of the client's unlabelled samples. The others score -1: they come last, in
    random order. The subset is drawn again every cycle, in place of the published freezing and awakening of samples
    between queries. The published alignment loss is the update `kafal_pipeline.update.chase`.

    Source: Zhang et al., "CHASe: Client Heterogeneity-Aware Data Selection for Effective Federated Active Learning",
    TKDE 2025.
    """

    watched_samples: Annotated[int, Field(ge=1)] = 500

    def scores(self, pool: PoolView, rng: np.random.Generator) -> Scores:
        scores = np.full(len(pool), -1.0)
        if pool.watched:
            samples, changes = pool.watched["samples"], pool.watched["changes"]
            own = np.isin(samples, pool.samples)
            scores[np.searchsorted(pool.samples, samples[own])] = changes[own]
        return scores
