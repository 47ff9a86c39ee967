"""Pools whose labels people give: what is asked for first, and a cycle's pool after their answers.

Two tables are used here. A *choice* says what a cycle asks for: columns ``client``, ``part`` (``train`` or ``test``),
``sample`` (the row among the part's images), ``rank`` and ``reserve``, whether it is asked for only in the place of
images that people decline. *Annotations* say what was asked for in a run by now, and answered: `ANNOTATIONS`, a row for
each person's latest answer about an image, or one with the status ``open`` where there is none.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.annotation.verdicts import DECLINED
from kafal_pipeline.common.randomness import Purpose, numpy_generator
from kafal_pipeline.data.images import ImageData
from kafal_pipeline.data.partition.split import owners
from kafal_pipeline.data.pools import COLUMNS, UNLABELLED, Order, at_random, check_budget, cycle_budget

if TYPE_CHECKING:
    import pandas as pd

    from kafal_pipeline.config import Config

CHOICE = ("client", "part", "sample", "rank", "reserve")

ANNOTATIONS = {
    "client": "int64",
    "part": "str",
    "sample": "int64",
    "id": "str",
    "file": "str",
    "asked_in_cycle": "int64",
    "outcome": "str",  # of the image: `kafal_pipeline.annotation.verdicts.Outcome`
    "verdict": "int64",  # its class, -1 where it is not labelled
    "annotator": "str",
    "status": "str",  # of this answer: `kafal_pipeline.annotation.answers.Status`
    "label": "int64",  # its class, -1 where it names none
    "time": "str",
    "seconds": "float64",
    "source": "str",
}
"""Columns of annotations, and their types; ``file`` is empty where images are no files."""

CHANGES = 5
"""Changed labels that a warning names."""

logger = logging.getLogger(__name__)


def order_of_first(images: ImageData, config: Config) -> Order:
    """Return what orders a client's samples for their first labels, by ``budget.initial_query``."""
    if config.budget.initial_query == "random":
        return at_random
    from kafal_pipeline.query.first import first_order  # imports PyTorch

    return first_order(images.train_images, config.budget.initial_query)


def first_choice(
    split: Sequence[Sequence[int] | NDArray[np.int64]],
    images: ImageData,
    config: Config,
    numbers: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Return what is asked for before the first cycle: test images without labels, then each client's first images.

    What has a label counts towards ``budget.initial``; of the others as many as are missing are chosen, as
    ``budget.initial_query`` says. Test images are asked from the client that holds them; where the data do not say,
    they are dealt out. `numbers`: by which random draws know the clients; None: by their places. Raises `UserError` if
    some client has fewer samples than the trial will have labelled, or the split is none of this data set.
    """
    import pandas as pd

    labels, budget, seed = images.train_labels, config.budget, config.seed
    owners(split, len(labels), f"the split of seed {seed}, data/03_primary/*/seed_{seed}/splits.json")
    order = order_of_first(images, config)
    rows: list[tuple[int, str, int, int, bool]] = []
    tested = np.flatnonzero(images.test_labels == UNLABELLED)
    natural = images.test_clients if config.partition.method == "natural" else None
    for place, sample in enumerate(tested.tolist()):
        client = place % len(split) if natural is None else int(natural[sample])
        rows.append((client, "test", sample, place, False))
    for client, items in enumerate(split):
        number = client if numbers is None else numbers[client]
        samples = np.sort(np.asarray(items, dtype=np.int64))
        size = len(samples)
        initial = cycle_budget(size, budget.initial)
        check_budget(number, size, initial, cycle_budget(size, budget.per_cycle), config.cycles)
        known = labels[samples] != UNLABELLED
        asked = max(0, initial - int(known.sum()))
        rng = numpy_generator(seed, Purpose.INITIAL_POOL, client=number)
        chosen = samples[order(samples, known, asked, rng)][: asked + config.annotation.reserve(asked)].tolist()
        rows += [(client, "train", sample, rank, rank >= asked) for rank, sample in enumerate(chosen)]
    return pd.DataFrame(rows, columns=list(CHOICE)).astype({"client": int, "sample": int, "rank": int, "reserve": bool})


def later_choice(pool: pd.DataFrame, queried: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Return what a cycle asks for, from its table ``queried``: the last of each client's choice are in reserve.

    `pool`: that of the cycle before.
    """
    sizes = pool.groupby("client").size()
    budgets = {client: cycle_budget(int(size), config.budget.per_cycle) for client, size in sizes.items()}
    choice = queried[["client", "sample", "rank"]].assign(part="train")
    return choice.assign(reserve=choice["rank"] >= choice["client"].map(budgets))[list(CHOICE)]


def unlabelled_pool(split: Sequence[Sequence[int] | NDArray[np.int64]], labels: NDArray[np.int64]) -> pd.DataFrame:
    """Return the pool before anything is asked: what has a label in the data is labelled from the start."""
    import pandas as pd

    samples = [np.sort(np.asarray(items, dtype=np.int64)) for items in split]
    client = np.repeat(np.arange(len(samples)), [len(items) for items in samples])
    sample = np.concatenate(samples)
    label = labels[sample]
    since = np.where(label == UNLABELLED, UNLABELLED, 0)
    pool = pd.DataFrame(dict(zip(COLUMNS, (client, sample, label, since), strict=True)), dtype=np.int64)
    return pool.assign(asked_in_cycle=np.int64(UNLABELLED), annotator="", labelled_at="")


def annotated_pool(pool: pd.DataFrame, annotations: pd.DataFrame, cycle: int) -> pd.DataFrame:
    """Return the pool of a cycle: what people have labelled has its label, and what they decline has left.

    `pool`: the pool before. A label that people have changed since replaces the old one, with a warning: models of the
    cycles before were trained with that. One that is disputed or withdrawn by now is taken back.
    """
    asked = annotations[annotations["part"] == "train"]
    by_image = asked.groupby("sample", sort=True)
    agreed = asked[(asked["status"] == asked["outcome"]) & (asked["label"] == asked["verdict"])].groupby("sample")
    new = by_image[["asked_in_cycle", "outcome", "verdict"]].first()
    new["annotator"] = agreed["annotator"].agg(lambda names: ", ".join(sorted(names)))
    new["labelled_at"] = agreed["time"].max()
    rows = pool["sample"].isin(new.index).to_numpy()
    found = new.loc[pool["sample"][rows]]
    label, since, asked_in = (pool[name].to_numpy(np.int64, copy=True) for name in (*COLUMNS[2:], "asked_in_cycle"))
    before = label[rows]
    label[rows] = found["verdict"].to_numpy()
    _warn_of_changes(pool["sample"][rows].to_numpy(), before, label[rows], cycle)
    is_labelled = label[rows] != UNLABELLED
    since[rows] = np.where(is_labelled, np.where(since[rows] == UNLABELLED, cycle, since[rows]), UNLABELLED)
    asked_in[rows] = found["asked_in_cycle"].to_numpy()
    result = pool.assign(label=label, labelled_in_cycle=since, asked_in_cycle=asked_in)
    for name in ("annotator", "labelled_at"):
        result.loc[rows, name] = np.where(is_labelled, found[name].fillna("").to_numpy(), "")
    declined = np.zeros(len(pool), dtype=bool)
    declined[rows] = found["outcome"].isin(DECLINED).to_numpy()
    return result[~declined].reset_index(drop=True)


def _warn_of_changes(sample: NDArray[np.int64], before: NDArray, after: NDArray, cycle: int) -> None:
    changed = np.flatnonzero((before != UNLABELLED) & (before != after))
    if len(changed):
        named = ", ".join(f"{sample[row]} ({before[row]} to {after[row]})" for row in changed[:CHANGES])
        logger.warning(
            "%d labels have changed since they were trained on: training images %s%s. They count from cycle %d on; "
            "restart=true trains all cycles with them.",
            len(changed),
            named,
            " ..." if len(changed) > CHANGES else "",
            cycle,
        )


def labels_of_tests(images: ImageData, annotations: pd.DataFrame) -> NDArray[np.int64]:
    """Return the labels of the test images, by data or people, -1 where there is none, int64 ``(N,)``."""
    labels = np.array(images.test_labels, dtype=np.int64)
    known = annotations[(annotations["part"] == "test") & (annotations["verdict"] != UNLABELLED)]
    labels[known["sample"].to_numpy()] = known["verdict"].to_numpy()
    return labels
