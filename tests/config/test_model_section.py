from __future__ import annotations

import pytest

from kafal_pipeline.config import ModelConfig, resolve
from kafal_pipeline.config.resolve import ConfigError


@pytest.mark.parametrize(
    "written",
    [{"name": "cnn4", "width": 32}, {"name": "cnn4", "options": {"width": 32}}],
)
def test_options_stand_beside_the_name_or_below_it(written):
    config = resolve({"model": written})
    assert (config.model.name, config.model.options) == ("cnn4", {"width": 32})
    assert resolve(config.model_dump()) == config


def test_a_name_alone_is_enough():
    assert resolve({"model": "cnn4"}).model == ModelConfig(name="cnn4")


@pytest.mark.parametrize(
    ("parameters", "key", "sentence"),
    [
        ({"model": 3}, "model", "must be a section with keys"),
        ({"model": {"normalisation": "layer"}}, "model.normalisation", "found 'layer'"),
        ({"model": {"options": 3}}, "model.options", "found 3"),
        ({"federation": {"batch_norm": "own"}}, "federation.batch_norm", "found 'own'"),
        ({"federation": {"client_momentum": "lost"}}, "federation.client_momentum", "Allowed: kept, reset"),
        (
            {"model": {"normalisation": "group"}, "federation": {"batch_norm": "local"}},
            "federation.batch_norm",
            "there is no batch norm to keep local",
        ),
    ],
)
def test_mistakes_name_the_key_and_what_is_allowed(parameters, key, sentence):
    with pytest.raises(ConfigError) as raised:
        resolve(parameters)
    found = dict(raised.value.problems)
    assert sentence in found[key]
