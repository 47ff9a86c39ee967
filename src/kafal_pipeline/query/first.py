"""Orders each client's samples for its first labels, before there is a model."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.config.base import InitialQuery
from kafal_pipeline.data.pools import Order, at_random
from kafal_pipeline.query.base import filled
from kafal_pipeline.query.geometry.herding import herding
from kafal_pipeline.query.geometry.k_means import k_means, nearest_to_centres
from kafal_pipeline.query.geometry.points import Points

SIDE = 8  # larger images are averaged to so many rows and columns
SIGMA = 1.0  # width of the kernel, as that of `kafal_pipeline.query.max_herding`
BATCH = 1024  # images that are converted at once


def first_order(images: NDArray[Any], how: InitialQuery) -> Order:
    """Return what orders a client's samples, by ``budget.initial_query``.

    `images`: all training images, or features in their place, ``(N, H, W, C)``. Those that are not chosen are in random
    order.

    Samples are seen as they are, without a model: pixels, of larger images means over a grid of 8 x 8, standardised
    over the client's samples. ``random``: without regard to them. ``k_means``: the nearest to the centre of each of as
    many clusters as samples are chosen. ``herding``: greedily the largest gain in coverage, of the standardised pixels
    divided by their length, given those that have a label (`kafal_pipeline.query.max_herding`).
    """
    if how == "random":
        return at_random

    def order(
        samples: NDArray[np.int64], known: NDArray[np.bool_], count: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        shuffled = at_random(samples, known, count, rng)
        count = min(count, len(shuffled))
        if count == 0:
            return shuffled
        points, unknown = Points((standardised(images, samples),)), np.flatnonzero(~known)
        if how == "k_means":
            taken = nearest_to_centres(*k_means(points.take(unknown), count, rng))
        else:
            points = Points((F.normalize(points.factors[0], dim=1),))
            seeds = points.take(np.flatnonzero(known))
            taken, _ = herding(points.take(unknown), seeds, count, rng, sigma=SIGMA)
        return filled(unknown[taken], shuffled, len(shuffled))

    return order


def standardised(images: NDArray[Any], samples: NDArray[np.int64]) -> Tensor:
    """Return samples as vectors whose every entry has mean 0 and variance 1, or 0 if it is constant, float64."""
    x = torch.empty(0, dtype=torch.float64)
    for start in range(0, len(samples), BATCH):
        batch = torch.from_numpy(images[samples[start : start + BATCH]].astype(np.float32)).permute(0, 3, 1, 2)
        height, width = batch.shape[2:]
        if max(height, width) > SIDE:
            batch = F.adaptive_avg_pool2d(batch, (min(height, SIDE), min(width, SIDE)))
        batch = batch.flatten(1)
        if not len(x):
            x = torch.empty(len(samples), batch.shape[1], dtype=torch.float64)
        x[start : start + BATCH] = batch
    x -= x.mean(dim=0)
    spread = torch.stack([column.square().mean().sqrt() for column in x.T])
    return x.div_(torch.where(spread > 0, spread, 1.0))
