from __future__ import annotations

import sys

import pytest
import torch
from safetensors.torch import save_file

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import ModelConfig
from kafal_pipeline.models.factory import build, check
from kafal_pipeline.models.state import initial_state

SHAPE = {"in_channels": 1, "num_classes": 3}

MINE = """
import torch
from torch import nn

class MyNet(nn.Module):
    def __init__(self, in_channels, num_classes, hidden: int = 4):
        super().__init__()
        self.first = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.head = nn.Linear(hidden, num_classes)

    def features(self, images):
        return self.first(images).mean(dim=(2, 3))

    def forward(self, images):
        return self.head(self.features(images))

    def initialise(self, generator):
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, generator=generator)
"""


def options(**values):
    return ModelConfig.model_validate(values)


@pytest.fixture
def my_networks(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_networks.MyNet"
    sys.modules.pop("my_networks", None)


def test_a_network_of_ones_own_takes_its_options(my_networks):
    network = build(options(name=my_networks, hidden=6), **SHAPE, image_size=(8, 8))
    assert network.head.in_features == 6
    assert build(my_networks, **SHAPE)(torch.rand(2, 1, 8, 8)).shape == (2, 3)
    with pytest.raises(UserError, match=r"model\.hiden: unknown option\. Did you mean 'hidden'"):
        build(options(name=my_networks, hiden=6), **SHAPE)
    with pytest.raises(UserError, match=r"model\.hidden: found 'many'"):
        check(options(name=my_networks, hidden="many"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "resnet8", "width": 3}, r"model\.width: unknown option\. resnet8 has no options"),
        ({"name": "cnn4", "widht": 3}, r"model\.widht: unknown option\. Did you mean 'width'"),
        ({"name": "resnet18", "stem": "medium"}, r"model\.stem: found 'medium'"),
        ({"name": "cnn4", "pretrained": "nowhere.safetensors"}, r"model\.pretrained: there is no file .*nowhere"),
    ],
)
def test_mistakes_are_answered(values, message):
    with pytest.raises(UserError, match=message):
        check(options(**values))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_without_torchvision_it_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UserError, match=f"{name} needs torchvision.*pip install torchvision"):
        build(name, **SHAPE)
    build("cnn4", **SHAPE)


def saved(path, change=lambda state: state, **shape):
    network = build("cnn4", **{**SHAPE, **shape}, image_size=(8, 8), generator=torch.Generator().manual_seed(9))
    save_file({key: tensor.contiguous() for key, tensor in change(network.state_dict()).items()}, path)
    return network.state_dict()


def start(path, seed=0):
    config = options(name="cnn4", pretrained=str(path))
    return initial_state(config, **SHAPE, seed=seed, cycle=0, image_size=(8, 8))


def test_pretrained_weights_take_the_place_of_drawn_ones(tmp_path):
    theirs = saved(tmp_path / "weights.safetensors")
    ours = start(tmp_path / "weights.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("without_head", [True, False])
def test_a_head_of_other_classes_is_drawn(tmp_path, without_head):
    def change(state):
        return {key: tensor for key, tensor in state.items() if not (without_head and key.startswith("head."))}

    theirs = saved(tmp_path / "weights.safetensors", change, num_classes=10)
    ours, others = (start(tmp_path / "weights.safetensors", seed) for seed in (0, 1))
    assert torch.equal(ours["convolutions.0.weight"], theirs["convolutions.0.weight"])
    assert ours["head.weight"].shape == (3, 64)
    assert not torch.equal(ours["head.weight"], others["head.weight"])


def without(state, key):
    return {name: tensor for name, tensor in state.items() if name != key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: without(state, "norms.1.bias"), r"Missing: norms\.1\.bias"),
        (lambda state: {**state, "extra": torch.ones(2)}, "Unexpected: extra"),
        (
            lambda state: {**state, "norms.1.bias": torch.ones(2)},
            r"Of another shape: norms\.1\.bias \(2,\) instead of \(64,\)",
        ),
        (lambda state: {"a": torch.ones(1)}, "and .* more.*; Unexpected: a"),
    ],
)
def test_other_tensors_are_refused_by_name(tmp_path, change, message):
    path = tmp_path / "weights.safetensors"
    saved(path, change)
    with pytest.raises(UserError, match=message) as raised:
        start(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"not at all")
    with pytest.raises(UserError, match="is no safetensors file"):
        start(tmp_path / "weights.safetensors")
