"""k-means++: points drawn with chances that grow with the squared distance to those drawn before."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from kafal_pipeline.query.base import Scores
from kafal_pipeline.query.geometry.points import Points


def k_means_pp(
    points: Points,
    count: int,
    rng: np.random.Generator,
    *,
    first: Literal["longest", "random"],
    weights: Scores | None = None,
) -> tuple[NDArray[np.int64], Scores]:
    """Draw `count <= n` distinct points by D^2 sampling.

    `first`: the longest (ties by `rng`), or one drawn at random. `weights`: multiply the chances, ``(n,)``, at least 0.
    Returns positions and distances in order of drawing, ``(count,)`` each; a distance is that to the nearest drawn
    before, for the first its length. Once no point left has a chance (all coincide with drawn ones), the rest is drawn
    uniformly.
    """
    order = rng.permutation(len(points))
    points = points.take(order)
    factor = np.ones(len(order)) if weights is None else np.asarray(weights, dtype=np.float64)[order]
    lengths = points.squared_norms.cpu().numpy()
    left = np.ones(len(order), dtype=bool)
    nearest = points.squared_norms
    chosen: list[int] = []
    distances: list[float] = []
    for _ in range(count):
        chances = np.where(left, (nearest.cpu().numpy() if chosen else np.ones(len(order))) * factor, 0.0)
        if not chosen and first == "longest":
            position = int(lengths.argmax())
        elif chances.sum() > 0:
            cumulative = np.cumsum(chances)
            position = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
            position = min(position, int(chances.nonzero()[0][-1]))  # rounding may point past the last
        else:
            position = int(rng.choice(left.nonzero()[0]))
        distances.append(float(np.sqrt(nearest[position].item())))
        to_new = points.squared_distances(points.take(np.array([position])))[:, 0]
        nearest = torch.minimum(nearest, to_new) if chosen else to_new
        chosen.append(position)
        left[position] = False
    return order[np.array(chosen, dtype=np.int64)], np.array(distances)
