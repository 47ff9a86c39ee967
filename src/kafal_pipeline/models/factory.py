"""From a name to a network, and from a network to a model that others can use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from kafal_pipeline.errors import UserError
from kafal_pipeline.models.names import MODELS
from kafal_pipeline.models.network import Network
from kafal_pipeline.registry import load


def build(name: str, *, in_channels: int, num_classes: int, generator: torch.Generator | None = None) -> nn.Module:
    """Build a network in channels-last layout.

    Parameters
    ----------
    name
        A name in `MODELS`.
    in_channels, num_classes
        Shape of its first and last layer.
    generator
        Source of the initial weights; None leaves arbitrary ones, to be replaced by a state that is loaded next.

    Raises
    ------
    UserError
        If the name is unknown, or the class is no `Network`.
    """
    cls = load("model", name, MODELS)
    if not issubclass(cls, nn.Module) or not all(
        callable(getattr(cls, part, None)) for part in ("features", "initialise")
    ):
        raise UserError(
            f"model.name: found {name!r}, which is not a torch.nn.Module with the methods `features` and `initialise` "
            "(kafal_pipeline.models.network.Network)."
        )
    # torch's own initialisation draws from its global generator, which is put back: those weights are never used.
    with torch.random.fork_rng(devices=[]):
        network: nn.Module = cls(in_channels, num_classes)
    if generator is not None:
        cast(Network, network).initialise(generator)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class ImageClassifier(nn.Module):
    """A trained network with its normalisation inside: pixels in, logits out.

    Parameters
    ----------
    network
        Takes normalised images.
    mean, std
        Per channel, of pixels scaled to [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor([float(value) for value in mean]).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor([float(value) for value in std]).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(n, classes)`` of float32 images ``(n, C, H, W)`` with pixels in [0, 1]."""
        return self.network((images - self.mean) / self.std)
