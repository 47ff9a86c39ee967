"""The store: written once and whole, mapped, made again when something changed."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import CannotWrite
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import image_batches, open_store, read_store
from kafal_pipeline.data.sources.checks import one_sided
from kafal_pipeline.data.store import fingerprint
from kafal_pipeline.data.store import read as store
from kafal_pipeline.data.store import write as store_writer


@pytest.fixture
def setting(tmp_path, arrays):
    """A raw folder with mine.npz, and the function that opens its store."""
    raw = tmp_path / "raw"
    raw.mkdir()
    np.savez(raw / "mine.npz", **arrays)

    def opened(**options):
        return open_store(DatasetConfig(name="mine", **options), raw, tmp_path / "mine" / "images")

    return raw, opened


@pytest.fixture
def readings(monkeypatch):
    """A list that grows with every reading of a source: its data, or its bytes for the digest."""
    calls = []
    digest = fingerprint.file_digest

    def counted_digest(path):
        if path.suffix != ".npy":  # the store's own files are not the source's
            calls.append("digest")
        return digest(path)

    def counted_write(*arguments):
        calls.append("write")
        return write(*arguments)

    write = store_writer.write_store
    monkeypatch.setattr(fingerprint, "file_digest", counted_digest)
    monkeypatch.setattr(store_writer, "write_store", counted_write)
    return calls


def test_content(setting, arrays):
    raw, opened = setting
    data = opened()
    np.testing.assert_array_equal(data.train_images, arrays["train_images"])
    np.testing.assert_array_equal(data.test_labels, arrays["test_labels"])
    scaled = arrays["train_images"].reshape(-1, 3) / 255
    np.testing.assert_allclose(data.mean, scaled.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(data.std, scaled.std(axis=0), rtol=1e-12)
    assert data.name == "mine"
    assert data.folder == raw.parent / "mine" / "images"


def test_arrays_are_mapped_and_private(setting):
    _, opened = setting
    data = opened()
    assert isinstance(data.train_images, np.memmap)
    data.train_images[0] = 0
    assert read_store(data.folder).train_images[0].any()


def test_torch_takes_the_arrays_without_a_copy_or_a_warning(setting, recwarn):
    import torch

    data = setting[1]()
    assert torch.from_numpy(data.train_images).data_ptr() == data.train_images.ctypes.data
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


def test_unchanged_source_is_not_read_again(setting, readings):
    raw, opened = setting
    opened()
    assert readings == ["digest", "write"]
    opened()
    assert readings == ["digest", "write"]
    (raw / "mine.npz").touch()  # its time changes, its bytes do not
    opened()
    assert readings == ["digest", "write", "digest"]
    opened()
    assert readings == ["digest", "write", "digest"]


def test_changed_source_is_stored_again(setting, arrays, readings):
    raw, opened = setting
    opened()
    np.savez(raw / "mine.npz", **(arrays | {"train_labels": arrays["train_labels"][::-1]}))
    np.testing.assert_array_equal(opened().train_labels, arrays["train_labels"][::-1])
    assert readings.count("write") == 2


def test_changed_parameters_are_applied_and_others_are_not(setting, readings):
    _, opened = setting
    opened()
    assert opened(image_size=8).train_images.shape == (12, 8, 8, 3)
    assert opened(image_size=8, label="small", download=True).train_images.shape == (12, 8, 8, 3)
    assert readings.count("write") == 2
    data = opened(mean=[0.1, 0.2, 0.3], std=[1, 2, 3])
    assert (data.mean.tolist(), data.std.tolist()) == ([0.1, 0.2, 0.3], [1, 2, 3])


@pytest.mark.parametrize("key", ["mean", "std"])
def test_statistics_of_the_wrong_length(setting, key):
    with pytest.raises(UserError, match=rf"dataset\.{key}: found 1 items; mine has 3 channels"):
        setting[1](**{key: [0.5]})


def test_source_that_is_gone_is_not_needed(setting, arrays):
    raw, opened = setting
    opened()
    (raw / "mine.npz").unlink()
    np.testing.assert_array_equal(opened().train_images, arrays["train_images"])
    with pytest.raises(UserError, match="no known data set"):
        opened(image_size=8)


@pytest.mark.parametrize("damage", ["truncated", "lengthened", "gone", "meta gone", "meta damaged", "other format"])
def test_damaged_store_is_refused_or_made_again(setting, arrays, damage):
    _, opened = setting
    folder = opened().folder
    path = folder / "train_images.npy"
    meta = folder / "meta.json"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "lengthened":
        path.write_bytes(path.read_bytes() + b"0")
    elif damage == "gone":
        path.unlink()
    elif damage == "meta gone":
        meta.unlink()
    elif damage == "meta damaged":
        meta.write_text("{")
    else:
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"format": 0}))
    with pytest.raises(UserError, match="no whole store"):
        read_store(folder)
    np.testing.assert_array_equal(opened().train_images, arrays["train_images"])


def test_a_changed_bit_is_refused_or_made_again(setting, arrays, caplog):
    """Sizes and shapes are what they were, and so are the files' names: the digests alone tell."""
    _, opened = setting
    folder = opened().folder
    path = folder / "train_images.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"not as it was written \(another SHA-256: train_images\.npy\)"):
        read_store(folder)
    assert not caplog.records
    np.testing.assert_array_equal(opened().train_images, arrays["train_images"])
    assert "not as it was written (train_images.npy); it is made again" in caplog.text
    assert path.read_bytes() == content


def test_a_changed_store_without_its_source_is_refused(setting):
    raw, opened = setting
    folder = opened().folder
    (raw / "mine.npz").unlink()
    labels = np.load(folder / "train_labels.npy")
    np.save(folder / "train_labels.npy", labels[::-1])
    with pytest.raises(UserError, match=r"train_labels\.npy"):
        opened()


def test_files_of_a_store_are_read_again_only_where_their_times_have_changed(setting, monkeypatch):
    _, opened = setting
    folder = opened().folder
    digest, calls = fingerprint.file_digest, []
    monkeypatch.setattr(fingerprint, "file_digest", lambda path: calls.append(path.name) or digest(path))
    opened()
    read_store(folder)
    assert calls == []
    (folder / "test_labels.npy").touch()
    read_store(folder)
    assert len(calls) == 4
    read_store(folder)
    assert len(calls) == 4


def test_a_store_that_may_only_be_read(setting, monkeypatch):
    _, opened = setting
    folder = opened().folder
    (folder / "test_labels.npy").touch()

    def refused(*_arguments):
        raise CannotWrite("read-only")

    monkeypatch.setattr(fingerprint, "write_note", refused)
    assert len(read_store(folder).test_labels)


def test_an_error_while_writing_leaves_the_old_store_and_no_rubbish(setting, monkeypatch, tmp_path):
    _, opened = setting
    folder = opened().folder

    def fail(self, batch):
        raise MemoryError("half-way")

    monkeypatch.setattr(image_batches.Levels, "add", fail)
    with pytest.raises(MemoryError):
        opened(image_size=8)
    assert read_store(folder).train_images.shape == (12, 4, 5, 3)
    assert sorted(path.name for path in folder.parent.iterdir()) == [
        ".images.source.json",
        ".images.stored.json",
        "images",
    ]


def test_two_runs_at_the_same_moment_write_one_store(setting, monkeypatch):
    _, opened = setting
    digest, write = store.content_digest, store_writer.write_store
    together, written = threading.Barrier(2, timeout=30), []

    def both_have_read(*arguments):
        together.wait()
        return digest(*arguments)

    def noted(*arguments):
        written.append(arguments)
        write(*arguments)

    monkeypatch.setattr(store, "content_digest", both_have_read)
    monkeypatch.setattr(store.store_writer, "write_store", noted)
    with ThreadPoolExecutor(2) as runs:
        first, second = runs.map(lambda _: opened(), range(2))
    assert len(written) == 1  # a store that is replaced is gone under the other run for a moment
    np.testing.assert_array_equal(first.train_images, second.train_images)
    assert sorted(path.name for path in first.folder.parent.iterdir()) == [
        ".images.source.json",
        ".images.stored.json",
        "images",
    ]


def test_disk_errors_are_not_hidden(setting, monkeypatch):
    def full(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(store.store_writer, "write_store", full)
    with pytest.raises(OSError, match="No space"):
        setting[1]()


def test_stores_of_equal_data_are_equal_byte_for_byte(tmp_path):
    folders = [open_store(DatasetConfig(), tmp_path, tmp_path / name / "images").folder for name in "ab"]
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == ["meta.json", "test_images.npy", "test_labels.npy", "train_images.npy", "train_labels.npy"]
    for name in names:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    meta = json.loads((folders[0] / "meta.json").read_text())
    for name, array in meta["arrays"].items():
        assert array["sha256"] == fingerprint.file_digest(folders[0] / f"{name}.npy")


def test_clients_of_the_data_are_stored(tmp_path, arrays):
    clients = {"train_clients": np.array(["B", "A", "D", "C"] * 3), "test_clients": np.array(["D"] * 6)}
    np.savez(tmp_path / "mine.npz", **arrays, **clients)

    def opened():
        return open_store(DatasetConfig(name="mine"), tmp_path, tmp_path / "images")

    assert opened().train_clients.tolist() == [1, 0, 3, 2] * 3
    assert opened().test_clients.tolist() == [3] * 6
    assert opened().client_names == ("A", "B", "C", "D")
    meta = tmp_path / "images/meta.json"
    old = {key: value for key, value in json.loads(meta.read_text()).items() if key != "client_names"}
    meta.write_text(json.dumps(old))  # as versions wrote it that kept no names
    assert opened().client_names == ("A", "B", "C", "D")
    meta.write_text(json.dumps(old))
    (tmp_path / "mine.npz").unlink()
    assert opened().client_names is None


def test_the_remark_on_classes_of_one_split():
    assert one_sided(("a", "b"), np.array([0, 1]), np.array([1, 0])) is None
    assert one_sided(("a", "b", "c", "d"), np.array([0, 1]), np.array([1, 2])) == (
        "class 'a': training images but no test image, so it is never tested; "
        "class 'c': test images but no training image, so it is never learnt"
    )


@pytest.mark.parametrize(
    ("resize", "middle", "corner"),
    [("squash", [10, 10, 200, 200, 10, 10], 10), ("crop", [137, 200, 200, 200, 200, 137], 137),
     ("pad", [10, 10, 200, 200, 10, 10], 0)],
)  # fmt: skip
def test_three_ways_to_a_square(tmp_path, image_folder, resize, middle, corner):
    """Squashed, a wide image gets narrow; cropped, its middle fills the square; padded, it lies in black."""
    wide = np.repeat(np.array([[10, 10, 200, 200, 10, 10]], dtype=np.uint8), 2, axis=0)
    found = [image_batches.resized(wide[None, ..., None], 6, resize)[0:1][0, ..., 0]]
    Image.fromarray(wide).save(image_folder / "train/cat/0.png")
    section = DatasetConfig(name="mine", path=str(image_folder), image_size=6, resize=resize)
    found.append(open_store(section, tmp_path, tmp_path / "images").train_images[0, ..., 0])
    for square in found:
        assert square.shape == (6, 6)
        assert square[2].tolist() == square[3].tolist() == middle
        assert square[0, 0] == square[5, 5] == corner


def test_padding_leaves_a_pixel_of_a_strip():
    square = image_batches.resized(np.full((1, 1, 300, 1), 9, dtype=np.uint8), 6, "pad")[0:1][0, ..., 0]
    assert square[2].tolist() == [9] * 6


def test_another_way_of_resizing_makes_the_store_again(setting, readings):
    _, opened = setting
    squashed = opened(image_size=5).train_images.copy()
    before = len(readings)
    assert opened(image_size=5, resize="squash").train_images.tolist() == squashed.tolist()
    assert len(readings) == before
    assert opened(image_size=5, resize="crop").train_images.tolist() != squashed.tolist()
    assert len(readings) > before


def test_folder_of_images_is_stored(tmp_path, image_folder, readings):
    def opened():
        return open_store(DatasetConfig(name="mine", path=str(image_folder)), tmp_path, tmp_path / "images")

    assert opened().train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    before = len(readings)
    opened()
    assert len(readings) == before
    (image_folder / "train/dog/2.png").unlink()
    assert len(opened().train_images) == 5
    assert opened().train_files[3:].tolist() == ["train/dog/0.png", "train/dog/1.png"]


def test_an_older_store_gets_the_names_of_files_unless_the_folder_is_gone(tmp_path, image_folder):
    def opened():
        return open_store(DatasetConfig(name="mine", path=str(image_folder)), tmp_path, tmp_path / "images")

    def made_older():
        meta = json.loads((tmp_path / "images/meta.json").read_text())
        del meta["arrays"]["train_files"]
        (tmp_path / "images/meta.json").write_text(json.dumps(meta))
        (tmp_path / "images/train_files.npy").unlink()

    opened()
    made_older()
    assert opened().train_files[0] == "train/cat/0.png"
    made_older()
    image_folder.rename(tmp_path / "elsewhere")
    assert opened().train_files is None


def test_batches_do_not_change_the_result(setting, monkeypatch):
    whole = setting[1](image_size=6)
    expected = (whole.train_images.copy(), whole.mean, whole.std)
    monkeypatch.setattr(image_batches, "BATCH_BYTES", 6 * 6 * 3 * 5)
    setting[1]()
    again = setting[1](image_size=6)
    np.testing.assert_array_equal(again.train_images, expected[0])
    assert (again.mean.tolist(), again.std.tolist()) == (expected[1].tolist(), expected[2].tolist())


def test_constant_channel_can_be_divided_by():
    levels = image_batches.Levels(1)
    levels.add(np.full((3, 2, 2, 1), 51, dtype=np.uint8))
    assert levels.mean_and_std() == ([pytest.approx(0.2)], [1.0])


def test_reading_imports_nothing_heavy(setting):
    folder = setting[1]().folder
    code = (
        "import sys; from pathlib import Path; from kafal_pipeline.data import read_store; "
        f"read_store(Path({str(folder)!r})); "
        "print([m for m in ('torch', 'torchvision', 'sklearn', 'scipy', 'pandas', 'PIL', 'kedro') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_real_cifar10(real_data, tmp_path):
    file = real_data("cifar10.npz")
    data = open_store(DatasetConfig(name="cifar10", path=str(file)), tmp_path, tmp_path / "images")
    assert data.train_images.shape == (50_000, 32, 32, 3)
    np.testing.assert_allclose(data.mean, [0.4914, 0.4822, 0.4465], atol=1e-4)
    np.testing.assert_allclose(data.std, [0.2470, 0.2435, 0.2616], atol=1e-4)
