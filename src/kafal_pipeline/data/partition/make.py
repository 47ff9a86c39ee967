"""Makes a split from the section `partition` of the parameters."""

import logging
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.randomness import Purpose, numpy_generator
from kafal_pipeline.config import PartitionConfig
from kafal_pipeline.data.partition.label_skew import dirichlet, dirichlet_balanced, shards
from kafal_pipeline.data.partition.long_tail import long_tail_indices
from kafal_pipeline.data.partition.quantity import iid, quantity_skew
from kafal_pipeline.data.partition.split import check_split, read_split

METHODS = {
    "iid": iid,
    "dirichlet": dirichlet,
    "dirichlet_balanced": dirichlet_balanced,
    "shards": shards,
    "quantity_skew": quantity_skew,
}
"""The methods that draw: ``(labels, config, rng)`` -> positions in `labels` for each client."""

BY_LABEL = {"dirichlet", "dirichlet_balanced", "shards"}

logger = logging.getLogger(__name__)


def make_partition(
    labels: NDArray[np.int64],
    config: PartitionConfig,
    seed: int,
    natural_clients: NDArray[np.int64] | None = None,
    base: Path = Path(),
) -> list[NDArray[np.int64]]:
    """Divide the training set among clients.

    First the long tail is cut, then the rest is divided, then every client is cut to ``samples_per_client``. The split
    is checked; equal arguments give equal splits.

    `labels`: labels of all training samples, ``(N,)``, -1 where they are not known. `seed`: the trial's seed. The
    methods ``file`` and ``natural`` draw nothing but the two cuts. `natural_clients`: the client of each training
    sample, ``(N,)``, where the data has one (method ``natural``). `base`: the folder that a relative ``config.path``
    starts from. Returns training indices of each client, int64, sorted; with method ``file`` in the file's order.
    Raises `UserError` if the parameters cannot be met, labels that they need are missing, or the file or the natural
    split is not allowed.
    """
    size = len(labels)
    kept = np.arange(size)
    method = _method(config, base)
    _check_labels(labels, config, method)
    if config.long_tail is not None:
        kept = long_tail_indices(labels, config.long_tail, numpy_generator(seed, Purpose.LONG_TAIL))
    if method == "file":
        split = _from_file(config, base, size)
    elif method == "natural":
        split = _natural(config, natural_clients)
    else:
        if config.clients > len(kept):
            raise UserError(f"partition.clients: found {config.clients}, but there are {len(kept)} training samples.")
        rng = numpy_generator(seed, Purpose.PARTITION)
        split = [np.sort(kept[positions]) for positions in METHODS[method](labels[kept], config, rng)]
    if config.long_tail is not None:
        split = [items[np.isin(items, kept)] for items in split]
    check_split(split, size, kept, f"partition.method {method}")
    if config.samples_per_client is None:
        return split
    return [_subset(items, config.samples_per_client, seed, client) for client, items in enumerate(split)]


def _method(config: PartitionConfig, base: Path) -> str:
    """Return the method to use: that of ``when_absent`` where the file is not there."""
    if config.method != "file" or os.path.isfile(base / str(config.path)):  # false too for what can be no path
        return config.method
    if config.when_absent is None:
        raise UserError(
            f"partition.path: there is no file {base / str(config.path)}. Put it there, or set partition.when_absent "
            f"to the method to use without it: {', '.join(METHODS)}."
        )
    logger.warning("partition.path: there is no file %s; dividing by %s", base / str(config.path), config.when_absent)
    return config.when_absent


def _check_labels(labels: NDArray[np.int64], config: PartitionConfig, method: str) -> None:
    """Refuse what divides or cuts by labels where some are not known."""
    if not (missing := int((labels < 0).sum())):
        return
    have_none = f"{missing:,} of {len(labels):,} training images have no label yet"
    if config.long_tail is not None:
        raise UserError(f"partition.long_tail: cuts the data by their labels, but {have_none}. Leave it out.")
    if method in BY_LABEL:
        key = "method" if method == config.method else "when_absent"
        raise UserError(
            f"partition.{key}: found {method!r}, which divides the images by their labels, but {have_none}. Allowed: "
            f"{'natural, ' if key == 'method' else ''}iid, quantity_skew{', file' if key == 'method' else ''}."
        )


def _from_file(config: PartitionConfig, base: Path, size: int) -> list[NDArray[np.int64]]:
    path = base / str(config.path)
    lists = read_split(path)
    check_split(lists, size, where=str(path))
    _check_number(config, len(lists), str(path))
    return [np.array(items, dtype=np.int64) for items in lists]


def _natural(config: PartitionConfig, clients: NDArray[np.int64] | None) -> list[NDArray[np.int64]]:
    if clients is None:
        raise UserError(
            "partition.method: found 'natural', but the data set does not say which client holds an image. Add the key "
            "train_clients to its .npz file or train_clients.csv to its folder (docs/data.md), or use another method."
        )
    names = np.unique(clients)
    _check_number(config, len(names), "the data set")
    return [np.flatnonzero(clients == name) for name in names]


def _check_number(config: PartitionConfig, found: int, where: str) -> None:
    """Refuse a number of clients that is not the one the user reads in the parameters."""
    if config.clients != found:
        raise UserError(
            f"partition.clients: found {config.clients}, but {where} has {found} clients. "
            f"Set partition.clients to {found}, or use another method."
        )


def _subset(items: NDArray[np.int64], size: int, seed: int, client: int) -> NDArray[np.int64]:
    """Return at most `size` of a client's samples, in the order they stand in."""
    rng = numpy_generator(seed, Purpose.SUBSET, client=client)
    return items[np.sort(rng.permutation(len(items))[:size])]
