"""Forwards in evaluation mode, without augmentation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kafal_pipeline.query.pool import Outputs
from kafal_pipeline.training.pixels import Pixels

PIXELS = {"cpu": 64 * 32 * 32, "cuda": 4096 * 32 * 32}
"""Pixels in a forward. On a CPU the activations then stay in its caches: 64 images of 32x32 are faster than 500.
Fixed, because a sum may round differently in a batch of another size."""


def _batches(pixels: Pixels, indices: NDArray[np.int64]) -> Iterator[Tensor]:
    height, width = pixels.images.shape[1:3]
    size = max(1, PIXELS[pixels.device.type] // (height * width))
    for chunk in torch.as_tensor(indices, device=pixels.device).split(size):
        yield pixels.batch(chunk)


@torch.inference_mode()
def outputs(network: nn.Module, pixels: Pixels, indices: NDArray[np.int64]) -> Outputs:
    """Return logits ``(n, C)`` and penultimate features ``(n, d)`` of the images of `indices`, float32."""
    network.eval()
    features = [network.features(images) for images in _batches(pixels, indices)]  # type: ignore[operator]
    if not features:
        features = [torch.empty((0, network.head.in_features), device=pixels.device)]  # type: ignore[arg-type, union-attr]
    joined = torch.cat(features)
    return Outputs(network.head(joined), joined)  # type: ignore[operator]


@torch.inference_mode()
def predictions(network: nn.Module, pixels: Pixels, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the predicted classes of the images of `indices`, int64 ``(n,)``."""
    network.eval()
    parts = [network(images).argmax(dim=1) for images in _batches(pixels, indices)]
    return torch.cat(parts).cpu().numpy() if parts else np.empty(0, dtype=np.int64)
