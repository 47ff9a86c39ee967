"""Batch norm that accepts every batch size, and group norm as its replacement."""

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _AnyBatch:
    """Batch norm that takes a batch with one value a channel: one image whose feature map is a single pixel.

    One value has no variance, which PyTorch refuses in training. Such a batch is normalised by the running statistics
    and does not move them; every other one is left to PyTorch.
    """

    def forward(self, values: Tensor) -> Tensor:
        norm: nn.BatchNorm2d = self  # type: ignore[assignment]
        if not norm.training or norm.running_mean is None or values.numel() != values.shape[1]:
            return super().forward(values)  # type: ignore[misc]
        return F.batch_norm(values, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


TAKES_ANY_BATCH: dict[type, type] = {norm: type(f"_{norm.__name__}", (_AnyBatch, norm), {}) for norm in BATCH_NORMS}


def take_any_batch(network: nn.Module) -> None:
    """Make every batch norm of `network`, but those of a class of one's own, an `_AnyBatch` with the same tensors."""
    for module in network.modules():
        if type(module) in TAKES_ANY_BATCH:
            module.__class__ = TAKES_ANY_BATCH[type(module)]


def group_count(channels: int) -> int:
    """Return the number of groups: Wu & He's 32, or fewer so that each has at least 4 channels.

    A group of one or two channels would keep nothing of its input.

    >>> [group_count(channels) for channels in (16, 64, 512, 24, 7)]
    [4, 16, 32, 4, 1]
    """
    return max(
        count for count in (1, 2, 4, 8, 16, 32) if channels % count == 0 and (count == 1 or channels >= 4 * count)
    )


def replace_batch_norm(network: nn.Module) -> None:
    """Put group norm, whose statistics are those of one image, in the place of every batch norm of `network`.

    Source: Wu & He, "Group Normalization", ECCV 2018; Hsieh et al., "The Non-IID Data Quagmire of Decentralized Machine
    Learning", ICML 2020.
    """
    for name, child in network.named_children():
        if isinstance(child, BATCH_NORMS):
            setattr(network, name, nn.GroupNorm(group_count(child.num_features), child.num_features, eps=child.eps))
        else:
            replace_batch_norm(child)


def batch_norm_names(network: nn.Module) -> list[str]:
    """Return the names of all parameters and floating-point statistics of batch norms in `network`'s state.

    >>> batch_norm_names(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)))
    ['1.weight', '1.bias', '1.running_mean', '1.running_var']
    """
    return [
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        if isinstance(module, BATCH_NORMS)
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point()
    ]
