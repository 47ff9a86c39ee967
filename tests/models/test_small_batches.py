from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from kafal_pipeline.models.normalisation import take_any_batch

SHAPES = {nn.BatchNorm1d: (4,), nn.BatchNorm2d: (4, 1, 1), nn.BatchNorm3d: (4, 1, 1, 1)}


def pair(kind):
    """A batch norm of PyTorch's and the same one that takes any batch, with statistics that are not the first ones."""
    plain = kind(4)
    with torch.no_grad():
        for tensor in (plain.weight, plain.bias, plain.running_mean, plain.running_var):
            tensor.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(0))
    ours = copy.deepcopy(plain)
    take_any_batch(ours)
    return plain, ours


@pytest.mark.parametrize("kind", SHAPES)
def test_one_value_a_channel_is_normalised_by_the_running_statistics_and_leaves_them(kind):
    plain, ours = pair(kind)
    values = torch.randn((1, *SHAPES[kind]), requires_grad=True)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        plain(values)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    out = ours(values)
    assert torch.equal(out, plain.eval()(values))
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())
    out.sum().backward()
    assert values.grad.abs().min() > 0


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_every_other_batch_is_pytorchs(kind, training):
    plain, ours = (norm.train(training) for norm in pair(kind))
    for count in (2, 5):
        values = torch.randn((count, *SHAPES[kind]))
        assert torch.equal(plain(values), ours(values))
    assert isinstance(ours, kind)
    assert plain.state_dict().keys() == ours.state_dict().keys()
    assert all(torch.equal(tensor, ours.state_dict()[name]) for name, tensor in plain.state_dict().items())
