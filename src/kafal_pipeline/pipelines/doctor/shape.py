"""The size of a data set, known before its images are read."""

from dataclasses import dataclass, replace

import numpy as np

from kafal_pipeline.config import DatasetConfig

_CIFAR = (50_000, 10_000, (32, 32, 3))
_MNIST = (60_000, 10_000, (28, 28, 1))
_PUBLISHED = {
    "cifar10": (*_CIFAR, 10),
    "cifar100": (*_CIFAR, 100),
    "svhn": (73_257, 26_032, (32, 32, 3), 10),
    "mnist": (*_MNIST, 10),
    "fashion_mnist": (*_MNIST, 10),
}
_EMNIST = {
    "balanced": (112_800, 18_800, 47),
    "byclass": (697_932, 116_323, 62),
    "bymerge": (697_932, 116_323, 47),
    "digits": (240_000, 40_000, 10),
    "letters": (124_800, 20_800, 26),
    "mnist": (60_000, 10_000, 10),
}


@dataclass(frozen=True)
class DataShape:
    """Numbers of training and test images, the shape ``(H, W, C)`` of each, and the number of classes.

    `dtype`: of the values: uint8 of images; features, ``(1, 1, D)``, have another.
    """

    train: int
    test: int
    image: tuple[int, int, int]
    classes: int
    dtype: str = "uint8"

    @property
    def pixel_bytes(self) -> int:
        """Bytes of all images."""
        height, width, channels = self.image
        return (self.train + self.test) * height * width * channels * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        """Return the numbers in words."""
        height, width, channels = self.image
        if self.dtype != "uint8":
            return f"{self.train:,} training and {self.test:,} test rows of {channels} features, {self.classes} classes"
        pixels = f"{height} x {width} x {channels}"
        return f"{self.train:,} training and {self.test:,} test images of {pixels}, {self.classes} classes"


def resized(shape: DataShape, size: int | None) -> DataShape:
    """Return the shape after ``dataset.image_size``."""
    return shape if size is None else replace(shape, image=(size, size, shape.image[2]))


def published_shape(config: DatasetConfig) -> DataShape | None:
    """Return the shape of a published data set that is not here yet; None of any other.

    >>> from kafal_pipeline.config import DatasetConfig
    >>> str(published_shape(DatasetConfig(name="cifar10")))
    '50,000 training and 10,000 test images of 32 x 32 x 3, 10 classes'
    """
    if config.name == "emnist":
        train, test, classes = _EMNIST[config.emnist_split]
        return resized(DataShape(train, test, (28, 28, 1), classes), config.image_size)
    known = _PUBLISHED.get(config.name)
    return None if known is None else resized(DataShape(*known), config.image_size)
