"""Data of which nobody knows some labels: folders with unlabelled/, archives with -1, classes by name."""

import hashlib
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data import open_store
from kafal_pipeline.data.sources import find_source
from kafal_pipeline.data.sources.checks import check_annotation, one_sided


def save(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 6), shade, dtype=np.uint8)).save(path)


def read(root, **options):
    return find_source(DatasetConfig(name="mine", path=str(root), **options), root / "raw").read()


def stored(root, folder, **options):
    return open_store(DatasetConfig(name="mine", path=str(root), **options), root / "raw", folder / "images")


@pytest.fixture
def mixed(image_folder):
    """Of the folder cat and dog, 3 + 2 of each, and four images without a label, one of them deeper."""
    for number, name in enumerate(("2.png", "1.jpg", "deep/er/0.PNG", "0.jpeg")):
        save(image_folder / "unlabelled" / name, 200 + number)
    return image_folder


def test_labelled_images_come_first(mixed):
    save(mixed / "unlabelled/.hidden.png", 0)
    data = read(mixed)
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1, 1, -1, -1, -1, -1]
    names = ["0.jpeg", "1.jpg", "2.png", "deep/er/0.PNG"]
    assert data.train_files[6:] == tuple(f"unlabelled/{name}" for name in names)
    assert data.test_files == ("test/cat/0.png", "test/cat/1.png", "test/dog/0.png", "test/dog/1.png")
    np.testing.assert_allclose(data.train_images[6:][:, 0, 0, 0], [203, 201, 200, 202], atol=2)
    assert (data.classes, data.unlabelled) == (("cat", "dog"), 4)


def test_american_spelling(mixed):
    (mixed / "unlabelled").rename(mixed / "unlabeled")
    assert read(mixed).train_files[-1] == "unlabeled/deep/er/0.PNG"
    save(mixed / "unlabelled/0.png", 0)
    with pytest.raises(UserError, match="folders unlabelled and unlabeled"):
        read(mixed)


def test_no_label_at_all(mixed):
    shutil.rmtree(mixed / "test")
    for count in (1, 0):  # one folder is left empty, then train/ goes too
        for name in ("cat", "dog"):
            for file in (mixed / "train" / name).glob("*"):
                file.unlink()
        data = read(mixed, classes=["dog", "cat", "emu"], test_share=0.5)
        assert data.classes == ("dog", "cat", "emu")
        assert (data.train_labels.tolist(), data.test_labels.tolist()) == ([-1, -1], [-1, -1])
        if count:
            shutil.rmtree(mixed / "train")


def test_classes_by_name_are_in_that_order(mixed):
    names = ["emu", "dog", "cat"]
    data = read(mixed, classes=names)
    assert data.classes == ("emu", "dog", "cat")
    assert data.train_labels[:6].tolist() == [2, 2, 2, 1, 1, 1]
    assert data.test_labels.tolist() == [2, 2, 1, 1]
    assert unicodedata.normalize("NFC", "e\u0301") in read(mixed, classes=["e\u0301", "dog", "cat"]).classes


def test_a_table_of_clients_names_all(mixed):
    keys = [*(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(3))]
    rows = "".join(f"{key},A\n" for key in keys)
    table = mixed / "train_clients.csv"
    table.write_text(f"file,client\n{rows}")
    with pytest.raises(UserError, match=r"unlabelled/0\.jpeg is not in the table.*unlabelled/<path>"):
        read(mixed)
    more = "".join(f"unlabelled/{name},B\n" for name in ("0.jpeg", "1.jpg", "2.png", "deep/er/0.PNG"))
    table.write_text(f"file,client\n{rows}{more}")
    data = read(mixed)
    assert data.train_clients.tolist() == [0] * 6 + [1] * 4
    assert data.client_names == ("A", "B")


def remove(*names):
    def change(root):
        for name in names:
            shutil.rmtree(root / name)

    return change


def link(name, target):
    return lambda root: (root / name).symlink_to(root / target)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (remove("train"), {}, r"no folder train/.*dataset\.classes=\[cat,dog\]"),
        (remove("train/dog"), {}, "test: found the class 'dog', which train/ has not"),
        (remove("train/dog", "test/dog"), {}, r"found one class, 'cat'.*dataset\.classes"),
        (lambda root: None, {"classes": ["cats", "dog"]}, "'cat', which dataset.classes lacks. Did you mean 'cats'"),
        (remove("train/dog"), {"classes": ["cat", "bird"]}, "test: found the class 'dog', which dataset.classes lacks"),
        (lambda root: None, {"test_share": 0.2}, r"test_share: found 0\.2, but .*photos brings a test set \(test\)"),
        (remove("test"), {}, r"no test images.*dataset\.test_share"),
        (lambda root: None, {"classes": ["e\u0301", "\u00e9"]}, r"dataset\.classes: found a name twice"),
        (lambda root: (root / "train/unlabelled").mkdir(), {}, "train/unlabelled: found no image"),
        (lambda root: save(root / "train/Unlabelled/0.png", 0), {"classes": ["cat", "dog", "Unlabelled"]},
         r"train: found the folder 'Unlabelled'.*next to train/"),
        (link("unlabelled/deep/loop", "unlabelled"), {}, "deep/loop: leads to .*unlabelled, which is read already"),
        (link("unlabelled/again", "unlabelled/deep"), {}, "unlabelled/again: leads to .*deep, which is read already"),
        (link("unlabelled/out.png", "../secret.png"), {}, r"out\.png: is a link to .*secret\.png, outside"),
        (link("unlabelled/out", ".."), {}, "unlabelled/out: is a link to .*, outside"),
        (link("unlabelled/gone.png", "nowhere.png"), {}, r"gone\.png: is no file"),
    ],
)  # fmt: skip
def test_what_is_not_as_it_should_be_is_named(mixed, change, options, message):
    save(mixed.parent / "secret.png", 0)
    change(mixed)
    with pytest.raises(UserError, match=message):
        read(mixed, **options)


def test_an_empty_folder_is_named(mixed):
    shutil.rmtree(mixed / "unlabelled")
    (mixed / "unlabelled/deep").mkdir(parents=True)
    with pytest.raises(UserError, match="unlabelled.*: found no image.*Remove the folder if all"):
        read(mixed)


def test_ids_are_of_the_content_alone(mixed, tmp_path):
    shutil.copy(mixed / "train/cat/1.png", mixed / "unlabelled/copy.png")
    shutil.copy(mixed / "train/cat/1.png", mixed / "test/cat/copy.png")
    images = stored(mixed, tmp_path / "a")
    by_file = dict(zip([*images.train_files, *images.test_files], [*images.train_ids, *images.test_ids], strict=True))
    assert len(set(by_file.values())) == len(by_file) == 16
    plain = by_file["train/cat/1.png"]
    assert plain == "s" + hashlib.sha256((mixed / "train/cat/1.png").read_bytes()).hexdigest()[:12]
    # test/cat/1.png has the same pixels too; of the same content, training images are counted first
    assert by_file["unlabelled/copy.png"] == f"{plain}-2"
    assert {by_file["test/cat/1.png"], by_file["test/cat/copy.png"]} == {f"{plain}-3", f"{plain}-4"}
    (mixed / "unlabelled/2.png").rename(mixed / "unlabelled/zzz.png")
    save(mixed / "unlabelled/new.png", 77)
    again = stored(mixed, tmp_path / "b", image_size=8)
    after = dict(zip(again.train_files, again.train_ids, strict=True))
    assert after["unlabelled/zzz.png"] == by_file["unlabelled/2.png"]
    assert after["unlabelled/deep/er/0.PNG"] == by_file["unlabelled/deep/er/0.PNG"]


def test_no_ids_where_all_labels_are_known(image_folder, tmp_path):
    images = stored(image_folder, tmp_path)
    assert images.train_ids is images.test_ids is images.test_files is None
    assert images.unlabelled == 0


@pytest.mark.parametrize("damage", ["duplicate", "gone", "too short", "known"])
def test_ids_that_do_not_fit_are_made_again(mixed, tmp_path, damage):
    images = stored(mixed, tmp_path)
    expected, file = images.train_ids.tolist(), tmp_path / "images/train_ids.npy"
    if damage == "gone":
        file.unlink()
    elif damage == "known":
        np.save(tmp_path / "images/train_labels.npy", np.zeros(10, dtype=np.int64))
    else:
        np.save(file, images.train_ids[:-1] if damage == "too short" else np.repeat(images.train_ids[:1], 10))
    assert stored(mixed, tmp_path).train_ids.tolist() == expected


class TestArchive:
    @pytest.fixture
    def archive(self, tmp_path, arrays):
        def write(**others):
            path = tmp_path / "mine.npz"
            values = arrays | {"train_labels": np.array([0, -1, -1, 2] * 3)} | others
            np.savez(path, **{key: value for key, value in values.items() if value is not None})
            return path

        return write

    def test_minus_one_is_no_label(self, archive, arrays):
        images = read(archive(), classes=["a", "b", "c"])
        assert images.train_labels.tolist() == [0, -1, -1, 2] * 3
        assert images.classes == ("a", "b", "c")
        assert read(archive(classes=np.array(["x", "y", "z"]))).classes == ("x", "y", "z")
        assert read(archive(test_labels=np.full(6, -1)), classes=["a", "b", "c"]).unlabelled == 12

    @pytest.mark.parametrize(
        ("others", "options", "message"),
        [
            ({}, {}, r"6 images have the label -1.*Name all.*dataset\.classes"),
            ({}, {"classes": ["a", "b"]}, "found the label 2 at position 3; .* the 2 classes of dataset.classes"),
            ({"classes": np.array(["x", "y", "z"])}, {"classes": ["x", "z", "y"]}, r"key classes with \['x', 'y', 'z'"),
            ({"train_labels": np.full(12, -2)}, {"classes": ["a", "b"]}, "found -2 at position 0.*or -1"),
            ({}, {"classes": ["a", "b", "c"], "test_share": 0.5}, r"brings a test set \(test_images, test_labels\)"),
            ({"test_images": None}, {"test_share": 0.5}, r"brings a test set \(test_labels\)"),
            ({"test_images": None}, {}, "missing: test_images"),
            ({"test_images": None, "test_labels": None}, {}, r"no test images.*dataset\.test_share"),
        ],
    )  # fmt: skip
    def test_what_is_not_as_it_should_be_is_named(self, archive, others, options, message):
        with pytest.raises(UserError, match=message) as error:
            read(archive(**others), **options)
        assert "mine.npz" in str(error.value)

    def test_ids_are_of_the_rows(self, archive, arrays, tmp_path):
        arrays["train_images"][5] = arrays["train_images"][0]
        path = archive(train_images=arrays["train_images"])
        images = stored(path, tmp_path / "a", classes=["a", "b", "c"])
        first = "s" + hashlib.sha256(arrays["train_images"][0].tobytes()).hexdigest()[:12]
        assert (images.train_ids[0], images.train_ids[5]) == (first, f"{first}-2")
        order = np.arange(12)[::-1]
        path = archive(train_images=arrays["train_images"][order], train_labels=np.full(12, -1))
        other = stored(path, tmp_path / "b", classes=["a", "b", "c"], image_size=8, test_share=None)
        assert set(other.train_ids) == set(images.train_ids)
        assert other.train_ids[11] == f"{first}-2"
        assert images.train_files is images.test_files is None


class TestShare:
    """`dataset.test_share`: a test set where the data bring none."""

    @pytest.fixture
    def archive(self, tmp_path, arrays):
        def write(count=40, clients=None):
            rng = np.random.default_rng(0)
            images = rng.integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
            values = {"train_images": images, "train_labels": np.arange(count) % 3}
            np.savez(tmp_path / "mine.npz", **values, **({} if clients is None else {"train_clients": clients}))
            return tmp_path / "mine.npz"

        return write

    def test_of_all_images(self, archive):
        path = archive()
        data, again = (read(path, test_share=0.25) for _ in range(2))
        assert (len(data.train_labels), len(data.test_labels)) == (30, 10)
        assert data.test_labels.tolist() == again.test_labels.tolist()
        with np.load(path) as arrays:
            whole = arrays["train_images"]
        both = np.concatenate([data.train_images[:], data.test_images[:4], data.test_images[4:]])
        assert sorted(image.tobytes() for image in both) == sorted(image.tobytes() for image in whole)

    def test_of_every_client(self, archive):
        data = read(archive(clients=np.repeat(["big", "mid", "two"], [30, 8, 2])), test_share=0.25)
        assert data.client_names == ("big", "mid", "two")
        assert np.bincount(data.test_clients).tolist() == [8, 2, 1]
        assert np.bincount(data.train_clients).tolist() == [22, 6, 1]
        assert np.bincount(read(archive(clients=np.arange(40) // 2), test_share=0.9).train_clients).tolist() == [1] * 20

    def test_a_client_of_one_image(self, archive):
        with pytest.raises(UserError, match=r"has one image of client B; at least 2"):
            read(archive(clients=np.repeat(["A", "B"], [39, 1])), test_share=0.25)
        with pytest.raises(UserError, match=r"has one image; at least 2"):
            read(archive(count=1), test_share=0.25)

    def test_of_a_folder(self, mixed, tmp_path):
        shutil.rmtree(mixed / "test")
        keys = [*(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(3))]
        keys += [f"unlabelled/{name}" for name in ("0.jpeg", "1.jpg", "2.png", "deep/er/0.PNG")]
        rows = "".join(f"{key},{'AB'[place % 2]}\n" for place, key in enumerate(keys))
        (mixed / "train_clients.csv").write_text(f"file,client\n{rows}")
        images = stored(mixed, tmp_path, test_share=0.2)
        assert np.bincount(images.test_clients).tolist() == [1, 1]
        files = [*images.train_files, *images.test_files]
        assert sorted(files) == sorted(f"{'' if key.startswith('un') else 'train/'}{key}" for key in keys)
        for part in ("train", "test"):
            files, labels, clients = (getattr(images, f"{part}_{kind}") for kind in ("files", "labels", "clients"))
            for file, label, client in zip(files, labels, clients, strict=True):
                assert label == (-1 if file.startswith("un") else ["cat", "dog"].index(file.split("/")[1]))
                assert client == keys.index(file.removeprefix("train/")) % 2
        (mixed / "test_clients.csv").write_text("file,client\n")
        with pytest.raises(UserError, match=r"brings a test set \(test_clients\.csv\)"):
            read(mixed, test_share=0.2)

    def test_known_data_sets_have_theirs(self, tmp_path):
        for options in ({"test_share": 0.2}, {"classes": ["a", "b"]}):
            with pytest.raises(UserError, match=r"digits brings its own (test set|classes)"):
                find_source(DatasetConfig(name="digits", **options), tmp_path)


def test_who_annotates_must_suit_the_labels():
    known, missing = np.array([0, 1]), np.array([0, -1])
    check_annotation("oracle", "mine", known, known)
    check_annotation("people", "mine", known, missing)
    with pytest.raises(UserError, match=r"'oracle'.*1 of 4 images of mine have none.*annotation\.source=people"):
        check_annotation("oracle", "mine", missing, known)
    with pytest.raises(UserError, match="'people', but all 4 images of mine have a label"):
        check_annotation("people", "mine", known, known)


def test_a_class_may_be_among_images_without_a_label():
    some, others = np.array([0, 1, -1]), np.array([0, 0, -1])
    assert one_sided(("a", "b"), some, others) is None
    assert (
        one_sided(("a", "b"), some, others[:2]) == "class 'b': training images but no test image, so it is never tested"
    )
    assert one_sided(("a", "b"), others, some[:2]) is None
