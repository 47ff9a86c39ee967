"""Every score against the formula written out sample by sample, in plain Python and float64."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
from scipy import special, stats

from kafal_pipeline.query.parts.uncertainty import reciprocal_ranks

from .conftest import make_query
from .plain import entropy, mean, rows, softmax


def margin(pool):
    return [1 - (sorted(p)[-1] - sorted(p)[-2]) for p in map(softmax, rows(pool.logits("global")))]


def least_confidence(pool):
    return [1 - max(p) for p in map(softmax, rows(pool.logits("global")))]


def egl(pool):
    scores = []
    for z, h in zip(rows(pool.logits("global")), rows(pool.features("global")), strict=True):
        p = softmax(z)
        total = 0.0
        for y in range(len(p)):  # the gradient of CE with respect to W, entry by entry
            gradient = [(p[c] - (c == y)) * v for c in range(len(p)) for v in h]
            total += p[y] * sqrt(sum(g * g for g in gradient))
        scores.append(total)
    return scores


def qbc(pool, committee=("global", "local")):
    scores = []
    for logits in zip(*(rows(pool.logits(member)) for member in committee), strict=True):
        predicted = [softmax(z) for z in logits]
        middle = mean(predicted)
        scores.append(sum(float(stats.entropy(p, middle)) for p in predicted) / len(committee))
    return scores


def feal(pool):
    def aleatoric(a):
        s = sum(a)
        return sum(v / s * (special.digamma(s + 1) - special.digamma(v + 1)) for v in a)

    evidence = {kind: [[1 + max(v, 0) for v in z] for z in rows(pool.logits(kind))] for kind in ("global", "local")}
    epistemic = [float(stats.dirichlet(a).entropy()) for a in evidence["global"]]
    low, high = min(epistemic), max(epistemic)
    return [
        (e - low) / (high - low) * (aleatoric(g) + aleatoric(own))
        for e, g, own in zip(epistemic, evidence["global"], evidence["local"], strict=True)
    ]


def chase(pool):
    watched = dict(zip(pool.watched["samples"].tolist(), pool.watched["changes"].tolist(), strict=True))
    return [watched.get(sample, -1) for sample in pool.samples.tolist()]


def rank_sum(pool, smoothing=1.0):
    counts = [int(n) + smoothing for n in pool.label_counts]

    def weighed(z):
        return softmax([v + log(n) for v, n in zip(z, counts, strict=True)])

    ksas = [
        (stats.entropy(weighed(a), weighed(b)) + stats.entropy(weighed(b), weighed(a))) / 2
        for a, b in zip(rows(pool.logits("local")), rows(pool.logits("global")), strict=True)
    ]
    doubt = [entropy(softmax(z)) for z in rows(pool.logits("global"))]

    def rank(values, own):
        return 1 + sum(v > own for v in values)

    return [1 / (20 + rank(ksas, a)) + 1 / (20 + rank(doubt, b)) for a, b in zip(ksas, doubt, strict=True)]


TWINS = {
    "margin": margin,
    "least_confidence": least_confidence,
    "egl": egl,
    "qbc": qbc,
    "feal": feal,
    "chase": chase,
    "rank_sum": rank_sum,
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", TWINS)
def test_agrees_with_brute_force(name, seed, make_pool):
    pool = make_pool(samples=25, classes=4, seed=seed)
    expected = TWINS[name](pool)
    scores = make_query(name).scores(pool, np.random.default_rng(0))
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-12)


def test_every_member_of_a_committee_counts(make_pool):
    pool, committee = make_pool(), ("global", "local", "finetuned")
    scores = make_query("qbc", committee=committee).scores(pool, None)
    np.testing.assert_allclose(scores, qbc(pool, committee), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.01, 30.0])
def test_rank_sum_smooths_as_much_as_it_is_reported(make_pool, smoothing):
    pool = make_pool()
    expected = rank_sum(pool, smoothing)
    assert expected != pytest.approx(rank_sum(pool))
    np.testing.assert_allclose(make_query("rank_sum", prior_smoothing=smoothing).scores(pool, None), expected)


def test_bald_agrees_with_brute_force_over_the_masks_it_draws(make_pool):
    pool = make_pool(samples=12, classes=3, seed=4)
    scores = make_query("bald", passes=5, rate=0.4).scores(pool, np.random.default_rng(7))
    rng = np.random.default_rng(7)
    masks = [[float(v >= 0.4) / 0.6 for v in rng.random(6)] for _ in range(5)]
    weight, bias = pool.head("global")
    for h, score in zip(rows(pool.features("global")), scores, strict=True):
        passes = [
            softmax(
                [
                    sum(w * v * m for w, v, m in zip(line, h, mask, strict=True)) + b
                    for line, b in zip(rows(weight), rows(bias), strict=True)
                ]
            )
            for mask in masks
        ]
        mean = [sum(column) / 5 for column in zip(*passes, strict=True)]
        assert score == pytest.approx(entropy(mean) - sum(map(entropy, passes)) / 5, rel=1e-9)


def test_bald_without_doubt_about_parameters_is_zero(make_pool):
    scores = make_query("bald", rate=1e-12).scores(make_pool(), np.random.default_rng(0))
    assert scores == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["entropy", "margin", "least_confidence"])
def test_ensembles_are_made_of_both_models(name, make_pool):
    pool = make_pool(samples=15, seed=3)
    local, global_ = (make_query(name, model=kind).scores(pool, None) for kind in ("local", "global"))
    by_rank = make_query(name, model="ensemble_rank").scores(pool, None)
    expected = [
        1 / (20 + 1 + sum(local > a)) + 1 / (20 + 1 + sum(global_ > b)) for a, b in zip(local, global_, strict=True)
    ]
    np.testing.assert_allclose(by_rank, expected, rtol=1e-12)
    p = (pool.probabilities("local") + pool.probabilities("global")) / 2
    of_mean = {
        "entropy": [entropy(row) for row in rows(p)],
        "margin": [1 - (sorted(row)[-1] - sorted(row)[-2]) for row in rows(p)],
        "least_confidence": [1 - max(row) for row in rows(p)],
    }
    np.testing.assert_allclose(make_query(name, model="ensemble_logit").scores(pool, None), of_mean[name], rtol=1e-9)


def test_equal_scores_share_a_rank():
    ranks = 1 / reciprocal_ranks(np.array([2.0, 1.0, 2.0, 2.0, 0.0])) - 20
    assert ranks == pytest.approx(6 - stats.rankdata([2.0, 1.0, 2.0, 2.0, 0.0]))
