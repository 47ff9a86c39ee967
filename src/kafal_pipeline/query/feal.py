"""FEAL: evidential uncertainty of the local and the global model."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.distributions import Dirichlet

from kafal_pipeline.query.base import ScoreQuery, Scores, Selection, by_score, chosen, filled
from kafal_pipeline.query.geometry.points import blocks, points_of
from kafal_pipeline.query.pool import PoolView


@dataclass(frozen=True)
class FEAL(ScoreQuery):
    r"""Aleatoric uncertainty of both models, calibrated by the global model's epistemic one, without near copies.

    .. math::
        a = 1 + relu(z), \; S = \sum_c a_c, \quad u = \sum_c (a_c / S) (\psi(S + 1) - \psi(a_c + 1)), \quad
        score = e \, (u_g + u_l)

    with e the differential entropy of the Dirichlet distribution :math:`Dir(a_g)`, min-max scaled over the pool (1
    everywhere if it is the same everywhere). Samples are gone through by score; one is skipped when one of its at most
    `neighbours` nearest with a cosine (of local features) above `similarity` is taken already. Should too few remain,
    the skipped ones follow by score. Made for models trained with the EDL loss; defined for all. As the score of a
    composition, it leaves skipping to the diversity step.

    The public code also takes a sample that has fewer than `neighbours` such neighbours, even if all of them are taken;
    its features are those of the last block, averaged over 3 x 3 fields.

    Source: Chen et al., "Think Twice Before Selection: Federated Evidential Active Learning for Medical Image Analysis
    with Domain Shifts", CVPR 2024.
    """

    neighbours: Annotated[int, Field(ge=1)] = 5
    similarity: Annotated[float, Field(gt=-1, le=1)] = 0.85

    def scores(self, pool: PoolView, rng: np.random.Generator) -> Scores:
        of_global, of_local = (1 + pool.logits(model).relu() for model in ("global", "local"))
        epistemic = Dirichlet(of_global, validate_args=False).entropy()
        spread = epistemic.max() - epistemic.min()
        scaled = (epistemic - epistemic.min()) / spread if spread > 0 else torch.ones_like(epistemic)
        return (scaled * (aleatoric(of_global) + aleatoric(of_local))).cpu().numpy()

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        scores = self.scores(pool, rng)
        order = by_score(scores, rng)
        taken = self._without_copies(pool, order, min(budget, len(pool)))
        return chosen(pool.samples, filled(taken, order, min(budget, len(pool))), scores)

    def _without_copies(self, pool: PoolView, order: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
        features = points_of(pool, "normalised", "local").factors[0]
        nearest = min(self.neighbours + 1, len(pool))
        taken = np.zeros(len(pool), dtype=bool)
        kept: list[int] = []
        for start, stop in blocks(len(order), len(pool)):
            rows = torch.as_tensor(order[start:stop], device=features.device)
            cosines = features[rows] @ features.T
            cosines[torch.arange(len(rows), device=rows.device), rows] = -torch.inf  # its own neighbour is nobody
            top = cosines.topk(nearest, dim=1)
            near = (top.values[:, : self.neighbours] > self.similarity).cpu().numpy()
            who = top.indices[:, : self.neighbours].cpu().numpy()
            for position, neighbours, close in zip(order[start:stop], who, near, strict=True):
                if not taken[neighbours[close]].any():
                    taken[position] = True
                    kept.append(int(position))
                    if len(kept) == budget:
                        return np.array(kept)
        return np.array(kept, dtype=np.int64)


def aleatoric(evidence: Tensor) -> Tensor:
    """Return the expected entropy under each Dirichlet distribution, ``(n,)``, from its parameters ``(n, C)``."""
    total = evidence.sum(dim=1, keepdim=True)
    return (evidence / total * (torch.digamma(total + 1) - torch.digamma(evidence + 1))).sum(dim=1)
