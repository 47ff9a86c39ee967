"""The networks for features: what they compute, and what dropout draws from."""

from __future__ import annotations

import pytest
import torch

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import ModelConfig
from kafal_pipeline.models.factory import build
from kafal_pipeline.models.flat import draw_from


def made(name, **options):
    config = ModelConfig.model_validate({"name": name, **options})
    generator = torch.Generator().manual_seed(0)
    return build(config, in_channels=5, num_classes=3, image_size=(1, 1), generator=generator)


def test_linear_is_one_layer_on_the_features_as_they_are():
    network, features = made("linear"), torch.randn(4, 5, 1, 1)
    assert [tuple(p.shape) for p in network.parameters()] == [(3, 5), (3,)]
    assert torch.equal(network.features(features), features[:, :, 0, 0])
    torch.testing.assert_close(network(features), features[:, :, 0, 0] @ network.head.weight.T + network.head.bias)


def test_mlp_has_one_hidden_layer_of_the_width_asked_for():
    network, features = made("mlp", width=7), torch.randn(4, 5, 1, 1)
    hidden = (features.flatten(1) @ network.hidden.weight.T + network.hidden.bias).clamp(min=0)
    torch.testing.assert_close(network.features(features), hidden)


def test_dropout_draws_from_the_generator_that_it_is_given_alone():
    network, features = made("mlp", width=2000, dropout=0.75).train(), torch.randn(4, 5, 1, 1)
    whole = network.features(features)  # nothing to draw from
    drawn = []
    for seed in (1, 1, 2):
        draw_from(network, torch.Generator().manual_seed(seed))
        drawn.append(network.features(features))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    kept = (drawn[0] > 0)[whole > 0]
    assert 0.2 < float(kept.float().mean()) < 0.3
    torch.testing.assert_close(drawn[0][drawn[0] > 0], 4 * whole[drawn[0] > 0])
    assert torch.equal(network.eval().features(features), whole)


@pytest.mark.parametrize(("option", "value"), [("width", 0), ("dropout", 1.0), ("height", 3)])
def test_options_are_checked(option, value):
    with pytest.raises(UserError, match=option):
        made("mlp", **{option: value})
