"""The whole trial in process, on the data sets it is saved with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.runner import ThreadRunner
from safetensors.torch import load_file

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.data import ImageData
from kafal_pipeline.federation import trial as trial_module
from kafal_pipeline.models.factory import build
from kafal_pipeline.models.state import initial_state
from kafal_pipeline.pipelines.fal import nodes

from ..conftest import draw_nothing

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project_folder(tmp_path_factory, copy_of_project):
    """A copy of the project without its data."""
    return copy_of_project(tmp_path_factory.mktemp("project"))


def run(folder, pipeline="fal", env="smoke", from_nodes=None, draw=False, **params):
    bootstrap_project(folder)
    runtime_params = {"tracking": "off", **params}
    with (
        pytest.MonkeyPatch.context() as patch,
        KedroSession.create(project_path=folder, env=env, runtime_params=runtime_params) as session,
    ):
        patch.chdir(folder)
        if not draw:
            draw_nothing(patch)
        session.run(pipeline_names=[pipeline], from_nodes=from_nodes)


@pytest.fixture(scope="module")
def finished(project_folder):
    run(project_folder, draw=True)
    return project_folder / "data"


@pytest.mark.parametrize("method", ["natural", "iid"])
def test_clients_are_measured_where_they_are_the_federation_s(monkeypatch, method):
    labels, clients = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    pixels = np.zeros((4, 8, 8, 1), dtype=np.uint8)
    images = ImageData(
        *("toy", pixels, labels, pixels, labels, ("cat", "dog"), np.zeros(1), np.ones(1)),
        *(clients, clients, ("Aachen", "Bonn")),
    )
    logits = np.array([[1, 0], [0, 1], [0, 1], [1, 0]], dtype=np.float32)
    monkeypatch.setattr("kafal_pipeline.federation.simulation.predict_test", lambda *_: logits)
    pool = pd.DataFrame(
        {"client": clients, "sample": range(4), "label": [0, 1, 0, -1], "labelled_in_cycle": [0, 0, 0, -1]}
    )
    rounds = pd.DataFrame({"client": [0], "round": [0], "bytes_down": [1], "bytes_up": [1]})
    model = initial_state("resnet8", in_channels=1, num_classes=2, seed=0, cycle=0)
    parameters = {"partition": {"method": method, "clients": 2}}
    resources = Mock()
    resources.workers.return_value.data = images
    found = nodes.evaluate(resources, 0, model, pool, rounds, {"seconds": 1.0}, images, parameters)["per_client"]
    natural = [("Aachen", 1.0, 1.0), ("Bonn", 0.0, 0.0)] if method == "natural" else []
    assert [(row["name"], row["accuracy"], row["auroc_macro"]) for row in found] == natural


def test_outputs_lie_where_users_look_for_them(finished):
    report = finished / "08_reporting/smoke/ksas-kcfu/seed_0"
    assert {path.name for path in report.iterdir()} == {
        *("summary.json", "learning_curve.csv", "classes.csv", "clients.csv"),
        *("learning_curve.png", "client_classes.png", "confusion_matrix.png"),
        *("queried_classes.png", "queried_by_client.png"),
    }
    summary = json.loads((report / "summary.json").read_text())
    assert {"aulc", "final_accuracy", "final_balanced_accuracy", "labels"} <= set(summary)
    curve = pd.read_csv(report / "learning_curve.csv")
    assert list(curve.columns[:5]) == ["cycle", "labels", "labelled_fraction", "accuracy", "balanced_accuracy"]
    assert summary["final_accuracy"] == pytest.approx(curve["accuracy"].iloc[-1])
    assert summary["labels"] == curve["labels"].iloc[-1]
    metrics = json.loads((finished / "07_model_output/smoke/ksas-kcfu/seed_0/cycle_01/metrics.json").read_text())
    assert np.trace(metrics["confusion_matrix"]) / np.sum(metrics["confusion_matrix"]) == metrics["accuracy"]
    assert summary["final_auroc_macro"] == curve["auroc_macro"].iloc[-1] == metrics["auroc_macro"]
    assert pd.read_csv(report / "classes.csv")["auroc"].tolist() == metrics["per_class_auroc"]
    assert metrics["per_client"] == []  # the data do not say whose the test images are
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


def test_same_seed_same_bits(finished, tmp_path_factory, project_folder, digests):
    before = digests(finished)
    assert len(before) == 18
    shutil.move(finished, project_folder / "earlier")
    try:
        run(project_folder)
        assert digests(finished) == before
    finally:
        shutil.rmtree(finished)
        shutil.move(project_folder / "earlier", finished)


def test_strategies_of_one_seed_share_split_and_initial_pool(finished, project_folder, starts):
    run(project_folder, query="random", update="fedavg")
    models = finished / "06_models/smoke/random-fedavg/seed_0"
    assert same(starts[0], initial_state("resnet8", in_channels=1, num_classes=10, seed=0, cycle=0))
    assert same(starts[1], load_file(models / "cycle_00/global_model.safetensors"))  # a cycle continues the one before
    mine, other = (finished / f"05_model_input/smoke/{name}/seed_0" for name in ("ksas-kcfu", "random-fedavg"))
    first = [pd.read_parquet(folder / "cycle_00/pool.parquet") for folder in (mine, other)]
    pd.testing.assert_frame_equal(*first)
    later = [pd.read_parquet(folder / "cycle_01/pool.parquet") for folder in (mine, other)]
    assert not later[0].equals(later[1])


def test_another_seed_gives_other_bits(finished, project_folder):
    run(project_folder, seed=1, cycles=1)
    first, second = (
        load_file(finished / f"06_models/smoke/ksas-kcfu/seed_{seed}/cycle_00/global_model.safetensors")
        for seed in (0, 1)
    )
    assert any((first[name] != second[name]).any() for name in first)
    splits = [(finished / f"03_primary/smoke/seed_{seed}/splits.json").read_text() for seed in (0, 1)]
    assert splits[0] != splits[1]


def test_a_part_resumes_only_from_results_of_the_same_parameters(project_folder):
    options = {"query": "random", "update": "kcfu_balanced", "seed": 4, "cycles": 1}
    run(project_folder, **options)
    report = project_folder / "data/08_reporting/smoke/random-kcfu_balanced/seed_4/summary.json"
    before = report.read_text()
    run(project_folder, pipeline="report", **options)
    assert {**json.loads(report.read_text())} == json.loads(before)
    for changed in ({"training": {"lr": 0.5}}, {"cycles": 3}):
        with pytest.raises(UserError, match=r"(training\.lr: 0\.05 then, 0\.5 now|cycles: 1 then, 3 now)"):
            run(project_folder, pipeline="report", **{**options, **changed})
    record = project_folder / "data/07_model_output/smoke/random-kcfu_balanced/seed_4/configuration.json"
    record.unlink()
    with pytest.raises(UserError, match="are not known"):
        run(project_folder, pipeline="report", **options)


def test_a_shorter_run_leaves_no_cycles_of_a_longer_one(project_folder):
    outputs = project_folder / "data/07_model_output/smoke/random-kcfu/seed_6"
    run(project_folder, query="random", seed=6, cycles=2)
    assert (outputs / "cycle_01").is_dir()
    run(project_folder, query="random", seed=6, cycles=1, restart=True)
    assert not (outputs / "cycle_01").exists()
    assert (outputs / "cycle_00").is_dir()


def test_the_trial_refuses_a_split_made_with_other_parameters(finished, project_folder):
    with pytest.raises(UserError, match=r"partition\.clients: 3 then, 4 now.*partition\.alpha: 0\.2 then, 9"):
        run(project_folder, pipeline="trial", query="margin", partition={"clients": 4, "alpha": 9.0})


def test_other_runners_are_refused(finished, project_folder):
    bootstrap_project(project_folder)
    with (
        KedroSession.create(project_path=project_folder, env="smoke", runtime_params={"tracking": "off"}) as session,
        pytest.raises(UserError, match="SequentialRunner"),
    ):
        session.run(runner=ThreadRunner())


@pytest.fixture
def starts(monkeypatch):
    """The model that each cycle starts with, by cycle."""
    seen = {}
    original = trial_module.train_cycle

    def train_cycle(config, clients, global_state, cycle, on_round):
        seen[cycle] = {name: tensor.clone() for name, tensor in global_state.items()}
        return original(config, clients, global_state, cycle, on_round)

    monkeypatch.setattr(trial_module, "train_cycle", train_cycle)
    return seen


def same(first, second):
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_every_cycle_starts_from_fresh_weights_where_asked(project_folder, starts):
    run(project_folder, preset="kafal_paper", federation={"between_cycles": "fresh"})
    report = project_folder / "data/08_reporting/smoke/ksas_paper-kcfu_paper/seed_0/summary.json"
    assert json.loads(report.read_text())["update"] == "kcfu_paper"
    for cycle in (0, 1):
        fresh = initial_state("resnet8", in_channels=1, num_classes=10, seed=0, cycle=cycle)
        assert same(starts[cycle], fresh)
    assert not same(starts[0], starts[1])


def plain_network(state):
    network = build("resnet8", in_channels=1, num_classes=10)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def pixels_of(folder, split):
    images = np.load(folder / f"02_intermediate/smoke/images/{split}_images.npy")
    statistics = np.load(folder / "02_intermediate/smoke/images/train_images.npy") / 255
    return torch.tensor((images / 255 - statistics.mean()) / statistics.std(), dtype=torch.float32).permute(0, 3, 1, 2)


def test_accuracy_is_that_of_the_saved_model_on_the_test_images(finished):
    for cycle in (0, 1):
        folder = f"smoke/ksas-kcfu/seed_0/cycle_0{cycle}"
        state = load_file(finished / "06_models" / folder / "global_model.safetensors")
        metrics = json.loads((finished / "07_model_output" / folder / "metrics.json").read_text())
        labels = np.load(finished / "02_intermediate/smoke/images/test_labels.npy")
        predicted = plain_network(state)(pixels_of(finished, "test")).argmax(1).numpy()
        assert metrics["accuracy"] == pytest.approx((predicted == labels).mean(), abs=1e-9)
        pool = pd.read_parquet(finished / "05_model_input" / folder / "pool.parquet")
        assert metrics["labels"] == (pool["label"] >= 0).sum()
        assert metrics["labelled_fraction"] == pytest.approx(metrics["labels"] / len(pool))


@pytest.mark.parametrize("preset", ["kafal_code", "kafal_paper"])
def test_the_query_can_be_recomputed_from_what_is_saved(project_folder, preset):
    """KSAS once more from the files alone, in plain PyTorch and the formula of the paper."""
    run(project_folder, preset=preset, federation={"rounds": 3, "participation": 0.6}, restart=True)
    data = project_folder / "data"
    name = {"kafal_code": "ksas-kcfu", "kafal_paper": "ksas_paper-kcfu_paper"}[preset]
    models, outputs = data / f"06_models/smoke/{name}/seed_0", data / f"07_model_output/smoke/{name}/seed_0"
    pool = pd.read_parquet(data / f"05_model_input/smoke/{name}/seed_0/cycle_00/pool.parquet")
    queried = pd.read_parquet(outputs / "cycle_01/queried.parquet")
    rounds = pd.read_parquet(outputs / "cycle_00/rounds.parquet")
    final = load_file(models / "cycle_00/global_model.safetensors")
    kept = models / "cycle_00/local_models"
    images = pixels_of(data, "train")
    for client, mine in pool.groupby("client"):
        last = rounds.loc[rounds["client"] == client, "round"].max()
        groups = {f"client_{client:05d}": None, f"broadcast_{last:05d}": None}
        for group in groups:
            groups[group] = load_file(kept / f"{group}.safetensors")
        local, downloaded = groups.values()
        samples = mine.loc[mine["label"] < 0, "sample"].to_numpy()
        log_prior = torch.tensor(np.bincount(mine.loc[mine["label"] >= 0, "label"], minlength=10)).log()
        p, q = (
            (plain_network(state)(images[samples]).double() + log_prior).softmax(1)
            for state in (local, final if preset == "kafal_code" else downloaded)
        )
        divergence = torch.where(p > 0, (p - q) * (p.log() - q.log()), 0.0).sum(1).numpy() / 2
        chosen = queried[queried["client"] == client]
        expected = dict(zip(samples, divergence, strict=True))
        assert chosen["score"].tolist() == pytest.approx([expected[sample] for sample in chosen["sample"]], rel=1e-3)
        others = [score for sample, score in expected.items() if sample not in set(chosen["sample"])]
        assert chosen["score"].min() >= max(others) - 1e-6


@pytest.mark.parametrize("query", ["fairfal", "chase"])
def test_what_a_query_keeps_survives_a_restart_between_cycles(project_folder, query, digests):
    run(project_folder, query=query, cycles=3)
    curve = pd.read_csv(project_folder / f"data/08_reporting/smoke/{query}-kcfu/seed_0/learning_curve.csv")
    assert curve["cycle"].tolist() == [0, 1, 2]  # as many as the parameter says
    name = f"smoke/{query}-kcfu/seed_0"
    folders = [project_folder / "data" / layer / name for layer in ("05_model_input", "06_models", "07_model_output")]
    before = {folder: digests(folder) for folder in folders}
    kept = load_file(folders[2] / "cycle_01/query_memory.safetensors")
    watched = {file.stem for file in (folders[1] / "cycle_01/local_models").iterdir()}
    assert ("client_00000/suits_global" in kept) == (query == "fairfal")
    assert ("watched_00000" in watched) == (query == "chase")
    later = load_file(folders[2] / "cycle_02/query_memory.safetensors")
    assert {key: value.item() for key, value in kept.items()} == {key: value.item() for key, value in later.items()}
    for folder in folders:
        shutil.rmtree(folder / "cycle_02")
    run(project_folder, from_nodes=["cycle_02.query"], query=query, cycles=3)
    assert {folder: digests(folder) for folder in folders} == before
