"""Splits as data: the check that each must pass, their file format and their table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    Split = Sequence[Sequence[int] | NDArray[np.int64]]


def check_split(split: Any, size: int, expected: NDArray[np.int64] | None = None, where: str = "splits") -> None:
    """Check that a split gives every sample to exactly one client.

    `split`: the lists of training indices, one per client: lists of ints, or integer arrays. `size`: number of training
    samples. `expected`: the samples that must be there, ``(n,)``; None for all of them. `where`: what messages call the
    split: its file, or its key. Raises `UserError` naming the first sample and client at which the split is not lists
    of indices, not disjoint or not complete.
    """
    owner = owners(split, size, where)
    wanted = np.ones(size, dtype=bool) if expected is None else np.isin(np.arange(size), expected)
    missing = np.flatnonzero(wanted & (owner < 0))
    if len(missing):
        raise UserError(
            f"{where}: {len(missing)} of {int(wanted.sum())} training samples belong to no client, the first is "
            f"{missing[0]}. Every sample must belong to one client; was the split made for another data set?"
        )
    extra = np.flatnonzero(~wanted & (owner >= 0))
    if len(extra):
        raise UserError(f"{where}: client {owner[extra[0]]} holds the sample {extra[0]}, which was left out before.")


def owners(split: Any, size: int, where: str) -> NDArray[np.int64]:
    """Return the client that holds each sample, -1 for those that none holds, int64, ``(size,)``.

    Raises `UserError` naming the first sample and client at which the split is not lists of indices, or not disjoint.
    """
    if not isinstance(split, (list, tuple, np.ndarray)) or not len(split):
        raise UserError(f"{where}: found {_shown(split)}; it must be a list of lists of training indices.")
    owner = np.full(size, -1, dtype=np.int64)
    for client, items in enumerate(split):
        indices = _as_indices(items, size, f"{where}: client {client}")
        first, counts = np.unique(indices, return_counts=True)
        if (counts > 1).any():
            raise UserError(f"{where}: client {client} holds the sample {first[counts > 1][0]} twice.")
        taken = indices[owner[indices] >= 0]
        if len(taken):
            raise UserError(
                f"{where}: the sample {taken[0]} belongs to client {owner[taken[0]]} and to client {client}; clients "
                "must not share samples."
            )
        owner[indices] = client
    return owner


def _as_indices(items: Any, size: int, where: str) -> NDArray[np.int64]:
    """Return one client's indices as an array, after checking each."""
    if isinstance(items, np.ndarray) and items.ndim == 1 and items.dtype.kind in "iu":
        indices = items.tolist()
    elif isinstance(items, (list, tuple, range)):
        indices = list(items)
    else:
        raise UserError(f"{where}: found {_shown(items)}; it must be a list of training indices.")
    if not indices:
        raise UserError(f"{where} has no samples; every client needs at least one.")
    for index in indices:
        if type(index) is not int or not 0 <= index < size:  # a bool is an int to isinstance
            raise UserError(f"{where}: found {_shown(index)}; allowed: integers from 0 to {size - 1}.")
    return np.array(indices, dtype=np.int64)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def format_split(split: Split) -> str:
    """Return a split as JSON with one line per client, so that a changed client is a changed line.

    >>> print(format_split([[0, 2], [1]]))
    [[0, 2],
    [1]]
    """
    return "[" + ",\n".join(json.dumps([int(index) for index in items]) for items in split) + "]"


def read_split(path: Path) -> Any:
    """Return what a JSON file of a split holds, as yet unchecked.

    Raises `UserError` if the file cannot be read or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read as JSON ({error}). It must be a list with one list of training indices per client."
        ) from error


def split_table(split: Split, labels: NDArray[np.int64], num_classes: int) -> pd.DataFrame:
    """Return how many samples of each class each client holds; those without a label are left out.

    `split`: the training indices of each client. `labels`: labels of all training samples, ``(N,)``. Returns columns
    ``client``, ``class``, ``count``, int64; one row for each of the K x C pairs, zeros included.
    """
    import pandas as pd

    known = [labels[np.asarray(items, dtype=np.int64)] for items in split]
    counts = [np.bincount(own[own >= 0], minlength=num_classes) for own in known]
    return pd.DataFrame(
        {
            "client": np.repeat(np.arange(len(counts)), num_classes),
            "class": np.tile(np.arange(num_classes), len(counts)),
            "count": np.concatenate(counts),
        },
        dtype=np.int64,
    )
