"""Arithmetic of forwards and backwards: float32, TF32 on a GPU, or bfloat16 where it is safe."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Autocast(nn.Module):
    """A network whose convolutions and products run in bfloat16; parameters, outputs and losses stay float32.

    Parameters
    ----------
    network
        Keeps its float32 parameters; training mode passes through to it.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Return float32 logits ``(n, classes)``."""
        with torch.autocast(images.device.type, dtype=torch.bfloat16, cache_enabled=False):
            logits: Tensor = self.network(images)
        return logits.float()

    def features(self, images: Tensor) -> Tensor:
        """Return float32 features ``(n, d)``."""
        with torch.autocast(images.device.type, dtype=torch.bfloat16, cache_enabled=False):
            features: Tensor = self.network.features(images)  # type: ignore[operator]
        return features.float()

    @property
    def head(self) -> nn.Linear:
        """The network's last layer, applied in float32."""
        return self.network.head  # type: ignore[return-value]


def in_precision(network: nn.Module, precision: str) -> nn.Module:
    """Return `network` as it computes in `precision`; its parameters are shared. ``tf32`` is a matter of `prepare`."""
    return Autocast(network) if precision == "bf16" else network


def prepare(device: torch.device, precision: str) -> None:
    """Set up a GPU for `precision`: ``fp32`` is exact float32, ``tf32`` rounds products' factors to 10 bits."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = True  # shapes recur, so that the search for the fastest algorithm pays
