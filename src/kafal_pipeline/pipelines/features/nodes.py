"""Node of the pipeline of features."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.files import file_digest, read_json
from kafal_pipeline.common.locks import alone
from kafal_pipeline.config import Config, DatasetConfig, resolve
from kafal_pipeline.data import ImageData, read_store
from kafal_pipeline.data.sources import RawData
from kafal_pipeline.data.store.read import stored_as
from kafal_pipeline.data.store.write import META, write_store
from kafal_pipeline.pipelines.annotations import Parameters
from kafal_pipeline.runs.layout import Layout

VERSION = 1
"""Of how features are computed; raise it where the same network gives others."""


def compute_features(images: ImageData, parameters: Parameters, root: Path = Path()) -> ImageData:
    """Return the features of the configured network, stored in ``data/02_intermediate/<data set>/features``.

    They are computed where the images, the network or its weights are not those of the store.

    Raises
    ------
    UserError
        If there is no such network, layer or file, or the rest of the configuration does not suit features.
    """
    from kafal_pipeline.federation.data_checks import check_features  # imports PyTorch

    config = resolve(parameters)
    if config.features.network is None or config.features.weights is None:
        raise UserError(
            "features.network: found null, which computes no features. Set features.network and features.weights "
            "(docs/features.md)."
        )
    check_features(config)
    weights, folder = root / Path(config.features.weights).expanduser(), Layout(root, config).features
    if not weights.is_file():
        raise UserError(f"features.weights: there is no file {weights.absolute()}.")
    content = _content(images, config, weights)
    with alone(folder.with_name(f".{folder.name}.lock")):  # another run of the same moment may be computing them
        if (found := stored_as(folder, content)) is not None:
            return found
        dataset = DatasetConfig(name=config.dataset.name)  # image_size, mean and std are of the images
        write_store(dataset, _computed(images, config, weights), content, folder, "Features computed")
    return read_store(folder, trusted=True)


def _content(images: ImageData, config: Config, weights: Path) -> str:
    """Return a digest of what the features are made from."""
    assert images.folder is not None, "images come from a store"
    meta = read_json(images.folder / META, "Remove its folder and have it made again: kedro run --pipeline data.")
    parts = [VERSION, config.features.deciding, file_digest(weights)]
    made_from = {key: meta[key] for key in ("arrays", "classes", "mean", "std", "client_names") if key in meta}
    return hashlib.sha256(json.dumps([*parts, made_from], sort_keys=True).encode()).hexdigest()


def _computed(images: ImageData, config: Config, weights: Path) -> RawData:
    """Return the data with features that are computed slice by slice in the place of images."""
    from kafal_pipeline.training.devices import choose_device
    from kafal_pipeline.training.extraction import Extracted, extractor

    device = choose_device(config.training.device)
    network = extractor(config.features, weights, images, device)
    train, test = (
        Extracted.of(network, pixels, images, config.features, device)
        for pixels in (images.train_images, images.test_images)
    )
    return RawData(
        train,
        images.train_labels,
        test,
        images.test_labels,
        images.classes,
        images.train_clients,
        images.test_clients,
        images.client_names,
        _tuple(images.train_files),
        _tuple(images.test_files),
        images.train_ids,
        images.test_ids,
    )


def _tuple(names: object) -> tuple[str, ...] | None:
    return None if names is None else tuple(map(str, names))  # type: ignore[call-overload]
