"""Expected gradient length."""

from dataclasses import dataclass

import numpy as np

from kafal_pipeline.query.base import ScoreQuery, Scores
from kafal_pipeline.query.pool import PoolView, QueryModel


@dataclass(frozen=True)
class EGL(ScoreQuery):
    r"""Largest expected length of the gradient that a label would give the last layer.

    .. math::
        \sum_y p_y \, \| \nabla_W CE(x, y) \| = \|h\| \sum_y p_y \, \| p - e_y \|

    since the gradient of the cross-entropy with respect to the head's weights is the outer product of ``p - e_y`` and
    the features ``h``. The published method differentiates the whole model; the head's closed form needs no backward.

    Source: Settles, Craven and Ray, "Multiple-Instance Active Learning", NIPS 2007; section 3.3 of Settles' survey.
    """

    model: QueryModel = "global"

    def scores(self, pool: PoolView, rng: np.random.Generator) -> Scores:
        p = pool.probabilities(self.model)
        # |p - e_y|^2 = sum_c p_c^2 - 2 p_y + 1, which rounding may take below 0 where p_y is 1
        lengths = (p.square().sum(dim=1, keepdim=True) - 2 * p + 1).clamp_min(0).sqrt()
        return ((p * lengths).sum(dim=1) * pool.features(self.model).norm(dim=1)).cpu().numpy()
