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

    A random subset of the client's unlabelled samples is watched: after every local epoch the model in training
    predicts them in evaluation mode. Consecutive means the client's epochs of a cycle one after another, across rounds,
    so that one local epoch a round is enough. Samples that are not watched score -1: they come last, in random order.
    The subset is drawn again every cycle; the published freezing and awakening of samples between queries is not
    needed for that. Its alignment loss is an update's business.

    `watched_samples`: size of the subset, or all there are.

    Source: Zhang et al., "CHASe: Client Heterogeneity-Aware Data Selection for Effective Federated Active Learning",
    TKDE 2025.
    """

    watched_samples: Annotated[int, Field(ge=1)] = 500

    def scores(self, pool: PoolView, rng: np.random.Generator) -> Scores:
        """Return the number of changes of each sample."""
        scores = np.full(len(pool), -1.0)
        if pool.watched:
            samples, changes = pool.watched["samples"], pool.watched["changes"]
            own = np.isin(samples, pool.samples)
            scores[np.searchsorted(pool.samples, samples[own])] = changes[own]
        return scores
