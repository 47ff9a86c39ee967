"""Losses of a labelled batch, an option of every update: ``update: {name: fedprox, loss: {name: focal, gamma: 3}}``.

Each is the mean over a batch, a function of logits ``(n, C)``, labels int64 ``(n,)``, the client's labelled samples of
each class n_y ``(C,)`` and the round within the cycle, from 0; its other parameters are its options.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.common.errors import UserError, did_you_mean
from kafal_pipeline.common.registry import keyword_options

Weight = Annotated[float, Field(ge=0, le=100)]  # or exponent: larger ones overflow in float32 after a few steps
Pseudocount = Annotated[float, Field(ge=1e-6, le=1e6)]  # smaller ones vanish in float32 next to counts


def cross_entropy(logits: Tensor, labels: Tensor, label_counts: Tensor, round_: int) -> Tensor:
    """Cross-entropy, ``-log softmax(z)_y``."""
    return F.cross_entropy(logits, labels)


def balanced_softmax(logits: Tensor, labels: Tensor, label_counts: Tensor, round_: int = 0) -> Tensor:
    """Balanced softmax, ``-log softmax(z + log n)_y``; classes without labels get probability 0.

    Source: Ren et al., "Balanced Meta-Softmax", NeurIPS 2020, eq. 3; Cao et al., ICCV 2023.
    """
    # log 0 = -inf is safe here, unlike in a divergence: exp(-inf) = 0 in the sum, and its gradient is exactly 0.
    return F.cross_entropy(logits + label_counts.to(logits.dtype).log(), labels)


def logit_adjust(
    logits: Tensor,
    labels: Tensor,
    label_counts: Tensor,
    round_: int,
    *,
    tau: Weight = 1.0,
    smoothing: Pseudocount = 1.0,
) -> Tensor:
    """Logit adjustment, ``-log softmax(z + tau log pi)_y`` with pi_y = (n_y + smoothing) / sum(n + smoothing).

    `tau` = 0 is the cross-entropy, and `tau` = 1 the balanced softmax but for the smoothing, which lets classes without
    labels take part.

    Source: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, eq. 10.
    """
    counts = label_counts.to(logits.dtype) + smoothing
    return F.cross_entropy(logits + tau * (counts / counts.sum()).log(), labels)


def focal(logits: Tensor, labels: Tensor, label_counts: Tensor, round_: int, *, gamma: Weight = 2.0) -> Tensor:
    """Focal loss, ``-(1 - p_y) ** gamma log p_y`` with p = softmax(z); `gamma` = 0 is the cross-entropy.

    Source: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. 4.
    """
    log_p = -F.cross_entropy(logits, labels, reduction="none")
    # 1 - p without cancellation; p = 1 exactly would make the gradient of the power infinite for gamma < 1.
    others = (-torch.expm1(log_p)).clamp_min(torch.finfo(logits.dtype).tiny)
    return -(others**gamma * log_p).mean()


def evidential(
    logits: Tensor,
    labels: Tensor,
    label_counts: Tensor,
    round_: int,
    *,
    weighted: bool = True,
    regularisation: Weight = 0.01,
    annealing: Annotated[int, Field(ge=0)] = 10,
) -> Tensor:
    """Evidential loss as FEAL trains it, on Dirichlet parameters ``a = 1 + relu(z)`` with sum S.

    ``(2 - pi_y) (psi(S) - psi(a_y)) + regularisation (t KL(Dir(a') || Dir(1)) - (C / S) z_y)`` with psi the digamma
    function, pi the client's label shares, a' = a except a'_y = 1, and t = min(1, round / annealing). No gradient flows
    through the S of the last term, which pulls labels out of relu's flat half.

    `weighted`: whether rare classes weigh more, by ``2 - pi_y`` rather than 1. `regularisation`: weight of the last two
    terms. `annealing`: rounds of a cycle until the divergence has its full weight; 0: from the start.

    Source: Sensoy et al., "Evidential Deep Learning to Quantify Classification Uncertainty", NeurIPS 2018; Chen et al.,
    "Think Twice Before Selection: Federated Evidential Active Learning", CVPR 2024, and its public code.
    """
    evidence = F.relu(logits) + 1
    total = evidence.sum(dim=1)
    own = evidence.gather(1, labels.unsqueeze(1)).squeeze(1)
    risk = torch.digamma(total) - torch.digamma(own)
    if weighted:
        counts = label_counts.to(logits.dtype)
        risk = risk * (2 - counts / counts.sum())[labels]
    wrong = evidence.scatter(1, labels.unsqueeze(1), 1.0)
    strength = min(1.0, round_ / annealing) if annealing else 1.0
    reward = logits.shape[1] / total.detach() * logits.gather(1, labels.unsqueeze(1)).squeeze(1)
    return (risk + regularisation * (strength * _divergence_from_uniform(wrong) - reward)).mean()


def _divergence_from_uniform(evidence: Tensor) -> Tensor:
    """Return KL(Dir(a) || Dir(1)) of each row of `evidence`, ``(n,)``."""
    total = evidence.sum(dim=1, keepdim=True)
    classes = torch.full_like(total[:, 0], float(evidence.shape[1]))
    normaliser = torch.lgamma(total[:, 0]) - torch.lgamma(evidence).sum(dim=1) - torch.lgamma(classes)
    return normaliser + ((evidence - 1) * (torch.digamma(evidence) - torch.digamma(total))).sum(dim=1)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "ce": cross_entropy,
    "balanced_softmax": balanced_softmax,
    "logit_adjust": logit_adjust,
    "focal": focal,
    "edl": evidential,
}
"""By the names that users write."""


@dataclass(frozen=True)
class LabelledLoss:
    """One of `LOSSES` with its options, called as they are.

    >>> LabelledLoss.of({"name": "focal", "gamma": 3})
    LabelledLoss(name='focal', options={'gamma': 3.0})
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any) -> Self:
        """Return the loss that a user means by a name, or by a mapping with ``name`` and its options; or UserError."""
        if isinstance(value, cls):
            return value
        options = dict(value) if isinstance(value, Mapping) else {"name": value}
        name = options.pop("name", None)
        if not isinstance(name, str) or name not in LOSSES:
            raise UserError(f"update.loss: found {name!r}. {did_you_mean(name, LOSSES)}")
        given = ("logits", "labels", "label_counts", "round_")
        return cls(name, keyword_options("update.loss", name, LOSSES[name], options, given))

    def phase(self, round_: int) -> Hashable:
        """Return what is equal for rounds in which the loss is the same function."""
        return min(round_, int(self.options.get("annealing", 10))) if self.name == "edl" else 0

    def __call__(self, logits: Tensor, labels: Tensor, label_counts: Tensor, round_: int) -> Tensor:
        return LOSSES[self.name](logits, labels, label_counts, round_, **self.options)


CROSS_ENTROPY = LabelledLoss("ce")
Loss = Annotated[LabelledLoss, BeforeValidator(LabelledLoss.of)]  # the user writes a name or a mapping
