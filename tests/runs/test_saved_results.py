"""Results that are not what a run saved are named before anything is made of them."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError
from safetensors.torch import load_file, save_file

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.lifecycle import saved_files
from kafal_pipeline.pipelines.fal import nodes
from kafal_pipeline.settings import current_run

from .conftest import RUN, Killed, killed, run


@pytest.mark.parametrize("change", ["shape", "type", "name", "missing"])
@pytest.mark.parametrize(
    ("file", "node"),
    [
        ("cycle_00/global_model", "cycle_01.query"),
        ("cycle_00/local_models/client_00001", "cycle_01.query"),
        ("cycle_00/local_models/broadcast_00001", "cycle_01.query"),
        ("cycle_00/global_model", "cycle_01.train"),
        ("cycle_01/global_model", "cycle_01.evaluate"),
    ],
)
def test_a_model_of_another_network_is_named(saved, file, node, change):
    path = saved / "data/06_models" / RUN / f"{file}.safetensors"
    before, state = path.read_bytes(), load_file(path)
    weight, own = state.pop("head.weight"), r"\(10, 64\) float32"
    changed = {
        "shape": (
            {"head.weight": weight[:, :5].contiguous()},
            rf"head\.weight is \(10, 5\) float32, but {own}",
        ),
        "type": ({"head.weight": weight.double()}, rf"head\.weight is \(10, 64\) float64, but {own}"),
        "name": ({"head.weight": weight, "tail": weight + 1}, rf"tail is {own}, but absent"),
        "missing": ({}, rf"head\.weight is absent, but {own}"),
    }
    instead, message = changed[change]
    save_file(state | instead, path)
    try:
        with pytest.raises(UserError, match=rf"{file}\.safetensors: {message} in the model of this run.*Remove it"):
            run(saved, {"from_nodes": [node]})
    finally:
        path.write_bytes(before)


def first(column, value):
    """Return what puts a value into the first row."""
    return lambda table: table.assign(**{column: [value, *table[column][1:]]})


@pytest.mark.parametrize(
    ("file", "node", "change", "message"),
    [
        ("cycle_00/pool", "cycle_01.query", first("sample", 10**6), r"row 0: sample must be from 0 to 1437"),
        ("cycle_00/pool", "cycle_01.annotate", first("client", -1), r"row 0: client must be from 0"),
        ("cycle_00/pool", "cycle_01.query", lambda table: table[:0], "it has no rows"),
        ("cycle_01/pool", "cycle_01.train", lambda table: pd.concat([table, table]), "the sample occurs twice"),
        ("cycle_01/pool", "cycle_01.evaluate", first("label", 7), r"label must be that of the sample"),
        ("cycle_01/queried", "cycle_01.annotate", first("sample", 10**6), "is not in that client's pool"),
        ("cycle_01/queried", "cycle_01.annotate", lambda table: pd.concat([table, table]), "is queried twice"),
    ],
)
def test_a_table_of_something_else_is_named(saved, file, node, change, message):
    (path,) = (saved / "data").glob(f"*/{RUN}/{file}.parquet")
    before = path.read_bytes()
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    named = re.escape(path.relative_to(saved).as_posix())
    try:
        with pytest.raises(UserError, match=rf"{named}: .*{message}.*Remove it"):
            run(saved, {"from_nodes": [node]})
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("file", "node"),
    [
        ("05_model_input/{}/cycle_00/pool.parquet", "cycle_01.query"),
        ("05_model_input/{}/cycle_01/pool.parquet", "cycle_01.train"),
        ("06_models/{}/cycle_00/global_model.safetensors", "cycle_01.query"),
        ("06_models/{}/cycle_00/local_models", "cycle_01.query"),
        ("07_model_output/{}/cycle_00/rounds.parquet", "cycle_01.query"),
        ("07_model_output/{}/cycle_00/train_cost.json", "cycle_00.evaluate"),
        ("07_model_output/{}/cycle_00/metrics.json", "report.summarise"),
        ("07_model_output/{}/cycle_01/queried.parquet", "cycle_01.annotate"),
        ("07_model_output/{}/cycle_01/query_cost.json", "cycle_01.evaluate"),
        ("07_model_output/{}/cycle_01/metrics.json", "report.summarise"),
    ],
)
def test_a_result_that_is_not_what_was_saved_is_named(finished, file, node):
    """One bit is enough, or a file more in a folder."""
    path = finished / "data" / file.format(RUN)
    record = finished / "data/07_model_output" / RUN / "provenance.json"
    before = record.read_bytes()
    changed = path / "client_00099.safetensors" if path.is_dir() else path
    content = b"" if path.is_dir() else path.read_bytes()
    changed.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:] if content else b"")
    try:
        with pytest.raises(UserError, match=rf"{path.name}: not what the run saved there.*--only-missing-outputs"):
            run(finished, {"from_nodes": [node]})
    finally:
        changed.write_bytes(content) if content else changed.unlink()
        record.write_bytes(before)


def test_digests_are_those_of_the_last_command(finished):
    """What a part of the pipeline has made again is what the next one expects."""
    record = finished / "data/07_model_output" / RUN / "provenance.json"
    before = json.loads(record.read_text())["files"]
    names = {name.removeprefix("cycle_01.") for name in before if name.startswith("cycle_01.")}
    assert names == {
        *("pool", "queried", "query_cost", "query_memory"),
        *("global_model", "local_models", "rounds", "train_cost", "metrics"),
    }
    run(finished, {"from_nodes": ["cycle_01.query"]})
    after = json.loads(record.read_text())["files"]
    assert after.keys() == before.keys()
    same = {name for name in before if before[name] == after[name]}
    assert {"cycle_01.pool", "cycle_01.global_model", "cycle_00.metrics"} <= same
    assert "cycle_01.train_cost" not in same  # it holds times
    run(finished, {"from_nodes": ["cycle_01.evaluate"]})


def test_what_was_saved_before_a_kill_is_checked_too(folder, monkeypatch):
    killed(folder, node="evaluate")
    record = folder / "data/07_model_output" / RUN / "provenance.json"
    assert "cycle_00.global_model" in json.loads(record.read_text())["files"]
    path = folder / "data/05_model_input" / RUN / "cycle_00/pool.parquet"
    pd.read_parquet(path)[1:].to_parquet(path)
    with pytest.raises(UserError, match=r"pool\.parquet: not what the run saved there"):
        run(folder)


def test_what_was_saved_without_a_digest_is_made_again(folder, monkeypatch, untouched, digests):
    """A process may be killed between a file and the note of its digest: it may be another file since."""
    with monkeypatch.context() as patch:
        original = saved_files.SavedFiles.note

        def note(self, replaced=()):
            if current_run.node == "cycle_01.train":
                raise Killed
            original(self, replaced)

        patch.setattr(saved_files.SavedFiles, "note", note)
        with pytest.raises(Killed):
            run(folder)
    current_run.resources.close()
    path = folder / "data/05_model_input" / RUN / "cycle_01/pool.parquet"
    assert path.is_file()
    assert (
        "cycle_01.pool"
        not in json.loads((folder / "data/07_model_output" / RUN / "provenance.json").read_text())["files"]
    )
    pool = pd.read_parquet(path)
    pool.assign(label=0).to_parquet(path)
    run(folder)
    assert digests(folder / "data") == untouched


@pytest.mark.parametrize("source", ["there", "gone"])
def test_images_that_were_changed_are_not_trained_on(tmp_path, copy_of_project, digests, source, monkeypatch):
    """The store of the images is made again from its source, or refused where there is none."""
    folder = copy_of_project(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {
        f"{part}_{what}": value
        for part, size in (("train", 400), ("test", 60))
        for what, value in (
            ("images", rng.integers(0, 256, (size, 8, 8, 1), dtype=np.uint8)), ("labels", np.arange(size) % 4)
        )
    }  # fmt: skip
    (folder / "data/01_raw").mkdir(parents=True, exist_ok=True)
    np.savez(folder / "data/01_raw/mine.npz", **arrays)
    here = {"dataset": {"name": "mine", "label": None}}
    images = folder / "data/02_intermediate/mine/images/train_images.npy"
    run(folder, **here)
    before = digests(folder / "data")
    with monkeypatch.context() as patch:
        patch.setattr(nodes, "evaluate", lambda *_arguments, **_options: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(folder, **here)
    current_run.resources.close()
    np.save(images, 255 - np.load(images))
    if source == "gone":
        (folder / "data/01_raw/mine.npz").unlink()
        with pytest.raises(UserError, match="train_images.npy"):
            run(folder, **here)
    else:
        run(folder, **here)
        assert digests(folder / "data") == before


def test_a_result_that_was_removed_from_a_finished_run_is_named(finished):
    path = finished / f"data/05_model_input/{RUN}/cycle_01/pool.parquet"
    record = finished / "data/07_model_output" / RUN / "provenance.json"
    before, noted = path.read_bytes(), record.read_bytes()
    path.unlink()
    try:
        with pytest.raises(DatasetError, match=r"cycle_01/pool.parquet: there is no such file.*--only-missing-outputs"):
            run(finished, {"from_nodes": ["cycle_01.train"]})
    finally:
        path.write_bytes(before)
        record.write_bytes(noted)
