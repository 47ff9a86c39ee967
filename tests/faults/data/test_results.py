"""Damaged pools, tables, models and weights."""

from __future__ import annotations

import json
import struct

import numpy as np
import pandas as pd
import pytest

from kafal_pipeline.catalog import Atomic, ManyStates, State, States
from kafal_pipeline.config import ModelConfig, resolve

from .spoiled import damages, loaded, refusal

POOL = pd.DataFrame({"client": [0, 1], "sample": [3, 4], "label": [1, -1], "labelled_in_cycle": [0, -1]})

INTEGERS = ["client", "sample", "label", "labelled_in_cycle"]


def pool_dataset(path):
    return Atomic(filepath=str(path), dataset="pandas.ParquetDataset", integers=INTEGERS)


@pytest.mark.parametrize("damage", damages(b"x" * 99))
def test_damaged_pools(tmp_path, damage):
    path = tmp_path / "pool.parquet"
    pool_dataset(path).save(POOL)
    content = damages(path.read_bytes())[damage]
    path.unlink() if content is None else path.write_bytes(content)
    refusal(lambda: loaded(pool_dataset(path)), "pool.parquet", "--only-missing-outputs")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda pool: pool.drop(columns="label"), "label"),
        (lambda pool: pool.rename(columns={"client": "clients"}), "client"),
        (lambda pool: pool.assign(label=[1.0, np.nan]), "label (float64)"),
        (lambda pool: pool.assign(sample=["3", "4"]), "sample"),
        (lambda pool: pool.assign(labelled_in_cycle=[True, False]), "labelled_in_cycle (bool)"),
    ],
)
def test_pools_of_other_columns(tmp_path, change, part):
    path = tmp_path / "pool.parquet"
    change(POOL).to_parquet(path)
    refusal(lambda: loaded(pool_dataset(path)), "pool.parquet", part)


@pytest.mark.parametrize("damage", damages(b"x" * 99))
def test_damaged_json(tmp_path, damage):
    path = tmp_path / "metrics.json"
    content = damages(json.dumps({"cycle": 1, "labels": 10, "accuracy": 0.5}).encode())[damage]
    if content is not None:
        path.write_bytes(content)
    dataset = Atomic(filepath=str(path), dataset="json.JSONDataset", keys=["cycle", "labels"])
    refusal(lambda: loaded(dataset), "metrics.json")


def state():
    import torch

    return {"head.weight": torch.ones(3, 4), "head.bias": torch.zeros(3)}


def safetensors(claim, **tensors):
    head = json.dumps(tensors).encode()
    return struct.pack("<Q", claim if claim is not None else len(head)) + head + bytes(64)


STATES = {
    **{name: content for name, content in damages(b"").items() if name in {"gone", "no byte", "code", "text"}},
    "half": "half",
    "nearly all": "nearly all",
    "no beginning": "no beginning",
    "a header of exabytes": safetensors(2**60),
    "a header of a gigabyte": safetensors(2**30),
    "a tensor of terabytes": safetensors(None, a={"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}),
    "tensors that overlap": safetensors(
        None,
        a={"dtype": "U8", "shape": [64], "data_offsets": [0, 64]},
        b={"dtype": "U8", "shape": [64], "data_offsets": [0, 64]},
    ),
    "a type of nothing": safetensors(None, a={"dtype": "X9", "shape": [64], "data_offsets": [0, 64]}),
    "a shape of nothing": safetensors(None, a={"dtype": "U8", "shape": [-1], "data_offsets": [0, 64]}),
}


@pytest.mark.parametrize("kind", ["State", "States", "ManyStates", "pretrained"])
@pytest.mark.parametrize("name", STATES)
def test_damaged_states(tmp_path, kind, name):
    good = {"client_00000": state()}
    if kind == "ManyStates":
        path, dataset = tmp_path / "models/client_00000.safetensors", ManyStates(filepath=str(tmp_path / "models"))
        dataset.save(good)
    else:
        path = tmp_path / "model.safetensors"
        dataset = (States if kind == "States" else State)(filepath=str(path))
        dataset.save(good if kind == "States" else state())
    content = STATES[name]
    if isinstance(content, str):
        content = damages(path.read_bytes())[content]
    path.unlink() if content is None else path.write_bytes(content)
    if kind == "pretrained":
        from kafal_pipeline.lifecycle.strategy_checks import check_strategies

        config = resolve({"model": {"name": "cnn4", "pretrained": str(path)}})
        refusal(lambda: check_strategies(config), "model.pretrained", path.name)
    else:
        refusal(lambda: loaded(dataset)["client_00000"]["head.bias"], path.name)


def test_a_state_without_groups(tmp_path):
    path = tmp_path / "query_memory.safetensors"
    State(filepath=str(path)).save(state())
    refusal(lambda: loaded(States(filepath=str(path))), "query_memory.safetensors")


@pytest.mark.parametrize(
    ("tensors", "part"),
    [
        (lambda own: own | {"more": own["head.bias"].clone()}, "more"),
        (lambda own: {name: value for name, value in own.items() if name != "norms.0.weight"}, "norms.0.weight"),
        (lambda own: own | {"norms.0.weight": own["head.bias"].clone()}, "norms.0.weight"),
        (lambda own: own | {"norms.0.weight": own["norms.0.weight"] * float("nan")}, "norms.0.weight"),
        (lambda own: {}, "Missing"),
    ],
)
def test_pretrained_weights_of_another_network(tmp_path, tensors, part):
    from safetensors.torch import save_file

    from kafal_pipeline.models.state import initial_state

    shape = {"in_channels": 1, "num_classes": 10, "seed": 0, "cycle": 0}
    path = tmp_path / "weights.safetensors"
    save_file(tensors(initial_state("cnn4", **shape)), path)
    config = ModelConfig(name="cnn4", pretrained=str(path))
    refusal(lambda: initial_state(config, **shape), "model.pretrained", "weights.safetensors", part)
