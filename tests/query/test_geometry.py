"""Points, k-centre, k-means++ and k-means against plain numpy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from kafal_pipeline.query.geometry.k_centre import k_centre
from kafal_pipeline.query.geometry.k_means import k_means, k_means_pp, nearest_to_centres
from kafal_pipeline.query.geometry.points import Points, points_of

from .conftest import make_query


def cloud(n, seed, width=3):
    return Points((torch.tensor(np.random.default_rng(seed).normal(size=(n, width))),))


def outer(n, seed):
    rng = np.random.default_rng(seed)
    return Points((torch.tensor(rng.normal(size=(n, 4))), torch.tensor(rng.normal(size=(n, 5)))))


@pytest.mark.parametrize("points", [cloud(30, 0), outer(30, 0)], ids=["features", "gradients"])
def test_distances_are_those_of_the_vectors(points):
    rows = points.dense().numpy()
    expected = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(points.squared_distances(points).numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(points.take(np.array([3])).nearest(points.part(4, 30)).numpy(), expected[3, 4:].min())


def test_gradient_embeddings_are_those_of_the_cross_entropy(make_pool):
    """By automatic differentiation of the head's weights, with the predicted class for a label."""
    pool = make_pool(samples=6)
    weight = pool.head("global").weight.requires_grad_()
    rows = points_of(pool, "gradients", "global").dense()
    for row, h in zip(rows, pool.features("global"), strict=True):
        logits = weight @ h
        loss = torch.nn.functional.cross_entropy(logits.unsqueeze(0), logits.argmax().unsqueeze(0))
        (gradient,) = torch.autograd.grad(loss, weight)
        np.testing.assert_allclose(row.numpy(), gradient.flatten().numpy(), atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(0, 3))
def test_k_centre_always_takes_the_farthest_and_is_a_2_approximation(seed, count, seeds):
    points, known = cloud(12, seed), cloud(seeds, seed + 1) if seeds else None
    positions, distances = k_centre(points, known, count, np.random.default_rng(seed))
    rows = points.dense().numpy()
    covered = [] if known is None else list(known.dense().numpy())
    for position, distance in zip(positions, distances, strict=True):
        if covered:
            to_nearest = np.array([min(np.linalg.norm(row - c) for c in covered) for row in rows])
            assert distance == pytest.approx(to_nearest.max(), rel=1e-9, abs=1e-12)
            assert to_nearest[position] == pytest.approx(to_nearest.max(), rel=1e-9, abs=1e-12)
        covered.append(rows[position])
    assert len(set(positions.tolist())) == count


@pytest.mark.parametrize("space", ["features", "normalised", "gradients"])
def test_coreset_agrees_with_a_plain_greedy_choice(make_pool, space):
    pool = make_pool(samples=30, seed=2)
    rows, known = (points_of(pool, space, "global", labelled=flag).dense().numpy() for flag in (False, True))
    covered = list(known)
    expected = []
    for _ in range(6):
        farthest = max(range(30), key=lambda i: min(np.linalg.norm(rows[i] - c) for c in covered))
        expected.append(int(pool.samples[farthest]))
        covered.append(rows[farthest])
    assert make_query("coreset", space=space).select(pool, 6, np.random.default_rng(0)).samples.tolist() == expected


def test_k_means_pp_begins_with_the_longest_and_never_draws_twice():
    points = outer(20, 3)
    positions, distances = k_means_pp(points, 20, np.random.default_rng(0), first="longest")
    assert positions[0] == np.linalg.norm(points.dense().numpy(), axis=1).argmax()
    assert sorted(positions.tolist()) == list(range(20))
    rows = points.dense().numpy()
    for step in range(1, 20):
        nearest = min(np.linalg.norm(rows[positions[step]] - rows[p]) for p in positions[:step])
        assert distances[step] == pytest.approx(nearest, rel=1e-9)


def test_k_means_pp_draws_by_squared_distance():
    points = Points((torch.tensor([[9.0], [8.0], [6.0], [9.0]]),))
    counts = np.zeros(4)
    for seed in range(3000):
        positions, _ = k_means_pp(points, 2, np.random.default_rng(seed), first="longest")
        first, second = (int(points.factors[0][p]) for p in positions)
        assert first == 9
        counts[{8: 1, 6: 2, 9: 3}[second]] += 1
    assert counts[3] == 0  # the other 9 is at distance 0
    assert counts[2] / 3000 == pytest.approx(9 / (1 + 9), abs=0.02)


def test_points_that_all_coincide_are_drawn_at_random():
    points = Points((torch.ones(5, 2, dtype=torch.float64) * 0.1, torch.ones(5, 3, dtype=torch.float64) * 0.3))
    choices = {tuple(k_means_pp(points, 3, np.random.default_rng(s), first="longest")[0].tolist()) for s in range(20)}
    assert len(choices) > 5


def test_k_means_is_as_good_as_scikit_learns_and_its_labels_are_the_nearest_means():
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(c, 0.3, size=(40, 2)) for c in ([0, 0], [5, 0], [0, 5])])
    points = Points((torch.tensor(rows),))
    labels, squared = k_means(points, 3, np.random.default_rng(1))
    reference = KMeans(3, n_init=5, random_state=0).fit(rows)
    assert squared.sum() == pytest.approx(reference.inertia_, rel=1e-6)
    means = np.array([rows[labels == c].mean(axis=0) for c in range(3)])
    np.testing.assert_allclose(squared, ((rows[:, None] - means) ** 2).sum(axis=2).min(axis=1), rtol=1e-9)
    nearest = nearest_to_centres(labels, squared)
    assert sorted(labels[nearest].tolist()) == [0, 1, 2]
    assert all(squared[p] == squared[labels == labels[p]].min() for p in nearest)


def test_weights_pull_the_means():
    points = Points((torch.tensor([[1.0], [3.0]], dtype=torch.float64),))
    _, squared = k_means(points, 1, np.random.default_rng(0), np.array([3.0, 1.0]))
    assert squared == pytest.approx([0.25, 2.25])
