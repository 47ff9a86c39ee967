"""DropQuery: samples whose predicted class changes when features are dropped; then k-means."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from kafal_pipeline.query.base import Scores, Selection, by_score, chosen, filled
from kafal_pipeline.query.geometry.k_means import k_means, nearest_to_centres
from kafal_pipeline.query.geometry.points import blocks, points_of
from kafal_pipeline.query.pool import PoolView, QueryModel


@dataclass(frozen=True)
class DropQuery:
    r"""Candidates are predicted differently in more than half of the passes with dropout; k-means spreads the choice.

    With a mask of its own for every sample and pass, each feature dropped with probability `rate`,

    .. math::
        s(x) = \frac 1 M \sum_{m=1}^M [\arg\max (W (f \odot \mu_m) / (1 - rate) + b) \ne \arg\max (W f + b)]

    The candidates have s > 1/2. If they are fewer than `candidates` x b, the bar is lowered; of the samples that just
    reach it, a random part makes up that number. Normalised features of the candidates are clustered (k-means, b
    clusters) and the nearest to each centre is taken; what is missing is filled with the largest s. The score is s.

    Source: Gupte, Aklilu, Nirschl and Yeung-Levy, "Revisiting Active Learning in the Era of Vision Foundation Models",
    TMLR 2024.
    """

    model: QueryModel = "global"
    passes: Annotated[int, Field(ge=1, le=1000)] = 3
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.75
    candidates: Annotated[float, Field(ge=1, le=1e6)] = 25.0

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        budget = min(budget, len(pool))
        differ = self.differing_passes(pool, rng)
        order = by_score(differ.astype(np.float64), rng)
        among = order[: max(int((2 * differ > self.passes).sum()), int(np.ceil(self.candidates * budget)))]
        points = points_of(pool, "normalised", self.model).take(among)
        taken = among[nearest_to_centres(*k_means(points, budget, rng))]
        return chosen(pool.samples, filled(taken, order, budget), differ / self.passes)

    def differing_passes(self, pool: PoolView, rng: np.random.Generator) -> Scores:
        """Return in how many passes another class is predicted than without dropout, ``(n,)``."""
        features, (weight, bias) = pool.features(self.model), pool.head(self.model)
        plain = (features @ weight.T + bias).argmax(dim=1)
        differ = np.zeros(len(features))
        for start, stop in blocks(*features.shape):
            for _ in range(self.passes):
                kept = rng.random((stop - start, features.shape[1]), dtype=np.float32) >= self.rate
                dropped = features[start:stop] * torch.as_tensor(kept, device=features.device)
                predicted = (dropped @ weight.T / (1 - self.rate) + bias).argmax(dim=1)
                differ[start:stop] += (predicted != plain[start:stop]).cpu().numpy()
        return differ
