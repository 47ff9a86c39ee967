"""Rewrites networks so that a forward in evaluation mode does less work; results are equal up to rounding."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kafal_pipeline.training import precision

# PyTorch's operators of a convolution with what follows it, and to lay a weight out as the convolution of images of one
# shape reads it. Neither is public: where a version of PyTorch lacks one, it is not used.
POINTWISE, PACK = "_convolution_pointwise", "_reorder_convolution_weight"


def folded(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose convolutions have the batch norms that `folds` names worked in.

    Batch norm with running statistics is one multiplication and one addition for each channel.
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


def fused(network: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return a `folded` copy whose `residual_blocks` do their ReLU and addition inside the convolutions, on a CPU."""
    fast = folded(network)
    if dtype == torch.bfloat16 and not precision.fast_bf16(device):  # PyTorch has these operators where the CPU has it
        return fast
    if device.type != "cpu" or not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, POINTWISE):
        return fast
    for name in fast.residual_blocks() if hasattr(fast, "residual_blocks") else ():  # type: ignore[operator]
        block = fast.get_submodule(name)
        if isinstance(block.bn1, nn.Identity) and isinstance(block.bn2, nn.Identity):
            fast.set_submodule(name, FusedBlock(block))
    return fast


class FusedBlock(nn.Module):
    """``relu(conv2(relu(conv1(x))) + shortcut(x))`` of a folded block, without passes over memory for the rest."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.conv1, self.conv2 = (PackedConvolution(block.get_submodule(name)) for name in ("conv1", "conv2"))
        shortcut = block.get_submodule("shortcut")
        self.shortcut = PackedConvolution(shortcut) if isinstance(shortcut, nn.Conv2d) else shortcut

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(n, in, H, W)`` to ``(n, out, H / stride, W / stride)``; `images` may be overwritten."""
        out = torch.ops.mkldnn._convolution_pointwise(images, *self.conv1.arguments(images), "relu", [], "")
        # The sum is built up in the shortcut's output, or in the input where there is none: nobody needs it after.
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            self.shortcut(images), out, *self.conv2.arguments(out), "add", 1.0, "relu", [], None
        )


class PackedConvolution(nn.Module):
    """A convolution whose weight is laid out once, in the first forward, instead of in every one.

    After that it cannot be cast any more, and batches of the first one's shape are fastest.
    """

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        assert isinstance(convolution, nn.Conv2d)
        self.convolution = convolution
        self._packed: Tensor | None = None

    def arguments(self, images: Tensor) -> tuple[object, ...]:
        """Return weight, bias and geometry, as PyTorch's operators take them."""
        own = self.convolution
        geometry = (own.padding, own.stride, own.dilation, own.groups)
        if self._packed is None:
            pack = getattr(torch.ops.mkldnn, PACK, None)
            self._packed = own.weight if pack is None else pack(own.weight, *geometry, images.shape)
        return self._packed, own.bias, *geometry

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(n, in, H, W)`` to ``(n, out, H / stride, W / stride)``."""
        return torch.ops.mkldnn._convolution_pointwise(images, *self.arguments(images), "none", [], "")
