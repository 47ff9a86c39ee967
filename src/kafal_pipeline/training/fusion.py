"""Networks rewritten so that a forward in evaluation mode does less work; the results are equal up to rounding."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

POINTWISE = "_convolution_pointwise"
"""PyTorch's operator of a convolution with what follows it, which its compiler emits for CPUs. Not public: where a
version of PyTorch lacks it, blocks stay as they are."""


def folded(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose convolutions have the batch norms that follow them worked in.

    Parameters
    ----------
    network
        Says in `folds`, if it has that method, which batch norm directly follows which convolution; the others stay.

    Notes
    -----
    Equal up to rounding: batch norm with running statistics is one multiplication and one addition for each channel.
    """
    fast = copy.deepcopy(network).eval()
    for convolution_name, norm_name in fast.folds() if hasattr(fast, "folds") else ():  # type: ignore[operator]
        norm = fast.get_submodule(norm_name)
        if not isinstance(norm, nn.BatchNorm2d):
            continue  # a group norm depends on the image
        convolution = fast.get_submodule(convolution_name)
        fast.set_submodule(convolution_name, fuse_conv_bn_eval(convolution, norm))  # type: ignore[type-var]
        fast.set_submodule(norm_name, nn.Identity())
    return fast


def fused(network: nn.Module, device: torch.device) -> nn.Module:
    """Return a `folded` copy whose residual blocks do their ReLU and addition inside the convolutions, on a CPU.

    Parameters
    ----------
    network
        Names in `residual_blocks`, if it has that method, its blocks of the form of `FusedBlock`.
    device
        Where it computes.
    """
    fast = folded(network)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, POINTWISE):
        return fast
    for name in fast.residual_blocks() if hasattr(fast, "residual_blocks") else ():  # type: ignore[operator]
        block = fast.get_submodule(name)
        if isinstance(block.bn1, nn.Identity) and isinstance(block.bn2, nn.Identity):
            fast.set_submodule(name, FusedBlock(block))
    return fast


class FusedBlock(nn.Module):
    """``relu(conv2(relu(conv1(x))) + shortcut(x))`` without a pass over memory for each ReLU and the addition.

    Parameters
    ----------
    block
        Has ``conv1``, ``conv2`` and ``shortcut``; its batch norms are folded.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.conv1, self.conv2 = block.get_submodule("conv1"), block.get_submodule("conv2")
        self.shortcut = block.get_submodule("shortcut")

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(n, in, H, W)`` to ``(n, out, H / stride, W / stride)``; `images` may be overwritten."""
        out = torch.ops.mkldnn._convolution_pointwise(images, *_arguments(self.conv1), "relu", [], "")
        # The sum is built up in the shortcut's output, or in the input where there is none: nobody needs it after.
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            self.shortcut(images), out, *_arguments(self.conv2), "add", 1.0, "relu", [], None
        )


def _arguments(convolution: nn.Module) -> tuple[object, ...]:
    assert isinstance(convolution, nn.Conv2d)
    return (
        convolution.weight,
        convolution.bias,
        convolution.padding,
        convolution.stride,
        convolution.dilation,
        convolution.groups,
    )
