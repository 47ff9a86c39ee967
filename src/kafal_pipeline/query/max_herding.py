"""MaxHerding: greedily the sample that adds most to a smooth coverage of the pool. For low budgets."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from kafal_pipeline.query.base import Selection
from kafal_pipeline.query.geometry.herding import SAMPLE, herding, median_distance
from kafal_pipeline.query.geometry.points import points_of
from kafal_pipeline.query.pool import PoolView, QueryModel


@dataclass(frozen=True)
class MaxHerding:
    r"""Largest gain in generalised coverage, begun with the client's labelled samples.

    .. math::
        x^* = \arg\max_x \frac 1 n \sum_n \max(K(n, x) - m_n, 0), \quad
        K(n, x) = \exp(-\|f_n - f_x\|^2 / \sigma^2), \quad m_n = \max_{z\ \mathrm{labelled\ or\ chosen}} K(n, z)

    with normalised features f. The score is the gain. The public code, too, takes a random subset of a large pool, by
    the memory for all of its kernels; here it has `sample` samples.

    `sigma`: width of the kernel; null: the median distance between samples. `sample`: of a larger pool, a random subset
    of so many is chosen from and covered.

    Source: Bae, Noh and Sutherland, "Generalized Coverage for More Robust Low-Budget Active Learning", ECCV 2024.
    """

    model: QueryModel = "global"
    sigma: Annotated[float, Field(ge=1e-3, le=1e3)] | None = 1.0
    sample: Annotated[int, Field(ge=1)] = SAMPLE

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        points = points_of(pool, "normalised", self.model)
        seeds = points_of(pool, "normalised", self.model, labelled=True) if len(pool.labelled) else None
        sigma = median_distance(points, rng) if self.sigma is None else self.sigma
        positions, gains = herding(points, seeds, min(budget, len(pool)), rng, sigma=sigma, sample=self.sample)
        return Selection(pool.samples[positions], gains)
