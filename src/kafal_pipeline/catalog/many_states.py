"""Many model states as a folder of safetensors files, written and read one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from kafal_pipeline.catalog.states import read_state
from kafal_pipeline.common.files import replacing_folder

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"


class _Files(Mapping[str, Mapping[str, "Tensor"]]):
    """The states in a folder, each read anew whenever it is asked for."""

    def __init__(self, folder: Path, groups: list[str]) -> None:
        self._folder, self._groups = folder, groups

    def __getitem__(self, group: str) -> Mapping[str, Tensor]:
        """Read a state; UserError with the file's name if it is not there or damaged."""
        return read_state(self._folder / f"{group}{SUFFIX}")

    def __contains__(self, group: object) -> bool:
        return group in self._groups

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)


class ManyStates(AbstractDataset[Mapping[str, Any], Mapping[str, Any]]):
    """Named model states, a file each, of which one is in memory at a time: ``{group: {name: tensor}}``.

    Parameters
    ----------
    filepath
        A folder. It is there only as a whole, with every file.
    metadata
        Free-form, for plugins.
    """

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._folder = Path(filepath)
        self.metadata = metadata

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._folder

    def load(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Return a mapping that reads a state, on the CPU, each time it is asked for it."""
        files = sorted(self._folder.glob(f"*{SUFFIX}"))
        return _Files(self._folder, [file.name.removesuffix(SUFFIX) for file in files])

    def save(self, data: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write all states, or nothing."""
        from safetensors.torch import save_file

        with replacing_folder(self._folder) as temporary:
            for group in data:
                file = temporary / f"{group}{SUFFIX}"
                save_file({name: tensor.contiguous() for name, tensor in data[group].items()}, file)
                with file.open("rb") as written:
                    os.fsync(written.fileno())

    def _exists(self) -> bool:
        return self._folder.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._folder.as_posix()}
