"""Interface of every source of images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.data.image_batches import Pixels


@dataclass(frozen=True)
class RawData:
    """A data set as its source holds it; the fields are those of `ImageData`, whose ids the store adds.

    Images have the shape ``(N, H, W, C)``, training and test images agree in ``(H, W, C)``.
    """

    train_images: Pixels
    train_labels: NDArray[np.int64]
    test_images: Pixels
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]
    train_clients: NDArray[np.int64] | None = None
    test_clients: NDArray[np.int64] | None = None
    client_names: tuple[str, ...] | None = None
    train_files: tuple[str, ...] | None = None
    test_files: tuple[str, ...] | None = None
    train_ids: NDArray[np.str_] | None = None
    test_ids: NDArray[np.str_] | None = None

    @property
    def unlabelled(self) -> int:
        """Number of images, test images included, whose label is not known."""
        return int((self.train_labels < 0).sum() + (self.test_labels < 0).sum())


@dataclass(frozen=True)
class Source:
    """Where a data set comes from, before anything of it is read.

    `kind`: ``npz``, ``folder``, ``torchvision`` or ``digits``. `root`: the folder that names in fingerprints are
    relative to. `files`: the files that `read` reads, in a fixed order. `missing`: whether `read` would have to
    download or to fail. `read`: read, check and return the data; raises `UserError` on anything wrong with it.
    """

    kind: str
    root: Path
    files: tuple[Path, ...]
    missing: bool
    read: Callable[[], RawData]


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an error of permission while `path` is read into a message that asks for the right one."""
    try:
        yield
    except PermissionError as error:
        raise UserError(
            f"{error.filename or path}: there is no permission to read it. Give yourself that permission, on every "
            f"folder down to it too (chmod -R u+rX {path}), and give the same command again."
        ) from error
