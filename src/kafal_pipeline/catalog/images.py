"""Dataset of images that are mapped from disk, not loaded."""

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro.io.core import DatasetError

from kafal_pipeline.data import ImageData


class ImageStore(AbstractDataset[ImageData, ImageData]):
    """The folder of arrays that `kafal_pipeline.data.store` writes and maps."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._folder = Path(filepath)
        self.metadata = metadata

    def load(self) -> ImageData:
        from kafal_pipeline.data.store.read import read_store  # only where images are read

        return read_store(self._folder)

    def save(self, data: ImageData) -> None:
        """Check that the store is where this dataset reads it; the node that made it has written it already."""
        if data.folder is None or data.folder.resolve() != self._folder.resolve():
            raise DatasetError(f"The images are stored in {data.folder}, and this dataset reads {self._folder}")

    def _exists(self) -> bool:
        return (self._folder / "meta.json").is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._folder.as_posix()}
