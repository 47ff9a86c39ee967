"""Batch norm, and group norm in its place."""

from __future__ import annotations

from torch import nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def group_count(channels: int) -> int:
    """Return the number of groups for that many channels: 32, or fewer so that each has at least 4 channels.

    Wu & He's 32 groups suit wide layers; in narrow ones a group of one or two channels would keep nothing of its input.

    Examples
    --------
    >>> [group_count(channels) for channels in (16, 64, 512, 24, 7)]
    [4, 16, 32, 4, 1]
    """
    return max(
        count for count in (1, 2, 4, 8, 16, 32) if channels % count == 0 and (count == 1 or channels >= 4 * count)
    )


def replace_batch_norm(network: nn.Module) -> None:
    """Put group norm in the place of every batch norm of `network`.

    Its statistics are those of one image, so that clients with other classes do not disagree about them.

    References
    ----------
    Wu & He, "Group Normalization", ECCV 2018; Hsieh et al., "The Non-IID Data Quagmire of Decentralized Machine
    Learning", ICML 2020.
    """
    for name, child in network.named_children():
        if isinstance(child, BATCH_NORMS):
            setattr(network, name, nn.GroupNorm(group_count(child.num_features), child.num_features, eps=child.eps))
        else:
            replace_batch_norm(child)


def batch_norm_names(network: nn.Module) -> list[str]:
    """Return the names of all parameters and floating-point statistics of batch norms in `network`'s state.

    Examples
    --------
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
