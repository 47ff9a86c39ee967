"""Trains models for a query alone, on the labelled samples of one client."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.common.randomness import Purpose, torch_generator
from kafal_pipeline.config import Config
from kafal_pipeline.federation.site import Site
from kafal_pipeline.query.pool import QueryModel
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.training.draws import Draws
from kafal_pipeline.training.local import ClientSamples, LocalStart, Networks, train_locally
from kafal_pipeline.update.base import StepView
from kafal_pipeline.update.fedavg import FedAvg

TRAINED: tuple[QueryModel, ...] = ("local_only", "finetuned", "distilled")  # the position tells a generator apart
MOST_EPOCHS = 100  # of ``epochs: null``: the published protocol has 2,000 local epochs a cycle, for few samples


@dataclass(frozen=True)
class Distillation(FedAvg):
    """``0.1 CE + 0.9 T^2 KL(teacher || student)`` at temperature T = 4, the loss of IFAL's third model."""

    weight: float = 0.9
    temperature: float = 4.0

    def client_loss(self, step: StepView) -> Tensor:
        """Return the loss."""
        assert step.teacher is not None
        logits = step.student(step.images)
        with torch.no_grad():
            target = (step.teacher(step.images) / self.temperature).log_softmax(dim=1)
        own = (logits / self.temperature).log_softmax(dim=1)
        divergence = F.kl_div(own, target, reduction="batchmean", log_target=True)
        label = F.cross_entropy(logits, step.labels)
        return (1 - self.weight) * label + self.weight * self.temperature**2 * divergence


class QueryModelTrainer:
    """Trains a network for a query, as long as ``query_training`` says; `new_network` is `models.factory.build`."""

    def __init__(self, config: Config, pixels: Pixels, num_classes: int, new_network: Callable[..., nn.Module]) -> None:
        self.seed, self.pixels, self.num_classes, self.new_network = config.seed, pixels, num_classes, new_network
        asked = config.query_training
        epochs = asked.epochs or min(config.federation.rounds * config.training.local_epochs, MOST_EPOCHS)
        self.training = config.training.model_copy(
            update={"local_epochs": epochs, "lr": asked.lr or config.training.lr, "lr_drop_epoch": None}
        )

    def train(
        self, kind: QueryModel, network: nn.Module, site: Site, cycle: int, global_state: Mapping[str, Tensor]
    ) -> None:
        """Make `network` the model `kind` (`kafal_pipeline.query.pool.QueryModel`) of a client with labelled samples.

        All randomness is of the seed, the kind, the cycle and the client, so that a model does not depend on which
        queries or clients came before.
        """
        which, device = TRAINED.index(kind), self.pixels.device
        start: Mapping[str, Tensor] = global_state
        if kind != "finetuned":
            generator = torch_generator(self.seed, Purpose.QUERY_MODEL, cycle, 2 * which, site.client)
            start = self.new_network(generator=generator).state_dict()
        network.load_state_dict(start)
        teacher, update = None, FedAvg()
        if kind == "distilled":
            teacher = copy.deepcopy(network).requires_grad_(False)
            teacher.load_state_dict(global_state)
            teacher.eval()
            update = Distillation()
        labels = site.pool.labels
        arrays = (site.pool.labelled, labels, np.bincount(labels, minlength=self.num_classes))
        mine, known, numbers = (torch.as_tensor(array, device=device) for array in arrays)
        key = (Purpose.QUERY_MODEL, cycle, 2 * which + 1, site.client)
        draws = Draws.of(torch_generator(self.seed, *key, device=str(device)))
        train_locally(
            Networks(network, teacher),
            update,
            self.pixels,
            ClientSamples(mine, known, mine[:0], numbers),
            self.training,
            LocalStart(0, draws),
        )
