"""KSAS, Knowledge-Specialised Active Sampling: samples on which the local and the global model differ most."""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kafal_pipeline.query.base import ScoreQuery, Scores
from kafal_pipeline.query.pool import PoolView


def discrepancy(local_logits: Tensor, global_logits: Tensor, label_counts: Tensor) -> Tensor:
    r"""Symmetric Kullback-Leibler divergence of the two predictions, each weighted by the client's label counts.

    .. math::
        P = softmax(z_l + \log n), \quad Q = softmax(z_g + \log n), \quad D = (KL(P \| Q) + KL(Q \| P)) / 2

    A class without labels (:math:`n_y = 0`) has :math:`P_y = Q_y = 0` and contributes exactly 0: both softmaxes are
    taken over the classes with labels alone. (Adding ``log 0`` instead turns every score of a client that lacks a class
    into not-a-number.) Computed in float64, because P - Q cancels where the models agree.

    Logits are ``(n, C)``, counts ``(C,)``, fractions (smoothed counts) allowed. Returns D of each sample, ``(n,)``, in
    the dtype of `local_logits`; 0 everywhere if at most one class has labels.

    Source: Cao et al., ICCV 2023, section "Knowledge-Specialised Active Sampling".

    >>> same = torch.tensor([[1.0, 2.0, 3.0]])
    >>> discrepancy(same, same, torch.tensor([5, 0, 2])).tolist()
    [0.0]
    """
    present = label_counts > 0
    log_prior = label_counts[present].double().log()
    log_p = (local_logits[:, present].double() + log_prior).log_softmax(dim=1)
    log_q = (global_logits[:, present].double() + log_prior).log_softmax(dim=1)
    # KL(P||Q) + KL(Q||P) = sum (P - Q)(log P - log Q)
    return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1).to(local_logits.dtype)


@dataclass(frozen=True)
class KSAS(ScoreQuery):
    """Largest `discrepancy` between the client's own model and the global one, with the counts before the query.

    `global_model`: ``final``: the model aggregated at the end of the cycle, for everybody (published code).
    ``downloaded``: the one each client last downloaded (Algorithm 1 of the paper). `prior_smoothing`: added to every
    count, so that classes without labels count too; 0 is the published method.
    """

    global_model: Literal["final", "downloaded"] = "final"
    prior_smoothing: Annotated[float, Field(ge=0, le=1e6)] = 0.0

    def scores(self, pool: PoolView, rng: np.random.Generator) -> Scores:
        local_logits = pool.logits("local")
        global_logits = pool.logits("global" if self.global_model == "final" else "downloaded")
        counts = torch.as_tensor(pool.label_counts, device=local_logits.device) + self.prior_smoothing
        return discrepancy(local_logits, global_logits, counts).cpu().numpy()
