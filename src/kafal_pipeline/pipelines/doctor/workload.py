"""Estimates from a configuration how much a run computes and writes. Before the split, clients count as equal."""

import math
from dataclasses import dataclass

from kafal_pipeline.config import Config
from kafal_pipeline.data.partition.long_tail import long_tail_sizes
from kafal_pipeline.data.pools import cycle_budget
from kafal_pipeline.pipelines.doctor.shape import DataShape

PASSES = 2
"""Forwards over an unlabelled image in a query: by the global and the client's model, as KSAS does. Some queries need
one, some none, some train models of their own."""


@dataclass(frozen=True)
class Workload:
    """What a run computes.

    `steps`, `turns`, `predictions`: training steps of clients, clients' turns of training, images that are predicted.
    `steps_in_sequence`, `predictions_in_sequence`: how many of these come one after another where some clients work
    side by side: three on two processes take two turns, as do four.
    """

    steps: int
    turns: int
    predictions: int
    steps_in_sequence: int
    predictions_in_sequence: int


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


def workload(config: Config, shape: DataShape, side_by_side: int = 1) -> Workload:
    """Return what the run computes, `side_by_side` clients at the same time."""
    from kafal_pipeline.federation.prediction import CHUNK
    from kafal_pipeline.update.factory import make_update

    first, last = participants_of(config)
    rounds, clients = config.federation.rounds, config.partition.clients
    turns = first * (rounds - 1) + last
    in_sequence = math.ceil(first / side_by_side) * (rounds - 1) + math.ceil(last / side_by_side)
    labelled, size = labelled_sizes(config, shape), client_size(config, shape)
    steps = config.cycles  # of an update that does all of a client's round at once
    if make_update(config.update).takes_steps():
        steps = sum(config.training.local_epochs * steps_an_epoch(config, count) for count in labelled)
    unlabelled = PASSES * sum(size - count for count in labelled[:-1])
    tested = math.ceil(math.ceil(shape.test / CHUNK) / side_by_side) * CHUNK
    return Workload(
        turns * steps,
        turns * config.cycles,
        config.cycles * shape.test + clients * unlabelled,
        in_sequence * steps,
        config.cycles * min(shape.test, tested) + math.ceil(clients / side_by_side) * unlabelled,
    )


def written_bytes(config: Config, model_bytes: int) -> int:
    """Return about how many bytes of models a run leaves and needs in between.

    Each cycle leaves the global model, every client's own and the broadcasts that they last downloaded; the running one
    needs four times a client's model for each, with its momentum, what the update keeps and the checkpoints.
    """
    clients = config.partition.clients
    kept = 1 + clients + min(config.federation.rounds, clients)
    return model_bytes * (config.cycles * kept + 4 * clients)
