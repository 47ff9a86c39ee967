"""Records the parameters and data that a split was made from, so that it is never used with others."""

import json
from typing import Any

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import Config
from kafal_pipeline.data.images import ImageData


def split_origin(config: Config, images: ImageData) -> dict[str, Any]:
    """Return what decides about a split: the seed, the section ``partition``, the number of training images."""
    origin = {
        "seed": config.seed,
        "partition": config.partition.model_dump(mode="json"),
        "train_images": len(images.train_labels),
    }
    return json.loads(json.dumps(origin))


def check_origin(origin: dict[str, Any], config: Config, images: ImageData) -> None:
    """Check that a split read from disk is the one that `config` asks for; UserError with what differs."""
    wanted = split_origin(config, images)
    if not isinstance(origin["partition"], dict):
        raise UserError(
            "partition: data/03_primary/*/seed_*/split_origin.json, which says what the split was made with, is "
            "damaged. Make the split again: kedro run --pipeline partition."
        )
    keys = [key for key in wanted["partition"] if origin["partition"].get(key) != wanted["partition"][key]]
    differences = [f"partition.{k}: {origin['partition'].get(k)!r} then, {wanted['partition'][k]!r} now" for k in keys]
    differences += [
        f"{key}: {origin[key]!r} then, {wanted[key]!r} now"
        for key in ("seed", "train_images")
        if origin[key] != wanted[key]
    ]
    if differences:
        raise UserError(
            f"partition: the split on disk was made with other parameters ({'; '.join(differences)}). Make it again "
            "with the same parameters: kedro run --pipeline partition, or kedro run --pipeline fal for everything."
        )
