"""Images as a browser shows them: the original file of a folder, else a PNG of the array's row."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.data.images import ImageData

TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}


@dataclass(frozen=True)
class Picture:
    """An image's bytes and their media type."""

    content: bytes
    media_type: str


class Pictures:
    """Finds images by their ids.

    `source`: the dataset folder; None where images are no files.
    """

    def __init__(self, images: ImageData, source: Path | None) -> None:
        self._images, self._source = images, source
        self._rows = {
            str(sample): (part, row)
            for part, ids in (("train", images.train_ids), ("test", images.test_ids))
            if ids is not None
            for row, sample in enumerate(ids.tolist())
        }

    def read(self, sample: str) -> Picture:
        """Return an image.

        Raises `UserError` if it is not in the data set, or if its file cannot be read.
        """
        if sample not in self._rows:
            raise UserError(f"The image {sample} is not in the data set any more.")
        part, row = self._rows[sample]
        train = part == "train"
        files = self._images.train_files if train else self._images.test_files
        if self._source is not None and files is not None:
            path = self._source / str(files[row])
            try:
                return Picture(path.read_bytes(), TYPES.get(path.suffix.lower(), "application/octet-stream"))
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
        return Picture(png((self._images.train_images if train else self._images.test_images)[row]), "image/png")


def png(pixels: NDArray[np.uint8]) -> bytes:
    """Return pixels ``(H, W, C)`` as a PNG: grey for fewer than three channels, else the first three as colours."""
    from PIL import Image

    shown = pixels[..., 0] if pixels.shape[-1] < 3 else pixels[..., :3]
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(shown)).save(content, "png", compress_level=1)
    return content.getvalue()
