"""Greedy k-centre: takes again and again the point that is farthest from all points taken so far."""

import numpy as np
import torch
from numpy.typing import NDArray

from kafal_pipeline.query.base import Scores
from kafal_pipeline.query.geometry.points import Points


def k_centre(
    points: Points, seeds: Points | None, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Scores]:
    """Choose `count <= n` distinct points, each the farthest from the seeds and from those before it.

    Without seeds, the first point is drawn at random. Returns positions and distances in order of choice, ``(count,)``
    each; a distance is that to the nearest taken before, 0 for a drawn first point.
    """
    order = rng.permutation(len(points))
    points = points.take(order)
    empty = seeds is None or not len(seeds)
    nearest = torch.zeros_like(points.squared_norms) if empty else points.nearest(seeds)  # type: ignore[arg-type]
    chosen, distances = [], []
    for step in range(count):
        # argmax takes the first of equals, and the order is a random permutation
        position = int(nearest.argmax())
        chosen.append(position)
        distances.append(float(nearest[position].clamp_min(0).sqrt()))
        to_new = points.squared_distances(points.take(np.array([position])))[:, 0]
        nearest = to_new if empty and step == 0 else torch.minimum(nearest, to_new)
        nearest[chosen] = -1.0
    return order[np.array(chosen, dtype=np.int64)], np.array(distances)
