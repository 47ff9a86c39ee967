"""Core-set: cover the feature space."""

from dataclasses import dataclass

import numpy as np

from kafal_pipeline.query.base import Selection
from kafal_pipeline.query.geometry.k_centre import k_centre
from kafal_pipeline.query.geometry.points import Space, points_of
from kafal_pipeline.query.pool import PoolView, QueryModel


@dataclass(frozen=True)
class Coreset:
    """Greedy k-centre in penultimate features, begun with the client's labelled samples.

    The score is the distance to the nearest sample labelled or taken before. The published method improves the greedy
    solution by mixed-integer programming; as in most comparisons, that step is left out.

    Source: Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018.
    """

    model: QueryModel = "global"
    space: Space = "features"

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        seeds = points_of(pool, self.space, self.model, labelled=True) if len(pool.labelled) else None
        points = points_of(pool, self.space, self.model)
        positions, distances = k_centre(points, seeds, min(budget, len(pool)), rng)
        order = np.argsort(-distances, kind="stable")  # without labels the first, drawn one has distance 0
        return Selection(pool.samples[positions[order]], distances[order])
