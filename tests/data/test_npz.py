"""The npz source: what it accepts, and what it says about everything else."""

import numpy as np
import pytest

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.sources import find_source


@pytest.fixture
def read(tmp_path):
    def read(arrays, compressed=False):
        path = tmp_path / "mine.npz"
        (np.savez_compressed if compressed else np.savez)(path, **arrays)
        return find_source(DatasetConfig(name="mine", path=str(path)), tmp_path / "raw").read()

    return read


@pytest.mark.parametrize("compressed", [False, True])
def test_good_file(read, arrays, compressed):
    data = read(arrays, compressed)
    np.testing.assert_array_equal(data.train_images[:], arrays["train_images"])
    np.testing.assert_array_equal(data.test_labels, arrays["test_labels"])
    assert data.train_labels.dtype == np.int64
    assert data.classes == ("0", "1", "2")
    assert data.train_clients is None


def test_grey_images_columns_of_labels_and_ignored_keys(read, arrays):
    arrays["train_images"] = arrays["train_images"][..., 0]
    arrays["test_images"] = arrays["test_images"][..., 0]
    arrays["train_labels"] = arrays["train_labels"][:, None].astype(np.uint8)
    arrays["val_images"] = np.zeros(3)
    data = read(arrays)
    assert data.train_images.shape == (12, 4, 5, 1)
    assert data.train_labels.shape == (12,)


def test_optional_keys(read, arrays):
    arrays["train_clients"] = np.arange(12) % 4
    arrays["classes"] = np.array(["a", "b", "c", "absent"])
    data = read(arrays)
    assert data.classes == ("a", "b", "c", "absent")
    np.testing.assert_array_equal(data.train_clients, np.arange(12) % 4)


@pytest.mark.parametrize("called", [np.array([7, 30, 1000]), np.array(["Aachen", "Bonn", "Köln"])])
def test_clients_of_both_splits_are_numbered_together(read, arrays, called):
    train, test = np.arange(12) % 3, np.array([2, 2, 0, 0, 0, 2])
    data = read(arrays | {"train_clients": called[train], "test_clients": called[test][:, None]})
    assert data.train_clients.tolist() == train.tolist()
    assert data.test_clients.tolist() == test.tolist()
    assert data.client_names == tuple(str(name) for name in called)


def bad(key, value):
    return lambda arrays: arrays | {key: value(arrays[key]) if callable(value) else value}


def clients(train, test):
    return lambda arrays: arrays | {"train_clients": train, "test_clients": test}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bad("train_images", lambda a: a / np.float32(255)), "train_images: found float32; allowed: uint8"),
        (bad("test_images", lambda a: np.where(a > 200, np.nan, a)), "test_images: found float64 with NaN"),
        (bad("train_images", lambda a: a[0, 0]), r"found the shape \(5, 3\)"),
        (bad("train_images", lambda a: np.zeros((12, 3, 32, 32), np.uint8)), "channels last"),
        (bad("train_images", lambda a: a[:0]), "at least one image"),
        (bad("test_images", lambda a: a[:, :3]), r"training images of \(4, 5, 3\) and test images of \(3, 5, 3\)"),
        (bad("train_labels", lambda a: a[:-1]), "train_labels: found 11 items for 12 images"),
        (bad("train_labels", lambda a: a.astype(float)), "train_labels: found float64; allowed: integers"),
        (bad("train_labels", lambda a: np.where(a == 0, np.nan, a)), "with NaN"),
        (bad("train_labels", lambda a: a - 1), "4 images have the label -1, .* the classes have no names"),
        (bad("train_labels", lambda a: a - 2), "train_labels: found -2 at position 0; allowed: integers from 0, or -1"),
        (bad("train_labels", lambda a: a.astype(np.uint64) + np.uint64(2**63)), "found 9223372036854775808 at"),
        (bad("train_labels", lambda a: np.stack([a, a], axis=1)), "Several labels to an image"),
        (bad("train_labels", lambda a: a + 1), "no image of class 0"),
        (bad("train_labels", lambda a: a * 2), "no image of class 1"),
        (bad("train_labels", lambda a: a * 0), "test_labels: found the label 1 at position 1; allowed: 0 to 0"),
        (bad("test_labels", lambda a: a + 1), "test_labels: found the label 3 at position 2; allowed: 0 to 2"),
        (bad("classes", np.array(["a", "b"])), "the 2 classes of the key classes"),
        (bad("classes", np.array(["a", "b", "a"])), "all different"),
        (bad("classes", np.array(["a", "b\n", "c"])), r"classes: found the name 'b\\n', which .* control characters"),
        (bad("classes", np.array(["caf\u00e9", "cafe\u0301", "c"])), "found 'caf\u00e9' twice"),
        (bad("classes", np.full(3, 0x110000, np.uint32).view("U1")), "classes: cannot be read as text"),
        (bad("classes", np.arange(3)), "one list of strings"),
        (bad("classes", np.array(["a", "b", "c"], dtype=object)), "without object arrays"),
        (bad("train_labels", lambda a: a.astype(object)), "without object arrays"),
        (bad("train_clients", np.arange(11)), "train_clients: found 11 items"),
        (bad("train_clients", -np.arange(12)), "train_clients: found -1"),
        (bad("train_clients", np.array([""] * 12)), "train_clients: found the name '', which is empty"),
        (bad("test_clients", np.arange(6)), "whose the test images are.*Add train_clients"),
        (clients(np.arange(12), np.arange(5)), "test_clients: found 5 items for 6 images"),
        (clients(np.arange(12), np.full(6, 12)), "test_clients: found 12, which is no client of train_clients"),
        (clients(np.array(["a"] * 12), np.zeros(6, int)), "test_clients: found 0, which is no client"),
        (clients(np.array(["a"] * 12), np.array(["b"] * 6)), "test_clients: found 'b', which is no client"),
    ],
)
def test_bad_array_is_named(read, arrays, change, message):
    with pytest.raises(UserError, match=message) as error:
        read(change(arrays))
    assert "mine.npz" in str(error.value)


def test_missing_keys_are_listed(read, arrays):
    del arrays["test_labels"], arrays["train_images"]
    with pytest.raises(UserError, match="missing: train_images, test_labels"):
        read(arrays)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "plain npy", "bit"])
def test_damaged_file_is_refused(tmp_path, arrays, damage):
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)
    whole = path.read_bytes()
    if damage == "plain npy":
        with path.open("wb") as file:
            np.save(file, arrays["train_images"])
    else:
        middle = len(whole) // 4  # in the pixels of the first array
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        path.write_bytes(
            {"truncated": whole[: len(whole) // 2], "text": b"hello" * 100, "empty": b"", "bit": flipped}[damage]
        )
    with pytest.raises(UserError, match=r"x\.npz: cannot be read"):
        find_source(DatasetConfig(name="mine", path=str(path)), tmp_path).read()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.npz: there is no such file"):
        find_source(DatasetConfig(name="mine", path=str(tmp_path / "nowhere.npz")), tmp_path).read()
