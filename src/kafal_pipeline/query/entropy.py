"""Uncertainty sampling by predictive entropy."""

from dataclasses import dataclass

from torch import Tensor

from kafal_pipeline.query.parts.uncertainty import Uncertainty


@dataclass(frozen=True)
class Entropy(Uncertainty):
    """Largest entropy ``-sum_y p_y log p_y`` of the softmax, in nats.

    Source: Settles, "Active Learning Literature Survey", 2009, section 3.1.
    """

    @staticmethod
    def of(log_p: Tensor) -> Tensor:
        return -(log_p.exp() * log_p).sum(dim=1)
