"""FedAvg, the baseline of all federated updates."""

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from kafal_pipeline.update.base import StepView, Update
from kafal_pipeline.update.losses import CROSS_ENTROPY, Loss


@dataclass(frozen=True)
class FedAvg(Update):
    """A loss (`kafal_pipeline.update.losses`) on the labelled batch; models averaged by their numbers of labels.

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017.
    """

    loss: Loss = CROSS_ENTROPY

    def phase(self, round_: int) -> Hashable:
        return self.uses_teacher(round_), self.loss.phase(round_)

    def client_loss(self, step: StepView) -> Tensor:
        return self.loss(step.student(step.images), step.labels, step.label_counts, step.round)
