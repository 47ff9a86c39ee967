"""Any file-based dataset, written to a temporary name and renamed."""

from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro.io.core import DatasetError, parse_dataset_definition

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import replacing
from kafal_pipeline.runs.damaged import REPAIR, named


class Atomic(AbstractDataset[Any, Any]):
    """Wrap a dataset that writes one file, so that a reader finds the old file or the new one, never half of one.

    Kedro's ``--only-missing-outputs`` looks at a file's existence alone: a torn file would pass for a result.

    - `dataset`: definition of the wrapped dataset without its `filepath`: a type, or a mapping with the key `type`.
    - `keys`: what must be there when it is loaded: keys of a mapping, or columns of a table.
    - `integers`: the same, for columns that hold integers and nothing else.
    - `metadata`: free-form, for plugins, as in all datasets here.
    """

    def __init__(
        self,
        *,
        filepath: str,
        dataset: str | dict[str, Any],
        keys: list[str] | None = None,
        integers: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._filepath = Path(filepath)
        self._definition = {"type": dataset} if isinstance(dataset, str) else dict(dataset)
        self._keys, self._integers = keys or [], integers or []
        self.metadata = metadata

    @property
    def path(self) -> Path:
        return self._filepath

    def _wrapped(self, path: Path) -> AbstractDataset[Any, Any]:
        cls, options = parse_dataset_definition({**self._definition, "filepath": path.as_posix()})
        return cls(**options)

    def load(self) -> Any:
        """Return what the wrapped dataset reads; UserError with the file's name if it is damaged."""
        with named(self._filepath):
            data = self._wrapped(self._filepath).load()
        self._check(data)
        return data

    def _check(self, data: Any) -> None:
        wanted = [*self._keys, *self._integers]
        if wanted and not hasattr(data, "keys"):
            raise UserError(f"{self._filepath}: found a {type(data).__name__} instead of keys. {REPAIR}")
        if missing := [name for name in wanted if name not in data]:
            raise UserError(f"{self._filepath}: {', '.join(missing)} is missing. {REPAIR}")
        wrong = [f"{name} ({data[name].dtype})" for name in self._integers if data[name].dtype.kind not in "iu"]
        if wrong:
            raise UserError(f"{self._filepath}: allowed: integers, none missing; found {', '.join(wrong)}. {REPAIR}")

    def save(self, data: Any) -> None:
        """Let the wrapped dataset write, then rename."""
        if data is None:
            raise DatasetError("Saving 'None' to a dataset is not allowed")
        with replacing(self._filepath) as temporary:
            self._wrapped(temporary).save(data)

    def _exists(self) -> bool:
        return self._filepath.is_file()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath.as_posix(), "dataset": self._definition["type"]}
