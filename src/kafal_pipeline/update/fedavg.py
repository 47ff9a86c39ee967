"""FedAvg, the baseline of all federated updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.update.base import State, StepView, weighted_average


@dataclass(frozen=True)
class FedAvg:
    """Cross-entropy on the labelled batch; models averaged with the numbers of labels as weights.

    References
    ----------
    McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017.
    """

    def unlabelled_source(self) -> Literal["none"]:
        """No unlabelled samples."""
        return "none"

    def uses_teacher(self, round_: int) -> bool:
        """No teacher."""
        return False

    def client_loss(self, step: StepView) -> Tensor:
        """Mean cross-entropy of the labelled batch."""
        return F.cross_entropy(step.student(step.images), step.labels)

    def aggregate(self, global_state: State, results: Sequence[tuple[State, float]]) -> State:
        """Average by number of labels."""
        return weighted_average(global_state, results)
