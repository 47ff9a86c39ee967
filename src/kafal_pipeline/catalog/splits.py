"""A split as a JSON list of index lists, one line a client."""

import json
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from kafal_pipeline.common.files import write_text
from kafal_pipeline.data import format_split
from kafal_pipeline.runs.damaged import named


class Splits(AbstractDataset[list[list[int]], list[list[int]]]):
    """One list of training indices for each client, in a ``.json`` file; the format of the published split."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> list[list[int]]:
        with named(self._filepath):
            return json.loads(self._filepath.read_text(encoding="utf-8"))

    def save(self, data: list[list[int]]) -> None:
        """Write the lists, or nothing; the same split gives the same bytes."""
        write_text(self._filepath, format_split(data) + "\n")

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath.as_posix()}
