from __future__ import annotations

import math

import pytest
import torch

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.models.factory import ImageClassifier, build


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_has_the_published_number_of_parameters():
    network = build("resnet8", in_channels=3, num_classes=10, generator=generator())
    assert sum(parameter.numel() for parameter in network.parameters()) == 77_946


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (1, 28, 28), (3, 64, 48), (4, 5, 7)])
def test_takes_every_size_and_number_of_channels(shape):
    network = build("resnet8", in_channels=shape[0], num_classes=7, generator=generator())
    logits = network(torch.rand(2, *shape))
    assert logits.shape == (2, 7)
    assert network.features(torch.rand(2, *shape)).shape == (2, 64)


def test_forward_is_head_of_features():
    network = build("resnet8", in_channels=3, num_classes=10, generator=generator()).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(network(images), network.head(network.features(images)))


def test_the_stem_has_neither_batch_norm_nor_relu_and_blocks_end_in_relu():
    network = build("resnet8", in_channels=3, num_classes=10, generator=generator()).eval()
    images = torch.randn(4, 3, 32, 32)
    seen = {}
    network.stage1.register_forward_hook(lambda _, inputs, out: seen.update(stem=inputs[0], block=out))
    network(images)
    torch.testing.assert_close(seen["stem"], torch.nn.functional.conv2d(images, network.stem.weight, padding=1))
    assert float(seen["stem"].min()) < 0 <= float(seen["block"].min())


def test_convolutions_are_drawn_with_the_published_deviation():
    network = build("resnet8", in_channels=3, num_classes=10, generator=generator())
    for convolution in (network.stage3.conv2, network.stage3.conv1, network.stage2.conv2, network.stage3.shortcut):
        k, out = convolution.kernel_size[0], convolution.out_channels
        assert float(convolution.weight.std()) == pytest.approx(math.sqrt(2 / (k * k * out)), rel=0.05)


def test_weights_depend_on_the_generator_alone():
    before = torch.random.get_rng_state()
    first, second, other = (
        build("resnet8", in_channels=1, num_classes=3, generator=generator(seed)).state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])
    assert torch.equal(before, torch.random.get_rng_state())


def test_classifier_normalises_pixels():
    network = build("resnet8", in_channels=1, num_classes=3, generator=generator()).eval()
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(ImageClassifier(network, [0.5], [0.25])(images), network((images - 0.5) / 0.25))


def test_other_classes_are_refused():
    with pytest.raises(UserError, match="'torch.nn.Linear', which has no method `features`"):
        build("torch.nn.Linear", in_channels=1, num_classes=2)


def test_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match="Did you mean 'resnet8'"):
        build("resnet9", in_channels=1, num_classes=2)
