"""Damaged and hostile data files: each is refused in one message that names it, soon and in bounded memory.

Every case makes a good file, spoils it in one way and has it read. What is to happen is said beside each way: most are
refused; a random flip of bits may also hit a byte that nobody reads, and then what is read must be what was written.
"""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import random
import re
import resource
import shutil
import struct
import time
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from kedro.framework.project import pipelines
from kedro.framework.startup import bootstrap_project
from PIL import Image

from kafal_pipeline.catalog import Atomic, ManyStates, Splits, State, States
from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import BudgetConfig, DatasetConfig, ModelConfig, PartitionConfig, resolve
from kafal_pipeline.data import check_origin, initial_pool, make_partition, open_store, read_store
from kafal_pipeline.data.sources import find_source
from kafal_pipeline.data.sources.published import SETS
from kafal_pipeline.settings import current_run

SECONDS = 10
MEMORY = 1 << 30
"""Bytes that reading a bad file may take beyond what the process holds; far below what the bombs claim."""


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def digest_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@contextmanager
def bounded():
    """Limit time and memory; a bomb that goes off is a failure, not the end of the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    start = time.monotonic()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.monotonic() - start < SECONDS


def refusal(action, *parts):
    """Return the message with which `action` is refused, after checking that `parts` stand in it."""
    with bounded(), pytest.raises(UserError) as raised:
        action()
    message = str(raised.value)
    missing = [part for part in parts if part not in message]
    assert not missing, message
    return message


# How data are read: by the function that does, and (slow, since a command takes a second) by what a user types


@pytest.fixture(scope="module")
def earlier(tmp_path_factory, copy_of_project):
    """A project with a result of an earlier run in it."""
    folder = copy_of_project(tmp_path_factory.mktemp("earlier") / "project")
    bootstrap_project(folder)
    result = folder / "data/07_model_output/mine/ksas-kcfu/seed_0/cycle_00/metrics.json"
    result.parent.mkdir(parents=True)
    result.write_text('{"accuracy": 0.5}')
    yield folder
    current_run._config = None


@pytest.fixture(params=["function", pytest.param("command", marks=pytest.mark.slow)])
def reading(request, tmp_path):
    """A function that reads the data set of a name and path, or raises a UserError."""
    if request.param == "function":
        return functools.partial(read_directly, tmp_path)
    return functools.partial(read_by_command, request.getfixturevalue("earlier"))


def read_directly(folder, name, path):
    return open_store(DatasetConfig(name=name, path=str(path)), folder / "raw", folder / "store" / "images")


def read_by_command(folder, name, path):
    """Run the command; where it fails, check how, and raise its message."""
    from kafal_pipeline.cli import run

    pipelines.configure("kafal_pipeline.pipeline_registry")  # as in a new process
    stored = folder / "data/02_intermediate" / name
    shutil.rmtree(stored, ignore_errors=True)
    before = digest_of(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(current_run, "node", None)
        arguments = ["--pipelines", "fal", "--to-nodes", "data.load", "--params"]
        result = CliRunner().invoke(run, [*arguments, f"tracking=off,dataset.name={name},dataset.path={path}"])
    if result.exit_code == 0:
        return read_store(stored / "images")
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert len(re.findall(r"^Error: ", result.output, re.MULTILINE)) == 1, result.output
    assert digest_of(folder) == before
    raise UserError(" ".join(result.output.partition("Error: ")[2].split()))


# Archives of arrays


def arrays():
    draw = np.random.default_rng(0)
    return {
        "train_images": draw.integers(0, 256, (30, 6, 6), dtype=np.uint8),
        "train_labels": np.arange(30) % 3,
        "test_images": draw.integers(0, 256, (9, 6, 6), dtype=np.uint8),
        "test_labels": np.arange(9) % 3,
    }


@pytest.fixture
def archive(tmp_path, reading):
    """A function that writes the archive of arrays, some of them others, and one that reads it through its store."""
    return archive_in(tmp_path, reading)


def archive_in(tmp_path, reading):
    path = tmp_path / "mine.npz"
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier/result.json").write_text("{}")

    def write(**others):
        np.savez_compressed(path, **{key: value for key, value in (arrays() | others).items() if value is not None})
        return path

    write()
    return path, write, functools.partial(reading, "mine", path)


def untouched(tmp_path, *also):
    """Check that a refusal has left nothing behind."""
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.npz", "earlier", *also}
    assert digest_of(tmp_path / "earlier") == {"result.json": b"{}"}
    assert not list((tmp_path / "store").glob("**/*")) or "store" in also


@pytest.mark.parametrize("share", np.linspace(0, 0.999, 14).round(3).tolist())
def test_truncated_archives(archive, tmp_path, share):
    path, _, read = archive
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refusal(read, "mine.npz")
    untouched(tmp_path)


@pytest.mark.parametrize("seed", range(40))
def test_archives_with_flipped_bits(archive, seed):
    path, _, read = archive
    content, draw = bytearray(path.read_bytes()), random.Random(seed)
    for _ in range(3):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))
    try:
        with bounded():
            data = read()
    except UserError as error:
        assert "mine.npz" in str(error)
    else:
        for key, array in arrays().items():
            np.testing.assert_array_equal(np.squeeze(getattr(data, key)), array)


def wrong_arrays():
    images, labels = arrays()["train_images"], arrays()["train_labels"]
    for key, count in (("train_images", 30), ("test_images", 9)):
        pixels = images[:count]
        for dtype in (np.float32, np.float64, np.int8, np.int64, np.uint16, bool, complex, "U3", "S3", "M8[s]"):
            yield f"{key} {np.dtype(dtype)}", {key: pixels.astype(np.int64).astype(dtype)}
        yield f"{key} NaN", {key: np.full(pixels.shape, np.nan)}
        yield f"{key} absent", {key: None}
        yield f"{key} flat", {key: pixels.reshape(-1)}
        yield f"{key} one number", {key: np.uint8(3)}
        yield f"{key} five axes", {key: pixels[..., None, None]}
        yield f"{key} none", {key: pixels[:0]}
        yield (
            f"{key} channels first",
            {key: np.broadcast_to(pixels[:, None, :, :, None], (count, 3, 6, 6, 40))[..., 0, :]},
        )
        yield f"{key} no pixel", {key: pixels[:, :0]}
        yield f"{key} of other sizes", {key: pixels[:, :5]}
        yield f"{key} structured", {key: np.zeros(pixels.shape, dtype=[("a", "u1"), ("b", "u1")])}
    for key, count in (("train_labels", 30), ("test_labels", 9)):
        good = labels[:count]
        for dtype in (np.float64, complex, "U3", "S3", bool):
            yield f"{key} {np.dtype(dtype)}", {key: good.astype(dtype)}
        yield f"{key} NaN", {key: np.full(count, np.nan)}
        yield f"{key} negative", {key: good - 1}
        yield f"{key} huge", {key: good.astype(np.uint64) + np.uint64(2**63)}
        yield f"{key} absent", {key: None}
        yield f"{key} one too few", {key: good[:-1]}
        yield f"{key} none", {key: good[:0]}
        yield f"{key} several each", {key: np.stack([good, good], axis=1)}
        yield f"{key} one number", {key: np.int64(1)}
    yield "a label of no class", {"test_labels": np.array([0, 1, 2, 3, 0, 1, 2, 0, 1])}
    yield "a gap in the labels", {"train_labels": labels * 1000}
    yield "a label of a billion", {"train_labels": np.where(labels == 2, 10**9, labels)}
    yield "one class", {"train_labels": labels * 0, "test_labels": arrays()["test_labels"] * 0}
    yield "classes twice", {"classes": np.array(["a", "b", "a"])}
    yield "classes too few", {"classes": np.array(["a", "b"])}
    yield "classes as numbers", {"classes": np.arange(3)}
    yield "classes in a table", {"classes": np.array([["a", "b", "c"]])}
    yield "clients too few", {"train_clients": labels[:-1]}
    yield "clients NaN", {"train_clients": np.full(30, np.nan)}
    yield "clients negative", {"train_clients": labels - 5}


WRONG = dict(wrong_arrays())


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arrays(archive, tmp_path, name):
    path, write, read = archive
    write(**WRONG[name])
    refusal(read, "mine.npz")
    untouched(tmp_path)


@pytest.mark.parametrize("key", [*arrays(), "classes", "train_clients"])
def test_pickles_in_archives_are_not_opened(archive, tmp_path, key):
    path, write, read = archive
    trap = np.empty(1, dtype=object)
    trap[0] = Trap(tmp_path / "sprung")
    write(**{key: trap})
    refusal(read, "mine.npz", "plain arrays")
    untouched(tmp_path)


def header(shape, dtype="|u1"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def entries(**others):
    found = {}
    for key, array in arrays().items():
        stream = io.BytesIO()
        np.save(stream, array)
        found[f"{key}.npy"] = stream.getvalue()
    return found | others


def zipped(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


HOSTILE = {
    "terabytes claimed": {"train_images.npy": header((10**6, 1000, 1000)) + b"\0" * 100},
    "more than memory has addresses": {"train_images.npy": header((10**9, 10**9, 10**9)) + b"\0" * 100},
    "twelve gigabytes claimed": {"train_images.npy": header((12 * 10**9 // 36, 6, 6)) + b"\0" * 100},
    "a negative shape": {"train_images.npy": header((-1, 6, 6)) + b"\0" * 36},
    "more bytes than claimed": {"train_images.npy": header((30, 6, 6)) + b"\0" * 5000},
    "fewer bytes than claimed": {"train_images.npy": header((30, 6, 6)) + b"\0" * 50},
    "no array": {"train_images.npy": b"hello"},
    "an empty member": {"train_images.npy": b""},
    "a type of code": {"train_images.npy": header((1,), "|O") + pickle.dumps(Trap("sprung"))},
    "code for a header": {"train_images.npy": b"\x93NUMPY\x01\x00\x1e\x00__import__('os').getcwd()   \n"},
    "a header of a megabyte": {"train_images.npy": b"\x93NUMPY\x02\x00\x00\x00\x10\x00" + b"(" * (1 << 20)},
    "a version of tomorrow": {"train_images.npy": b"\x93NUMPY\x09\x00" + b"\0" * 100},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_arrays(archive, tmp_path, name):
    path, _, read = archive
    zipped(path, entries(**HOSTILE[name]))
    refusal(read, "mine.npz")
    untouched(tmp_path)


@pytest.mark.parametrize("megabytes", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_bombs(archive, tmp_path, megabytes):
    """Zeros take a thousandth of their bytes."""
    path, _, read = archive
    members = entries()
    del members["train_images.npy"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, content in members.items():
            bomb.writestr(name, content)
        with bomb.open("train_images.npy", "w") as member:
            member.write(header((megabytes, 1000, 1000)))
            for _ in range(megabytes // 20):
                member.write(bytes(20_000_000))
    refusal(read, "mine.npz", "would unpack")
    untouched(tmp_path)


@pytest.mark.parametrize(
    "name", ["../escaped.npy", "/tmp/escaped_by_kafal.npy", "..\\escaped.npy", "a/../../escaped.npy"]
)
def test_tricks_with_paths_in_archives(archive, tmp_path, name):
    """Members are read by name and never unpacked: strange ones are left alone."""
    path, _, read = archive
    zipped(path, entries(**{name: b"x"}))
    read()
    assert not list(tmp_path.rglob("*escaped*"))
    assert not Path("/tmp/escaped_by_kafal.npy").exists()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_members_of_other_compressions(archive, method):
    path, _, read = archive
    zipped(path, entries(), method)
    content = bytearray(path.read_bytes())
    content[60:120] = bytes(60)
    path.write_bytes(content)
    refusal(read, "mine.npz")


def test_archives_with_a_password(archive):
    path, _, read = archive
    content = path.read_bytes()
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(signature)
        while place >= 0:
            content = content[: place + offset] + b"\x01" + content[place + offset + 1 :]
            place = content.find(signature, place + 1)
    path.write_bytes(content)
    refusal(read, "mine.npz")


@pytest.mark.parametrize("what", ["folder", "text", "npy", "nothing", "link in circles", "device"])
def test_what_is_no_archive(archive, tmp_path, what):
    path, _, read = archive
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "text":
        path.write_text("images")
    elif what == "npy":
        with path.open("wb") as file:
            np.save(file, np.arange(3))
    elif what == "link in circles":
        path.symlink_to(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    refusal(read, "mine.npz")


# Folders of images


@pytest.fixture
def photos(tmp_path, reading):
    root = tmp_path / "photos"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")

    return root, functools.partial(reading, "photos", root)


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


# The published layouts


def published(name, raw, content):
    """Write a content to all files of a published data set."""
    for path in find_source(DatasetConfig(name=name), raw).files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


PUBLISHED = {
    "no byte": b"",
    "text": b"hello",
    "zeros": bytes(1000),
    "code": pickle.dumps(Trap("sprung")),
    "terabytes of images": struct.pack(">BBBBIII", 0, 0, 8, 3, 10**6, 10**3, 10**3) + bytes(100),
    "a negative claim": struct.pack(">BBBBI", 0, 0, 8, 1, 2**32 - 1) + bytes(100),
    "numbers of another type": struct.pack(">BBBBI", 0, 0, 13, 1, 4) + bytes(16),
    "a type of nothing": struct.pack(">BBBBI", 0, 0, 99, 1, 4) + bytes(16),
    "nine axes": struct.pack(">BBBB9I", 0, 0, 8, 9, *[1] * 9) + bytes(16),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(600),
    "a MATLAB header": b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + bytes(50),
}


@pytest.mark.parametrize("content", PUBLISHED)
@pytest.mark.parametrize("name", SETS)
def test_damaged_published_files(tmp_path, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "raw"
    published(name, raw, PUBLISHED[content])
    import torchvision.datasets  # noqa: F401 - not part of what is measured

    message = refusal(find_source(DatasetConfig(name=name), raw).read, name, "dataset.download")
    assert str(raw) in message
    assert not (tmp_path / "sprung").exists()


def test_labels_beyond_the_classes_in_idx_files(tmp_path):
    raw = tmp_path / "raw"
    images = struct.pack(">BBBBIII", 0, 0, 8, 3, 20, 28, 28) + bytes(20 * 28 * 28)
    labels = struct.pack(">BBBBI", 0, 0, 8, 1, 20) + bytes([77] * 20)
    source = find_source(DatasetConfig(name="mnist"), raw)
    for path in source.files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images if "images" in path.name else labels)
    refusal(source.read, "mnist", "77")


# Stores


def meta_edits():
    def put(**values):
        return lambda meta: meta | values

    def without(key):
        return lambda meta: {name: value for name, value in meta.items() if name != key}

    def array(name, **values):
        return lambda meta: meta | {"arrays": meta["arrays"] | {name: {**meta["arrays"].get(name, {}), **values}}}

    keys = ("format", "name", "config", "source", "classes", "mean", "std", "arrays")
    edits = {f"without {key}": without(key) for key in keys}
    edits |= {f"{key} null": put(**{key: None}) for key in keys}
    edits |= {f"{key} a number": put(**{key: 3}) for key in keys}
    edits |= {
        "format of tomorrow": put(format=99),
        "no arrays": put(arrays={}),
        "an array outside": array("../../../outside", shape=[1], dtype="uint8", bytes=1),
        "an absolute array": array("/etc/passwd", shape=[1], dtype="uint8", bytes=1),
        "another shape": array("train_images", shape=[1, 2, 3]),
        "another type": array("train_labels", dtype="int32"),
        "another length": array("test_labels", bytes=1),
        "one class": put(classes=["a"]),
        "mean of words": put(mean=["a"]),
        "three means": put(mean=[0.1, 0.2, 0.3]),
        "std of zero": put(std=[0.0]),
        "mean of nothing": put(mean=[None]),
    }
    return edits


META = meta_edits()
TEXTS = {"no byte": b"", "a list": b"[]", "half": b'{"format": 1, "na', "no text": b"\xff\xff", "a nest": b"[" * 10**5}


@pytest.fixture
def store(tmp_path):
    _, _, read = archive_in(tmp_path, functools.partial(read_directly, tmp_path))
    read()
    return tmp_path / "store" / "images", read


@pytest.mark.parametrize("name", [*META, *TEXTS])
def test_damaged_descriptions_of_stores(store, name):
    """Whoever only reads is told; whoever may write makes the store again from its source."""
    folder, read = store
    file = folder / "meta.json"
    meta = json.loads(file.read_text())
    file.write_bytes(TEXTS[name] if name in TEXTS else json.dumps(META[name](meta)).encode())
    if name.split()[-1] not in {"source", "config"} and name.split()[0] not in {"source", "config", "name"}:
        refusal(lambda: read_store(folder), str(folder), "kedro run --pipeline data")
    with bounded():
        np.testing.assert_array_equal(read().train_labels, arrays()["train_labels"])
    assert json.loads(file.read_text()) == meta


def other_array(dtype, shape=(30,)):
    stream = io.BytesIO()
    np.save(stream, np.zeros(shape, dtype))
    return stream.getvalue()


NPY = {
    "no byte": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "a byte too few": lambda content: content[:-1],
    "a byte too many": lambda content: content + b"\0",
    "another type": lambda content: other_array(np.float64),
    "code": lambda content: header((1,), "|O") + pickle.dumps(Trap("sprung")),
    "another shape": lambda content: other_array(np.int64, (5, 6)),
    "terabytes": lambda content: header((10**6, 10**6)) + content[128:],
    "text": lambda content: b"hello",
}


@pytest.mark.parametrize("change", NPY)
@pytest.mark.parametrize("name", ["train_images", "train_labels"])
def test_damaged_arrays_of_stores(store, name, change):
    folder, read = store
    file = folder / f"{name}.npy"
    file.write_bytes(NPY[change](file.read_bytes()))
    refusal(lambda: read_store(folder), str(folder))
    with bounded():
        np.testing.assert_array_equal(read().train_labels, arrays()["train_labels"])


@pytest.mark.parametrize(("name", "value"), [("train_labels", 3), ("train_labels", -1), ("test_labels", 10**9)])
def test_labels_edited_in_a_store(store, name, value):
    folder, read = store
    labels = np.load(folder / f"{name}.npy")
    labels[4] = value
    np.save(folder / f"{name}.npy", labels)
    refusal(lambda: read_store(folder), str(folder))


# Splits

GOOD = [list(range(10)), list(range(10, 20)), list(range(20, 30))]


def split_with(client, place, value):
    return [[value if (k, i) == (client, place) else x for i, x in enumerate(part)] for k, part in enumerate(GOOD)]


SPLITS = {
    "a sample twice": split_with(0, 1, 0),
    "a sample of two clients": split_with(0, 1, 15),
    "a sample missing": [GOOD[0][1:], *GOOD[1:]],
    "a negative sample": split_with(1, 0, -1),
    "a sample beyond": split_with(2, 9, 30),
    "a huge sample": split_with(2, 9, 10**30),
    "a share of a sample": split_with(0, 0, 0.5),
    "a whole share": split_with(0, 0, 0.0),
    "NaN": split_with(0, 0, float("nan")),
    "infinity": split_with(0, 0, float("inf")),
    "a word": split_with(0, 0, "0"),
    "a truth": split_with(0, 0, False),
    "null": split_with(0, 0, None),
    "a list for a sample": split_with(0, 0, [0]),
    "a mapping for a sample": split_with(0, 0, {"0": 0}),
    "an empty client": [[], *GOOD[1:]],
    "null for a client": [None, *GOOD[1:]],
    "a number for a client": [3, *GOOD[1:]],
    "a word for a client": ["0123456789", *GOOD[1:]],
    "a mapping": {"0": GOOD[0]},
    "a number": 3,
    "null alone": None,
    "a word alone": "split",
    "no client": [],
    "one level too deep": [GOOD],
    "one level too flat": list(range(30)),
    "one client too many": [*GOOD, [0]],
    "one client too few": [[*GOOD[0], *GOOD[1]], GOOD[2]],
}
SPLIT_TEXTS = {
    "no byte": b"",
    "half": json.dumps(GOOD).encode()[:40],
    "no text": b"\xff\xfe\x00",
    "a deep nest": b"[" * 100_000,
    "a number of 5000 digits": b"[[" + b"9" * 5000 + b"]]",
    "a comma too many": b"[[0,],[1]]",
    "code": pickle.dumps(Trap("sprung")),
    "two values": b"[[0]] [[1]]",
    "a byte order mark": b"\xef\xbb\xbf[[0, 1], [99]]",
}


def written(path, name):
    path.write_bytes(SPLIT_TEXTS[name] if name in SPLIT_TEXTS else json.dumps(SPLITS[name]).encode())
    return path


@pytest.mark.parametrize("name", [*SPLITS, *SPLIT_TEXTS])
def test_damaged_split_files(tmp_path, name):
    config = PartitionConfig(method="file", path=str(written(tmp_path / "split.json", name)), clients=3)
    refusal(lambda: make_partition(np.arange(30) % 3, config, seed=0), "split.json")


@pytest.mark.parametrize("name", [*SPLITS, *SPLIT_TEXTS])
def test_damaged_splits_on_disk(tmp_path, name):
    """The split of an earlier run is checked too, but for what a long tail and a subset may leave out."""
    path = written(tmp_path / "splits.json", name)

    def read():
        from kedro.io import DatasetError

        try:
            split = Splits(filepath=str(path)).load()
        except DatasetError as error:  # Kedro's wrapping, which the command line takes off again
            raise error.__cause__ from None
        return initial_pool(split, np.arange(30) % 3, BudgetConfig(initial=1, per_cycle=1), 2, 0)

    if name in {"a sample missing", "one client too few"}:
        assert len(read()) >= 29
    else:
        refusal(read, "splits.json")


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"seed": 0}', '{"seed": 0, "partition": 3, "train_images": 30}'])
def test_damaged_origins_of_splits(tmp_path, text):
    (tmp_path / "split_origin.json").write_text(text)
    dataset = Atomic(
        filepath=str(tmp_path / "split_origin.json"),
        dataset="json.JSONDataset",
        keys=["seed", "partition", "train_images"],
    )

    class Images:
        train_labels = np.zeros(30)

    refusal(lambda: check_origin(loaded(dataset), resolve({}), Images()), "split_origin.json")


# Results


def loaded(dataset):
    from kedro.io import DatasetError

    try:
        return dataset.load()
    except DatasetError as error:
        raise error.__cause__ from None


def damages(content):
    """Return ways to spoil any file."""
    draw = random.Random(0)
    middle = bytearray(content)
    middle[len(content) // 2 : len(content) // 2 + 20] = bytes(draw.randrange(256) for _ in range(20))
    return {
        "gone": None,
        "no byte": b"",
        "a byte": content[:1],
        "half": content[: len(content) // 2],
        "nearly all": content[:-5],
        "zeros": bytes(len(content)),
        "text": b"hello",
        "code": pickle.dumps(Trap("sprung")),
        "no beginning": content[10:],
    }


POOL = pd.DataFrame({"client": [0, 1], "sample": [3, 4], "label": [1, -1], "labelled_in_cycle": [0, -1]})
INTEGERS = ["client", "sample", "label", "labelled_in_cycle"]


def pool_dataset(path):
    return Atomic(filepath=str(path), dataset="pandas.ParquetDataset", integers=INTEGERS)


@pytest.mark.parametrize("damage", damages(b"x" * 99))
def test_damaged_pools(tmp_path, damage):
    path = tmp_path / "pool.parquet"
    pool_dataset(path).save(POOL)
    content = damages(path.read_bytes())[damage]
    path.unlink() if content is None else path.write_bytes(content)
    refusal(lambda: loaded(pool_dataset(path)), "pool.parquet", "--only-missing-outputs")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda pool: pool.drop(columns="label"), "label"),
        (lambda pool: pool.rename(columns={"client": "clients"}), "client"),
        (lambda pool: pool.assign(label=[1.0, np.nan]), "label (float64)"),
        (lambda pool: pool.assign(sample=["3", "4"]), "sample"),
        (lambda pool: pool.assign(labelled_in_cycle=[True, False]), "labelled_in_cycle (bool)"),
    ],
)
def test_pools_of_other_columns(tmp_path, change, part):
    path = tmp_path / "pool.parquet"
    change(POOL).to_parquet(path)
    refusal(lambda: loaded(pool_dataset(path)), "pool.parquet", part)


@pytest.mark.parametrize("damage", damages(b"x" * 99))
def test_damaged_json(tmp_path, damage):
    path = tmp_path / "metrics.json"
    content = damages(json.dumps({"cycle": 1, "labels": 10, "accuracy": 0.5}).encode())[damage]
    if content is not None:
        path.write_bytes(content)
    dataset = Atomic(filepath=str(path), dataset="json.JSONDataset", keys=["cycle", "labels"])
    refusal(lambda: loaded(dataset), "metrics.json")


def state():
    import torch

    return {"head.weight": torch.ones(3, 4), "head.bias": torch.zeros(3)}


def safetensors(claim, **tensors):
    head = json.dumps(tensors).encode()
    return struct.pack("<Q", claim if claim is not None else len(head)) + head + bytes(64)


STATES = {
    **{name: content for name, content in damages(b"").items() if name in {"gone", "no byte", "code", "text"}},
    "half": "half",
    "nearly all": "nearly all",
    "no beginning": "no beginning",
    "a header of exabytes": safetensors(2**60),
    "a header of a gigabyte": safetensors(2**30),
    "a tensor of terabytes": safetensors(None, a={"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}),
    "tensors that overlap": safetensors(
        None,
        a={"dtype": "U8", "shape": [64], "data_offsets": [0, 64]},
        b={"dtype": "U8", "shape": [64], "data_offsets": [0, 64]},
    ),
    "a type of nothing": safetensors(None, a={"dtype": "X9", "shape": [64], "data_offsets": [0, 64]}),
    "a shape of nothing": safetensors(None, a={"dtype": "U8", "shape": [-1], "data_offsets": [0, 64]}),
}


@pytest.mark.parametrize("kind", ["State", "States", "ManyStates", "pretrained"])
@pytest.mark.parametrize("name", STATES)
def test_damaged_states(tmp_path, kind, name):
    good = {"client_00000": state()}
    if kind == "ManyStates":
        path, dataset = tmp_path / "models/client_00000.safetensors", ManyStates(filepath=str(tmp_path / "models"))
        dataset.save(good)
    else:
        path = tmp_path / "model.safetensors"
        dataset = (States if kind == "States" else State)(filepath=str(path))
        dataset.save(good if kind == "States" else state())
    content = STATES[name]
    if isinstance(content, str):
        content = damages(path.read_bytes())[content]
    path.unlink() if content is None else path.write_bytes(content)
    if kind == "pretrained":
        from kafal_pipeline.lifecycle.strategy_checks import check_strategies

        config = resolve({"model": {"name": "cnn4", "pretrained": str(path)}})
        refusal(lambda: check_strategies(config), "model.pretrained", path.name)
    else:
        refusal(lambda: loaded(dataset)["client_00000"]["head.bias"], path.name)


def test_a_state_without_groups(tmp_path):
    path = tmp_path / "query_memory.safetensors"
    State(filepath=str(path)).save(state())
    refusal(lambda: loaded(States(filepath=str(path))), "query_memory.safetensors")


@pytest.mark.parametrize(
    ("tensors", "part"),
    [
        (lambda own: own | {"more": own["head.bias"].clone()}, "more"),
        (lambda own: {name: value for name, value in own.items() if name != "norms.0.weight"}, "norms.0.weight"),
        (lambda own: own | {"norms.0.weight": own["head.bias"].clone()}, "norms.0.weight"),
        (lambda own: own | {"norms.0.weight": own["norms.0.weight"] * float("nan")}, "norms.0.weight"),
        (lambda own: {}, "Missing"),
    ],
)
def test_pretrained_weights_of_another_network(tmp_path, tensors, part):
    from safetensors.torch import save_file

    from kafal_pipeline.models.state import initial_state

    shape = {"in_channels": 1, "num_classes": 10, "seed": 0, "cycle": 0}
    path = tmp_path / "weights.safetensors"
    save_file(tensors(initial_state("cnn4", **shape)), path)
    config = ModelConfig(name="cnn4", pretrained=str(path))
    refusal(lambda: initial_state(config, **shape), "model.pretrained", "weights.safetensors", part)
