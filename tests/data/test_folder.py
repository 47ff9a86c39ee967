"""The source that reads a folder of images."""

import os
import shutil
import struct
import tempfile
import unicodedata
import zlib
from pathlib import Path

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


def png(width, height, depth=8, colours=0, pixels=b""):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    size = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    parts = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((20_000, 20_000), "is too large to be decoded safely"),
        ((80_000_000, 1), "80000000 x 1 pixels; allowed: sides of at most 65,535"),
        ((1, 70_000), "1 x 70000 pixels; allowed"),
    ],
)
def test_decompression_bomb_is_refused(image_folder, size, message):
    (image_folder / "train/dog/1.png").write_bytes(png(*size))
    with pytest.raises(UserError, match=rf"dog/1\.png: .*{message}"):
        read(image_folder, image_size=8)


def test_sixteen_bit_images_are_refused(image_folder):
    Image.fromarray(np.full((4, 6), 40_000, dtype=np.uint16)).save(image_folder / "train/dog/1.png")
    with pytest.raises(UserError, match=r"dog/1\.png: has more than 8 bits"):
        read(image_folder)


@pytest.mark.parametrize(("colours", "samples"), [(2, 3), (4, 2), (6, 4)], ids=["RGB", "grey and alpha", "RGBA"])
def test_sixteen_bits_are_refused_in_every_kind_of_png(image_folder, colours, samples):
    (image_folder / "train/dog/1.png").write_bytes(png(6, 4, 16, colours, 4 * (b"\0" + bytes(6 * 2 * samples))))
    with pytest.raises(UserError, match=r"dog/1\.png: has more than 8 bits"):
        read(image_folder)


def test_an_animation_is_refused(image_folder):
    frames = [Image.fromarray(np.full((4, 6), shade, dtype=np.uint8)) for shade in (0, 200)]
    frames[0].save(image_folder / "train/dog/1.png", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=r"dog/1\.png: is an animation of 2 frames"):
        read(image_folder)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_other_modes_are_read(image_folder, mode):
    name = "9.jpg" if mode == "CMYK" else "9.png"
    Image.new("RGB", (6, 4), "white").convert(mode).save(image_folder / "train/dog" / name)
    data = read(image_folder)
    assert data.train_images.shape[-1] == (1 if mode in {"1", "L", "LA"} else 3)
    np.testing.assert_array_equal(data.train_images[6:7], 255)


ORIENTATION = struct.pack("<HHI", 0x0112, 2, 2) + b"6\0\0\0"  # as text: type 2
ODD_EXIF = {
    "text": b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + ORIENTATION + bytes(4),
    "a number of no meaning": b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x0112, 3, 1, 99) + bytes(4),
    "nonsense": b"nonsense",
    "a folder beyond the end": b"II*\0\xff\xff\0\0",
}


@pytest.mark.parametrize("name", ODD_EXIF)
def test_an_image_whose_exif_data_are_odd_is_read_as_it_is(image_folder, caplog, name):
    rows = np.arange(24).reshape(4, 6) * 10
    save(image_folder / "train/dog/9.jpg", rows, exif=b"Exif\0\0" + ODD_EXIF[name], quality=100)
    found = read(image_folder).train_images[6:7][0, ..., 0]
    np.testing.assert_allclose(found, rows, atol=3)
    assert ("dog/9.jpg: its EXIF data have no orientation" in caplog.text) == (
        name in {"text", "a number of no meaning"}
    )


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


@pytest.mark.parametrize("name", ["train", "test", "train_clients.csv"])
def test_one_rule_for_links_at_every_level(image_folder, tmp_path, name):
    (image_folder / "train_clients.csv").write_text("file,client\n" + "".join(f"{key},1\n" for key in KEYS))
    (image_folder / name).rename(tmp_path / name)
    (image_folder / name).symlink_to(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: is a link to .*outside"):
        read(image_folder)
    (image_folder / name).unlink()
    (tmp_path / name).rename(image_folder / f".{name}")
    (image_folder / name).symlink_to(image_folder / f".{name}")
    (tmp_path / "link").symlink_to(image_folder)  # the folder that the user names may be anywhere
    assert read(tmp_path / "link").train_images.shape[0] == 6


def test_a_name_is_the_same_in_composed_and_in_decomposed_characters(image_folder):
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    assert composed != decomposed
    (image_folder / "train/cat/1.png").rename(image_folder / "train/cat" / f"{decomposed}.png")
    (image_folder / "train/cat").rename(image_folder / "train" / decomposed)
    (image_folder / "test/cat").rename(image_folder / "test" / composed)
    keys = [key.replace("cat/1.", f"cat/{composed}.").replace("cat", composed) for key in KEYS]
    clients = [composed, decomposed, *["B"] * 4]
    rows = [f"{key},{client}\n" for key, client in zip(keys, clients, strict=True)]
    (image_folder / "train_clients.csv").write_text("file,client\n" + "".join(rows), encoding="utf-8")
    data = read(image_folder)
    assert data.classes == (composed, "dog")
    assert data.test_labels.tolist() == [0, 0, 1, 1]
    assert data.client_names == ("B", composed)
    assert data.train_files[2] == f"train/{decomposed}/{decomposed}.png"  # as the file is called
    shutil.copytree(image_folder / "train" / decomposed, image_folder / "train" / composed)
    with pytest.raises(UserError, match=r"train: found the name 'caf\u00e9' twice"):
        read(image_folder)


def test_names_that_are_no_utf8_are_refused(image_folder):
    os.rename(image_folder / "train/cat", os.fsencode(image_folder) + b"/train/gr\xf6\xdfe")
    with pytest.raises(UserError, match=r"train: found the name 'gr\\xf6\\xdfe', which .* is no UTF-8"):
        read(image_folder)


@pytest.mark.parametrize("name", ["unlabelled", "_Unlabeled", "unlabelled images"])
def test_images_without_labels_are_no_class(image_folder, name):
    shutil.copytree(image_folder / "train/cat", image_folder / "train" / name)
    with pytest.raises(UserError, match=f"found the folder '{name}'.*move them to unlabelled/, next to train/"):
        read(image_folder)
    shutil.copytree(image_folder / "test/cat", image_folder / "test" / name)
    assert len(read(image_folder).classes) == 3


def without_permission(root, spoilt, mode):
    """Read a copy of `root` in which a folder or a file has another mode, as a user who is not root."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # unlike pytest's own folder, which nobody else may enter
        copy = Path(shutil.copytree(root, Path(folder) / "photos"))
        before, user = (copy / spoilt).stat().st_mode, os.geteuid()
        (copy / spoilt).chmod(mode)
        try:
            if user == 0:
                os.seteuid(65_534)
            return read(copy)
        finally:
            os.seteuid(user)
            (copy / spoilt).chmod(before)


@pytest.mark.parametrize(
    ("spoilt", "mode"),
    [(".", 0o600), ("train", 0o300), ("train", 0o600), ("train/dog", 0o300), ("test/cat/1.png", 0o200),
     ("train_clients.csv", 0o200)],
)  # fmt: skip
def test_permission_to_read_is_asked_for(image_folder, spoilt, mode):
    (image_folder / "train_clients.csv").write_text("file,client\n" + "".join(f"{key},1\n" for key in KEYS))
    with pytest.raises(UserError, match=r"photos.*: there is no permission to read it.*chmod -R u\+rX") as error:
        without_permission(image_folder, spoilt, mode)
    assert "write" not in str(error.value)


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
        (
            "file,client\n" + "".join(f"{key}, \n" for key in KEYS),
            r"client of cat/0\.png: found the name '', which is empty",
        ),
        ("file,client\n" + "".join(f"{key},1\n" for key in [*KEYS, KEYS[0]]), "names a file twice"),
    ],
)
def test_bad_table_of_clients(image_folder, text, message):
    (image_folder / "train_clients.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read(image_folder)
