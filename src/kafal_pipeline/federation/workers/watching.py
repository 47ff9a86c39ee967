"""Watches how often a client's model changes its prediction while it trains, for queries that ask for it."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import nn

from kafal_pipeline.common.errors import NotAllowed
from kafal_pipeline.common.randomness import Purpose, numpy_generator
from kafal_pipeline.common.users_code import blamed
from kafal_pipeline.config import Config
from kafal_pipeline.data.pools import ClientPool
from kafal_pipeline.models.state import Arrays
from kafal_pipeline.query.factory import make_query
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.training.inference import predictions


def begin_watching(config: Config, pools: Mapping[int, ClientPool], cycle: int) -> dict[int, Arrays]:
    """Draw what is watched of each client in a cycle; nothing unless the query has `watched_samples`.

    Returns by client: ``samples`` (ascending), their ``changes`` so far, 0, and the classes last ``predicted``, -1.
    """
    query = make_query(config.query)
    with blamed(f"cycle {cycle}, all clients", query=query):
        size = getattr(query, "watched_samples", 0)
        if not isinstance(size, int) or size < 0:
            raise NotAllowed(f"`watched_samples` is {size!r}; allowed: a whole number from 0 on.")
    if not size:
        return {}
    watched: dict[int, Arrays] = {}
    for client, pool in pools.items():
        rng = numpy_generator(config.seed, Purpose.WATCH, cycle, 0, client)
        samples = np.sort(rng.permutation(pool.candidates)[:size])
        watched[client] = {
            "samples": samples,
            "changes": np.zeros(len(samples), dtype=np.int64),
            "predicted": np.full(len(samples), -1, dtype=np.int64),
        }
    return watched


class Watch:
    """Counts changes of the predicted class from one local epoch to the next.

    `watched` is as `begin_watching` or the client's last round left it, and is not changed; `in_use` is the network
    that trains, as it computes in the configured precision.
    """

    def __init__(self, watched: Arrays, network: nn.Module, in_use: nn.Module, pixels: Pixels) -> None:
        self.network, self.in_use, self.pixels = network, in_use, pixels
        self.samples: NDArray[np.int64] = watched["samples"]  # type: ignore[assignment]
        self.changes: NDArray[np.int64] = watched["changes"]  # type: ignore[assignment]
        self.predicted: NDArray[np.int64] = watched["predicted"]  # type: ignore[assignment]

    def after_epoch(self, epoch: int) -> None:
        """Predict the watched samples, and put the network back into training mode."""
        now = predictions(self.in_use, self.pixels, self.samples)
        self.network.train()
        self.changes = self.changes + ((self.predicted >= 0) & (self.predicted != now))
        self.predicted = now

    @property
    def arrays(self) -> Arrays:
        """The state with which the client's next round continues."""
        return {"samples": self.samples, "changes": self.changes, "predicted": self.predicted}
