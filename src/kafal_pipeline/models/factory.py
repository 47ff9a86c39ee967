"""Makes a network from its name, and a self-contained model from a network."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.registry import keyword_options, lacking, load
from kafal_pipeline.common.users_code import blamed
from kafal_pipeline.config import ModelConfig
from kafal_pipeline.models.names import MODELS
from kafal_pipeline.models.network import Network
from kafal_pipeline.models.normalisation import replace_batch_norm, take_any_batch
from kafal_pipeline.models.pretrained import load_pretrained

SHAPE = ("in_channels", "num_classes")  # what a network's constructor is given by position


def build(
    model: ModelConfig | str,
    *,
    in_channels: int,
    num_classes: int,
    image_size: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Build a network in channels-last layout; a name in `MODELS` stands for a model's defaults.

    `image_size`: height and width, for networks whose layers depend on it; None leaves the network's default.
    `generator`: source of the initial weights: of all, or of those that the file of `model.pretrained` does not bring.
    None leaves arbitrary ones, to be replaced by a state that is loaded next.

    Raises `UserError` if the name is unknown, the class is no `Network`, an option is not allowed, or the file is not
    of its weights.
    """
    config = ModelConfig(name=model) if isinstance(model, str) else model
    cls = network_class(config)
    options = keyword_options("model", config.name, cls, config.options, given=(*SHAPE, "image_size"))
    if image_size is not None and "image_size" in inspect.signature(cls).parameters:
        options["image_size"] = (int(image_size[0]), int(image_size[1]))
    # torch's own initialisation draws from its global generator, which is put back: those weights are never used.
    with torch.random.fork_rng(devices=[]), blamed("building it", model=cls):
        network: nn.Module = cls(in_channels, num_classes, **options)
    if config.normalisation == "group":
        replace_batch_norm(network)
    take_any_batch(network)
    if generator is not None:
        with blamed("drawing its weights", model=cls):
            cast(Network, network).initialise(generator)
        if config.pretrained is not None:
            load_pretrained(network, Path(config.pretrained))
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def network_class(config: ModelConfig) -> Any:
    """Return the class of the network that `config` names; UserError if it is no `Network`."""
    cls = load("model", config.name, MODELS)
    if not issubclass(cls, nn.Module):
        raise UserError(f"model.name: found {config.name!r}, which is not a torch.nn.Module.")
    for method in ("features", "initialise"):
        if not callable(getattr(cls, method, None)):
            raise UserError(lacking("model.name", config.name, cls, method))
    return cls


def check(config: ModelConfig) -> None:
    """Check the name, the options and the file of pretrained weights without building anything; UserError if wrong."""
    keyword_options("model", config.name, network_class(config), config.options, given=(*SHAPE, "image_size"))
    if config.pretrained is not None and not Path(config.pretrained).is_file():
        raise UserError(f"model.pretrained: there is no file {Path(config.pretrained).absolute()}.")


class ImageClassifier(nn.Module):
    """A trained network with its normalisation inside: pixels in, logits out.

    `network`: takes normalised images. `mean`, `std`: per channel, of pixels scaled to [0, 1].
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
