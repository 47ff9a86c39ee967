"""Networks without convolutions: for features, and for images as rows of pixels."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from kafal_pipeline.models.network import Headed


class Linear(Headed):
    """One linear layer: multinomial logistic regression, or the weights of the update ``ridge``."""

    def __init__(self, in_channels: int, num_classes: int, *, image_size: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.head = nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class Dropout(nn.Module):
    """Dropout that draws from the generator that `draw_from` gave it, and does nothing before.

    PyTorch's own draws from the global generator, so that results would depend on what ran before.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.generator: torch.Generator | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Set values to 0, each with the probability, and enlarge the others so that the expectation stays."""
        if not self.training or self.generator is None or not self.probability:
            return values
        kept = torch.rand(values.shape, generator=self.generator, device=values.device) >= self.probability
        return values * kept / (1 - self.probability)


def draw_from(network: nn.Module, generator: torch.Generator) -> None:
    """Have the dropout of a network draw from `generator`, until it is given another one."""
    for module in network.modules():
        if isinstance(module, Dropout):
            module.generator = generator


class MLP(Headed):
    """One hidden layer with ReLU.

    `width`: of the hidden layer. `dropout`: probability with which a hidden unit is left out of a training step.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        image_size: tuple[int, int] = (1, 1),
        width: Annotated[int, Field(ge=1, le=65_536)] = 256,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(in_channels * image_size[0] * image_size[1], width)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        return self.dropout(self.hidden(images.flatten(1)).relu())
