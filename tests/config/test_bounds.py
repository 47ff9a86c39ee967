"""Numbers beyond all use are refused when the configuration is resolved, before anything is removed or written."""

from dataclasses import dataclass, field
from typing import Annotated

import pytest
from pydantic import Field

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.registry import create
from kafal_pipeline.config import resolve
from kafal_pipeline.config import sections as module
from kafal_pipeline.config.compare import CompareConfig
from kafal_pipeline.config.resolve import Config, ConfigError
from kafal_pipeline.lifecycle.strategy_checks import check_strategies

MOST = {"maximum", "exclusiveMaximum", "le", "lt"}
LEAST = {"minimum", "exclusiveMinimum", "ge", "gt"}
"""How bounds are called in pydantic's JSON schemas, those of unions in the second way."""

BEYOND = 99999999999999999999


@dataclass(frozen=True)
class Own:
    """A strategy of a user's, with and without bounds."""

    wide: Annotated[int, Field(ge=0, le=2**60)] = 0
    plain: int = 0
    many: list[float] = field(default_factory=list)


@pytest.mark.parametrize(
    ("parameters", "key", "bound"),
    [
        ({"training": {"batch_size": BEYOND}}, "training.batch_size", "1000000"),
        ({"training": {"local_epochs": BEYOND}}, "training.local_epochs", "1000000"),
        ({"federation": {"rounds": BEYOND}}, "federation.rounds", "1000000"),
        ({"training": {"weight_decay": 1e308}}, "training.weight_decay", "10"),
        ({"training": {"lr": 1e308}}, "training.lr", "0000"),
        ({"training": {"lr": 1e-300}}, "training.lr", "0.000000000001"),
        ({"dataset": {"std": [1e-308]}}, "dataset.std.0", "0.0001"),
        ({"dataset": {"mean": [0, 1e308]}}, "dataset.mean.1", "1000"),
        ({"partition": {"min_size": BEYOND}}, "partition.min_size", "1000000000"),
        ({"budget": {"initial": BEYOND}}, "budget.initial", "1000000000"),
        ({"query": {"name": "ksas", "prior_smoothing": 1e308}}, "query.prior_smoothing", "1000000"),
        ({"query": {"score": "ksas", "prior_smoothing": 1e308}}, "query.prior_smoothing", "1000000"),
        ({"query": {"name": "feal", "neighbours": BEYOND}}, "query.neighbours", "1000000000"),
        ({"update": {"name": "fedprox", "mu": 1e308}}, "update.mu", "10"),
        ({"update": {"name": "fedavg", "loss": {"name": "focal", "gamma": 1e9}}}, "update.loss.gamma", "100"),
        ({"update": {"name": "fedavg", "loss": {"name": "edl", "annealing": BEYOND}}}, "loss.annealing", "1000000000"),
        ({"model": {"name": "cnn4", "width": BEYOND}}, "model.width", "4096"),
        ({"model": {"name": "cnn4", "width": 1_000_000}}, "model.width", "4096"),
    ],
)
def test_numbers_beyond_all_use_are_refused_with_their_bound(parameters, key, bound):
    with pytest.raises(ConfigError) as caught:
        check_strategies(resolve(parameters))
    ((where, sentence),) = caught.value.problems
    assert where.endswith(key)
    assert sentence.endswith(bound)


def test_every_number_of_the_configuration_has_two_bounds():
    """Whoever adds a key need not think of this: the types that keys are made of bring the bounds."""
    for name, model in sections():
        for key, described in model.model_json_schema(ref_template="{model}").get("properties", {}).items():
            for schema in numbers(described):
                assert MOST & schema.keys(), (name, key)
                assert LEAST & schema.keys(), (name, key)


def sections():
    found = [item for item in vars(module).values() if isinstance(item, type) and issubclass(item, module.Section)]
    return [(item.__name__, item) for item in [*found, Config, CompareConfig]]


def numbers(schema):
    """Yield the parts of a JSON schema that numbers are described by."""
    if schema.get("type") in {"integer", "number"}:
        yield schema
    for part in [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())]:
        yield from numbers({**{k: v for k, v in schema.items() if k in MOST | LEAST}, **part})


def test_a_bound_of_the_author_goes_before_the_default_one():
    name = f"{Own.__module__}.{Own.__name__}"
    assert create("query", name, {"wide": 10**12}, {}).wide == 10**12
    for key, value in (("plain", 10**12), ("many", [1.0, 1e31])):
        with pytest.raises(UserError, match=rf"query\.{key}: found .*; input should be between"):
            create("query", name, {key: value}, {})
