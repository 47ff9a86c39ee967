"""Records the parameters and data that a split was made from, so that it is never used with others."""

from typing import Any

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import Config
from kafal_pipeline.data.images import ImageData


def split_origin(config: Config, images: ImageData) -> dict[str, Any]:
    """Return what decides about a split: the seed, the section ``partition``, the number of training images."""
    partition = config.partition.model_dump(mode="json")
    return {"seed": config.seed, "partition": partition, "train_images": len(images.train_labels)}


def check_origin(origin: dict[str, Any], config: Config, images: ImageData) -> None:
    """Check that a split read from disk is the one that `config` asks for; UserError with what differs."""
    wanted = split_origin(config, images)
    if not isinstance(origin["partition"], dict):
        raise UserError(
            "partition: data/03_primary/*/seed_*/split_origin.json, which says what the split was made with, is "
            "damaged. Make the split again: kedro run --pipeline partition."
        )
    values = {f"partition.{key}": (origin["partition"].get(key), now) for key, now in wanted["partition"].items()}
    values |= {key: (origin[key], wanted[key]) for key in ("seed", "train_images")}
    if differences := [f"{key}: {then!r} then, {now!r} now" for key, (then, now) in values.items() if then != now]:
        raise UserError(
            f"partition: the split on disk was made with other parameters ({'; '.join(differences)}). Make it again "
            "with the same parameters: kedro run --pipeline partition, or kedro run --pipeline fal for everything."
        )
