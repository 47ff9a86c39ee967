"""Model states as safetensors: nothing is unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from kafal_pipeline.common.files import replacing
from kafal_pipeline.runs.damaged import named

if TYPE_CHECKING:
    from torch import Tensor

SEPARATOR = "/"


class States(AbstractDataset[dict[str, Any], dict[str, Any]]):
    """Named model states in one ``.safetensors`` file, read to the CPU: ``{group: {name: tensor}}``."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    @property
    def path(self) -> Path:
        return self._filepath

    def load(self) -> dict[str, dict[str, Tensor]]:
        groups: dict[str, dict[str, Tensor]] = {}
        with named(self._filepath):
            for key, tensor in read_state(self._filepath).items():
                group, name = key.split(SEPARATOR, 1)
                groups.setdefault(group, {})[name] = tensor
        return groups

    def save(self, data: dict[str, dict[str, Tensor]]) -> None:
        _write(self._filepath, {f"{g}{SEPARATOR}{name}": t for g, state in data.items() for name, t in state.items()})

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath.as_posix()}


class State(States):
    """One model state: ``{name: tensor}``."""

    def load(self) -> dict[str, Tensor]:  # type: ignore[override]
        return read_state(self._filepath)

    def save(self, data: dict[str, Tensor]) -> None:  # type: ignore[override]
        _write(self._filepath, data)


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU; UserError with the file's name if it is damaged."""
    from safetensors.torch import load_file

    with named(path):
        return load_file(path)


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
