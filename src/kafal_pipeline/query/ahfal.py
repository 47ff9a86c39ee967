"""AHFAL: towards the labels that all clients have together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from kafal_pipeline.options import Field
from kafal_pipeline.query.base import Selection
from kafal_pipeline.query.compose import compose
from kafal_pipeline.query.entropy import Entropy
from kafal_pipeline.query.parts.diversity import Best
from kafal_pipeline.query.parts.quota import TowardsGlobalMix
from kafal_pipeline.query.pool import Arrays, PoolView


@dataclass(frozen=True)
class AHFAL:
    """Entropy under quotas that move the client's labelled mix towards the global labelled mix.

    The entropy is that of the local model; where clients are alike, the mean of the local and the global model's. They
    are alike if a class's share of a client's labels varies little from client to client: the standard deviation over
    clients, averaged over classes, is below `alike`. A sample's group is the class that the global model predicts. The
    composition ``{score: entropy, quota: towards_global_mix}`` with that adaptive score.

    The server learns label counts. The description that this follows leaves open how fractions of a quota are rounded
    and where a quota that a group cannot fill goes: see `kafal_pipeline.query.parts.quota.mix_quotas`.

    Parameters
    ----------
    alike
        Largest mean standard deviation of class shares for which clients count as alike.
    """

    alike: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.12

    def summary(self, pool: PoolView) -> Arrays:
        """Return the numbers of labels by class."""
        return TowardsGlobalMix().summary(pool)

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        """Choose the largest entropies within the quotas."""
        scores = Entropy("local").scores(pool, rng)
        if self.share_deviation(pool) < self.alike:
            scores = (scores + Entropy("global").scores(pool, rng)) / 2
        return compose(pool, scores, TowardsGlobalMix(), Best(), 1.0, budget, rng)

    @staticmethod
    def share_deviation(pool: PoolView) -> float:
        """Return the standard deviation over clients of a class's share of their labels, averaged over classes."""
        counts = np.array([summary["label_counts"] for summary in pool.summaries.values()], dtype=np.float64)
        counts = counts[counts.sum(axis=1) > 0]
        if not len(counts):
            return 0.0
        return float((counts / counts.sum(axis=1, keepdims=True)).std(axis=0).mean())
