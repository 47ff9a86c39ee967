"""TM-FAL: samples whose features differ most between global and local models, equal over predicted classes."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.query.base import ScoreQuery, Scores, Selection
from kafal_pipeline.query.compose import compose
from kafal_pipeline.query.geometry.points import blocks
from kafal_pipeline.query.parts.diversity import Best
from kafal_pipeline.query.parts.quota import Groups, equal_quotas
from kafal_pipeline.query.pool import PoolView, QueryModel

TINY = 1e-14  # as published


@dataclass(frozen=True)
class TMFAL(ScoreQuery):
    r"""Largest deviation of features in a committee, over its mean confidence; the same number of each predicted class.

    .. math::
        u(x) = \frac{\frac 1 d \sum_d \mathrm{std}_m\, h_m(x)_d}{\max_c \frac 1 M \sum_m p_m(c | x) + 10^{-14}}

    with features h and predictions p of the models m. Pseudo-classes are those that the global model predicts; they are
    taken from in turns (`kafal_pipeline.query.parts.quota.equal_quotas`).

    The published committee holds snapshots of the global and the local model of several rounds; in the public code a
    snapshot replaces the global model from the second client on, which is left out here. The `committee` here is of the
    models that a client has at the end of a cycle: the global model that it last downloaded, its own after training,
    and the one aggregated last.

    Source: temporal committee of global and local models, MICCAI 2025.
    """

    committee: Annotated[tuple[QueryModel, ...], Field(min_length=2)] = ("global", "local", "downloaded")

    def __post_init__(self) -> None:
        if len(set(self.committee)) < len(self.committee):
            raise UserError(f"query.committee: found {', '.join(self.committee)}; a member may be listed only once.")

    def scores(self, pool: PoolView, rng: np.random.Generator) -> Scores:
        width = pool.features(self.committee[0]).shape[1] * len(self.committee)
        deviation = torch.cat([self._deviation(pool, slice(*rows)) for rows in blocks(len(pool), width)])
        confidence = torch.stack([pool.probabilities(model) for model in self.committee]).mean(dim=0).max(dim=1).values
        return (deviation / (confidence + TINY)).cpu().numpy()

    def _deviation(self, pool: PoolView, rows: slice) -> Tensor:
        members = torch.stack([pool.features(model)[rows] for model in self.committee])
        return members.std(dim=0, correction=0).mean(dim=1)

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        return compose(pool, self.scores(pool, rng), PredictedClasses(), Best(), 1.0, budget, rng)


@dataclass(frozen=True)
class PredictedClasses:
    """`equal_quotas` over the classes that the global model predicts."""

    def groups(self, pool: PoolView, budget: int) -> Groups:
        group = pool.logits("global").argmax(dim=1).cpu().numpy()
        return Groups(group, equal_quotas(np.bincount(group, minlength=pool.num_classes), budget), classes=True)
