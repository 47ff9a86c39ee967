"""Arrays by key that stay in memory while they are few, and move to disk when they are many."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Hashable, Iterator, MutableMapping
from io import FileIO
from pathlib import Path
from typing import cast

import numpy as np

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.models.state import Arrays

IN_MEMORY = 64 * 2**20
"""Bytes that stay in memory: the models and momenta of a hundred clients with the default network."""


class Spill(MutableMapping[Hashable, Arrays]):
    """Arrays by key; beyond a number of bytes, those written first lie in a temporary file.

    The file has no name: the system deletes it with the process, however that ends. Below the bound there is no file.
    What is read back from it is not kept in memory, since a client's state is read once and then replaced.

    Parameters
    ----------
    limit
        Bytes of arrays in memory, at most.
    folder
        Where the file lies, on a disk rather than in memory as ``/tmp`` may be; the system's temporary folder if None.
    """

    def __init__(self, limit: int = IN_MEMORY, folder: Path | None = None) -> None:
        self._limit, self._folder = limit, Path(tempfile.gettempdir()) if folder is None else folder
        self._held: dict[Hashable, Arrays] = {}  # the first written first
        self._places: dict[Hashable, tuple[int, int]] = {}  # start and length in the file
        self._free: dict[int, list[int]] = {}  # starts of places given up, by length: a client's is as long every time
        self._file: FileIO | None = None
        self._end = 0
        self.in_memory = 0

    @property
    def on_disk(self) -> int:
        """Bytes of the file."""
        return self._end

    def __getitem__(self, key: Hashable) -> Arrays:
        """Return the arrays, read from the file if they lie there."""
        if key in self._held:
            return self._held[key]
        start, length = self._places[key]
        from safetensors.numpy import load

        assert self._file is not None
        self._file.seek(start)
        content = bytearray()
        while len(content) < length:
            part = self._file.read(length - len(content))
            if not part:
                raise OSError(f"The temporary file in {self._folder} was cut short.")
            content += part
        return load(bytes(content))

    def __setitem__(self, key: Hashable, arrays: Arrays) -> None:
        """Keep the arrays, which must not change afterwards."""
        if key in self:
            del self[key]
        self._held[key] = arrays
        self.in_memory += _bytes(arrays)
        while self.in_memory > self._limit:
            self._write(next(iter(self._held)))

    def __delitem__(self, key: Hashable) -> None:
        """Forget the arrays; their place in the file can be used again."""
        if key in self._held:
            self.in_memory -= _bytes(self._held.pop(key))
            return
        start, length = self._places.pop(key)
        self._free.setdefault(length, []).append(start)

    def __iter__(self) -> Iterator[Hashable]:
        """Return the keys."""
        yield from self._places
        yield from self._held

    def __len__(self) -> int:
        """Return their number."""
        return len(self._places) + len(self._held)

    def __contains__(self, key: object) -> bool:
        """Tell whether there are arrays for a key, without reading them."""
        return key in self._held or key in self._places

    def _write(self, key: Hashable) -> None:
        from safetensors.numpy import save

        # The library writes an array's memory as it lies, whatever its order.
        content = save({name: np.asarray(array, order="C") for name, array in self._held[key].items()})
        length, left = len(content), memoryview(content)
        free = self._free.get(length)
        start = free[-1] if free else self._end
        try:
            file = self._opened()
            file.seek(start)
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            raise UserError(
                f"{self._folder}: cannot put what clients keep between rounds into a temporary file "
                f"({error.strerror}); it has {self._end / 1e6:,.0f} MB, and {length / 1e6:,.1f} MB are to be added. "
                "Free some space there, or have fewer clients (partition.clients) or a smaller model."
            ) from error
        if free:
            free.pop()
        else:
            self._end += length
        self._places[key] = start, length
        self.in_memory -= _bytes(self._held.pop(key))

    def _opened(self) -> FileIO:
        if self._file is None:
            # Closed when this object is gone, hence no `with`.
            self._file = cast(FileIO, tempfile.TemporaryFile(buffering=0, dir=self._folder))  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        return self._file


def _bytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
