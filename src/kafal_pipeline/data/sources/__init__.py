"""Sources of images: one file for each kind, and the choice among them."""

from pathlib import Path
from typing import NoReturn

from kafal_pipeline.common.errors import UserError, did_you_mean
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.sources import digits, folder, npz, published
from kafal_pipeline.data.sources.base import RawData, Source, reading

NAMED = {"digits": digits.source, **dict.fromkeys(published.SETS, published.source)}
"""Data sets that need no file of the user's."""

__all__ = ["NAMED", "RawData", "Source", "find_source"]


def find_source(config: DatasetConfig, raw: Path, base: Path = Path()) -> Source:
    """Return the source of a data set, without reading it.

    ``dataset.path`` comes first, then ``<raw>/<name>.npz``, then the data sets known by name.

    `raw`: the folder of downloaded and hand-made files, ``data/01_raw``. `base`: what a relative ``dataset.path``
    starts from: the project's folder.
    """
    file = raw / f"{config.name}.npz"
    if config.path is not None:
        path = _given(config.path, base)
        return npz.source(path, config) if path.suffix == ".npz" else folder.source(path, config)
    if file.is_file():
        return npz.source(file, config)
    if config.name in NAMED:
        for key in ("classes", "test_share"):
            if getattr(config, key) is not None:
                raise UserError(
                    f"dataset.{key}: found {getattr(config, key)}, but {config.name} brings its own "
                    f"{'test set' if key == 'test_share' else 'classes'}. Leave the key out."
                )
        return NAMED[config.name](config, raw)

    def fail() -> NoReturn:
        raise UserError(
            f"dataset.name: found {config.name!r}, which is no known data set, and there is no file {file}. "
            f"{did_you_mean(config.name, NAMED)} For your own data write {file}, or set dataset.path to an .npz file "
            "or a folder of images (docs/data.md)."
        )

    return Source("unknown", raw, (), True, fail)


def _given(text: str, base: Path) -> Path:
    """Return ``dataset.path`` as a path, which may or may not be there."""
    try:
        path = base / Path(text).expanduser()
        with reading(path):
            path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"dataset.path: found {text!r}, which cannot be looked up ({error}).") from error
    return path
