"""The 8-layer residual network of KAFAL."""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.models.network import Convolutional

WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a shortcut, ReLU last; the shortcut is 1x1 where the shape changes."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        # In place: neither batch norm nor an addition needs its output for the backward, and the copies saved are a
        # third of a training step's memory.
        out = F.relu(self.bn1(self.conv1(images)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.shortcut(images)
        return F.relu(out, inplace=True)


class ResNet8(Convolutional):
    """3x3 convolution, three stages of one basic block (16, 32, 64 channels), batch norm, ReLU, average, linear.

    77,946 parameters for 3 channels and 10 classes.

    Source: the public code of Cao et al., "Knowledge-Aware Federated Active Learning with Non-IID Data", ICCV 2023.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=False)
        self.stage1 = BasicBlock(WIDTHS[0], WIDTHS[0], stride=1)
        self.stage2 = BasicBlock(WIDTHS[0], WIDTHS[1], stride=2)
        self.stage3 = BasicBlock(WIDTHS[1], WIDTHS[2], stride=2)
        self.bn = nn.BatchNorm2d(WIDTHS[2])
        self.head = nn.Linear(WIDTHS[2], num_classes)

    def features(self, images: Tensor) -> Tensor:
        out = self.stage3(self.stage2(self.stage1(self.stem(images))))
        return F.relu(self.bn(out), inplace=True).mean(dim=(2, 3))

    def folds(self) -> list[tuple[str, str]]:
        blocks = ("stage1", "stage2", "stage3")
        return [(f"{block}.conv{index}", f"{block}.bn{index}") for block in blocks for index in (1, 2)]

    def residual_blocks(self) -> list[str]:
        return ["stage1", "stage2", "stage3"]
