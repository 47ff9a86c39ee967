"""Pools: which samples of each client are labelled, and since which cycle.

A pool is a table with the columns ``client``, ``sample``, ``label`` and ``labelled_in_cycle``, all int64, one row for
each sample of each client, sorted by client and sample. Unlabelled rows have -1 in the last two: whoever reads a pool
cannot see a label that nobody has paid for.

Where people annotate, `kafal_pipeline.annotation.pools` adds columns: ``asked_in_cycle`` (int64, -1: never asked for),
``annotator`` and ``labelled_at`` (strings, empty where there is no label by people).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.randomness import Purpose, numpy_generator
from kafal_pipeline.data.partition.split import owners

if TYPE_CHECKING:
    import pandas as pd

    from kafal_pipeline.config import BudgetConfig

COLUMNS = ("client", "sample", "label", "labelled_in_cycle")
UNLABELLED = -1

Order = Callable[[NDArray[np.int64], NDArray[np.bool_], int, np.random.Generator], NDArray[np.int64]]
"""Order a client's samples for their first labels.

Takes the samples, whether each has a label already, ``(n,)`` each, how many are to be chosen, and a generator. Returns
the positions of those without a label, the chosen ones first.
"""


@dataclass(frozen=True)
class ClientPool:
    """One client's pool; every array is int64 and sorted by sample.

    `labelled`: training indices of the labelled samples, ``(L,)``. `labels`: their labels, ``(L,)``. `unlabelled`:
    training indices of the others, ``(U,)``. `initial_unlabelled`: those that were unlabelled when the trial started,
    ``(U_0,)``; labelling never changes it. `open`: those of `unlabelled` that people have been asked for, and still
    are: no query may choose them again.
    """

    labelled: NDArray[np.int64]
    labels: NDArray[np.int64]
    unlabelled: NDArray[np.int64]
    initial_unlabelled: NDArray[np.int64]
    open: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.labelled) + len(self.unlabelled)

    @property
    def candidates(self) -> NDArray[np.int64]:
        """The samples that a query may choose, sorted."""
        return np.setdiff1d(self.unlabelled, self.open, assume_unique=True) if len(self.open) else self.unlabelled


def cycle_budget(size: int, amount: float | int) -> int:
    """Return the number of samples that `amount` means to a client with `size` samples.

    A float is a share and is rounded up; an int is the number itself.

    >>> cycle_budget(5021, 0.10), cycle_budget(5000, 0.05), cycle_budget(5000, 20)
    (503, 250, 20)
    """
    if isinstance(amount, int):
        return amount
    # 100 * 0.07 is 7.000000000000001: round that noise away before rounding up.
    return max(1, math.ceil(round(size * amount, 6)))


def at_random(
    samples: NDArray[np.int64], known: NDArray[np.bool_], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Order samples (`Order`) without regard to anything."""
    shuffled = rng.permutation(len(samples))
    return shuffled[~known[shuffled]]


def initial_pool(
    split: Sequence[Sequence[int] | NDArray[np.int64]],
    labels: NDArray[np.int64],
    budget: BudgetConfig,
    cycles: int,
    seed: int,
    order: Order | None = None,
) -> pd.DataFrame:
    """Return the pool of cycle 0: of each client's samples some, chosen without regard to their classes, are labelled.

    `split`: the training indices of each client. `labels`: labels of all training samples, ``(N,)``. `cycles`: number
    of cycles, the first included. `order`: orders a client's samples; None: at random.
    Raises `UserError` if some client has fewer samples than the trial will have
    labelled, or the split is none of these samples.
    """
    import pandas as pd

    owners(split, len(labels), f"the split of seed {seed}, data/03_primary/*/seed_{seed}/splits.json")
    columns: list[tuple[NDArray[np.int64], ...]] = []
    for client, items in enumerate(split):
        samples = np.sort(np.asarray(items, dtype=np.int64))
        size = len(samples)
        initial, later = cycle_budget(size, budget.initial), cycle_budget(size, budget.per_cycle)
        check_budget(client, size, initial, later, cycles)
        chosen = np.zeros(size, dtype=bool)
        rng = numpy_generator(seed, Purpose.INITIAL_POOL, client=client)
        chosen[(order or at_random)(samples, chosen, initial, rng)[:initial]] = True
        label = np.where(chosen, labels[samples], UNLABELLED).astype(np.int64)
        since = np.where(chosen, 0, UNLABELLED).astype(np.int64)
        columns.append((np.full(size, client, dtype=np.int64), samples, label, since))
    return pd.DataFrame(dict(zip(COLUMNS, map(np.concatenate, zip(*columns, strict=True)), strict=True)))


def check_budget(client: int, size: int, initial: int, later: int, cycles: int) -> None:
    """Check that a client with `size` samples has as many as the trial will have labelled; raises `UserError`."""
    total = initial + (cycles - 1) * later
    if total > size:
        raise UserError(
            f"budget: client {client} has {size} samples, but the trial labels {initial} at the start and {later} "
            f"in each of {cycles - 1} later cycles, {total} in all. Lower budget.initial, budget.per_cycle or "
            "cycles, or give clients more samples (partition.min_size, partition.clients)."
        )


def check_pool(pool: pd.DataFrame, labels: NDArray[np.int64], cycle: int) -> None:
    """Check that a table is a pool of these samples after `cycle`.

    `labels`: labels of all training samples, -1 where people give them, ``(N,)``. `cycle`: the last cycle in which
    samples were labelled. Raises `ValueError` naming the first row that is none of a pool's, and why.
    """
    client, sample, label, since = (pool[name].to_numpy() for name in COLUMNS)
    there = (sample >= 0) & (sample < len(labels))
    truth = labels[np.where(there, sample, 0)]
    known = np.where(truth == UNLABELLED, label, truth)
    expected = np.where(since == UNLABELLED, UNLABELLED, known)
    for problem, wrong in (
        (f"client must be from 0 to {len(labels) - 1}", (client < 0) | (client >= len(labels))),
        (f"sample must be from 0 to {len(labels) - 1}", ~there),
        ("the sample occurs twice", pool["sample"].duplicated().to_numpy()),
        (f"labelled_in_cycle must be from {UNLABELLED} to {cycle}", (since < UNLABELLED) | (since > cycle)),
        (f"label must be that of the sample, or {UNLABELLED} where it has none yet", label != expected),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            found = ", ".join(f"{name} {pool[name].iloc[row]}" for name in COLUMNS)
            raise ValueError(f"row {row}: {problem}; found {found}")
    if pool.empty:
        raise ValueError("it has no rows")


def annotate(pool: pd.DataFrame, queried: pd.DataFrame, labels: NDArray[np.int64], cycle: int) -> pd.DataFrame:
    """Return a new pool in which the queried samples carry their labels.

    `queried`: the samples to label: columns ``client`` and ``sample``, others are not looked at. `labels`: labels of
    all training samples, ``(N,)``: the oracle. `cycle`: the cycle in which they are labelled. Raises `ValueError` if a
    queried sample stands twice, is not its client's, or is labelled already.
    """
    rows = pool.set_index(["client", "sample"]).index.get_indexer(queried.set_index(["client", "sample"]).index)
    label, since = (pool[name].to_numpy(np.int64, copy=True) for name in ("label", "labelled_in_cycle"))
    for problem, wrong in (
        ("is not in that client's pool", rows < 0),
        ("is labelled already", since[rows] != UNLABELLED),
        ("is queried twice", queried.duplicated(["client", "sample"]).to_numpy()),
    ):
        if wrong.any():
            client, sample = queried.loc[:, ["client", "sample"]].to_numpy()[int(np.argmax(wrong))]
            raise ValueError(f"sample {sample} of client {client}, queried in cycle {cycle}, {problem}")
    label[rows] = labels[pool["sample"].to_numpy()[rows]]
    since[rows] = cycle
    return pool.assign(label=label, labelled_in_cycle=since)


def client_pools(pool: pd.DataFrame) -> dict[int, ClientPool]:
    """Return the pool of each client, clients in order."""
    table = pool.sort_values(["client", "sample"])
    client, sample, label, since = (table[name].to_numpy(np.int64) for name in COLUMNS)
    asked = table["asked_in_cycle"].to_numpy(np.int64) if "asked_in_cycle" in table else np.full_like(since, UNLABELLED)
    numbers, starts = np.unique(client, return_index=True)
    pools = {}
    for number, start, stop in zip(numbers.tolist(), starts, [*starts[1:], len(client)], strict=True):
        samples, labels, when = sample[start:stop], label[start:stop], since[start:stop]
        known = when != UNLABELLED
        pools[number] = ClientPool(
            labelled=samples[known],
            labels=labels[known],
            unlabelled=samples[~known],
            initial_unlabelled=samples[when != 0],
            open=samples[~known & (asked[start:stop] != UNLABELLED)],
        )
    return pools


@dataclass(frozen=True)
class Labels:
    """How many labels a pool has.

    Attributes
    ----------
    asked
        Of those of one cycle, how many are of each class, int64 ``(C,)``.
    labelled, samples
        Labelled samples so far, and all samples.
    """

    asked: NDArray[np.int64]
    labelled: int
    samples: int


def labels_of(pool: pd.DataFrame, cycle: int, num_classes: int) -> Labels:
    """Count the labels of a pool, and those of a cycle by class."""
    since = pool["labelled_in_cycle"]
    asked = np.bincount(pool.loc[since == cycle, "label"], minlength=num_classes)
    return Labels(asked, int((since != UNLABELLED).sum()), len(pool))
