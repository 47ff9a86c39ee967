"""Damaged and hostile archives of arrays."""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kafal_pipeline.common.errors import UserError

from .spoiled import Trap, arrays, bounded, header, refusal, untouched


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
