"""Computes features of images with a fixed network, a slice at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kafal_pipeline.common.errors import UserError, did_you_mean
from kafal_pipeline.config import FeaturesConfig, ModelConfig
from kafal_pipeline.data import ImageData
from kafal_pipeline.models.factory import build
from kafal_pipeline.models.pretrained import load_pretrained
from kafal_pipeline.models.vision import torchvision_models
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.training.fusion import fused

TORCHVISION = "torchvision."
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # mean and std that torchvision's weights are for
KEY = "features.weights"


def extractor(features: FeaturesConfig, weights: Path, images: ImageData, device: torch.device) -> nn.Module:
    """Return a module from normalised images ``(n, C, H, W)`` to features ``(n, D)``, in evaluation mode.

    Raises `UserError` if there is no such network or layer, or the file is not of its weights.
    """
    name = str(features.network)
    if name.startswith(TORCHVISION):
        network = _torchvision(name.removeprefix(TORCHVISION), weights)
    else:
        config = ModelConfig(name=name, options=features.options)
        shape = {"in_channels": images.channels, "num_classes": images.num_classes}
        size, generator = images.train_images.shape[1:3], torch.Generator().manual_seed(0)
        network = build(config, **shape, image_size=size, generator=generator)
        load_pretrained(network, weights, KEY)
    network.eval().requires_grad_(False).to(device)
    if features.layer != "penultimate":
        modules = dict(network.named_modules())
        if features.layer not in modules or not features.layer:
            raise UserError(
                f"features.layer: found {features.layer!r}. {did_you_mean(features.layer, list(modules)[1:])}"
            )
        return _Tapped(network, modules[features.layer], features.pooling, before=False)
    if name.startswith(TORCHVISION):
        last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
        return _Tapped(network, last, features.pooling, before=True)
    return _Penultimate(fused(network, device))


def _torchvision(name: str, weights: Path) -> nn.Module:
    models = torchvision_models(name)
    try:
        network: nn.Module = models.get_model(name, weights=None)
    except ValueError:
        raise UserError(
            f"features.network: torchvision has no {name!r}. {did_you_mean(name, models.list_models())}"
        ) from None
    load_pretrained(network, weights, KEY)
    return network


class _Penultimate(nn.Module):
    """The features of one of the project's networks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.features(images)  # type: ignore[operator]


class _Tapped(nn.Module):
    """What a module of a network reads (`before`), or what it returns, pooled over places."""

    def __init__(self, network: nn.Module, module: nn.Module, pooling: str, *, before: bool) -> None:
        super().__init__()
        self.network, self.pooling = network, pooling
        self._seen: Tensor | None = None
        if before:
            module.register_forward_pre_hook(lambda _, inputs: self._note(inputs[0]))
        else:
            module.register_forward_hook(lambda _, __, output: self._note(output))

    def _note(self, tensor: Tensor) -> None:
        self._seen = tensor

    def forward(self, images: Tensor) -> Tensor:
        self._seen = None
        self.network(images)
        seen, self._seen = self._seen, None
        if not isinstance(seen, Tensor) or seen.ndim < 2:
            raise UserError("features.layer: this module returns no tensor of one row an image. Name another one.")
        return pooled(seen, self.pooling)


def pooled(values: Tensor, pooling: str) -> Tensor:
    """Return ``(n, D)`` of a map ``(n, C, H, W)``, of tokens ``(n, T, C)``, or of rows as they are.

    >>> [tuple(pooled(torch.ones(2, 3, 4, 5), way).shape) for way in ("mean", "max", "flatten")]
    [(2, 3), (2, 3), (2, 60)]
    """
    places = {4: (2, 3), 3: (1,)}.get(values.ndim)
    if places is None or pooling == "flatten":
        return values.flatten(1)
    return values.mean(dim=places) if pooling == "mean" else values.amax(dim=places)


@dataclass(frozen=True)
class Extracted:
    """Features of all `pixels`, computed as they are asked for, as images of one pixel (`ImageData`)."""

    network: Callable[[Tensor], Tensor]
    pixels: Pixels
    batch_size: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]  # ``(N, 1, 1, D)``

    @classmethod
    def of(
        cls,
        network: nn.Module,
        pixels: NDArray[np.uint8],
        images: ImageData,
        features: FeaturesConfig,
        device: torch.device,
    ) -> Self:
        """Return the features of some of the images; a first batch tells how many there are."""
        of_torchvision = str(features.network).startswith(TORCHVISION)
        mean = features.mean or (IMAGENET[0] if of_torchvision else images.mean.tolist())
        std = features.std or (IMAGENET[1] if of_torchvision else images.std.tolist())
        if images.channels == 1 and of_torchvision:
            # Three equal channels without a copy; `np.broadcast_to` would be read-only, of which PyTorch warns.
            pixels = np.lib.stride_tricks.as_strided(pixels, (*pixels.shape[:3], 3), (*pixels.strides[:3], 0))
        for key, values in (("mean", mean), ("std", std)):
            if len(values) != pixels.shape[-1]:
                raise UserError(
                    f"features.{key}: found {len(values)} items; {pixels.shape[-1]} are needed, one for each channel."
                )
        made = cls(network, Pixels(pixels, mean, std, device), features.batch_size, np.dtype(features.dtype), ())
        return cls(
            network, made.pixels, made.batch_size, made.dtype, (len(pixels), *made[0 : features.batch_size].shape[1:])
        )

    @torch.inference_mode()
    def __getitem__(self, rows: slice, /) -> NDArray[np.floating]:
        """Return the features of the images `rows`, ``(n, 1, 1, D)``; UserError if a value is not finite."""
        indices = torch.arange(*rows.indices(len(self.pixels)), device=self.pixels.device)
        found = torch.cat([self.network(self.pixels.batch(some)) for some in indices.split(self.batch_size)])
        with np.errstate(over="ignore"):
            values = found.float().cpu().numpy().astype(self.dtype)
        if not np.isfinite(values).all():
            raise UserError(
                f"features: image {rows.start} or one of the {len(values)} from there on has a feature of "
                f"{float(found.abs().max()):g}, which {self.dtype} does not hold. Set features.dtype=float32, or check "
                "features.weights, features.mean and features.std."
            )
        return values[:, None, None, :]
