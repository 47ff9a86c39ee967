"""A query or an update as the user names it, and the name its results carry."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from kafal_pipeline.config.sections import FOLDER_NAME


class Strategy(BaseModel):
    """A registered name or a dotted path, with options.

    Written `query: ksas`, or `query: {name: ksas, prior_smoothing: 1}` with the options beside the name; `label` is the
    name its results carry, so that two settings of one method never overwrite each other.

    Examples
    --------
    >>> Strategy.model_validate("ksas").label
    'ksas'
    >>> Strategy.model_validate({"name": "ksas", "prior_smoothing": 1}).label
    'ksas_prior_smoothing-1'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    label: str = Field(pattern=FOLDER_NAME)
    options: dict[str, JsonValue] = {}

    @model_validator(mode="before")
    @classmethod
    def _from_name_or_mapping(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError("must be a name, or a mapping with the key `name` and options beside it")
        value = dict(value)
        name, label, nested = value.pop("name"), value.pop("label", None), value.pop("options", {})
        if not isinstance(nested, dict) or not all(isinstance(key, str) for key in (*nested, *value)):
            raise ValueError("options must be a mapping of names to values")
        options = {**nested, **value}
        return {"name": name, "label": label or _label(name, options), "options": options}


def _label(name: str, options: dict[str, Any]) -> str:
    stem = name
    if not options:
        return stem
    readable = "_".join([stem, *(f"{key}-{value}" for key, value in sorted(options.items()))])
    if len(readable) <= 60 and re.match(FOLDER_NAME, readable):
        return readable
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()
    return f"{stem}_{digest[:8]}"
