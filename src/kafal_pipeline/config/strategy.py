"""A query or an update as the user names it, and the name under which its results are filed."""

import hashlib
import json
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from kafal_pipeline.config.base import FOLDER_NAME

COMPOSE = "compose"  # the query that is meant where options have a `score`, `quota` or `diversity` and no `name`
SCORE = "entropy"  # the score of a composition that names none

PARTS = ("score", "quota", "diversity", "space", "space_model", "candidates", "weighted")
"""The options of a composition itself, those of `kafal_pipeline.query.compose.Compose`; others are its score's."""


OF_DIVERSITY = ("space", "space_model", "candidates")  # those that only the diversity step reads


class Strategy(BaseModel):
    """A registered name or a dotted path, with options.

    Written `query: ksas`, or `query: {name: ksas, prior_smoothing: 1}` with the options next to the name; `label` is
    the name its results carry, so that two settings of one method never overwrite each other.

    >>> Strategy.model_validate("ksas").label
    'ksas'
    >>> Strategy.model_validate({"name": "ksas", "prior_smoothing": 1}).label
    'ksas_prior_smoothing-1'
    >>> composed = Strategy.model_validate({"score": "ksas", "diversity": "k_centre", "prior_smoothing": 1})
    >>> composed.name, composed.label
    ('compose', 'compose_ksas_k_centre_prior_smoothing-1')
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
        if isinstance(value, dict) and "name" not in value and {"score", "quota", "diversity"} & value.keys():
            value = {"name": COMPOSE, **value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError(
                "must be a name (in quotes if it is no, on and the like), or a mapping with the key `name` and options "
                "next to it; on the command line update.name=fedprox,update.loss=focal"
            )
        value = dict(value)
        name, label, nested = value.pop("name"), value.pop("label", None), value.pop("options", {})
        if not isinstance(nested, dict) or not all(isinstance(key, str) for key in (*nested, *value)):
            raise ValueError("options must be a mapping of names to values")
        options = {**nested, **value}
        if name == COMPOSE:
            options = _with_score_options(options)
            _check_diversity(options)
        return {"name": name, "label": label or _label(name, options), "options": options}


def _with_score_options(options: dict[str, Any]) -> dict[str, Any]:
    """Move what is not an option of the composition to its score: ``{score: {name: ..., option: ...}}``."""
    own = {key: value for key, value in options.items() if key in PARTS}
    scores = {key: value for key, value in options.items() if key not in PARTS}
    score = own.get("score", SCORE)
    if scores and isinstance(score, str):
        own["score"] = {"name": score, **scores}
    elif scores and isinstance(score, dict):
        own["score"] = {**score, **scores}
    return own


def _check_diversity(options: dict[str, Any]) -> None:
    """Refuse what would change nothing."""
    idle = [key for key in OF_DIVERSITY if key in options]
    if idle and options.get("diversity", "none") == "none":
        raise ValueError(
            f"{idle[0]}: found {options[idle[0]]!r}, which changes nothing without a diversity step. Set diversity to "
            "k_means, k_centre, k_means_pp or herding, or leave it out"
        )


def _label(name: str, options: dict[str, Any]) -> str:
    stem = name
    if name == COMPOSE and isinstance(options.get("score"), str | dict):
        stem, options = _composition(dict(options))
    if not options:
        return stem
    readable = "_".join([stem, *(f"{key}-{value}" for key, value in sorted(options.items()))])
    if len(readable) <= 60 and re.match(FOLDER_NAME, readable):
        return readable
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode()).hexdigest()
    return f"{stem}_{digest[:8]}"


def _composition(options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the names of a composition's parts as a stem, and the options that are left."""
    score = options.pop("score")
    own = {"name": score} if isinstance(score, str) else dict(score)
    parts = [COMPOSE, own.pop("name", None), *(options.pop(key, None) for key in ("quota", "diversity"))]
    return "_".join(str(part) for part in parts if part is not None), {**own, **options}
