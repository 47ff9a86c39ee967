"""The published code's transforms of one picture: torchvision's, or the same work where torchvision is absent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

MEAN, STD = 0.48, 0.25


def transform_of(size: int, channels: int, flip: bool, padding: int) -> Callable[[Image.Image], Tensor]:
    """Flip, pad and crop at random; to a float tensor; normalise."""
    try:
        from torchvision import transforms
    except ImportError:
        return PlainTransform(size, channels, flip, padding)
    return transforms.Compose(
        [
            *([transforms.RandomHorizontalFlip()] if flip else []),
            transforms.RandomCrop(size, padding=padding),
            transforms.ToTensor(),
            transforms.Normalize([MEAN] * channels, [STD] * channels),
        ]
    )


@dataclass(frozen=True)
class PlainTransform:
    """What torchvision does, step by step, drawn from torch's generator in the same order."""

    size: int
    channels: int
    flip: bool
    padding: int

    def __call__(self, picture: Image.Image) -> Tensor:
        if self.flip and torch.rand(1) < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        picture = ImageOps.expand(picture, border=self.padding, fill=0)
        last = 2 * self.padding + 1
        top, left = (int(torch.randint(0, last, size=(1,))) for _ in range(2)) if last > 1 else (0, 0)
        picture = picture.crop((left, top, left + self.size, top + self.size))
        pixels = torch.from_numpy(np.array(picture, copy=True)).view(self.size, self.size, self.channels)
        image = pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        mean, std = (torch.full((self.channels, 1, 1), value) for value in (MEAN, STD))
        return image.sub_(mean).div_(std)
