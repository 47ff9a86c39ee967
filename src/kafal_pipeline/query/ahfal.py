"""AHFAL: towards the labels that all clients have together."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kafal_pipeline.query.base import Selection
from kafal_pipeline.query.compose import compose
from kafal_pipeline.query.entropy import Entropy
from kafal_pipeline.query.parts.diversity import Best
from kafal_pipeline.query.parts.quota import TowardsGlobalMix
from kafal_pipeline.query.pool import Arrays, PoolView


@dataclass(frozen=True)
class AHFAL:
    """Entropy under quotas that move the client's labelled mix towards the global labelled mix.

    The entropy is that of the local model; where the local or the global model predicts an alike class, the mean of
    both models' entropies. A class is alike if its share of a client's labels varies little from client to client: the
    standard deviation over clients is below `alike`. A sample's group is the class that the local model predicts. The
    composition ``{score: entropy, model: local, quota: towards_global_mix}`` with that adaptive score.

    The server learns label counts. Differences from the public code: a class lacks what the client's labels lack of it,
    not what the global model predicts of its labelled samples; and the budget is divided in proportion to what classes
    lack (`kafal_pipeline.query.parts.quota.mix_quotas`), not in halves, thirds or fifths of what is left, by
    thresholds, to one class after the other.

    Source: "AHFAL: Adaptive Hierarchical Federated Active Learning": its public code; we know of no publication.
    """

    alike: Annotated[float, Field(ge=0, le=1)] = 0.12

    def summary(self, pool: PoolView) -> Arrays:
        return TowardsGlobalMix().summary(pool)

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        alike = self.share_deviations(pool) < self.alike
        of_local, of_global = (alike[pool.logits(model).argmax(dim=1).cpu().numpy()] for model in ("local", "global"))
        scores = Entropy("local").scores(pool, rng)
        both = (scores + Entropy("global").scores(pool, rng)) / 2
        scores = np.where(of_local | of_global, both, scores)
        return compose(pool, scores, TowardsGlobalMix(), Best(), 1.0, budget, rng)

    @staticmethod
    def share_deviations(pool: PoolView) -> NDArray[np.float64]:
        """Return the standard deviation over clients of each class's share of their labels, ``(C,)``."""
        counts = np.array([summary["label_counts"] for summary in pool.summaries.values()], dtype=np.float64)
        counts = counts[counts.sum(axis=1) > 0]
        if not len(counts):
            return np.zeros(pool.num_classes)
        return (counts / counts.sum(axis=1, keepdims=True)).std(axis=0)
