"""Cluster-Margin: small margins, spread over clusters."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from kafal_pipeline.query.base import Selection
from kafal_pipeline.query.compose import compose
from kafal_pipeline.query.margin import Margin
from kafal_pipeline.query.parts.diversity import KMeans
from kafal_pipeline.query.parts.quota import NoQuota
from kafal_pipeline.query.pool import PoolView, QueryModel


@dataclass(frozen=True)
class ClusterMargin:
    """Of the ``10 b`` smallest margins, those nearest to the centres of b weighted k-means clusters of their features.

    The composition ``{score: margin, diversity: k_means, space: features, candidates: 10, weighted: true}``; the
    weights are 1 - margin. The published method clusters the pool once by average linkage and picks round-robin from
    small clusters; the weighted k-means that federated comparisons run in its name needs no matrix of all pairs.

    Source: Citovsky et al., "Batch Active Learning at Scale", NeurIPS 2021; weighted k-means after Zhdanov, 2019, arXiv
    1901.05954.
    """

    model: QueryModel = "global"
    candidates: Annotated[float, Field(ge=1, le=1e6)] = 10.0

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        scores = Margin(self.model).scores(pool, rng)
        diversity = KMeans("features", self.model, weighted=True)
        return compose(pool, scores, NoQuota(), diversity, self.candidates, budget, rng)
