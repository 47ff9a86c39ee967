"""Damaged images, and folders of images that are none."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from kafal_pipeline.common.errors import UserError

from .spoiled import Trap, bounded, refusal


def png(width, height, pixels=b"", depth=8, colour=2):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def jpeg():
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def gif():
    stream = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(stream, "GIF")
    return stream.getvalue()


IMAGES = {
    "no byte": b"",
    "text": b"not an image",
    "another format": gif(),
    "a signature alone": png(8, 8)[:8],
    "100,000 x 100,000 pixels": png(100_000, 100_000),
    "30,000 x 30,000 pixels": png(30_000, 30_000),
    "two billion pixels wide": png(2**31 - 1, 1),
    "no pixel": png(0, 8),
    "16 bits": png(8, 8, b"\0" * (8 * 17), depth=16, colour=0),
    "missing pixels": png(8, 8, b"\0" * 30),
    "another size": png(9, 8, b"\0" * (8 * 28)),
    "code": pickle.dumps(Trap("sprung")),
    **{f"png cut at {share}": png(8, 8, os.urandom(8 * 25))[: int(share * 250)] for share in (0.1, 0.2, 0.5, 0.8)},
    **{f"jpeg cut at {share}": jpeg()[: int(share * len(jpeg()))] for share in (0.01, 0.1, 0.5, 0.9)},
}


@pytest.mark.parametrize("name", IMAGES)
def test_damaged_images(photos, tmp_path, name):
    root, read = photos
    file = root / "train/dog" / ("1.jpg" if "jpeg" in name else "1.png")
    file.write_bytes(IMAGES[name])
    refusal(read, f"dog/{file.name}")
    assert not list((tmp_path / "store").glob("**/*"))


def test_an_image_that_unpacks_to_gigabytes(photos):
    root, read = photos
    (root / "train/dog/1.png").write_bytes(png(20_000, 20_000, bytes(60_000_000)))
    refusal(read, "dog/1.png", "too large")


def test_a_text_in_an_image_that_unpacks_to_gigabytes(photos):
    root, read = photos
    text = b"zTXt" + b"note\0\0" + zlib.compress(bytes(60_000_000))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    content = (root / "train/dog/1.png").read_bytes()
    (root / "train/dog/1.png").write_bytes(content[:33] + chunk + content[33:])
    try:
        with bounded():
            read()
    except UserError as error:
        assert "dog/1.png" in str(error)


TREES = {
    "a link to a file outside": (lambda root: (root / "train/cat/2.png").symlink_to("/etc/hostname"), "cat/2.png"),
    "a link to a folder outside": (lambda root: (root / "train/etc").symlink_to("/etc"), "etc"),
    "a link up": (lambda root: (root / "train/cat/2.png").symlink_to("../../../../x.png"), "cat/2.png"),
    "a link in circles": (lambda root: (root / "train/cat/2.png").symlink_to("2.png"), "cat/2.png"),
    "a link to nothing": (lambda root: (root / "train/cat/2.png").symlink_to("nowhere.png"), "cat/2.png"),
    "a class in circles": (lambda root: (root / "train/loop").symlink_to("loop"), None),
    "a folder called an image": (lambda root: (root / "train/cat/2.png").mkdir(), "cat/2.png"),
    "a pipe called an image": (lambda root: os.mkfifo(root / "train/cat/2.png"), "cat/2.png"),
    "an empty class": (lambda root: (root / "train/cow").mkdir(), "cow"),
    "a class of tests alone": (lambda root: shutil.copytree(root / "test/cat", root / "test/cow"), "cow"),
    "one class": (lambda root: [shutil.rmtree(root / split / "dog") for split in ("train", "test")], "photos"),
    "no tests": (lambda root: shutil.rmtree(root / "test"), "test"),
    "no class": (lambda root: [shutil.rmtree(root / "train" / name) for name in ("cat", "dog")], "train"),
    "a file called train": (lambda root: (shutil.rmtree(root / "train"), (root / "train").write_text("")), "train"),
    "a name that is no text": (lambda root: (root / "train/cat/0.png").rename(root / "train/cat/\udcff.png"), "cat"),
    "a class that is no text": (lambda root: (root / "train/cat").rename(root / "train/c\udcff"), "train"),
    "a control character": (lambda root: (root / "train/cat").rename(root / "train/c\033[1m"), "train"),
    "a linked test": (lambda root: ((root / "test").rename(root / "../t"), (root / "test").symlink_to("../t")), "test"),
    "a linked table": (lambda root: (root / "train_clients.csv").symlink_to("/etc/hostname"), "train_clients.csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", TREES)
def test_strange_folders(photos, name):
    root, read = photos
    spoil, part = TREES[name]
    spoil(root)
    if part is None:
        with bounded():
            read()
    else:
        refusal(read, part)


ROWS = ["cat/0.png,0", "cat/1.png,0", "dog/0.png,1", "dog/1.png,1"]

TABLES = {
    "nothing": b"",
    "other columns": b"a,b\n1,2\n",
    "a row twice": "\n".join(["file,client", *ROWS, ROWS[0]]).encode(),
    "a row too few": "\n".join(["file,client", *ROWS[1:]]).encode(),
    "an image outside": "\n".join(["file,client", *ROWS[1:], "../../x.png,0"]).encode(),
    "an absolute image": "\n".join(["file,client", *ROWS[1:], "/etc/passwd,0"]).encode(),
    "bytes that are no text": b"file,client\n\xff\xfe,0\n",
    "a zero byte": b"file,client\ncat/0.png\0,0\n",
    "a field of a megabyte": b"file,client\n" + b"x" * (1 << 20) + b",0\n",
    "too few fields": b"file,client\ncat/0.png\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_clients(photos, name):
    root, read = photos
    (root / "train_clients.csv").write_bytes(TABLES[name])
    refusal(read, "train_clients.csv")


@pytest.mark.parametrize("digits", [18, 19, 30, 5000])
def test_long_numbers_of_clients_are_names(photos, digits):
    root, read = photos
    rows = ["file,client", *ROWS[1:], f"cat/0.png,{'9' * digits}"]
    (root / "train_clients.csv").write_text("\n".join(rows))
    clients = read().train_clients
    assert len(set(clients.tolist())) == 3
    assert clients.min() >= 0
