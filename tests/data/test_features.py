"""Features in the place of images: what is read, and what the store keeps of it."""

from __future__ import annotations

import numpy as np
import pytest

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import image_batches, open_store, read_store
from kafal_pipeline.data.image_batches import Moments


@pytest.fixture
def features():
    """12 + 6 rows of 5 features, the last one constant, with an offset that is large against the deviations."""
    rng = np.random.default_rng(0)
    train, test = (rng.normal([0, 1, -3, 1000, 2], [1, 2, 0.1, 0.01, 0], (count, 5)) for count in (12, 6))
    return {
        "train_features": train.astype(np.float32),
        "train_labels": np.arange(12) % 3,
        "test_features": test.astype(np.float32),
        "test_labels": np.arange(6) % 3,
    }


@pytest.fixture
def opened(tmp_path):
    def opened(arrays, **options):
        np.savez(tmp_path / "mine.npz", **arrays)
        config = DatasetConfig(name="mine", path=str(tmp_path / "mine.npz"), **options)
        return open_store(config, tmp_path / "raw", tmp_path / "images")

    return opened


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.dtype(">f4")])
def test_they_are_kept_as_they_are(opened, features, dtype):
    arrays = {key: array.astype(dtype) if "features" in key else array for key, array in features.items()}
    data = opened(arrays)
    assert data.are_features
    assert data.train_images.shape == (12, 1, 1, 5)
    assert data.train_images.dtype == np.dtype(dtype).newbyteorder("=")
    assert isinstance(data.train_images, np.memmap)
    np.testing.assert_array_equal(data.train_images[:, 0, 0], arrays["train_features"])
    np.testing.assert_array_equal(read_store(data.folder).test_images[:, 0, 0], arrays["test_features"])


def test_mean_and_deviation_are_those_of_the_training_set(opened, features, monkeypatch):
    monkeypatch.setattr(image_batches, "BATCH_BYTES", 100)  # five rows
    data, train = opened(features), features["train_features"].astype(np.float64)
    np.testing.assert_allclose(data.mean, train.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(data.std[:4], train.std(axis=0)[:4], rtol=1e-9)
    assert data.std[4] == 1


def test_statistics_do_not_lose_small_deviations():
    values = (1e4 + np.random.default_rng(0).integers(0, 2, (1000, 1))).astype(np.float32)
    moments = Moments(1)
    for start in range(0, 1000, 7):
        moments.add(values[start : start + 7, None, None])
    assert moments.mean_and_std()[1] == pytest.approx(values.astype(np.float64).std(axis=0).tolist(), rel=1e-12)


def test_given_statistics_take_their_place(opened, features):
    data = opened(features, mean=[0.0] * 5, std=[2.0] * 5)
    assert data.std.tolist() == [2.0] * 5


def test_all_else_is_as_for_images(opened, features):
    arrays = {key: array for key, array in features.items() if "test" not in key}
    arrays |= {"train_clients": np.arange(12) % 2, "classes": np.array(["a", "b", "c"])}
    arrays["train_labels"] = np.where(np.arange(12) < 3, -1, arrays["train_labels"])
    data = opened(arrays, test_share=0.34)
    assert (len(data.train_labels), len(data.test_labels), data.unlabelled) == (8, 4, 3)
    assert data.test_images.shape == (4, 1, 1, 5)
    assert data.client_names == ("0", "1")
    assert len({*data.train_ids, *data.test_ids}) == 12


def bad(key, value):
    return lambda arrays: arrays | {key: value(arrays[key]) if callable(value) else value}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bad("train_features", lambda a: a.astype(np.float64)), "train_features: found float64; allowed: float16"),
        (bad("train_features", lambda a: a[:, 0]), r"train_features: found the shape \(12,\); allowed: \(N, D\)"),
        (bad("test_features", lambda a: a[:, :0]), "test_features: found the shape"),
        (bad("test_features", lambda a: a[:, :4]), "they must agree"),
        (bad("test_features", lambda a: np.where(a == a[2, 1], np.nan, a)), "found nan in row 2, column 1"),
        (bad("train_features", lambda a: (a * 100).astype(np.float16)), "found inf in row 0.*at most 65504"),
        (
            bad("train_images", np.zeros((12, 5, 5), np.uint8)),
            "found train_images and train_features; allowed: images or",
        ),
        (lambda a: {key: a[key] for key in a if key != "test_features"}, "missing: test_features"),
        (bad("train_labels", lambda a: a[:-1]), "found 11 items for 12"),
    ],
)
def test_what_is_wrong_is_named(opened, features, change, message):
    with np.errstate(over="ignore"), pytest.raises(UserError, match=message):
        opened(change(features))


def test_there_is_nothing_to_resize(opened, features):
    with pytest.raises(UserError, match="dataset.image_size: found 32, but .* holds features"):
        opened(features, image_size=32)
