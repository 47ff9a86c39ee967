"""The first labels: chosen by pixels alone, by an oracle's trial, people's and a site's in the same way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kafal_pipeline.config import BudgetConfig
from kafal_pipeline.data.pools import at_random, client_pools, initial_pool
from kafal_pipeline.query.first import first_order, standardised

from .plain import dot, minus, norm, rows, unit
from .test_herding import plain_herding

RNG = np.random.default_rng
SAMPLES = np.arange(3, 33)


@pytest.fixture
def images():
    """Three kinds of images of 4 x 3 pixels in two channels, the first pixel always black."""
    rng = RNG(0)
    kinds = rng.integers(40, 200, size=(3, 4, 3, 2))
    found = (kinds[rng.integers(3, size=40)] + rng.integers(-30, 30, size=(40, 4, 3, 2))).astype(np.uint8)
    found[:, 0, 0] = 0
    return found


def plain_vectors(images, samples):
    flat = images[samples].reshape(len(samples), -1).astype(float)
    spread = flat.std(axis=0)
    return ((flat - flat.mean(axis=0)) / np.where(spread > 0, spread, 1)).tolist()


def nothing_known():
    return np.zeros(len(SAMPLES), dtype=bool)


def test_samples_are_standardised_pixels_and_large_images_means_over_a_grid(images):
    found = standardised(images, SAMPLES)
    pixel_order = np.array(plain_vectors(images, SAMPLES)).reshape(30, 4, 3, 2).transpose(0, 3, 1, 2).reshape(30, -1)
    np.testing.assert_allclose(found.numpy(), pixel_order, atol=1e-12)
    grid = images.repeat(2, axis=1)[:, :, [0, 0, 0, 1, 1, 2, 2, 2]]  # 8 x 8 as it is
    large = grid.repeat(3, axis=1).repeat(2, axis=2)
    assert standardised(large, SAMPLES).shape == (30, 2 * 8 * 8)
    torch.testing.assert_close(standardised(large, SAMPLES), standardised(grid, SAMPLES), atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("known", [0, 6])
def test_herding_covers_the_samples_without_a_label(images, seed, known):
    labelled = nothing_known()
    labelled[::5] = known > 0
    order = first_order(images, "herding")(SAMPLES, labelled, 8, RNG(seed))
    assert sorted(order) == np.flatnonzero(~labelled).tolist()
    rng = RNG(seed)
    shuffled = at_random(SAMPLES, labelled, 8, rng)
    vectors = [unit(v) for v in plain_vectors(images, SAMPLES)]
    seeds = [v for v, has in zip(vectors, labelled, strict=True) if has]
    unknown = np.flatnonzero(~labelled)
    mixed = rng.permutation(len(unknown)).tolist()
    taken, _ = plain_herding([vectors[i] for i in unknown], seeds, 8, mixed, 1.0)
    assert order[:8].tolist() == unknown[taken].tolist()
    assert order[8:].tolist() == [i for i in shuffled if i not in order[:8]]


def test_k_means_takes_the_sample_nearest_to_the_mean_of_each_kind(images):
    order = first_order(images, "k_means")(SAMPLES, nothing_known(), 3, RNG(0))
    vectors = rows(standardised(images, SAMPLES))
    heads = [vectors[i] for i in order[:3]]
    groups = [[], [], []]
    for i, v in enumerate(vectors):
        groups[int(np.argmin([norm(minus(v, head)) for head in heads]))].append(i)
    for head, group in zip(order[:3], groups, strict=True):
        centre = np.mean([vectors[i] for i in group], axis=0).tolist()
        assert head == min(group, key=lambda i: dot(minus(vectors[i], centre), minus(vectors[i], centre)))


@pytest.mark.parametrize("how", ["random", "k_means", "herding"])
@pytest.mark.parametrize("count", [0, 1, 29, 30, 50])
def test_every_sample_without_a_label_is_ordered_once(images, how, count):
    one_known = nothing_known()
    one_known[4] = True
    assert sorted(first_order(images, how)(SAMPLES, one_known, count, RNG(0))) == [*range(4), *range(5, 30)]
    same = images[[0] * 40]
    assert sorted(first_order(same, how)(SAMPLES, one_known, count, RNG(0))) == [*range(4), *range(5, 30)]


def test_random_is_the_permutation_that_it_has_always_been(images):
    order = first_order(images, "random")(SAMPLES, nothing_known(), 5, RNG(7))
    assert order.tolist() == RNG(7).permutation(30).tolist()


@pytest.mark.parametrize("how", ["k_means", "herding"])
def test_features_in_the_place_of_images(how):
    features = RNG(0).normal(size=(40, 1, 1, 20)).astype(np.float16)
    split, budget = [SAMPLES[:14], SAMPLES[14:]], BudgetConfig(initial=4, per_cycle=2)
    pool = initial_pool(split, np.arange(40) % 3, budget, 2, 0, first_order(features, how))
    assert [len(own.labelled) for own in client_pools(pool).values()] == [4, 4]
    other = initial_pool(split, np.arange(40) % 3, budget, 2, 0)
    assert not pool["labelled_in_cycle"].equals(other["labelled_in_cycle"])
