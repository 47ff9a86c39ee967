"""Damaged stores of images."""

from __future__ import annotations

import functools
import io
import json
import pickle

import numpy as np
import pytest

from kafal_pipeline.data import read_store

from .spoiled import Trap, archive_in, arrays, bounded, header, read_directly, refusal


def meta_edits():
    def put(**values):
        return lambda meta: meta | values

    def without(key):
        return lambda meta: {name: value for name, value in meta.items() if name != key}

    def array(name, **values):
        return lambda meta: meta | {"arrays": meta["arrays"] | {name: {**meta["arrays"].get(name, {}), **values}}}

    keys = ("format", "name", "config", "source", "classes", "mean", "std", "arrays")
    edits = {f"without {key}": without(key) for key in keys}
    edits |= {f"{key} null": put(**{key: None}) for key in keys}
    edits |= {f"{key} a number": put(**{key: 3}) for key in keys}
    edits |= {
        "format of tomorrow": put(format=99),
        "no arrays": put(arrays={}),
        "an array outside": array("../../../outside", shape=[1], dtype="uint8", bytes=1),
        "an absolute array": array("/etc/passwd", shape=[1], dtype="uint8", bytes=1),
        "another shape": array("train_images", shape=[1, 2, 3]),
        "another type": array("train_labels", dtype="int32"),
        "another length": array("test_labels", bytes=1),
        "one class": put(classes=["a"]),
        "mean of words": put(mean=["a"]),
        "three means": put(mean=[0.1, 0.2, 0.3]),
        "std of zero": put(std=[0.0]),
        "mean of nothing": put(mean=[None]),
    }
    return edits


META = meta_edits()

TEXTS = {"no byte": b"", "a list": b"[]", "half": b'{"format": 1, "na', "no text": b"\xff\xff", "a nest": b"[" * 10**5}


@pytest.fixture
def store(tmp_path):
    _, _, read = archive_in(tmp_path, functools.partial(read_directly, tmp_path))
    read()
    return tmp_path / "store" / "images", read


@pytest.mark.parametrize("name", [*META, *TEXTS])
def test_damaged_descriptions_of_stores(store, name):
    """Whoever only reads gets a message; whoever may write makes the store again from its source."""
    folder, read = store
    file = folder / "meta.json"
    meta = json.loads(file.read_text())
    file.write_bytes(TEXTS[name] if name in TEXTS else json.dumps(META[name](meta)).encode())
    if name.split()[-1] not in {"source", "config"} and name.split()[0] not in {"source", "config", "name"}:
        refusal(lambda: read_store(folder), str(folder), "kedro run --pipeline data")
    with bounded():
        np.testing.assert_array_equal(read().train_labels, arrays()["train_labels"])
    assert json.loads(file.read_text()) == meta


def other_array(dtype, shape=(30,)):
    stream = io.BytesIO()
    np.save(stream, np.zeros(shape, dtype))
    return stream.getvalue()


NPY = {
    "no byte": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "a byte too few": lambda content: content[:-1],
    "a byte too many": lambda content: content + b"\0",
    "another type": lambda content: other_array(np.float64),
    "code": lambda content: header((1,), "|O") + pickle.dumps(Trap("sprung")),
    "another shape": lambda content: other_array(np.int64, (5, 6)),
    "terabytes": lambda content: header((10**6, 10**6)) + content[128:],
    "text": lambda content: b"hello",
}


@pytest.mark.parametrize("change", NPY)
@pytest.mark.parametrize("name", ["train_images", "train_labels"])
def test_damaged_arrays_of_stores(store, name, change):
    folder, read = store
    file = folder / f"{name}.npy"
    file.write_bytes(NPY[change](file.read_bytes()))
    refusal(lambda: read_store(folder), str(folder))
    with bounded():
        np.testing.assert_array_equal(read().train_labels, arrays()["train_labels"])


@pytest.mark.parametrize(("name", "value"), [("train_labels", 3), ("train_labels", -1), ("test_labels", 10**9)])
def test_labels_edited_in_a_store(store, name, value):
    folder, read = store
    labels = np.load(folder / f"{name}.npy")
    labels[4] = value
    np.save(folder / f"{name}.npy", labels)
    refusal(lambda: read_store(folder), str(folder))
