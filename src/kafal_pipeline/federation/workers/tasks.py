"""Tasks for worker processes and their results; made of arrays, so that they can be sent between processes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.models.state import Arrays


@dataclass(frozen=True)
class TrainTask:
    """Local training of one client in one round; samples are indices into the training set.

    `momentum`, `epochs` and `steps` are what the client has of this cycle; `kept` is what the update kept for it,
    `server` what it broadcasts beside the model, `previous` the client's last model where the update wants it, and
    `batch_norm` its own batch norms where these stay local. `watched` is what the query has watched while this client
    trains (`kafal_pipeline.federation.workers.watching`).
    """

    client: int
    cycle: int
    round: int
    global_state: Arrays
    momentum: Arrays | None
    epochs: int
    labelled: NDArray[np.int64]
    labels: NDArray[np.int64]
    unlabelled: NDArray[np.int64]
    steps: int = 0
    kept: Arrays = field(default_factory=dict)
    server: Arrays = field(default_factory=dict)
    previous: Arrays | None = None
    batch_norm: Arrays = field(default_factory=dict)
    watched: Arrays | None = None


@dataclass(frozen=True)
class TrainResult:
    """A trained client: its model, momentum, local epochs in this cycle, mean loss, steps and seconds.

    `travel`, `kept` and `message` are the update's (`kafal_pipeline.update.base`), `parameters` the names of those
    entries of `state` that are parameters and not a client's own, `batch_norm` what the client keeps of it where batch
    norms stay local, `watched` what its task's became.
    """

    client: int
    state: Arrays
    momentum: Arrays
    epochs: int
    loss: float
    steps: int
    seconds: float
    travel: float
    parameters: frozenset[str]
    kept: Arrays
    message: Arrays
    batch_norm: Arrays
    watched: Arrays | None


@dataclass(frozen=True)
class PredictTask:
    """Predictions of one model for test images ``start .. stop``."""

    state: Arrays
    start: int
    stop: int
