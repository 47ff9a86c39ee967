"""Checks that the network and the augmentation suit the data."""

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import Config
from kafal_pipeline.data import ImageData
from kafal_pipeline.models.factory import network_class
from kafal_pipeline.models.network import Convolutional

SMALLEST_IMAGE = 5  # pixels a side: smaller ones shrink to a pixel, and batch norm has no variance in a batch of one


def check_data(config: Config, data: ImageData) -> None:
    """Raise `UserError` unless the configured network and augmentation take these images or features."""
    if data.are_features:
        check_features(config)
        return
    height, width = data.train_images.shape[1:3]
    if min(height, width) < SMALLEST_IMAGE:
        raise UserError(
            f"dataset: the images have {height}x{width} pixels; each side needs at least {SMALLEST_IMAGE}. "
            "Enlarge them with dataset.image_size."
        )


def check_features(config: Config) -> None:
    """Raise `UserError` unless the configuration suits features."""
    augmentation = config.training.augmentation
    if issubclass(network_class(config.model), Convolutional):
        raise UserError(
            f"model.name: found {config.model.name!r}, a network for images, but the data are features. Set "
            "model=linear or model=mlp (docs/features.md)."
        )
    if augmentation.flip or augmentation.crop_padding:
        raise UserError(
            f"training.augmentation: found flip {str(augmentation.flip).lower()} and crop_padding "
            f"{augmentation.crop_padding}, but features can be neither flipped nor shifted. Set "
            "training.augmentation.flip=false,training.augmentation.crop_padding=0."
        )
