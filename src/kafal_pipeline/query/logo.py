"""LoGo: local clusters, global uncertainty."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.query.base import Scores, Selection, by_score, chosen
from kafal_pipeline.query.entropy import Entropy
from kafal_pipeline.query.geometry.k_means import k_means
from kafal_pipeline.query.geometry.points import Points
from kafal_pipeline.query.pool import PoolView, QueryModel


@dataclass(frozen=True)
class LoGo:
    r"""k-means on a local model's embeddings; of each cluster the sample of largest global entropy.

    .. math::
        e(x) = (1 - p_l(\hat y)) \, h_l

    the part of the local gradient embedding that belongs to the predicted class. b clusters; a cluster that is empty
    leaves its place to the next most uncertain samples of the others, one of each in turn, the most uncertain cluster
    first. (The published code stops there with an error.) The score is the global entropy.

    `model`: the model that makes the clusters: trained on the client's labels alone, as published, or another.

    Source: Kim et al., "Re-Thinking Federated Active Learning Based on Inter-Class Diversity", CVPR 2023.
    """

    model: QueryModel = "local_only"

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        budget = min(budget, len(pool))
        doubt = -pool.log_probabilities(self.model).max(dim=1).values.expm1()
        points = Points((doubt.unsqueeze(1) * pool.features(self.model),))
        clusters, _ = k_means(points, budget, rng)
        scores = Entropy("global").scores(pool, rng)
        return chosen(pool.samples, in_turns(clusters, scores, rng)[:budget], scores)


def in_turns(groups: NDArray[np.int64], scores: Scores, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return all positions: the best of every group (best first), then the second best of every group, and so on.

    >>> in_turns(np.array([0, 0, 1]), np.array([3.0, 2.0, 1.0]), np.random.default_rng(0)).tolist()
    [0, 2, 1]
    """
    order = by_score(scores, rng)
    by_group = np.argsort(groups[order], kind="stable")
    starts = np.searchsorted(groups[order][by_group], groups[order][by_group], side="left")
    turn = np.empty(len(order), dtype=np.int64)
    turn[by_group] = np.arange(len(order)) - starts
    return order[np.argsort(turn, kind="stable")]
