"""Damaged splits."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from kafal_pipeline.catalog import Atomic, Splits
from kafal_pipeline.config import BudgetConfig, PartitionConfig, resolve
from kafal_pipeline.data import check_origin, initial_pool, make_partition

from .spoiled import Trap, loaded, refusal

GOOD = [list(range(10)), list(range(10, 20)), list(range(20, 30))]


def split_with(client, place, value):
    return [[value if (k, i) == (client, place) else x for i, x in enumerate(part)] for k, part in enumerate(GOOD)]


SPLITS = {
    "a sample twice": split_with(0, 1, 0),
    "a sample of two clients": split_with(0, 1, 15),
    "a sample missing": [GOOD[0][1:], *GOOD[1:]],
    "a negative sample": split_with(1, 0, -1),
    "a sample beyond": split_with(2, 9, 30),
    "a huge sample": split_with(2, 9, 10**30),
    "a share of a sample": split_with(0, 0, 0.5),
    "a whole share": split_with(0, 0, 0.0),
    "NaN": split_with(0, 0, float("nan")),
    "infinity": split_with(0, 0, float("inf")),
    "a word": split_with(0, 0, "0"),
    "a truth": split_with(0, 0, False),
    "null": split_with(0, 0, None),
    "a list for a sample": split_with(0, 0, [0]),
    "a mapping for a sample": split_with(0, 0, {"0": 0}),
    "an empty client": [[], *GOOD[1:]],
    "null for a client": [None, *GOOD[1:]],
    "a number for a client": [3, *GOOD[1:]],
    "a word for a client": ["0123456789", *GOOD[1:]],
    "a mapping": {"0": GOOD[0]},
    "a number": 3,
    "null alone": None,
    "a word alone": "split",
    "no client": [],
    "one level too deep": [GOOD],
    "one level too flat": list(range(30)),
    "one client too many": [*GOOD, [0]],
    "one client too few": [[*GOOD[0], *GOOD[1]], GOOD[2]],
}

SPLIT_TEXTS = {
    "no byte": b"",
    "half": json.dumps(GOOD).encode()[:40],
    "no text": b"\xff\xfe\x00",
    "a deep nest": b"[" * 100_000,
    "a number of 5000 digits": b"[[" + b"9" * 5000 + b"]]",
    "a comma too many": b"[[0,],[1]]",
    "code": pickle.dumps(Trap("sprung")),
    "two values": b"[[0]] [[1]]",
    "a byte order mark": b"\xef\xbb\xbf[[0, 1], [99]]",
}


def written(path, name):
    path.write_bytes(SPLIT_TEXTS[name] if name in SPLIT_TEXTS else json.dumps(SPLITS[name]).encode())
    return path


@pytest.mark.parametrize("name", [*SPLITS, *SPLIT_TEXTS])
def test_damaged_split_files(tmp_path, name):
    config = PartitionConfig(method="file", path=str(written(tmp_path / "split.json", name)), clients=3)
    refusal(lambda: make_partition(np.arange(30) % 3, config, seed=0), "split.json")


@pytest.mark.parametrize("name", [*SPLITS, *SPLIT_TEXTS])
def test_damaged_splits_on_disk(tmp_path, name):
    """The split of an earlier run is checked too, but for what a long tail and a subset may leave out."""
    path = written(tmp_path / "splits.json", name)

    def read():
        from kedro.io import DatasetError

        try:
            split = Splits(filepath=str(path)).load()
        except DatasetError as error:  # Kedro's wrapping, which the command line takes off again
            raise error.__cause__ from None
        return initial_pool(split, np.arange(30) % 3, BudgetConfig(initial=1, per_cycle=1), 2, 0)

    if name in {"a sample missing", "one client too few"}:
        assert len(read()) >= 29
    else:
        refusal(read, "splits.json")


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"seed": 0}', '{"seed": 0, "partition": 3, "train_images": 30}'])
def test_damaged_origins_of_splits(tmp_path, text):
    (tmp_path / "split_origin.json").write_text(text)
    dataset = Atomic(
        filepath=str(tmp_path / "split_origin.json"),
        dataset="json.JSONDataset",
        keys=["seed", "partition", "train_images"],
    )

    class Images:
        train_labels = np.zeros(30)

    refusal(lambda: check_origin(loaded(dataset), resolve({}), Images()), "split_origin.json")
