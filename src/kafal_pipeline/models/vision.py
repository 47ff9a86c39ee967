"""Imports torchvision, here only: the project's own networks train without it."""

from typing import Any

import torch
from torch import nn

from kafal_pipeline.common.errors import UserError


def torchvision_models(name: str) -> Any:
    """Return the module ``torchvision.models``; `name` is the network that wants it, for the message.

    Raises `UserError` if torchvision is not installed, or does not fit the installed torch.
    """
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # RuntimeError: its operators were built for another torch
        raise UserError(
            f"model.name: {name} needs torchvision, which cannot be imported ({error}). Install the torchvision that "
            f"matches torch {torch.__version__}, from the same index as torch: pip install torchvision."
        ) from None
    return models


def keep_resolution(strided: list[nn.Module], side: int, before: int) -> None:
    """Take the stride from the blocks that would shrink the feature map to a single pixel.

    Batch norm has no variance in a batch of one image of one pixel, so that small images need fewer strides; weights
    have the same shapes either way.

    `strided`: blocks in order, each with stride 2 somewhere. `side`: the images' shorter side, in pixels. `before`:
    factor by which what comes before the blocks shrinks it.
    """
    side = -(-side // before)
    for block in strided:
        if side > 2:
            side = -(-side // 2)
            continue
        for module in block.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
