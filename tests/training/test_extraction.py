"""Features of a fixed network: which layer, how pooled, and in what type."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import FeaturesConfig
from kafal_pipeline.data import ImageData
from kafal_pipeline.models.factory import build
from kafal_pipeline.training.extraction import Extracted, extractor

CPU = torch.device("cpu")


def images_of(channels, size=8, count=7):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (count, size, size, channels), dtype=np.uint8), np.arange(count) % 2
    mean, std = np.full(channels, 0.4), np.full(channels, 0.2)
    return ImageData("tiny", pixels, labels, pixels, labels, ("a", "b"), mean, std)


def normalised(images, mean=0.4, std=0.2):
    pixels = torch.as_tensor(images.train_images).permute(0, 3, 1, 2) / 255
    return (pixels - torch.as_tensor(mean).view(-1, 1, 1)) / torch.as_tensor(std).view(-1, 1, 1)


@pytest.fixture
def saved(tmp_path):
    def saved(network, **changes):
        state = {**network.state_dict(), **changes}
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "weights.safetensors")
        return tmp_path / "weights.safetensors"

    return saved


def resnet8(channels=1, classes=5):
    generator = torch.Generator().manual_seed(3)
    return build("resnet8", in_channels=channels, num_classes=classes, image_size=(8, 8), generator=generator).eval()


def extracted(features, path, images):
    config = FeaturesConfig(weights=str(path), **features)
    return Extracted.of(extractor(config, path, images, CPU), images.train_images, images, config, CPU)


def test_penultimate_features_of_a_network_trained_on_other_classes(saved):
    network, images = resnet8(), images_of(1)
    found = extracted({"network": "resnet8", "batch_size": 3, "dtype": "float32"}, saved(network), images)
    assert found.shape == (7, 1, 1, 64)
    expected = network.features(normalised(images)).detach()
    torch.testing.assert_close(torch.as_tensor(found[0:7])[:, 0, 0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.as_tensor(found[2:6])[:, 0, 0], expected[2:6], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("pooling", "width"), [("mean", 32), ("max", 32), ("flatten", 32 * 4 * 4)])
def test_another_layer_is_pooled_over_places(saved, pooling, width):
    network, images = resnet8(), images_of(1)
    found = extracted({"network": "resnet8", "layer": "stage2", "pooling": pooling}, saved(network), images)[0:7]
    out = network.stage2(network.stage1(network.stem(normalised(images)))).detach()
    ways = {"mean": out.mean(dim=(2, 3)), "max": out.amax(dim=(2, 3)), "flatten": out.flatten(1)}
    assert found.shape == (7, 1, 1, width)
    assert found.dtype == np.float16
    torch.testing.assert_close(torch.as_tensor(found)[:, 0, 0].float(), ways[pooling], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvisions_networks_read_what_they_were_trained_for(saved, channels):
    """ImageNet's statistics, and grey images as three equal channels."""
    from torchvision import models

    torch.manual_seed(0)
    network, images = models.resnet18(weights=None).eval(), images_of(channels, size=32, count=3)
    path = saved(network)
    found = extracted({"network": "torchvision.resnet18", "dtype": "float32"}, path, images)
    network.fc = torch.nn.Identity()
    pixels = normalised(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # grey ones are broadcast
    expected = network(pixels.float()).detach()
    torch.testing.assert_close(torch.as_tensor(found[0:3])[:, 0, 0], expected, rtol=1e-3, atol=1e-4)


def test_what_float16_does_not_hold_is_refused(saved):
    network, images = resnet8(), images_of(1)
    path = saved(network, **{"bn.weight": torch.full((64,), 1e6)})
    with pytest.raises(UserError, match="which float16 does not hold. Set features.dtype=float32"):
        extracted({"network": "resnet8"}, path, images)
    assert np.isfinite(extracted({"network": "resnet8", "dtype": "float32"}, path, images)[0:7]).all()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"network": "cnn4"}, "features.weights: the tensors of .* are not those of this network"),
        ({"network": "resnet9"}, "found 'resnet9'"),
        ({"network": "torchvision.resnet19"}, "features.network: torchvision has no 'resnet19'. Did you mean 'resnet1"),
        ({"network": "resnet8", "layer": "stage4"}, "features.layer: found 'stage4'. Did you mean 'stage3'"),
        ({"network": "resnet8", "mean": [0.1, 0.2]}, "features.mean: found 2 items; 1 are needed"),
    ],
)
def test_mistakes_are_answered(saved, features, message):
    with pytest.raises(UserError, match=message):
        extracted(features, saved(resnet8()), images_of(1))
