"""Many model states as a folder of safetensors files, written and read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kafal_pipeline.catalog.states import States, read_state
from kafal_pipeline.common.files import replacing_folder, sync_file

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"

K = TypeVar("K")
V = TypeVar("V")


class Lazy(Mapping[K, V]):
    """A mapping whose values `make` makes each time they are asked for; it keeps none.

    `export` writes the safetensors file of a key's value, where that is quicker than to make the value and write it.

    >>> dict(Lazy([1, 2], lambda key: 2 * key))
    {1: 2, 2: 4}
    """

    def __init__(
        self, keys: Iterable[K], make: Callable[[K], V], export: Callable[[K, Path], None] | None = None
    ) -> None:
        self._keys, self._make, self.export = dict.fromkeys(keys), make, export

    def __getitem__(self, key: K) -> V:
        return self._make(key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[K]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class ManyStates(States):
    """Named model states, a file each, of which one is in memory at a time: ``{group: {name: tensor}}``.

    Their folder is there only as a whole, with every file.
    """

    def load(self) -> Mapping[str, Mapping[str, Tensor]]:  # type: ignore[override]
        """Return a mapping that reads a state, on the CPU, each time it is asked for it."""
        groups = [file.name.removesuffix(SUFFIX) for file in sorted(self._filepath.glob(f"*{SUFFIX}"))]
        return Lazy(groups, lambda group: read_state(self._filepath / f"{group}{SUFFIX}"))

    def save(self, data: Mapping[str, Mapping[str, Tensor]]) -> None:  # type: ignore[override]
        from safetensors.torch import save_file

        with replacing_folder(self._filepath) as temporary:
            for group in data:
                file = temporary / f"{group}{SUFFIX}"
                if isinstance(data, Lazy) and data.export is not None:
                    data.export(group, file)
                else:
                    save_file({name: tensor.contiguous() for name, tensor in data[group].items()}, file)
                sync_file(file)

    def _exists(self) -> bool:
        return self._filepath.is_dir()
