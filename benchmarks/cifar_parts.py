"""CIFAR-10 in files small enough to be carried to a machine that nothing else reaches.

Each part is an .npz with some of the training images and some of the test images, as losslessly compressed pictures
one after another, and their labels; the parts in order are the data set.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from kafal_pipeline.common.files import replacing
from kafal_pipeline.data import ImageData
from kafal_pipeline.data.image_batches import Levels, batches

SPLITS = ("train", "test")


def pack(source: Path, folder: Path, parts: int = 2) -> list[Path]:
    """Write the images of `source`, an .npz with MedMNIST's keys, as `parts` files; return their paths."""
    with np.load(source, allow_pickle=False) as archive:
        arrays = {f"{split}_{what}": archive[f"{split}_{what}"] for split in SPLITS for what in ("images", "labels")}
    paths = []
    for index in range(parts):
        own = {name: np.array_split(array, parts)[index] for name, array in arrays.items()}
        packed: dict[str, np.ndarray] = {}
        for split in SPLITS:
            pictures = [_encoded(image) for image in own[f"{split}_images"]]
            packed[f"{split}_bytes"] = np.frombuffer(b"".join(pictures), dtype=np.uint8)
            packed[f"{split}_ends"] = np.cumsum([len(picture) for picture in pictures])
            packed[f"{split}_labels"] = own[f"{split}_labels"].ravel().astype(np.uint8)
        path = folder / f"{source.stem}_{index + 1}_of_{parts}.npz"
        save(path, packed)
        paths.append(path)
    return paths


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz, all of it or nothing."""
    with replacing(path) as temporary, temporary.open("wb") as file:  # numpy would add .npz to the temporary name
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load(paths: Sequence[Path]) -> ImageData:
    """Return the data set in one .npz with MedMNIST's keys, or in the parts that `pack` wrote, in their order."""
    found: dict[str, list[np.ndarray]] = {f"{split}_{what}": [] for split in SPLITS for what in ("images", "labels")}
    for path in paths:
        with np.load(path, allow_pickle=False) as archive:
            for split in SPLITS:
                packed = f"{split}_bytes" in archive.files
                images = _decoded(archive, split) if packed else archive[f"{split}_images"]
                found[f"{split}_images"].append(images)
                found[f"{split}_labels"].append(archive[f"{split}_labels"].ravel().astype(np.int64))
    arrays = {name: np.concatenate(items) for name, items in found.items()}
    levels = Levels(arrays["train_images"].shape[-1])
    for batch in batches(arrays["train_images"]):
        levels.add(batch)
    mean, std = (np.array(values) for values in levels.mean_and_std())
    classes = tuple(str(number) for number in range(int(arrays["train_labels"].max()) + 1))
    return ImageData(
        "cifar10",
        arrays["train_images"],
        arrays["train_labels"],
        arrays["test_images"],
        arrays["test_labels"],
        classes,
        mean,
        std,
    )


def _encoded(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "webp", lossless=True, quality=50, method=2, exact=True)
    return buffer.getvalue()


def _decoded(archive: Iterable[str], split: str) -> np.ndarray:
    from PIL import Image

    content, ends = archive[f"{split}_bytes"].tobytes(), archive[f"{split}_ends"].tolist()  # type: ignore[index]
    starts = [0, *ends[:-1]]
    pictures = [Image.open(io.BytesIO(content[start:end])) for start, end in zip(starts, ends, strict=True)]
    return np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
