"""BADGE: diverse gradient embeddings."""

from dataclasses import dataclass

import numpy as np

from kafal_pipeline.query.base import Selection
from kafal_pipeline.query.geometry.k_means import k_means_pp
from kafal_pipeline.query.geometry.points import points_of
from kafal_pipeline.query.pool import PoolView, QueryModel


@dataclass(frozen=True)
class BADGE:
    r"""k-means++ on the gradient embeddings of the last layer.

    .. math::
        g(x) = (p - e_{\hat y}) \otimes h, \qquad \langle g_i, g_j \rangle = \langle q_i, q_j \rangle \langle h_i, h_j
        \rangle

    with :math:`q = p - e_{\hat y}`, so that memory is O(n (C + d)) and never O(n C d). As in the published code the
    first centre is the embedding of the largest norm. Unlike it, a point is never picked twice, and when all distances
    are 0 the rest is drawn uniformly. The score is the distance to the nearest centre before.

    Source: Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds", ICLR 2020.
    """

    model: QueryModel = "global"

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        points = points_of(pool, "gradients", self.model)
        positions, distances = k_means_pp(points, min(budget, len(pool)), rng, first="longest")
        order = np.argsort(-distances, kind="stable")
        return Selection(pool.samples[positions[order]], distances[order])
