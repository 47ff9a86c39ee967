"""The published data sets that torchvision knows how to download and to read.

This is the only module that imports torchvision, and it does so only to read or to download: whether the files are
there is seen without it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import DatasetConfig
from kafal_pipeline.data.sources.base import RawData, Source
from kafal_pipeline.data.sources.checks import as_images, as_integers, check_classes
from kafal_pipeline.data.sources.download import download

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
EMNIST = tuple(
    f"EMNIST/raw/emnist-{{split}}-{part}-{kind}-ubyte"
    for part in ("train", "test")
    for kind in ("images-idx3", "labels-idx1")
)


@dataclass(frozen=True)
class Published:
    """One data set: torchvision's class, and the files it reads below the raw folder (`{split}` is EMNIST's)."""

    class_name: str
    files: tuple[str, ...]

    def paths(self, config: DatasetConfig, raw: Path) -> tuple[Path, ...]:
        """Return the files of the configured data set."""
        return tuple(raw / file.format(split=config.emnist_split) for file in self.files)


SETS = {
    "cifar10": Published(
        "CIFAR10",
        tuple(
            f"cifar-10-batches-py/{file}"
            for file in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
        ),
    ),
    "cifar100": Published("CIFAR100", tuple(f"cifar-100-python/{file}" for file in ("train", "test", "meta"))),
    "svhn": Published("SVHN", ("train_32x32.mat", "test_32x32.mat")),
    "mnist": Published("MNIST", tuple(f"MNIST/raw/{file}" for file in IDX)),
    "fashion_mnist": Published("FashionMNIST", tuple(f"FashionMNIST/raw/{file}" for file in IDX)),
    "emnist": Published("EMNIST", EMNIST),
}


def source(config: DatasetConfig, raw: Path) -> Source:
    """Return the source of the data set `config.name`, one of `SETS`."""
    paths = SETS[config.name].paths(config, raw)
    return Source("torchvision", raw, paths, bool(_absent(paths)), lambda: _read(config, raw))


def _absent(paths: tuple[Path, ...]) -> list[Path]:
    return [path for path in paths if not path.is_file()]


def _read(config: DatasetConfig, raw: Path) -> RawData:
    published = SETS[config.name]
    _refuse_old_cache(raw / published.class_name / "processed")
    paths = published.paths(config, raw)
    absent = _absent(paths)
    if absent and not config.download:
        raise UserError(
            f"dataset.name: {config.name} is not in {raw}. Looked for {raw / config.name}.npz and for "
            f"{', '.join(str(path) for path in paths)}; {len(absent)} of the latter are missing. Set dataset.download "
            f"to true (--params dataset.download=true), or put a file {raw / config.name}.npz there (docs/data.md)."
        )
    datasets = _datasets()
    dataset = getattr(datasets, published.class_name)
    if absent:
        download(config.name, dataset, _options(config, train=True), _options(config, train=False), raw)
    try:
        # Two of the formats are pickles. torchvision opens them only after their MD5 sums agree with the published
        # ones, so that nothing but the original files is ever unpickled; never read them in another way.
        train, test = (dataset(raw, download=False, **_options(config, train)) for train in (True, False))
    except (RuntimeError, OSError, ValueError, TypeError, AssertionError, EOFError, IndexError) as error:
        raise UserError(
            f"dataset.name: the files of {config.name} in {raw} are damaged or not the published ones ({error}). "
            f"Remove {', '.join(sorted({str(path.parent) for path in paths} - {str(raw)}) or [str(p) for p in paths])} "
            f"and set dataset.download to true, or put a file {raw / config.name}.npz there (docs/data.md)."
        ) from error
    return _converted(config.name, raw, train, test)


def _refuse_old_cache(folder: Path) -> None:
    """Refuse what old versions of torchvision kept: pickles, which new ones read before the files next to them."""
    if any(folder.glob("*.pt")):
        raise UserError(
            f"dataset.name: {folder} is a cache of an old torchvision, which would be read instead of the data "
            "set's own files. Remove it."
        )


def _options(config: DatasetConfig, train: bool) -> dict[str, Any]:
    """Return the arguments by which torchvision's class tells training from test images."""
    if config.name == "svhn":
        return {"split": "train" if train else "test"}
    return {"train": train, **({"split": config.emnist_split} if config.name == "emnist" else {})}


def _converted(name: str, raw: Path, train: Any, test: Any) -> RawData:
    """Turn torchvision's objects into arrays with the channels last and labels from 0."""
    classes = [str(label) for label in getattr(train, "classes", range(10))]
    # The split `letters` of EMNIST counts from 1 and calls class 0 "N/A".
    first = 1 if classes[0] == "N/A" else 0
    images, labels = [], []
    for split, part in (("train", train), ("test", test)):
        where = f"{raw}: {name}: {split}"
        images.append(as_images(f"{where}_images", _channels_last(name, np.asarray(part.data))))
        integers = np.asarray(part.labels if name == "svhn" else part.targets) - first
        labels.append(as_integers(f"{where}_labels", integers, len(images[-1])))
    names = check_classes(f"{raw}: {name}", labels[0], labels[1], tuple(classes[first:]))
    return RawData(images[0], labels[0], images[1], labels[1], names)


def _channels_last(name: str, data: NDArray) -> NDArray:
    if name == "svhn":
        return data.transpose(0, 2, 3, 1)
    if name == "emnist":  # stored on its side: rows are columns
        return data.transpose(0, 2, 1)
    return data


def _datasets() -> Any:
    """Import torchvision, or say what to install."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError, OSError) as error:
        raise UserError(
            f"torchvision cannot be imported ({error}). It must match torch: install both from the same index, such as "
            "`pip install --force-reinstall -r requirements.lock`. Or do without it: put the data set into "
            "data/01_raw/<name>.npz (docs/data.md)."
        ) from error
    return datasets
