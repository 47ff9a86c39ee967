"""The choice among sources, the bundled digits, and the published sets through torchvision."""

import hashlib
import pickle
import struct
import sys

import numpy as np
import pytest

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.sources import NAMED, find_source, published
from kafal_pipeline.data.sources.download import download


def test_digits_are_real_and_split_by_class(tmp_path):
    data = find_source(DatasetConfig(), tmp_path).read()
    assert data.train_images.shape == (1438, 8, 8, 1)
    assert data.test_images.shape == (359, 8, 8, 1)
    assert data.train_images[:].dtype == np.uint8
    assert (data.train_images[:].min(), data.train_images[:].max()) == (0, 255)
    train, test = np.bincount(data.train_labels), np.bincount(data.test_labels)
    np.testing.assert_array_equal(test, np.round((train + test) / 5))


def test_a_file_in_the_raw_folder_comes_first(tmp_path, arrays):
    assert {"digits", "cifar10", "cifar100", "svhn", "mnist", "fashion_mnist", "emnist"} == set(NAMED)
    for name in (*NAMED, "mine"):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        assert find_source(DatasetConfig(name=name), tmp_path).kind == "npz"


def test_a_path_comes_before_everything(tmp_path, arrays, image_folder):
    np.savez(tmp_path / "digits.npz", **arrays)
    assert find_source(DatasetConfig(name="mine", path=str(image_folder)), tmp_path).kind == "folder"


def test_unknown_name_says_what_to_do(tmp_path):
    source = find_source(DatasetConfig(name="cifar1O"), tmp_path)
    assert source.missing
    with pytest.raises(UserError, match="Did you mean 'cifar10'") as error:
        source.read()
    assert "cifar1O.npz" in str(error.value)


@pytest.mark.parametrize("name", sorted(published.SETS))
def test_absent_files_are_named_without_torchvision(tmp_path, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    config = DatasetConfig(name=name, emnist_split="letters")
    source = find_source(config, tmp_path)
    assert source.missing
    with pytest.raises(UserError, match=r"dataset\.download=true") as error:
        source.read()
    assert f"{name}.npz" in str(error.value)
    assert all(str(path) in str(error.value) for path in source.files)


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def write_mnist(raw, folder="MNIST", parts=("train", "t10k"), prefix="", labels=10):
    rng = np.random.default_rng(0)
    images = {part: rng.integers(0, 256, (20, 28, 28), dtype=np.uint8) for part in parts}
    first = 1 if labels == 26 else 0
    for part, pixels in images.items():
        write_idx(raw / folder / "raw" / f"{prefix}{part}-images-idx3-ubyte", pixels)
        write_idx(raw / folder / "raw" / f"{prefix}{part}-labels-idx1-ubyte", np.arange(20) % labels + first)
    return images


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_idx_files(tmp_path, name, folder):
    images = write_mnist(tmp_path, folder)
    data = find_source(DatasetConfig(name=name), tmp_path).read()
    np.testing.assert_array_equal(data.train_images[:], images["train"][..., None])
    np.testing.assert_array_equal(data.test_images[:], images["t10k"][..., None])
    np.testing.assert_array_equal(data.train_labels, np.arange(20) % 10)
    assert len(data.classes) == 10


def test_emnist_is_turned_upright_and_letters_count_from_zero(tmp_path):
    images = write_mnist(tmp_path, "EMNIST", ("train", "test"), "emnist-letters-", labels=26)
    data = find_source(DatasetConfig(name="emnist", emnist_split="letters"), tmp_path).read()
    np.testing.assert_array_equal(data.train_images[:][..., 0], images["train"].swapaxes(1, 2))
    assert data.train_labels.min() == 0
    assert data.classes[0] == "a"
    assert len(data.classes) == 26


def test_truncated_idx_file_is_refused(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"mnist in .* are damaged.*dataset\.download"):
        find_source(DatasetConfig(name="mnist"), tmp_path).read()


class Trap:
    """Pickled, it would make a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_cifar_with_a_wrong_checksum_is_refused_before_it_is_unpickled(tmp_path):
    source = find_source(DatasetConfig(name="cifar10"), tmp_path)
    for path in source.files:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    source = find_source(DatasetConfig(name="cifar10"), tmp_path)
    assert not source.missing
    with pytest.raises(UserError, match="damaged or not the published ones"):
        source.read()
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("name", "key"), [("cifar10", "labels"), ("cifar100", "fine_labels")])
def test_cifar_layout(tmp_path, name, key, monkeypatch):
    """A tiny CIFAR whose checksums are made the published ones."""
    from torchvision import datasets

    dataset = getattr(datasets, published.SETS[name].class_name)
    folder = tmp_path / dataset.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    count = 10 if name == "cifar10" else 100

    def write(file, content):
        (folder / file).write_bytes(pickle.dumps(content))
        return [file, hashlib.md5((folder / file).read_bytes()).hexdigest()]

    def batch():
        return {"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8), key: list(range(count))}

    batches = [batch() for _ in dataset.train_list]
    train_list = [write(file, content) for (file, _), content in zip(dataset.train_list, batches, strict=True)]
    monkeypatch.setattr(dataset, "train_list", train_list)
    monkeypatch.setattr(dataset, "test_list", [write(dataset.test_list[0][0], batch())])
    names = {dataset.meta["key"]: [f"class {number}" for number in range(count)]}
    file, md5 = write(dataset.meta["filename"], names)
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"filename": file, "md5": md5})

    data = find_source(DatasetConfig(name=name), tmp_path).read()
    assert data.train_images.shape == (count * len(batches), 32, 32, 3)
    expected = batches[0]["data"][0].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(data.train_images[0:1][0], expected)
    assert data.classes[1] == "class 1"
    assert data.test_labels[-1] == count - 1


def test_svhn_layout(tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision import datasets

    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    table = {}
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": pixels, "y": (np.arange(20) % 10 + 1).astype(np.uint8)[:, None]})
        table[split] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", table)
    data = find_source(DatasetConfig(name="svhn"), tmp_path).read()
    np.testing.assert_array_equal(data.train_images[:], pixels.transpose(3, 0, 1, 2))
    assert data.train_labels[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


def test_a_torchvision_that_cannot_be_imported_says_what_to_install(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UserError, match="pip install --force-reinstall -r requirements.lock"):
        find_source(DatasetConfig(name="mnist"), tmp_path).read()


def test_a_failed_download_leaves_nothing(tmp_path):
    def fails(root, download, train):
        (tmp_path / root / "MNIST/raw").mkdir(parents=True)
        (tmp_path / root / "MNIST/raw/train-images-idx3-ubyte").write_bytes(b"half")
        raise RuntimeError("File not found or corrupted.")

    raw = tmp_path / "raw"
    with pytest.raises(UserError, match=r"mnist could not be downloaded \(File not found or corrupted.*mnist\.npz"):
        download("mnist", fails, {"train": True}, {"train": False}, raw)
    assert list(raw.iterdir()) == []


def test_download_keeps_what_is_read_and_drops_the_archives(tmp_path, monkeypatch):
    from torchvision import datasets

    real = datasets.MNIST

    def offline(root, train, download):
        if download:
            write_mnist(tmp_path / root)
            (tmp_path / root / "MNIST/raw/train-images-idx3-ubyte.gz").write_bytes(b"archive")
            return None
        return real(root, train=train, download=False)

    monkeypatch.setattr(datasets, "MNIST", offline)
    data = find_source(DatasetConfig(name="mnist", download=True), tmp_path).read()
    assert data.train_images.shape == (20, 28, 28, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MNIST"]
    assert {path.name for path in (tmp_path / "MNIST/raw").iterdir()} == set(published.IDX)


def test_real_fashion_mnist_agrees_with_its_npz(real_data):
    layout = real_data("FashionMNIST").parent
    file = real_data("fashion_mnist.npz")
    npz = find_source(DatasetConfig(name="x", path=str(file)), layout).read()
    idx = published.source(DatasetConfig(name="fashion_mnist"), layout).read()
    assert idx.classes[0] == "T-shirt/top"
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(npz, name)[:], getattr(idx, name)[:])
