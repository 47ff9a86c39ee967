"""Herding and what is made of it, against the formulas written out sample by sample."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest
import torch
from skactiveml.pool import MaxHerding

from kafal_pipeline.query.geometry.herding import herding, median_distance, spacing
from kafal_pipeline.query.geometry.points import Points
from kafal_pipeline.query.pool import Outputs
from kafal_pipeline.query.uherding import TEMPERATURES, calibrated_temperature

from .conftest import informed, make_query
from .plain import argmax, by_size, dot, minus, norm, rows, softmax, unit

RNG = np.random.default_rng


def plain_herding(vectors, seeds, count, order, sigma, weights=None):
    """Return positions and gains; the first in `order` of equal gains is taken."""
    weights = weights or [1.0] * len(vectors)

    def kernel(a, b):
        return exp(-dot(minus(a, b), minus(a, b)) / sigma**2)

    covered = [max((kernel(v, seed) for seed in seeds), default=0.0) for v in vectors]
    taken, gains = [], []
    while len(taken) < count:
        left = [x for x in order if x not in taken]
        gain = [
            sum(
                w * max(kernel(v, vectors[x]) - m, 0) for v, m, w in zip(vectors, covered, weights, strict=True)
            )
            / len(vectors)
            for x in left
        ]  # fmt: skip
        best = argmax([round(g, 12) for g in gain])
        taken.append(left[best])
        gains.append(gain[best])
        covered = [max(m, kernel(v, vectors[taken[-1]])) for v, m in zip(vectors, covered, strict=True)]
    return taken, gains


def units(pool, labelled=False):
    return [unit(h) for h in rows(pool.features("global", labelled=labelled))]


def check(choice, pool, taken, gains):
    assert choice.samples.tolist() == pool.samples[taken].tolist()
    np.testing.assert_allclose(choice.scores, gains, rtol=1e-9, atol=2e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sigma", [0.5, 1.0, 5.0])
@pytest.mark.parametrize("labelled", [0, 9])
def test_max_herding(make_pool, seed, sigma, labelled):
    pool = make_pool(samples=30, seed=seed, labelled=labelled)
    seeds = units(pool, labelled=True) if labelled else []
    for budget in (1, 7, 30):
        expected = plain_herding(units(pool), seeds, budget, RNG(seed).permutation(30).tolist(), sigma)
        check(make_query("max_herding", sigma=sigma).select(pool, budget, RNG(seed)), pool, *expected)


def test_max_herding_as_scikit_activeml_has_it(make_pool):
    pool = make_pool(samples=60, seed=3)
    table = np.concatenate([pool.features("global", labelled=flag).numpy() for flag in (True, False)])
    labels = np.concatenate([pool.labels, np.full(60, np.nan)])
    query = MaxHerding(metric_dict={"gamma": 1 / 0.7**2}, random_state=0)
    theirs, gains = query.query(table, labels, batch_size=12, return_utilities=True)
    ours = make_query("max_herding", sigma=0.7).select(pool, 12, RNG(0))
    check(ours, pool, theirs - len(pool.labels), np.nanmax(gains, axis=1))


@pytest.mark.parametrize("spread", [0.05, 1.0])
def test_a_lazy_choice_over_many_blocks_is_the_greedy_one(spread):
    """With more points than a tile has, so that bounds are computed again in several blocks."""
    rng = RNG(0)
    x = torch.tensor(rng.normal(size=(7, 5))[rng.integers(7, size=1300)] + spread * rng.normal(size=(1300, 5)))
    weights = rng.random(1300)
    positions, gains = herding(Points((x,)), None, 60, RNG(1), sigma=0.8, weights=weights)
    kernel = torch.exp(-torch.cdist(x, x).square() / 0.8**2).numpy()
    covered = np.zeros(1300)
    for position, gain in zip(positions, gains, strict=True):
        all_gains = (weights[:, None] * np.maximum(kernel - covered[:, None], 0)).mean(axis=0)
        assert gain == pytest.approx(all_gains[position], rel=1e-9)
        assert gain == pytest.approx(all_gains.max(), rel=1e-9)
        covered = np.maximum(covered, kernel[position])
    assert (np.diff(gains) <= 0).all()


def test_copies_of_labelled_or_chosen_samples_come_last_with_no_gain(make_pool):
    plain = make_pool(samples=24, labelled=6)
    places = {int(sample): spot % 5 for spot, sample in enumerate(plain.samples)}
    places |= {int(sample): 4 for sample in plain.labelled}  # so that of the 5 places one is labelled

    def outputs(kind, wanted):
        return plain.forward(kind, np.array([places[int(sample)] for sample in wanted]))

    pool = make_pool(samples=24, labelled=6, outputs=outputs)
    for name in ("max_herding", "uherding"):
        chosen = make_query(name).select(pool, 10, RNG(0))
        assert sorted(places[int(sample)] for sample in chosen.samples[:4]) == [0, 1, 2, 3]
        assert (chosen.scores[:4] > 0).all()
        assert (chosen.scores[4:] == 0).all()


def test_a_random_subset_stands_for_a_large_pool(make_pool):
    pool, query = make_pool(samples=40, seed=2), make_query("max_herding", sample=12)
    subset = RNG(5).permutation(40)[:12]
    vectors = units(pool)
    taken, gains = plain_herding([vectors[i] for i in subset], units(pool, labelled=True), 5, range(12), 1.0)
    check(query.select(pool, 5, RNG(5)), pool, subset[taken], gains)
    assert len(set(query.select(pool, 20, RNG(5)).samples)) == 20


def test_widths_by_the_data():
    x = Points((torch.tensor([[0.0], [0.0], [1.0], [3.0], [7.0]], dtype=torch.float64),))
    assert median_distance(x, RNG(0)) == 3  # of 1, 1, 2, 3, 3, 4, 6, 7, 7: copies are left out
    assert spacing(x) == 1  # of 1, 1, 1, 2, 4
    assert spacing(x.take(np.array([0, 1]))) == median_distance(x.take(np.array([0, 1])), RNG(0)) == 1


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
def test_uherding(make_pool, temperature):
    pool = make_pool(samples=30, seed=4)
    known = units(pool, labelled=True)
    gaps = [min(norm(minus(a, b)) for b in known if b is not a) for a in known]
    weights = []
    for z in rows(pool.logits("global")):
        *_, second, first = sorted(softmax([v / temperature for v in z]))
        weights.append(1 - (first - second))
    expected = plain_herding(units(pool), known, 9, RNG(0).permutation(30).tolist(), float(np.median(gaps)), weights)
    check(make_query("uherding", temperature=temperature).select(pool, 9, RNG(0)), pool, *expected)


def test_uherding_without_labels_or_hot_is_max_herding(make_pool):
    empty, pool = make_pool(labelled=0), make_pool()
    hot = make_query("uherding", temperature=1e9, sigma=0.8).select(pool, 8, RNG(0))
    cold = make_query("max_herding", sigma=0.8).select(pool, 8, RNG(0))
    assert hot.samples.tolist() == cold.samples.tolist()
    first, second = (make_query(name).select(empty, 8, RNG(0)) for name in ("uherding", "max_herding"))
    assert (first.samples.tolist(), first.scores.tolist()) == (second.samples.tolist(), second.scores.tolist())


def test_uherding_of_narrow_kernels_is_margin_sampling(make_pool):
    pool = make_pool(samples=30)
    narrow = make_query("uherding", temperature=1, sigma=0.001).select(pool, 12, RNG(0))
    margin = make_query("margin").select(pool, 12, RNG(0))
    assert narrow.samples.tolist() == margin.samples.tolist()
    np.testing.assert_allclose(narrow.scores * 30, margin.scores, rtol=0, atol=1e-10)


def held_out(temperature, size=4000):
    """Logits, and labels that are right as often as ``softmax(logits / temperature)`` says."""
    rng = RNG(0)
    logits = torch.tensor(4 * rng.normal(size=(size, 5)))
    p = (logits / temperature).softmax(dim=1).numpy()
    return logits, np.array([rng.choice(5, p=row / row.sum()) for row in p])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_temperature_of_the_least_calibration_error_is_the_true_one(temperature):
    found = calibrated_temperature(*held_out(temperature))
    assert abs(np.log(found / temperature)) <= np.log(TEMPERATURES[1] / TEMPERATURES[0]) + 1e-9
    assert calibrated_temperature(*(part[:9] for part in held_out(temperature))) == 1.0


def test_uherding_calibrates_on_what_it_said_of_samples_before_they_were_labelled(make_pool):
    """Logits four times too large: their labels tell, once there are enough; those of others do not matter."""
    logits, labels = held_out(4.0, size=1000)

    def outputs(kind, wanted):
        return Outputs(logits[wanted], make_pool().forward(kind, wanted).features)

    before = make_pool(samples=600, classes=5, outputs=outputs)
    first = make_query("uherding").select(before, 400, RNG(0))
    answered = np.sort(first.samples[::2])  # people have declined the others
    after = make_pool(samples=300, seed=1, classes=5, outputs=outputs)
    for name, values in (("labelled", answered), ("labels", labels[answered]), ("memory", first.memory)):
        object.__setattr__(after, name, values)
    expected = calibrated_temperature(logits[answered], labels[answered])
    assert 2.5 < expected < 6.5
    second, told = (make_query("uherding", **o).select(after, 9, RNG(0)) for o in ({}, {"temperature": expected}))
    assert (second.samples.tolist(), second.scores.tolist()) == (told.samples.tolist(), told.scores.tolist())


@pytest.mark.parametrize("quota", ["none", "global_prototypes"])
def test_herding_as_a_diversity_step_weighs_candidates_by_their_scores(make_pool, quota):
    query = make_query("compose", score="ksas", quota=quota, diversity="herding", space="normalised", candidates=3)
    pool = informed(query, make_pool(samples=40, seed=2))
    choice, rng = query.select(pool, 9, RNG(0)), RNG(0)
    scores = make_query("ksas").scores(pool, None).tolist()
    groups = query.quota_part.groups(pool, 9)
    order, vectors, known = by_size(scores, rng), units(pool), units(pool, labelled=True)
    taken = []
    for group in np.flatnonzero(groups.quotas):
        count = int(groups.quotas[group])
        best = [i for i in order if groups.group[i] == group][: 3 * count]
        seeds = [v for v, y in zip(known, pool.labels, strict=True) if not groups.classes or y == group]
        rng.permutation(len(best))  # for the median of up to 1000 points
        own = [vectors[i] for i in best]
        pairs = sorted(norm(minus(a, b)) for a in own for b in own if a is not b)
        sigma = pairs[(len(pairs) - 1) // 2] if pairs else 1.0
        mixed = rng.permutation(len(best)).tolist()
        spots, _ = plain_herding(own, seeds, count, mixed, sigma, [scores[i] for i in best])
        taken += [best[spot] for spot in spots]
    assert sorted(choice.samples.tolist()) == sorted(pool.samples[taken].tolist())
    assert choice.samples.tolist() != make_query("ksas").select(pool, 9, RNG(0)).samples.tolist()
