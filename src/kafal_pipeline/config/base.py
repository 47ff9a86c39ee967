"""Types of values that all sections use, and what sections share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from kafal_pipeline.common.options import LARGEST_NUMBER, LARGEST_WHOLE


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("allowed: a number")
    return value


AnyWhole = Annotated[int, BeforeValidator(_no_bool)]  # to be bounded where it is used; pydantic takes true for 1
AnyNumber = Annotated[float, BeforeValidator(_no_bool)]  # the same of numbers
Whole = Annotated[AnyWhole, Field(le=LARGEST_WHOLE)]  # not beyond all use
Number = Annotated[AnyNumber, Field(ge=-LARGEST_NUMBER, le=LARGEST_NUMBER)]  # not beyond all use
Seed = Annotated[AnyWhole, Field(ge=0, lt=2**32)]  # what NumPy and PyTorch both take as the seed of a generator
Repetitions = Annotated[AnyWhole, Field(ge=1, le=1_000_000)]  # rounds or epochs: more is a slip of the keyboard
Fraction = Annotated[AnyNumber, Field(gt=0, le=1)]  # a share of a client's samples
# A share of a client's samples (a float in (0, 1]) or a number of samples (an int).
Amount = Annotated[float | int, Field(gt=0, le=LARGEST_WHOLE), BeforeValidator(_no_bool)]

InitialQuery = Literal["random", "k_means", "herding"]

SMALLEST_RATE = 1e-12  # of learning: less changes no weight in float32, and updates that divide by it overflow
ClassName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*\S[^\x00-\x1f\x7f]*$")]
FOLDER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,80}$"  # names that become folders: no separators, nothing hidden


class Section(BaseModel):
    """What all sections share: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
