"""Sections about labels: how many there may be, and who gives them."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_serializer, model_validator

from kafal_pipeline.config.base import Amount, Fraction, InitialQuery, Number, Section, Whole


class BudgetConfig(Section):
    """How many samples each client has labelled: at the start, and in every later cycle.

    A float is a share of the client's samples (rounded up), an int a number of samples. `initial_query` says how the
    first ones are chosen, before there is a model: at random, near the centres of k-means clusters of the pixels, or by
    herding on the pixels (`kafal_pipeline.query.first`).
    """

    initial: Amount = 0.10
    per_cycle: Amount = 0.05
    initial_query: InitialQuery = "random"

    @model_serializer(mode="wrap")
    def _without_newer_defaults(self, handler: Any) -> dict[str, Any]:
        """Leave out what is the default and was added later, so that runs of older versions stay valid."""
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if (key, value) != ("initial_query", "random")}

    @model_validator(mode="after")
    def _shares_are_at_most_one(self) -> BudgetConfig:
        for key, value in self:
            if isinstance(value, float) and value > 1:
                raise ValueError(
                    f"{key} = {value} is a float, hence a share, and must be at most 1; "
                    "write an int for a number of samples"
                )
        return self


class AnnotationConfig(Section):
    """Who labels the images that queries choose.

    `source`: an `oracle` reveals labels that the data have; `people` are asked for those that are missing. Then a cycle
    continues once the share `complete` of what it asked for has an answer, of training and of test images each.
    `refill` is the share of a budget that queries choose in reserve: images asked for in the place of those that people
    skip. `annotators` is how many people label each image. `file_names` says whether files for other tools are named by
    opaque ids or as in the data set.

    For single commands: `client` (number or name) restricts the labelling page to one client, `annotator` is the name
    it records, `port` where it listens (0: a free one); `file` is what `annotate_import` reads.
    """

    source: Literal["oracle", "people"] = "oracle"
    complete: Fraction = 1.0
    refill: Number = Field(default=0.0, ge=0, le=1)
    annotators: Whole = Field(default=1, ge=1, le=100)
    file_names: Literal["opaque", "original"] = "opaque"
    client: str | Annotated[Whole, Field(ge=0)] | None = None
    annotator: str | None = Field(default=None, min_length=1, max_length=100)
    port: Whole = Field(default=0, ge=0, le=65_535)
    file: str | None = None

    def reserve(self, budget: int) -> int:
        """Return how many images are chosen in reserve with a budget; none for an oracle, which declines none."""
        return math.ceil(round(self.refill * budget, 6)) if self.source == "people" else 0
