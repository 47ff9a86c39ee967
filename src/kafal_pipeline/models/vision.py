"""Imports torchvision, here only: the project's own networks train without it."""

from typing import Any

import torch
from torch import nn

from kafal_pipeline.common.errors import UserError


def torchvision_models(name: str) -> Any:
    """Return ``torchvision.models``; UserError if it is not installed for this torch, for the network `name`."""
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: its operators were built for another torch
        raise UserError(
            f"model.name: {name} needs torchvision, which cannot be imported ({error}). Install the torchvision that "
            f"matches torch {torch.__version__}, from the same index as torch: pip install torchvision."
        ) from None
    return models


def keep_resolution(strided: list[nn.Module], side: int, before: int) -> None:
    """Take the stride from those blocks, in order, that would shrink the feature map to a single pixel.

    Batch norm has no variance in a batch of one image of one pixel. `side`: the images' shorter side, in pixels;
    `before`: factor by which what comes before the blocks shrinks it.
    """
    side = -(-side // before)
    for block in strided:
        if side > 2:
            side = -(-side // 2)
            continue
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
