"""The section of features that a fixed network computes of the images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from kafal_pipeline.config.base import AnyNumber, Section, Whole


class FeaturesConfig(Section):
    """Features that a fixed network computes once of the images, and that take their place in the trial.

    `network` is one of the models' names with its `options`, a class of one's own, or torchvision's
    (`torchvision.resnet50`); null trains on the images themselves. `weights` is its safetensors file. `layer` is
    `penultimate`, what its last linear layer reads, or the name of one of its modules, whose output is pooled over
    places. `mean` and `std` are of the pixels that the network was trained on, scaled to [0, 1]; null: those of the
    images, or for torchvision's ImageNet's.
    """

    network: str | None = None
    options: dict[str, JsonValue] = {}
    weights: str | None = None
    layer: str = Field(default="penultimate", min_length=1, max_length=200)
    pooling: Literal["mean", "max", "flatten"] = "mean"
    batch_size: Whole = Field(default=64, ge=1, le=100_000)
    dtype: Literal["float16", "float32"] = "float16"
    mean: list[Annotated[AnyNumber, Field(ge=-1000, le=1000)]] | None = None
    std: list[Annotated[AnyNumber, Field(ge=1e-4, le=1000)]] | None = None

    @model_validator(mode="after")
    def _has_weights(self) -> FeaturesConfig:
        for given, value, other in (("network", self.network, self.weights), ("weights", self.weights, self.network)):
            if value is not None and other is None:
                raise ValueError(
                    f"{given}: found {value[:200]!r} alone; allowed: a network together with the safetensors file of "
                    "its weights, features.network=...,features.weights=..."
                )
        return self

    @property
    def deciding(self) -> dict[str, Any]:
        """What the features depend on, next to the images and the file of weights."""
        return self.model_dump(mode="json", exclude={"batch_size", "weights"})
