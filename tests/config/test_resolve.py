from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kafal_pipeline.config import resolve
from kafal_pipeline.config.resolve import ConfigError


def problems(parameters):
    with pytest.raises(ConfigError) as raised:
        resolve(parameters)
    return dict(raised.value.problems)


def test_presets_fill_in_what_is_null():
    code = resolve({"query": None, "federation": {"participants_rounding": None, "rounds": 3}})
    paper = resolve({"preset": "kafal_paper"})
    assert (code.query.name, code.update.name) == ("ksas", "kcfu")
    assert (code.federation.participants_rounding, code.federation.all_clients_last_round) == ("floor", True)
    assert code.federation.rounds == 3
    assert (paper.query.name, paper.update.name) == ("ksas_paper", "kcfu_paper")
    assert (paper.federation.participants_rounding, paper.federation.all_clients_last_round) == ("ceil", False)


def test_what_is_given_goes_before_the_preset():
    config = resolve({"preset": "kafal_paper", "query": "random", "federation": {"all_clients_last_round": True}})
    assert config.run_path == "digits/random-kcfu_paper/seed_0"
    assert config.federation.all_clients_last_round
    assert config.federation.participants_rounding == "ceil"


def test_a_resolved_configuration_resolves_to_itself():
    config = resolve({"query": {"name": "ksas", "prior_smoothing": 1}, "tracking": "off", "seed": 7})
    assert resolve(config.model_dump()) == config


@pytest.mark.parametrize("value", ["off", "OFF", False, {"enabled": False}])
def test_tracking_off_in_every_spelling(value):
    assert not resolve({"tracking": value}).tracking.enabled


def test_settings_of_one_method_never_share_a_folder():
    options = [{}, {"prior_smoothing": 1}, {"prior_smoothing": 2}, {"prior_smoothing": 1, "x" * 60: "y"}]
    paths = {resolve({"query": {"name": "ksas", **option}}).run_path for option in options}
    assert len(paths) == len(options)
    assert resolve({"query": {"name": "ksas", "label": "mine", "a": 1}}).query.label == "mine"
    assert resolve({"query": "my_package.queries.Best"}).query.label == "my_package.queries.Best"


@pytest.mark.parametrize(
    ("parameters", "key", "sentence"),
    [
        ({"qurey": "ksas"}, "qurey", "Did you mean 'query'"),
        ({"training": {"lr_drop": 1}}, "training.lr_drop", "Did you mean 'lr_drop_epoch'"),
        ({"training": {"augmentation": {"flop": 1}}}, "training.augmentation.flop", "Did you mean 'flip'"),
        ({"tracking": {"url": "x"}}, "tracking.url", "Did you mean 'uri'"),
        ({"partition": {"long_tail": {"ratio": 2}}}, "partition.long_tail.ratio", "Allowed: imbalance_ratio"),
        ({"seed": "one"}, "seed", "found 'one'"),
        ({"budget": {"initial": True}}, "budget.initial", "allowed: a number"),
        ({"training": None}, "training", "must be a section with keys"),
        ({"tracking": "maybe"}, "tracking", "allowed: on, off"),
        ({"query_training": {"epochs": 1e30}}, "query_training.epochs", "allowed: a whole number, not as large"),
        ({"query_training": {"epochs": "x"}}, "query_training.epochs", "found 'x'; allowed: a whole number"),
        ({"training": {"lr": "x"}}, "training.lr", "found 'x'; allowed: a number"),
        ({"dataset": {"download": "maybe"}}, "dataset.download", "allowed: true or false"),
        ({"dataset": {"path": "x.npz"}}, "dataset", "set `name` too"),
        ({"seed": -1}, "seed", "found -1"),
        ({"cycles": 0}, "cycles", "found 0"),
        ({"cycles": 2.5}, "cycles", "found 2.5"),
        ({"partition": {"alpha": 0}}, "partition.alpha", "greater than 0"),
        ({"partition": {"alpha": float("nan")}}, "partition.alpha", "finite"),
        ({"partition": {"method": "dirichlet2"}}, "partition.method", "Did you mean 'dirichlet'"),
        ({"partition": {"method": "file"}}, "partition", "needs `path`"),
        ({"budget": {"initial": 0.9}}, "budget", "larger than its pool"),
        ({"budget": {"initial": 1.5}}, "budget", "must be at most 1"),
        ({"budget": {"per_cycle": 0}}, "budget.per_cycle", "greater than 0"),
        ({"budget": {"per_cycle": "x"}}, "budget.per_cycle", "found 'x'"),
        ({"federation": {"participation": 1.1}}, "federation.participation", "less than or equal to 1"),
        ({"federation": 3}, "federation", "found 3"),
        ({"training": {"processes": 0}}, "training.processes", "greater than or equal to 1"),
        ({"training": {"device": "gpu"}}, "training.device", "found 'gpu'"),
        ({"query": 3}, "query", "must be a name"),
        ({"query": {"prior": 1}}, "query", "key `name`"),
        ({"query": {"name": "ksas", "options": None}}, "query", "options must be a mapping"),
        ({"query": {"name": "ksas", 3: 4}}, "query", "options must be a mapping"),
        ({"training": {"device": "mps"}}, "training.device", "found 'mps'"),
        ({"query": {"name": "ksas", "label": "../up"}}, "query.label", "found '../up'"),
        ({"preset": "kafal"}, "preset", "Did you mean 'kafal_code'"),
        ({"dataset": {"name": "../x"}}, "dataset.name", "found '../x'"),
    ],
)
def test_mistakes_name_the_key_and_what_is_allowed(parameters, key, sentence):
    found = problems(parameters)
    assert key in found
    assert sentence in found[key]


def test_all_problems_come_at_once_and_each_once():
    found = problems({"preset": "kafal", "seed": "x", "budget": {"initial": "x"}})
    assert sorted(found) == ["budget.initial", "preset", "seed"]


keys = st.sampled_from(["seed", "cycles", "query", "update", "dataset", "partition", "budget", "training", "tracking"])
scalars = st.sampled_from([None, True, 3, -1, 0.5, float("nan"), float("inf"), "", "x", "ksas", [], [1], {}])
values = scalars | st.dictionaries(st.sampled_from(["name", "rounds", "alpha", "enabled", "x"]), scalars, max_size=2)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(keys, values, max_size=3))
def test_whatever_is_written_is_accepted_or_explained(parameters):
    try:
        resolve(parameters)
    except ConfigError as error:
        assert error.problems
        assert all(sentence for _, sentence in error.problems)


def test_the_first_query_is_part_of_a_configuration_only_where_it_is_not_random():
    """Runs made before there was the key stay valid."""
    assert "initial_query" not in resolve({"budget": {"initial_query": "random"}}).model_dump()["budget"]
    herding = resolve({"budget": {"initial_query": "herding"}})
    assert herding.model_dump()["budget"]["initial_query"] == "herding"
    assert resolve(herding.model_dump()) == herding
    with pytest.raises(ConfigError, match="Allowed: herding, k_means, random"):
        resolve({"budget": {"initial_query": "entropy"}})


def test_resizing_is_part_of_a_configuration_only_where_it_is_not_the_default():
    """Stores and runs made before there was the key stay valid."""
    assert "resize" not in resolve({"dataset": {"image_size": 8, "resize": "squash"}}).model_dump()["dataset"]
    crop = resolve({"dataset": {"image_size": 8, "resize": "crop"}})
    assert crop.model_dump()["dataset"]["resize"] == "crop"
    assert resolve(crop.model_dump()) == crop
    for section, message in (
        ({"resize": "crop"}, "image_size"),
        ({"image_size": 8, "resize": "zoom"}, "Allowed: crop, pad, squash"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve({"dataset": section})


def test_missing_sites_are_part_of_a_configuration_only_where_some_may_be():
    assert "missing_sites" not in resolve({"federation": {"missing_sites": 0}}).model_dump()["federation"]
    assert resolve({"federation": {"missing_sites": 2}}).model_dump()["federation"]["missing_sites"] == 2
