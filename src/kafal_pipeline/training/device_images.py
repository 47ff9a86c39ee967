"""Images on the device as one uint8 tensor; a batch is a gather, not a loader."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.config import AugmentationConfig


class Pixels:
    """Images, uint8 ``(N, H, W, C)``, that are handed out as normalised float32 batches in channels-last layout.

    On the CPU the tensor shares the array's memory. `mean`, `std`: per channel, of pixels scaled to [0, 1]. Features,
    float16 or float32 ``(N, 1, 1, D)``, are not scaled: mean and standard deviation are of their own values.
    """

    def __init__(self, images: NDArray[Any], mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        self.images = torch.from_numpy(images).to(device)
        self.device = device
        # (x / 255 - mean) / std as one multiplication and one addition.
        largest = 1.0 if self.images.is_floating_point() else 255.0
        scale = 1.0 / (largest * np.asarray(std, dtype=np.float64))
        # For every pixel, not for every channel: broadcasting three numbers is ten times slower on a CPU.
        shape = self.images.shape[1:]
        self._scale = torch.tensor(scale, dtype=torch.float32, device=device).expand(shape).contiguous()
        shift = torch.tensor(-np.asarray(mean) / np.asarray(std), dtype=torch.float32, device=device)
        self._shift = shift.expand(shape).contiguous()

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> Tensor:
        """Return the images of `indices` (int64 ``(n,)``), normalised, float32 ``(n, C, H, W)``."""
        return self._normalise(self.images.index_select(0, indices))

    def augmented(self, indices: Tensor, augmentation: AugmentationConfig, generator: torch.Generator) -> Tensor:
        """Return the images of `indices`, each randomly flipped and cropped after zero padding, then normalised."""
        images = self.images.index_select(0, indices)
        n, height, width, channels = images.shape
        padding = augmentation.crop_padding
        if padding or augmentation.flip:
            rows = torch.arange(height, device=self.device).expand(n, height)
            columns = torch.arange(width, device=self.device).expand(n, width)
            if augmentation.flip:
                flip = torch.rand((n, 1), generator=generator, device=self.device) < 0.5
                columns = torch.where(flip, columns.flip(1), columns)
            if padding:
                images = F.pad(images, (0, 0, padding, padding, padding, padding))
                offset = torch.randint(2 * padding + 1, (2, n, 1), generator=generator, device=self.device)
                rows, columns = rows + offset[0], columns + offset[1]
            rows = rows + images.shape[1] * torch.arange(n, device=self.device).unsqueeze(1)
            pixel = rows.unsqueeze(2) * images.shape[2] + columns.unsqueeze(1)
            images = images.view(-1, channels).index_select(0, pixel.view(-1)).view(n, height, width, channels)
        return self._normalise(images)

    def _normalise(self, images: Tensor) -> Tensor:
        return images.to(torch.float32).mul_(self._scale).add_(self._shift).permute(0, 3, 1, 2)
