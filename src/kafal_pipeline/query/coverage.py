"""Coverage: uncertain and specialised samples of every class, spread out. This project's own composition."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from kafal_pipeline.query.base import Selection
from kafal_pipeline.query.compose import compose
from kafal_pipeline.query.parts.diversity import KCentre
from kafal_pipeline.query.parts.quota import GlobalPrototypes
from kafal_pipeline.query.pool import Arrays, PoolView
from kafal_pipeline.query.rank_sum import RankSum


@dataclass(frozen=True)
class Coverage:
    """Rank sum of KSAS and entropy, equal over global-prototype classes, then k-centre on global gradient embeddings.

    The composition ``{score: rank_sum, quota: global_prototypes, diversity: k_centre}``; options as there.
    """

    prior_smoothing: Annotated[float, Field(ge=0, le=1e6)] = 1.0
    candidates: Annotated[float, Field(ge=1, le=1e6)] = 4.0

    def summary(self, pool: PoolView) -> Arrays:
        return GlobalPrototypes().summary(pool)

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        scores = RankSum(self.prior_smoothing).scores(pool, rng)
        diversity = KCentre("gradients", "global")
        return compose(pool, scores, GlobalPrototypes(), diversity, self.candidates, budget, rng)
