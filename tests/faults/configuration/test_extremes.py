"""The smallest and the largest of what is allowed, done in a whole run."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from typing import Annotated, get_type_hints

import pytest
from pydantic import BaseModel, PydanticSchemaGenerationError, TypeAdapter

from kafal_pipeline.common.registry import load
from kafal_pipeline.config import Config, DatasetConfig, ModelConfig, PartitionConfig
from kafal_pipeline.config.strategy import Strategy
from kafal_pipeline.models import MODELS
from kafal_pipeline.query import QUERIES
from kafal_pipeline.update import UPDATES
from kafal_pipeline.update.losses import LOSSES

from .allowed import LARGEST_NUMBER, LARGEST_WHOLE
from .project import Outcome, Project, environment, nested

SMALL = {
    "cycles": 2,
    "partition": {"clients": 2, "method": "iid", "samples_per_client": 40},
    "budget": {"initial": 10, "per_cycle": 3},
    "federation": {"rounds": 2, "participation": 1.0},
    "training": {"local_epochs": 1, "processes": 1, "checkpoint_every": 1e9},
    "query_training": {"epochs": 1},
    "model": {"name": "cnn4", "width": 4},
    "tracking": {"enabled": False},
}
"""A whole run in about a second."""

ASKED_FOR = {"federation.rounds", "training.local_epochs", "query_training.epochs", "dataset.image_size", "model.width"}
"""Keys whose largest value is done as asked for, which takes days or more memory than there is."""

WITH = {
    "update.smoothing": {"absent_class_weight": "smoothed"},
    "training.lr_drop_factor": {"lr_drop_epoch": 1},
    "partition.alpha": {"method": "dirichlet"},
    "partition.min_size": {"method": "dirichlet"},
    "partition.classes_per_client": {"method": "shards"},
}
"""What a key needs next to it to matter."""


def numbers(schema):
    """Yield the parts of a JSON schema that describe numbers; a union's bounds are those of its parts."""
    own = {key: value for key, value in schema.items() if key in {"ge", "gt", "le", "lt"}}
    if schema.get("type") in {"integer", "number"}:
        yield schema
    for part in schema.get("anyOf", ()):
        yield from numbers({**own, **part})


def extremes(annotation, metadata=()):
    """Return the smallest and the largest number that an annotation allows; None if it allows none."""
    for item in metadata:
        annotation = Annotated[annotation, item]
    try:
        found = list(numbers(TypeAdapter(annotation).json_schema()))
    except PydanticSchemaGenerationError:
        return None
    if not found:
        return None
    schema = found[-1]  # of a share or a number, the number
    is_whole = schema["type"] == "integer"
    default = LARGEST_WHOLE if is_whole else LARGEST_NUMBER
    least = schema.get("minimum", schema.get("ge", -default))
    most = schema.get("maximum", schema.get("le", default))
    for bound, way in ((schema.get("exclusiveMinimum", schema.get("gt")), 1), (schema.get("exclusiveMaximum"), -1)):
        if bound is not None:
            inside = bound + way if is_whole else math.nextafter(bound, way * math.inf)
            least, most = (inside, most) if way == 1 else (least, inside)
    return least, most


def of_sections(model, prefix=""):
    for key, item in model.model_fields.items():
        if isinstance(item.annotation, type) and issubclass(item.annotation, BaseModel):
            if item.annotation not in (Strategy, ModelConfig):
                yield from of_sections(item.annotation, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", {}, extremes(item.annotation, item.metadata)
    if model is DatasetConfig:
        yield from (("dataset.mean", {}, ([-1000], [1000])), ("dataset.std", {}, ([1e-4], [1000])))
    if model is PartitionConfig:
        for profile in ("exponential", "step"):
            tails = tuple({"imbalance_ratio": ratio, "profile": profile} for ratio in (1, 1e9))
            yield "partition.long_tail", {}, tails


def of_options():
    for kind, entries in (("query", QUERIES), ("update", UPDATES)):
        for name in entries:
            for key, annotation in get_type_hints(load(kind, name, entries), include_extras=True).items():
                yield f"{kind}.{key}", {"name": name}, extremes(annotation)
    for name, loss in LOSSES.items():
        for key, item in inspect.signature(loss, eval_str=True).parameters.items():
            if item.kind is item.KEYWORD_ONLY:
                yield f"update.loss.{key}", {"name": name}, extremes(item.annotation)
    for name in MODELS:
        for key, item in inspect.signature(load("model", name, MODELS), eval_str=True).parameters.items():
            if key not in {"in_channels", "num_classes"}:
                yield f"model.{key}", {"name": name}, extremes(item.annotation)


EXTREMES = [
    pytest.param(key, {**beside, **WITH.get(key, {})}, value, id=f"{key}-{beside.get('name', '')}-{value}")
    for key, beside, found in [*of_sections(Config), *of_options()]
    for value in (found or ())
    if not (key in ASKED_FOR and value == found[1])
]


def merged(first, second):
    """Return nested mappings with those of another over them."""
    both = {
        key: merged(first[key], second[key]) for key in first.keys() & second.keys() if isinstance(first[key], dict)
    }
    return {**first, **second, **both}


@pytest.fixture(scope="module")
def small(tmp_path_factory, copy_of_project):
    made = Project(copy_of_project(tmp_path_factory.mktemp("extremes") / "project"))
    made.base = merged(made.base, SMALL)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(("key", "beside", "value"), EXTREMES)
def test_the_ends_of_what_is_allowed_through_a_whole_run(small, key, beside, value):
    """What is accepted is done, or found out by the data or the training, and reported."""
    section, _, name = key.rpartition(".")
    given = nested(key, value) if not section else nested(section, {**beside, name: value})
    if section == "update.loss":
        given["update"]["name"] = "fedavg"
    small.base, before = merged(small.base, given), small.base
    small.restore()
    outcome = small.run(to=None)
    small.base = before
    reported = Outcome(outcome.code, outcome.output, outcome.crash, 0, ())
    assert (outcome.code == 0 and outcome.crash is None) or not reported.problems()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize("verbose", [False, True])
def test_a_run_without_memory(small, verbose):
    small.restore()
    params = "model={name: cnn4, width: 4096}"
    result = subprocess.run(
        ["bash", "-c", 'ulimit -v 6000000; exec "$@"', "limited", sys.executable, "-m", "kedro", "run", "--pipeline",
         "fal", "--params", params, *(["--verbose"] if verbose else [])],
        cwd=small.root, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "Error: Out of memory in cycle_00.train" in result.stderr
    assert ("Traceback" in result.stdout + result.stderr) == verbose
