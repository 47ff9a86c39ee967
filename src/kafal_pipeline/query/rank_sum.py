"""KSAS and entropy together, by rank."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from kafal_pipeline.query.base import ScoreQuery, Scores
from kafal_pipeline.query.entropy import Entropy
from kafal_pipeline.query.ksas import KSAS
from kafal_pipeline.query.parts.uncertainty import reciprocal_ranks
from kafal_pipeline.query.pool import PoolView


@dataclass(frozen=True)
class RankSum(ScoreQuery):
    """Largest ``1 / (20 + rank by KSAS) + 1 / (20 + rank by global entropy)``: this project's own.

    Ranks make two quantities of different scales count alike. `prior_smoothing` is that of KSAS.
    """

    prior_smoothing: Annotated[float, Field(ge=0, le=1e6)] = 1.0

    def scores(self, pool: PoolView, rng: np.random.Generator) -> Scores:
        parts = (KSAS(prior_smoothing=self.prior_smoothing), Entropy())
        return sum((reciprocal_ranks(part.scores(pool, rng)) for part in parts), np.zeros(len(pool)))
