"""Predicts the test set with a global model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.federation.workers.tasks import PredictTask
from kafal_pipeline.models.state import State, to_arrays

CHUNK = 1000
"""Test images in a task. Fixed, so that the batches are the same for every number of processes."""


def predict_test(global_state: State, size: int, workers: Workers) -> NDArray[np.int64]:
    """Return the predicted classes of all `size` test images, int64 ``(size,)``."""
    arrays = to_arrays(global_state)
    tasks = [PredictTask(arrays, start, min(start + CHUNK, size)) for start in range(0, size, CHUNK)]
    return np.concatenate(workers.map("predict", tasks))
