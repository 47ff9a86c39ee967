"""The pipeline of features: computed once, again where something changed, and what clients then train on."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import resolve
from kafal_pipeline.lifecycle.resources import Resources
from kafal_pipeline.models.factory import build
from kafal_pipeline.pipelines.data.nodes import load_images
from kafal_pipeline.pipelines.doctor.checks import features as doctor
from kafal_pipeline.pipelines.doctor.shape import DataShape
from kafal_pipeline.pipelines.fal.pipeline import create_pipeline
from kafal_pipeline.pipelines.features import nodes
from kafal_pipeline.runs import provenance
from kafal_pipeline.runs.layout import Layout

PARAMETERS = {
    "dataset": {"name": "mine", "path": "mine.npz"},
    "model": "linear",
    "update": "fedavg",
    "features": {"network": "cnn4", "options": {"width": 4}, "weights": "weights.safetensors"},
    "training": {"augmentation": {"flip": False, "crop_padding": 0}},
}


def weights(folder, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = {"in_channels": 1, "num_classes": 2, "image_size": (8, 8)}
    config = resolve({"model": {"name": "cnn4", "width": 4}}).model
    state = build(config, **shape, generator=generator).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "weights.safetensors")


@pytest.fixture
def project(tmp_path):
    """A folder with ten images, of which one has no label, and weights of a network."""
    rng, labels = np.random.default_rng(0), np.arange(10) % 2
    pixels = rng.integers(0, 256, (10, 8, 8), dtype=np.uint8)
    part = {"train_images": pixels[:7], "train_labels": np.where(np.arange(7) == 3, -1, labels[:7])}
    clients = {"train_clients": np.arange(7) % 3, "test_clients": np.arange(3)}
    test = {"test_images": pixels[7:], "test_labels": labels[7:], "classes": np.array(["a", "b"])}
    np.savez(tmp_path / "mine.npz", **part, **clients, **test)
    weights(tmp_path, 0)
    return tmp_path


@pytest.fixture
def computed(project):
    def computed(features=(), **changes):
        values = {**PARAMETERS, "annotation": {"source": "people"}, **changes}
        values["features"] = {**PARAMETERS["features"], **dict(features)}
        images = load_images(values, project)
        return images, nodes.compute_features(images, values, project)

    return computed


@pytest.fixture
def computations(monkeypatch):
    calls = []
    original = nodes.write_store
    monkeypatch.setattr(nodes, "write_store", lambda *given: (calls.append(given[3]), original(*given)))
    return calls


def test_they_stand_in_the_place_of_the_images_and_all_else_stays(computed, project):
    images, features = computed()
    assert features.are_features
    assert features.train_images.shape == (7, 1, 1, 4)
    assert features.folder == Layout(project, resolve(PARAMETERS)).features
    for name in ("train_labels", "test_labels", "train_clients", "test_clients", "train_ids", "test_ids"):
        np.testing.assert_array_equal(getattr(features, name), getattr(images, name))
    assert (features.classes, features.client_names) == (images.classes, images.client_names)
    rows = features.train_images[:, 0, 0].astype(np.float64)
    np.testing.assert_allclose(features.mean, rows.mean(axis=0), rtol=1e-9)


def test_they_are_computed_once_and_again_where_something_changed(computed, computations, project):
    _, first = computed()
    computed()
    computed({"batch_size": 2})
    assert len(computations) == 1
    _, other = computed({"pooling": "max", "layer": "norms.1"})
    assert len(computations) == 2
    assert not np.array_equal(other.train_images, first.train_images)
    computed()
    weights(project, 1)
    _, last = computed()
    assert len(computations) == 4
    assert not np.array_equal(last.train_images, first.train_images)
    whole = last.train_images.copy()
    (last.folder / "train_images.npy").write_bytes(b"damaged")
    _, again = computed()
    np.testing.assert_array_equal(again.train_images, whole)


def test_an_interrupted_computation_leaves_nothing(computed, monkeypatch, project):
    from kafal_pipeline.training.extraction import Extracted

    original, asked = Extracted.__getitem__, []

    def stop(self, rows):
        asked.append(rows)
        if len(asked) > 3:
            raise KeyboardInterrupt
        return original(self, rows)

    monkeypatch.setattr(Extracted, "__getitem__", stop)
    with pytest.raises(KeyboardInterrupt):
        computed({"batch_size": 2})
    folder = Layout(project, resolve(PARAMETERS)).features
    assert not folder.exists()
    assert not [path for path in folder.parent.iterdir() if path.is_dir() and path.name != "images"]


def test_progress_goes_by_batches(computed, monkeypatch, caplog):
    monkeypatch.setattr("kafal_pipeline.data.progress.LOG_EVERY_SECONDS", 0.0)
    monkeypatch.setattr("kafal_pipeline.data.progress.SILENT_SECONDS", 1e9)
    with caplog.at_level(logging.INFO):
        computed({"batch_size": 2})
    lines = [record.getMessage() for record in caplog.records if "Features computed" in record.getMessage()]
    assert [line.split(",")[0] for line in lines] == [f"Features computed: {n} of 10" for n in (2, 4, 6, 7, 9, 10)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": {"weights": "gone.safetensors"}}, "features.weights: there is no file .*gone.safetensors"),
        ({"model": "resnet8"}, "model.name: found 'resnet8', a network for images"),
        ({"training": {}}, "training.augmentation: found flip false and crop_padding 1"),
    ],
)
def test_mistakes_are_answered_before_anything_is_computed(computed, computations, changes, message):
    with pytest.raises(UserError, match=message):
        computed(**changes)
    assert computations == []


@pytest.mark.parametrize("given", [{"network": "cnn4"}, {"weights": "weights.safetensors"}])
def test_network_and_weights_go_together(given):
    with pytest.raises(UserError, match=f"features: {next(iter(given))}: found .* alone; allowed: a network together"):
        resolve({"features": given})


def test_off_is_the_default_and_changes_no_fingerprint(computed, project):
    off, on = resolve({}), resolve(PARAMETERS)
    assert "features" not in provenance.deciding(off)
    assert off.model_dump() == resolve({"features": {"network": None, "weights": None}}).model_dump()
    assert provenance.deciding(on)["features"]["network"] == "cnn4"
    assert resolve(on.model_dump()) == on  # as processes get it
    run = Layout(project, on)
    computed()
    run.splits.parent.mkdir(parents=True)
    run.splits.write_text("[]")
    before = provenance.fingerprint(run)
    weights(project, 1)
    computed()
    after = provenance.fingerprint(run)
    assert {key for key in before if before[key] != after[key]} == {"images"}


@pytest.mark.parametrize("people", [False, True])
def test_clients_train_on_features_and_people_see_images(people):
    inputs = {node.name: node.inputs for node in create_pipeline(2, Resources(), people=people, data="features").nodes}
    for name, read in inputs.items():
        task = name.partition(".")[2]
        on_features = task in {"query", "train", "evaluate"} or (task == "initial_pool" and not people)
        assert ("features" in read, "images" in read) == (on_features, not on_features)


def test_features_of_features_are_refused(project):
    np.savez(
        project / "mine.npz",
        **{f"{part}_features": np.eye(4, dtype=np.float32) for part in ("train", "test")},
        **{f"{part}_labels": np.arange(4) % 2 for part in ("train", "test")},
    )
    with pytest.raises(UserError, match="features.network: found 'cnn4', but mine is features already"):
        load_images(PARAMETERS, project)
    with pytest.raises(UserError, match="features.network: found null, which computes no features"):
        nodes.compute_features(None, {**PARAMETERS, "features": {}}, project)


def test_people_cannot_be_shown_features(project):
    np.savez(
        project / "mine.npz",
        **{f"{part}_features": np.eye(4, dtype=np.float32) for part in ("train", "test")},
        **{f"{part}_labels": np.arange(4) % 2 - (part == "train") for part in ("train", "test")},
        classes=np.array(["a", "b"]),
    )
    with pytest.raises(UserError, match="found 'people', but mine is features, which cannot be shown"):
        load_images({**PARAMETERS, "features": {}, "annotation": {"source": "people"}}, project)


def test_the_doctor_says_what_there_is(computed, project):
    config, images = resolve(PARAMETERS), DataShape(7, 3, (8, 8, 1), 2)
    finding, shape = doctor.look(config, project, images)
    assert (finding.status, shape) == ("warning", None)
    computed()
    finding, shape = doctor.look(config, project, images)
    assert finding.found.startswith("4 features an image by cnn4, float16")
    assert shape == DataShape(7, 3, (1, 1, 4), 2, "float16")
    (project / "weights.safetensors").unlink()
    assert doctor.look(config, project, images)[0].status == "failure"


def test_the_store_says_what_it_was_made_from(computed):
    images, features = computed()
    meta = json.loads((features.folder / "meta.json").read_text())
    assert len(meta["source"]) == 64
    assert (
        meta["arrays"]["train_labels"]["sha256"]
        == json.loads((images.folder / "meta.json").read_text())["arrays"]["train_labels"]["sha256"]
    )
