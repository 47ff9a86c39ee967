"""Sets a share of the images aside as the test set, where the data bring none (``dataset.test_share``)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.randomness import Purpose, numpy_generator

SEED = 0  # whatever the trial's: all trials of a data set share their test images


def check_test_share(where: str, found: str | None, share: float | None) -> None:
    """Raise `UserError` if there is a test set and a share, or neither.

    `where`: the data set's file or folder. `found`: what there is of a test set, None if nothing. `share`:
    ``dataset.test_share``.
    """
    if found is not None and share is not None:
        raise UserError(
            f"dataset.test_share: found {share}, but {where} brings a test set ({found}). Leave dataset.test_share "
            f"out, or remove {found}."
        )
    if found is None and share is None:
        raise UserError(
            f"{where}: found no test images. Add them (docs/data.md); or set dataset.test_share, such as 0.2, to set "
            "that share of every client's images aside."
        )


def set_aside(where: str, share: float, clients: NDArray | None, count: int) -> NDArray[np.bool_]:
    """Return which of `count` images are the test set, ``(N,)``: a share of each client's, drawn without their labels.

    At least one image of each client is a test image, and at least one is not.

    `clients`: what the client of each image is called, ``(N,)``; None where the data do not say: then the share is one
    of all images. Raises `UserError` if a client has a single image.
    """
    test = np.zeros(count, dtype=bool)
    called = np.zeros(count) if clients is None else clients
    names, owner, sizes = np.unique(called, return_inverse=True, return_counts=True)
    held = np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])
    for client, (name, mine) in enumerate(zip(names, held, strict=True)):
        if len(mine) < 2:  # noqa: PLR2004 - one to test, one to train
            whose = "" if clients is None else f" of client {name}"
            raise UserError(
                f"dataset.test_share: {where} has one image{whose}; at least 2 are needed, one to train on and one to "
                "test. Add images, or leave that client out."
            )
        number = min(max(1, round(len(mine) * share)), len(mine) - 1)
        test[mine[numpy_generator(SEED, Purpose.TEST_SET, client=client).permutation(len(mine))[:number]]] = True
    return test
