"""The whole trial in process, on the data sets it is saved with."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project_folder(tmp_path_factory):
    """A copy of the project without its data."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "src").mkdir()  # the package itself is imported from where the tests found it
    return folder


def run(folder, pipeline="fal", env="smoke", **params):
    bootstrap_project(folder)
    runtime_params = {"tracking": "off", **params}
    with (
        pytest.MonkeyPatch.context() as patch,
        KedroSession.create(project_path=folder, env=env, runtime_params=runtime_params) as session,
    ):
        patch.chdir(folder)
        session.run(pipeline_names=[pipeline])


@pytest.fixture(scope="module")
def finished(project_folder):
    run(project_folder)
    return project_folder / "data"


def digests(folder: Path) -> dict[str, str]:
    """Hash everything that a seed decides; times and what they cost are left out."""
    files = [path for path in folder.rglob("*") if path.suffix in {".safetensors", ".parquet"}]
    found = {}
    for path in files:
        content = path.read_bytes()
        if path.name == "rounds.parquet":
            content = pd.read_parquet(path).drop(columns="seconds").to_csv().encode()
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()
    return found


def test_outputs_lie_where_users_look_for_them(finished):
    report = finished / "08_reporting/smoke/ksas-kcfu/seed_0"
    names = {"summary.json", "learning_curve.csv", "learning_curve.png", "client_classes.png", "queried_classes.png"}
    assert {path.name for path in report.iterdir()} == names
    summary = json.loads((report / "summary.json").read_text())
    assert {"aulc", "final_accuracy", "final_balanced_accuracy", "labels"} <= set(summary)
    curve = pd.read_csv(report / "learning_curve.csv")
    assert list(curve.columns[:5]) == ["cycle", "labels", "labelled_fraction", "accuracy", "balanced_accuracy"]
    assert summary["final_accuracy"] == pytest.approx(curve["accuracy"].iloc[-1])
    assert summary["labels"] == curve["labels"].iloc[-1]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in report.glob("*.png"))


def test_labels_grow_by_the_budget_of_every_client(finished):
    splits = json.loads((finished / "03_primary/smoke/seed_0/splits.json").read_text())
    pools = [
        pd.read_parquet(finished / f"05_model_input/smoke/ksas-kcfu/seed_0/cycle_0{c}/pool.parquet") for c in (0, 1)
    ]
    for client, split in enumerate(splits):
        mine = [pool[pool["client"] == client] for pool in pools]
        assert all(sorted(part["sample"]) == sorted(split) for part in mine)
        labelled = [int((part["label"] >= 0).sum()) for part in mine]
        assert labelled == [-(-len(split) // 10), -(-len(split) // 10) + -(-len(split) // 20)]


def test_the_oracle_answers_with_the_true_labels_of_what_was_queried(finished):
    import numpy as np

    truth = np.load(finished / "02_intermediate/smoke/images/train_labels.npy")
    run_folder = "smoke/ksas-kcfu/seed_0/cycle_01"
    pool = pd.read_parquet(finished / "05_model_input" / run_folder / "pool.parquet")
    queried = pd.read_parquet(finished / "07_model_output" / run_folder / "queried.parquet")
    asked = pool[pool["labelled_in_cycle"] == 1]
    assert set(zip(asked["client"], asked["sample"], strict=True)) == set(
        zip(queried["client"], queried["sample"], strict=True)
    )
    labelled = pool[pool["label"] >= 0]
    assert (truth[labelled["sample"]] == labelled["label"]).all()
    assert list(queried.columns) == ["client", "sample", "score", "rank"]
    for _, group in queried.groupby("client"):
        assert group["rank"].tolist() == list(range(len(group)))
        assert group["score"].is_monotonic_decreasing


def test_the_next_cycle_continues_the_model(finished):
    rounds = pd.read_parquet(finished / "07_model_output/smoke/ksas-kcfu/seed_0/cycle_01/rounds.parquet")
    first = pd.read_parquet(finished / "07_model_output/smoke/ksas-kcfu/seed_0/cycle_00/rounds.parquet")
    assert rounds["loss"].iloc[0] < first["loss"].iloc[0]


def test_same_seed_same_bits(finished, tmp_path_factory, project_folder):
    before = digests(finished)
    assert len(before) == 9
    shutil.move(finished, project_folder / "earlier")
    try:
        run(project_folder)
        assert digests(finished) == before
    finally:
        shutil.rmtree(finished)
        shutil.move(project_folder / "earlier", finished)


def test_strategies_of_one_seed_share_split_initial_pool_and_weights(finished, project_folder):
    run(project_folder, query="random", update="fedavg")
    mine, other = (finished / f"05_model_input/smoke/{name}/seed_0" for name in ("ksas-kcfu", "random-fedavg"))
    first = [pd.read_parquet(folder / "cycle_00/pool.parquet") for folder in (mine, other)]
    pd.testing.assert_frame_equal(*first)
    later = [pd.read_parquet(folder / "cycle_01/pool.parquet") for folder in (mine, other)]
    assert not later[0].equals(later[1])
    broadcasts = [
        load_file(finished / f"06_models/smoke/{name}/seed_0/cycle_00/local_models.safetensors")
        for name in ("ksas-kcfu", "random-fedavg")
    ]
    assert any(key.startswith("broadcast_00001/") for key in broadcasts[0])


def test_another_seed_gives_other_bits(finished, project_folder):
    run(project_folder, seed=1)
    first, second = (
        load_file(finished / f"06_models/smoke/ksas-kcfu/seed_{seed}/cycle_00/global_model.safetensors")
        for seed in (0, 1)
    )
    assert any((first[name] != second[name]).any() for name in first)
    splits = [(finished / f"03_primary/smoke/seed_{seed}/splits.json").read_text() for seed in (0, 1)]
    assert splits[0] != splits[1]


def test_every_switch_and_the_paper_preset_run(project_folder):
    run(project_folder, preset="kafal_paper", cycles=2, federation={"between_cycles": "fresh"})
    report = project_folder / "data/08_reporting/smoke/ksas_paper-kcfu_paper/seed_0/summary.json"
    assert json.loads(report.read_text())["update"] == "kcfu_paper"


def test_cycles_given_as_a_parameter_unroll_the_pipeline(project_folder):
    run(project_folder, cycles=3, query="entropy")
    curve = pd.read_csv(project_folder / "data/08_reporting/smoke/entropy-kcfu/seed_0/learning_curve.csv")
    assert curve["cycle"].tolist() == [0, 1, 2]


def test_a_model_of_fresh_weights_starts_every_cycle_where_asked(project_folder):
    run(project_folder, query="random", federation={"between_cycles": "fresh"})
    outputs = project_folder / "data/07_model_output/smoke/random-kcfu/seed_0"
    losses = [pd.read_parquet(outputs / f"cycle_0{c}/rounds.parquet")["loss"].iloc[:3].mean() for c in (0, 1)]
    assert losses[1] > 0.8 * losses[0]
