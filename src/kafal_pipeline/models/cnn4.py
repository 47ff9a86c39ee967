"""The 4-layer convolutional network of LoGo, IFAL and FairFAL."""

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.models.network import Convolutional


class CNN4(Convolutional):
    """Four times: 3x3 convolution, batch norm, ReLU, 2x2 max-pooling; then a linear layer on the flattened map.

    The head depends on the image size: 256 features at 32x32 pixels, 64 at 28x28, as published. In images so small that
    a later batch norm would see a single pixel (under 16), the pooling before it is left out. `width`: channels of
    every layer.

    Source: Kim et al., "Re-thinking Federated Active Learning based on Inter-class Diversity", CVPR 2023 (LoGo; its
    public code's ``cnn4conv``), which IFAL (IJCAI 2025) and FairFAL (CVPR 2026) took over.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        image_size: tuple[int, int] = (32, 32),
        width: Annotated[int, Field(ge=1, le=4096)] = 64,
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(in_channels if layer == 0 else width, width, 3, padding=1) for layer in range(4)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(4))
        self.pools: list[bool] = []
        height, width_left = image_size
        for layer in range(4):
            smallest = 2 if layer == 3 else 4  # what is left must be a pixel, and two for a batch norm that follows
            self.pools.append(min(height, width_left) >= smallest)
            if self.pools[-1]:
                height, width_left = height // 2, width_left // 2
        self.head = nn.Linear(width * height * width_left, num_classes)

    def features(self, images: Tensor) -> Tensor:
        out = images
        for convolution, norm, pool in zip(self.convolutions, self.norms, self.pools, strict=True):
            out = F.relu(norm(convolution(out)), inplace=True)
            out = F.max_pool2d(out, 2) if pool else out
        return out.flatten(1)

    def folds(self) -> list[tuple[str, str]]:
        return [(f"convolutions.{layer}", f"norms.{layer}") for layer in range(4)]

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights again: uniform within 1 / sqrt(fan in), as PyTorch does; the head's bias starts at 0."""
        for layer in (*self.convolutions, self.head):
            bound = 1.0 / math.sqrt(layer.weight[0].numel())
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.uniform_(-bound, bound, generator=generator)
        self.head.bias.zero_()
