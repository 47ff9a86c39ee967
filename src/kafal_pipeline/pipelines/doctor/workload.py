"""Estimates from a configuration how much a run computes and writes. Before the split, clients count as equal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kafal_pipeline.data.partition.long_tail import long_tail_sizes
from kafal_pipeline.data.pools import cycle_budget

if TYPE_CHECKING:
    from kafal_pipeline.config import Config
    from kafal_pipeline.pipelines.doctor.shape import DataShape

PASSES = 2
"""Forwards over an unlabelled image in a query: by the global and the client's model, as KSAS does. Some queries need
one, some none, some train models of their own."""


@dataclass(frozen=True)
class Workload:
    """What a run computes: training steps of clients, clients' turns of training, images that are predicted."""

    steps: int
    turns: int
    predictions: int


def client_size(config: Config, shape: DataShape) -> int:
    """Return how many training images a client has if all have the same number, after the long tail is cut."""
    partition, total = config.partition, shape.train
    if partition.long_tail is not None:
        total = sum(long_tail_sizes(math.ceil(total / shape.classes), shape.classes, partition.long_tail))
    size = max(1, total // partition.clients)
    return size if partition.samples_per_client is None else min(size, partition.samples_per_client)


def labelled_sizes(config: Config, shape: DataShape) -> list[int]:
    """Return how many labelled images a client has in each cycle."""
    size = client_size(config, shape)
    first, later = cycle_budget(size, config.budget.initial), cycle_budget(size, config.budget.per_cycle)
    return [min(size, first + cycle * later) for cycle in range(config.cycles)]


def steps_an_epoch(config: Config, labelled: int) -> int:
    """Return how many batches one local epoch has."""
    return math.ceil(labelled / config.training.batch_size)


def participants_of(config: Config) -> tuple[int, int]:
    """Return how many clients train in a round, and how many in the last round of a cycle."""
    from kafal_pipeline.federation.participants import participants

    clients, federation = range(config.partition.clients), config.federation
    first, last = (
        len(participants(clients, federation, seed=config.seed, cycle=0, round_=round_))
        for round_ in (0, federation.rounds - 1)
    )
    return (last if federation.rounds == 1 else first), last


def workload(config: Config, shape: DataShape) -> Workload:
    """Return what the run computes."""
    first, last = participants_of(config)
    turns = first * (config.federation.rounds - 1) + last
    labelled, size = labelled_sizes(config, shape), client_size(config, shape)
    steps = sum(turns * config.training.local_epochs * steps_an_epoch(config, count) for count in labelled)
    unlabelled = config.partition.clients * sum(size - count for count in labelled[:-1])
    return Workload(steps, turns * config.cycles, config.cycles * shape.test + PASSES * unlabelled)


def written_bytes(config: Config, model_bytes: int) -> int:
    """Return about how many bytes of models a run leaves and needs in between.

    Each cycle leaves the global model, every client's own and the broadcasts that they last downloaded; the running one
    needs four times a client's model for each, with its momentum, what the update keeps and the checkpoints.
    """
    clients = config.partition.clients
    kept = 1 + clients + min(config.federation.rounds, clients)
    return model_bytes * (config.cycles * kept + 4 * clients)
