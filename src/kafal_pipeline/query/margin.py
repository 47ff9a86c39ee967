"""Uncertainty sampling by the margin between the two likeliest classes."""

from dataclasses import dataclass

from torch import Tensor

from kafal_pipeline.query.parts.uncertainty import Uncertainty


@dataclass(frozen=True)
class Margin(Uncertainty):
    """Smallest margin ``p_1 - p_2`` of the two largest probabilities; the score is 1 minus the margin, in [0, 1].

    Source: Scheffer, Decomain and Wrobel, "Active Hidden Markov Models for Information Extraction", IDA 2001.
    """

    @staticmethod
    def of(log_p: Tensor) -> Tensor:
        top = log_p.topk(2, dim=1).values.exp()
        return 1.0 - (top[:, 0] - top[:, 1])
