"""MobileNetV2 for images of every size."""

from typing import Literal

from torch import Tensor, nn

from kafal_pipeline.models.network import Convolutional
from kafal_pipeline.models.vision import keep_resolution, torchvision_models

STRIDED = (2, 4, 7, 14)  # positions of the blocks of stride 2


class MobileNetV2(Convolutional):
    """torchvision's MobileNetV2; ``blocks`` are torchvision's ``features`` under another name.

    Without dropout, which draws from torch's global generator, so that results would depend on what ran before. Where
    images are tiny, later blocks keep their resolution. `stem`: ``small``: the first convolution and the first strided
    block keep the resolution, as is usual for CIFAR; ``large``: as published, for images of 64 pixels and more and for
    weights trained on ImageNet.

    Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        image_size: tuple[int, int] = (32, 32),
        stem: Literal["small", "large"] = "small",
    ) -> None:
        super().__init__()
        self.blocks = torchvision_models("mobilenet_v2").mobilenet_v2(weights=None).features
        stride = 1 if stem == "small" else 2
        self.blocks[0][0] = nn.Conv2d(in_channels, 32, 3, stride, padding=1, bias=False)
        if stem == "small":
            keep_resolution([self.blocks[STRIDED[0]]], side=1, before=1)
        strided = [self.blocks[position] for position in STRIDED[1 if stem == "small" else 0 :]]
        keep_resolution(strided, min(image_size), stride)
        self.head = nn.Linear(1280, num_classes)

    def features(self, images: Tensor) -> Tensor:
        return self.blocks(images).mean(dim=(2, 3))
