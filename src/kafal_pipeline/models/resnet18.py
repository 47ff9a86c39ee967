"""ResNet-18 for images of every size."""

from typing import Literal

from torch import Tensor, nn

from kafal_pipeline.models.network import Convolutional
from kafal_pipeline.models.vision import keep_resolution, torchvision_models


class ResNet18(Convolutional):
    """torchvision's ResNet-18, its tensors under torchvision's names, except that ``fc`` is ``head``.

    Where images are tiny, later stages keep their resolution. `stem`: ``small``: a 3x3 convolution of stride 1 and no
    pooling, as is usual for CIFAR; ``large``: the original 7x7 of stride 2 with pooling, for images of 64 pixels and
    more and for weights trained on ImageNet.

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
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
        backbone = torchvision_models("resnet18").resnet18(weights=None)
        if stem == "small":
            self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
            self.maxpool: nn.Module = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
            self.maxpool = backbone.maxpool
        self.bn1 = backbone.bn1
        self.layer1, self.layer2 = backbone.layer1, backbone.layer2
        self.layer3, self.layer4 = backbone.layer3, backbone.layer4
        self.head = nn.Linear(512, num_classes)
        strided = [self.layer2[0], self.layer3[0], self.layer4[0]]
        keep_resolution(strided, min(image_size), 1 if stem == "small" else 4)

    def features(self, images: Tensor) -> Tensor:
        out = self.maxpool(self.bn1(self.conv1(images)).relu())
        return self.layer4(self.layer3(self.layer2(self.layer1(out)))).mean(dim=(2, 3))
