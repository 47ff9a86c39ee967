"""FedAvg with CHASe's alignment loss."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.update.base import StepView
from kafal_pipeline.update.fedavg import FedAvg


def alignment_loss(student: Tensor, teacher: Tensor, previous: Tensor, temperature: float) -> Tensor:
    """Mean of ``-log( e^(cos(s, t)/T) / (e^(cos(s, t)/T) + e^(cos(s, p)/T)) )`` over the rows.

    `student`, `teacher`, `previous`: representations s, t and p, ``(n, d)``; no gradient flows into the last two.
    """
    towards = F.cosine_similarity(student, teacher.detach(), dim=1)
    away = F.cosine_similarity(student, previous.detach(), dim=1)
    return F.softplus((away - towards) / temperature).mean()


@dataclass(frozen=True)
class ChaseAlignment(FedAvg):
    """FedAvg with ``weight`` times a contrastive loss that draws decision boundaries to the global model's.

    On an unlabelled batch, the student's representation is drawn towards that of the global model of this round and
    away from that of the client's own model of its last round (`alignment_loss`); both are in evaluation mode. A
    client's first round in a cycle has no last model, hence no alignment. It compares outputs and ties no parameter to
    the global model's, so that batch norms that stay local (FedBN) stay free; the global model has their average.

    The paper draws samples of low epistemic variation towards the client's own model instead. Its public code sets the
    variations to 0 right before it compares them with their mean, so that every sample is drawn towards the global
    model; so it is here, which needs no inference over the pool in every epoch.

    `weight`: the public code has 1 for CIFAR, 0.1 for MNIST; `temperature` is as there. `representation`: ``logits``,
    as its CIFAR-10 network, or ``features``, what the head is given, as its CIFAR-100 network.

    Source: Zhang et al., "CHASe: Client Heterogeneity-Aware Data Selection for Effective Federated Active Learning",
    TKDE 2025, arXiv 2504.17448, and its public code; the form of the loss is that of MOON (Li et al., CVPR 2021).
    """

    weight: Annotated[float, Field(ge=0, le=100)] = 1.0
    temperature: Annotated[float, Field(ge=0.01, le=1000)] = 0.5
    representation: Literal["logits", "features"] = "logits"

    def unlabelled_source(self) -> Literal["current"]:
        return "current"

    def uses_teacher(self, round_: int) -> bool:
        return round_ > 0  # before, there is no previous model

    def uses_previous(self) -> bool:
        return True

    def client_loss(self, step: StepView) -> Tensor:
        loss = super().client_loss(step)
        if step.unlabelled is None or step.teacher is None or step.previous is None:
            return loss
        with torch.no_grad():
            teacher = self._represent(step.teacher.eval(), step.unlabelled)
            previous = self._represent(step.previous.eval(), step.unlabelled)
        student = self._represent(step.student, step.unlabelled)
        return loss + self.weight * alignment_loss(student, teacher, previous, self.temperature)

    def _represent(self, network: nn.Module, images: Tensor) -> Tensor:
        return network(images) if self.representation == "logits" else network.features(images)  # type: ignore[operator]
