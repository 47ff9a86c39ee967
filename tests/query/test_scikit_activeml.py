"""Queries against scikit-activeml's, where it has the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skactiveml import pool as skactiveml
from skactiveml.classifier import SklearnClassifier
from sklearn.linear_model import LogisticRegression

from kafal_pipeline.query.pool import Outputs

from .conftest import make_query

RNG = np.random.default_rng


def select(pool, budget, name, seed=0, **options):
    return make_query(name, **options).select(pool, budget, RNG(seed))


def table(pool, model="global", unit=False):
    """Features of labelled and then unlabelled samples, and their labels, unknown ones not-a-number."""
    rows = np.concatenate([pool.features(model, labelled=flag).numpy() for flag in (True, False)])
    if unit:
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows, np.concatenate([pool.labels, np.full(len(pool), np.nan)])


@pytest.mark.parametrize(
    ("name", "method"),
    [("entropy", "entropy"), ("margin", "margin_sampling"), ("least_confidence", "least_confident")],
)
def test_uncertainty(make_pool, name, method):
    pool = make_pool(samples=50)
    theirs = skactiveml.uncertainty_scores(pool.probabilities("global").numpy(), method=method)
    np.testing.assert_allclose(make_query(name).scores(pool, RNG(0)), theirs, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_coreset(make_pool, seed):
    pool = make_pool(samples=50, seed=seed)
    rows, labels = table(pool)
    theirs, distances = skactiveml.CoreSet(random_state=0).query(rows, labels, batch_size=10, return_utilities=True)
    ours = select(pool, 10, "coreset")
    assert ours.samples.tolist() == pool.samples[theirs - len(pool.labels)].tolist()
    np.testing.assert_allclose(ours.scores, np.nanmax(distances, axis=1))


def test_badge(make_pool):
    """Embeddings far from the origin: scikit-activeml also keeps distances to it, as if it were a centre."""
    weight = RNG(1).normal(size=(4, 6)) / 40
    weight[0] += 0.1  # all are predicted to be of one class

    def outputs(kind, wanted):
        features = np.array([4 + RNG(int(sample)).normal(size=6) for sample in wanted])
        return Outputs(torch.tensor(features @ weight.T), torch.tensor(features))

    pool = make_pool(samples=12, outputs=outputs)
    rows, labels = table(pool)
    clf = SklearnClassifier(LogisticRegression(), classes=range(4)).fit(np.eye(4), np.arange(4))
    clf.predict_proba = lambda features: torch.tensor(features @ weight.T).softmax(dim=1).numpy()
    query = skactiveml.Badge(random_state=0)
    theirs, chances = query.query(rows, labels, clf, fit_clf=False, batch_size=2, return_utilities=True)
    first = pool.samples[theirs[0] - len(pool.labels)]
    draws = [select(pool, 2, "badge", seed).samples for seed in range(1500)]
    assert all(first in draw for draw in draws)
    others = np.array([draw[draw != first][0] for draw in draws])
    shares = np.array([(others == sample).mean() for sample in pool.samples])
    np.testing.assert_allclose(shares, np.nan_to_num(chances[1][len(pool.labels) :]), rtol=0, atol=0.04)


def test_typiclust_of_clusters_without_labels(make_pool):
    """Where clusters are plain and none has a label, both take the most typical sample of the largest clusters."""
    centres = 10 * np.eye(6)[:3]

    def outputs(kind, wanted):
        noise = np.array([RNG(int(sample)).normal(size=6) for sample in wanted])
        return Outputs(torch.zeros(len(wanted), 4), torch.tensor(centres[np.asarray(wanted) % 3] + noise))

    pool = make_pool(samples=40, labelled=0, outputs=outputs)
    rows, labels = torch.nn.functional.normalize(pool.features("global"), dim=1).numpy(), np.full(40, np.nan)
    theirs = skactiveml.TypiClust(random_state=0, k=4).query(rows, labels, batch_size=3)
    ours = select(pool, 3, "typiclust", neighbours=4)
    assert sorted(ours.samples.tolist()) == sorted(pool.samples[theirs].tolist())


@pytest.mark.filterwarnings("ignore:The maximum purity")
@pytest.mark.parametrize("seed", range(3))
def test_probcover(make_pool, seed):
    """Each choice is one of scikit-activeml's best, given those before; ties are drawn."""
    pool = make_pool(samples=40, seed=seed)
    rows, labels = table(pool, unit=True)
    ours = select(pool, 6, "probcover", delta=0.7)
    for sample, score in zip(ours.samples, ours.scores, strict=True):
        query = skactiveml.ProbCover(random_state=0, deltas=[0.7])
        _, covered = query.query(rows, labels, batch_size=1, return_utilities=True)
        position = len(pool.labels) + np.flatnonzero(pool.samples == sample)[0]
        assert covered[0, position] == np.nanmax(covered) == score
        labels[position] = 0
