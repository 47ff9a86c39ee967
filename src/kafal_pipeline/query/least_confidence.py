"""Uncertainty sampling by the probability of the likeliest class."""

from dataclasses import dataclass

from torch import Tensor

from kafal_pipeline.query.parts.uncertainty import Uncertainty


@dataclass(frozen=True)
class LeastConfidence(Uncertainty):
    """Smallest probability ``p_1`` of the predicted class; the score is ``1 - p_1``.

    Source: Lewis and Gale, "A Sequential Algorithm for Training Text Classifiers", SIGIR 1994.
    """

    @staticmethod
    def of(log_p: Tensor) -> Tensor:
        return -log_p.max(dim=1).values.expm1()  # exact where p_1 is close to 1
