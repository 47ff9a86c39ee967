"""The source that reads a folder of images."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.sources import find_source


def read(root, **options):
    return find_source(DatasetConfig(name="mine", path=str(root), **options), root / "raw").read()


def save(path, array, **options):
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path, **options)


def test_grey_images_in_the_order_of_class_and_name(image_folder):
    data = read(image_folder)
    assert data.train_images.shape == (6, 4, 6, 1)
    assert data.train_images[:][:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test_labels.tolist() == [0, 0, 1, 1]
    assert data.classes == ("cat", "dog")
    assert data.train_clients is None


def test_one_colour_image_makes_all_rgb(image_folder):
    save(image_folder / "test/dog/9.png", np.full((4, 6, 3), (9, 8, 7)))
    data = read(image_folder)
    assert data.test_images.shape == (5, 4, 6, 3)
    assert data.test_images[4:5][0, 0, 0].tolist() == [9, 8, 7]
    assert data.train_images[0:2][1, 0, 0].tolist() == [1, 1, 1]


def test_sizes_must_agree_unless_they_are_resized(image_folder):
    save(image_folder / "train/dog/9.png", np.full((8, 8), 200))
    with pytest.raises(UserError, match=r"dog/9\.png: found an image of 8 x 8.*6 x 4.*dataset\.image_size"):
        read(image_folder)
    data = read(image_folder, image_size=5)
    assert data.train_images.shape == (7, 5, 5, 1)
    np.testing.assert_array_equal(data.train_images[6:7], 200)


def test_photos_are_turned_upright(image_folder):
    sideways = np.zeros((6, 4, 3), dtype=np.uint8)
    sideways[:, :2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    save(image_folder / "train/cat/9.jpg", sideways, exif=exif, quality=95)
    upright = read(image_folder).train_images[3:4][0]
    assert upright.shape == (4, 6, 3)
    assert (upright[:2] > 200).all()
    assert (upright[2:] < 55).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no image", "cannot be read as an image"), (None, "cannot be read as an image.*truncated")],
)
def test_unreadable_image_is_named(image_folder, content, message):
    path = image_folder / "train/dog/1.png"
    if content is None:
        noise = np.random.default_rng(0).integers(0, 256, (4, 6))
        save(path, noise)
        content = path.read_bytes()[:45]
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"dog/1\.png: {message}"):
        read(image_folder).train_images[:]


def test_decompression_bomb_is_refused(image_folder):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (image_folder / "train/dog/1.png").write_bytes(bomb)
    with pytest.raises(UserError, match=r"dog/1\.png: is too large to be decoded safely"):
        read(image_folder, image_size=8)


def test_sixteen_bit_images_are_refused(image_folder):
    Image.fromarray(np.full((4, 6), 40_000, dtype=np.uint16)).save(image_folder / "train/dog/1.png")
    with pytest.raises(UserError, match=r"dog/1\.png: has more than 8 bits"):
        read(image_folder)


def test_links_out_of_the_folder_are_refused(image_folder, tmp_path):
    save(tmp_path / "secret.png", np.zeros((4, 6)))
    link = image_folder / "train/dog/link.png"
    link.symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match=r"link\.png: is a link to .*secret\.png, outside"):
        read(image_folder)
    link.unlink()
    link.symlink_to(image_folder / "train/dog/0.png")
    assert read(image_folder).train_images.shape[0] == 7


def test_a_linked_class_folder_is_refused(image_folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    save(tmp_path / "elsewhere/0.png", np.zeros((4, 6)))
    (image_folder / "train/emu").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="emu: is a link"):
        read(image_folder)


def test_other_files_are_counted_and_hidden_ones_passed_over(image_folder, caplog):
    (image_folder / "train/dog/.DS_Store").write_bytes(b"")
    (image_folder / "train/dog/notes.txt").write_text("woof")
    assert read(image_folder).train_images.shape[0] == 6
    assert "1 entries are no images" in caplog.text
    assert "notes.txt" in caplog.text


def test_missing_folders_and_classes_are_named(image_folder):
    with pytest.raises(UserError, match="there is no such folder"):
        read(image_folder / "nowhere")
    (image_folder / "test/emu").mkdir()
    with pytest.raises(UserError, match="emu: found no image"):
        read(image_folder)
    save(image_folder / "test/emu/0.png", np.zeros((4, 6)))
    with pytest.raises(UserError, match="class 'emu', which train/ has not. It has: cat, dog"):
        read(image_folder)
    with pytest.raises(UserError, match="found no folder train/"):
        read(image_folder / "test")


KEYS = [f"{name}/{number}.png" for name in ("dog", "cat") for number in range(3)]


@pytest.mark.parametrize(
    ("clients", "expected"),
    [(["10", "9", "10", "9", "9", "10"], [0, 0, 1, 1, 0, 1]), (list("bababb"), [0, 1, 1, 1, 0, 1])],
)
def test_table_of_clients(image_folder, clients, expected):
    rows = "\n".join(f"{key},{client}" for key, client in zip(KEYS, clients, strict=True))
    (image_folder / "train_clients.csv").write_text(f"file,client\n{rows}\n")
    data = read(image_folder)
    assert data.train_clients.tolist() == expected
    assert data.test_clients is None
    assert data.client_names == tuple(sorted(set(clients), key=lambda name: (len(name), name)))
    test = [f"{name}/{number}.png,{clients[number]}\n" for name in ("cat", "dog") for number in range(2)]
    (image_folder / "test_clients.csv").write_text("file,client\n" + "".join(test))
    assert read(image_folder).test_clients.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,client\ncat/0.png,1\n", "must have `file` and `client`"),
        ("file,client\n" + "".join(f"{key},1\n" for key in KEYS[:-1]), r"cat/2\.png is not in the table"),
        (
            "file,client\n" + "".join(f"{key},1\n" for key in [*KEYS, "cat/9.png"]),
            r"cat/9\.png is no image under train/",
        ),
        ("file,client\n" + "".join(f"{key}, \n" for key in KEYS), r"cat/0\.png has no client"),
        ("file,client\n" + "".join(f"{key},1\n" for key in [*KEYS, KEYS[0]]), "names a file twice"),
    ],
)
def test_bad_table_of_clients(image_folder, text, message):
    (image_folder / "train_clients.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read(image_folder)
