"""Base class of every network, and the initialisation of its weights."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Network(Protocol):
    """A classifier that splits into features and a linear head, as queries need it.

    ``forward(x) == head(features(x))`` with images ``(n, C, H, W)``, features ``(n, d)`` and logits ``(n, classes)``.
    Where the data are features, they come as images ``(n, D, 1, 1)``. Where nothing is trained, two methods that a
    network may have make it faster: `folds` names, in pairs, its convolutions and the batch norms that directly follow
    them; `residual_blocks` its blocks of the form of `training.fusion.FusedBlock`.
    """

    head: nn.Linear

    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate features, ``(n, d)``."""

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights again from `generator`."""


class Headed(nn.Module):
    """A network that is its head on its features, its weights drawn by `initialise_convolutional`."""

    head: nn.Linear

    def features(self, images: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def initialise(self, generator: torch.Generator) -> None:
        initialise_convolutional(self, generator)


class Convolutional(Headed):
    """A network for images."""


@torch.no_grad()
def initialise_convolutional(network: nn.Module, generator: torch.Generator) -> None:
    """Initialise convolutions N(0, sqrt(2 / (k k out))), norms 1 and 0, linear layers as PyTorch does.

    Every draw comes from `generator`, in the order of ``network.modules()``; torch's global generator is not touched.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            module.weight.normal_(0.0, math.sqrt(2.0 / fan_out), generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            bound = 1.0 / math.sqrt(module.in_features)
            module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.uniform_(-bound, bound, generator=generator)
