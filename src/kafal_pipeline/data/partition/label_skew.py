"""Partitions by label: clients that see different mixtures of classes."""

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import PartitionConfig
from kafal_pipeline.data.partition.quantity import apportioned, draw_until_large_enough


def dirichlet(labels: NDArray[np.int64], config: PartitionConfig, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Divide every class among the clients in shares drawn from Dir(alpha) (Hsu et al., 2019).

    All shares are drawn again until every client has ``min_size`` samples.
    """
    sizes = np.bincount(labels)
    concentration = np.full(config.clients, config.alpha)
    counts = draw_until_large_enough(
        lambda: np.stack([apportioned(rng.dirichlet(concentration), int(size)) for size in sizes]), config, len(labels)
    )
    return _dealt(labels, counts, rng)


def dirichlet_balanced(
    labels: NDArray[np.int64], config: PartitionConfig, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Give clients of equal size (give or take one) class mixtures drawn from Dir(alpha) (Acar et al., 2021).

    The clients draw one sample each in turn: its class from the client's mixture over the classes that have samples
    left, or from all that is left where the client's own classes are used up.
    """
    left = np.bincount(labels)
    mixtures = rng.dirichlet(np.full(len(left), config.alpha), size=config.clients)
    counts = np.zeros((len(left), config.clients), dtype=np.int64)
    cumulated = _cumulated(mixtures, left)
    for turn, uniform in enumerate(rng.random(len(labels))):
        client = turn % config.clients
        row = cumulated[client]
        label = int(np.searchsorted(row, uniform * row[-1], side="right"))
        counts[label, client] += 1
        left[label] -= 1
        if left[label] == 0 and turn + 1 < len(labels):
            cumulated = _cumulated(mixtures, left)
    return _dealt(labels, counts, rng)


def _cumulated(mixtures: NDArray[np.float64], left: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the clients' cumulated class weights, ``(K, C)``, over the classes that are left."""
    weights = np.where(left > 0, mixtures, 0.0)
    spent = weights.sum(axis=1) <= 0
    weights[spent] = left / left.sum()
    return np.cumsum(weights, axis=1)


def shards(labels: NDArray[np.int64], config: PartitionConfig, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Give every client exactly ``classes_per_client`` classes, and divide each class equally among its clients.

    A client picks the classes with the fewest clients so far, ties at random, so that all classes have equally many
    clients (give or take one). After McMahan et al., AISTATS 2017, whose shards may mix two classes.

    Raises `UserError` if there are fewer classes than a client is to have, or some class would have no client.
    """
    present = np.unique(labels)
    if config.classes_per_client > len(present):
        raise UserError(
            f"partition.classes_per_client: found {config.classes_per_client}; the data set has {len(present)} classes."
        )
    if config.clients * config.classes_per_client < len(present):
        raise UserError(
            f"partition.classes_per_client: {config.clients} clients with {config.classes_per_client} classes each "
            f"cannot hold all {len(present)} classes. Raise partition.classes_per_client or partition.clients."
        )
    holders: dict[int, list[int]] = {int(label): [] for label in present}
    for client in range(config.clients):
        tie_break = rng.permutation(len(present))
        order = sorted(range(len(present)), key=lambda place: (len(holders[int(present[place])]), tie_break[place]))
        for place in order[: config.classes_per_client]:
            holders[int(present[place])].append(client)
    counts = np.zeros((int(present.max()) + 1, config.clients), dtype=np.int64)
    for label, clients in holders.items():
        # Which clients get the one sample more, where the class does not divide evenly, is drawn.
        smaller, larger = divmod(int((labels == label).sum()), len(clients))
        for rank, place in enumerate(rng.permutation(len(clients))):
            counts[label, clients[place]] = smaller + (rank < larger)
    return _dealt(labels, counts, rng)


def _dealt(labels: NDArray[np.int64], counts: NDArray[np.int64], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Deal the shuffled samples of each class to the clients, ``counts[class, client]`` to each."""
    hands: list[list[NDArray[np.int64]]] = [[] for _ in range(counts.shape[1])]
    for label, row in enumerate(counts):
        members = np.flatnonzero(labels == label)
        shuffled = members[rng.permutation(len(members))]
        for hand, part in zip(hands, np.split(shuffled, np.cumsum(row)[:-1]), strict=True):
            hand.append(part)
    return [np.concatenate(hand) for hand in hands]
