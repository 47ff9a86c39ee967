"""Divides samples into batches."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor


def labelled_batches(
    size: int, batch_size: int, batches: Literal["equal", "published"], generator: torch.Generator
) -> list[Tensor]:
    """Shuffle ``0 .. size-1`` and cut it into the batches of one local epoch.

    ``published``: batches of `batch_size` and a short last one. ``equal``: as many batches, of equal size up to one
    sample, because batch norm on a last batch of two or three samples can wreck a model.

    >>> g = torch.Generator().manual_seed(0)
    >>> [len(b) for b in labelled_batches(10, 4, "published", g)], [len(b) for b in labelled_batches(10, 4, "equal", g)]
    ([4, 4, 2], [4, 3, 3])
    """
    order = torch.randperm(size, generator=generator, device=generator.device)
    if batches == "published":
        return list(order.split(batch_size))
    return list(order.tensor_split(math.ceil(size / batch_size)))


def unlabelled_batches(size: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor | None]:
    """Yield batches of one shuffle of ``0 .. size-1`` after the other, without end; None if there is nothing.

    A pool smaller than the labelled set is gone through several times an epoch.
    """
    while size:
        yield from torch.randperm(size, generator=generator, device=generator.device).split(batch_size)
    while True:
        yield None
