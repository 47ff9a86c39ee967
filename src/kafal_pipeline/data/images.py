"""A data set in memory or mapped from disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageData:
    """Training and test images with their labels.

    Features in the place of images are images of one pixel, ``(N, 1, 1, D)`` of float16 or float32, whose channels are
    the D features: whatever reads images reads them too.
    """

    name: str  # the data set's name, such as ``cifar10``
    # `train_images`, `test_images`: pixels, uint8, ``(N, H, W, C)``; grey images have ``C = 1``
    train_images: NDArray[Any]
    # `train_labels`, `test_labels`: class indices ``0 .. len(classes) - 1``, -1 where nobody knows, int64, ``(N,)``
    train_labels: NDArray[np.int64]
    test_images: NDArray[Any]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]
    # `mean`, `std`: per channel, of the training pixels scaled to [0, 1], or of features as they are, float64, ``(C,)``
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    # the client that holds each training image, ``0 .. len(client_names) - 1``, int64, ``(N,)``, where the data itself
    # says so, else None. With the method ``natural`` these are the federation's clients
    train_clients: NDArray[np.int64] | None = None
    test_clients: NDArray[np.int64] | None = None  # the same of each test image, where the data says so, else None
    # what the data calls the clients of `train_clients`, in their order; None where `train_clients` is
    client_names: tuple[str, ...] | None = None
    # the file of each training image, relative to the dataset folder, ``(N,)`` strings; None where the images are no
    # files of their own
    train_files: NDArray[np.str_] | None = None
    test_files: NDArray[np.str_] | None = None  # the same of each test image, where people are to label these
    # `train_ids`, `test_ids`: opaque ids, which say nothing of names and stay when images are added, ``(N,)``
    # strings; None where all labels are known
    train_ids: NDArray[np.str_] | None = None
    test_ids: NDArray[np.str_] | None = None
    folder: Path | None = None  # the store the arrays are mapped from, None for arrays in memory

    def clients_of(self, method: str) -> tuple[str, ...] | None:
        """Return what the data calls the federation's clients, in order; None unless ``partition.method`` is theirs."""
        return self.client_names if method == "natural" else None

    @property
    def unlabelled(self) -> int:
        """Number of images, test images included, whose label is not known."""
        return int((self.train_labels < 0).sum() + (self.test_labels < 0).sum())

    @property
    def are_features(self) -> bool:
        """Whether these are features, which cannot be shown."""
        return self.train_images.dtype.kind == "f"

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def channels(self) -> int:
        """Number of colour channels, or of features."""
        return int(self.train_images.shape[-1])
