"""Predictions of a global model on the test set: a row of logits for each image."""

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.federation.workers.tasks import PredictTask
from kafal_pipeline.models.state import State, to_arrays

CHUNK = 1000  # test images in a task. Fixed, so that the batches are the same for every number of processes


def predict_test(global_state: State, size: int, workers: Workers) -> NDArray[np.float32]:
    """Return the logits of all `size` test images, float32 ``(size, C)``; the largest one is the predicted class."""
    arrays = to_arrays(global_state)
    tasks = [PredictTask(arrays, start, min(start + CHUNK, size)) for start in range(0, size, CHUNK)]
    return np.concatenate(workers.map("predict", tasks))
