"""BALD: how much a label would tell about the parameters, estimated by dropout on the features."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kafal_pipeline.query.base import ScoreQuery, Scores
from kafal_pipeline.query.parts.disagreement import mutual_information
from kafal_pipeline.query.pool import PoolView, QueryModel


@dataclass(frozen=True)
class BALD(ScoreQuery):
    """Largest mutual information ``H(mean_t p_t) - mean_t H(p_t)`` between label and parameters.

    The published method samples parameters by dropout layers inside the network. The networks here have none: dropout
    falls on the penultimate features, ``p_t = softmax(W (h * mask_t / (1 - rate)) + b)``, and only the head is computed
    again. A mask is the same for all samples, one drawn set of parameters (as in BatchBALD), so that scores differ by
    sample and not by luck.

    `passes`: number of masks. `rate`: chance of a feature to be dropped.

    Source: Houlsby et al., 2011, arXiv 1112.5745; Gal, Islam and Ghahramani, ICML 2017; Kirsch et al., NeurIPS 2019.
    """

    passes: Annotated[int, Field(ge=2, le=1000)] = 20
    rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    model: QueryModel = "global"

    def scores(self, pool: PoolView, rng: np.random.Generator) -> Scores:
        return mutual_information(self._passes(pool, rng)).cpu().numpy()

    def _passes(self, pool: PoolView, rng: np.random.Generator) -> Iterator[Tensor]:
        features, (weight, bias) = pool.features(self.model), pool.head(self.model)
        for _ in range(self.passes):
            kept = (rng.random(features.shape[1]) >= self.rate) / (1 - self.rate)
            mask = torch.as_tensor(kept, device=features.device)
            yield (features @ (weight * mask).T + bias).log_softmax(dim=1)
