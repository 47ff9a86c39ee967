"""Pixels in batches, as a source yields them, so that a data set never has to fit into memory twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

BATCH_BYTES = 4 << 20
"""Pixels handled at a time; large enough for the speed of the disk, small against any data set worth the care."""


SMALLEST_RANGE = 1e-30
"""Of a feature that is not constant: its inverse must be a float32."""


class Pixels(Protocol):
    """Images that can be had slice by slice: an array, or files decoded as they are asked for.

    They are uint8, unless they say otherwise in an attribute ``dtype``: features are float16 or float32. Where they are
    slow to come by, an attribute ``batch_size`` says how many to ask for at once.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, H, W, C)``."""
        ...

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Return the images `rows`, ``(n, H, W, C)``."""
        ...


def dtype_of(pixels: Pixels) -> np.dtype[Any]:
    """Return the type of images that have not been read."""
    return np.dtype(getattr(pixels, "dtype", np.uint8))


def fitted(image: PillowImage, size: tuple[int, int], resize: str) -> PillowImage:
    """Return an image of ``(width, height)`` pixels, by Pillow's bilinear filter, which averages when it shrinks.

    `image`: the image; one that has the size already is returned as it is. `size`: width and height. `resize`:
    ``squash`` changes the proportions; ``crop`` keeps them and cuts off what is too much, the same on both sides;
    ``pad`` keeps them and puts black around.
    """
    from PIL import Image, ImageOps  # only needed where images are resized

    if image.size == size:
        return image
    if resize == "squash":
        return image.resize(size, Image.Resampling.BILINEAR)
    if resize == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    scale = min(size[0] / image.width, size[1] / image.height)
    # At least a pixel: of a strip, Pillow's own function would leave nothing.
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    padded = Image.new(image.mode, size)
    place = (size[0] - width) // 2, (size[1] - height) // 2
    padded.paste(image.resize((width, height), Image.Resampling.BILINEAR), place)
    return padded


@dataclass(frozen=True)
class Resized:
    """Pixels brought to ``(N, size, size, C)`` as `fitted` does."""

    pixels: Pixels
    size: int
    resize: str = "squash"

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, size, size, C)``."""
        return (self.pixels.shape[0], self.size, self.size, self.pixels.shape[-1])

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        """Return the images `rows`, uint8, ``(n, size, size, C)``."""
        from PIL import Image  # only needed where images are resized

        images = self.pixels[rows]
        resized = np.empty((len(images), *self.shape[1:]), dtype=np.uint8)
        for image, out in zip(images, resized, strict=True):
            # One channel at a time, since Pillow has no image of five channels.
            for channel in range(image.shape[-1]):
                plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
                out[..., channel] = fitted(plane, (self.size, self.size), self.resize)
        return resized


@dataclass(frozen=True)
class Rows:
    """Some rows of an array of images, copied slice by slice."""

    images: NDArray[Any]
    rows: NDArray[np.int64]

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the array."""
        return self.images.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, H, W, C)``."""
        return (len(self.rows), *self.images.shape[1:])

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Return the images `rows`, ``(n, H, W, C)``."""
        return self.images[self.rows[rows]]


def resized(pixels: Pixels, size: int | None, resize: str) -> Pixels:
    """Return `pixels`, resized to `size` by `size` unless they have that size or `size` is None."""
    return pixels if size is None or pixels.shape[1:3] == (size, size) else Resized(pixels, size, resize)


def batches(pixels: Pixels) -> Iterator[NDArray[Any]]:
    """Yield all of `pixels` in order, contiguous, about `BATCH_BYTES` at a time."""
    count = pixels.shape[0]
    most = max(1, BATCH_BYTES // max(1, int(np.prod(pixels.shape[1:])) * dtype_of(pixels).itemsize))
    step = min(most, getattr(pixels, "batch_size", most))
    for start in range(0, count, step):
        yield np.ascontiguousarray(pixels[start : start + step])


class Levels:
    """How often each of the 256 levels occurs in each channel: exact, whatever the order and size of the batches."""

    def __init__(self, channels: int) -> None:
        self.counts = np.zeros((channels, 256), dtype=np.int64)

    def add(self, batch: NDArray[np.uint8]) -> None:
        """Count the pixels of a batch ``(n, H, W, C)``."""
        for channel in range(len(self.counts)):
            self.counts[channel] += np.bincount(batch[..., channel].ravel(), minlength=256)

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation per channel, of the pixels scaled to [0, 1].

        A channel of one value gets the standard deviation 1: it is to be divided by.
        """
        values = np.arange(256) / 255
        weights = self.counts / self.counts.sum(axis=1, keepdims=True)
        mean = weights @ values
        std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
        constant = (self.counts > 0).sum(axis=1) == 1
        return mean.tolist(), np.where(constant, 1.0, std).tolist()


class Moments:
    """Mean and variance of each feature, in float64; batch after batch is merged as Chan et al. (1979) do.

    The same batches in the same order give the same bits.
    """

    def __init__(self, features: int) -> None:
        self.count = 0
        self.mean, self.squares = np.zeros(features), np.zeros(features)  # of deviations from the mean
        self.low, self.high = np.full(features, np.inf), np.full(features, -np.inf)

    def add(self, batch: NDArray[np.floating]) -> None:
        """Count a batch ``(n, 1, 1, D)``."""
        values = batch.reshape(len(batch), -1).astype(np.float64)
        mean, total = values.mean(axis=0), self.count + len(values)
        apart = mean - self.mean
        self.squares += ((values - mean) ** 2).sum(axis=0) + apart**2 * (self.count * len(values) / total)
        self.mean += apart * (len(values) / total)
        self.low, self.high = np.minimum(self.low, values.min(axis=0)), np.maximum(self.high, values.max(axis=0))
        self.count = total

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each feature; 1 of a constant one: it is to be divided by."""
        std = np.sqrt(self.squares / self.count)
        return self.mean.tolist(), np.where(self.high - self.low < SMALLEST_RANGE, 1.0, std).tolist()
