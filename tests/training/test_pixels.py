from __future__ import annotations

import numpy as np
import pytest
import torch

from kafal_pipeline.config import AugmentationConfig
from kafal_pipeline.training.device_images import Pixels


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, size=(50, 6, 5, 3), dtype=np.uint8)


def make(images, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)):
    return Pixels(images, mean, std, torch.device("cpu"))


def test_normalises_as_torchvision_does(images):
    v2 = pytest.importorskip("torchvision.transforms.v2.functional")
    expected = v2.normalize(torch.tensor(images[[4, 2]]).permute(0, 3, 1, 2) / 255, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    torch.testing.assert_close(make(images).batch(torch.tensor([4, 2])), expected, rtol=1e-5, atol=1e-6)


def test_batches_are_channels_last(images):
    batch = make(images).batch(torch.arange(4))
    assert batch.shape == (4, 3, 6, 5)
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_shares_the_memory_of_the_array(images):
    pixels = make(images)
    images[0] = 7
    assert (pixels.images[0] == 7).all()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_augmented_images_are_flips_and_crops_of_the_padded_image(images, flip, padding):
    pixels = make(images, mean=(0, 0, 0), std=(1, 1, 1))
    augmentation = AugmentationConfig(flip=flip, crop_padding=padding)
    indices = torch.arange(50)
    batch = pixels.augmented(indices, augmentation, torch.Generator().manual_seed(0))
    found = set()
    for image, changed in zip(images, batch.mul(255).round().permute(0, 2, 3, 1).numpy().astype(np.uint8), strict=True):
        matches = []
        for flipped in (False, True):
            source = image[:, ::-1] if flipped else image
            padded = np.pad(source, ((padding, padding), (padding, padding), (0, 0)))
            for top in range(2 * padding + 1):
                for left in range(2 * padding + 1):
                    if np.array_equal(padded[top : top + 6, left : left + 5], changed):
                        matches.append((flipped, top, left))
        assert len(matches) == 1
        found.add(matches[0])
    assert {flipped for flipped, _, _ in found} == ({False, True} if flip else {False})
    assert {top for _, top, _ in found} == set(range(2 * padding + 1))
    assert {left for _, _, left in found} == set(range(2 * padding + 1))


def test_augmentation_depends_on_the_generator_alone(images):
    augmentation = AugmentationConfig(flip=True, crop_padding=2)
    first, second = (
        make(images).augmented(torch.arange(9), augmentation, torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(first, second)
