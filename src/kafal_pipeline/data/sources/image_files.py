"""Image files as pixels, decoded when they are needed."""

from __future__ import annotations

import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.machine import cores
from kafal_pipeline.data.image_batches import fitted
from kafal_pipeline.data.progress import progress

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

GREY_MODES = {"1", "L", "LA"}
WIDE_MODES = ("I", "F")
"""Pillow's names of more than 8 bits a channel; converting them would cut off everything above 255."""

ORIENTATION = 0x0112  # EXIF's tag; values of 5 and above exchange width and height

MAX_SIDE = 65_535
"""Pixels: the most that a JPEG can have. Resizing a longer image would need much memory, however narrow it is."""

THREADS = 4
"""Images decoded at a time at the most: Pillow lets other threads of Python run meanwhile."""

LARGE = 16_000_000
"""Pixels; larger images are decoded one at a time, which bounds the memory that they take."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFiles:
    """Files of one shape: grey or RGB, upright, resized as ``dataset.resize`` says where their own size is another."""

    paths: tuple[Path, ...]
    image_shape: tuple[int, int, int]
    resize: str = "squash"

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, H, W, C)``."""
        return (len(self.paths), *self.image_shape)

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        """Return the decoded images `rows`, uint8, ``(n, H, W, C)``."""
        paths, one_large = self.paths[rows], threading.Lock()
        with _strict(), ThreadPoolExecutor(min(THREADS, cores(), len(paths))) as threads:
            return np.stack(list(threads.map(self._decoded, paths, repeat(one_large))))

    def _decoded(self, path: Path, one_large: threading.Lock) -> NDArray[np.uint8]:
        height, width, channels = self.image_shape
        with _opened(path) as image, one_large if image.width * image.height > LARGE else nullcontext():
            upright = _turned(image, _orientation(image) or 1).convert("L" if channels == 1 else "RGB")
            return np.asarray(fitted(upright, (width, height), self.resize)).reshape(self.image_shape)


def common_shape(paths: Sequence[Path], image_size: int | None) -> tuple[int, int, int]:
    """Return the ``(H, W, C)`` of the files, from their headers: one channel if all are grey, else three.

    Raises `UserError` if the sizes differ and `image_size` is None, or a file is no image, one of more than 8 bits a
    channel, one with a side of more than `MAX_SIDE` pixels or an animation.
    """
    grey = True
    sizes: dict[tuple[int, int], Path] = {}
    unclear = []
    with _strict(), progress("Headers of image files", len(paths)) as advance:
        for path in paths:
            with _opened(path) as image:
                grey &= image.mode in GREY_MODES
                width, height = image.size
                orientation = _orientation(image, decode=image_size is None and width != height)
                if orientation is None:
                    unclear.append(path)
                sizes.setdefault((width, height) if (orientation or 1) < 5 else (height, width), path)
            advance(1)
    if unclear:
        logger.warning(
            "%s: its EXIF data have no orientation that can be read, so it is taken as it is (%d such files)",
            unclear[0],
            len(unclear),
        )
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
def _strict() -> Iterator[None]:
    """Raise Pillow's warnings of images that are too large. Filters are those of all threads, so this one sets them."""
    from PIL import Image  # only needed for folders of images

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of EXIF data that are damaged: see `_orientation`
        # Pillow warns from 89 million pixels on and raises from twice as many: raise from the first limit on.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def _opened(path: Path) -> Iterator[PillowImage]:
    """Open an image; name the file in every error, and refuse what cannot be decoded rightly or safely.

    Only within `_strict`.
    """
    from PIL import Image  # only needed for folders of images

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            _check(path, image)
            yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: is too large to be decoded safely ({error}). Shrink it first.") from error
    except PermissionError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        raise UserError(f"{path}: cannot be read as an image ({error}). Replace or remove the file.") from error


def _check(path: Path, image: PillowImage) -> None:
    if max(image.size) > MAX_SIDE:
        raise UserError(
            f"{path}: found an image of {image.width} x {image.height} pixels; allowed: sides of at most {MAX_SIDE:,}. "
            "Shrink or cut it first."
        )
    # Pillow calls colours of 16 bits RGB too; how the file's bytes are packed tells them apart.
    packed = " ".join(str(tile.args) for tile in getattr(image, "tile", ()))
    if image.mode.startswith(WIDE_MODES) or "16" in packed:
        raise UserError(f"{path}: has more than 8 bits a channel ({image.mode}). Convert it to 8 bits.")
    if image.format == "PNG" and (frames := getattr(image, "n_frames", 1)) > 1:
        raise UserError(f"{path}: is an animation of {frames} frames. Save each as a file, or only one.")


def _orientation(image: PillowImage, *, decode: bool = True) -> int | None:
    """Return how the camera was held, 1 to 8 as EXIF has it; None where the file says so in no readable way.

    `decode`: decode a PNG file that says nothing in front of its pixels, since it may do so behind them; else 1.
    """
    if image.format == "PNG" and "exif" not in image.info:
        if not decode:
            return 1
        image.load()
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - Pillow raises nearly anything over data that are damaged
        return None
    return value if isinstance(value, int) and 1 <= value <= 8 else None


def _turned(image: PillowImage, orientation: int) -> PillowImage:
    """Return an image upright, and unlike Pillow's own function without writing EXIF data, which may be damaged."""
    from PIL.Image import Transpose  # only needed for folders of images

    turns = ["FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90"]
    return image.transpose(Transpose[turns[orientation - 2]]) if orientation > 1 else image
