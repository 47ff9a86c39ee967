"""FairFAL: fair to rare classes, with the query model that suits the client."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from kafal_pipeline.query.base import Selection
from kafal_pipeline.query.compose import compose
from kafal_pipeline.query.entropy import Entropy
from kafal_pipeline.query.parts.diversity import KCentre
from kafal_pipeline.query.parts.quota import GlobalPrototypes
from kafal_pipeline.query.pool import Arrays, PoolView, QueryModel


@dataclass(frozen=True)
class FairFAL:
    r"""Entropy of the suiting model, equal over global-prototype classes, then k-centre on gradient embeddings.

    .. math::
        s_k = 1 - (d_k + \gamma) / 2, \quad
        d_k = \frac 1 C \sum_c \frac{|\pi_g(c) - \pi_l(c)|}{\pi_g(c) + \pi_l(c)}, \quad
        \gamma = \frac 1 K \sum_k \frac{\min_c \pi_g(c)}{\max_c \pi_g(c)}

    with :math:`\pi` the mean prediction on the class-balanced labelled set, of the global model (g) and of one trained
    on the client's labels alone (l). ``s_k > threshold``: the global model's entropy decides, else that of the
    local_only one. s_k, with d_k as well as gamma, is computed at the first query and kept. The rest is the composition
    ``{score: entropy, quota: global_prototypes, diversity: k_centre}``.

    The server learns the ratio of the client's smallest and largest share, label counts and sums of features by class.
    Differences from the public code: samples are weighed by 1 / n_k[y], where it subsamples the labelled set to class
    balance, by chance. A client without labels takes the global model. Gradient embeddings are the global model's; the
    public code takes their probabilities from the local_only model where gamma is 0.5 or more, and embeds labelled
    samples by their labels rather than by the predicted class. What ``floor(b / C)`` leaves over and what small classes
    cannot fill are handed out as one (`kafal_pipeline.query.parts.quota.equal_quotas`), there one after the other, so
    that the largest classes may get one more.

    Source: FairFAL, "Federated Active Learning Under Extreme Non-IID and Global Class Imbalance", CVPR 2026, and its
    public code.
    """

    threshold: Annotated[float, Field(ge=0, le=1)] = 0.75
    candidates: Annotated[float, Field(ge=1, le=1e6)] = 4.0

    def summary(self, pool: PoolView) -> Arrays:
        shares = balanced_shares(pool, "global")
        ratio = np.array([shares.min() / shares.max()] if len(shares) else [])
        return {**GlobalPrototypes().summary(pool), "balance": ratio}

    def select(self, pool: PoolView, budget: int, rng: np.random.Generator) -> Selection:
        suits = pool.memory["suits_global"] if "suits_global" in pool.memory else np.array([self.suits_global(pool)])
        model: QueryModel = "global" if suits[0] > self.threshold else "local_only"
        scores = Entropy(model).scores(pool, rng)
        parts = GlobalPrototypes(), KCentre("gradients", "global")
        return compose(pool, scores, *parts, self.candidates, budget, rng, {"suits_global": suits})

    def suits_global(self, pool: PoolView) -> float:
        """Return s_k, in [0, 1]; 1 for a client without labels."""
        if not len(pool.labelled):
            return 1.0
        gamma = float(np.mean(np.concatenate([summary["balance"] for summary in pool.summaries.values()])))
        of_global, of_local = (balanced_shares(pool, model) for model in ("global", "local_only"))
        differ = np.mean(np.abs(of_global - of_local) / (of_global + of_local).clip(min=np.finfo(float).tiny))
        return float(1 - (differ + gamma) / 2)


def balanced_shares(pool: PoolView, model: QueryModel) -> NDArray[np.float64]:
    """Return the mean prediction on the labelled samples, each class weighing the same, ``(C,)``; empty without any."""
    if not len(pool.labelled):
        return np.empty(0)
    weights = 1.0 / pool.label_counts[pool.labels]
    p: Tensor = pool.probabilities(model, labelled=True)
    return (weights / weights.sum()) @ p.cpu().numpy()
