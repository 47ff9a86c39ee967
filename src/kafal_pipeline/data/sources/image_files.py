"""Image files as pixels, decoded when they are needed."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

GREY_MODES = {"1", "L", "LA"}
WIDE_MODES = ("I", "F")
"""Pillow's names of more than 8 bits a channel; converting them would cut off everything above 255."""
ORIENTATION = 0x0112
"""EXIF's tag; values of 5 and above exchange width and height."""


@dataclass(frozen=True)
class ImageFiles:
    """Files of one shape: grey or RGB, upright, resized where their own size is another."""

    paths: tuple[Path, ...]
    image_shape: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, H, W, C)``."""
        return (len(self.paths), *self.image_shape)

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        """Return the decoded images `rows`, uint8, ``(n, H, W, C)``."""
        from PIL import Image, ImageOps  # only needed for folders of images

        height, width, channels = self.image_shape
        pixels = []
        for path in self.paths[rows]:
            with _opened(path) as image:
                upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
                if upright.size != (width, height):
                    upright = upright.resize((width, height), Image.Resampling.BILINEAR)
                pixels.append(np.asarray(upright, dtype=np.uint8).reshape(self.image_shape))
        return np.stack(pixels)


def common_shape(paths: Sequence[Path], image_size: int | None) -> tuple[int, int, int]:
    """Return the ``(H, W, C)`` of the files, from their headers: one channel if all are grey, else three.

    Raises
    ------
    UserError
        If the sizes differ and `image_size` is None, or a file is no image or one of more than 8 bits a channel.
    """
    grey = True
    sizes: dict[tuple[int, int], Path] = {}
    for path in paths:
        with _opened(path) as image:
            if image.mode.startswith(WIDE_MODES):
                raise UserError(f"{path}: has more than 8 bits a channel ({image.mode}). Convert it to 8 bits.")
            grey &= image.mode in GREY_MODES
            width, height = image.size
            upright = (width, height) if image.getexif().get(ORIENTATION, 1) < 5 else (height, width)
            sizes.setdefault(upright, path)
    channels = 1 if grey else 3
    if image_size is not None:
        return image_size, image_size, channels
    if len(sizes) > 1:
        (first, one), (second, other) = list(sizes.items())[:2]
        raise UserError(
            f"{other}: found an image of {second[0]} x {second[1]} pixels, but {one} has {first[0]} x {first[1]}. "
            "Set dataset.image_size to resize all of them to a square."
        )
    ((width, height),) = sizes
    return height, width, channels


@contextmanager
def _opened(path: Path) -> Iterator[PillowImage]:
    """Open an image; name the file in every error, and refuse one that would unpack to a huge picture."""
    from PIL import Image  # only needed for folders of images

    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 million pixels on and raises from twice as many: raise from the first limit on.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: is too large to be decoded safely ({error}). Shrink it first.") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as an image ({error}). Replace or remove the file.") from error
