"""A trial on features in the place of images: every query, every update, and what suits them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.data import ImageData, open_store
from kafal_pipeline.data.pools import initial_pool
from kafal_pipeline.federation.between_rounds.store import Store
from kafal_pipeline.federation.dry_run import dry_run
from kafal_pipeline.federation.simulation import Simulation
from kafal_pipeline.federation.site import Sites
from kafal_pipeline.federation.trial import Trial
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.query import QUERIES
from kafal_pipeline.training import inference
from kafal_pipeline.training.device_images import Pixels
from kafal_pipeline.update import UPDATES

CLASSES, SIZE = 3, 150
NONE = {"flip": False, "crop_padding": 0}


@pytest.fixture(scope="module")
def features():
    """120 + 30 rows of 12 features, each class around a point of its own."""
    rng = np.random.default_rng(0)
    labels = np.arange(SIZE) % CLASSES
    rows = (5 + 3 * rng.normal(size=(CLASSES, 12))[labels] + rng.normal(size=(SIZE, 12))).astype(np.float16)
    rows = rows[:, None, None]
    train = rows[:120, 0, 0].astype(np.float64)
    split = (rows[:120], labels[:120], rows[120:], labels[120:])
    return ImageData("features", *split, ("a", "b", "c"), train.mean(axis=0), train.std(axis=0))


@pytest.fixture
def trial(features, make_config):
    def run(**changes):
        values = {"model": "linear", "training": {"augmentation": NONE}, "federation": {"rounds": 2}}
        config = make_config(**{**values, **changes})
        split = [list(range(client, 120, 4)) for client in range(4)]
        pool = initial_pool(split, features.train_labels, config.budget, config.cycles, config.seed)
        with Workers(features, config) as workers:
            clients = Simulation(config, workers, pool)
            measured = [s.result for s in Trial(config, features, clients).run() if s.name == "evaluate"]
        assert [row["labels"] for row in measured] == [24, 40]
        return [row["accuracy"] for row in measured]

    return run


@pytest.mark.parametrize("query", sorted(QUERIES))
def test_every_query(trial, query):
    assert trial(query=query, update="fedavg")[-1] > 0.8


@pytest.mark.parametrize("model", ["linear", {"name": "mlp", "width": 32, "dropout": 0.2}], ids=["linear", "mlp"])
@pytest.mark.parametrize("update", sorted(UPDATES))
def test_every_update(trial, update, model):
    first, second = (trial(query="ksas", update=update, model=model) for _ in range(2))
    assert first[-1] > 0.6
    assert first == second


@pytest.mark.parametrize("update", ["kcfu", "ridge"])
def test_processes_and_a_stop_in_the_middle_change_no_bit(make_config, tmp_path, features, update):
    """With dropout, whose draws must depend on neither."""
    arrays = {"train_features": features.train_images[:, 0, 0], "train_labels": features.train_labels}
    arrays |= {"test_features": features.test_images[:, 0, 0], "test_labels": features.test_labels}
    np.savez(tmp_path / "mine.npz", **arrays)
    given = {"name": "mine", "path": str(tmp_path / "mine.npz")}
    config = make_config(
        query="ksas",
        update=update,
        dataset=given,
        model={"name": "mlp", "width": 16, "dropout": 0.5},
        training={"augmentation": NONE},
    )
    data = open_store(config.dataset, tmp_path, tmp_path / "images")
    pool = initial_pool(
        [list(range(client, 120, 4)) for client in range(4)], data.train_labels, config.budget, config.cycles, 0
    )

    def stop(state):
        if (state.cycle, state.round) == (1, 2):
            raise KeyboardInterrupt

    def trained(config, name, *begin, sites=None, pool=pool, on_round=None):
        with Workers(data, config) as workers:
            clients = Simulation(
                config, workers, pool, store=lambda cycle: Store(tmp_path / name, f"{cycle}"), sites=sites
            )
            models = []
            try:
                for step in Trial(config, data, clients).run(*begin, on_round=on_round):
                    models += [step.result.global_state] if step.name == "train" else []
                    queried = step.result if step.name == "query" else None
            except KeyboardInterrupt:
                again = Sites(memory=clients.sites.memory)
                return models + trained(config, name, 1, models[-1], queried, sites=again, pool=clients.pool)
            return models

    two = config.model_copy(update={"training": config.training.model_copy(update={"processes": 2})})
    whole, others = trained(config, "whole"), trained(two, "stopped", on_round=stop)
    assert len(whole) == len(others) == 2
    for first, second in zip(whole, others, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("model", ["resnet8", "cnn4"])
def test_networks_for_images_are_refused(trial, model):
    with pytest.raises(UserError, match=f"model.name: found '{model}', .* model=linear or model=mlp"):
        trial(model=model)


@pytest.mark.parametrize("augmentation", [{"flip": True}, {"crop_padding": 1}])
def test_augmentation_is_refused(trial, augmentation):
    with pytest.raises(UserError, match="neither flipped nor shifted.*crop_padding=0"):
        trial(training={"augmentation": {**NONE, **augmentation}})


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_batches_are_standardised_and_the_data_stay_as_they_are(features, dtype):
    images = features.train_images.astype(dtype)
    before = images.copy()
    pixels = Pixels(images, features.mean.tolist(), features.std.tolist(), torch.device("cpu"))
    batch = pixels.batch(torch.arange(120))
    assert batch.shape == (120, 12, 1, 1)
    assert batch.dtype == torch.float32
    torch.testing.assert_close(batch.mean(dim=0), torch.zeros(12, 1, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.std(dim=0, correction=0), torch.ones(12, 1, 1), atol=1e-4, rtol=0)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize(
    ("shape", "dtype", "size"),
    [((1, 1, 384), np.float16, 1024), ((1, 1, 10**6), np.float32, 1), ((32, 32, 3), np.uint8, 24)],
)
def test_a_forward_takes_what_fits_into_a_cache(shape, dtype, size):
    pixels = Pixels(np.zeros((2, *shape), dtype), [0.0], [1.0], torch.device("cpu"))
    assert inference.chunk_size(pixels) == size


def test_a_model_of_ones_own_is_tried_on_features(features, make_config, tmp_path, monkeypatch):
    (tmp_path / "own_flat.py").write_text(
        "from kafal_pipeline.models.flat import Linear\n\n\nclass Mine(Linear):\n    pass\n\n\n"
        "class Wrong(Linear):\n    def features(self, images):\n        return images\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for update in ("kcfu", "ridge", {"name": "ridge", "min_count": 50}):
        dry_run(make_config(model="own_flat.Mine", update=update, training={"augmentation": NONE}), features)
    with pytest.raises(UserError, match="own_flat.Wrong"):
        dry_run(make_config(model="own_flat.Wrong", training={"augmentation": NONE}), features)
