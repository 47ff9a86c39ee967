"""Forwards in evaluation mode, without augmentation."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kafal_pipeline.query.pool import Outputs
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.training.fusion import fused
from kafal_pipeline.training.precision import Autocast

PIXELS = {"cpu": 24 * 32 * 32, "cuda": 4096 * 32 * 32}
"""Pixels in a float32 forward; twice as many in bfloat16. On a CPU 24 images of 32x32, whose largest results nearly fit
a core's own cache; more are a tenth slower where others use the shared one. Fixed, because a sum may round differently
in a batch of another size."""

FEATURES_A_PIXEL = 16
"""Features in the place of a pixel: 1.5 MB of float32 in a forward on a CPU."""


def chunk_size(pixels: Pixels, *, reduced: bool = False) -> int:
    """Return how many images a forward takes; `reduced`: in bfloat16."""
    _, height, width, channels = pixels.images.shape
    count = PIXELS[pixels.device.type] * (2 if reduced else 1)
    # Of features a value is what a pixel is of an image: a forward keeps little besides them.
    return max(
        1, count * FEATURES_A_PIXEL // channels if pixels.images.is_floating_point() else count // (height * width)
    )


def _features(network: nn.Module, pixels: Pixels, indices: NDArray[np.int64]) -> Iterator[Tensor]:
    """Yield the penultimate features of chunk after chunk, float32."""
    reduced = isinstance(network, Autocast)
    dtype = torch.bfloat16 if reduced else torch.float32
    fast = fused(network.network if isinstance(network, Autocast) else network, pixels.device, dtype)
    fast = fast.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for chunk in torch.as_tensor(indices, device=pixels.device).split(chunk_size(pixels, reduced=reduced)):
        yield fast.features(pixels.batch(chunk).to(dtype)).float()  # type: ignore[operator]


@torch.inference_mode()
def outputs(network: nn.Module, pixels: Pixels, indices: NDArray[np.int64]) -> Outputs:
    """Return logits ``(n, C)`` and penultimate features ``(n, d)`` of the images of `indices`, float32.

    The head is applied in float32; an `Autocast` network does all else in bfloat16.
    """
    head: nn.Linear = network.head  # type: ignore[assignment]
    features = list(_features(network, pixels, indices))
    joined = torch.cat(features) if features else torch.empty((0, head.in_features), device=pixels.device)
    return Outputs(head(joined), joined)


@torch.inference_mode()
def logits(network: nn.Module, pixels: Pixels, indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the logits of the images of `indices`, float32 ``(n, C)``."""
    head: nn.Linear = network.head  # type: ignore[assignment]
    parts = [head(chunk) for chunk in _features(network, pixels, indices)]
    return torch.cat(parts).cpu().numpy() if parts else np.empty((0, head.out_features), dtype=np.float32)


def predictions(network: nn.Module, pixels: Pixels, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the predicted classes of the images of `indices`, int64 ``(n,)``."""
    return logits(network, pixels, indices).argmax(axis=1)
