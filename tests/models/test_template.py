"""What every registered network must do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from kafal_pipeline.config import ModelConfig
from kafal_pipeline.models import MODELS
from kafal_pipeline.models.factory import build
from kafal_pipeline.models.network import Network
from kafal_pipeline.models.normalisation import batch_norm_names, group_count

CONVOLUTIONAL = [name for name in MODELS if name not in {"linear", "mlp"}]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def made(name, shape=(1, 8, 8), seed=0, **options):
    config = ModelConfig.model_validate({"name": name, **options})
    return build(config, in_channels=shape[0], num_classes=7, image_size=shape[1:], generator=generator(seed))


@pytest.mark.parametrize("normalisation", ["batch", "group"])
@pytest.mark.parametrize("shape", [(1, 5, 5), (1, 8, 8), (3, 15, 22), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("name", MODELS)
def test_takes_every_size_and_trains_on_a_single_image(name, shape, normalisation):
    network = made(name, shape, normalisation=normalisation)
    assert isinstance(network, Network)
    loss = network.train()(torch.rand(1, *shape)).square().sum()
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    images = torch.rand(3, *shape)
    features = network.eval().features(images)
    assert features.shape == (3, network.head.in_features)
    torch.testing.assert_close(network(images), network.head(features))


@pytest.mark.parametrize("name", MODELS)
def test_takes_large_images(name):
    stem = {"stem": "large"} if name in {"resnet18", "mobilenet_v2"} else {}
    network = made(name, (3, 224, 224), **stem).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 224, 224)).shape == (1, 7)


@pytest.mark.parametrize("name", MODELS)
def test_weights_depend_on_the_generator_alone(name):
    before = torch.random.get_rng_state()
    first, second, other = (made(name, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    drawn = [key for key in first if not torch.equal(first[key], other[key])]
    assert {key for key, tensor in first.items() if tensor.ndim == 4 or key == "head.weight"} <= set(drawn)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", MODELS)
def test_forwards_in_training_mode_draw_nothing(name):
    network, images = made(name).train(), torch.rand(4, 1, 8, 8)
    before = torch.random.get_rng_state()
    assert torch.equal(network(images), network(images))  # no dropout
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_group_norm_takes_the_place_of_every_batch_norm(name):
    plain, grouped = made(name), made(name, normalisation="group")
    assert batch_norm_names(plain)
    assert batch_norm_names(grouped) == []
    norms = [module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)]
    groups = [module for module in grouped.modules() if isinstance(module, nn.GroupNorm)]
    assert [norm.num_features for norm in norms] == [group.num_channels for group in groups]
    assert dict(plain.named_parameters()).keys() == dict(grouped.named_parameters()).keys()
    assert not list(grouped.buffers())


def test_batch_norm_names_are_those_of_the_batch_norms():
    network = made("resnet8")
    expected = [
        f"{block}.{part}"
        for block in ("stage1.bn1", "stage1.bn2", "stage2.bn1", "stage2.bn2", "stage3.bn1", "stage3.bn2", "bn")
        for part in ("weight", "bias", "running_mean", "running_var")
    ]
    assert sorted(batch_norm_names(network)) == sorted(expected)


def test_groups_divide_the_channels_and_are_no_single_ones():
    for channels in range(1, 2000):
        groups = group_count(channels)
        assert channels % groups == 0
        assert groups <= 32
        assert groups == 1 or channels // groups >= 4
    assert group_count(1280) == 32


@pytest.mark.parametrize(("shape", "features", "parameters"), [((3, 32, 32), 256, 115_658), ((1, 28, 28), 64, 112_586)])
def test_cnn4_is_the_published_one(shape, features, parameters):
    network = build("cnn4", in_channels=shape[0], num_classes=10, image_size=shape[1:], generator=generator())
    assert network.head.in_features == features
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    plain = []
    for convolution, norm in zip(network.convolutions, network.norms, strict=True):
        plain += [convolution, norm, nn.ReLU(), nn.MaxPool2d(2)]
    images = torch.randn(4, *shape)
    network.eval()
    torch.testing.assert_close(network(images), network.head(nn.Sequential(*plain)(images).flatten(1)))
    assert not network.head.bias.any()
    bound = 1 / math.sqrt(64 * 9)
    assert 0.95 * bound < float(network.convolutions[2].weight.detach().abs().max()) <= bound


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_with_the_large_stem_it_is_torchvisions(name):
    from torchvision import models

    network = made(name, (3, 96, 96), stem="large").eval()
    theirs = getattr(models, name)(num_classes=7).eval()
    last = "fc." if name == "resnet18" else "classifier.1."
    names = {"resnet18": {}, "mobilenet_v2": {"blocks.": "features."}}[name]

    def renamed(key):
        for ours, other in {**names, "head.": last}.items():
            key = other + key.removeprefix(ours) if key.startswith(ours) else key
        return key

    theirs.load_state_dict({renamed(key): tensor for key, tensor in network.state_dict().items()})
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(network(images), theirs(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "last"), [("resnet18", 32, 4), ("mobilenet_v2", 32, 4), ("resnet18", 8, 2), ("mobilenet_v2", 8, 2)]
)
def test_the_small_stem_keeps_resolution(name, size, last):
    network = made(name, (3, size, size)).eval()
    seen = {}
    final = network.layer4 if name == "resnet18" else network.blocks
    final.register_forward_hook(lambda _, inputs, out: seen.update(side=out.shape[-1]))
    network(torch.rand(1, 3, size, size))
    assert seen["side"] == last
