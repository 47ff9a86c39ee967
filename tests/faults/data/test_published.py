"""Damaged files of published data sets."""

from __future__ import annotations

import pickle
import struct

import pytest

from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.sources import find_source
from kafal_pipeline.data.sources.published import SETS

from .spoiled import Trap, refusal


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
